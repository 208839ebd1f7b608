"""A text of the language model's corpus, and what its makers share."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from minivlm.world.questions import Question
from minivlm.world.scenes import Scenes, draw_scenes
from minivlm.world.splits import all_pairs


class Reading(NamedTuple):
    """A text: what is told, then turns of question and answer. Without turns, what is told is all there is to learn."""

    kind: str
    told: str
    turns: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """`told question answer. question answer.`"""
        return " ".join([self.told, *(f"{question} {answer}." for question, answer in self.turns)]).strip()


def any_scenes(rng: np.random.Generator, n: int, objects: tuple[int, int] = (1, 3)) -> Scenes:
    """Scenes of all pairs of colour and shape, the held-out ones too."""
    return draw_scenes(rng, n, objects, pairs=all_pairs())


def single(questions: Iterable[Question]) -> list[Reading]:
    """A text for each question."""
    return [Reading(q.kind, q.told, ((q.question, q.answer),)) for q in questions]


def several(*rounds: Iterable[Question]) -> list[Reading]:
    """A text for each thing that is told; each of `rounds` asks about the same things in the same order."""
    read = []
    for asked in zip(*rounds, strict=True):
        turns = tuple(dict.fromkeys((q.question, q.answer) for q in asked))
        read.append(Reading(asked[0].kind, asked[0].told, turns))
    return read
