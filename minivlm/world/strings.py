"""Cards with signs on them, to be read: any size, one card or several, on pictures of any shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.font import ASPECT, CHARACTERS, DIGITS, LETTERS, encode
from minivlm.world.glyphs import Glyphs, draw_glyphs_
from minivlm.world.palette import COLOURS
from minivlm.world.paper import check_canvas, check_range, draw_paper, fit, sheets
from minivlm.world.questions import Question

#: What cards are made of, unless one asks for something else: least and most signs, and which.
LENGTH, ALPHABET = (1, 4), LETTERS + DIGITS

#: Paper around a card's signs on each side, as a fraction of their height.
PADDING = 0.25

#: Words of the rows and columns of cards, by how many rows or columns there are.
ROWS = {1: ("",), 2: ("top", "bottom"), 3: ("top", "", "bottom")}
COLUMNS = {1: ("",), 2: ("left", "right"), 3: ("left", "", "right")}

WORDS = tuple("what does the card on at in left right top bottom middle say says is first last sign of".split())

#: Kind -> probability of a guess among all the answers that cards drawn without further wishes can have.
CHANCE: dict[str, float] = {
    "read": 1 / sum(len(ALPHABET) ** length for length in range(LENGTH[0], LENGTH[1] + 1)),
    "sign": 1 / len(ALPHABET),
}


@dataclass(frozen=True)
class Strings(Batch):
    """`b` pictures of `s` cards, in rows and columns, with up to `c` signs each. What is absent holds zeros.

    Positions and sizes are in pixels of the picture that they were drawn for (`canvas`).
    """

    character: Int[Tensor, "b s c"]  # index into CHARACTERS
    length: Int[Tensor, "b s"]  # signs on each card
    position: Float[Tensor, "b s 2"]  # top left corner (x, y) of the first sign's cell, y down
    height: Float[Tensor, "b s"]  # of the signs' cells
    colour: Int[Tensor, "b s"]  # of the ink: index into COLOURS
    card: Float[Tensor, "b s 3"]  # RGB of the card's paper
    background: Float[Tensor, "b 3"]  # RGB around the cards
    grid: Int[Tensor, "b 2"]  # rows and columns of cards; cards are numbered row by row
    canvas: Int[Tensor, "b 2"]  # height and width in pixels

    def texts(self) -> list[list[str]]:
        """What each card of each picture says: `[["A7K", "B"], ...]`."""
        rows = zip(self.character.tolist(), self.length.tolist(), strict=True)
        return [["".join(CHARACTERS[c] for c in card[:n]) for card, n in zip(*row, strict=True)] for row in rows]


def draw_strings(
    rng: np.random.Generator,
    n: int,
    height: Any,
    width: Any,
    length: Any = LENGTH,
    size: Any = (8, 16),
    alphabet: str = ALPHABET,
    grid: Any = (1, 1),
) -> Strings:
    """Draw `n` pictures of `height` x `width` pixels with a card in each field of a `grid` of (rows, columns).

    Each card has `length[0]` to `length[1]` signs of the alphabet, in cells of `size[0]` to `size[1]` pixels of height (less
    where a long text would not fit), somewhere in its field.

    Raises:
        ValueError: no pictures, an impossible range, grid or alphabet, or fields too small for the longest text.
    """
    check_canvas(height, width)
    low, high = check_range("length", length, int)
    least, most = check_range("size", size)
    if n < 1:
        raise ValueError(f"draw_strings needs at least one picture; got n={n}.")
    if not isinstance(alphabet, str) or not alphabet or " " in alphabet or len(set(alphabet)) != len(alphabet):
        raise ValueError(f"alphabet is a text of different signs, such as {DIGITS!r}; got {alphabet!r}.")
    if not (isinstance(grid, Sequence) and len(grid) == 2 and all(g in ROWS for g in grid)):
        raise ValueError(f"grid is (rows, columns), each from 1 to {max(ROWS)}; got {grid!r}.")
    field = torch.tensor([width / grid[1], height / grid[0]])
    lengths = torch.from_numpy(rng.integers(low, high + 1, (n, grid[0] * grid[1])))
    room = _room(field, lengths)
    if (fits := float(_room(field, torch.tensor(high)))) < least:
        raise ValueError(
            f"{high} signs of {least:g} pixels on a card do not fit"
            f" {field[0]:g} x {field[1]:g} pixels; {max(fits, 0):.1f} would."
            " Make the picture larger, or text or signs smaller."
        )
    text = torch.tensor(encode(alphabet))[torch.from_numpy(rng.integers(len(alphabet), size=(*lengths.shape, high)))]
    sizes = least + (room.clamp(max=most) - least) * torch.from_numpy(rng.random(lengths.shape)).float()
    extent = _extent(sizes, lengths)
    numbers = torch.arange(lengths.shape[1])
    corner = torch.stack([numbers % grid[1], numbers // grid[1]], 1) * field
    free = field - extent - 2
    place = corner + 1 + free * torch.from_numpy(rng.random((*lengths.shape, 2))).float()
    colour, card = draw_paper(rng, tuple(lengths.shape))
    grey = rng.uniform(0.4, 0.7, (n, 1)) + rng.uniform(-0.05, 0.05, (n, 3))  # neither light nor dark: cards stand out
    return Strings(
        character=text * (torch.arange(high) < lengths[..., None]),
        length=lengths,
        position=place + PADDING * sizes[..., None],
        height=sizes,
        colour=colour,
        card=card,
        background=torch.from_numpy(grey.astype(np.float32)),
        grid=torch.tensor(tuple(grid)).expand(n, 2),
        canvas=torch.tensor((height, width)).expand(n, 2),
    )


def _extent(size: Float[Tensor, "..."], length: Int[Tensor, "..."]) -> Float[Tensor, "... 2"]:
    """Width and height of a card."""
    return torch.stack([size * (length * ASPECT + 2 * PADDING), size * (1 + 2 * PADDING)], -1)


def _room(field: Float[Tensor, "2"], length: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Height of the largest signs whose card fits a field, with a pixel around it."""
    wide = (field[0] - 2) / (length * ASPECT + 2 * PADDING)
    return wide.clamp(max=float((field[1] - 2) / (1 + 2 * PADDING)))


