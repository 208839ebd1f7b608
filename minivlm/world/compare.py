"""Two pictures, one question: pairs of scenes that differ in exactly one planned way, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.world.grammar import MIDDLE, article, full
from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.placing import MARGIN
from minivlm.world.questions import Question
from minivlm.world.scenes import LARGE_FROM, Scenes, Thing, draw_scenes, things
from minivlm.world.splits import SEEN

#: What differs from the first picture to the second: nothing, one thing's colour, ..., a thing more or less.
CHANGES = ("nothing", "colour", "shape", "size", "place", "more", "fewer")

#: Rounds of drawing after which a request is given up, and places tried at a time for an object that moves.
ROUNDS, PROPOSALS = 100, 12

#: A thing that moves goes to another third of the picture, and stays further than this from a border between two.
CLEAR = 0.03

WORDS = tuple(
    "first second picture the are two pictures same what changed nothing colour shape size place number of things which has"
    " more neither in is do both show a an yes no".split()
)

_COLOUR_WORDS = tuple(COLOURS)


@dataclass(frozen=True)
class Pairs:
    """`b` pairs of scenes; whatever is not changed is the same in both, the background too."""

    first: Scenes
    second: Scenes
    change: Int[Tensor, "b"]  # index into CHANGES

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: Any) -> Pairs:
        """Pairs at `index`: always a batch, even if of one (see `Scenes`)."""
        first = self.first[index]
        change = self.change[index]
        return Pairs(first, self.second[index], change if change.ndim else change[None])


def draw_pairs(
    rng: np.random.Generator, changes: Sequence[str], objects: Any = (1, 3), pairs: Iterable[tuple[int, int]] = SEEN
) -> Pairs:
    """A pair of scenes for each of `changes` (words of `CHANGES`), each scene with `objects[0]` to `objects[1]` objects.

    Raises:
        ValueError: no changes or unknown ones, objects that leave no room for one more or less, pairs without any that
            differ in the colour or shape alone; and what `draw_scenes` raises.
    """
    changes = [changes] if isinstance(changes, str) else list(changes)
    if not changes or set(changes) - set(CHANGES):
        raise ValueError(
            f"changes is a list of some of {CHANGES}; got {sorted(set(changes) - set(CHANGES)) or 'none'}."
        )
    if not (isinstance(objects, Sequence) and len(objects) == 2 and all(isinstance(count, int) for count in objects)):
        raise ValueError(f"objects is a pair of whole numbers (least, most), such as (1, 3); got {objects!r}.")
    low, high = objects
    if {"more", "fewer"} & set(changes) and not low < high:
        raise ValueError(f"one object more or fewer needs objects=(least, most) with least < most; got {objects}.")
    pairs = [tuple(pair) for pair in pairs]
    kinds = np.array([CHANGES.index(change) for change in changes])
    parts, where, todo = [], [], np.arange(len(kinds))
    for _ in range(ROUNDS):
        for group in (True, False):
            rows = todo[np.isin(kinds[todo], (5, 6)) == group]
            if len(rows):
                scenes = draw_scenes(rng, len(rows), (low + group, high), pairs, slots=high)
                made, good = _change(rng, scenes, kinds[rows], pairs)
                parts.append(made[torch.from_numpy(good)])
                where.append(rows[good])
        todo = np.setdiff1d(todo, np.concatenate(where))
        if not len(todo):
            break
    else:
        lacking = sorted({CHANGES[kind] for kind in kinds[todo]})
        raise ValueError(
            f"no scenes found in which {' or '.join(lacking)} can change: do the {len(pairs)} pairs leave another colour and"
            " another shape for each, and the objects room to grow and move?"
        )
    order = torch.from_numpy(np.concatenate(where).argsort())
    first, second = (Scenes.join([getattr(part, name) for part in parts])[order] for name in ("first", "second"))
    return Pairs(first, second, torch.from_numpy(kinds))


def _change(rng, scenes: Scenes, kinds: np.ndarray, pairs: list[tuple[int, int]]) -> tuple[Pairs, np.ndarray]:
    """Scenes before and after their changes, and for which of them that worked."""
    n, slots = scenes.present.shape
    rows, count = np.arange(n), scenes.counts().numpy()
    slot = np.minimum((rng.random(n) * count).astype(int), count - 1)
    new = {f.name: getattr(scenes, f.name).numpy().copy() for f in fields(Scenes)}
    good = np.ones(n, bool)

    table = np.zeros((len(COLOURS), len(SHAPES)), bool)
    table[tuple(np.array(pairs).T)] = True
    colour, shape = new["colour"][rows, slot], new["shape"][rows, slot]
    for kind, name, options, old in ((1, "colour", table[:, shape].T, colour), (2, "shape", table[colour], shape)):
        options = options.copy()
        options[rows, old] = False
        score = rng.random(options.shape) * options
        chosen = kinds == kind
        new[name][rows[chosen], slot[chosen]] = score.argmax(1)[chosen]
        good &= ~chosen | options.any(1)

    radius = new["size"][rows, slot].astype(np.float64)
    small, large = SIZES["small"], SIZES["large"]
    other = np.where(radius < LARGE_FROM, rng.uniform(*large, n), rng.uniform(*small, n))
    here = new["position"][rows, slot].astype(np.float64)[:, None]
    resized, moved = kinds == 3, kinds == 4
    free = _free(scenes, slot, here, other)[:, 0]
    new["size"][rows[resized], slot[resized]] = other[resized]
    good &= ~resized | free

    edge = (radius + MARGIN)[:, None, None]
    spots = edge + (1 - 2 * edge) * rng.random((n, PROPOSALS, 2))
    elsewhere = (_third(spots) != _third(here)).any(2) & _clear(spots) & _clear(here)
    free = _free(scenes, slot, spots, radius) & elsewhere
    new["position"][rows[moved], slot[moved]] = spots[rows, free.argmax(1)][moved]
    good &= ~moved | free.any(1)

    # One thing less: those after it move up. One thing more is the same, the other way round.
    counted = kinds >= 5
    left = np.where(counted[:, None] & (np.arange(slots) >= slot[:, None]), np.arange(slots) + 1, np.arange(slots))
    gone = left >= count[:, None]
    left = np.minimum(left, slots - 1)
    for name in ("colour", "shape", "size", "present", "position"):
        value = new[name]
        value = np.take_along_axis(value, left[..., None] if value.ndim == 3 else left, 1)
        value[gone] = 0
        new[name] = value

    after = Scenes(**{name: torch.from_numpy(value) for name, value in new.items()})
    # A small thing seldom has room to grow, a large one always to shrink: half of the pairs are turned round, so that
    # the order tells nothing.
    turn = torch.from_numpy(((kinds == 3) & (rng.random(n) < 0.5)) | (kinds == 5))
    return Pairs(_choose(turn, after, scenes), _choose(turn, scenes, after), torch.from_numpy(kinds)), good


def _choose(which: Tensor, yes: Scenes, no: Scenes) -> Scenes:
    """`yes` where `which`, else `no`."""
    chosen = {}
    for field in fields(Scenes):
        a, b = getattr(yes, field.name), getattr(no, field.name)
        chosen[field.name] = torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b)
    return Scenes(**chosen)


def _free(scenes: Scenes, slot: np.ndarray, spots: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Whether object `slot` (n), with that radius (n), could be at each of `spots` (n, p, 2) without touching others."""
    position, size = scenes.position.double().numpy(), scenes.size.double().numpy()
    apart = ((spots[:, :, None] - position[:, None]) ** 2).sum(-1)
    needed = (size + radius[:, None] + MARGIN)[:, None]
    others = scenes.present.numpy() & (np.arange(size.shape[1]) != slot[:, None])
    edge = (radius + MARGIN)[:, None, None] - 1e-6
    return ((apart > needed**2) | ~others[:, None]).all(2) & ((spots >= edge) & (spots <= 1 - edge)).all(2)


