"""RMSNorm."""

import pytest
import torch

from minivlm.nn.norm import RMSNorm


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_by_hand(eps):
    norm = RMSNorm(3, eps)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
    x = torch.tensor([[3.0, 4.0, 0.0], [1e-3, 0.0, 0.0]])
    size = torch.tensor([(25 / 3 + eps) ** 0.5, (1e-6 / 3 + eps) ** 0.5])
    torch.testing.assert_close(norm(x), x / size[:, None] * torch.tensor([1.0, 2.0, -1.0]))


def test_the_mean_stays():
    assert RMSNorm(4)(torch.full((4,), 7.0)).mean() > 0.99


def test_every_position_on_its_own():
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(RMSNorm(8)(x)[1, 2], RMSNorm(8)(x[1, 2]))


def test_half_precision_is_summed_in_float32():
    """300**2 is no float16 number."""
    out = RMSNorm(8).to(torch.float16)(torch.full((8,), 300.0, dtype=torch.float16))
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), torch.ones(8), atol=1e-3, rtol=0)
