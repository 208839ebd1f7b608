"""Does a model that speaks read as it should? Who sees whom, where the images are, and what padding does."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.evaluation.probes.compare import different, identical, same
from minivlm.evaluation.probes.rows import Row, flat, image_id, logits, other_images, probe, rows, starts, told

#: Places of a text at which a token is changed, at most.
CHANGES = 8


@probe
def causality(model: nn.Module, batch: Any) -> float:
    """A later token, a later image changes nothing before it (and something from there on).

    Raises:
        AssertionError: earlier scores change, or none at all.
    """
    worst = 0.0
    for number, row in enumerate(rows(model, batch)):
        (before,) = logits(model, [row])
        for place in _changeable(model, row):
            (after,) = logits(model, [row._replace(ids=_with_another(model, row, place))])
            token = f"row {number}: the token at place {place} was changed"
            worst = max(worst, same(after[:place], before[:place], f"{token}, and scores before it did too"))
            different(after[place:], before[place:], f"{token}, and no score at or after it did")
        for image, start in enumerate(starts(model, row)):
            (after,) = logits(model, [row._replace(images=other_images(row.images, [image]))])
            text = (
                f"row {number}: image {image}, which begins at place {start}, was changed, and scores before it did too"
            )
            worst = max(worst, same(after[:start], before[:start], text))
    return worst


def _changeable(model: nn.Module, row: Row) -> list[int]:
    """Up to `CHANGES` places of words, the last among them."""
    places = [i for i, token in enumerate(row.ids.tolist()) if token != image_id(model)]
    step = -(-len(places) // CHANGES)
    return places[::-1][::step]


def _with_another(model: nn.Module, row: Row, place: int) -> Tensor:
    """The ids with another word of the same text at a place, if possible one of its answer."""
    learned = row.ids[row.labels != -100].tolist()
    words = [token for token in learned + row.ids.tolist() if token not in (int(row.ids[place]), image_id(model))]
    if not words:
        raise ValueError(
            f"causality changes a word into another of the same text; this one has a single word: {row.ids.tolist()}"
        )
    ids = row.ids.clone()
    ids[place] = words[0]
    return ids


@probe
def image_tokens(model: nn.Module, batch: Any) -> float:
    """At the places of images stands exactly what `embed_image` gives, in reading order; elsewhere the words' embeddings.

    Raises:
        AssertionError: as many places as image tokens are not there, or something else stands at some.
    """
    places, asked = batch.ids == image_id(model), told(rows(model, batch))
    features = flat(model.embed_image(batch.pixel_values, **asked))
    kept = int(places.sum())
    assert kept == len(features), f"the texts keep {kept} places for images; their images are {len(features)} tokens."
    stands, words = model.embed(batch.ids, batch.pixel_values, **asked), model.language.embed(batch.ids)
    identical(stands[~places], words[~places], "words do not stand in the sequence as the language model embeds them")
    return identical(stands[places], features, "what stands at the images' places is not what embed_image gives")


@probe
def permutation(model: nn.Module, batch: Any) -> float:
    """The same questions about swapped images have swapped answers: each image belongs to its own text.

    Raises:
        AssertionError: the scores do not go with the images.
    """
    these = []
    for row in rows(model, batch):
        these += [row, row._replace(images=other_images(row.images))] if len(row.images) else [row]
    forth, back = logits(model, these), logits(model, these[::-1])[::-1]
    text = "row {}: its text and its images stand elsewhere in the batch, and its scores are others"
    return max(same(b, f, text.format(i)) for i, (f, b) in enumerate(zip(forth, back, strict=True)))


@probe
def every_image(model: nn.Module, batch: Any) -> float:
    """Each single image matters to the scores after it. Returns the smallest change.

    Raises:
        AssertionError: an image makes no difference, or there are no images.
    """
    least = []
    for number, row in enumerate(rows(model, batch)):
        before = logits(model, [row])[0] if len(row.images) else None
        for image in range(len(row.images)):
            (after,) = logits(model, [row._replace(images=other_images(row.images, [image]))])
            least.append(different(after, before, f"row {number}: image {image} was changed, and no score was"))
    assert least, "the batch has no images; give one that has."
    return min(least)


@probe
def padding(model: nn.Module, batch: Any) -> float:
    """A text alone, and in a batch, padded on the right: the same scores.

    Raises:
        AssertionError: they differ.
    """
    return _as_alone(model, batch, left=False)


@probe
def left_padding(model: nn.Module, batch: Any) -> float:
    """A text alone, and in a batch, padded on the left: the same scores.

    Raises:
        AssertionError: they differ.
    """
    return _as_alone(model, batch, left=True)


def _as_alone(model: nn.Module, batch: Any, left: bool) -> float:
    these = rows(model, batch)
    side = "left" if left else "right"
    text = f"row {{}}: padded on the {side}, among the others, it has other scores than alone"
    together = logits(model, these, left, extra=2)
    alone = [logits(model, [row])[0] for row in these]
    return max(same(t, a, text.format(i)) for i, (t, a) in enumerate(zip(together, alone, strict=True)))


@torch.no_grad()
def packed(together: Callable[[Sequence], Sequence[Tensor]], alone: Callable[[Any], Tensor], items: Sequence) -> float:
    """For models that pack several items (texts, images) into one sequence: each comes out as it does alone.

        packed(lambda images: model.vision(images), lambda image: model.vision([image])[0], images)

    Args:
        together: all items at once -> what each became.
        alone: one item -> what it becomes.

    Raises:
        ValueError: fewer than two items.
        AssertionError: there are not as many results as items, or one differs.
    """
    if len(items) < 2:
        raise ValueError(f"what is packed together is two items or more; got {len(items)}.")
    got = together(items)
    assert len(got) == len(items), f"{len(items)} items were packed, and {len(got)} came out."
    text = "item {}: packed with the others, it becomes something else than alone"
    return max(same(one, alone(item), text.format(i)) for i, (one, item) in enumerate(zip(got, items, strict=True)))