def render(
    strings: Strings, height: Any = None, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of cards: RGB in [0, 1], on `device`. Without a size, the one that the first was drawn for.

    On pictures of another size the cards are scaled to fit, and centred.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    height = int(strings.canvas[0, 0]) if height is None else height
    width = int(strings.canvas[0, 1]) if width is None else width
    check_canvas(height, width)
    scale, shift = fit(strings.canvas, height, width)
    position = strings.position * scale[:, None, None] + shift[:, None]
    size = strings.height * scale[:, None]
    corner = position - PADDING * size[..., None]
    boxes = torch.cat([corner, corner + _extent(size, strings.length)], -1)
    images = sheets(strings.background, boxes, strings.card, height, width, device)
    scene, card, sign = (torch.arange(strings.character.shape[2]) < strings.length[..., None]).nonzero(as_tuple=True)
    step = torch.stack([sign * ASPECT * size[scene, card], torch.zeros(len(sign))], 1)
    ink = torch.tensor(list(COLOURS.values()))[strings.colour[scene, card]]
    where = position[scene, card] + step
    return draw_glyphs_(images, Glyphs(strings.character[scene, card, sign], where, size[scene, card], ink, scene))


def spelled(text: str) -> str:
    """Signs with spaces between them, as answers have them: `A 7 K`."""
    return " ".join(text)


def card_names(rows: int, columns: int) -> list[str]:
    """How each card of a grid is spoken of: `the card`, or `the card on the left`, `the card at the top left`, ..."""
    if rows == columns == 1:
        return ["the card"]
    names = []
    for row in ROWS[rows]:
        for column in COLUMNS[columns]:
            place = f"{row} {column}".strip() or "middle"
            names.append(f"the card {'at' if row else 'on' if column else 'in'} the {place}")
    return names


class StringQuestions:
    """Draws questions: `StringQuestions(rng)(strings)` gives one a picture.

    "read": what a card says; "sign": its first or last sign.

    Args:
        rng: where the choices come from.
        kinds: which kinds to draw from, evenly.

    Raises:
        ValueError: no kinds, or one that does not exist.
    """

    def __init__(self, rng: np.random.Generator, kinds: Iterable[str] = tuple(CHANCE)) -> None:
        self.rng, self.kinds = rng, chosen(kinds, CHANCE)

    def __call__(self, strings: Strings) -> list[Question]:
        asked, n = [], len(strings)
        kind = self.rng.integers(len(self.kinds), size=n).tolist()
        card = self.rng.integers(strings.length.shape[1], size=n).tolist()
        last = self.rng.integers(2, size=n).tolist()
        for i, (texts, (rows, columns)) in enumerate(zip(strings.texts(), strings.grid.tolist(), strict=True)):
            names = card_names(rows, columns)
            text, name = texts[card[i]], names[card[i]]
            told = " ".join(f"{name} says {spelled(text)}." for name, text in zip(names, texts, strict=True))
            if self.kinds[kind[i]] == "read":
                asked.append(Question("read", told, f"what does {name} say?", spelled(text)))
            else:
                which = ("first", "last")[last[i]]
                on = "" if len(names) == 1 else f" of {name}"
                asked.append(Question("sign", told, f"what is the {which} sign{on}?", text[-last[i]]))
        return asked


def chosen(kinds: Iterable[str], there: Iterable[str]) -> list[str]:
    """A list of the kinds that were asked for. Raises ValueError for none, or one that is not `there`."""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not kinds or not set(kinds) <= set(there):
        raise ValueError(f"kinds is a list of some of {list(there)}; got {kinds}.")
    return kinds