def _third(spots: np.ndarray) -> np.ndarray:
    return (spots >= MIDDLE[0]).astype(int) + (spots >= MIDDLE[1])


def _clear(spots: np.ndarray) -> np.ndarray:
    return (np.abs(spots[..., None] - np.array(MIDDLE)) > CLEAR).all((-1, -2))


#: Kind of question -> its answers, equally likely, each with the changes that may lead to it.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "same": {"yes": ("nothing",), "no": CHANGES[1:]},
    "changed": {
        "nothing": ("nothing",),
        "the colour": ("colour",),
        "the shape": ("shape",),
        "the size": ("size",),
        "the place": ("place",),
        "the number of things": ("more", "fewer"),
    },
    "more": {"the first": ("fewer",), "the second": ("more",), "neither": CHANGES[:5]},
    "which": {"the first": ("colour",), "the second": ("colour",)},
    "both": {"yes": CHANGES, "no": ("shape", "more", "fewer")},
}

#: Kind -> probability of a guess among its answers.
CHANCE: dict[str, float] = {kind: 1 / len(answers) for kind, answers in KINDS.items()}


def compare(
    rng: np.random.Generator,
    n: int,
    objects: Any = (1, 3),
    pairs: Iterable[tuple[int, int]] = SEEN,
    kinds: Iterable[str] = tuple(KINDS),
    describe: Callable[[Sequence[Thing]], str] = full,
) -> tuple[Pairs, list[Question]]:
    """`n` pairs of scenes, and a question about each, of one of `kinds`; `told` describes both pictures.

    The kind is drawn first, then its answer, then a pair of scenes for it: every answer of a kind is equally likely.

    Raises:
        ValueError: no questions, no kinds or unknown ones; and what `draw_pairs` raises.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if n < 1 or not kinds or set(kinds) - set(KINDS):
        raise ValueError(
            f"compare needs at least one question and kinds out of {list(KINDS)}; got n={n}, kinds={kinds}."
        )
    pairs = [tuple(pair) for pair in pairs]
    asked = [kinds[i] for i in rng.integers(len(kinds), size=n)]
    answers = [list(KINDS[kind])[int(u * len(KINDS[kind]))] for kind, u in zip(asked, rng.random(n), strict=True)]
    parts: list[Pairs] = []
    questions: dict[int, Question] = {}
    order: list[int] = []
    for _ in range(ROUNDS):
        todo = [i for i in range(n) if i not in questions]
        if not todo:
            break
        options = [KINDS[asked[i]][answers[i]] for i in todo]
        changes = [option[int(rng.integers(len(option)))] for option in options]
        made = draw_pairs(rng, changes, objects, pairs)
        good = []
        for row, (i, one, other) in enumerate(zip(todo, things(made.first), things(made.second), strict=True)):
            question = _ask(rng, asked[i], answers[i], changes[row], one, other, pairs)
            if question:
                told = [describe([these[j] for j in rng.permutation(len(these)).tolist()]) for these in (one, other)]
                told = f"first picture: {told[0]}. second picture: {told[1]}."
                questions[i] = Question(asked[i], told, question, answers[i])
                good.append(row)
                order.append(i)
        if good:
            parts.append(made[good])
    else:
        raise ValueError(
            f"no question of kinds {kinds} can be asked about such scenes: allow more objects or more pairs."
        )
    back = torch.tensor(order).argsort()
    found = Pairs(
        Scenes.join([part.first for part in parts])[back],
        Scenes.join([part.second for part in parts])[back],
        torch.cat([part.change for part in parts])[back],
    )
    return found, [questions[i] for i in range(n)]


def _ask(rng, kind: str, answer: str, change: str, one: list[Thing], other: list[Thing], pairs: list) -> str | None:
    """The question that has this answer, or None if these scenes allow none."""
    if kind == "same":
        return "are the two pictures the same?"
    if kind == "changed":
        return "what changed?"
    if kind == "more":
        return "which picture has more things?"
    shapes = [[thing.shape for thing in these] for these in (one, other)]
    if kind == "which":
        a, b = next((a, b) for a, b in zip(one, other, strict=True) if a != b)
        if shapes[0].count(a.shape) > 1:
            return None
        return f"in which picture is the {a.shape} {a.colour if answer == 'the first' else b.colour}?"
    both, either = set(shapes[0]) & set(shapes[1]), set(shapes[0]) | set(shapes[1])
    options = [shape for shape in SHAPES if shape in (both if answer == "yes" else either - both)]
    return f"do both pictures show {article(options[int(rng.integers(len(options)))])}?" if options else None
