"""Cross-attention with heads of another width, without biases, with norms on queries and keys."""

import pytest
import torch
from torch import nn

from minivlm.nn.cross_attention import CrossAttention

X = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
SEEN = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(2))
close = torch.testing.assert_close


def attention(*args, **how) -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(12, 3, 10, *args, **how).eval()


def test_head_widths_and_biases():
    plain = attention()
    assert plain.q.weight.shape == (12, 12)
    assert plain.kv.weight.shape == (24, 10)
    assert plain.out.bias is not None
    wide = attention(6, bias=False)
    assert wide.q.weight.shape == (18, 12)
    assert wide.kv.weight.shape == (36, 10)
    assert wide.out.weight.shape == (12, 18)
    assert not any(name.endswith("bias") for name, _ in wide.named_parameters())
    assert wide(X, wide.keys_values(SEEN)).shape == X.shape


@torch.no_grad()
@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
def test_by_hand(norm):
    a = attention(6, bias=False, norm=norm)
    norm = norm or (lambda width: lambda x: x)
    k, v = a.kv(SEEN).chunk(2, dim=-1)
    heads = [
        (norm(6)(q_) @ norm(6)(k_).transpose(1, 2) / 6**0.5).softmax(-1) @ v_
        for q_, k_, v_ in zip(a.q(X).split(6, -1), k.split(6, -1), v.split(6, -1), strict=True)
    ]
    close(a(X, a.keys_values(SEEN)), a.out(torch.cat(heads, dim=-1)))


@torch.no_grad()
def test_what_is_masked_might_as_well_not_be_there():
    a = attention()
    mask = torch.tensor([True, False, True, True, False]).expand(2, 1, 5)
    close(a(X, a.keys_values(SEEN), mask), a(X, a.keys_values(SEEN[:, [0, 2, 3]])))
    each = torch.zeros(2, 3, 5).bool()
    each[:, 0, 1] = each[:, 1, 3] = each[:, 2, 0] = True
    out = a(X, a.keys_values(SEEN), each)
    for row, column in enumerate((1, 3, 0)):
        close(out[:, row], a(X[:, row : row + 1], a.keys_values(SEEN[:, [column]]))[:, 0])
