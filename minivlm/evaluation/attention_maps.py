"""Where a decoder looks: its attention weights, computed once more from what its layers were given.

Training and writing use PyTorch's fused attention, which never has the weights in one place.
"""

import math
from contextlib import ExitStack
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.nn.attention import causal_mask
from minivlm.nn.rotary import rotate


@torch.no_grad()
def attention_maps(decoder: nn.Module, **inputs: Any) -> Float[Tensor, "layers b nh t t"]:
    """The weights of every layer and head for one reading: `[layer, b, head, i, j]` is how much place i takes from place j.

    Args:
        decoder: with `blocks`, each with an `attention` such as `GroupedQueryAttention`.
        inputs: what its `features` takes, without a cache: `ids` or `embeddings`, and `keep`.

    Raises:
        ValueError: a cache is given; the weights on what it holds are not looked at.
    """
    if inputs.get("cache") is not None:
        raise ValueError("attention_maps reads a whole text at once; call it without a cache.")
    given: list[tuple[nn.Module, tuple]] = []
    with ExitStack() as stack:
        for block in decoder.blocks:
            hook = block.attention.register_forward_pre_hook(lambda module, args: given.append((module, args)))
            stack.callback(hook.remove)
        decoder.features(**inputs)
    return torch.stack([_weights(module, *args) for module, args in given])


def _weights(attention: nn.Module, x: Tensor, turn: Any, mask: Tensor | None, cache: None) -> Float[Tensor, "b nh t t"]:
    qkv = rearrange(attention.qkv(x), "b t (nh hd) -> b nh t hd", hd=attention.head_width)
    q, k, _ = qkv.split([attention.heads, attention.kv_heads, attention.kv_heads], dim=1)
    k = rotate(k, turn).repeat_interleave(attention.heads // attention.kv_heads, dim=1)
    scores = rotate(q, turn) @ k.mT / math.sqrt(attention.head_width)
    if mask is None:
        mask = causal_mask(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
    return scores.masked_fill(~mask[:, None], -math.inf).softmax(-1)
