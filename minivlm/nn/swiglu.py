"""SwiGLU: an MLP in which one half decides how much of the other half passes."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (Shazeer 2020, equation 6), gate and up from one
    fused projection.

    Args:
        width: features of each position.
        hidden: width inside. There are three matrices instead of two; LLaMA keeps the
            parameters of the usual MLP by taking 2/3 of its `4 width` (section 2.2).
        bias: for all three.
    """

    def __init__(self, width: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias)
        self.down = nn.Linear(hidden, width, bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
