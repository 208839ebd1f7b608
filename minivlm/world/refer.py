"""Referring expressions: phrases that fit exactly one object of a scene, or none, by intention."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minivlm.world.grammar import cell, place_words
from minivlm.world.grammar import where as told_place
from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.scenes import Scenes, Thing, things
from minivlm.world.splits import SEEN

#: Word -> (axis, sign): the object whose coordinate times the sign is smallest.
ENDS: dict[str, tuple[str, int]] = {
    "leftmost": ("x", 1),
    "rightmost": ("x", -1),
    "highest": ("y", 1),
    "lowest": ("y", -1),
}

#: Nothing is called after its place if it lies closer to a border between two, or is less than twice this ahead of the next.
CLEAR = 0.03

WORDS = ("the", "thing", *ENDS, *"at on in top bottom left right middle".split())


class Referred(NamedTuple):
    """A phrase about a scene, and the one object that it fits; `slot` is -1 and `exists` False where it fits none."""

    phrase: str
    scene: int
    slot: int
    exists: bool


class _Phrase(NamedTuple):
    """What a phrase says; "" where it says nothing."""

    size: str = ""
    colour: str = ""
    shape: str = ""
    end: str = ""  # leftmost, ...
    place: str = ""  # on the left, ...

    def __str__(self) -> str:
        words = ["the", self.end, self.size, self.colour, self.shape or "thing", self.place]
        return " ".join(word for word in words if word)

    def named(self, these: Sequence[Thing]) -> list[int]:
        """Which things it fits but for `end` and `place`."""
        return [
            i
            for i, thing in enumerate(these)
            if all(
                not said or said == fact
                for said, fact in zip(self[:3], (thing.size, thing.colour, thing.shape), strict=True)
            )
        ]


def refer(
    rng: np.random.Generator, scenes: Scenes, absent: int | float = 0.0, pairs: Sequence[tuple[int, int]] = SEEN
) -> list[Referred]:
    """One phrase for each scene: `the star`, `the large red thing`, `the leftmost ring`, `the blue star at the top`.

    It fits exactly one object and is about as short as can be; with probability `absent` one of its words is changed, so
    that it fits none. Scenes that allow neither (two objects alike, at the same place) get no phrase: see `scene`.
    Absent objects are of `pairs`, (colour index, shape index).

    Raises:
        ValueError: `absent` is no probability.
    """
    if not 0 <= absent <= 1:
        raise ValueError(f"absent is a probability, from 0 to 1; got {absent}.")
    allowed = {(list(COLOURS)[colour], SHAPES[shape]) for colour, shape in pairs}
    found = []
    for scene, these in enumerate(things(scenes)):
        slots = scenes.present[scene].nonzero()[:, 0].tolist()
        wanted = bool(rng.random() >= absent)
        for i in rng.permutation(len(these)).tolist():
            phrase = _one(rng, these, i)
            if phrase and not wanted:
                phrase = _none(rng, these, phrase, allowed)
            if phrase:
                found.append(Referred(str(phrase), scene, slots[i] if wanted else -1, wanted))
                break
    return found


def _one(rng: np.random.Generator, these: Sequence[Thing], i: int) -> _Phrase | None:
    """A phrase that fits thing `i` alone: of the fewest words that can be, or of one more."""
    thing = these[i]
    place = told_place(thing) if cell(thing, CLEAR) else ""
    by_length: dict[int, list[_Phrase]] = {}
    for colour, shape in ((thing.colour, ""), ("", thing.shape), (thing.colour, thing.shape)):
        for size in ("", thing.size) if _plain_sizes(these) else ("",):
            phrase = _Phrase(size, colour, shape)
            rivals = [j for j in phrase.named(these) if j != i]
            options = [phrase] if not rivals else []
            if place and not any(_may_be(these[j], place) for j in rivals):
                options.append(phrase._replace(place=place))
            options += [
                phrase._replace(end=end) for end in ENDS if rivals and _ahead(thing, [these[j] for j in rivals], end)
            ]
            for option in options:
                by_length.setdefault(sum(map(bool, option)), []).append(option)
    if not by_length:
        return None
    short = min(by_length)
    lengths = [length for length in (short, short + 1) if length in by_length]
    options = by_length[lengths[int(rng.integers(len(lengths)))]]
    return options[int(rng.integers(len(options)))]


def _none(rng: np.random.Generator, these: Sequence[Thing], phrase: _Phrase, allowed: set) -> _Phrase | None:
    """The phrase with one word changed, preferably to one that fits another thing, so that the whole fits nothing."""
    options: list[_Phrase] = []
    colours, shapes = {thing.colour for thing in these}, {thing.shape for thing in these}
    for field, words, seen in (("colour", COLOURS, colours), ("shape", SHAPES, shapes), ("size", SIZES, set(SIZES))):
        said = getattr(phrase, field)
        near = [phrase._replace(**{field: word}) for word in words if said and word != said]
        near = [
            other
            for other in near
            if not other.named(these)
            and (not other.colour or not other.shape or (other.colour, other.shape) in allowed)
        ]
        hard = [other for other in near if getattr(other, field) in seen]
        options += [group[int(rng.integers(len(group)))] for group in (hard or near,) if group]
    if phrase.place:
        named = [these[i] for i in phrase.named(these)]
        other = [place for place in _PLACES if not any(_may_be(thing, place) for thing in named)]
        if other:
            options.append(phrase._replace(place=other[int(rng.integers(len(other)))]))
    return options[int(rng.integers(len(options)))] if options else None


def _places() -> dict[str, tuple[int, int]]:
    """`at the top left`: (0, 0), ... for all nine."""
    words = {}
    for row in range(3):
        for column in range(3):
            before = "at" if row != 1 else "on" if column != 1 else "in"
            words[f"{before} the {place_words(row, column)}"] = (row, column)
    return words


_PLACES = _places()


def _may_be(thing: Thing, place: str) -> bool:
    """Whether somebody might say that the thing is at that place: it is, or lies too close to a border to tell."""
    near = {
        cell(thing._replace(x=thing.x + dx, y=thing.y + dy)) for dx in (-CLEAR, 0, CLEAR) for dy in (-CLEAR, 0, CLEAR)
    }
    return _PLACES[place] in near


def _ahead(thing: Thing, rivals: Sequence[Thing], end: str) -> bool:
    axis, sign = ENDS[end]
    return min(sign * getattr(rival, axis) for rival in rivals) - sign * getattr(thing, axis) > 2 * CLEAR


def _plain_sizes(these: Sequence[Thing]) -> bool:
    """Whether all sizes have a word: none lies in the gap between the two."""
    return not any(SIZES["small"][1] < thing.radius and thing.size == "small" for thing in these)
