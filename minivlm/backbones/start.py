"""A start for language models that are to look things up: attention that already looks.

Which colour has the star of this text? To answer, one layer must bring together what stands side by side, and a later one
must find the place where the asked word stands. From the usual random start a small model finds this only after a long
plateau, on which it guesses among the colours it has read. This start gives the weights the shape that such a search has
in trained models (after "mimetic initialization", Trockman and Kolter 2023, arXiv 2305.09828); everything is trained on.
"""

import torch
from torch import nn

from minivlm.language.decoder import Decoder


@torch.no_grad()
def looking_start(
    model: Decoder,
    seed: int,
    offsets: tuple[int, ...] = (1, 2, 3, 5),
    sharpness: float = 4.0,
    match: float = 1.4,
    std: float = 0.05,
    gain: float = 2.0,
) -> None:
    """Initialise a decoder with biases on queries and keys (`qkv_bias=True`).

    - First layer: each head looks a fixed number of tokens back, `offsets[head]`, whatever stands there: the biases of
      query and key, on the pairs that turn fast, are alike at that distance.
    - Later layers: query and key matrices are equal, on the pairs that turn slowly, so that a token looks for its like.
    - All layers: what is found is brought back as it was: the output matrix is the value matrix, transposed.

    Args:
        seed: of the random projections.
        sharpness: of the first layer's look, the size of the biases.
        match: size of the equal query and key matrices.
        std: of the embeddings, and the size of what attention adds to them.
        gain: how much more the first layer adds, so that a neighbour counts as much as the token itself.

    Raises:
        ValueError: a decoder without biases, whose heads could not look at places alone.
    """
    c = model.config
    if not c.qkv_bias:
        raise ValueError("looking_start needs a decoder with qkv_bias=True: without, no head can look at places alone.")
    generator = torch.Generator().manual_seed(seed)
    half, fast = c.hd // 2, max(1, 3 * c.hd // 16)
    turn = c.rope_base ** (-torch.arange(0, c.hd, 2) / c.hd)

    def normal(*shape: int, size: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * size

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(normal(*module.weight.shape, size=0.02))
            if module.bias is not None:
                module.bias.zero_()
    model.embedding.weight.copy_(normal(*model.embedding.weight.shape, size=std))

    for layer, block in enumerate(model.blocks):
        attention = block.attention
        sizes = [c.heads, c.kv_heads, c.kv_heads]
        q, k, v = attention.qkv.weight.view(-1, c.hd, c.width).split(sizes)
        q_bias, k_bias, _ = attention.qkv.bias.view(-1, c.hd).split(sizes)
        out = attention.out.weight.view(c.width, c.heads, c.hd)
        for head in range(c.heads):
            shared = head // (c.heads // c.kv_heads)
            if layer == 0:
                angle = -offsets[head % len(offsets)] * turn[:fast]
                q_bias[head, :fast], q_bias[head, half : half + fast] = sharpness * angle.cos(), sharpness * angle.sin()
                k_bias[shared, :fast] = sharpness
            elif head % (c.heads // c.kv_heads) == 0:
                slow = torch.arange(c.hd) % half >= half // 2
                alike = normal(c.hd, c.width, size=match / c.width**0.5) * slow[:, None]
                q[head : head + c.heads // c.kv_heads] += alike
                k[shared] += alike
            if head % (c.heads // c.kv_heads) == 0:
                v[shared] = normal(c.hd, c.width, size=c.width**-0.5)
            out[:, head] = (std if layer else gain * std) * v[shared].T
