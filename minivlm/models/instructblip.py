"""InstructBLIP (Dai et al. 2023, arXiv 2305.06500): tell the translator what was asked
before it looks.

- the instruction is read twice: by the language model, and beside the queries by the
  Q-Former. So the same image becomes other words for another instruction
- queries and instruction see each other, as in BLIP-2's matching; only what the queries
  have found goes on to the language model
- trained on many tasks said as instructions, each drawn by the root of its size
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.connectors.qformer import QFormerConfig, itm_mask
from minivlm.connectors.splice import splice
from minivlm.language.decoder import DecoderConfig
from minivlm.language.generate import generate
from minivlm.models.blip2 import BLIP2, BLIP2Config
from minivlm.models.blip2_stage1 import vit_g


@dataclass(frozen=True)
class InstructBLIPConfig(BLIP2Config):
    """A BLIP-2 whose Q-Former reads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.qformer.vocab_size is None:
            raise ValueError(
                "qformer.vocab_size is None: this Q-Former reads no instructions. Give"
                " it a vocabulary; it may be another one than the language model's."
            )

    @classmethod
    def tiny(
        cls, vocab_size: int, image_id: int, width: int = 96
    ) -> "InstructBLIPConfig":
        """A small one; Q-Former and language model have the same vocabulary."""
        c = BLIP2Config.tiny(vocab_size, image_id, width)
        reads = replace(c.qformer, vocab_size=vocab_size)
        return cls(c.vision, reads, c.language, image_id)

    @classmethod
    def vicuna_7b(cls) -> "InstructBLIPConfig":
        """ViT-g/14 and Vicuna 7B, whose table of words has a row more, for the token
        that marks the places of images.
        """
        language = replace(DecoderConfig.llama_7b(), vocab_size=32001)
        return cls(vit_g(), QFormerConfig.bert_base(1408, 30523), language, 32000)

    @classmethod
    def vicuna_13b(cls) -> "InstructBLIPConfig":
        """ViT-g/14 and Vicuna 13B."""
        language = replace(DecoderConfig.llama_13b(), vocab_size=32001)
        return cls(vit_g(), QFormerConfig.bert_base(1408, 30523), language, 32000)


class Instructions(NamedTuple):
    """Texts with images, as in BLIP-2; and for each image, in the same order, what is
    asked of it, in the Q-Former's words (None: nothing). `asked_keep`: False where
    there is padding; None: there is none.
    """

    pixel_values: Float[Tensor, "images c H W"]
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]
    asked: Int[Tensor, "images a"] | None = None
    asked_keep: Bool[Tensor, "images a"] | None = None


def shares(sizes: Sequence[int]) -> list[float]:
    """How often each data set is drawn from: by the root of its size, so that the large
    ones do not drown the small ones, and those are not seen again and again.

    Raises:
        ValueError: no sets, or an empty one.
    """
    if not sizes or min(sizes) < 1:
        raise ValueError(f"give the size of each data set, at least 1; got {sizes}.")
    roots = [size**0.5 for size in sizes]
    return [root / sum(roots) for root in roots]


def reading_mask(
    queries: int,
    images: int,
    asked: Int[Tensor, "i a"] | None,
    asked_keep: Bool[Tensor, "j k"] | None,
) -> Bool[Tensor, "i {queries}+a {queries}+a"] | None:
    """Who sees whom while an instruction is read: as in matching, all see all but the
    padding. None where nothing is asked.

    Raises:
        ValueError: there is not one instruction for each image, or `asked_keep` is not
            that of `asked`.
    """
    if asked is not None and len(asked) != images:
        raise ValueError(
            f"there are {images} images and {len(asked)} instructions (`asked`); each"
            " image takes its own, in the same order."
        )
    if asked_keep is not None and (asked is None or asked_keep.shape != asked.shape):
        given = "nothing is asked"
        if asked is not None:
            given = f"asked has {tuple(asked.shape)}"
        raise ValueError(f"asked_keep has shape {tuple(asked_keep.shape)}; {given}.")
    if asked is None:
        return None
    if asked_keep is None:
        asked_keep = torch.ones_like(asked, dtype=torch.bool)
    return itm_mask(queries, asked_keep)


class InstructBLIP(BLIP2):
    """Looks for what it was asked. Without an instruction it is a BLIP-2."""

    def embed_image(
        self,
        pixel_values: Float[Tensor, "images c H W"],
        asked: Int[Tensor, "images a"] | None = None,
        asked_keep: Bool[Tensor, "images a"] | None = None,
    ) -> Float[Tensor, "images q d"]:
        """What each query has found, as a word of the language model. The instruction's
        own places have done their part, and are left behind.
        """
        many = self.config.image_tokens
        mask = reading_mask(many, len(pixel_values), asked, asked_keep)
        queries, _ = self.qformer(self.see(pixel_values), asked, mask)
        return self.connector(queries)

    def embed(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
        asked: Int[Tensor, "images a"] | None = None,
        asked_keep: Bool[Tensor, "images a"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Words and images as one sequence of vectors.

        Raises:
            ValueError: places for images, images and instructions do not match.
        """
        if pixel_values is None:
            reading_mask(self.config.image_tokens, 0, asked, asked_keep)
            return super().embed(ids)
        features = self.embed_image(pixel_values, asked, asked_keep)
        places = ids == self.config.image_id
        return splice(self.language.embed(ids), places, features)

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        asked: Int[Tensor, "images a"] | None = None,
        asked_keep: Bool[Tensor, "images a"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place; `keep` hides padding."""
        embeddings = self.embed(ids, pixel_values, asked, asked_keep)
        return self.language(embeddings=embeddings, keep=keep)

    def loss(self, batch: Instructions) -> Float[Tensor, ""]:
        """Surprise at the answers: no loss on images or instructions."""
        images = (batch.pixel_values, batch.asked, batch.asked_keep)
        features = self.language.features(embeddings=self.embed(batch.ids, *images))
        return self.language.next_token_loss(features, batch.labels)

    def generate(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        asked: Int[Tensor, "images a"] | None = None,
        asked_keep: Bool[Tensor, "images a"] | None = None,
        **how: Any,
    ) -> Int[Tensor, "b new"]:
        """Answer prompts, padded on the left; `how` as in `language.generate`."""
        embeddings = self.embed(ids, pixel_values, asked, asked_keep)
        return generate(self.language, keep=keep, embeddings=embeddings, **how)
