"""BLIP-2's first stage (Li et al. 2023, arXiv 2301.12597, section 3.2): without any
language model, the Q-Former learns to find in an image what a text would say of it.

- three tasks, which differ in who sees whom: contrast (ITC), matching (ITM) and
  writing (ITG)
- an image and a text are as alike as the best of the queries and the text
- the vision encoder stays as it is, but for the norm on top of it
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.qformer import (
    QFormer,
    QFormerConfig,
    itc_mask,
    itg_mask,
    itm_mask,
)
from minivlm.models.blip import begin, blip_vit
from minivlm.models.clip import Pairs
from minivlm.nn.contrast import hard_negatives
from minivlm.vision.vit import VisionTransformer, ViTConfig


def vit_g() -> ViTConfig:
    """EVA-CLIP's ViT-g/14 as BLIP-2 takes it: without its last layer."""
    return blip_vit(224, 14, 1408, 39, 16, 6144, eps=1e-6)


def tiny_vit(width: int) -> ViTConfig:
    """The one this course trains."""
    sizes = {"layers": 2, "heads": max(1, width // 48), "hidden": 2 * width}
    return blip_vit(image_size=32, patch_size=8, width=width, eps=1e-6, **sizes)


def check_width(vision: ViTConfig, qformer: QFormerConfig) -> None:
    """Whether the Q-Former can look at what this vision encoder sees.

    Raises:
        ValueError: it cannot.
    """
    if qformer.seen != vision.width:
        raise ValueError(
            f"qformer.seen is {qformer.seen}; it must be the width of the vision"
            f" encoder's tokens, {vision.width}."
        )


def freeze_vision(vision: VisionTransformer) -> None:
    """All of it but its last norm, which learns (LAVIS, `ln_vision`)."""
    vision.requires_grad_(False)
    vision.norm_after.requires_grad_(True)


@dataclass(frozen=True)
class MatcherConfig:
    """What is left of stage 1 for finding images and texts that belong together."""

    vision: ViTConfig
    qformer: QFormerConfig
    embedding: int = 256  # width of the space in which they are compared
    pad_id: int = 0

    def __post_init__(self) -> None:
        check_width(self.vision, self.qformer)
        vocabulary = self.qformer.vocab_size
        if vocabulary is None:
            raise ValueError(
                "qformer.vocab_size is None: this Q-Former reads no text, and could not"
                " tell which one belongs to an image. Give it a vocabulary."
            )
        for name in ("pad_id", "dec_id"):
            if not 0 <= getattr(self, name, 0) < vocabulary:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; the vocabulary has ids 0 to"
                    f" {vocabulary - 1}."
                )


@dataclass(frozen=True, kw_only=True)
class Stage1Config(MatcherConfig):
    """And what stage 1 needs to train it."""

    dec_id: int  # stands first where a text is to be written: [DEC]
    temperature: float = 0.07  # at the start
    smoothing: float = 0.1  # of the labels of ITC and ITG
    tasks: tuple[str, ...] = ("itc", "itm", "itg")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks or not {*self.tasks} <= {"itc", "itm", "itg"}:
            raise ValueError(
                f"tasks is {self.tasks}; expected one or several of"
                " ('itc', 'itm', 'itg')."
            )
        if "itm" in self.tasks and "itc" not in self.tasks:
            raise ValueError("'itm' needs 'itc', which finds its hard negatives.")

    @classmethod
    def tiny(cls, vocab_size: int, dec_id: int, width: int = 96) -> "Stage1Config":
        """The sizes this course trains."""
        qformer = QFormerConfig.tiny(width, vocab_size, width)
        return cls(tiny_vit(width), qformer, embedding=width, dec_id=dec_id)

    @classmethod
    def released(cls) -> "Stage1Config":
        """ViT-g/14 and 32 queries."""
        qformer = QFormerConfig.bert_base(1408, vocab_size=30523)
        return cls(vit_g(), qformer, dec_id=30522)


class Matcher(nn.Module):
    """Do this image and this text belong together? Asked quickly, from what either says
    alone, and carefully, with both in sight.
    """

    def __init__(self, config: MatcherConfig) -> None:
        super().__init__()
        self.config, width = config, config.qformer.width
        self.vision = VisionTransformer(config.vision)
        self.qformer = QFormer(config.qformer)
        self.image_projection = nn.Linear(width, config.embedding)
        self.text_projection = nn.Linear(width, config.embedding)
        self.match_head = nn.Linear(width, 2)

    def see(self, pixel_values: Float[Tensor, "b c H W"]) -> Float[Tensor, "b n s"]:
        """An image's tokens: the class token and the patches, normalised."""
        return self.vision.norm_after(self.vision(pixel_values))

    def keep(self, ids: Int[Tensor, "b t"]) -> Bool[Tensor, "b t"]:
        """False where there is padding, which belongs on the right."""
        return ids != self.config.pad_id

    def embed_image(
        self, pixel_values: Float[Tensor, "b c H W"]
    ) -> Float[Tensor, "b q e"]:
        """Unit vectors, one for each query."""
        queries, _ = self.qformer(self.see(pixel_values))
        return F.normalize(self.image_projection(queries), dim=-1)

    def embed_text(
        self, ids: Int[Tensor, "b t"], keep: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Unit vectors: the first token, [CLS], projected. `keep`: False hides padding;
        by default the `pad_id`.
        """
        keep = self.keep(ids) if keep is None else keep
        _, text = self.qformer(ids=ids, mask=keep[:, None])
        return F.normalize(self.text_projection(text[:, 0]), dim=-1)

    def forward(
        self, pixel_values: Float[Tensor, "b c H W"], ids: Int[Tensor, "k t"]
    ) -> Float[Tensor, "b k"]:
        """Cosine of every image with every text: see `similarity`."""
        return similarity(self.embed_image(pixel_values), self.embed_text(ids))

    def judge(
        self,
        image: Float[Tensor, "b n s"],
        ids: Int[Tensor, "b t"],
        keep: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Scores for "text i does not belong to image i" and for "it does": each query
        gives its own, having seen both, and the mean counts (section 3.2).
        """
        keep = self.keep(ids) if keep is None else keep
        mask = itm_mask(self.config.qformer.queries, keep)
        queries, _ = self.qformer(image, ids, mask)
        return self.match_head(queries).mean(dim=1)

    def match(
        self, pixel_values: Float[Tensor, "b c H W"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b"]:
        """How likely text i belongs to image i."""
        return self.judge(self.see(pixel_values), ids).softmax(dim=-1)[:, 1]


def similarity(
    image: Float[Tensor, "b q e"], text: Float[Tensor, "k e"]
) -> Float[Tensor, "b k"]:
    """Cosine of every image with every text: that of the query which fits best. So each
    query may look for something else.
    """
    return torch.einsum("b q e, k e -> b k q", image, text).amax(dim=-1)


class Stage1(Matcher):
    """The Q-Former at school: what it takes to train a `Matcher`."""

    def __init__(self, config: Stage1Config) -> None:
        super().__init__(config)
        width, eps = config.qformer.width, config.qformer.eps
        if "itc" in config.tasks:
            self.temperature = nn.Parameter(torch.tensor(config.temperature))
        if "itg" in config.tasks:  # BERT's: the matrix that reads words writes them too
            norm = nn.LayerNorm(width, eps)
            self.word_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), norm)
            self.word_bias = nn.Parameter(torch.zeros(config.qformer.vocab_size))

    def freeze(self) -> None:
        """The vision encoder learns nothing, but for the norm on top of it."""
        freeze_vision(self.vision)

    def losses(
        self, batch: Pairs, generator: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss of each task, by its name; `generator` draws the hard negatives."""
        tasks, ids, found = self.config.tasks, batch.ids, {}
        image = self.see(batch.pixel_values)
        if "itc" in tasks:
            logits = self.contrast(image, ids)
            found["itc"] = self._contrast_loss(logits)
        if "itm" in tasks:
            found["itm"] = self._match_loss(image, ids, logits.detach(), generator)
        if "itg" in tasks:
            found["itg"] = self._write_loss(image, ids)
        return found

    def loss(
        self, batch: Pairs, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Their sum (section 3.2)."""
        return sum(self.losses(batch, generator).values())

    def contrast(
        self, image: Float[Tensor, "b n s"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b b"]:
        """`similarity` over the temperature: both sides in one pass, and neither sees
        the other.
        """
        mask = itc_mask(self.config.qformer.queries, self.keep(ids))
        queries, text = self.qformer(image, ids, mask)
        looked = F.normalize(self.image_projection(queries), dim=-1)
        read = F.normalize(self.text_projection(text[:, 0]), dim=-1)
        return similarity(looked, read) / self.temperature

    def write(
        self, image: Float[Tensor, "b n s"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place. Text does not look at the image: all
        it knows, it has from the queries.
        """
        ids, keep = begin(ids, self.config.dec_id), self.keep(ids)
        mask = itg_mask(self.config.qformer.queries, keep)
        _, text = self.qformer(image, ids, mask)
        words = self.qformer.embedding.weight
        return F.linear(self.word_head(text), words, self.word_bias)

    def _contrast_loss(self, logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
        """ITC: which text for this image, which image for this text?"""
        own = torch.arange(len(logits), device=logits.device)
        how = {"label_smoothing": self.config.smoothing}
        return sum(F.cross_entropy(x, own, **how) for x in (logits, logits.T)) / 2

    def _match_loss(
        self,
        image: Float[Tensor, "b n s"],
        ids: Int[Tensor, "b t"],
        logits: Float[Tensor, "b b"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, ""]:
        """ITM: each pair, each text with a wrong image, each image with a wrong text;
        the more alike, the likelier. Equal texts are not wrong (beyond the paper).
        """
        same = (ids[:, None] == ids).all(dim=-1)
        wrong_image = hard_negatives(logits.T, same, generator)
        wrong_text = hard_negatives(logits, same, generator)
        images = torch.cat([image, image[wrong_image], image])
        texts = torch.cat([ids, ids, ids[wrong_text]])
        labels = torch.arange(len(texts), device=ids.device) < len(ids)
        return F.cross_entropy(self.judge(images, texts), labels.long())

    def _write_loss(
        self, image: Float[Tensor, "b n s"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, ""]:
        """ITG: each token from those before it and from the queries."""
        labels = ids.masked_fill(~self.keep(ids), -100)[:, 1:]
        logits = self.write(image, ids)[:, :-1]
        how = {"label_smoothing": self.config.smoothing}
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **how)

    def matcher(self) -> Matcher:
        """A copy without what only training needs: what is released."""
        kept = {f.name: getattr(self.config, f.name) for f in fields(MatcherConfig)}
        copy = Matcher(MatcherConfig(**kept))
        mine = self.state_dict()
        copy.load_state_dict({name: mine[name] for name in copy.state_dict()})
        return copy
