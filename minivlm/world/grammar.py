"""Scenes -> sentences. Every caption is true of its scene; which of the true ones is said is the generator's choice."""

from collections.abc import Sequence

import numpy as np

from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.scenes import Scenes

_COLOUR_WORDS = list(COLOURS)
_LARGE_FROM = SIZES["large"][0]
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")

#: Frames that a description is put into; they say nothing about the scene.
FRAMES = ("{}", "a picture of {}", "a photo of {}", "this is {}", "there is {}", "we see {}")

#: Words of the captions that are neither colour, shape nor size.
_OTHER_WORDS = "a an at the in of and with to on picture photo image drawing this is there we see next above below"
_PLACE_WORDS = "top bottom left right middle"


def vocabulary() -> list[str]:
    """Every word that captions are made of, in a fixed order."""
    words = [*COLOURS, *SHAPES, *SIZES, *_PLACE_WORDS.split(), *_OTHER_WORDS.split()]
    return list(dict.fromkeys(words))


def size_word(radius: float) -> str:
    """`small` or `large`; the sizes of drawn scenes leave a gap between the two."""
    return "large" if radius >= _LARGE_FROM else "small"


def place_words(x: float, y: float) -> str:
    """Which ninth of the image a point lies in: `top left`, `left`, `middle`, ..."""
    words = f"{_ROWS[min(int(y * 3), 2)]} {_COLUMNS[min(int(x * 3), 2)]}".strip()
    return words or "middle"


class Captions:
    """Draws captions: `Captions(rng)(scenes)` gives one sentence a scene.

    A caption names every object's colour and shape, in random order; sometimes its size or its place (one object), or
    how two objects stand to each other (two objects).

    Args:
        rng: where the choices come from.
        frames: sentence frames with one `{}` each.
        detail: probability of each optional detail (size, place or relation).
    """

    def __init__(self, rng: np.random.Generator, frames: Sequence[str] = FRAMES, detail: int | float = 0.4) -> None:
        if isinstance(frames, str) or not frames or any(frame.count("{}") != 1 for frame in frames):
            raise ValueError(f"frames are texts with one {{}} each, at least one of them; got {frames!r}.")
        if not 0 <= detail <= 1:
            raise ValueError(f"detail is a probability, from 0 to 1; got {detail}.")
        self.rng, self.frames, self.detail = rng, frames, detail

    def __call__(self, scenes: Scenes) -> list[str]:
        b, slots = scenes.present.shape
        frame = self.rng.integers(len(self.frames), size=b).tolist()
        detail = (self.rng.random((b, slots + 1)) < self.detail).tolist()
        order = self.rng.random((b, slots)).argsort(1).tolist()
        rows = zip(
            scenes.colour.tolist(), scenes.shape.tolist(), scenes.position.tolist(), scenes.size.tolist(),
            scenes.counts().tolist(), frame, detail, order, strict=True,
        )  # fmt: skip
        return [self.frames[row[5]].format(_describe(*row[:5], *row[6:])) for row in rows]


def _describe(colour, shape, position, size, count, detail, order) -> str:
    """One scene's phrase; arguments are one row of the scene's fields as Python lists, and the choices."""

    def noun(i: int) -> str:
        extra = size_word(size[i]) + " " if detail[i] else ""
        return article(f"{extra}{_COLOUR_WORDS[colour[i]]} {SHAPES[shape[i]]}")

    order = [i for i in order if i < count]
    if detail[-1] and count == 1:
        place = place_words(*position[0])
        return f"{noun(0)} {'on' if place in _COLUMNS else 'at' if place in _ROWS else 'in'} the {place}"
    if detail[-1] and count == 2:
        return f"{noun(order[0])} {relation(position[order[0]], position[order[1]])} {noun(order[1])}"
    phrases = [noun(i) for i in order]
    return phrases[0] if count == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def relation(a: list[float], b: list[float]) -> str:
    """How the first point stands to the second, along the axis on which they are further apart."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    if abs(dx) > abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def article(noun: str) -> str:
    """The noun with its article: `an orange star`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
