"""All probes that have a meaning for a model, in one call."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from minivlm.evaluation.probes import embedding, learning, reading, storing, writing
from minivlm.evaluation.probes.compare import TOLERANCE


class Probe(NamedTuple):
    """`check(model, batch)`, what it says of a model that passes, and what kind of number it measures: `exact` is 0, `rounding`
    is below `compare.TOLERANCE`, `more` is above it. `needs` are attributes of the model.
    """

    check: Callable[..., float]
    says: str
    kind: str = "rounding"
    needs: tuple[str, ...] = ()


#: For models that speak, with batches that have labels.
SPEAKING: dict[str, Probe] = {
    "causality": Probe(reading.causality, "a later token or image changes no earlier score"),
    "answers_only": Probe(learning.answers_only, "the loss is the mean surprise at the answers alone"),
    "image_tokens": Probe(
        reading.image_tokens, "at images' places stands what embed_image gives", "exact", ("embed", "embed_image")
    ),
    "permutation": Probe(reading.permutation, "swapped images have swapped answers"),
    "every_image": Probe(reading.every_image, "each single image makes a difference", "more"),
    "padding": Probe(reading.padding, "a text alone and in a batch: the same scores"),
    "left_padding": Probe(reading.left_padding, "the same with padding on the left"),
    "teacher_forcing": Probe(writing.teacher_forcing, "it writes the token it finds likeliest"),
    "cache": Probe(writing.cache, "with remembered keys and values: the same scores", needs=("embed", "language")),
    "storing": Probe(storing.storing, "saved and loaded: the same to the last bit", "exact"),
}

#: For models that embed, with batches of images and texts.
EMBEDDING: dict[str, Probe] = {
    "unit_length": Probe(embedding.unit_length, "embeddings have length 1"),
    "alone": Probe(embedding.alone, "an image, a text, alone and in a batch: the same"),
    "order": Probe(embedding.order, "in another order: the same, in that order"),
    "distinct": Probe(embedding.distinct, "other images and texts: other embeddings", "more"),
    "storing": Probe(storing.storing, "saved and loaded: the same to the last bit", "exact"),
}


def meant_for(model: nn.Module, batch: Any) -> dict[str, Probe]:
    """The probes that have a meaning for a model and the kind of its batch.

    Raises:
        TypeError: the model neither speaks nor embeds, or not such a batch.
    """
    if hasattr(model, "generate") and hasattr(batch, "labels"):
        return {name: probe for name, probe in SPEAKING.items() if all(hasattr(model, need) for need in probe.needs)}
    if hasattr(model, "embed_text") and not hasattr(batch, "labels"):
        return EMBEDDING
    raise TypeError(
        f"probes are for a model with generate and a batch with labels, or one with embed_image and embed_text and a batch"
        f" without; got {type(model).__name__} and {type(batch).__name__}."
    )


def run(model: nn.Module, batch: Any, skip: Mapping[str, str] | None = None) -> dict[str, float]:
    """Probe a model and print a line for each probe. Returns the numbers that were measured.

    Args:
        batch: what `model.loss` takes, with `ids` and `pixel_values`. The best has texts of different lengths, and one with
            two images; a handful is enough.
        skip: name of a probe -> why it is left out, which is printed.

    Raises:
        ValueError: a name in `skip` is not among this model's probes.
        AssertionError: some fail; the message is that of all of them.
    """
    probes, skip = meant_for(model, batch), skip or {}
    if unknown := [name for name in skip if name not in probes]:
        raise ValueError(f"{type(model).__name__} has no probe {unknown[0]!r} to skip; it has {list(probes)}.")
    width, limit = max(map(len, probes)), f"{TOLERANCE[next(model.parameters()).dtype]:.0e}".replace("e-0", "e-")
    number = {"exact": "0", "rounding": f"< {limit}", "more": f"> {limit}"}
    measured, failed = {}, []
    for name, probe in probes.items():
        if name in skip:
            print(f"{name:<{width}}  -      {'':<8}{skip[name]}")
            continue
        try:
            measured[name] = probe.check(model, batch)
            print(f"{name:<{width}}  ok     {number[probe.kind]:<8}{probe.says}")
        except AssertionError as error:
            failed.append(f"{name}: {error}")
            print(f"{name:<{width}}  FAILS  {error}")
    if failed:
        raise AssertionError("\n".join(failed))
    return measured
