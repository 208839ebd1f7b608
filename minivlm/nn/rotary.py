"""Rotary positions (RoPE, Su et al. 2021, section 3): a token's place is an angle by
which its queries and keys are turned.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Turn(NamedTuple):
    """Cosine and sine of every position's angles, one for each pair of features."""

    cos: Float[Tensor, "b t half"]
    sin: Float[Tensor, "b t half"]


def rotary_turn(
    positions: Int[Tensor, "b t"], head_width: int, base: float = 10000.0
) -> Turn:
    """Pair i of a head turns by `position * base**(-2 i / head_width)`: the first pair
    by one radian a token, the last ones hardly at all. Always in float32: in half
    precision far positions would fall together.
    """
    pair = torch.arange(0, head_width, 2, device=positions.device).float()
    angle = positions[..., None].float() * base ** (-pair / head_width)
    return Turn(angle.cos(), angle.sin())


def rotate(x: Float[Tensor, "b nh t hd"], turn: Turn) -> Float[Tensor, "b nh t hd"]:
    """Turn each pair of features in its plane. Pair i is features i and i + hd/2, as
    in the released checkpoints of `transformers`; Meta's own files pair 2 i and
    2 i + 1, which is the same model with its features in another order.
    """
    cos, sin = (part[:, None].to(x.dtype) for part in turn)  # the same for all heads
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
