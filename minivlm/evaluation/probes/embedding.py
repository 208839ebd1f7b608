"""Does a model that embeds give each image and each text its own vector, whatever else is in the batch?"""

from typing import Any

import torch
from torch import Tensor, nn

from minivlm.evaluation.probes.compare import TOLERANCE, apart, same
from minivlm.evaluation.probes.rows import other_images, probe


@probe
def unit_length(model: nn.Module, batch: Any) -> float:
    """Embeddings have length 1.

    Raises:
        AssertionError: one has another.
    """
    worst = 0.0
    for what, vectors in _both(model, batch).items():
        length = vectors.norm(dim=-1)
        worst = max(worst, same(length, torch.ones_like(length), f"the embeddings of {what} have no unit length"))
    return worst


@probe
def alone(model: nn.Module, batch: Any) -> float:
    """An image, and a text without padding, are embedded alone as in the batch.

    Raises:
        AssertionError: they are not.
    """
    together = _both(model, batch)
    worst = 0.0
    for i, ids in enumerate(batch.ids):
        end = int((ids != 0).nonzero().max()) + 1  # the tokenizer pads with 0
        one = {"images": model.embed_image(batch.pixel_values[i : i + 1]), "texts": model.embed_text(ids[None, :end])}
        for what, vector in one.items():
            text = f"number {i} of the {what} has another embedding alone than in the batch"
            worst = max(worst, same(together[what][i], vector[0], text))
    return worst


@probe
def order(model: nn.Module, batch: Any) -> float:
    """Images and texts in another order are embedded in that order.

    Raises:
        AssertionError: they are not.
    """
    forth = _both(model, batch)
    back = _both(model, batch._replace(ids=batch.ids.flip(0), pixel_values=batch.pixel_values.flip(0)))
    text = "embeddings of {} do not go with them into another order"
    return max(same(back[what].flip(0), forth[what], text.format(what)) for what in forth)


@probe
def distinct(model: nn.Module, batch: Any) -> float:
    """Another image, another text: another embedding. Returns the smallest change.

    Raises:
        AssertionError: different ones have the same.
    """
    vectors, other = _both(model, batch), model.embed_image(other_images(batch.pixel_values))
    least = {"images": [apart(o, v, "images") for o, v in zip(other, vectors["images"], strict=True)], "texts": []}
    for i, ids in enumerate(batch.ids):
        for j in range(i):
            if not torch.equal(ids, batch.ids[j]):
                least["texts"].append(apart(vectors["texts"][i], vectors["texts"][j], "texts"))
    for what, found in least.items():
        assert found, f"the {what} of the batch are all the same; give one with different {what}."
        limit = TOLERANCE[vectors[what].dtype]
        assert min(found) > limit, (
            f"two different {what} have the same embedding: {min(found):.1e} apart, rounding is {limit:.0e}."
        )
    return min(map(min, least.values()))


def _both(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {"images": model.embed_image(batch.pixel_values), "texts": model.embed_text(batch.ids)}
