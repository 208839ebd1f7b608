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


class Sentence(NamedTuple):
    """A text that names observations, `object 1 is <obj_1>.`, what each name stands
    for, and what is to be said about it (None: that is to be written).
    """

    text: str
    observed: Mapping[str, Float[Tensor, "*shape"]]
    answer: str | None = None


@dataclass(frozen=True)
class Sentences:
    """Sentences into ids, labels and observations. `<img>`, `<img_1>` and `<img_2>` are
    of the kind `img`: each name becomes as many places as `tokens["img"]` says, marked
    with the kind's own id, and its observation is put into line. A name may come twice.

    Write no space after a name: the word that follows has none.
    """

    tokenizer: Tokenizer
    tokens: Mapping[str, int]  # kind of observation: places that one takes
    context: int  # longest sentence in tokens

    def __post_init__(self) -> None:
        for kind, many in self.tokens.items():
            self.place_id(kind)
            if many < 1:
                raise ValueError(f"{kind!r} takes {many} places; at least 1 is needed.")
        if self.context < 1:
            raise ValueError(f"context is {self.context}; it must be at least 1.")

    def place_id(self, kind: str) -> int:
        """The token that marks the places of a kind."""
        for name in (f"<{kind}>", f"<{kind}_1>"):
            if name in self.tokenizer.specials:
                return self.tokenizer.encode(name)[0]
        raise ValueError(
            f"the tokenizer has no special token <{kind}> or <{kind}_1> to mark the"
            f" places of {kind!r} with."
        )

    def encode(
        self, sentence: Sentence
    ) -> tuple[list[int], list[int], list[tuple[str, Tensor]]]:
        """`<bos> text answer. <eos>`: ids; labels, which are -100 on the text and on
        all places; and kind and value of each observation, in the text's order.

        Raises:
            ValueError: no words; an answer that is empty or names an observation; a
                name of no known kind, or without an observation; an observation without
                a name; a sentence longer than the context.
        """
        text, observed, answer = sentence
        name_pattern = r"(<[a-z]+(?:_\d+)?>)"
        said, *rest = re.split(name_pattern, text)  # words, name, words, name, words
        names, words = rest[::2], rest[1::2]
        if not "".join([said, *words]).strip():
            raise ValueError(f"a sentence has no words: {text!r}; write some.")
        if unused := [name for name in observed if name not in names]:
            raise ValueError(f"{text[:60]!r} has no {unused[0]}, which is given.")
        ids, found = [self.tokenizer.bos], []
        ids += self.tokenizer.encode(said, specials=False, after=ids)
        for name, said in zip(names, words, strict=True):
            kind = re.sub(r"_\d+", "", name)[1:-1]
            if kind not in self.tokens or name not in observed:
                raise ValueError(
                    f"{text[:60]!r} names {name}; kinds are {list(self.tokens)}, and"
                    f" observations are given of {list(observed)}."
                )
            ids += [self.place_id(kind)] * self.tokens[kind]
            ids += self.tokenizer.encode(said, specials=False, after=ids)
            found.append((kind, observed[name]))
        labels = [-100] * len(ids)
        if answer is not None:
            if not answer.strip() or re.search(name_pattern, answer):
                raise ValueError(
                    f"an answer is words, and not empty; got {answer!r}. Observations"
                    " are read, never written."
                )
            new = self.tokenizer.encode(f" {answer}.", specials=False, after=ids)
            new.append(self.tokenizer.eos)
            ids, labels = ids + new, labels + new
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
            ValueError: no sentences, observations of one kind that differ in shape, or
                what `encode` raises.
        """
        rows, observations = self._rows(sentences)
        longest = max(len(ids) for ids, _ in rows)
        ids, labels = (
            torch.tensor([row + [fill] * (longest - len(row)) for row in side])
            for side, fill in zip(
                zip(*rows, strict=True), (self.tokenizer.pad, -100), strict=True
            )
        )
        return ids, labels, observations

    def prompts(
        self, sentences: Sequence[Sentence]
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Observations]:
        """Ids and `keep` of sentences to be gone on with, padded on the left, and the
        observations; answers are left out. Errors as for `batch`.
        """
        bare = [sentence._replace(answer=None) for sentence in sentences]
        rows, observations = self._rows(bare)
        ids, keep = pad_left([ids for ids, _ in rows], self.tokenizer.pad)
        return ids, keep, observations

    def _rows(
        self, sentences: Sequence[Sentence]
    ) -> tuple[list[tuple[list[int], list[int]]], Observations]:
        if not sentences:
            raise ValueError("a batch needs at least one sentence; got none.")
        encoded = [self.encode(sentence) for sentence in sentences]
        lines: dict[str, list[Tensor]] = {}
        for kind, value in [one for _, _, found in encoded for one in found]:
            lines.setdefault(kind, []).append(value)
        for kind, values in lines.items():
            if len({value.shape for value in values}) > 1:
                shapes = sorted({tuple(value.shape) for value in values})
                raise ValueError(f"observations of the kind {kind!r} differ: {shapes}.")
        rows = [(ids, labels) for ids, labels, _ in encoded]
        return rows, {kind: torch.stack(values) for kind, values in lines.items()}
