"""Questions about one scene, and their answers. What is asked, the generator chooses; there is always one right answer.

Answers are drawn before questions wherever possible, so that neither the wording nor the kind gives them away: yes and no
are equally likely, and a wrong statement is a near miss (another object's colour, the opposite side).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minivlm.world.grammar import NUMBERS, article, cell, full, noun, number, place_words, where
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.scenes import Thing
from minivlm.world.splits import SEEN

#: Nobody is asked about a thing closer than this to a border between two places, or about a difference smaller than this.
CLEAR = 0.03

WORDS = tuple(
    "what which where how many colour shape size is are the thing things there a or small large same first"
    " to left right of above below top bottom middle yes no than larger".split()
)


class Question(NamedTuple):
    """A question with one right answer.

    `kind` names it in tables; `told` says in words all that is needed to answer ("" where nothing can be told); `answer`
    has no full stop.
    """

    kind: str
    told: str
    question: str
    answer: str


Asked = tuple[str, str] | None  # question and answer, or nothing to ask
_COLOUR_WORDS = tuple(COLOURS)


def pick(rng: np.random.Generator, options: Sequence) -> Any:
    """One of the options, evenly."""
    return options[int(rng.random() * len(options))]


def _only(these: Sequence[Thing], field: str) -> list[Thing]:
    """The things that no other thing equals in a field."""
    values = [getattr(thing, field) for thing in these]
    return [thing for thing, value in zip(these, values, strict=True) if values.count(value) == 1]


def names(these: Sequence[Thing], thing: Thing) -> list[str]:
    """The short ways to speak of a thing so that no other is meant: `the star`, `the red thing`, `the red star`."""
    ways = []
    if sum(other.shape == thing.shape for other in these) == 1:
        ways.append(f"the {thing.shape}")
    if sum(other.colour == thing.colour for other in these) == 1:
        ways.append(f"the {thing.colour} thing")
    if sum(other[:2] == thing[:2] for other in these) == 1:
        ways.append(f"the {thing.colour} {thing.shape}")
    return ways


def named(rng: np.random.Generator, these: Sequence[Thing]) -> list[tuple[Thing, str]]:
    """Things that can be spoken of, in random order, each with one of its names."""
    order = rng.permutation(len(these)).tolist()
    ways = [(these[i], names(these, these[i])) for i in order]
    return [(thing, pick(rng, options)) for thing, options in ways if options]


def _colour(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    if not (options := _only(these, "shape")):
        return None
    thing = pick(rng, options)
    return f"what colour is the {thing.shape}?", thing.colour


def _shape(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    if not (options := _only(these, "colour")):
        return None
    thing = pick(rng, options)
    return f"what shape is the {thing.colour} thing?", thing.shape


def _size(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    if len(these) > 1 and len({thing.size for thing in these}) == 1:
        return None  # mostly small ones: more of them fit
    want = pick(rng, ("small", "large"))
    options = [name for thing, name in named(rng, these) if thing.size == want]
    return (f"is {options[0]} small or large?", want) if options else None


def _count(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    return "how many things are there?", number(len(these))


def _count_of(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    by_colour = rng.random() < 0.5
    values = [thing.colour if by_colour else thing.shape for thing in these]
    counts = {value: values.count(value) for value in (_COLOUR_WORDS if by_colour else SHAPES)}
    many = pick(rng, sorted({n for n in counts.values() if n < 3}))  # three alike hardly ever come
    value = pick(rng, [value for value, n in counts.items() if n == many])
    return f"how many {f'{value} things' if by_colour else plural(value)} are there?", number(many)


def _existence(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    there = {(thing.colour, thing.shape) for thing in these}
    if rng.random() < 0.5:
        return f"is there {noun(pick(rng, these), size=False)}?", "yes"
    colours, shapes = {colour for colour, _ in there}, {shape for _, shape in there}
    words = [(_COLOUR_WORDS[c], SHAPES[s]) for c, s in pairs]
    both = [p for p in words if p not in there and p[0] in colours and p[1] in shapes]  # two things mixed up
    near = [p for p in words if p not in there and (p[0] in colours) != (p[1] in shapes)]  # one word wrong
    options = both if both and rng.random() < 0.5 else near
    return (f"is there {article(' '.join(pick(rng, options)))}?", "no") if options else None


def _place(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    options = [(cell(thing, CLEAR), name) for thing, name in named(rng, these)]
    options = [option for option in options if option[0]]
    if not options:
        return None
    place, name = pick(rng, options)
    return f"where is {name}?", place_words(*place)


def _at(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    cells = [cell(thing) for thing in these]
    options = [t for t, c in zip(these, cells, strict=True) if cells.count(c) == 1 and cell(t, CLEAR)]
    if not options:
        return None
    thing = pick(rng, options)
    return f"what is {where(thing)}?", noun(thing, size=False)


#: Word -> (axis, sign): `a WORD b` when a's coordinate times the sign is smaller.
SIDES = {"to the left of": ("x", 1), "to the right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}


def stands(a: Thing, word: str, b: Thing) -> bool | None:
    """Whether a stands so to b; None where it is not clear: in the same third of the picture, or too close to call."""
    axis, sign = SIDES[word]
    (row_a, column_a), (row_b, column_b) = cell(a), cell(b)
    thirds = sign * (column_a - column_b if axis == "x" else row_a - row_b)
    gap = sign * (getattr(a, axis) - getattr(b, axis))
    return None if thirds == 0 or abs(gap) < 2 * CLEAR else gap < 0


def _relation(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    options = named(rng, these)
    answer = rng.random() < 0.5
    for word in (list(SIDES)[i] for i in rng.permutation(4)):
        for a, name in options:
            for b, other in options:
                if a is not b and stands(a, word, b) is answer:
                    return f"is {name} {word} {other}?", "yes" if answer else "no"
    return None


def _beside(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    for b, name in named(rng, these):
        for word in (list(SIDES)[i] for i in rng.permutation(4)):
            sides = [(thing, stands(thing, word, b)) for thing in these if thing is not b]
            found = [thing for thing, side in sides if side]
            if len(found) == 1 and all(side is not None for _, side in sides):
                return f"what is {word} {name}?", noun(found[0], size=False)
    return None


def _same(rng: np.random.Generator, these: Sequence[Thing], pairs: Sequence) -> Asked:
    answer = rng.random() < 0.5
    for field in (("colour", "shape", "size")[i] for i in rng.permutation(3)):
        options = [(t, [w for w in names(these, t) if getattr(t, field) not in w]) for t in these]
        options = [(thing, pick(rng, ways)) for thing, ways in options if ways]
        for i in rng.permutation(len(options)):
            for j in range(len(options)):
                (a, name), (b, other) = options[i], options[j]
                if i != j and (getattr(a, field) == getattr(b, field)) is answer:
                    return f"are {name} and {other} the same {field}?", "yes" if answer else "no"
    return None


#: Kind -> the maker of its questions. What each asks is plain from an example: see `docs/world.md`.
KINDS: dict[str, Callable[[np.random.Generator, Sequence[Thing], Sequence], Asked]] = {
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "count": _count,
    "count of": _count_of,
    "existence": _existence,
    "place": _place,
    "at": _at,
    "relation": _relation,
    "beside": _beside,
    "same": _same,
}

#: Kind -> probability of a guess among all the answers that the kind has, for scenes of one to three things.
CHANCE: dict[str, float] = {
    "colour": 1 / len(COLOURS),
    "shape": 1 / len(SHAPES),
    "size": 1 / 2,
    "count": 1 / 3,
    "count of": 1 / 3,
    "existence": 1 / 2,
    "place": 1 / 9,
    "at": 1 / len(SEEN),
    "relation": 1 / 2,
    "beside": 1 / len(SEEN),
    "same": 1 / 2,
}


def plural(shape: str) -> str:
    """`stars`, `crosses`."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


