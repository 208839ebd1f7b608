"""OPT (Zhang et al. 2022, arXiv 2205.01068), the language model inside BLIP-2: what
GPT-3 was, a decoder before LLaMA's changes.

- LayerNorm for RMSNorm, ReLU for SwiGLU, biases everywhere
- positions are learned vectors, added to the words once
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.language.decoder import Decoder, init_normal
from minivlm.nn.attention import causal_mask
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.grouped_query import KVCache
from minivlm.nn.transformer import MLP

#: Position 0 is row 2 of the table: the first two rows are those of padding in the code
#: that OPT was trained with, and nobody reads them.
OFFSET = 2


@dataclass(frozen=True)
class OPTConfig:
    """Sizes of an OPT."""

    vocab_size: int
    context: int  # longest text in tokens
    width: int
    layers: int
    heads: int
    hidden: int  # inside the MLP
    eps: float = 1e-5
    tied: bool = True  # one matrix reads words and writes them

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context", "width", "layers", "heads", "hidden", "eps")
        for name in sizes:
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be above 0."
                )
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads}."
            )

    @classmethod
    def opt_2_7b(cls) -> "OPTConfig":
        """OPT 2.7B (table 1), that of the smaller BLIP-2."""
        return cls(50272, 2048, 2560, 32, 32, 10240)

    @classmethod
    def opt_6_7b(cls) -> "OPTConfig":
        """OPT 6.7B (table 1), that of the larger one."""
        return cls(50272, 2048, 4096, 32, 32, 16384)


class OPTBlock(nn.Module):
    """One pre-norm layer; its attention is that of a sequence which asks itself."""

    def __init__(self, config: OPTConfig) -> None:
        super().__init__()
        c = config
        self.norm_1 = nn.LayerNorm(c.width, c.eps)
        self.attention = CrossAttention(c.width, c.heads, c.width)
        self.norm_2 = nn.LayerNorm(c.width, c.eps)
        self.mlp = MLP(c.width, c.hidden, nn.ReLU)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        mask: Bool[Tensor, "b t T"],
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        asks = self.norm_1(x)
        answers = self.attention.keys_values(asks)
        if cache is not None:
            answers = cache.append(*answers)
        x = x + self.attention(asks, answers, mask)
        return x + self.mlp(self.norm_2(x))


class OPT(Decoder):
    """A decoder with other layers, and the same in all that is asked of it."""

    def __init__(self, config: OPTConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context + OFFSET, config.width)
        self.blocks = nn.ModuleList(OPTBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, config.eps)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.apply(init_normal)

    def features(
        self,
        ids: Int[Tensor, "b t"] | None = None,
        embeddings: Float[Tensor, "b t d"] | None = None,
        keep: Bool[Tensor, "b T"] | None = None,
        positions: Int[Tensor, "b t"] | None = None,
        cache: list[KVCache] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """What stands at each place after the last norm; arguments as in `Decoder`.

        Raises:
            ValueError: both inputs or none, a `keep` of another length, or a longer
                text than the context holds.
        """
        if (ids is None) == (embeddings is None):
            raise ValueError("give either ids or embeddings.")
        x = self.embed(ids) if embeddings is None else embeddings
        past = cache[0].length if cache else 0
        b, t, _ = x.shape
        if keep is None:
            keep = torch.ones(b, past + t, dtype=torch.bool, device=x.device)
        if keep.shape != (b, past + t):
            raise ValueError(
                f"keep has shape {tuple(keep.shape)}; expected {(b, past + t)}: the"
                f" {past} tokens in the cache and the {t} new ones."
            )
        if positions is None:
            positions = (keep.cumsum(dim=1) - 1).clamp(min=0)[:, past:]
        context = self.config.context
        if past + t > context and positions.max() >= context:
            raise ValueError(
                f"a text has {int(positions.max()) + 1} tokens; the context holds"
                f" {context}. Shorten it."
            )
        x = x + self.positions(positions + OFFSET)
        mask = causal_mask(keep)[:, past:]
        for i, block in enumerate(self.blocks):
            x = block(x, mask, cache[i] if cache else None)
        return self.norm(x)
