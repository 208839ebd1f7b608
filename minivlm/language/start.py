"""A start for language models that are to look things up: attention that already looks.

In the spirit of "mimetic initialization" (Trockman and Kolter 2023, arXiv 2305.09828),
with the two steps of induction heads (Olsson et al. 2022, arXiv 2209.11895).
"""

import torch
from torch import Tensor, nn

from minivlm.language.decoder import Decoder

#: How far back the heads of the first layer look. What heads 1 to 3 find goes into
#: parts 1 to 3 of the stream, what head 4 finds into part 1 as well.
OFFSETS = (1, 2, 3, 4)

#: What each later head does, in turn: with which part of the stream it asks, in which
#: it searches, which it brings back. Part 0 is the token itself, part k the token that
#: stands k before it.
LOOKS = (
    (1, 0, 1), (2, 1, 0), (1, 3, 0), (2, 0, 2),
    (1, 0, 2), (2, 1, 1), (1, 1, 0), (2, 3, 0),
)  # fmt: skip


@torch.no_grad()
def looking_start(
    model: Decoder,
    seed: int,
    sharpness: float = 4.0,
    match: float = 2.0,
    std: float = 0.05,
) -> None:
    """Initialise a decoder so that looking something up in the text is near.

    The stream is cut into four random orthogonal parts; words lie (nearly) in part 0.
    It knows no word, all numbers are trained on, the architecture is that of `Decoder`.

    - First layer: each head looks a fixed number of tokens back, whatever stands there:
      on the pairs of features that turn fast, the biases of query and key agree at that
      distance. It copies the word it finds into a part of its own.
    - Later layers: queries and keys are the same features of two parts, on the pairs
      that turn slowly. So a head finds where one part holds what another holds here,
      and brings back a third, as a word: see `LOOKS`.

    Args:
        seed: of everything random.
        sharpness: size of the first layer's biases.
        match: size of the later layers' queries and keys.
        std: of the embeddings.

    Raises:
        ValueError: no biases (`qkv_bias`), or sizes that cannot be cut into parts.
    """
    c = model.config
    if not c.qkv_bias or c.width % 4 or c.hd % 4 or c.heads != c.kv_heads:
        raise ValueError(
            "looking_start needs qkv_bias=True, width and heads of multiples of 4"
            f" features, one key head a query head; got qkv_bias={c.qkv_bias}, width"
            f" {c.width}, {c.heads} heads of {c.hd}, {c.kv_heads} key heads."
        )
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(normal(*module.weight.shape, std=0.02))
            if module.bias is not None:
                module.bias.zero_()
    part = torch.linalg.qr(normal(c.width, c.width, std=1.0))[0].T.chunk(4)
    words, size = model.embedding.weight, len(part[0])
    words.copy_(2 * normal(len(words), size, std=std) @ part[0])
    words.add_(normal(*words.shape, std=0.3 * std))

    fast, moved = max(1, 3 * c.hd // 16), min(size, c.hd)
    slow = list(range(c.hd // 2, c.hd))[:size]
    turn = c.rope_base ** (-torch.arange(0, c.hd, 2) / c.hd)
    for layer, block in enumerate(model.blocks):
        attention = block.attention
        q, k, v = attention.qkv.weight.view(3, c.heads, c.hd, c.width)
        q_bias, k_bias, _ = attention.qkv.bias.view(3, c.heads, c.hd)
        out = attention.out.weight.view(c.width, c.heads, c.hd)
        for head in range(c.heads):
            if layer == 0:
                angle = -OFFSETS[head % 4] * turn[:fast]
                q_bias[head, : 2 * fast : 2] = sharpness * angle.cos()
                q_bias[head, 1 : 2 * fast : 2] = sharpness * angle.sin()
                k_bias[head, : 2 * fast : 2] = sharpness
                found, target = 0, 1 + head % 3
            else:
                asked, searched, found = LOOKS[((layer - 1) * c.heads + head) % 8]
                q[head, slow] += match * part[asked][: len(slow)]
                k[head, slow] += match * part[searched][: len(slow)]
                target = 0
            v[head, :moved] = part[found][:moved]
            gain = 2 * std if layer == 0 else std  # a neighbour counts as the token
            out[:, head, :moved] = gain * part[target][:moved].T
