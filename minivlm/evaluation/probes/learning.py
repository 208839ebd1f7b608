"""Is the loss that of the answers alone, and does only that learn which should?"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor, nn

from minivlm.evaluation.probes.compare import same
from minivlm.evaluation.probes.rows import logits, probe, rows


@probe
def answers_only(model: nn.Module, batch: Any) -> float:
    """The loss is the mean surprise at the labelled tokens, each predicted one place before: computed by hand from the scores
    of each text alone. So it is with the labels given, with half of them, and with other words as labels.

    Raises:
        AssertionError: the loss is another number.
    """
    given = batch.labels
    among = (given != -100).flatten().cumsum(0).view_as(given)
    half = given.masked_fill(among % 2 == 0, -100)
    other = given.clone()
    other[given != -100] = given[given != -100].roll(1)
    worst = 0.0
    for labels, how in ((given, "the labels given"), (half, "half of the labels"), (other, "other words as labels")):
        now = batch._replace(labels=labels)
        surprise = by_hand(model, now)
        text = (
            f"with {how} the loss is {float(model.loss(now)):.5f}, not {float(surprise):.5f}, the mean surprise at them"
        )
        worst = max(worst, same(model.loss(now), surprise, text))
    return worst


def by_hand(model: nn.Module, batch: Any) -> Tensor:
    """The mean surprise at the labelled tokens; each text is read alone."""
    given = []
    for row in rows(model, batch):
        (scores,) = logits(model, [row])
        given += [
            -F.log_softmax(scores[i - 1], -1)[row.labels[i]] for i in range(1, len(row.ids)) if row.labels[i] != -100
        ]
    if not given:
        raise ValueError("the batch has no labels to predict; give one with answers.")
    return torch.stack(given).mean()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """All numbers of a module as they are now: parameters and buffers, copied."""
    return {name: tensor.clone() for name, tensor in _tensors(module).items()}


def unchanged(before: Mapping[str, Tensor], module: nn.Module) -> int:
    """A part that was frozen is the same to the last bit as at its `snapshot`. Returns how many numbers were compared.

    Raises:
        AssertionError: something changed, came or went; the message has its name and by how much.
    """
    after = _tensors(module)
    gone = [name for name in before | after if name not in before or name not in after]
    assert not gone, f"{gone[0]} is {'gone' if gone[0] in before else 'new'} in a part that should not change."
    changed = [name for name in before if not torch.equal(_bits(before[name]), _bits(after[name]))]
    if changed:
        first = changed[0]
        assert after[first].shape == before[first].shape, (
            f"{first} should not change, and its shape is {tuple(after[first].shape)}; it was {tuple(before[first].shape)}."
        )
        furthest = (after[first].float() - before[first].to(after[first].device).float()).abs().max()
        more = f", and so have {len(changed) - 1} others" if changed[1:] else ""
        raise AssertionError(f"{first} should not change, and has by up to {float(furthest):.1e}{more}.")
    return sum(tensor.numel() for tensor in before.values())


def changed(before: Mapping[str, Tensor], module: nn.Module) -> int:
    """A part that was trained has learned: each parameter that wants a gradient is another than at its `snapshot`. Returns how
    many numbers are in those.

    Raises:
        AssertionError: a parameter is still the same, or new, or none wants a gradient.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert learning, "no parameter wants a gradient; this part is frozen."
    new = [name for name in learning if name not in before]
    assert not new, f"{new[0]} is not in the snapshot; take it of the same part, before the training."
    still = [name for name, p in learning.items() if torch.equal(_bits(before[name]), _bits(p))]
    assert not still, (
        f"{still[0]} should have learned, and is what it was; so are {len(still)} of {len(learning)} parameters."
    )
    return sum(p.numel() for p in learning.values())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in named.items()}


def _bits(tensor: Tensor) -> UInt8[Tensor, "bytes"]:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
