"""Chains of thought: questions that take two steps, with the steps in words before the answer."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minivlm.world.grammar import full, number
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.questions import SIDES, named, names, pick, plural, stands
from minivlm.world.scenes import Thing

WORDS = tuple("so is not are there more than as many things the to left right of above below yes no".split())


class Reasoned(NamedTuple):
    """A question with the way to its answer: `thought` is a few short sentences, each true, the last of which begins
    with `so` and holds the answer.
    """

    kind: str
    told: str
    question: str
    thought: str
    answer: str


Steps = tuple[str, str, str] | None  # question, thought, answer


def _property_beside(rng: np.random.Generator, these: Sequence[Thing]) -> Steps:
    """What colour is the thing to the left of the star? First find the thing, then look at it."""
    for b, name in named(rng, these):
        for word in (list(SIDES)[i] for i in rng.permutation(len(SIDES))):
            sides = [(thing, stands(thing, word, b)) for thing in these if thing is not b]
            found = [thing for thing, side in sides if side]
            if len(found) != 1 or any(side is None for _, side in sides):
                continue
            field, other = pick(rng, (("colour", "shape"), ("shape", "colour")))
            value = getattr(found[0], other)
            if [getattr(thing, other) for thing in these].count(value) > 1:
                continue
            it = f"the {value}" if other == "shape" else f"the {value} thing"
            answer = getattr(found[0], field)
            is_so = f"{it} is {answer}" if field == "colour" else f"{it} is a {answer}"
            return f"what {field} is the thing {word} {name}?", f"{it} is {word} {name}. {is_so}. so {answer}.", answer
    return None


def _count_beside(rng: np.random.Generator, these: Sequence[Thing]) -> Steps:
    """How many things are to the left of the star? Each of the others in turn."""
    wanted = int(rng.random() * min(len(these), 3))
    for b, name in named(rng, these):
        others = [thing for thing in these if thing is not b]
        ways = [names(these, thing) for thing in others]
        if not all(ways):
            continue
        for word in (list(SIDES)[i] for i in rng.permutation(len(SIDES))):
            sides = [stands(thing, word, b) for thing in others]
            if None in sides or sum(sides) != wanted:
                continue
            steps = [f"{pick(rng, w)} is{'' if s else ' not'} {word} {name}" for w, s in zip(ways, sides, strict=True)]
            answer = number(wanted)
            return f"how many things are {word} {name}?", ". ".join([*steps, f"so {answer}."]), answer
    return None


def _more(rng: np.random.Generator, these: Sequence[Thing]) -> Steps:
    """Are there more stars than red things? Count both, then compare."""
    answer = rng.random() < 0.5
    there = [(f"{c} things", sum(t.colour == c for t in these)) for c in COLOURS]
    there += [(plural(s), sum(t.shape == s for t in these)) for s in SHAPES]
    options = [item for item in there if item[1]] + [there[i] for i in rng.permutation(len(there))[:2]]
    for i in rng.permutation(len(options)).tolist():
        for j in rng.permutation(len(options)).tolist():
            (a, m), (b, n) = options[i], options[j]
            if a != b and (m > n) is answer:
                word = "yes" if answer else "no"
                steps = f"{a}: {number(m)}. {b}: {number(n)}. so {word}."
                return f"are there more {a} than {b}?", steps, word
    return None


#: Kind -> maker of its questions.
KINDS: dict[str, Callable[[np.random.Generator, Sequence[Thing]], Steps]] = {
    "property beside": _property_beside,
    "count beside": _count_beside,
    "more": _more,
}

#: Kind -> probability of a guess among all answers.
CHANCE: dict[str, float] = {
    "property beside": 1 / len(COLOURS),  # the question says whether it wants one of the colours or of as many shapes
    "count beside": 1 / 3,
    "more": 1 / 2,
}


class Reasoning:
    """Draws questions with chains of thought: `Reasoning(rng)(scene's things)`; arguments as for `Questions`.

    Raises:
        ValueError: no kinds, or one that does not exist.
    """

    def __init__(self, rng: np.random.Generator, kinds: Iterable[str] = tuple(KINDS)) -> None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds is a list of some of {list(KINDS)}; got {kinds}.")
        self.rng, self.kinds = rng, kinds

    def __call__(self, these: Sequence[Thing], n: int = 1) -> list[Reasoned]:
        """Up to `n` questions about one scene: fewer where it does not allow one of the kind that was drawn."""
        order = self.rng.permutation(len(these)).tolist()
        told = full([these[i] for i in order]) + "."
        drawn = [(kind, KINDS[kind](self.rng, these)) for kind in (pick(self.rng, self.kinds) for _ in range(n))]
        return [Reasoned(kind, told, *steps) for kind, steps in drawn if steps]
