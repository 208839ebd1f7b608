"""The vision transformer: an image is a sentence of patches."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.nn.transformer import Block, QuickGELU, init_transformer


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of a vision tower: square images of `image_size` pixels, cut into patches
    of `patch_size`. The last three are CLIP's unless said otherwise.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    hidden: int  # inside the MLP
    channels: int = 3
    eps: float = 1e-5
    norm_before: bool = True  # a LayerNorm before the blocks as well
    activation: str = "quick_gelu"  # or "gelu"
    patch_bias: bool = False

    def __post_init__(self) -> None:
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(
                f"activation is {self.activation!r}; it must be 'quick_gelu' or 'gelu'."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of"
                f" patch_size {self.patch_size}."
            )
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads}."
            )

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


def patchify(
    pixel_values: Float[Tensor, "b c H W"], patch_size: int
) -> Float[Tensor, "b n cpp"]:
    """Cut images into patches, row by row from the top left; each patch becomes one
    long vector.
    """
    return rearrange(
        pixel_values, "b c (h p) (w q) -> b (h w) (c p q)", p=patch_size, q=patch_size
    )


class VisionTransformer(nn.Module):
    """Patches and one class token through a transformer (Dosovitskiy et al. 2020).

    CLIP's two changes: there is a LayerNorm *before* the blocks as well (Radford et al.
    2021, section 2.4), and patches are projected without a bias (openai/CLIP's code).
    The config can undo both.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        pixels = config.channels * config.patch_size**2
        self.patch_embedding = nn.Linear(pixels, width, bias=config.patch_bias)
        self.class_token = nn.Parameter(width**-0.5 * torch.randn(width))
        tokens = 1 + config.grid**2
        self.positions = nn.Parameter(width**-0.5 * torch.randn(tokens, width))
        norm = nn.LayerNorm(width, config.eps)
        self.norm_before = norm if config.norm_before else nn.Identity()
        activation = {"quick_gelu": QuickGELU, "gelu": nn.GELU}[config.activation]
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden, config.eps, activation)
            for _ in range(config.layers)
        )
        self.norm_after = nn.LayerNorm(width, config.eps)
        init_transformer(self.blocks, width)

    def forward(
        self, pixel_values: Float[Tensor, "b c H W"], skip_layers: int = 0
    ) -> Float[Tensor, "b t d"]:
        """The residual stream after the last block: the class token, then the
        patches. CLIP reads `norm_after` of it; others leave out blocks at the end,
        `skip_layers`, and read the stream as it is.
        """
        patches = self.patch_embedding(patchify(pixel_values, self.config.patch_size))
        class_token = self.class_token.expand(len(patches), 1, -1)
        x = torch.cat([class_token, patches], dim=1) + self.positions
        x = self.norm_before(x)
        for block in self.blocks[: len(self.blocks) - skip_layers]:
            x = block(x)
        return x
