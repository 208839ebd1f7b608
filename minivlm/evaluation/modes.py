"""A model that is only looked at is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every part is in the mode it was in."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
