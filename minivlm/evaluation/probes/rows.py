"""A batch taken apart into its rows, and put together again in another way: padded on another side, alone, in another order."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from minivlm.evaluation.modes import quiet

Images = Tensor | list[Tensor]


class Row(NamedTuple):
    """One text without its padding, and its own images (the first axis, or a list); and what is asked of each of these, without
    padding, where the model reads that beside them. None: nothing is.
    """

    ids: Int[Tensor, "t"]
    labels: Int[Tensor, "t"]
    images: Images
    asked: tuple[Int[Tensor, "_"], ...] | None = None


def probe(function: Callable) -> Callable:
    """Makes a probe of a function of model and batch: eval mode, no gradients, the batch on the model's device."""

    @functools.wraps(function)
    def quietly(model: nn.Module, batch: Any, *more: Any, **named: Any) -> float:
        if missing := [name for name in ("ids", "pixel_values") if not hasattr(batch, name)]:
            raise TypeError(
                f"a probe takes a batch with ids and pixel_values; {type(batch).__name__} has no {missing[0]}."
            )
        with quiet(model):
            return function(model, moved(batch, next(model.parameters()).device), *more, **named)

    return quietly


def moved(batch: Any, device: torch.device) -> Any:
    """A batch (a NamedTuple of tensors, or lists of them) on a device."""

    def move(value: Any) -> Any:
        if type(value) in (list, tuple):
            return [move(one) for one in value]
        return value.to(device) if isinstance(value, Tensor) else value

    return batch._replace(**{name: move(value) for name, value in batch._asdict().items()})


def image_id(model: nn.Module) -> int | None:
    """The token that keeps a place for an image; None where the text has none."""
    return getattr(model.config, "image_id", None)


