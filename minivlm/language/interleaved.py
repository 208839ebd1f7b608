"""Documents in which images stand among the words, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minivlm.language.generate import pad_left
from minivlm.language.tokenizer import Tokenizer


@dataclass(frozen=True)
class Interleaved:
    """Texts with `image` in them into ids and labels, as Flamingo has them (section
    A.3): an image is one token, `end` says that what belongs together is over.

        <image>a red star.<image>a blue ring.
        <bos><image>a red star.<|endofchunk|><image>a blue ring.<|endofchunk|><eos>

    Write no space beside `image`: a space would be a token. Text may stand before the
    first image. Other special tokens in a text are spelled out. `end` may be `<eos>`,
    which a finished language model knows already; else it is a new word to be learned.
    """

    tokenizer: Tokenizer
    context: int  # longest document in tokens
    image: str = "<image>"
    end: str = "<|endofchunk|>"

    def __post_init__(self) -> None:
        for name in ("image", "end"):
            text = getattr(self, name)
            if text not in self.tokenizer.specials or not self._is_one(text):
                raise ValueError(
                    f"{name} is {text!r}, which is no special token of the tokenizer;"
                    " it must be one, such as '<image>'."
                )
        if self.image == self.end or self.context < 1:
            raise ValueError(
                f"image is {self.image!r}, end {self.end!r} and context {self.context};"
                " the first two must differ, and the context be at least 1."
            )

    def _is_one(self, text: str) -> bool:
        return len(self.tokenizer.encode(text)) == 1

    @property
    def image_id(self) -> int:
        """The token that stands for an image."""
        return self.tokenizer.encode(self.image)[0]

    @property
    def end_id(self) -> int:
        """The token that ends a chunk: where to stop writing."""
        return self.tokenizer.encode(self.end)[0]

    def encode(
        self, text: str, finished: bool = True
    ) -> tuple[list[int], list[int]]:
        """Ids and labels. All is learned but `<bos>` and where the images are: words,
        and when they are over. Unfinished: to be gone on with, so without an end.

        Raises:
            ValueError: a text without words or, unfinished, without any token; or one
                longer than the context.
        """
        parts = text.split(self.image)
        if not "".join(parts).strip() and (finished or len(parts) == 1):
            raise ValueError(
                f"a document has no words: {text!r}; write some, such as"
                f" '{self.image}a red star.'"
            )
        ids, labels = [self.tokenizer.bos], [-100]

        def add(new: list[int], learned: bool = True) -> None:
            ids.extend(new)
            labels.extend(new if learned else [-100] * len(new))

        for i, part in enumerate(parts):
            if i:
                add([self.image_id], learned=False)
            add(self.tokenizer.encode(part, specials=False, after=ids))
            last = i == len(parts) - 1
            if part and (finished or not last):
                add([self.end_id])
        if finished and ids[-1] != self.tokenizer.eos:
            add([self.tokenizer.eos])
        if len(ids) > self.context:
            raise ValueError(
                f"a document has {len(ids)} tokens; the context holds {self.context}."
                f" Shorten it: {text[:60]!r} ..."
            )
        return ids, labels

    def batch(
        self, texts: Sequence[str], images: int
    ) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        """Ids and labels to train on, padded on the right.

        Args:
            images: how many there are for the whole batch, in reading order; a video
                counts as one.

        Raises:
            ValueError: no texts, images and their places do not match, or what `encode`
                raises.
        """
        self._check(texts, images)
        rows = [self.encode(text) for text in texts]
        longest = max(len(ids) for ids, _ in rows)
        ids, labels = (
            torch.tensor([row + [fill] * (longest - len(row)) for row in side])
            for side, fill in zip(
                zip(*rows, strict=True), (self.tokenizer.pad, -100), strict=True
            )
        )
        return ids, labels

    def prompts(
        self, texts: Sequence[str], images: int
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Ids and `keep` of texts to be gone on with, padded on the left; errors as for
        `batch`.
        """
        self._check(texts, images)
        rows = [self.encode(text, finished=False)[0] for text in texts]
        return pad_left(rows, self.tokenizer.pad)

    def _check(self, texts: Sequence[str], images: int) -> None:
        if isinstance(texts, str) or not texts:
            raise ValueError(
                f"a batch is a list of at least one document; got {texts!r}."
            )
        counts = [text.count(self.image) for text in texts]
        if sum(counts) != images:
            raise ValueError(
                f"the documents mention {sum(counts)} images ({self.image!r}), and"
                f" {images} are given; write {self.image!r} once for each. Images by"
                f" document: {counts}."
            )
