"""Probes of models with many senses (`config.senses`, `observe`, `embed`), whose batches have `observations`, kind by kind.

The probes of models that see can be asked of one sense at a time: `run(*one_sense(model, batch, "state"))`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minivlm.evaluation.modes import quiet
from minivlm.evaluation.probes.compare import identical


def only_places(model: nn.Module, batch: Any) -> int:
    """At the places of each sense stands exactly what `observe` makes of its observations, in reading order; at all others,
    the words, to the last bit. Returns how many places were compared.

    Raises:
        AssertionError: something else stands somewhere.
    """
    places_of = {name: batch.ids == model.config.senses[name].place_id for name in batch.observations}
    for name, places in places_of.items():
        assert places.any(), f"the texts keep no places for {name!r}, and the batch has such observations."
    with quiet(model):
        stands, words = model.embed(batch.ids, batch.observations), model.language.embed(batch.ids)
        elsewhere = torch.ones_like(batch.ids, dtype=torch.bool)
        for name, values in batch.observations.items():
            places = places_of[name]
            text = f"what stands at the places of {name!r} is not what observe gives"
            identical(stands[places], model.observe(name, values).flatten(0, 1), text)
            elsewhere &= ~places
        identical(stands[elsewhere], words[elsewhere], "a word does not stand as the language model embeds it")
    return batch.ids.numel()


def words_alone(model: nn.Module, ids: Int[Tensor, "b t"]) -> float:
    """A text without observations: the language model's scores, to the last bit.

    Raises:
        ValueError: the text keeps places for some.
        AssertionError: the scores are others.
    """
    if any((ids == sense.place_id).any() for sense in model.config.senses.values()):
        raise ValueError("words_alone takes a text without places for observations; this one has some.")
    with quiet(model):
        return identical(model(ids), model.language(ids), "without observations the scores are not the language model's")


class Seen(NamedTuple):
    """Texts with observations of one kind, under the names that probes know."""

    pixel_values: Tensor
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]


@dataclass(frozen=True)
class View:
    """Which sense of which model, and what its batches are."""

    kind: type[nn.Module]
    batch: type
    config: Any
    sense: str

    @property
    def image_id(self) -> int:
        """The token that keeps the sense's places."""
        return self.config.senses[self.sense].place_id


class OneSense(nn.Module):
    """A model with many senses, as one that has a single one."""

    def __init__(self, config: View, model: nn.Module | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = config.kind(config.config) if model is None else model
        self.language = self.model.language

    def _given(self, pixel_values: Tensor | None) -> dict[str, Tensor] | None:
        return None if pixel_values is None or not len(pixel_values) else {self.config.sense: pixel_values}

    def embed_image(self, pixel_values: Tensor) -> Tensor:
        return self.model.observe(self.config.sense, pixel_values)

    def embed(self, ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        return self.model.embed(ids, self._given(pixel_values))

    def forward(self, ids: Tensor, pixel_values: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        return self.model(ids, self._given(pixel_values), keep)

    def generate(self, ids: Tensor, pixel_values: Tensor | None = None, keep: Tensor | None = None, **how: Any) -> Tensor:
        return self.model.generate(ids, self._given(pixel_values), keep, **how)

    def loss(self, batch: Seen) -> Tensor:
        given = self._given(batch.pixel_values) or {}
        return self.model.loss(self.config.batch(observations=given, ids=batch.ids, labels=batch.labels))


def one_sense(model: nn.Module, batch: Any, sense: str) -> tuple[OneSense, Seen]:
    """The model as one that has this sense alone, and the batch as that of a model that sees: the probes of such then apply.

    Raises:
        ValueError: the model has no such sense, or the batch has observations of another, or none.
    """
    if sense not in model.config.senses:
        raise ValueError(f"{type(model).__name__} has no sense {sense!r}; it has {list(model.config.senses)}.")
    if list(batch.observations) != [sense]:
        raise ValueError(f"the batch must have observations of {sense!r} alone; it has {list(batch.observations)}.")
    config = replace(model.config, senses={sense: model.config.senses[sense]})  # another's place is a word, then
    with torch.device("meta"):
        one = type(model)(config)
    one.encoders[sense], one.language = model.encoders[sense], model.language
    view = OneSense(View(type(model), type(batch), config, sense), one)
    return view, Seen(batch.observations[sense], batch.ids, batch.labels)