WORDS += tuple(plural(shape) for shape in SHAPES) + NUMBERS


class Questions:
    """Draws questions: `Questions(rng)(scene's things)`.

    Args:
        rng: where the choices come from.
        kinds: which of `KINDS` to draw from, evenly among those that the scene allows.
        pairs: (colour index, shape index) that may be asked for where they are not there; those of the scenes.

    Raises:
        ValueError: no kinds, or one that does not exist.
    """

    def __init__(
        self, rng: np.random.Generator, kinds: Iterable[str] = tuple(KINDS), pairs: Sequence[tuple[int, int]] = SEEN
    ) -> None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds is a list of some of {list(KINDS)}; got {kinds}.")
        self.rng, self.kinds, self.pairs = rng, kinds, pairs

    def __call__(self, these: Sequence[Thing], n: int = 1) -> list[Question]:
        """Up to `n` questions about one scene: fewer where it does not allow one of the kind that was drawn.

        Raises:
            ValueError: a scene without things.
        """
        if not these:
            raise ValueError("there is nothing to ask about a scene without things; draw or choose scenes with some.")
        order = self.rng.permutation(len(these)).tolist()
        told = full([these[i] for i in order]) + "."
        asked = []
        for _ in range(n):
            kind = pick(self.rng, self.kinds)
            if question := KINDS[kind](self.rng, these, self.pairs):
                asked.append(Question(kind, told, *question))
        return asked


def example(kind: str) -> str:
    """A question of that kind, for tables."""
    scene = [Thing("red", "star", "large", 0.2, 0.25, 0.3), Thing("blue", "ring", "small", 0.8, 0.3, 0.18)]
    asked = None
    rng = np.random.default_rng(0)
    while asked is None:
        asked = KINDS[kind](rng, scene, SEEN)
    return " ".join(asked)


__all__ = ["CHANCE", "KINDS", "SIDES", "Question", "Questions", "example", "named", "names", "pick", "plural", "stands"]
