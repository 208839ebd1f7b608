"""What is evaluated: for each task how its samples are drawn, with what answers equally often, and how they are rendered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.world import compare, document_questions, documents, numbers, questions, reasoning, robot, sounds, strings, videos
from minivlm.world.asking import ask, reason, wanted
from minivlm.world.boxes import boxes
from minivlm.world.episodes import BY, Episodes, draw_episodes
from minivlm.world.grammar import STYLES, Captions
from minivlm.world.packing import join
from minivlm.world.questions import Question
from minivlm.world.reasoning import Reasoned
from minivlm.world.refer import refer
from minivlm.world.render import render
from minivlm.world.robot_pictures import render_tables
from minivlm.world.robot_questions import CHANCE as ROBOT_CHANCE
from minivlm.world.robot_questions import KINDS as ROBOT_KINDS
from minivlm.world.robot_questions import RobotQuestions
from minivlm.world.scenes import Scenes, draw_scenes
from minivlm.world.splits import HELD_OUT, SEEN, all_pairs, pair_name
from minivlm.world.web import NOISE, WebCaptions

#: Side of the picture, in pixels, for which boxes are given.
SIDE = 224


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


class Found(NamedTuple):
    """A caption from the web, and what is wrong with it (see `web.NOISE`)."""

    kind: str
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


class Task(NamedTuple):
    """How a task is drawn. `draw(rng, times)` gives samples and a row for each: `times` as many as the frozen set holds."""

    about: str
    draw: Callable[[np.random.Generator, int], tuple[Any, list]]
    sample: type
    row: type
    pictures: Callable[[Any], Float[Tensor, "b k c h w"]]  # k pictures of each sample, small
    chance: Mapping[str, float]


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


def _questions(rng, times, pairs=SEEN):
    return ask(rng, times * 72 * len(questions.KINDS), pairs=pairs)


def _reasoning(rng, times):
    return reason(rng, times * 96 * len(reasoning.KINDS))


def _captions(rng, times):
    """Scenes no two of which show the same things, so that even their tags tell them apart."""
    parts, seen = [], set()
    while len(seen) < 256 * times:
        pool, fresh = draw_scenes(rng, 1024, (2, 3)), []
        rows = zip(pool.colour.tolist(), pool.shape.tolist(), pool.counts().tolist(), strict=True)
        for i, (colours, shapes, many) in enumerate(rows):
            shown = tuple(sorted(zip(colours[:many], shapes[:many], strict=True)))
            if shown not in seen and len(seen) < 256 * times:
                seen.add(shown)
                fresh.append(i)
        parts += [pool[fresh]] if fresh else []
    scenes = Scenes.join(parts)
    said = [Captions(rng, styles=[style])(scenes) for style in STYLES]
    return scenes, [Captioned(*texts) for texts in zip(*said, strict=True)]


def _single(rng, times, pairs, kind):
    each = 10 * times
    scenes = Scenes.join([draw_scenes(rng, each, (1, 1), [pair]) for pair in pairs])
    rows = [Named(kind, pair_name(*pair)) for pair in pairs for _ in range(each)]
    order = rng.permutation(len(rows)).tolist()
    return scenes[order], [rows[i] for i in order]


def _web(rng, times):
    def pool(rng, n):
        scenes = draw_scenes(rng, n, (1, 3))
        said = WebCaptions(rng)(scenes)
        rows = zip(said.noise.tolist(), said.texts, strict=True)
        return scenes, [Found("clean" if NOISE[noise] == "clean" else "noisy", f"{NOISE[noise]}\t{text}") for noise, text in rows]

    kinds = {"clean": _words("clean"), "noisy": _words(*NOISE[1:])}
    scenes, rows = balanced(rng, pool, 240 * times, kinds, lambda row: (row.text.split("\t")[0],))
    return scenes, [Found(*row.text.split("\t")) for row in rows]


def _refer(rng, times):
    def pool(rng, n):
        scenes = draw_scenes(rng, n, (2, 3))
        found = refer(rng, scenes, absent=0.5)
        scenes = scenes[[one.scene for one in found]]
        where = boxes(scenes, SIDE, SIDE).double().round(decimals=1).tolist()
        rows = [
            Pointed("there", one.phrase, one.slot, tuple(where[i][one.slot])) if one.exists else Pointed("absent", one.phrase, -1, ())
            for i, one in enumerate(found)
        ]
        return scenes, rows

    return balanced(rng, pool, 150 * times, {"there": [], "absent": []})


def _compare(rng, times):
    kinds = {kind: _words(*answers) for kind, answers in compare.KINDS.items()}
    return balanced(rng, compare.compare, 60 * times, kinds)


def _strings(rng, times):
    def pool(rng, n):
        drawn = strings.draw_strings(rng, n, 64, 256)
        return drawn, strings.StringQuestions(rng)(drawn)

    return balanced(rng, pool, 144 * times, {"read": [], "sign": _words(*strings.ALPHABET)})


def _digits(rng, times):
    def pool(rng, n):
        drawn = numbers.draw_numbers(rng, n, 64, 128, split="test")
        return drawn, numbers.NumberQuestions(rng)(drawn)

    return balanced(rng, pool, 150 * times, {"digits": [], "sum": []})


def _documents(rng, times):
    def pool(rng, n):
        drawn = documents.draw_documents(rng, n)
        return drawn, document_questions.DocumentQuestions(rng)(drawn)

    return balanced(rng, pool, 72 * times, {kind: [] for kind in document_questions.CHANCE})


def _episodes(rng, times, by, shots):
    """The query is as often like the first picture as not."""

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


def _videos(rng, times):
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


def _sounds(rng, times):
    longest = max(map(len, sounds.SPELLED))

    def pool(rng, n):
        parts = [("spell", "word"), ("letters", "random"), ("tones", "random")]
        drawn = [sounds.draw_sounds(rng, sounds.draw_texts(rng, n // 3, how), slots=longest) for _, how in parts]
        return join(drawn), [row for part, (kind, _) in zip(drawn, parts, strict=True) for row in sounds.ask(part, kind)]

    tones = _words(*sounds.NUMBERS[1 : sounds.MOST + 1])
    return balanced(rng, pool, 48 * times, {"spell": _words(*sounds.SPELLED), "letters": [], "tones": tones})


def _hear(rng, times):
    longest = max(len(pair_name(*pair)) for pair in SEEN)

    def pool(rng, n):
        scenes = draw_scenes(rng, n, (1, 3))
        heard, asked = sounds.hear(rng, scenes, slots=longest)
        return Heard(scenes, heard), asked

    return balanced(rng, pool, 200 * times, {"hear": _words("yes", "no")})


def _robot(rng, times, stacks):
    def pool(rng, n):
        return RobotQuestions(rng, stacks=stacks).sift(robot.draw_tables(rng, n, stacks=stacks))

    def cell(row: Question) -> tuple[str, ...]:
        if row.kind == "plan":
            return (str(row.answer.count("put")),)
        return ("moved" if "moved" in row.question else "put", row.answer) if row.kind == "possible" else (row.answer,)

    yes_no = _words("yes", "no")
    even = {"plan": _words(1, 2, 3), "done": yes_no, "possible": [(w, *a) for w in ("moved", "put") for a in yes_no]}
    return balanced(rng, pool, 48 * times, {kind: even.get(kind, []) for kind in ROBOT_KINDS}, cell)


def _one(images: Tensor) -> Tensor:
    return images[:, None]


def _both(pairs) -> Tensor:
    return torch.stack([render(pairs.first, 64), render(pairs.second, 64)], 1)


def _all_shown(episodes: Episodes) -> Tensor:
    return render(episodes.scenes(), 64).unflatten(0, (len(episodes), -1))


def loudness(heard: sounds.Sounds) -> Float[Tensor, "b 1 2 4 4"]:
    """Sounds as small pictures: how loud in each of 16 spans of time, how much of the power in each of 16 bands."""
    wave = sounds.waveform(heard, sounds.LEAST_RATE)
    power = torch.fft.rfft(wave.double()).abs().square()
    bands = torch.nn.functional.adaptive_avg_pool1d(power / power.mean(1, keepdim=True), 16) / 16
    return torch.stack([torch.nn.functional.adaptive_avg_pool1d(wave.abs(), 16).double(), bands], 1).unflatten(2, (4, 4))[:, None]


def scene_pictures(scenes: Scenes) -> Float[Tensor, "b 1 3 h w"]:
    """Scenes at 64 x 64 pixels."""
    return _one(render(scenes, 64))


_RETRIEVAL = {"tags": 1 / 256, "short": 1 / 256, "full": 1 / 256, "long": 1 / 256}
_HELD_CHANCE = questions.CHANCE | {"at": 1 / len(HELD_OUT), "beside": 1 / len(HELD_OUT)}

#: Task -> how it is drawn. The names are those of the files in `data/eval/`.
TASKS: dict[str, Task] = {
    "questions": Task("questions about scenes of seen pairs", _questions, Scenes, Question, scene_pictures, questions.CHANCE),
    "questions_held_out": Task(
        "the same about scenes of held-out pairs", partial(_questions, pairs=HELD_OUT), Scenes, Question, scene_pictures, _HELD_CHANCE
    ),
    "reasoning": Task("questions in two steps, with chains of thought", _reasoning, Scenes, Reasoned, scene_pictures, reasoning.CHANCE),
    "captions": Task(
        "scenes with a caption in every style, for retrieval: no two show the same things",
        _captions, Scenes, Captioned, scene_pictures, _RETRIEVAL,
    ),
    "single": Task(
        "one thing of a seen pair, for zero-shot classification among all pairs",
        partial(_single, pairs=SEEN, kind="seen"), Scenes, Named, scene_pictures, {"seen": 1 / len(all_pairs())},
    ),
    "single_held_out": Task(
        "one thing of a held-out pair", partial(_single, pairs=HELD_OUT, kind="held out"), Scenes, Named, scene_pictures,
        {"held out": 1 / len(all_pairs())},
    ),
    "web": Task(
        "captions as the web has them, half of them clean, each kind of noise equally often", _web, Scenes, Found, scene_pictures,
        {"clean or not": 1 / 2},
    ),
    "refer": Task(
        "phrases that fit one thing, with its box, or none", _refer, Scenes, Pointed, scene_pictures, {"box": 0.0, "exists": 1 / 2}
    ),
    "compare": Task("two pictures, one question", _compare, compare.Pairs, Question, _both, compare.CHANCE),
    "episodes_pair_1": None, "episodes_pair_2": None, "episodes_colour_1": None, "episodes_colour_2": None,
    "episodes_shape_1": None, "episodes_shape_2": None,
    "strings": Task(
        "cards with signs", _strings, strings.Strings, Question, lambda drawn: _one(strings.render(drawn)), strings.CHANCE
    ),
    "digits": Task(
        "handwriting of the test split", _digits, numbers.Numbers, Question, lambda drawn: _one(numbers.render(drawn)), numbers.CHANCE
    ),
    "documents": Task(
        "tables with ruled lines", _documents, documents.Documents, Question, lambda drawn: _one(documents.render(drawn, 128, 128)),
        document_questions.CHANCE,
    ),
    "videos": Task(
        "motion and time", _videos, videos.Videos, Question, lambda drawn: videos.frames(drawn, 0.5, 64)[0], videos.CHANCE
    ),
    "sounds": Task(
        "letters as tones", _sounds, sounds.Sounds, Question, loudness,
        {kind: level for kind, level in sounds.CHANCE.items() if kind != "hear"},
    ),
    "hear": Task(
        "a sound and a picture", _hear, Heard, Question, lambda drawn: scene_pictures(drawn.scenes), {"hear": sounds.CHANCE["hear"]}
    ),
    "robot": Task(
        "a robot's table: plans, states, what can be done", partial(_robot, stacks=robot.SEEN_STACKS), robot.Tables, Question,
        lambda drawn: _one(render_tables(drawn, 64)), ROBOT_CHANCE,
    ),
    "robot_held_out": Task(
        "the same with held-out stacks", partial(_robot, stacks=robot.HELD_OUT_STACKS), robot.Tables, Question,
        lambda drawn: _one(render_tables(drawn, 64)), ROBOT_CHANCE,
    ),
}  # fmt: skip

for _by in BY:
    for _shots in (1, 2):
        TASKS[f"episodes_{_by}_{_shots}"] = Task(
            f"two invented names, {_shots} picture{'s' * (_shots > 1)} of each, by {_by}",
            partial(_episodes, by=_by, shots=_shots), Episodes, Question, _all_shown, {"name": 1 / 2},
        )  # fmt: skip


def chance(task: str) -> dict[str, float]:
    """Kind -> how often a guess is right, of a task.

    Raises:
        ValueError: there is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}: there are {', '.join(TASKS)}.")
    return dict(TASKS[task].chance)


def counts(rows: list) -> Counter:
    """How many rows of each kind; captions have none."""
    return Counter(getattr(row, "kind", "caption") for row in rows)
