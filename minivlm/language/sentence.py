"""Multi-modal sentences as tokens: names of observations keep places for them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.language.generate import pad_left
from minivlm.language.tokenizer import Tokenizer

#: Kind of observation -> all of a batch, in the order in which the texts name them.
Observations = dict[str, Float[Tensor, "n *shape"]]

_NAME = re.compile(r"(<([a-z]+)(?:_\d+)?>)")


class Sentence(NamedTuple):
    """A text that names observations, `object 1 is <obj_1>.`; what each name stands
    for; and what is to be said (None: that is to be written).
    """

    text: str
    observed: Mapping[str, Float[Tensor, "*shape"]]
    answer: str | None = None


@dataclass(frozen=True)
class Sentences:
    """Sentences into ids, labels and observations. `<img>`, `<img_1>` and `<img_2>` are
    of the kind `img`: each becomes as many places as `tokens["img"]` says, marked with
    an id that is the kind's own, and its observation is put into line. A name may come
    twice.

    Write no space after a name: the word that follows has none.
    """

    tokenizer: Tokenizer
    tokens: Mapping[str, int]  # kind of observation: places that one takes
    context: int  # longest sentence in tokens

    def __post_init__(self) -> None:
        for kind, many in self.tokens.items():
            if self.place_id(kind) is None:
                raise ValueError(
                    f"the tokenizer has no special token <{kind}> or <{kind}_1> to mark"
                    f" the places of {kind!r} with."
                )
            if many < 1:
                raise ValueError(f"{kind!r} takes {many} places; at least 1.")
        if self.context < 1:
            raise ValueError(f"context is {self.context}; it must be at least 1.")

    def place_id(self, kind: str) -> int | None:
        """The token that marks the places of a kind; None if there is none."""
        for name in (f"<{kind}>", f"<{kind}_1>"):
            if name in self.tokenizer.specials:
                return self.tokenizer.encode(name)[0]
        return None

    def encode(
        self, sentence: Sentence
    ) -> tuple[list[int], list[int], list[tuple[str, Tensor]]]:
        """`<bos> text answer. <eos>`: ids; labels, which are -100 on the text and on
        all places; and kind and value of each observation, in the text's order.

        Raises:
            ValueError: no words; an empty answer, or one that names an observation; an
                unknown kind; a name without an observation, or an observation that is
                not named; a sentence longer than the context.
        """
        text, observed, answer = sentence
        if not _NAME.sub("", text).strip():
            raise ValueError(f"a sentence has no words: {text!r}; write some.")
        if answer is not None and (not answer.strip() or _NAME.search(answer)):
            raise ValueError(
                f"an answer is words, and not empty; got {answer!r}. Observations are"
                " read, never written."
            )
        ids, found = [self.tokenizer.bos], []
        rest, names = text, []
        for name, kind in _NAME.findall(text):
            before, rest = rest.split(name, 1)
            if kind not in self.tokens:
                raise ValueError(
                    f"{name} is of no known kind of observation; known are"
                    f" {list(self.tokens)}: {text[:60]!r}"
                )
            if name not in observed:
                raise ValueError(
                    f"the text names {name}, and no observation is called so; given are"
                    f" {list(observed)}: {text[:60]!r}"
                )
            ids += self.tokenizer.encode(before, specials=False, after=ids)
            ids += [self.place_id(kind)] * self.tokens[kind]
            names.append(name)
            found.append((kind, observed[name]))
        if unused := [name for name in observed if name not in names]:
            raise ValueError(
                f"{unused[0]} is given, and the text does not name it: {text[:60]!r}"
            )
        ids += self.tokenizer.encode(rest, specials=False, after=ids)
        labels = [-100] * len(ids)
        if answer is not None:
            said = self.tokenizer.encode(f" {answer}.", specials=False, after=ids)
            ids, labels = [ids + said, labels + said]
            ids, labels = ids + [self.tokenizer.eos], labels + [self.tokenizer.eos]
        if len(ids) > self.context:
            raise ValueError(
                f"a sentence has {len(ids)} tokens, its observations' places among"
                f" them; the context holds {self.context}. Shorten it: {text[:60]!r}"
            )
        return ids, labels, found

    def batch(
        self, sentences: Sequence[Sentence]
    ) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"], Observations]:
        """Ids and labels to learn from, padded on the right, and the observations.

        Raises:
            ValueError: no sentences, or what `encode` raises.
        """
        rows = self._rows(sentences)
        longest = max(len(ids) for ids, _, _ in rows)
        ids, labels = (
            torch.tensor([row[side] + [fill] * (longest - len(row[0])) for row in rows])
            for side, fill in ((0, self.tokenizer.pad), (1, -100))
        )
        return ids, labels, _in_line(rows)

    def prompts(
        self, sentences: Sequence[Sentence]
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Observations]:
        """Ids and `keep` of sentences to be gone on with, padded on the left, and the
        observations. Answers are left out.

        Raises:
            ValueError: as for `batch`.
        """
        rows = self._rows([sentence._replace(answer=None) for sentence in sentences])
        return *pad_left([ids for ids, _, _ in rows], self.tokenizer.pad), _in_line(rows)

    def _rows(self, sentences: Sequence[Sentence]) -> list:
        if not sentences:
            raise ValueError("a batch needs at least one sentence; got none.")
        return [self.encode(sentence) for sentence in sentences]


def _in_line(rows: Sequence[tuple]) -> Observations:
    """All observations, kind by kind."""
    found: dict[str, list[Tensor]] = {}
    for _, _, observed in rows:
        for kind, value in observed:
            found.setdefault(kind, []).append(value)
    for kind, values in found.items():
        if len({value.shape for value in values}) > 1:
            shapes = sorted({tuple(value.shape) for value in values})
            raise ValueError(f"observations of one kind, {kind!r}, differ: {shapes}.")
    return {kind: torch.stack(values) for kind, values in found.items()}
