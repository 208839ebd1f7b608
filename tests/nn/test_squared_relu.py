"""Squared ReLU."""

import torch

from minivlm.nn.squared_relu import SquaredReLU


def test_values():
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    assert SquaredReLU()(x).tolist() == [0.0, 0.0, 0.0, 0.25, 9.0]
