"""Where a model looks: attention weights, computed once more from what the layers were given.

Training and writing use PyTorch's fused attention, which never has the weights in one place.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.nn.attention import causal_mask
from minivlm.nn.rotary import rotate


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
    return attention_during(lambda: decoder.features(**inputs), [block.attention for block in decoder.blocks])


@torch.no_grad()
def attention_during(look: Callable[[], Any], layers: Iterable[nn.Module]) -> Float[Tensor, "calls b nh t n"]:
    """The weights of attention layers while `look()` runs, in the order in which they are called: `[call, b, head, i, j]` is
    how much place i takes from place j. For a Q-Former, from each patch:

        looking = [block.cross for block in model.qformer.blocks if block.looks]
        maps = attention_during(lambda: model.embed_image(pixel_values), looking)

    Args:
        look: runs the model that the layers are part of.
        layers: such as `CrossAttention`, `Attention` or `GroupedQueryAttention`: what they have decides how they are read.

    Raises:
        ValueError: none of the layers is called, they look at unequal numbers of places, or one has a cache.
    """
    given: list[Tensor] = []

    def read(layer: nn.Module, args: tuple, named: dict[str, Any]) -> None:
        given.append(_weights_of(layer)(layer, *args, **named))

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(read, with_kwargs=True).remove)
        look()
    if not given:
        raise ValueError("none of these layers was called; `look` must run the model that they are part of.")
    if len(shapes := {tuple(weights.shape) for weights in given}) > 1:
        raise ValueError(f"the layers' weights have shapes {sorted(shapes)}; look at those of one shape at a time.")
    return torch.stack(given)


def _weights_of(layer: nn.Module) -> Callable[..., Tensor]:
    if hasattr(layer, "keys_values"):
        return _cross
    return _grouped if hasattr(layer, "kv_heads") else _self


def _cross(layer: nn.Module, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
    q = layer.q_norm(rearrange(layer.q(x), "b t (nh hd) -> b nh t hd", nh=layer.heads))
    return _softmax(q, keys_values[0], mask)


def _self(layer: nn.Module, x: Tensor, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    q, k, _ = rearrange(layer.qkv(x), "b t (three nh hd) -> three b nh t hd", three=3, nh=layer.heads)
    return _softmax(q, k, _all_before(x) if mask is None and causal else mask)


def _grouped(layer: nn.Module, x: Tensor, turn: Any, mask: Tensor | None = None, cache: Any = None) -> Tensor:
    if cache is not None:
        raise ValueError("a layer has a cache, and the weights on what it holds are not looked at; run without one.")
    qkv = rearrange(layer.qkv(x), "b t (nh hd) -> b nh t hd", hd=layer.head_width)
    q, k, _ = qkv.split([layer.heads, layer.kv_heads, layer.kv_heads], dim=1)
    k = rotate(k, turn).repeat_interleave(layer.heads // layer.kv_heads, dim=1)
    return _softmax(rotate(q, turn), k, _all_before(x) if mask is None else mask)


def _softmax(q: Tensor, k: Tensor, mask: Tensor | None) -> Float[Tensor, "b nh t n"]:
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask[:, None], -math.inf)).softmax(-1)


def _all_before(x: Tensor) -> Tensor:
    return causal_mask(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
