"""The course's language model: LLaMA's decoder (Touvron et al. 2023, arXiv 2302.13971,
section 2.2), and with a few settings Llama 2 and Qwen2.

- pre-norm with RMSNorm, SwiGLU, rotary positions, no biases
- grouped-query attention, and a cache of keys and values
- reads token ids or embeddings: what an image has become can stand between words
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.nn.attention import causal_mask
from minivlm.nn.grouped_query import GroupedQueryAttention, KVCache
from minivlm.nn.norm import RMSNorm
from minivlm.nn.rotary import Turn, rotary_turn
from minivlm.nn.swiglu import SwiGLU


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder. `head_width` None: `width // heads`."""

    vocab_size: int
    context: int  # longest text in tokens
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int  # inside the MLP
    head_width: int | None = None
    rope_base: float = 10000.0
    eps: float = 1e-6
    tied: bool = False  # one matrix reads words and writes them
    qkv_bias: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context", "width", "layers", "heads", "kv_heads")
        for name in (*sizes, "hidden", "rope_base", "eps"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be above 0."
                )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}."
            )
        quotient, rest = divmod(self.width, self.heads)
        if self.head_width is None and rest:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads};"
                " say head_width."
            )
        if self.hd < 2 or self.hd % 2:
            raise ValueError(
                f"a head is {self.hd} features wide; that must be even, because rotary"
                " positions turn features in pairs."
            )
        if self.head_width == quotient and not rest:  # one way to say it, not two
            object.__setattr__(self, "head_width", None)

    @property
    def hd(self) -> int:
        """Features of a head."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @classmethod
    def tiny(
        cls, vocab_size: int, width: int = 96, layers: int = 3, context: int = 128
    ) -> "DecoderConfig":
        """The sizes this course trains; the default takes a minute on one core."""
        sizes = {"heads": 4, "kv_heads": 2, "hidden": 8 * width // 3}
        return cls(vocab_size, context, width, layers, **sizes, tied=True)

    @classmethod
    def llama_7b(cls) -> "DecoderConfig":
        """LLaMA 7B (table 2), the language model inside Vicuna and LLaVA."""
        return cls(32000, 2048, 4096, 32, 32, 32, hidden=11008)

    @classmethod
    def llama_13b(cls) -> "DecoderConfig":
        """LLaMA 13B (table 2), that inside the larger ones."""
        return cls(32000, 2048, 5120, 40, 40, 40, hidden=13824)

    @classmethod
    def llama_2_7b(cls) -> "DecoderConfig":
        """Llama 2 7B, the language model inside Vicuna 1.5 and LLaVA-1.5."""
        return cls(32000, 4096, 4096, 32, 32, 32, hidden=11008, eps=1e-5)


class Texts(NamedTuple):
    """A batch of texts. `labels`: the token that stands at each place, -100 where it
    need not be predicted. `keep`: False where there is padding, which belongs on the
    right here: on the left it would have to predict the first token.
    """

    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]
    keep: Bool[Tensor, "b t"] | None = None


class DecoderBlock(nn.Module):
    """One pre-norm layer: attention, then SwiGLU, each added to the stream."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        c = config
        self.norm_1 = RMSNorm(c.width, c.eps)
        self.attention = GroupedQueryAttention(
            c.width, c.heads, c.kv_heads, c.hd, c.qkv_bias
        )
        self.norm_2 = RMSNorm(c.width, c.eps)
        self.mlp = SwiGLU(c.width, c.hidden)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        turn: Turn,
        mask: Bool[Tensor, "b t T"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "b t d"]:
        x = x + self.attention(self.norm_1(x), turn, mask, cache)
        return x + self.mlp(self.norm_2(x))


class Decoder(nn.Module):
    """Predicts at every place the token that comes next."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.eps)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.apply(init_normal)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token ids as vectors: what a vision-language model puts its image among."""
        return self.embedding(ids)

    def new_cache(self, room: int) -> list[KVCache]:
        """An empty memory for `room` tokens, one a layer."""
        return [KVCache(room) for _ in self.blocks]

    def features(
        self,
        ids: Int[Tensor, "b t"] | None = None,
        embeddings: Float[Tensor, "b t d"] | None = None,
        keep: Bool[Tensor, "b T"] | None = None,
        positions: Int[Tensor, "b t"] | None = None,
        cache: list[KVCache] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """What stands at each place after the last norm; `logits` turns it into words.

        Args:
            ids, embeddings: the input, as one or the other.
            keep: False hides padding, on either side; covers what is cached as well.
                Texts padded on the right do not need it.
            positions: of the input. Default: tokens are counted, padding is not.
            cache: from `new_cache`; what it holds comes before the input, and the
                input is added to it.

        Raises:
            ValueError: both inputs or none, or a `keep` of another length.
        """
        if (ids is None) == (embeddings is None):
            raise ValueError("give either ids or embeddings.")
        x = self.embed(ids) if embeddings is None else embeddings
        past = cache[0].length if cache else 0
        b, t, _ = x.shape
        if keep is not None and keep.shape != (b, past + t):
            raise ValueError(
                f"keep has shape {tuple(keep.shape)}; expected {(b, past + t)}: the"
                f" {past} tokens in the cache and the {t} new ones."
            )
        if positions is None:
            positions = torch.arange(past, past + t, device=x.device).expand(b, t)
            if keep is not None:
                positions = (keep.cumsum(dim=1) - 1).clamp(min=0)[:, past:]
        if keep is None and past and t > 1:
            keep = torch.ones(b, past + t, dtype=torch.bool, device=x.device)
        mask = None
        if keep is not None:  # one new token sees all that is kept, itself included
            mask = keep[:, None] if t == 1 else causal_mask(keep)[:, past:]
        turn = rotary_turn(positions, self.config.hd, self.config.rope_base)
        for i, block in enumerate(self.blocks):
            x = block(x, turn, mask, cache[i] if cache else None)
        return self.norm(x)

    def logits(self, features: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """A score for each word of the vocabulary."""
        tied = self.config.tied
        return F.linear(features, (self.embedding if tied else self.head).weight)

    def forward(
        self,
        ids: Int[Tensor, "b t"] | None = None,
        embeddings: Float[Tensor, "b t d"] | None = None,
        keep: Bool[Tensor, "b T"] | None = None,
        positions: Int[Tensor, "b t"] | None = None,
        cache: list[KVCache] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place; arguments as in `features`."""
        return self.logits(self.features(ids, embeddings, keep, positions, cache))

    def next_token_loss(
        self, features: Float[Tensor, "b t d"], labels: Int[Tensor, "b t"]
    ) -> Float[Tensor, ""]:
        """Mean surprise at the labelled tokens, each predicted one place before. Scores
        are computed only where they are asked for.
        """
        wanted = labels[:, 1:] != -100
        return F.cross_entropy(
            self.logits(features[:, :-1][wanted]), labels[:, 1:][wanted]
        )

    def loss(self, batch: Texts) -> Float[Tensor, ""]:
        """`next_token_loss` of a batch of texts."""
        features = self.features(batch.ids, keep=batch.keep)
        return self.next_token_loss(features, batch.labels)


def init_normal(module: nn.Module) -> None:
    """The start of the LLaMA family in `transformers`: every matrix normal with
    standard deviation 0.02, biases 0, gains 1.
    """
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