def flat(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Image features one after the other, (places, d)."""
    parts = [features] if isinstance(features, Tensor) else features
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def rows(model: nn.Module, batch: Any) -> list[Row]:
    """The texts of a batch, each with its own images.

    A text ends where `keep` says so, or else with its last label or image. Which images are whose is counted: in each row, as
    many as fill its places (`config.image_id`); where texts have no such places, each row has the same number of images. A row
    of `asked` goes with its image.

    Raises:
        TypeError: images that are neither a tensor nor a list of them.
        ValueError: places and images do not match, or images and what is asked of them.
    """
    images, token = batch.pixel_values, image_id(model)
    if images is not None and not isinstance(images, Tensor) and type(images) not in (list, tuple):
        kind = type(images).__name__
        raise TypeError(f"pixel_values must be a tensor, or a list with a tensor for each image; got {kind}.")
    labels = getattr(batch, "labels", None)
    labels = torch.full_like(batch.ids, -100) if labels is None else labels
    places = torch.zeros_like(batch.ids, dtype=torch.bool) if token is None else batch.ids == token
    keep = getattr(batch, "keep", None)
    told = instructions(batch)
    found, first = [], 0
    for real, n in zip(_real(labels, places, keep), _counts(model, images, places), strict=True):
        own = [] if images is None else images[first : first + n]
        row = len(found)
        own = own if isinstance(own, Tensor) else list(own)
        found.append(Row(batch.ids[row][real], labels[row][real], own, told and tuple(told[first : first + n])))
        first += n
    return found


def instructions(batch: Any) -> list[Tensor] | None:
    """What a batch asks of each of its images, without padding; None where it asks nothing.

    Raises:
        ValueError: it does not ask as many images as it has.
    """
    asked, keep = getattr(batch, "asked", None), getattr(batch, "asked_keep", None)
    if asked is None:
        return None
    images = 0 if batch.pixel_values is None else len(batch.pixel_values)
    if len(asked) != images:
        raise ValueError(
            f"the batch has {images} images, and what is asked is for {len(asked)}; it takes a row for each."
        )
    return list(asked) if keep is None else [row[real] for row, real in zip(asked, keep, strict=True)]


def _real(labels: Tensor, places: Tensor, keep: Tensor | None) -> Tensor:
    if keep is not None:
        return keep
    used = (labels != -100) | places
    last = torch.where((labels != -100).any(1), used.shape[1] - 1 - used.int().flip(1).argmax(1), used.shape[1])
    return torch.arange(used.shape[1], device=used.device) <= last[:, None]


def _counts(model: nn.Module, images: Images | None, places: Tensor) -> list[int]:
    """How many images each row has."""
    wanted, total = places.sum(1).tolist(), 0 if images is None else len(images)
    if not any(wanted):
        if total % len(wanted):
            raise ValueError(
                f"{total} images do not divide evenly among {len(wanted)} texts that keep no places for them."
            )
        return [total // len(wanted)] * len(wanted)
    counts, sizes = [], iter(_sizes(model, images, sum(wanted)))
    for row, n in enumerate(wanted):
        mine = []
        while sum(mine) < n:
            mine.append(next(sizes, n + 1))
        if sum(mine) != n:
            raise ValueError(
                f"row {row} keeps {n} places for images; {mine[:-1]} fill {sum(mine[:-1])}, and one more too many."
            )
        counts.append(len(mine))
    if left := len(list(sizes)):
        raise ValueError(f"the texts have places for {total - left} images; the batch has {total}.")
    return counts


def _sizes(model: nn.Module, images: Images | None, places: int) -> list[int]:
    """How many places each image takes: a tensor's images all the same number."""
    if images is None or not len(images):
        raise ValueError(f"the texts keep {places} places for images; the batch has none.")
    if not isinstance(images, Tensor):
        return [len(flat(model.embed_image([image]))) for image in images]
    if places % len(images):
        raise ValueError(
            f"the texts keep {places} places for images; {len(images)} images of one size cannot fill them evenly."
        )
    return [places // len(images)] * len(images)


def joined(these: Sequence[Row]) -> Images | None:
    """The images of rows, in reading order; None where there are none."""
    some = [row.images for row in these if len(row.images)]
    if not some:
        return None
    return torch.cat(some) if isinstance(some[0], Tensor) else [image for images in some for image in images]


def told(these: Sequence[Row]) -> dict[str, Tensor]:
    """`asked` and `asked_keep` of rows, padded on the right, for a model's methods; nothing where nothing is asked."""
    some = [asked for row in these for asked in row.asked or ()]
    if not some:
        return {}
    lengths = torch.tensor([len(asked) for asked in some], device=some[0].device)
    keep = torch.arange(int(lengths.max()), device=some[0].device) < lengths[:, None]
    asked = torch.zeros_like(keep, dtype=some[0].dtype).masked_scatter(keep, torch.cat(some))
    return {"asked": asked, "asked_keep": keep}


def padded(
    model: nn.Module, these: Sequence[Row], left: bool = False, extra: int = 0
) -> tuple[Int[Tensor, "b t"], Tensor, Images | None]:
    """`ids`, `keep` and `pixel_values` of rows; `extra` columns of padding more than they need."""
    width, pad = (
        max(len(row.ids) for row in these) + extra,
        int(image_id(model) == 0),
    )  # padding keeps no place for an image
    ids = these[0].ids.new_full((len(these), width), pad)
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(these):
        real = slice(width - len(row.ids), None) if left else slice(len(row.ids))
        ids[i, real], keep[i, real] = row.ids, True
    return ids, keep, joined(these)


def logits(model: nn.Module, these: Sequence[Row], left: bool = False, extra: int = 0) -> list[Tensor]:
    """The model's scores for rows read together, without those at padding: (t, v) for each row."""
    ids, keep, images = padded(model, these, left, extra)
    out = model(ids, images, None if keep.all() else keep, **told(these))
    return [scores[real] for scores, real in zip(out, keep, strict=True)]


def other_images(images: Images, which: Sequence[int] | None = None) -> Images:
    """The same images with some (all, by default) as negatives: as large, but no longer what they were."""
    which = range(len(images)) if which is None else which
    other = [1 - image if i in which else image for i, image in enumerate(images)]
    return torch.stack(other) if isinstance(images, Tensor) else other


def starts(model: nn.Module, row: Row) -> list[int]:
    """Where each image of a row begins in its text; 0 where the text keeps no places."""
    places = (row.ids == image_id(model)).nonzero()[:, 0].tolist() if image_id(model) is not None else []
    if not places:
        return [0] * len(row.images)
    sizes = _sizes(model, row.images, len(places))
    return [places[sum(sizes[:i])] for i in range(len(sizes))]
