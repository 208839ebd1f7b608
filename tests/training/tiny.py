"""A small training with everything that a checkpoint has to keep. Also run as a script, by test_survival.py and others."""

import itertools
import random

import numpy as np
import torch
from torch import nn

from minivlm.training import Checkpoint, fit, frozen

STEPS = 12


class Tiny(nn.Module):
    """Dropout, running statistics, one parameter in two places, numbers from all shared generators and one of its own."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.vision = nn.Linear(4, width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.2)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.noise = torch.Generator().manual_seed(3)

    def loss(self, batch):
        x = self.dropout(self.norm(self.first(self.vision(batch))))
        x = x + 0.1 * torch.randn(x.shape, generator=self.noise) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return (self.scale * self.second(x)).square().mean()


def batches(start: int):
    for number in itertools.count(start):
        yield torch.randn(8, 4, generator=torch.Generator().manual_seed(number))


def train(folder=None, steps: int = STEPS, every: int = 5, batches=batches, width: int = 4, seed: int = 0, **how):
    """The state at the end, and the history."""
    torch.manual_seed(seed)
    np.random.seed(0)
    random.seed(0)
    model = Tiny(width)
    how = {"lr": 0.05, "lrs": {"norm": 0.01}, "evaluate": lambda: torch.rand(()).item()} | how
    with frozen(model.vision):
        if folder is None:
            history = fit(model, batches, steps, **how)
        else:
            with Checkpoint(folder, every, {"noise": model.noise}) as checkpoint:
                history = fit(model, batches, steps, checkpoint=checkpoint, **how)
    return model.state_dict(), history
