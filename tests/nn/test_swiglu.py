"""SwiGLU."""

import torch

from minivlm.nn.swiglu import SwiGLU


@torch.no_grad()
def test_by_hand():
    mlp, x = SwiGLU(4, 6, bias=True), torch.randn(2, 3, 4)
    gate, up = mlp.gate_up.weight.split(6)
    gate_bias, up_bias = mlp.gate_up.bias.split(6)
    g, u = x @ gate.T + gate_bias, x @ up.T + up_bias
    torch.testing.assert_close(mlp(x), (g * torch.sigmoid(g) * u) @ mlp.down.weight.T + mlp.down.bias)


def test_no_biases_unless_asked_for():
    assert [p.shape for p in SwiGLU(4, 6).parameters()] == [(12, 4), (4, 6)]
    assert len(list(SwiGLU(4, 6, bias=True).parameters())) == 4
