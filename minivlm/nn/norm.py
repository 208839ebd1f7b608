"""RMSNorm: the part of LayerNorm that turned out to matter."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x**2) + eps) * gain` over the last axis: no mean is taken away, no
    shift is added (Zhang and Sennrich 2019, equation 4).

    Args:
        width: size of the last axis.
        eps: under the root; LLaMA has 1e-6, Llama 2 has 1e-5.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
