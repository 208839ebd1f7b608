"""The Q-Former (Li et al. 2023, arXiv 2301.12597, section 3.1): a few learned queries
ask an image, and may talk with a text meanwhile.

- BERT's layers (post-norm); queries and text share the self-attention
- every second layer the queries, and they alone, look at the image
- queries and text have MLPs of their own
- who sees whom is a mask: three masks, three tasks (section 3.1, figure 2)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.nn.attention import Attention
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.transformer import MLP


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of a Q-Former. `vocab_size` None: it reads no text, and has no parts for
    it. `cross_every`: 2 means that layers 0, 2, 4, ... look at the image.
    """

    queries: int
    width: int
    layers: int
    heads: int
    hidden: int  # inside the MLPs
    seen: int  # width of the image's tokens
    vocab_size: int | None = None
    context: int = 512  # longest text in tokens
    cross_every: int = 2
    eps: float = 1e-12

    def __post_init__(self) -> None:
        sizes = ("queries", "width", "layers", "heads", "hidden", "seen", "context")
        for name in (*sizes, "cross_every", "vocab_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads}."
            )
        if self.vocab_size is None:  # one way to say it, not two
            object.__setattr__(self, "context", type(self).context)

    @classmethod
    def tiny(
        cls, seen: int, vocab_size: int | None = None, width: int = 96, queries: int = 8
    ) -> "QFormerConfig":
        """The sizes this course trains."""
        sizes = {"layers": 4, "heads": max(1, width // 48), "hidden": 2 * width}
        return cls(queries, width, seen=seen, vocab_size=vocab_size, **sizes)

    @classmethod
    def bert_base(cls, seen: int, vocab_size: int | None = None) -> "QFormerConfig":
        """BLIP-2's and InstructBLIP's: 32 queries in a BERT-base, which has a token
        more than BERT, [DEC].
        """
        return cls(32, 768, 12, 12, 3072, seen, vocab_size)


def itm_mask(
    queries: int, keep: Bool[Tensor, "b t"]
) -> Bool[Tensor, "b {queries}+t {queries}+t"]:
    """True where row i may see column j, queries first. For matching (ITM), and for
    reading instructions: all see all, but for padding (`keep` False).
    """
    b, t = keep.shape
    sees = keep.new_ones(b, queries + t, queries + t)
    sees[:, :, queries:] = keep[:, None]
    return sees


def itc_mask(
    queries: int, keep: Bool[Tensor, "b t"]
) -> Bool[Tensor, "b {queries}+t {queries}+t"]:
    """For contrast (ITC): of that, queries see queries and text sees text. Whoever saw
    the other would have seen the solution.
    """
    sees = itm_mask(queries, keep)
    sees[:, :queries, queries:] = False
    sees[:, queries:, :queries] = False
    return sees


def itg_mask(
    queries: int, keep: Bool[Tensor, "b t"]
) -> Bool[Tensor, "b {queries}+t {queries}+t"]:
    """For writing (ITG): of that, queries see queries; text sees queries, and of itself
    what stands before.
    """
    sees = itm_mask(queries, keep)
    sees[:, :queries, queries:] = False
    sees[:, queries:, queries:] &= sees.new_ones(keep.shape[1], keep.shape[1]).tril()
    return sees


class QFormerBlock(nn.Module):
    """One post-norm layer: each sublayer's result is added to the stream, and then the
    stream itself is normalised.
    """

    def __init__(self, config: QFormerConfig, looks: bool) -> None:
        super().__init__()
        c, self.looks = config, looks
        self.attention = Attention(c.width, c.heads)
        self.norm_1 = nn.LayerNorm(c.width, c.eps)
        if looks:
            self.cross = CrossAttention(c.width, c.heads, c.seen)
            self.norm_2 = nn.LayerNorm(c.width, c.eps)
        self.mlp = MLP(c.width, c.hidden, nn.GELU)
        self.norm_3 = nn.LayerNorm(c.width, c.eps)
        if c.vocab_size is not None:
            self.text_mlp = MLP(c.width, c.hidden, nn.GELU)
            self.text_norm = nn.LayerNorm(c.width, c.eps)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        text: Float[Tensor, "b t d"],
        image: Float[Tensor, "b n s"] | None,
        mask: Bool[Tensor, "b #r r"] | None,
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b t d"]]:
        """Either side may be empty."""
        both = torch.cat([queries, text], dim=1)
        both = self.norm_1(both + self.attention(both, mask=mask))
        queries, text = both.split([queries.shape[1], text.shape[1]], dim=1)
        if self.looks and image is not None:
            found = self.cross(queries, self.cross.keys_values(image))
            queries = self.norm_2(queries + found)
        queries = self.norm_3(queries + self.mlp(queries))
        if text.shape[1]:
            text = self.text_norm(text + self.text_mlp(text))
        return queries, text


class QFormer(nn.Module):
    """Learned queries, and between two encoders the only way from image to text."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.queries = nn.Parameter(torch.empty(c.queries, c.width))
        if c.vocab_size is not None:
            self.embedding = nn.Embedding(c.vocab_size, c.width)
            self.positions = nn.Parameter(torch.empty(c.context, c.width))
        self.norm_before = nn.LayerNorm(c.width, c.eps)
        self.blocks = nn.ModuleList(
            QFormerBlock(c, looks=i % c.cross_every == 0) for i in range(c.layers)
        )
        init_qformer(self)

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """A text before the first layer. Words have positions, counted from the first
        column; queries have none.

        Raises:
            ValueError: this Q-Former reads no text, or not so long a one.
        """
        if self.config.vocab_size is None:
            raise ValueError(
                "this Q-Former reads no text; its config needs a vocab_size."
            )
        if ids.shape[1] > self.config.context:
            raise ValueError(
                f"a text has {ids.shape[1]} tokens; the Q-Former's context holds"
                f" {self.config.context}. Shorten it."
            )
        return self.embedding(ids) + self.positions[: ids.shape[1]]

    def forward(
        self,
        image: Float[Tensor, "b n s"] | None = None,
        ids: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b #r r"] | None = None,
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b t d"]]:
        """What the queries have found, and what the text has become.

        Args:
            image: its tokens. None: there are no queries, a text is read alone.
            ids: the text beside the queries; None: there is none.
            mask: True where row i may see column j, queries first; None: all see all.

        Raises:
            ValueError: neither image nor text, an image of another width, or a text
                that `embed` refuses.
        """
        c, given = self.config, image if ids is None else ids
        if given is None:
            raise ValueError("give an image, a text, or both; got neither.")
        if image is not None and image.shape[2] != c.seen:
            raise ValueError(
                f"the image's tokens are {image.shape[2]} wide; this Q-Former looks at"
                f" tokens of width {c.seen}."
            )
        nothing = self.queries.new_empty(len(given), 0, c.width)
        queries = text = nothing
        if image is not None:
            queries = self.norm_before(self.queries).expand(len(given), -1, -1)
        if ids is not None:
            text = self.norm_before(self.embed(ids))
        for block in self.blocks:
            queries, text = block(queries, text, image, mask)
        return queries, text


@torch.no_grad()
def init_qformer(model: QFormer) -> None:
    """BERT's start, wider where the model is narrower, as in `init_bert`. BLIP-2 itself
    starts from a trained BERT; only cross-attention and queries begin like this.
    """
    std = 0.02 * (768 / model.config.width) ** 0.5
    for name, p in model.named_parameters():
        if p.ndim > 1:  # matrices, words, positions, queries
            nn.init.normal_(p, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
