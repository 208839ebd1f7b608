"""Gated cross-attention (Flamingo, Alayrac et al. 2022, section 2.2): a layer put into
a finished language model, which changes nothing until it has learned something.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.nn.cross_attention import CrossAttention, KeysValues
from minivlm.nn.norm import RMSNorm
from minivlm.nn.squared_relu import SquaredReLU
from minivlm.nn.swiglu import SwiGLU


def last_image(places: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """For each place of a text the number of the last image before it, from 1, or 0: no
    image yet (section 2.3). An image's own place counts as after it.
    """
    return places.cumsum(dim=1)


def next_image(places: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
    """The number of the next image instead, or 0: none is left. On web pages words may
    belong to either, so the paper trains half of the time with these (section A.3.2).
    """
    count = places.sum(dim=1, keepdim=True)
    number = places.cumsum(dim=1) - places.long() + 1
    return number.masked_fill(number > count, 0)


def image_mask(
    looks_at: Int[Tensor, "b t"], images: int, all_before: bool = False
) -> Bool[Tensor, "b t images"]:
    """True where place i may look at image j: at the one that `looks_at` says, and no
    other; with `all_before` at those before it too.
    """
    number = torch.arange(1, images + 1, device=looks_at.device)
    own = looks_at[..., None]
    return number <= own if all_before else number == own


class GatedCrossAttention(nn.Module):
    """GATED XATTN-DENSE (figure 4): words look at an image, then a feed-forward layer;
    what either adds to the stream is multiplied by the tanh of a learned number, which
    is zero at the start.

    Args:
        width: of the language model's stream.
        heads, head_width: of the attention.
        seen: features of a vision token.
        hidden: inside the feed-forward layer; the paper has `4 * width`.
        swiglu: RMSNorm and SwiGLU, as in LLaMA's own blocks (IDEFICS), for the paper's
            LayerNorm and squared ReLU.
        qk_norm: RMSNorm on queries and keys, as IDEFICS has it.
        eps: of the norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        seen: int,
        hidden: int,
        swiglu: bool = False,
        qk_norm: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        norm = RMSNorm if swiglu else nn.LayerNorm
        inner = partial(RMSNorm, eps=eps) if qk_norm else None
        self.norm_1 = norm(width, eps)
        self.attention = CrossAttention(width, heads, seen, head_width, False, inner)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.norm_2 = norm(width, eps)
        if swiglu:
            self.mlp = SwiGLU(width, hidden)
        else:
            self.mlp = nn.Sequential(
                nn.Linear(width, hidden, bias=False),
                SquaredReLU(),
                nn.Linear(hidden, width, bias=False),
            )
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        y: Float[Tensor, "b t d"],
        image: KeysValues,
        mask: Bool[Tensor, "b t n"],
    ) -> Float[Tensor, "b t d"]:
        """`mask`: True where word i may see vision token j. A word that sees none gets
        nothing from the attention; the feed-forward layer runs for it all the same.
        """
        sees = mask.any(dim=-1, keepdim=True)
        # A softmax over nothing is no number: such a row sees all, and it is not used.
        seen = self.attention(self.norm_1(y), image, mask | ~sees)
        y = y + self.alpha.tanh() * seen.masked_fill(~sees, 0.0)
        return y + self.beta.tanh() * self.mlp(self.norm_2(y))
