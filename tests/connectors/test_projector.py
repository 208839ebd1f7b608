"""From one width to another."""

import pytest
import torch
import torch.nn.functional as F

from minivlm.connectors.projector import Projector


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_shape_and_formula(layers):
    torch.manual_seed(0)
    projector = Projector(6, 10, layers)
    x = torch.randn(2, 5, 6)
    wanted = F.linear(x, projector[0].weight, projector[0].bias)
    for i in range(1, layers):
        wanted = F.linear(F.gelu(wanted), projector[2 * i].weight, projector[2 * i].bias)
    torch.testing.assert_close(projector(x), wanted)
    assert projector(x).shape == (2, 5, 10)
    assert sum(p.numel() for p in projector.parameters()) == 6 * 10 + 10 + (layers - 1) * (10 * 10 + 10)


def test_one_layer_is_one_matrix():
    torch.manual_seed(0)
    projector = Projector(6, 10)
    a, b = torch.randn(2, 1, 4, 6)
    zero = projector(torch.zeros(1, 4, 6))
    torch.testing.assert_close(projector(a + b), projector(a) + projector(b) - zero)
    assert not torch.allclose(Projector(6, 10, 2)(a + b), Projector(6, 10, 2)(a) + Projector(6, 10, 2)(b))


def test_tokens_do_not_see_each_other():
    torch.manual_seed(0)
    projector, x = Projector(6, 10, 2), torch.randn(2, 5, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(projector(x[:, order]), projector(x)[:, order])
