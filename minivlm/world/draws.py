"""How the samples of each evaluation are drawn: which kinds, and which answers equally often.

Each drawer takes a generator and `times`, and gives `times` as many samples as the frozen set holds, with a row of texts for
each. To fit something on many or to try it on others, take other generators and a larger `times`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minivlm.world import (
    compare,
    document_questions,
    documents,
    numbers,
    questions,
    reasoning,
    robot,
    sounds,
    strings,
    videos,
)
from minivlm.world.asking import ask, reason, wanted
from minivlm.world.boxes import boxes
from minivlm.world.episodes import draw_episodes
from minivlm.world.grammar import STYLES, Captions
from minivlm.world.packing import join
from minivlm.world.questions import Question
from minivlm.world.refer import refer
from minivlm.world.robot_questions import KINDS as ROBOT_KINDS
from minivlm.world.robot_questions import RobotQuestions
from minivlm.world.scenes import Scenes, draw_scenes
from minivlm.world.splits import SEEN, pair_name
from minivlm.world.web import NOISE, WebCaptions

#: Side of the picture, in pixels, for which boxes are given; scenes among which one is to be retrieved.
SIDE, RETRIEVED = 224, 256


class Captioned(NamedTuple):
    """A scene's caption in each style (see `grammar.STYLES`)."""

    tags: str
    short: str
    full: str
    long: str


class Named(NamedTuple):
    """What a picture of one thing shows: `red star`."""

    kind: str
    name: str


class WebCaption(NamedTuple):
    """A caption from the web: `clean` or `noisy`, and what is wrong with it (see `web.NOISE`)."""

    kind: str
    noise: str
    text: str


class Pointed(NamedTuple):
    """A phrase and the thing that it fits: its slot, and its box in pixels of a picture of `SIDE` x `SIDE`.

    `kind` is `there` or `absent`; for `absent` the slot is -1 and there is no box.
    """

    kind: str
    phrase: str
    slot: int
    box: tuple[float, ...]


@dataclass(frozen=True)
class Heard:
    """Pictures, each with a sound."""

    scenes: Scenes
    sounds: sounds.Sounds

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: Any) -> Heard:
        return Heard(self.scenes[index], self.sounds[index])


def balanced(
    rng: np.random.Generator,
    pool: Callable[[np.random.Generator, int], tuple[Any, list]],
    each: int,
    kinds: Mapping[str, Sequence[tuple]],
    cell: Callable[[Any], tuple] = lambda row: (row.answer,),
) -> tuple[Any, list]:
    """`each` samples and rows of every kind from pools as large as needed, the cells of a kind evenly (none: as they come).

    Raises:
        ValueError: what is wanted does not come.
    """
    left = wanted(rng, each * len(kinds), kinds)
    parts, rows = [], []
    for _ in range(200):
        if not (missing := (+left).total()):
            order = rng.permutation(len(rows)).tolist()
            return join(parts, INNER)[order], [rows[i] for i in order]
        samples, drawn = pool(rng, max(2 * missing, 256))
        kept = []
        for i, row in enumerate(drawn):
            key = (row.kind, tuple(cell(row)) if kinds.get(row.kind) else ())
            if left[key] > 0:
                left[key] -= 1
                kept.append(i)
        if kept:
            parts.append(samples[kept])
            rows += [drawn[i] for i in kept]
    raise ValueError(f"these never came: {dict(+left)}.")


#: Field -> class, where samples hold samples of other classes than Scenes.
INNER: dict[str, type] = {"sounds": sounds.Sounds}


def _words(*words: Any) -> list[tuple]:
    return [(str(word),) for word in words]


def scene_questions(rng, times, pairs=SEEN):
    return ask(rng, times * 72 * len(questions.KINDS), pairs=pairs)


def thoughts(rng, times):
    return reason(rng, times * 96 * len(reasoning.KINDS))


def captions(rng, times):
    """Scenes no two of which show the same things, so that even their tags tell them apart."""
    parts, seen = [], set()
    while len(seen) < RETRIEVED * times:
        pool, fresh = draw_scenes(rng, 1024, (2, 3)), []
        rows = zip(pool.colour.tolist(), pool.shape.tolist(), pool.counts().tolist(), strict=True)
        for i, (colours, shapes, many) in enumerate(rows):
            shown = tuple(sorted(zip(colours[:many], shapes[:many], strict=True)))
            if shown not in seen and len(seen) < RETRIEVED * times:
                seen.add(shown)
                fresh.append(i)
        parts += [pool[fresh]] if fresh else []
    scenes = Scenes.join(parts)
    said = [Captions(rng, styles=[style])(scenes) for style in STYLES]
    return scenes, [Captioned(*texts) for texts in zip(*said, strict=True)]


def single(rng, times, pairs):
    each = 10 * times
    scenes = Scenes.join([draw_scenes(rng, each, (1, 1), [pair]) for pair in pairs])
    rows = [Named("name", pair_name(*pair)) for pair in pairs for _ in range(each)]
    order = rng.permutation(len(rows)).tolist()
    return scenes[order], [rows[i] for i in order]


