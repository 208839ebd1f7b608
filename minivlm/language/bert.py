"""BERT (Devlin et al. 2018, arXiv 1810.04805) with a sublayer more, which looks at an
image: one class that reads a text in three ways (BLIP, section 3.1).

- text encoder: every word sees every word
- image-grounded encoder: and each layer looks at the image
- image-grounded decoder: words see only what stands before them, so it can write
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.language.generate import next_token
from minivlm.nn.attention import causal_mask
from minivlm.nn.cross_attention import CrossAttention, KeysValues
from minivlm.nn.grouped_query import KVCache
from minivlm.nn.transformer import MLP

#: Which parts of their blocks two Berts may share (BLIP, table 3). If they share any,
#: they share the embeddings too.
SHARED_PARTS = {
    "all": ("attention", "norm_1", "cross", "norm_2", "mlp", "norm_3"),
    "all but self-attention": ("cross", "norm_2", "mlp", "norm_3"),
    "all but cross-attention": ("attention", "norm_1", "mlp", "norm_3"),
    "nothing": (),
}


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT. `seen`: the width of what it looks at; None: it only reads."""

    vocab_size: int
    context: int  # longest text in tokens
    width: int
    layers: int
    heads: int
    hidden: int  # inside the MLP
    seen: int | None = None
    eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads}."
            )
        if self.seen is not None and self.seen < 1:
            raise ValueError(f"seen is {self.seen}; it must be at least 1, or None.")


