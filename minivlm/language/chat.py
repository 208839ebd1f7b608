"""Conversations as tokens: who says what, where the images stand, and what is to be
learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minivlm.language.generate import pad_left
from minivlm.language.tokenizer import Tokenizer

#: What the user says and what the assistant answers; None: that is to be written.
Exchange = tuple[str, str | None]


@dataclass(frozen=True)
class Chat:
    """Turns into ids and labels, piece by piece, so that the labels are right whatever
    the pieces are. Vicuna's words (LLaVA's code, `conversation.py`) by default.

    What users say may hold `image`, anywhere and more than once: it becomes the places
    that an image takes. Other special tokens in it are spelled out.
    """

    tokenizer: Tokenizer
    image_tokens: int  # places an image takes
    context: int  # longest conversation in tokens
    image: str = "<image>"
    system: str = ""
    user: str = "user: "
    assistant: str = " assistant:"

    def __post_init__(self) -> None:
        special = self.image in self.tokenizer.specials
        if not special or len(self.tokenizer.encode(self.image)) != 1:
            raise ValueError(
                f"image is {self.image!r}, which is no special token of the tokenizer;"
                " it must be one, such as '<image>'."
            )
        if self.image in self.system + self.user + self.assistant:
            raise ValueError(
                f"{self.image!r} stands in system, user or assistant; images stand in"
                " what the user says."
            )
        if self.image_tokens < 0 or self.context < 1:
            raise ValueError(
                f"image_tokens is {self.image_tokens} and context {self.context}; they"
                " must be at least 0 (an image that takes no place) and 1."
            )

    @property
    def image_id(self) -> int:
        """The token that keeps the places."""
        return self.tokenizer.encode(self.image)[0]

    def encode(self, turns: Sequence[Exchange]) -> tuple[list[int], list[int]]:
        """`<bos> system user: question assistant: answer <eos>`, and so on. Labels are
        the answers with their `<eos>`, and -100 everywhere else.

        Raises:
            ValueError: no turns, an empty question or answer, an answer that is missing
                before the last turn or holds an image, or a text longer than the
                context.
        """
        if not turns:
            raise ValueError("a conversation needs at least one turn; got none.")
        ids, labels = [self.tokenizer.bos], [-100]

        def add(new: list[int], learned: bool = False) -> None:
            ids.extend(new)
            labels.extend(new if learned else [-100] * len(new))

        def say(text: str, learned: bool = False) -> None:
            add(self.tokenizer.encode(text, specials=False, after=ids), learned)

        for number, (question, answer) in enumerate(turns, 1):
            self._check(question, answer, number == len(turns))
            asked = f"{self.user}{question}{self.assistant}"
            if number == 1:
                asked = self.system + asked
            for i, part in enumerate(asked.split(self.image)):
                if i:
                    add([self.image_id] * self.image_tokens)
                say(part)
            if answer is not None:
                say(f" {answer}", learned=True)
                add([self.tokenizer.eos], learned=True)
        if len(ids) > self.context:
            raise ValueError(
                f"a conversation has {len(ids)} tokens, {self.image_tokens} for each"
                f" image; the context holds {self.context}. Shorten it:"
                f" {turns[0][0][:60]!r} ..."
            )
        return ids, labels

    def _check(self, question: str, answer: str | None, last: bool) -> None:
        if not question.replace(self.image, "").strip():
            raise ValueError(f"a question is empty: {question!r}; write one.")
        if answer is None and not last:
            raise ValueError(
                f"the answer to {question[:60]!r} is missing, and the conversation goes"
                " on; only the last turn may wait for its answer (None)."
            )
        if answer is not None and (not answer.strip() or self.image in answer):
            raise ValueError(
                f"an answer is words, and not empty; got {answer!r}. Images stand in"
                " what the user says."
            )

    def batch(
        self, conversations: Sequence[Sequence[Exchange]], images: int
    ) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        """Ids and labels to train on, padded on the right.

        Args:
            images: how many there are for the whole batch, in reading order.

        Raises:
            ValueError: no conversations, images and their places do not match, or what
                `encode` raises.
        """
        rows = self._rows(conversations, images)
        longest = max(len(ids) for ids, _ in rows)
        pad = self.tokenizer.pad
        ids, labels = (
            torch.tensor([row + [fill] * (longest - len(row)) for row in side])
            for side, fill in zip(zip(*rows, strict=True), (pad, -100), strict=True)
        )
        return ids, labels

    def prompts(
        self, conversations: Sequence[Sequence[Exchange]], images: int
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Ids and `keep` to be answered: the last answer of each is None; padded on the
        left.

        Raises:
            ValueError: as for `batch`, or a last turn that has its answer.
        """
        rows = self._rows(conversations, images)
        if done := [turns for turns in conversations if turns[-1][1] is not None]:
            raise ValueError(
                f"nothing is left to answer in {done[0][-1]!r}: its answer must be"
                " None."
            )
        return pad_left([ids for ids, _ in rows], self.tokenizer.pad)

    def _rows(
        self, conversations: Sequence[Sequence[Exchange]], images: int
    ) -> list[tuple[list[int], list[int]]]:
        if not conversations:
            raise ValueError("a batch needs at least one conversation; got none.")
        said = [question for turns in conversations for question, _ in turns]
        places = sum(question.count(self.image) for question in said)
        if places != images:
            raise ValueError(
                f"the conversations mention {places} images ({self.image!r}), and"
                f" {images} are given; write {self.image!r} once for each, such as"
                f" '{self.image}\\nwhat is this?'."
            )
        return [self.encode(turns) for turns in conversations]
