"""What is evaluated: for each task how it is drawn, what its samples and texts are, how they look, and what a guess gives."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool1d

from minivlm.world import draws, numbers, reasoning, robot, sounds, strings, videos
from minivlm.world.compare import CHANCE as COMPARE_CHANCE
from minivlm.world.compare import Pairs
from minivlm.world.document_questions import CHANCE as DOCUMENT_CHANCE
from minivlm.world.documents import Documents
from minivlm.world.documents import render as render_documents
from minivlm.world.draws import Captioned, Heard, Named, Pointed, WebCaption
from minivlm.world.episodes import BY, Episodes
from minivlm.world.questions import CHANCE, Question
from minivlm.world.render import render
from minivlm.world.robot_pictures import render_tables
from minivlm.world.robot_questions import CHANCE as ROBOT_CHANCE
from minivlm.world.scenes import Scenes
from minivlm.world.splits import HELD_OUT, SEEN, all_pairs

#: Side of the pictures of scenes, for thumbnails.
SIDE = 64


class Task(NamedTuple):
    """A task: `draw(rng, times)` gives samples and a row of texts for each, `times` as many as the frozen set holds."""

    about: str
    draw: Callable[[np.random.Generator, int], tuple[Any, list]]
    sample: type
    row: type
    chance: Mapping[str, float]  # kind -> how often a guess is right
    pictures: Callable[[Any], Float[Tensor, "b k c h w"]]  # k small pictures of each sample
    learned: str = ""  # the task whose questions a model may have trained on, if it is another


def one(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 c h w"]:
    return images[:, None]


def of_scenes(scenes: Scenes) -> Tensor:
    return one(render(scenes, SIDE))


def of_pairs(pairs: Pairs) -> Tensor:
    return torch.stack([render(pairs.first, SIDE), render(pairs.second, SIDE)], 1)


def of_episodes(episodes: Episodes) -> Tensor:
    return render(episodes.scenes(), SIDE).unflatten(0, (len(episodes), -1))


def of_tables(tables: robot.Tables) -> Tensor:
    return one(render_tables(tables, SIDE))


def of_sounds(heard: sounds.Sounds) -> Float[Tensor, "b 1 2 4 4"]:
    """Sounds as small pictures: how loud in each of 16 spans of time, and how strong in each of 16 bands."""
    wave = sounds.waveform(heard, sounds.LEAST_RATE).double()
    power = torch.fft.rfft(wave).abs().square()
    bands = adaptive_avg_pool1d(power / power.mean(1, keepdim=True), 16) / 16
    return one(torch.stack([adaptive_avg_pool1d(wave.abs(), 16), bands], 1).unflatten(2, (4, 4)))


def of_sounds_and_scenes(heard: Heard) -> Tensor:
    """The picture, and the sound's small one laid over three equal channels."""
    sound = of_sounds(heard.sounds).mean(2, keepdim=True).expand(-1, -1, 3, -1, -1).flatten(0, 1)
    sound = torch.nn.functional.interpolate(sound, size=SIDE).float()
    return torch.cat([of_scenes(heard.scenes), one(sound)], 1)


_PAIR = 1 / len(all_pairs())
_HELD_CHANCE = CHANCE | {"at": 1 / len(HELD_OUT), "beside": 1 / len(HELD_OUT)}

#: Task -> how it is drawn. The names are those of the files in `data/eval/`.
TASKS: dict[str, Task] = {
    "questions": Task(
        "questions about scenes of seen pairs", draws.scene_questions, Scenes, Question, CHANCE, of_scenes
    ),
    "questions_held_out": Task(
        "the same about scenes of held-out pairs",
        partial(draws.scene_questions, pairs=HELD_OUT), Scenes, Question, _HELD_CHANCE, of_scenes, "questions",
    ),
    "reasoning": Task(
        "questions in two steps, with chains of thought",
        draws.thoughts, Scenes, reasoning.Reasoned, reasoning.CHANCE, of_scenes,
    ),
    "captions": Task(
        "scenes with a caption in each style, for retrieval: no two show the same things",
        draws.captions, Scenes, Captioned, {style: 1 / draws.RETRIEVED for style in Captioned._fields}, of_scenes,
    ),
    "single": Task(
        "one thing of a seen pair, to be named among all pairs",
        partial(draws.single, pairs=SEEN), Scenes, Named, {"name": _PAIR}, of_scenes,
    ),
    "single_held_out": Task(
        "one thing of a held-out pair, to be named among all pairs",
        partial(draws.single, pairs=HELD_OUT), Scenes, Named, {"name": _PAIR}, of_scenes, "single",
    ),
    "web": Task(
        "captions as the web has them: half of them clean, each kind of noise equally often",
        draws.web_captions, Scenes, WebCaption, {"clean or not": 1 / 2}, of_scenes,
    ),
    "refer": Task(
        "phrases that fit one thing, with its box, or none",
        draws.phrases, Scenes, Pointed, {"box": 0.0, "exists": 1 / 2}, of_scenes,
    ),
    "compare": Task("two pictures, one question", draws.comparisons, Pairs, Question, COMPARE_CHANCE, of_pairs),
    **{
        f"episodes_{by}_{shots}": Task(
            f"two invented names, {shots} picture{'s' * (shots > 1)} of each, by {by}",
            partial(draws.named_pictures, by=by, shots=shots), Episodes, Question, {"name": 1 / 2}, of_episodes,
        )
        for by in BY
        for shots in (1, 2)
    },
    "strings": Task(
        "cards with signs", draws.cards, strings.Strings, Question, strings.CHANCE, lambda x: one(strings.render(x))
    ),
    "digits": Task(
        "handwriting of the test split",
        draws.handwriting, numbers.Numbers, Question, numbers.CHANCE, lambda x: one(numbers.render(x)),
    ),
    "documents": Task(
        "tables with ruled lines",
        draws.ruled_tables, Documents, Question, DOCUMENT_CHANCE, lambda x: one(render_documents(x, 128, 128)),
    ),
    "videos": Task(
        "motion and time",
        draws.films, videos.Videos, Question, videos.CHANCE, lambda x: videos.frames(x, 1, SIDE)[0],
    ),
    "sounds": Task(
        "letters as tones",
        draws.tones, sounds.Sounds, Question, {k: v for k, v in sounds.CHANCE.items() if k != "hear"}, of_sounds,
    ),
    "hear": Task(
        "a sound and a picture",
        draws.sounds_with_pictures, Heard, Question, {"hear": sounds.CHANCE["hear"]}, of_sounds_and_scenes,
    ),
    "robot": Task(
        "a robot's table: plans, states, what can be done",
        partial(draws.robot_tables, stacks=robot.SEEN_STACKS), robot.Tables, Question, ROBOT_CHANCE, of_tables,
    ),
    "robot_held_out": Task(
        "the same with held-out stacks",
        partial(draws.robot_tables, stacks=robot.HELD_OUT_STACKS), robot.Tables, Question, ROBOT_CHANCE, of_tables,
        "robot",
    ),
}  # fmt: skip


def task_named(name: str) -> Task:
    """A task.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}: there are {', '.join(TASKS)}.")
    return TASKS[name]