class BertBlock(nn.Module):
    """One post-norm layer: self-attention, cross-attention if there is something to
    see, MLP; each is added to the stream, and then the stream itself is normalised.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        c = config
        self.attention = CrossAttention(c.width, c.heads, c.width)
        self.norm_1 = nn.LayerNorm(c.width, c.eps)
        if c.seen is not None:
            self.cross = CrossAttention(c.width, c.heads, c.seen)
            self.norm_2 = nn.LayerNorm(c.width, c.eps)
        self.mlp = MLP(c.width, c.hidden, nn.GELU)
        self.norm_3 = nn.LayerNorm(c.width, c.eps)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b #t T"] | None = None,
        seen: KeysValues | None = None,
        seen_mask: Bool[Tensor, "b 1 n"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        words = self.attention.keys_values(x)
        if cache is not None:
            words = cache.append(*words)
        x = self.norm_1(x + self.attention(x, words, mask))
        if seen is not None:
            x = self.norm_2(x + self.cross(x, seen, seen_mask))
        return self.norm_3(x + self.mlp(x))


def reading_mask(keep: Bool[Tensor, "b t"], causal: bool) -> Bool[Tensor, "b #t t"]:
    """True where row i may see column j: all that is no padding (`keep` False), or of
    that only what stands before it.
    """
    return causal_mask(keep) if causal else keep[:, None]


class Bert(nn.Module):
    """A text transformer with learned positions, counted from the first column.

    Args:
        head: whether it also gives a score to each word of the vocabulary: one more
            layer, then the matrix that reads words and a bias.
    """

    def __init__(self, config: BertConfig, head: bool = False) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.empty(config.context, width))
        self.norm_before = nn.LayerNorm(width, config.eps)
        self.blocks = nn.ModuleList(BertBlock(config) for _ in range(config.layers))
        if head:
            norm = nn.LayerNorm(width, config.eps)
            self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), norm)
            self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        init_bert(self)

    def look(self, seen: Float[Tensor, "b n s"]) -> list[KeysValues]:
        """What each layer's cross-attention makes of the image: keys and values.

        Raises:
            ValueError: this one only reads.
        """
        if self.config.seen is None:
            raise ValueError(
                "this Bert has no cross-attention to look at an image with; its config"
                " needs `seen`, the width of the image's tokens."
            )
        return [block.cross.keys_values(seen) for block in self.blocks]

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        seen: Float[Tensor, "b n s"] | list[KeysValues] | None = None,
        causal: bool = False,
        keep: Bool[Tensor, "b T"] | None = None,
        seen_keep: Bool[Tensor, "b n"] | None = None,
        cache: list[KVCache] | None = None,
        positions: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """What stands at each place after the last layer.

        Args:
            seen: the image's tokens, or what `look` made of them. None: the
                cross-attention is skipped.
            causal: words see only what stands before them.
            keep: False hides padding; covers what is cached as well.
            seen_keep: False hides padding among what is seen.
            cache: for `causal`, from `new_cache`; what it holds comes before the input,
                and the input is added to it.
            positions: of the input. Default: columns are counted, padding too.

        Raises:
            ValueError: a longer text than the context holds, or nothing to look with.
        """
        past = cache[0].length if cache else 0
        b, t = ids.shape
        if past + t > self.config.context:
            raise ValueError(
                f"a text has {past + t} tokens; the context holds"
                f" {self.config.context}. Shorten it."
            )
        if isinstance(seen, Tensor):
            seen = self.look(seen)
        if keep is None and causal:
            keep = torch.ones(b, past + t, dtype=torch.bool, device=ids.device)
        mask = None if keep is None else reading_mask(keep, causal)
        if causal:
            mask = mask[:, past:]
        seen_mask = None if seen_keep is None else seen_keep[:, None]
        at = slice(past, past + t) if positions is None else positions
        x = self.norm_before(self.embedding(ids) + self.positions[at])
        for i, block in enumerate(self.blocks):
            image = None if seen is None else seen[i]
            x = block(x, mask, image, seen_mask, None if cache is None else cache[i])
        return x

    def new_cache(self, room: int) -> list[KVCache]:
        """An empty memory for `room` tokens, one a layer."""
        return [KVCache(room) for _ in self.blocks]

    def logits(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """A score for each word of the vocabulary."""
        return F.linear(self.head(features), self.embedding.weight, self.head_bias)

    def next_token_loss(
        self,
        features: Float[Tensor, "b t d"],
        labels: Int[Tensor, "b t"],
        smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Mean surprise at the labelled tokens, each predicted one place before; -100:
        no label. `smoothing` of the target is spread over all words alike (Szegedy et
        al. 2015, section 7).
        """
        wanted = labels[:, 1:] != -100
        scores = self.logits(features[:, :-1][wanted])
        return F.cross_entropy(scores, labels[:, 1:][wanted], label_smoothing=smoothing)

    @torch.no_grad()
    def generate(
        self,
        ids: Int[Tensor, "b t"],
        seen: Float[Tensor, "b n s"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        seen_keep: Bool[Tensor, "b n"] | None = None,
        max_new_tokens: int = 32,
        eos: int | None = None,
        pad: int = 0,
        **choice: Any,
    ) -> Int[Tensor, "b new"]:
        """Go on writing from `ids`; returns the new tokens only.

        Args:
            keep: False where a prompt is padded, on the left; here padding is not
                counted.
            eos: ends a row, which is filled up with `pad`; all rows ended, all is done.
            choice: `temperature`, `top_p`, `generator`, as in `next_token`.

        Raises:
            ValueError: no tokens to write, more than the context holds, or a choice out
                of range.
        """
        b, t = ids.shape
        temperature, top_p = choice.get("temperature", 0.0), choice.get("top_p", 1.0)
        if temperature < 0 or not 0 < top_p <= 1:
            raise ValueError(
                "temperature must be at least 0, top_p above 0 and at most 1;"
                f" got {temperature} and {top_p}."
            )
        context = self.config.context
        if not 1 <= max_new_tokens <= context - t:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}; the prompt has {t} tokens and the"
                f" context holds {context}, so it must be 1 to {context - t}."
            )
        looked = None if seen is None else self.look(seen)
        cache, written = self.new_cache(t + max_new_tokens), []
        done = torch.zeros(b, dtype=torch.bool, device=ids.device)
        if keep is None:
            keep = torch.ones_like(ids, dtype=torch.bool)
        while len(written) < max_new_tokens and not done.all():
            positions = (keep.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            x = self(ids, looked, True, keep, seen_keep, cache, positions)[:, -1]
            token = next_token(self.logits(x), **choice).masked_fill(done, pad)
            written.append(token)
            ids = token[:, None]
            keep = torch.cat([keep, keep.new_ones(b, 1)], dim=1)
            if eos is not None:
                done = done | (token == eos)
        return torch.stack(written, dim=1)


@torch.no_grad()
def init_bert(model: Bert) -> None:
    """BERT's start: every matrix normal, biases 0, gains 1. Its standard deviation of
    0.02 is for 768 features; narrower models start larger here, so that what attention
    brings is as large beside the word itself, and [CLS] knows its text from the start.
    """
    std = 0.02 * (768 / model.config.width) ** 0.5
    nn.init.normal_(model.positions, std=std)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def share(encoder: Bert, decoder: Bert, how: str) -> None:
    """Make parts of the decoder the encoder's own, as `SHARED_PARTS` says."""
    if not SHARED_PARTS[how]:
        return
    for name in ("embedding", "positions", "norm_before"):
        setattr(decoder, name, getattr(encoder, name))
    for ours, theirs in zip(encoder.blocks, decoder.blocks, strict=True):
        for name in SHARED_PARTS[how]:
            setattr(theirs, name, getattr(ours, name))
