"""Encoders of observations: what a sensor says -> tokens, vectors as wide as a word.

Those of PaLM-E (Driess et al. 2023, section 4): a state, an image, one object of an
image. Sounds and rows of a table are the course's addition, by the same encoder as
states: the paper's definition allows them, its robots have none.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.vision.vit import VisionTransformer, ViTConfig


class VectorEncoder(nn.Module):
    """Vectors of numbers -> `tokens` tokens for each, by one MLP for all of them: a
    state (a vector for each object: place, height, colour, ...), the slots of an
    object-centric encoder, the moments of a sound, the cells of a row.
    """

    def __init__(self, seen: int, width: int, tokens: int = 1) -> None:
        super().__init__()
        self.seen, self.tokens = seen, tokens
        self.mlp = nn.Sequential(
            nn.Linear(seen, width), nn.GELU(), nn.Linear(width, tokens * width)
        )

    def forward(self, vectors: Float[Tensor, "n k s"]) -> Float[Tensor, "n q d"]:
        return rearrange(self.mlp(vectors), "n k (m d) -> n (k m) d", m=self.tokens)


class ImageEncoder(nn.Module):
    """An image -> a vector for each patch: a ViT, then one affine map."""

    def __init__(self, vision: ViTConfig, width: int) -> None:
        super().__init__()
        self.vision = VisionTransformer(vision)
        self.project = nn.Linear(vision.width, width)

    def forward(
        self, pixel_values: Float[Tensor, "n c H W"]
    ) -> Float[Tensor, "n q d"]:
        return self.project(self.vision(pixel_values)[:, 1:])


class ObjectEncoder(nn.Module):
    """One object of an image -> `tokens` vectors. The last channel is the object's mask
    M, in [0, 1]: the ViT sees M * image, and its class token speaks for the object.
    """

    def __init__(self, vision: ViTConfig, width: int, tokens: int = 1) -> None:
        super().__init__()
        self.vision, self.tokens = VisionTransformer(vision), tokens
        self.project = nn.Linear(vision.width, tokens * width)

    def forward(self, masked: Float[Tensor, "n c H W"]) -> Float[Tensor, "n q d"]:
        image, mask = masked[:, :-1], masked[:, -1:]
        whole = self.project(self.vision(mask * image)[:, 0])
        return rearrange(whole, "n (q d) -> n q d", q=self.tokens)
