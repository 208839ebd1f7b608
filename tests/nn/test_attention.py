"""Attention, written once more by hand."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from minivlm.nn.attention import Attention, causal_mask


def by_hand(layer: Attention, x: torch.Tensor, may_see: torch.Tensor) -> torch.Tensor:
    """Section 3.2 of Vaswani et al. 2017, one image, one head, one row at a time. `may_see`: (b, t, t)."""
    b, t, d = x.shape
    hd = d // layer.heads
    q, k, v = layer.qkv(x).split(d, dim=-1)
    out = torch.zeros(b, t, d)
    for i in range(b):
        for h in range(layer.heads):
            at = slice(h * hd, (h + 1) * hd)
            for row in range(t):
                scores = torch.tensor([float(q[i, row, at] @ k[i, col, at]) / math.sqrt(hd) for col in range(t)])
                weights = scores.masked_fill(~may_see[i, row], -math.inf).softmax(0)
                out[i, row, at] = sum(w * v[i, col, at] for col, w in enumerate(weights))
    return layer.out(out)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = Attention(12, 3)
    torch.nn.init.normal_(layer.qkv.bias)
    torch.nn.init.normal_(layer.qkv.weight, std=0.5)
    return layer.eval()


@pytest.fixture
def x():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_equals_softmax_by_hand(layer, x):
    everything = torch.ones(2, 5, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x), by_hand(layer, x, everything))
    torch.testing.assert_close(layer(x, causal=True), by_hand(layer, x, everything.tril()))
    mask = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    mask |= torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(layer(x, mask=mask), by_hand(layer, x, mask))
    torch.testing.assert_close(layer(x, causal=True, mask=mask), by_hand(layer, x, mask))  # the mask replaces causal
    one_row = mask[:, :1] | True
    torch.testing.assert_close(layer(x, mask=one_row), by_hand(layer, x, everything))


@torch.no_grad()
def test_causal_later_tokens_change_nothing_earlier(layer, x):
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = layer(x, causal=True), layer(changed, causal=True)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])
    assert not torch.allclose(layer(x)[:, :3], layer(changed)[:, :3])


@torch.no_grad()
def test_without_a_mask_order_means_nothing(layer, x):
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_causal_mask_by_hand():
    keep = torch.tensor([[True, True, True, False], [False, False, True, True]])
    wanted = torch.tensor(
        [
            [
                [1, 0, 0, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 1],
            ],  # padding on the right: the last row is padding itself
            [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]],  # on the left
        ]
    ).bool()
    assert torch.equal(causal_mask(keep), wanted)
    assert torch.equal(causal_mask(torch.ones(1, 6, dtype=torch.bool))[0], torch.ones(6, 6, dtype=torch.bool).tril())


@torch.no_grad()
def test_padding_changes_no_kept_token_and_gives_no_nan(layer, x):
    keep = torch.tensor([[True, True, True, False, False], [False, True, True, True, True]])
    changed = torch.where(keep[..., None], x, 100.0)
    before, after = layer(x, mask=causal_mask(keep)), layer(changed, mask=causal_mask(keep))
    assert torch.equal(before[keep], after[keep])
    assert before.isfinite().all()
    torch.testing.assert_close(before[0, :3], layer(x[:1, :3], causal=True)[0])
    torch.testing.assert_close(before[1, 1:], layer(x[1:, 1:], causal=True)[0])


def test_shapes_are_checked_in_tests(layer):
    """If this fails, annotations are no longer checked at run time, in any test."""
    with pytest.raises(TypeCheckError):
        layer(torch.zeros(2, 12))
    with pytest.raises(TypeCheckError):
        layer(torch.zeros(2, 5, 12), mask=torch.zeros(2, 5, 5))
