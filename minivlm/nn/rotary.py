"""Rotary positions (RoPE, Su et al. 2021, section 3): a token's place is an angle by
which its queries and keys are turned.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

#: How each pair of features is turned at each place: complex numbers of length one.
Turn = Complex[Tensor, "b t half"]


def rotary_turn(
    positions: Int[Tensor, "b t"], head_width: int, base: float = 10000.0
) -> Turn:
    """Pair i of a head turns by `position * base**(-2 i / head_width)`: the first pair
    by one radian a token, the last ones hardly at all. Always in float32: in half
    precision far positions would fall together.
    """
    pair = torch.arange(0, head_width, 2, device=positions.device).float()
    angle = positions[..., None].float() * base ** (-pair / head_width)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Float[Tensor, "b nh t hd"], turn: Turn) -> Float[Tensor, "b nh t hd"]:
    """Turn each pair of features in its plane: features 2 i and 2 i + 1 are the two
    parts of one complex number (equation 13), as in Meta's files. (`transformers` pairs
    i with i + hd/2, which is the same model with its features in another order.)
    """
    wide = x.float() if x.element_size() < 4 else x
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[:, None]).flatten(-2).type_as(x)
