"""PaLM-E (Driess et al. 2023, arXiv 2303.03378): what can be turned into vectors can
stand in a sentence where a word could.

- an encoder for each kind of observation turns one into vectors as wide as a word
- they take the places kept for them, anywhere in the text; nothing else changes
- the language model reads on, and learns from what it should say alone
- all of it learns; or only the encoders, with the language model frozen
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.observations import (
    ImageEncoder,
    ObjectEncoder,
    VectorEncoder,
)
from minivlm.connectors.splice import splice
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate
from minivlm.language.sentence import Observations
from minivlm.vision.vit import ViTConfig


@dataclass(frozen=True)
class Sense:
    """One kind of observation, and the token that keeps places for it."""

    kind: str  # "vectors", "image" or "object"
    place_id: int
    seen: int = 0  # numbers of one of the vectors
    vision: ViTConfig | None = None  # of an image or an object
    tokens: int = 1  # that a vector or an object becomes; an image: one a patch

    def __post_init__(self) -> None:
        if self.kind not in ("vectors", "image", "object"):
            raise ValueError(
                "a sense is of the kind 'vectors', 'image' or 'object'; got"
                f" {self.kind!r}."
            )
        if self.tokens < 1 or (self.kind == "vectors" and self.seen < 1):
            raise ValueError(
                f"tokens and seen must be at least 1; got {self.tokens}, {self.seen}."
            )
        if self.kind != "vectors" and self.vision is None:
            raise ValueError(f"{self.kind!r} needs `vision`, a ViTConfig.")

    def encoder(self, width: int) -> nn.Module:
        """The encoder phi of section 3, untrained."""
        if self.kind == "vectors":
            return VectorEncoder(self.seen, width, self.tokens)
        if self.kind == "image":
            return ImageEncoder(self.vision, width)
        return ObjectEncoder(self.vision, width, self.tokens)


@dataclass(frozen=True)
class PaLMEConfig:
    """A language model, and what it can observe, by name."""

    language: DecoderConfig
    senses: Mapping[str, Sense]

    def __post_init__(self) -> None:
        ids = [sense.place_id for sense in self.senses.values()]
        words = self.language.vocab_size
        if len(set(ids)) < len(ids) or not all(0 <= i < words for i in ids):
            raise ValueError(
                f"place_ids are {ids}; each sense has one of its own, from 0 to"
                f" {words - 1}."
            )


class Experience(NamedTuple):
    """Sentences to learn from: `ids` keep places for the observations, which are given
    kind by kind in reading order; `labels` are -100 where there is no loss.
    """

    observations: Observations
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]


class PaLME(nn.Module):
    """Observes with many encoders, thinks and talks with one language model."""

    def __init__(self, config: PaLMEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.language.width
        senses = config.senses.items()
        self.encoders = nn.ModuleDict({k: s.encoder(width) for k, s in senses})
        self.language = Decoder(config.language)

    def observe(self, sense: str, values: Tensor) -> Float[Tensor, "n q d"]:
        """Observations of one kind as tokens of the language model.

        Raises:
            ValueError: an unknown kind, or numbers of another width than its encoder's.
        """
        if sense not in self.encoders:
            raise ValueError(
                f"{sense!r} is no kind of observation of this model; it has"
                f" {list(self.encoders)}."
            )
        known = self.config.senses[sense]
        eye, shape = known.vision, tuple(values.shape)
        if eye is None:
            fits, wanted = shape[2:] == (known.seen,), ("any", known.seen)
        else:
            channels = eye.channels + (known.kind == "object")  # its mask is the last
            wanted = (channels, eye.image_size, eye.image_size)
            fits = shape[1:] == wanted
        if not fits:
            raise ValueError(f"one {sense!r} has the shape {wanted}; got {shape[1:]}.")
        return self.encoders[sense](values)

    def embed(
        self, ids: Int[Tensor, "b t"], observations: Observations | None = None
    ) -> Float[Tensor, "b t d"]:
        """The multi-modal sentence as one sequence of vectors (section 3).

        Raises:
            ValueError: places and observations do not match, or what `observe` raises.
        """
        given, x = observations or {}, self.language.embed(ids)
        tokens = {name: self.observe(name, values) for name, values in given.items()}
        for name, sense in self.config.senses.items():
            none = x.new_empty(0, 1, x.shape[2])
            try:
                x = splice(x, ids == sense.place_id, tokens.get(name, none))
            except ValueError as error:
                raise ValueError(f"observations {name!r}: {error}") from None
        return x

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        observations: Observations | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place; `keep` hides padding."""
        return self.language(embeddings=self.embed(ids, observations), keep=keep)

    def loss(self, batch: Experience) -> Float[Tensor, ""]:
        """Surprise at what is to be said; none at the prefix, words or observations."""
        embeddings = self.embed(batch.ids, batch.observations)
        features = self.language.features(embeddings=embeddings)
        return self.language.next_token_loss(features, batch.labels)

    def generate(
        self,
        ids: Int[Tensor, "b t"],
        observations: Observations | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        **how: Any,
    ) -> Int[Tensor, "b new"]:
        """Go on with prompts, padded on the left; `how` as in `language.generate`."""
        embeddings = self.embed(ids, observations)
        return generate(self.language, keep=keep, embeddings=embeddings, **how)
