"""Rotary positions, written once more, number by number."""

import math

import torch

from minivlm.nn.rotary import rotary_turn, rotate


def by_hand(x: torch.Tensor, positions: torch.Tensor, base: float) -> torch.Tensor:
    """Equation 13 of Su et al. 2021: features 2i and 2i + 1 are a complex number, multiplied by exp(i position theta_i)."""
    hd = x.shape[-1]
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[2]):
            for i in range(hd // 2):
                theta = float(positions[b, t]) * base ** (-2 * i / hd)
                z = torch.complex(x[b, :, t, 2 * i].double(), x[b, :, t, 2 * i + 1].double())
                z = z * complex(math.cos(theta), math.sin(theta))
                out[b, :, t, 2 * i], out[b, :, t, 2 * i + 1] = z.real.float(), z.imag.float()
    return out


def test_equals_complex_numbers():
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 0, 100, 3, 3]])
    for base in (10000.0, 100.0):
        torch.testing.assert_close(rotate(x, rotary_turn(positions, 8, base)), by_hand(x, positions, base))


def test_place_zero_turns_nothing_and_lengths_stay():
    x = torch.randn(1, 2, 4, 6)
    turned = rotate(x, rotary_turn(torch.tensor([[0, 0, 5, 900]]), 6))
    assert torch.equal(turned[:, :, :2], x[:, :, :2])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_a_score_depends_only_on_the_distance():
    q, k = torch.randn(2, 1, 1, 1, 16)

    def score(i: int, j: int) -> float:
        at = lambda p: rotary_turn(torch.tensor([[p]]), 16)
        return float((rotate(q, at(i)) * rotate(k, at(j))).sum())

    for distance in (0, 1, 7):
        assert math.isclose(score(distance, 0), score(distance + 50, 50), abs_tol=1e-4)
    assert not math.isclose(score(7, 0), score(0, 7), abs_tol=1e-3), "before and behind are not the same"
    assert not math.isclose(score(1, 0), score(2, 0), abs_tol=1e-3)


def test_half_precision_keeps_far_positions_apart():
    """bfloat16 has 8 bits: 1000 and 1001 are one number there."""
    turn = rotary_turn(torch.tensor([[1000, 1001]]), 4)
    assert turn.dtype == torch.complex64
    x = torch.ones(1, 1, 2, 4, dtype=torch.bfloat16)
    turned = rotate(x, turn)
    assert turned.dtype == torch.bfloat16
    assert not torch.allclose(turned[0, 0, 0], turned[0, 0, 1], atol=0.1)


def test_angles_from_elsewhere_can_be_used():
    """What a model with two- or three-dimensional positions will do."""
    turn = torch.full((1, 2, 3), 1j)  # a quarter turn everywhere
    x = torch.arange(12.0).view(1, 1, 2, 6)
    assert torch.equal(rotate(x, turn), torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2))
