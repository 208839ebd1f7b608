"""Does it look at all? Accuracy must fall when the images are another's, or blank."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sight(NamedTuple):
    """Accuracy with the real images, with each at another's place, and with grey ones."""

    real: float
    shuffled: float
    blank: float


def no_blind_cheating(
    accuracy: Callable[[Any], float],
    images: Tensor | list[Tensor],
    generator: torch.Generator,
    gap: float = 0.1,
    grey: float = 0.5,
) -> Sight:
    """Accuracy with real, shuffled and blank images; the first must be better than both others.

        sight = no_blind_cheating(lambda images: share_right(model, images), images, torch.Generator().manual_seed(0))

    Args:
        accuracy: from images, in the order of the questions, to the share of right answers.
        generator: shuffles; no image stays where it is.
        gap: by how much accuracy must fall, at least.
        grey: what a blank image is filled with: 0.5 for images in [0, 1], 0 for normalised pixel values.

    Raises:
        ValueError: fewer than two images.
        AssertionError: accuracy does not fall by `gap`.
    """
    if len(images) < 2:
        raise ValueError(f"shuffling takes two images or more; got {len(images)}.")
    order = torch.randperm(len(images), generator=generator)
    source = torch.empty_like(order).scatter_(0, order, order.roll(1)).tolist()  # one cycle: nobody keeps its own
    many = torch.stack if isinstance(images, Tensor) else list
    sight = Sight(
        accuracy(images),
        accuracy(many([images[i] for i in source])),
        accuracy(many([torch.full_like(image, grey) for image in images])),
    )
    how = "shuffled" if sight.shuffled >= sight.blank else "blank"
    best = max(sight.shuffled, sight.blank)
    assert sight.real - best >= gap, (
        f"accuracy is {sight.real:.3f} with the real images and {best:.3f} with {how} ones: {sight.real - best:.3f} less;"
        f" expected at least {gap:.3f} less. What is right without looking is not seen."
    )
    return sight
