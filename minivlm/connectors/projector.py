"""From the vision encoder's space into the language model's: one matrix, or a few layers.
"""

from torch import nn


class Projector(nn.Sequential):
    """Each vision token on its own: `layers` linear layers with a GELU between two.

    One layer is LLaVA's `W` (Liu et al. 2023, equation 1; its code has a bias), two are
    LLaVA-1.5's MLP. (B, N, seen) becomes (B, N, width).

    Args:
        seen: width of the vision tokens.
        width: of the language model's tokens.
        layers: at least 1.
    """

    def __init__(self, seen: int, width: int, layers: int = 1) -> None:
        parts: list[nn.Module] = [nn.Linear(seen, width)]
        for _ in range(layers - 1):
            parts += [nn.GELU(), nn.Linear(width, width)]
        super().__init__(*parts)
