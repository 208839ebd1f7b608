"""Scenes -> sentences. Every caption is true of its scene; which of the true ones is said is the generator's choice."""

from collections.abc import Sequence

import numpy as np

from minivlm.world.scenes import Scenes, Thing, things

#: Where left ends and right begins, and top and bottom, as fractions of width and height. What lies between is the middle.
MIDDLE = (0.42, 0.58)

#: Frames that a short caption is put into; they say nothing about the scene.
FRAMES = ("{}", "a picture of {}", "a photo of {}", "this is {}", "there is {}", "we see {}")

#: Ways to caption, from least to most words.
#: `tags`: colours and shapes alone. `short`: a phrase, with a detail at times. `full`: every object with size and place.
#: `long`: that, then how many there are and how they stand to each other.
STYLES = ("tags", "short", "full", "long")

#: Rows and columns of the picture, and the words of number.
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

#: Words of the captions that are neither colour, shape nor size.
WORDS = tuple(
    "a an at the in of and with to on picture photo image drawing this is there are we see next above below"
    " top bottom left right middle thing things".split()
) + NUMBERS


def cell(thing: Thing, margin: float = 0.0) -> tuple[int, int] | None:
    """(row, column), each 0, 1 or 2: which ninth of the picture a thing's centre lies in. None if it lies closer than
    `margin` to a border between two, where nobody would like to be asked.
    """
    found = []
    for value in (thing.y, thing.x):
        low, high = (abs(value - edge) < margin for edge in MIDDLE)
        if low or high:
            return None
        found.append((value >= MIDDLE[0]) + (value >= MIDDLE[1]))
    return found[0], found[1]


def place_words(row: int, column: int) -> str:
    """`top left`, `left`, `middle`, ..."""
    return f"{ROWS[row]} {COLUMNS[column]}".strip() or "middle"


def where(thing: Thing) -> str:
    """The place with its little words: `at the top left`, `on the right`, `in the middle`."""
    row, column = cell(thing)
    return f"{'at' if ROWS[row] else 'on' if COLUMNS[column] else 'in'} the {place_words(row, column)}"


def article(noun: str) -> str:
    """The noun with its article: `an orange star`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def noun(thing: Thing, size: bool = True) -> str:
    """`a large red star`, or `a red star`."""
    return article(f"{thing.size} {thing.colour} {thing.shape}" if size else f"{thing.colour} {thing.shape}")


def listed(phrases: Sequence[str]) -> str:
    """`x`, `x and y`, `x, y and z`; `nothing` where there is none."""
    if not phrases:
        return "nothing"
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def relation(a: Thing, b: Thing) -> str:
    """How the first thing stands to the second, along the axis on which they are further apart in fractions of the picture."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > abs(dy):
        return "to the left of" if dx < 0 else "to the right of"
    return "above" if dy < 0 else "below"


def full(these: Sequence[Thing], place_first: bool = False) -> str:
    """Every thing with its size, colour, shape and place, in the given order: all that most questions ask about."""
    if place_first:
        return listed([f"{where(thing)} {noun(thing)}" for thing in these])
    return listed([f"{noun(thing)} {where(thing)}" for thing in these])


class Captions:
    """Draws captions: `Captions(rng)(scenes)` gives one a scene.

    A caption names every object's colour and shape, in random order. A `short` one sometimes tells its size or its place
    (one object), or how two objects stand to each other (two objects); for the other styles see `STYLES`.

    Args:
        rng: where the choices come from.
        frames: sentence frames of short captions, with one `{}` each.
        detail: probability of each optional detail (size, place or relation) of short captions.
        styles: which of `STYLES` to draw from, evenly.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        frames: Sequence[str] = FRAMES,
        detail: int | float = 0.4,
        styles: Sequence[str] = ("short",),
    ) -> None:
        if isinstance(frames, str) or not frames or any(frame.count("{}") != 1 for frame in frames):
            raise ValueError(f"frames are texts with one {{}} each, at least one of them; got {frames!r}.")
        if not 0 <= detail <= 1:
            raise ValueError(f"detail is a probability, from 0 to 1; got {detail}.")
        if isinstance(styles, str) or not styles or not set(styles) <= set(STYLES):
            raise ValueError(f"styles is a list of some of {STYLES}; got {styles!r}.")
        self.rng, self.frames, self.detail, self.styles = rng, frames, detail, styles

    def __call__(self, scenes: Scenes) -> list[str]:
        b, slots = scenes.present.shape
        style = self.rng.integers(len(self.styles), size=b).tolist()
        frame = self.rng.integers(len(self.frames), size=b).tolist()
        detail = (self.rng.random((b, slots + 1)) < self.detail).tolist()
        order = self.rng.random((b, slots)).argsort(1).tolist()
        said = []
        for i, these in enumerate(things(scenes)):
            these = [these[j] for j in order[i] if j < len(these)]
            name = self.styles[style[i]]
            if name == "short":
                said.append(self.frames[frame[i]].format(_short(these, detail[i])))
            elif name == "tags":
                said.append(", ".join(f"{thing.colour} {thing.shape}" for thing in these) or listed([]))
            else:
                text = full(these, place_first=detail[i][-1])
                said.append(text if name == "full" else _long(these, text))
        return said


def _short(these: list[Thing], detail: list[bool]) -> str:
    nouns = [noun(thing, size) for thing, size in zip(these, detail, strict=False)]
    if detail[-1] and len(these) == 1:
        return f"{nouns[0]} {where(these[0])}"
    if detail[-1] and len(these) == 2:
        return f"{nouns[0]} {relation(*these)} {nouns[1]}"
    return listed(nouns)


def _long(these: list[Thing], text: str) -> str:
    many = "there is one thing" if len(these) == 1 else f"there are {number(len(these))} things"
    pairs = [(a, b) for a, b in zip(these, these[1:], strict=False) if a[:2] != b[:2]]  # whoever is meant has a name
    standing = [f"the {a.colour} {a.shape} is {relation(a, b)} the {b.colour} {b.shape}" for a, b in pairs]
    return ". ".join([text, many, *standing])


def number(n: int) -> str:
    """`three` for 3; digits beyond ten."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)
