"""Pictures of handwritten numbers, and questions about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.digits import Inks, draw_inks_, handwriting, split_numbers
from minivlm.world.palette import COLOURS
from minivlm.world.paper import check_canvas, check_range, draw_paper, fit, sheets
from minivlm.world.questions import Question
from minivlm.world.strings import chosen

#: Most digits of a number, unless one asks for something else.
MOST = 3

WORDS = tuple("what number is written the sum of digits are and".split())

#: Kind -> probability of a guess among all the answers that numbers drawn without further wishes can have.
CHANCE: dict[str, float] = {"digits": 1 / 10**MOST, "sum": 1 / (9 * MOST + 1)}


@dataclass(frozen=True)
class Numbers(Batch):
    """`b` pictures of up to `k` handwritten digits. Absent slots (from `count` on) hold zeros.

    In a row, digits stand from left to right and make a number; scattered, they stand anywhere and make none. Positions and
    sizes are in pixels of the picture that they were drawn for (`canvas`).
    """

    which: Int[Tensor, "b k"]  # number of the image in `handwriting()`
    digit: Int[Tensor, "b k"]
    count: Int[Tensor, "b"]
    position: Float[Tensor, "b k 2"]  # top left corner (x, y) of the digit's square, y down
    height: Float[Tensor, "b k"]  # of the square
    colour: Int[Tensor, "b"]  # of the ink: index into COLOURS
    background: Float[Tensor, "b 3"]  # RGB
    scattered: Int[Tensor, "b"]  # 1 if they are, else 0
    canvas: Int[Tensor, "b 2"]  # height and width in pixels

    def digits(self) -> list[list[int]]:
        """The digits of each picture, in order."""
        return [row[:n] for row, n in zip(self.digit.tolist(), self.count.tolist(), strict=True)]


def draw_numbers(
    rng: np.random.Generator,
    n: int,
    height: Any,
    width: Any,
    digits: Any = (1, MOST),
    size: Any = (9, 20),
    split: str = "train",
    scattered: bool = False,
) -> Numbers:
    """Draw `n` pictures of `height` x `width` pixels with `digits[0]` to `digits[1]` handwritten digits of a split.

    Digits are equally likely, but for the first of several in a row, which is no zero. Their squares have `size[0]` to
    `size[1]` pixels, less where many would not fit: equal ones in a row, any ones scattered, which never overlap.

    Raises:
        ValueError: no pictures, an impossible range, an unknown split, or a picture too small for its digits.
    """
    check_canvas(height, width)
    low, high = check_range("digits", digits, int)
    least, most = check_range("size", size)
    if n < 1:
        raise ValueError(f"draw_numbers needs at least one picture; got n={n}.")
    count = rng.integers(low, high + 1, n)
    present = np.arange(high) < count[:, None]
    digit = rng.integers(10, size=(n, high))
    if not scattered:
        digit[:, 0] = np.where(count > 1, 1 + rng.integers(9, size=n), digit[:, 0])
    which = _examples(rng, digit * present, split)
    position, sizes = (_scatter if scattered else _line_up)(rng, count, high, height, width, least, most)
    colour, background = draw_paper(rng, (n,))
    there = torch.from_numpy(present)
    return Numbers(
        which=torch.from_numpy(which) * there,
        digit=torch.from_numpy(digit) * there,
        count=torch.from_numpy(count),
        position=torch.from_numpy(position.astype(np.float32)) * there[..., None],
        height=torch.from_numpy(sizes.astype(np.float32)) * there,
        colour=colour,
        background=background,
        scattered=torch.full((n,), int(scattered)),
        canvas=torch.tensor((height, width)).expand(n, 2),
    )


def _examples(rng: np.random.Generator, digit: np.ndarray, split: str) -> np.ndarray:
    """The number of an image of each digit."""
    numbers = split_numbers(split).numpy()
    labels = handwriting().labels.numpy()[numbers]
    counts = np.bincount(labels, minlength=10)
    start = np.cumsum(counts) - counts
    place = start[digit] + (rng.random(digit.shape) * counts[digit]).astype(int)
    return numbers[labels.argsort(kind="stable")][place]


def _refuse(digits: int, least: float, fits: float, height: int, width: int) -> None:
    if fits < least:
        raise ValueError(
            f"{digits} digits of {least:g} pixels do not fit {width} x {height} pixels; {fits:.1f} would."
            " Make the picture larger, or ask for fewer or smaller digits."
        )


def _line_up(rng, count, slots, height, width, least, most) -> tuple[np.ndarray, np.ndarray]:
    """Squares (corners, sizes) of equal size in a row, with a gap at times, each a little higher or lower."""
    n, count = len(count), count[:, None]
    _refuse(slots, least, min(width / slots, float(height)), height, width)
    room = np.minimum(np.minimum(width / count, height), most)
    size = least + (room - least) * rng.random((n, 1))
    gap = np.minimum(size / 4, (width - size * count) / count) * rng.random((n, 1))
    first = (width - size * count - gap * (count - 1)) * rng.random((n, 1))
    x = first + (size + gap) * np.arange(slots)
    y = (height - size) * rng.random((n, 1)) + size * rng.uniform(-0.08, 0.08, (n, slots))
    y = np.clip(y, 0, height - size)
    return np.stack([x, y], -1), np.broadcast_to(size, (n, slots))


def _scatter(rng, count, slots, height, width, least, most) -> tuple[np.ndarray, np.ndarray]:
    """Squares (corners, sizes), each somewhere in a field of its own."""
    n = len(count)
    columns = max(range(1, slots + 1), key=lambda c: min(width / c, height / -(-slots // c)))
    rows = -(-slots // columns)
    field = np.array([width / columns, height / rows])
    _refuse(slots, least, float(field.min()), height, width)
    size = least + (min(field.min(), most) - least) * rng.random((n, slots))
    number = rng.random((n, rows * columns)).argsort(1, kind="stable")[:, :slots]
    corner = np.stack([number % columns, number // columns], -1) * field
    return corner + (field - size[..., None]) * rng.random((n, slots, 2)), size


def render(
    numbers: Numbers, height: Any = None, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of numbers: RGB in [0, 1], on `device`. Without a size, the one that the first was drawn for.

    On pictures of another size the sheet is scaled to fit, and centred.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    height = int(numbers.canvas[0, 0]) if height is None else height
    width = int(numbers.canvas[0, 1]) if width is None else width
    check_canvas(height, width)
    scale, shift = fit(numbers.canvas, height, width)
    scene, slot = (torch.arange(numbers.which.shape[1]) < numbers.count[:, None]).nonzero(as_tuple=True)
    none = torch.zeros(len(numbers), 0, 4)
    images = sheets(numbers.background, none, none[..., :3], height, width, device)
    return draw_inks_(
        images,
        Inks(
            dots=handwriting().images[numbers.which[scene, slot]],
            position=numbers.position[scene, slot] * scale[scene, None] + shift[scene],
            height=numbers.height[scene, slot] * scale[scene],
            colour=torch.tensor(list(COLOURS.values()))[numbers.colour[scene]],
            scene=scene,
        ),
    )


class NumberQuestions:
    """Draws questions: `NumberQuestions(rng)(numbers)` gives one a picture.

    "digits": the number that is written, of digits in a row alone; "sum": the sum of its digits.

    Args:
        rng: where the choices come from.
        kinds: which kinds to draw from, evenly among those that the picture allows.

    Raises:
        ValueError: no kinds, or one that does not exist.
    """

    def __init__(self, rng: np.random.Generator, kinds: Iterable[str] = tuple(CHANCE)) -> None:
        self.rng, self.kinds = rng, chosen(kinds, CHANCE)

    def __call__(self, numbers: Numbers) -> list[Question]:
        """One question a picture.

        Raises:
            ValueError: digits are scattered, and "digits" is the only kind.
        """
        asked = []
        choice = self.rng.random(len(numbers)).tolist()
        for digits, scattered, u in zip(numbers.digits(), numbers.scattered.tolist(), choice, strict=True):
            kinds = [kind for kind in self.kinds if not (scattered and kind == "digits")]
            if not kinds:
                raise ValueError('scattered digits are no number that could be read: add the kind "sum".')
            words = [str(digit) for digit in digits]
            number = "".join(words)
            told = f"the number {number} is written."
            if scattered and len(words) > 1:
                told = f"the digits {', '.join(words[:-1])} and {words[-1]} are written."
            if kinds[int(u * len(kinds))] == "digits":
                asked.append(Question("digits", told, "what number is written?", number))
            else:
                asked.append(Question("sum", told, "what is the sum of the digits?", str(sum(digits))))
        return asked
