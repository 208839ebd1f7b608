"""Conversations about a picture, written by someone who never sees it.

So LLaVA's training data came to be (Liu et al. 2023, section 3): a language model was given the captions and boxes of an
image as text, and wrote what a person might ask about it and what an assistant who sees it would answer. Here the writer is
the grammar, and what it is given is the description of the scene in words.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minivlm.world.grammar import full
from minivlm.world.questions import KINDS as QUESTIONS
from minivlm.world.questions import Questions, pick
from minivlm.world.reasoning import Reasoning
from minivlm.world.scenes import Thing
from minivlm.world.splits import SEEN

#: What a user may say to have a picture described, and what is added to a question to have the way to its answer told.
DESCRIBE = (
    "describe the picture.",
    "describe this image in detail.",
    "what do you see?",
    "tell me what the picture shows.",
    "what is in this picture?",
)
EXPLAIN = ("explain step by step.", "think step by step.", "explain your answer.")

WORDS = tuple(sorted({word for text in DESCRIBE + EXPLAIN for word in text.strip("?.").replace("?", "").split()}))

#: LLaVA's three types of instruction data (section 3): `conversation`: several short questions; `detail`: a description of
#: everything; `reasoning`: a question that takes steps, with the steps.
KINDS = ("conversation", "detail", "reasoning")


class Dialogue(NamedTuple):
    """What user and assistant say in turn about one picture.

    `told` is what the writer was given: a description in words. `turns` are (what the user says, what the assistant
    answers); answers end in a full stop.
    """

    kind: str
    told: str
    turns: tuple[tuple[str, str], ...]


class Instructions:
    """Draws dialogues: `Instructions(rng)(scene's things)`.

    Args:
        rng: where the choices come from.
        kinds: which of `KINDS` to draw from, evenly. Where a scene allows no question that takes steps (a single thing),
            there is a conversation instead.
        questions: kinds of questions in conversations, of `world.questions.KINDS`.
        pairs: as for `Questions`.
        turns: questions in one conversation, at most: those asked twice and those that the scene does not allow are left out.

    Raises:
        ValueError: no kinds, or one that does not exist; no turns.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        kinds: Iterable[str] = KINDS,
        questions: Iterable[str] = tuple(QUESTIONS),
        pairs: Sequence[tuple[int, int]] = SEEN,
        turns: int = 4,
    ) -> None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds is a list of some of {list(KINDS)}; got {kinds}.")
        if turns < 1:
            raise ValueError(f"a conversation has at least one turn; got turns={turns}.")
        self.rng, self.kinds, self.turns = rng, kinds, turns
        self._ask, self._reason = Questions(rng, questions, pairs), Reasoning(rng)

    def __call__(self, these: Sequence[Thing]) -> Dialogue:
        """One dialogue about one scene.

        Raises:
            ValueError: a scene without things.
        """
        if not these:
            raise ValueError("there is nothing to say about a scene without things; draw or choose scenes with some.")
        kind = pick(self.rng, self.kinds)
        told = full([these[i] for i in self.rng.permutation(len(these)).tolist()]) + "."
        if kind == "reasoning" and (asked := self._reason(these, 2)):
            question = f"{asked[0].question} {pick(self.rng, EXPLAIN)}"
            return Dialogue(kind, told, ((question, asked[0].thought),))
        if kind != "detail":
            asked = {q.question: f"{q.answer}." for q in self._ask(these, self.turns)}
            if asked:
                return Dialogue("conversation", told, tuple(asked.items()))
        return Dialogue("detail", told, ((pick(self.rng, DESCRIBE), told),))
