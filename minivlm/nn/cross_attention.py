"""Cross-attention: one sequence asks, another one answers."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

#: Keys and values of one layer, cut into heads.
KeysValues = tuple[Float[Tensor, "b nh n hd"], Float[Tensor, "b nh n hd"]]


class CrossAttention(nn.Module):
    """Multi-head attention whose queries come from one sequence and whose keys and
    values come from another (Vaswani et al. 2017, section 3.2.3). A sequence that asks
    itself is self-attention.

    Args:
        width: features of the sequence that asks; a multiple of `heads`.
        heads: attention heads, each `width // heads` wide.
        seen: features of the sequence that answers.
    """

    def __init__(self, width: int, heads: int, seen: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(seen, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, seen: Float[Tensor, "b n s"]) -> KeysValues:
        """What the other sequence answers with. It is the same for all who ask, so it
        is computed once for a text that is written word by word.
        """
        pattern = "b n (two nh hd) -> two b nh n hd"
        k, v = rearrange(self.kv(seen), pattern, two=2, nh=self.heads)
        return k, v

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        keys_values: KeysValues,
        mask: Bool[Tensor, "b #t n"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """`mask`: True where row i may see column j of the other sequence."""
        q = rearrange(self.q(x), "b t (nh hd) -> b nh t hd", nh=self.heads)
        mask = None if mask is None else mask[:, None]
        y = F.scaled_dot_product_attention(q, *keys_values, attn_mask=mask)
        return self.out(rearrange(y, "b nh t hd -> b t (nh hd)"))
