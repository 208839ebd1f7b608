"""Writing: the model's guess about the next token becomes the next token."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.language.decoder import Decoder


def pad_left(
    rows: Sequence[Sequence[int]], pad: int = 0
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Prompts of different lengths as one batch, `ids` and `keep`: padded on the left,
    so that all end, and go on, in the last column.

    Raises:
        ValueError: no prompts, or an empty one.
    """
    if not rows or not all(rows):
        raise ValueError(
            "a prompt needs at least one token (such as <bos>); got"
            f" {'no prompts' if not rows else 'an empty one'}."
        )
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    length = torch.tensor([[len(row)] for row in rows])
    return ids, torch.arange(longest) >= longest - length


def next_token(
    logits: Float[Tensor, "b v"],
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b"]:
    """Choose a token for each row. Temperature 0 takes the likeliest; others divide the
    scores before the softmax. `top_p` (Holtzman et al. 2020, section 3.1): only the
    likeliest tokens that together just reach that probability.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    likeliest, token = (logits / temperature).softmax(-1).sort(descending=True)
    before = likeliest.cumsum(-1) - likeliest  # what is reached without this token
    likeliest = likeliest.masked_fill(before >= top_p, 0.0)
    chosen = torch.multinomial(likeliest, 1, generator=generator)
    return token.gather(1, chosen)[:, 0]


@torch.no_grad()
def generate(
    model: Decoder,
    ids: Int[Tensor, "b t"] | None = None,
    keep: Bool[Tensor, "b t"] | None = None,
    max_new_tokens: int = 32,
    eos: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    embeddings: Float[Tensor, "b t d"] | None = None,
    pad: int = 0,
) -> Int[Tensor, "b new"]:
    """Continue prompts; returns the new tokens only.

    Args:
        ids, embeddings: the prompts, as one or the other; see `pad_left`.
        keep: False where a prompt is padded, on the left.
        eos: ends a row, which is filled up with `pad`; all rows ended, all is done.
        temperature, top_p, generator: see `next_token`.

    Raises:
        ValueError: an empty prompt, padding on the right, settings out of range, or
            more tokens than the model's context holds.
    """
    prompt = ids if embeddings is None else embeddings
    if prompt is None or (ids is not None and embeddings is not None):
        raise ValueError("give the prompts either as ids or as embeddings.")
    b, t = prompt.shape[:2]
    if not b or not t or (keep is not None and not keep.any(dim=1).all()):
        raise ValueError("a prompt is empty; it needs at least one token, as <bos>.")
    if keep is not None and not (keep[:, :-1] <= keep[:, 1:]).all():
        raise ValueError(
            "prompts must be padded on the left, so that each ends in the last column;"
            " pad_left does it."
        )
    if max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            "max_new_tokens must be at least 1, temperature at least 0, top_p above 0"
            f" and at most 1; got {max_new_tokens}, {temperature} and {top_p}."
        )
    longest = t if keep is None else int(keep.sum(dim=1).max())
    if keep is not None and keep.all():
        keep = None  # nothing to hide: the fast path
    context = model.config.context
    if longest + max_new_tokens > context:
        raise ValueError(
            f"the longest prompt has {longest} tokens, and {max_new_tokens} new ones"
            f" make {longest + max_new_tokens}; the context holds {context}. Shorten"
            f" the prompt or set max_new_tokens to at most {context - longest}."
        )
    cache = model.new_cache(t + max_new_tokens)
    written: list[Tensor] = []
    done = torch.zeros(b, dtype=torch.bool, device=prompt.device)
    features = model.features(ids, embeddings, keep, cache=cache)
    for _ in range(max_new_tokens):
        token = next_token(
            model.logits(features[:, -1]), temperature, top_p, generator
        ).masked_fill(done, pad)
        written.append(token)
        if eos is not None:
            done = done | (token == eos)
            if done.all():
                break
        if len(written) == max_new_tokens:
            break
        if keep is not None:
            keep = torch.cat([keep, keep.new_ones(b, 1)], dim=1)
        features = model.features(token[:, None], keep=keep, cache=cache)
    return torch.stack(written, dim=1)
