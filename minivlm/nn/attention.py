"""Attention: every position looks at every position it may see, and takes a weighted
mean of what it finds.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), queries, keys
    and values from one fused projection.

    Args:
        width: features of each position; a multiple of `heads`.
        heads: attention heads, each `width // heads` wide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        causal: bool = False,
        mask: Bool[Tensor, "b #t t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """`causal`: position i sees positions 0..i only. `mask`: True where row i
        may see column j; replaces `causal`.
        """
        q, k, v = rearrange(
            self.qkv(x), "b t (three nh hd) -> three b nh t hd", three=3, nh=self.heads
        )
        mask = None if mask is None else mask[:, None]
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None
        )
        return self.out(rearrange(y, "b nh t hd -> b t (nh hd)"))


def causal_mask(keep: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """True where row i may see column j: `j <= i` and j is not padding (`keep`
    False). Every row sees itself.
    """
    t = keep.shape[1]
    past = torch.ones(t, t, dtype=torch.bool, device=keep.device).tril()
    itself = torch.eye(t, dtype=torch.bool, device=keep.device)
    return (past & keep[:, None, :]) | itself
