"""Grouped-query attention, written once more by hand, and its cache."""

import math

import pytest
import torch

from minivlm.nn.attention import causal_mask
from minivlm.nn.grouped_query import GroupedQueryAttention, KVCache
from minivlm.nn.rotary import rotary_turn, rotate


def turn_of(start: int, end: int, b: int = 2):
    return rotary_turn(torch.arange(start, end).expand(b, -1), 8)


def by_hand(layer: GroupedQueryAttention, x: torch.Tensor, may_see: torch.Tensor) -> torch.Tensor:
    """One text, one query head, one row at a time."""
    b, t, _ = x.shape
    nh, kv, hd = layer.heads, layer.kv_heads, layer.head_width
    wq, wk, wv = layer.qkv.weight.split([nh * hd, kv * hd, kv * hd])
    turn = turn_of(0, t, b)
    heads = lambda w, n: (x @ w.T).view(b, t, n, hd).transpose(1, 2)
    q, k, v = rotate(heads(wq, nh), turn), rotate(heads(wk, kv), turn), heads(wv, kv)
    out = torch.zeros(b, t, nh * hd)
    for i in range(b):
        for h in range(nh):
            group = h // (nh // kv)
            for row in range(t):
                scores = (k[i, group] @ q[i, h, row] / math.sqrt(hd)).masked_fill(~may_see[i, row], -math.inf)
                out[i, row, h * hd : (h + 1) * hd] = scores.softmax(0) @ v[i, group]
    return layer.out(out)


@pytest.fixture(params=[1, 2, 6])
def layer(request):
    torch.manual_seed(0)
    layer = GroupedQueryAttention(12, 6, request.param, 8)
    torch.nn.init.normal_(layer.qkv.weight, std=0.5)
    return layer.eval()


@pytest.fixture
def x():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_equals_softmax_by_hand(layer, x):
    past = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(layer(x, turn_of(0, 5)), by_hand(layer, x, past))
    keep = torch.tensor([[True, True, True, False, False], [False, True, True, True, True]])
    mask = causal_mask(keep)
    torch.testing.assert_close(layer(x, turn_of(0, 5), mask), by_hand(layer, x, mask))


def test_sizes_and_biases():
    layer = GroupedQueryAttention(12, 6, 2, 10, qkv_bias=True)
    assert layer.qkv.weight.shape == ((6 + 4) * 10, 12)
    assert layer.qkv.bias.shape == (100,)
    assert layer.out.weight.shape == (12, 60)
    assert layer.out.bias is None


@torch.no_grad()
def test_later_tokens_change_nothing_earlier(layer, x):
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = layer(x, turn_of(0, 5)), layer(changed, turn_of(0, 5))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@torch.no_grad()
@pytest.mark.parametrize("parts", [(5,), (1, 1, 1, 1, 1), (3, 1, 1), (2, 3)])
def test_cached_equals_uncached(layer, x, parts):
    cache, outputs, start = KVCache(room=7), [], 0
    for size in parts:
        end = start + size
        mask = causal_mask(torch.ones(2, end, dtype=torch.bool))[:, start:] if start and size > 1 else None
        outputs.append(layer(x[:, start:end], turn_of(start, end), mask, cache))
        start = end
    assert cache.length == 5
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x, turn_of(0, 5)), atol=1e-5, rtol=1e-5)


def test_cache_keeps_what_it_is_given_and_says_when_it_is_full():
    cache = KVCache(3)
    k, v = torch.randn(2, 2, 1, 3, 4)
    cache.append(k[:, :, :2], v[:, :, :2])
    keys, values = cache.append(k[:, :, 2:], v[:, :, 2:])
    assert torch.equal(keys, k)
    assert torch.equal(values, v)
    with pytest.raises(ValueError, match="room for 3 tokens; it holds 3 and got 1 more"):
        cache.append(k[:, :, :1], v[:, :, :1])
