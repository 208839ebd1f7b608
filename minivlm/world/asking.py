"""Scenes with a question each, to train and to test on: kinds evenly, and the answers of a kind evenly.

Scenes are drawn as ever and those kept whose question has an answer that is still wanted: so no kind can be answered
better than by guessing from its own words.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minivlm.world import questions, reasoning
from minivlm.world.grammar import COLUMNS, NUMBERS, ROWS, full, place_words
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.questions import Question
from minivlm.world.reasoning import Reasoned
from minivlm.world.scenes import Scenes, Thing, draw_scenes, things
from minivlm.world.splits import SEEN

#: Scenes drawn at a time, at least (few cost nearly as much); draws that find nothing after which a request is given up.
POOL, ROUNDS = 512, 40

#: Questions that `batches` draws at a time, at least.
AHEAD = 4096

Cell = tuple[str, ...]  # what is wanted equally often: the answer, and what of the wording could give it away


class Kind(NamedTuple):
    """How a kind of question is balanced: `cells` are wanted equally often; without any, its answers come as they come."""

    make: Callable[[np.random.Generator, Sequence[Thing]], Any]  # (question, ..., answer) or None
    cells: tuple[Cell, ...]
    cell: Callable[[str, str], Cell]  # of a question and its answer


def ask(
    rng: np.random.Generator,
    n: int,
    kinds: Iterable[str] = tuple(questions.KINDS),
    objects: Any = (1, 3),
    pairs: Iterable[tuple[int, int]] = SEEN,
    **drawn: Any,
) -> tuple[Scenes, list[Question]]:
    """Draw `n` scenes of `objects[0]` to `objects[1]` objects of `pairs`, and a question about each, in random order.

    Kinds of `questions.KINDS` come equally often, and so do the answers of each but `at` and `beside`, which have as many
    as there are pairs; for `same`, the answers for each property. What cannot be divided evenly is left to chance. A call
    has a price of its own: ask for thousands at a time, or take `batches`. `drawn` are further settings of `draw_scenes`
    (`sizes`, `aspect`, `slots`): many small things on a wide picture.

    Raises:
        ValueError: no questions, no kinds or unknown ones, or scenes about which a kind cannot be asked with each of its
            answers; and what `draw_scenes` raises.
    """
    pairs = [tuple(pair) for pair in pairs]
    known = {kind: _question(kind, make, objects, pairs) for kind, make in questions.KINDS.items()}
    scenes, made = _fill(rng, n, _chosen(kinds, known, n), objects, pairs, drawn)
    return scenes, [Question(*row) for row in made]


def reason(
    rng: np.random.Generator,
    n: int,
    kinds: Iterable[str] = tuple(reasoning.KINDS),
    objects: Any = (2, 3),
    pairs: Iterable[tuple[int, int]] = SEEN,
    **drawn: Any,
) -> tuple[Scenes, list[Reasoned]]:
    """The same for questions with chains of thought, of kinds of `reasoning.KINDS`."""
    pairs = [tuple(pair) for pair in pairs]
    known = {kind: _thought(kind, make, objects, pairs) for kind, make in reasoning.KINDS.items()}
    scenes, made = _fill(rng, n, _chosen(kinds, known, n), objects, pairs, drawn)
    return scenes, [Reasoned(*row) for row in made]


def batches(rng: np.random.Generator, batch: int, **options: Any) -> Iterator[tuple[Scenes, list[Question]]]:
    """Batches of scenes with questions, without end; `options` are those of `ask`, which is called for many at a time.

    Raises:
        ValueError: a batch of none; and what `ask` raises.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least one question; got batch={batch}.")
    while True:
        many = -(-AHEAD // batch)
        scenes, asked = ask(rng, many * batch, **options)
        for start in range(0, many * batch, batch):
            yield scenes[start : start + batch], asked[start : start + batch]


def shares(rng: np.random.Generator, n: int, options: Sequence[Any]) -> list[Any]:
    """`n` of the options, each as often as the others, or once more: which ones, is drawn."""
    whole, rest = divmod(n, len(options))
    return [*options] * whole + [options[i] for i in rng.permutation(len(options))[:rest].tolist()]


def wanted(rng: np.random.Generator, n: int, kinds: dict[str, Sequence[Cell]]) -> Counter:
    """How many of each (kind, cell) `n` questions have: kinds evenly, cells of a kind evenly; () for a kind without."""
    many = Counter(shares(rng, n, list(kinds)))
    return Counter(
        (kind, cell) for kind, cells in kinds.items() for cell in shares(rng, many[kind], list(cells) or [()])
    )


def _fill(rng, n: int, kinds: dict[str, Kind], objects: Any, pairs: list, drawn: dict) -> tuple[Scenes, list[tuple]]:
    left = wanted(rng, n, {kind: how.cells for kind, how in kinds.items()})
    parts: list[Scenes] = []
    rows: list[tuple] = []
    idle = 0
    while todo := [kind for kind, _ in (+left).elements()]:
        if idle == ROUNDS:
            kind, cell = next(iter(+left))
            raise ValueError(
                f"no scene with objects={objects} of these {len(pairs)} pairs was found of which {kind!r} can be asked"
                f" with the answer {' '.join(cell) or 'that it has'!r}. Allow more objects or pairs, or leave the kind out."
            )
        pool = draw_scenes(rng, max(POOL, len(todo)), objects, pairs, **drawn)
        tried = rng.permutation(max(len(todo), len(pool))) % len(todo)  # a kind as often as it is still wanted
        kept = []
        for i, (these, which) in enumerate(zip(things(pool), tried.tolist(), strict=False)):
            kind = todo[which]
            said = kinds[kind].make(rng, these)
            if not said:
                continue
            key = (kind, kinds[kind].cell(said[0], said[-1]) if kinds[kind].cells else ())
            if left[key] > 0:
                left[key] -= 1
                told = full([these[j] for j in rng.permutation(len(these)).tolist()]) + "."
                rows.append((kind, told, *said))
                kept.append(i)
        if kept:
            parts.append(pool[kept])
        idle = 0 if kept else idle + 1
    order = rng.permutation(n).tolist()
    return Scenes.join(parts)[order], [rows[i] for i in order]


def _chosen(kinds: Iterable[str], known: dict[str, Kind], n: int) -> dict[str, Kind]:
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if n < 1 or not kinds or not set(kinds) <= set(known):
        raise ValueError(f"ask for at least one question, of kinds out of {list(known)}; got n={n}, kinds={kinds}.")
    return {kind: known[kind] for kind in kinds}


def _answer(question: str, answer: str) -> Cell:
    return (answer,)


def _cells(*answers: str) -> tuple[Cell, ...]:
    return tuple((answer,) for answer in answers)


def _here(pairs: list) -> tuple[list[str], list[str]]:
    """The colours and the shapes of `pairs`."""
    colours, shapes = {c for c, _ in pairs}, {s for _, s in pairs}
    return [word for c, word in enumerate(COLOURS) if c in colours], [w for s, w in enumerate(SHAPES) if s in shapes]


def _bounds(objects: Any) -> tuple[int, int]:
    """Least and most objects; (1, 1) for what `draw_scenes` will complain about."""
    good = isinstance(objects, Sequence) and len(objects) == 2 and all(isinstance(o, int) for o in objects)
    return tuple(objects) if good else (1, 1)


def _question(kind: str, make: Callable, objects: Any, pairs: list) -> Kind:
    colours, shapes = _here(pairs)
    bounds = _bounds(objects)
    cells = {
        "colour": _cells(*colours),
        "shape": _cells(*shapes),
        "size": _cells("small", "large"),
        "count": _cells(*map(questions.number, range(bounds[0], bounds[1] + 1))),
        "count of": _cells(*NUMBERS[: min(bounds[1], 2) + 1]),
        "place": _cells(*(place_words(row, column) for row in range(len(ROWS)) for column in range(len(COLUMNS)))),
        "same": tuple((field, word) for field in ("colour", "shape", "size") for word in ("yes", "no")),
        "existence": _cells("yes", "no"),
        "relation": _cells("yes", "no"),
    }.get(kind, ())

    def cell(question: str, answer: str) -> Cell:
        return (re.search(r"the same (\w+)", question)[1], answer) if kind == "same" else (answer,)

    return Kind(lambda rng, these: make(rng, these, pairs), cells, cell)


def _thought(kind: str, make: Callable, objects: Any, pairs: list) -> Kind:
    colours, shapes = _here(pairs)
    bounds = _bounds(objects)
    cells = {
        "property beside": _cells(*colours, *shapes),
        "count beside": _cells(*NUMBERS[: min(bounds[1], 3)]),
        "more": _cells("yes", "no"),
    }
    return Kind(make, cells[kind], _answer)
