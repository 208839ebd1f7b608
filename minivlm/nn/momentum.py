"""A slow copy of a model, and a queue of what it has seen (MoCo, He et al. 2020,
section 3.2): more things to compare with than one batch holds, and all made alike.
"""

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def slow_copy(module: nn.Module) -> nn.Module:
    """A copy whose numbers are buffers, not parameters: no optimizer sees them and no
    gradient reaches them, yet they are saved and move between devices.
    """
    slow = copy.deepcopy(module)
    for part in slow.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return slow


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Each number of the copy becomes `momentum` times itself plus `1 - momentum` times
    that of the model: the mean of the last `1 / (1 - momentum)` steps or so.
    """
    numbers = dict(slow.named_buffers())
    for name, parameter in fast.named_parameters():
        numbers[name].lerp_(parameter, 1 - momentum)


class Queue(nn.Module):
    """The last `size` features; a new one takes the place of the oldest. It begins full
    of random directions.

    Args:
        size: how many.
        width: of each.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        start = F.normalize(torch.randn(size, width), dim=-1)
        self.register_buffer("features", start)
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, features: Float[Tensor, "b d"]) -> None:
        """Let these in.

        Raises:
            ValueError: they are more than the queue holds.
        """
        many, size = len(features), len(self.features)
        if many > size:
            raise ValueError(
                f"a queue of {size} got {many} features at once; make the queue longer"
                " or the batch smaller."
            )
        places = torch.arange(many, device=self.place.device)
        at = (self.place + places) % size
        self.features[at] = features.to(self.features.dtype)
        self.place.copy_((self.place + many) % size)