def web_captions(rng, times):
    def pool(rng, n):
        scenes = draw_scenes(rng, n, (1, 3))
        said = WebCaptions(rng)(scenes)
        rows = zip(said.noise.tolist(), said.texts, strict=True)
        return scenes, [WebCaption("noisy" if noise else "clean", NOISE[noise], text) for noise, text in rows]

    kinds = {"clean": _words("clean"), "noisy": _words(*NOISE[1:])}
    return balanced(rng, pool, 240 * times, kinds, lambda row: (row.noise,))


def phrases(rng, times):
    def pool(rng, n):
        scenes = draw_scenes(rng, n, (2, 3))
        found = refer(rng, scenes, absent=0.5)
        scenes = scenes[[one.scene for one in found]]
        where = boxes(scenes, SIDE, SIDE).double().round(decimals=1).tolist()
        there = [tuple(corners[one.slot]) if one.exists else () for one, corners in zip(found, where, strict=True)]
        kinds = ("there" if box else "absent" for box in there)
        rows = zip(kinds, found, there, strict=True)
        return scenes, [Pointed(kind, one.phrase, one.slot, box) for kind, one, box in rows]

    return balanced(rng, pool, 150 * times, {"there": [], "absent": []})


def comparisons(rng, times):
    kinds = {kind: _words(*answers) for kind, answers in compare.KINDS.items()}
    return balanced(rng, compare.compare, 60 * times, kinds)


def cards(rng, times):
    def pool(rng, n):
        drawn = strings.draw_strings(rng, n, 64, 256)
        return drawn, strings.StringQuestions(rng)(drawn)

    return balanced(rng, pool, 144 * times, {"read": [], "sign": _words(*strings.ALPHABET)})


def handwriting(rng, times):
    def pool(rng, n):
        drawn = numbers.draw_numbers(rng, n, 64, 128, split="test")
        return drawn, numbers.NumberQuestions(rng)(drawn)

    return balanced(rng, pool, 150 * times, {"digits": [], "sum": []})


def ruled_tables(rng, times):
    def pool(rng, n):
        drawn = documents.draw_documents(rng, n)
        return drawn, document_questions.DocumentQuestions(rng)(drawn)

    return balanced(rng, pool, 72 * times, {kind: [] for kind in document_questions.CHANCE})


def named_pictures(rng, times, by, shots):
    """The query is called what the first picture is called as often as not."""
    n = 60 * times
    parts, left = [], {True: n, False: n}
    while left[True] or left[False]:
        drawn = draw_episodes(rng, 4 * n, 2, shots, by)
        like = drawn.shown[:, 0] == drawn.asked
        for truth in left:
            rows = (like == truth).nonzero()[: left[truth], 0].tolist()
            left[truth] -= len(rows)
            parts += [drawn[rows]] if rows else []
    drawn = join(parts)[rng.permutation(2 * n).tolist()]
    return drawn, drawn.questions()


def _of_two(row: Question) -> tuple[str]:
    """Of `which is faster, the star or the ring?`: whether the first or the second is right; of others, the answer."""
    if row.kind not in ("order", "speed"):
        return (row.answer,)
    return ("first",) if row.question.index(row.answer) < row.question.index(" or ") else ("second",)


def films(rng, times):
    two = _words("first", "second")
    kinds = {
        "direction": _words(*videos.DIRECTIONS),
        "order": two,
        "speed": two,
        "second": _words(*range(1, videos.SECONDS - 2)),
        "count": _words(*videos.NUMBERS[: videos.NEW + 1]),
        "motion": _words("yes", "no"),
    }
    return balanced(rng, videos.draw_questions, 60 * times, kinds, _of_two)


def tones(rng, times):
    longest = max(map(len, sounds.SPELLED))

    def pool(rng, n):
        parts = [("spell", "word"), ("letters", "random"), ("tones", "random")]
        drawn = [sounds.draw_sounds(rng, sounds.draw_texts(rng, n // 3, how), slots=longest) for _, how in parts]
        return join(drawn), [
            row for part, (kind, _) in zip(drawn, parts, strict=True) for row in sounds.ask(part, kind)
        ]

    tones = _words(*sounds.NUMBERS[1 : sounds.MOST + 1])
    return balanced(rng, pool, 48 * times, {"spell": _words(*sounds.SPELLED), "letters": [], "tones": tones})


def sounds_with_pictures(rng, times):
    longest = max(len(pair_name(*pair)) for pair in SEEN)

    def pool(rng, n):
        scenes = draw_scenes(rng, n, (1, 3))
        heard, asked = sounds.hear(rng, scenes, slots=longest)
        return Heard(scenes, heard), asked

    return balanced(rng, pool, 200 * times, {"hear": _words("yes", "no")})


def robot_tables(rng, times, stacks):
    def pool(rng, n):
        return RobotQuestions(rng, stacks=stacks).sift(robot.draw_tables(rng, n, stacks=stacks))

    def cell(row: Question) -> tuple[str, ...]:
        if row.kind == "plan":
            return (str(row.answer.count("put")),)
        return ("moved" if "moved" in row.question else "put", row.answer) if row.kind == "possible" else (row.answer,)

    yes_no = _words("yes", "no")
    even = {"plan": _words(1, 2, 3), "done": yes_no, "possible": [(w, *a) for w in ("moved", "put") for a in yes_no]}
    return balanced(rng, pool, 48 * times, {kind: even.get(kind, []) for kind in ROBOT_KINDS}, cell)
