"""A start for language models that are to look things up: attention that already looks.

Which colour has the star of this text? One layer must bring together what stands side by side, a later one must find the
place where the asked word stands and read what was brought there. From the usual random start a small model finds this pair
of steps only after a long plateau, on which it guesses among the colours that it has read. This start gives attention the
shape that such a search has in trained models: in the spirit of "mimetic initialization" (Trockman and Kolter 2023, arXiv
2305.09828), with the two steps of induction heads (Olsson et al. 2022, arXiv 2209.11895). It knows no word, every number is
trained on, and the model computes what any decoder computes.
"""

import torch
from torch import nn

from minivlm.language.decoder import Decoder

#: What each later head does, in turn: which part of the stream it asks with, in which part it searches, which part it
#: brings back. Part 0 is the token itself, part k the token that stands `OFFSETS[k - 1]` before it.
LOOKS = ((1, 0, 1), (2, 1, 0), (1, 3, 0), (2, 0, 2), (1, 0, 2), (2, 1, 1), (1, 1, 0), (2, 3, 0))

#: How far back the heads of the first layer look. The fourth shares a part of the stream with the first.
OFFSETS = (1, 2, 3, 4)

#: Parts of the stream: the token itself, and its neighbours.
PARTS = 4


@torch.no_grad()
def looking_start(model: Decoder, seed: int, sharpness: float = 4.0, match: float = 2.0, std: float = 0.05) -> None:
    """Initialise a decoder with biases on queries and keys (`qkv_bias=True`).

    The stream is cut into `PARTS` random orthogonal parts of equal width. Embeddings lie (nearly) in the first.

    - First layer: each head looks a fixed number of tokens back, whatever stands there, because the biases of its queries
      and keys, on the pairs of features that turn fast, agree at that distance; it writes what it finds into a part of its own.
    - Later layers: queries and keys are the same features of two parts, on the pairs that turn slowly, so a head finds where
      in one part stands what it has in another, and brings back a third, as a word, into the first: see `LOOKS`.

    Args:
        seed: of everything random.
        sharpness: of the first layer's look, the size of its biases.
        match: size of the later layers' queries and keys.
        std: of the embeddings.

    Raises:
        ValueError: a decoder without biases, whose heads could not look at places alone, or too small to be cut into parts.
    """
    c = model.config
    if not c.qkv_bias:
        raise ValueError("looking_start needs a decoder with qkv_bias=True: without, no head can look at places alone.")
    if c.width % PARTS or c.hd % 4 or c.heads != c.kv_heads:
        raise ValueError(
            f"looking_start needs a width that is a multiple of {PARTS}, heads of a multiple of 4 features, and as many key"
            f" as query heads; got width {c.width}, heads {c.heads} of {c.hd}, key heads {c.kv_heads}."
        )
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, size: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * size

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(normal(*module.weight.shape, size=0.02))
            if module.bias is not None:
                module.bias.zero_()
    part = torch.linalg.qr(normal(c.width, c.width, size=1.0))[0].T.chunk(PARTS)  # each (width / PARTS, width)
    size = len(part[0])
    words = model.embedding.weight
    words.copy_(PARTS**0.5 * normal(len(words), size, size=std) @ part[0] + normal(*words.shape, size=0.3 * std))

    half, fast, moved = c.hd // 2, max(1, 3 * c.hd // 16), min(size, c.hd)
    slow = [i for i in range(c.hd) if i % half >= half // 2][:size]
    turn = c.rope_base ** (-torch.arange(0, c.hd, 2) / c.hd)
    for layer, block in enumerate(model.blocks):
        attention = block.attention
        q, k, v = attention.qkv.weight.view(3, c.heads, c.hd, c.width)
        q_bias, k_bias, _ = attention.qkv.bias.view(3, c.heads, c.hd)
        out = attention.out.weight.view(c.width, c.heads, c.hd)
        for head in range(c.heads):
            if layer == 0:
                angle = -OFFSETS[head % len(OFFSETS)] * turn[:fast]
                q_bias[head, :fast], q_bias[head, half : half + fast] = sharpness * angle.cos(), sharpness * angle.sin()
                k_bias[head, :fast] = sharpness
                found, target, gain = 0, 1 + head % (PARTS - 1), 2 * std  # a neighbour counts as much as the token itself
            else:
                asked, searched, found = LOOKS[((layer - 1) * c.heads + head) % len(LOOKS)]
                q[head, slow] += match * part[asked][: len(slow)]
                k[head, slow] += match * part[searched][: len(slow)]
                target, gain = 0, std
            v[head, :moved] = part[found][:moved]
            out[:, head, :moved] = gain * part[target][:moved].T
