"""CLIP (Radford et al. 2021, arXiv 2103.00020): which text belongs to which image?

- two towers that never see each other: a vision and a causal text transformer
- two bias-free linear projections into one space, where length does not count
- a symmetric contrastive loss over the batch, with a learned temperature
- a classifier for any list of names, made of their texts
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.language.text_encoder import TextConfig, TextEncoder
from minivlm.vision.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class CLIPConfig:
    """Two towers and the width of the space they share."""

    vision: ViTConfig
    text: TextConfig
    embedding: int
    temperature: float = 0.07  # at the start
    max_scale: float = 100.0  # similarities are never multiplied by more than this

    @classmethod
    def tiny(
        cls,
        vocab_size: int,
        eot_id: int,
        width: int = 96,
        layers: int = 2,
        image_size: int = 32,
        context: int = 32,
    ) -> "CLIPConfig":
        """The sizes this course trains; the default takes a minute on one core."""
        heads = max(h for h in range(1, 1 + max(1, width // 48)) if width % h == 0)
        sizes = {"width": width, "heads": heads, "hidden": 2 * width}
        vision = ViTConfig(image_size, patch_size=8, layers=layers, **sizes)
        text = TextConfig(
            vocab_size, context, layers=max(1, layers // 2), eot_id=eot_id, **sizes
        )
        return cls(vision, text, embedding=width)

    @classmethod
    def vit_b_32(cls) -> "CLIPConfig":
        """OpenAI's ViT-B/32."""
        return cls(
            ViTConfig(224, 32, 768, 12, 12, 3072),
            TextConfig(49408, 77, 512, 12, 8, 2048),
            embedding=512,
        )

    @classmethod
    def vit_b_16(cls) -> "CLIPConfig":
        """OpenAI's ViT-B/16."""
        return cls(
            ViTConfig(224, 16, 768, 12, 12, 3072),
            TextConfig(49408, 77, 512, 12, 8, 2048),
            embedding=512,
        )

    @classmethod
    def vit_l_14(cls, image_size: int = 224) -> "CLIPConfig":
        """OpenAI's ViT-L/14, the vision encoder of LLaVA and many others;
        `image_size=336` for ViT-L/14@336px.
        """
        return cls(
            ViTConfig(image_size, 14, 1024, 24, 16, 4096),
            TextConfig(49408, 77, 768, 12, 12, 3072),
            embedding=768,
        )


class Pairs(NamedTuple):
    """A batch of images and the texts that belong to them, row by row."""

    pixel_values: Float[Tensor, "b c H W"]
    ids: Int[Tensor, "b t"]


def contrastive_loss(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """Which text for this image, which image for this text? Both answers stand on
    the diagonal (CLIP, figure 3).
    """
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class CLIP(nn.Module):
    """Two towers, one space."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTransformer(config.vision)
        self.text = TextEncoder(config.text)
        seen, read, space = config.vision.width, config.text.width, config.embedding
        self.image_projection = nn.Linear(seen, space, bias=False)
        self.text_projection = nn.Linear(read, space, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        nn.init.normal_(self.image_projection.weight, std=seen**-0.5)
        nn.init.normal_(self.text_projection.weight, std=read**-0.5)

    def embed_image(
        self, pixel_values: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, "b e"]:
        """Unit vectors: the class token, normalised, projected."""
        features = self.vision.norm_after(self.vision(pixel_values)[:, 0])
        return F.normalize(self.image_projection(features), dim=-1)

    def embed_text(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Unit vectors: the end-of-text token, projected."""
        features = self.text.pool(self.text(ids), ids)
        return F.normalize(self.text_projection(features), dim=-1)

    def forward(
        self, pixel_values: Float[Tensor, "b c H W"], ids: Int[Tensor, "k t"]
    ) -> Float[Tensor, "b k"]:
        """Scaled cosine of every image with every text."""
        cosine = self.embed_image(pixel_values) @ self.embed_text(ids).T
        return self.log_scale.exp() * cosine

    def loss(self, batch: Pairs) -> Float[Tensor, ""]:
        """Contrastive loss of a batch of pairs."""
        return contrastive_loss(self(*batch))

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale at or below `max_scale` (CLIP, section 2.5); the training
        loop calls this after each step.
        """
        self.log_scale.clamp_(max=math.log(self.config.max_scale))
