"""LLaVA (Liu et al. 2023, arXiv 2304.08485): an image is a few words of a foreign
language, and one matrix translates them.

- CLIP's patches, as they are before its last layer, without the class token
- one linear layer to the width of a word; the results stand where `<image>` stood
- the language model reads on, and learns from the assistant's answers alone
- trained in two stages: first the matrix, then matrix and language model
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.projector import Projector
from minivlm.connectors.splice import splice
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate
from minivlm.vision.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class LLaVAConfig:
    """A vision encoder, a language model, and what joins them."""

    vision: ViTConfig
    language: DecoderConfig
    image_id: int  # the token whose places image features take
    connector_layers: int = 1  # 1: LLaVA's matrix; 2: the MLP of LLaVA-1.5
    skip_layers: int = 1  # of the vision encoder, at its end (section 4.1)

    def __post_init__(self) -> None:
        vocabulary, layers = self.language.vocab_size, self.vision.layers
        if not 0 <= self.image_id < vocabulary:
            raise ValueError(
                f"image_id is {self.image_id}; the vocabulary has ids 0 to"
                f" {vocabulary - 1}."
            )
        if not 0 <= self.skip_layers < layers:
            raise ValueError(
                f"skip_layers is {self.skip_layers}; the vision encoder has {layers}"
                " layers, and at least one must be left."
            )
        if self.connector_layers < 1:
            raise ValueError(
                f"connector_layers is {self.connector_layers}; it must be at least 1."
            )

    @property
    def image_tokens(self) -> int:
        """Places that an image takes in the text: one for each patch."""
        return self.vision.grid**2

    @classmethod
    def tiny(cls, vocab_size: int, image_id: int, width: int = 64) -> "LLaVAConfig":
        """A small one; the lesson takes its sizes from pretrained backbones instead."""
        sizes = {"width": width, "heads": 4, "hidden": 2 * width}
        vision = ViTConfig(image_size=32, patch_size=8, layers=2, **sizes)
        return cls(vision, DecoderConfig.tiny(vocab_size, width, layers=2), image_id)

    @classmethod
    def llava_7b(cls) -> "LLaVAConfig":
        """CLIP ViT-L/14 and Vicuna 7B. (`<image>` is no word of Vicuna's: its places
        are marked with the id of its unknown word, which no prompt has.)
        """
        return cls(ViTConfig(224, 14, 1024, 24, 16, 4096), DecoderConfig.llama_7b(), 0)

    @classmethod
    def llava_13b(cls) -> "LLaVAConfig":
        """CLIP ViT-L/14 and Vicuna 13B."""
        return cls(ViTConfig(224, 14, 1024, 24, 16, 4096), DecoderConfig.llama_13b(), 0)


class Chats(NamedTuple):
    """Texts with images: `pixel_values` has all images of the batch in reading order,
    `ids` keeps `image_tokens` places for each, `labels` are -100 where there is no
    loss.
    """

    pixel_values: Float[Tensor, "images c H W"]
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]


class LLaVA(nn.Module):
    """Sees with one model, talks with another."""

    def __init__(self, config: LLaVAConfig) -> None:
        super().__init__()
        self.config = config
        seen, width = config.vision.width, config.language.width
        self.vision = VisionTransformer(config.vision)
        self.connector = Projector(seen, width, config.connector_layers)
        self.language = Decoder(config.language)

    def embed_image(
        self, pixel_values: Float[Tensor, "images c H W"]
    ) -> Float[Tensor, "images n d"]:
        """Each patch as a token of the language model (equation 1)."""
        patches = self.vision(pixel_values, self.config.skip_layers)[:, 1:]
        return self.connector(patches)

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

    def loss(self, batch: Chats) -> Float[Tensor, ""]:
        """Surprise at the answers (equation 3): no loss on questions or images."""
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
        """Answer prompts, padded on the left; `how` as in `language.generate`."""
        embeddings = self.embed(ids, pixel_values)
        return generate(self.language, keep=keep, embeddings=embeddings, **how)
