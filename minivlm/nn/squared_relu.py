"""Squared ReLU."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SquaredReLU(nn.Module):
    """`max(x, 0)**2` (So et al. 2021, "Primer", section 4)."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return F.relu(x).square()
