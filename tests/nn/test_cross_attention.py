"""Cross-attention, written once more by hand."""

import math

import pytest
import torch

from minivlm.nn.attention import Attention
from minivlm.nn.cross_attention import CrossAttention


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = CrossAttention(12, 3, seen=7)
    for linear in (layer.q, layer.kv):
        torch.nn.init.normal_(linear.weight, std=0.5)
        torch.nn.init.normal_(linear.bias)
    return layer.eval()


X = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
SEEN = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(2))


def by_hand(layer: CrossAttention, may_see: torch.Tensor) -> torch.Tensor:
    """One image, one head, one row at a time. `may_see`: (b, t, n)."""
    q, (k, v) = layer.q(X), layer.kv(SEEN).split(12, dim=-1)
    out = torch.zeros(2, 5, 12)
    for i in range(2):
        for h in range(3):
            at = slice(4 * h, 4 * h + 4)
            for row in range(5):
                scores = torch.stack([q[i, row, at] @ k[i, col, at] / math.sqrt(4) for col in range(4)])
                weights = scores.masked_fill(~may_see[i, row], -math.inf).softmax(0)
                out[i, row, at] = weights @ v[i, :, at]
    return layer.out(out)


@torch.no_grad()
def test_equals_softmax_by_hand(layer):
    mask = torch.rand(2, 5, 4, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[..., 0] = True
    seen = layer.keys_values(SEEN)
    torch.testing.assert_close(layer(X, seen), by_hand(layer, torch.ones_like(mask)))
    torch.testing.assert_close(layer(X, seen, mask), by_hand(layer, mask))
    torch.testing.assert_close(layer(X, seen, mask[:, :1]), by_hand(layer, mask[:, :1].expand_as(mask)))


@torch.no_grad()
def test_with_itself_it_is_self_attention():
    torch.manual_seed(0)
    itself, both = Attention(12, 3), CrossAttention(12, 3, seen=12)
    q, kv = itself.qkv.weight.split([12, 24])
    both.q.weight.copy_(q)
    both.kv.weight.copy_(kv)
    for kind, part in zip((both.q, both.kv), itself.qkv.bias.split([12, 24]), strict=True):
        kind.bias.copy_(part)
    both.out.load_state_dict(itself.out.state_dict())
    torch.testing.assert_close(both(X, both.keys_values(X)), itself(X))


@torch.no_grad()
def test_the_order_of_what_is_seen_does_not_matter(layer):
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(layer(X, layer.keys_values(SEEN[:, order])), layer(X, layer.keys_values(SEEN)))
    assert not torch.allclose(layer(X, layer.keys_values(SEEN.flip(0))), layer(X, layer.keys_values(SEEN)))
