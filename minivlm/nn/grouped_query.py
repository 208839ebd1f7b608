"""Causal attention as language models have it: rotary positions, several query heads
to one key head, and a memory of what was read.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivlm.nn.rotary import Turn, rotate


class KVCache:
    """What one layer remembers of the tokens it has read: their keys and values.

    Room for `room` tokens is taken once, at the first `append`, and written into; so
    nothing is copied when it grows. For generating only: gradients do not pass.
    """

    def __init__(self, room: int) -> None:
        self.room, self.length = room, 0
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def append(
        self, k: Float[Tensor, "b kv t hd"], v: Float[Tensor, "b kv t hd"]
    ) -> tuple[Float[Tensor, "b kv T hd"], Float[Tensor, "b kv T hd"]]:
        """Remember these too; returns all keys and values so far.

        Raises:
            ValueError: they do not fit.
        """
        b, kv, t, hd = k.shape
        start, end = self.length, self.length + t
        if end > self.room:
            raise ValueError(
                f"the cache has room for {self.room} tokens; it holds {start} and got"
                f" {t} more. Make one with more room."
            )
        if self.keys is None:
            self.keys = k.new_empty(b, kv, self.room, hd)
            self.values = v.new_empty(b, kv, self.room, hd)
        self.keys[:, :, start:end], self.values[:, :, start:end] = k, v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class GroupedQueryAttention(nn.Module):
    """Causal self-attention whose `heads` query heads share `kv_heads` key and value
    heads (Ainslie et al. 2023, section 2.2): query head i reads from key head
    `i // (heads // kv_heads)`. Equal numbers are multi-head attention, one key head
    is multi-query attention.

    Args:
        width: features of each position.
        heads: query heads; a multiple of `kv_heads`.
        kv_heads: key and value heads.
        head_width: features of a head, even.
        qkv_bias: biases for queries, keys and values, as Qwen has them.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_width: int,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * head_width, qkv_bias)
        self.out = nn.Linear(heads * head_width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        turn: Turn,
        mask: Bool[Tensor, "b t T"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        """`turn`: the angles of these positions. `mask`: True where row i may see
        column j; without one, all that is cached and what stands before. A row that
        is not the only one needs a mask when something is cached.
        """
        qkv = rearrange(self.qkv(x), "b t (nh hd) -> b nh t hd", hd=self.head_width)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.append(k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask is None else mask[:, None],
            is_causal=mask is None and x.shape[1] > 1,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.out(rearrange(y, "b nh t hd -> b t (nh hd)"))
