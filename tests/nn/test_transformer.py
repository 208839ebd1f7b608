"""The block, its MLP and how it starts."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minivlm.nn.transformer import MLP, Block, QuickGELU, init_transformer


def test_quick_gelu():
    x = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    torch.testing.assert_close(QuickGELU()(x), x * torch.sigmoid(1.702 * x))
    assert (QuickGELU()(x) - F.gelu(x)).abs().max() > 0.01, "it is no gelu"
    assert QuickGELU()(torch.tensor(1.0)).shape == ()


@torch.no_grad()
def test_block_by_hand():
    torch.manual_seed(0)
    block, x = Block(8, 2, 12, eps=0.1, activation=nn.ReLU), torch.randn(2, 3, 8)
    for parameter in block.parameters():
        parameter.add_(torch.randn_like(parameter))

    def norm(layer, x):  # by hand: the epsilon stands under the root
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * layer.weight + layer.bias

    y = x + block.attention(norm(block.norm_1, x))
    wide, bend, narrow = block.mlp
    assert isinstance(bend, nn.ReLU)
    y = y + narrow(wide(norm(block.norm_2, y)).clamp(min=0))
    torch.testing.assert_close(block(x), y, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_block_hands_its_mask_on():
    torch.manual_seed(0)
    block, x = Block(8, 2, 12).eval(), torch.randn(1, 4, 8)
    itself = torch.eye(4, dtype=torch.bool)[None]
    torch.testing.assert_close(block(x, mask=itself), torch.cat([block(x[:, i : i + 1]) for i in range(4)], dim=1))
    torch.testing.assert_close(block(x, causal=True)[:, :2], block(x[:, :2], causal=True))
    assert not torch.allclose(block(x)[:, :2], block(x[:, :2]))


def test_mlp_works_on_each_position_alone():
    torch.manual_seed(0)
    mlp, x = MLP(8, 32), torch.randn(2, 3, 8)
    assert [layer.weight.shape for layer in (mlp[0], mlp[2])] == [(32, 8), (8, 32)]
    torch.testing.assert_close(mlp(x)[1, 2], mlp(x[1, 2]))


def test_init_has_the_spreads_it_promises():
    torch.manual_seed(0)
    width, layers = 128, 4
    blocks = nn.ModuleList(Block(width, 4, 4 * width) for _ in range(layers))
    init_transformer(blocks, width)
    for block in blocks:
        narrow = (2 * layers) ** -0.5 / math.sqrt(width)
        for linear, std in (
            (block.attention.qkv, width**-0.5),
            (block.attention.out, narrow),
            (block.mlp[0], (2 * width) ** -0.5),
            (block.mlp[2], narrow),
        ):
            assert not linear.bias.any()
            assert abs(linear.weight.std().item() / std - 1) < 0.05
