"""The transformer block of CLIP's two towers: pre-norm, attention, then a two-layer
MLP.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivlm.nn.attention import Attention


class QuickGELU(nn.Module):
    """`x * sigmoid(1.702 x)`: a cheap GELU that CLIP was trained with, and therefore
    has to be run with.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return F.silu(1.702 * x) / 1.702  # the same function; silu is one fused step


class MLP(nn.Sequential):
    """Every position on its own: widen, bend, narrow."""

    def __init__(
        self, width: int, hidden: int, activation: type[nn.Module] = QuickGELU
    ) -> None:
        super().__init__(
            nn.Linear(width, hidden), activation(), nn.Linear(hidden, width)
        )


class Block(nn.Module):
    """One pre-norm layer: what is added to the residual stream is computed from its
    normalised copy.

    Args:
        width, heads: as in `Attention`.
        hidden: width inside the MLP.
        eps: added to the variance in both LayerNorms.
        activation: of the MLP.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        eps: float = 1e-5,
        activation: type[nn.Module] = QuickGELU,
    ) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, eps)
        self.mlp = MLP(width, hidden, activation)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        causal: bool = False,
        mask: Bool[Tensor, "b #t t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        x = x + self.attention(self.norm_1(x), causal, mask)
        return x + self.mlp(self.norm_2(x))


@torch.no_grad()
def init_transformer(blocks: nn.ModuleList, width: int) -> None:
    """The start of CLIP's text tower (openai/CLIP `model.py`), used for both here: what
    is added to the residual stream starts smaller the more layers add to it.

    Standard deviations: `width**-0.5` into attention, `(2 width)**-0.5` into the MLP,
    and both outputs `width**-0.5 * (2 layers)**-0.5`, so that the stream's size does
    not grow with depth. Biases start at zero.
    """
    for block in blocks:
        narrow, wide = block.mlp[0], block.mlp[2]
        nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
        nn.init.normal_(narrow.weight, std=(2 * width) ** -0.5)
        for out in (block.attention.out, wide):
            nn.init.normal_(out.weight, std=width**-0.5 * (2 * len(blocks)) ** -0.5)
        for linear in (block.attention.qkv, block.attention.out, narrow, wide):
            nn.init.zeros_(linear.bias)
