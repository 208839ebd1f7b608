"""BLIP-2 (Li et al. 2023, arXiv 2301.12597): the eye stays as it is, the language model
stays as it is, and a small Q-Former learns to translate between them.

- stage 1, without a language model (`blip2_stage1.py`): the Q-Former learns to find in
  an image what a text would say of it
- stage 2, here: what the queries have found stands before the text as words of the
  language model, after one linear layer; it only reads on
- an image is as many words as there are queries, whatever its resolution
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.qformer import QFormer, QFormerConfig
from minivlm.connectors.splice import splice
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate
from minivlm.language.opt import OPT, OPTConfig
from minivlm.models.blip2_stage1 import (
    Matcher,
    check_width,
    freeze_vision,
    tiny_vit,
    vit_g,
)
from minivlm.vision.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class BLIP2Config:
    """A vision encoder, a language model, and the Q-Former between them."""

    vision: ViTConfig
    qformer: QFormerConfig
    language: DecoderConfig | OPTConfig
    image_id: int  # the token whose places queries take

    def __post_init__(self) -> None:
        check_width(self.vision, self.qformer)
        if not 0 <= self.image_id < self.language.vocab_size:
            raise ValueError(
                f"image_id is {self.image_id}; the vocabulary has ids 0 to"
                f" {self.language.vocab_size - 1}."
            )

    @property
    def image_tokens(self) -> int:
        """Places that an image takes in the text: one for each query."""
        return self.qformer.queries

    @classmethod
    def tiny(cls, vocab_size: int, image_id: int, width: int = 96) -> "BLIP2Config":
        """A small one; it goes with `Stage1Config.tiny`."""
        qformer = QFormerConfig.tiny(width, width=width)
        language = DecoderConfig.tiny(vocab_size, width, layers=2)
        return cls(tiny_vit(width), qformer, language, image_id)

    @classmethod
    def opt_2_7b(cls) -> "BLIP2Config":
        """ViT-g/14 and OPT 2.7B. The token for images is none of OPT's: its table of
        words has more rows than it has words.
        """
        return cls(vit_g(), QFormerConfig.bert_base(1408), OPTConfig.opt_2_7b(), 50265)

    @classmethod
    def opt_6_7b(cls) -> "BLIP2Config":
        """ViT-g/14 and OPT 6.7B."""
        return cls(vit_g(), QFormerConfig.bert_base(1408), OPTConfig.opt_6_7b(), 50265)


class Captions(NamedTuple):
    """Texts with images: `pixel_values` has all images of the batch in reading order,
    `ids` keeps `image_tokens` places for each, and `labels` are -100 where there is no
    loss.
    """

    pixel_values: Float[Tensor, "images c H W"]
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]


class BLIP2(nn.Module):
    """Stage 2: a language model that sees, and has learned nothing new."""

    def __init__(self, config: BLIP2Config) -> None:
        super().__init__()
        self.config, language = config, config.language
        self.vision = VisionTransformer(config.vision)
        self.qformer = QFormer(config.qformer)
        self.connector = nn.Linear(config.qformer.width, language.width)
        kind = OPT if isinstance(language, OPTConfig) else Decoder
        self.language = kind(language)

    def freeze(self) -> None:
        """What learns is the Q-Former, the linear layer, and the norm between vision
        encoder and Q-Former. Gradients go through the language model, and leave it.
        """
        freeze_vision(self.vision)
        self.language.requires_grad_(False)

    def start_from(self, stage_1: Matcher) -> None:
        """Take over vision encoder and Q-Former, without its parts for text if this one
        has none.
        """
        self.vision.load_state_dict(stage_1.vision.state_dict())
        theirs = stage_1.qformer.state_dict()
        wanted = self.qformer.state_dict()
        self.qformer.load_state_dict({name: theirs[name] for name in wanted})

    def see(
        self, pixel_values: Float[Tensor, "images c H W"]
    ) -> Float[Tensor, "images n s"]:
        """An image's tokens: the class token and the patches, normalised."""
        return self.vision.norm_after(self.vision(pixel_values))

    def embed_image(
        self, pixel_values: Float[Tensor, "images c H W"]
    ) -> Float[Tensor, "images q d"]:
        """What each query has found, as a word of the language model (section 3.3)."""
        queries, _ = self.qformer(self.see(pixel_values))
        return self.connector(queries)

    def embed(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Words and images as one sequence of vectors.

        Raises:
            ValueError: places for images and images do not match.
        """
        embeddings = self.language.embed(ids)
        if pixel_values is None:
            width = embeddings.shape[2]
            features = embeddings.new_empty(0, self.config.image_tokens, width)
        else:
            features = self.embed_image(pixel_values)
        return splice(embeddings, ids == self.config.image_id, features)

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place; `keep` hides padding."""
        return self.language(embeddings=self.embed(ids, pixel_values), keep=keep)

    def loss(self, batch: Captions) -> Float[Tensor, ""]:
        """Surprise at the text: no loss on images or prompts."""
        embeddings = self.embed(batch.ids, batch.pixel_values)
        features = self.language.features(embeddings=embeddings)
        return self.language.next_token_loss(features, batch.labels)

    def generate(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "images c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        **how: Any,
    ) -> Int[Tensor, "b new"]:
        """Go on from prompts, padded on the left; `how` as in `language.generate`."""
        embeddings = self.embed(ids, pixel_values)
        return generate(self.language, keep=keep, embeddings=embeddings, **how)
