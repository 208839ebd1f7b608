"""Other ways to compute the loss of a batch, for `fit(..., loss=...)`: in parts that fit into memory, in bfloat16."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Any], Tensor]


def bundled(batches: Iterable | Callable[[int], Iterable], parts: int) -> Callable[[int], Iterator[list]]:
    """Lists of `parts` batches, for `accumulated`; what is left over at the end is left out.

    Args:
        batches: as `fit` takes them. If it is no function of the position, neither is the result, and only 0 can be asked for.

    Raises:
        ValueError: less than one part; a position in batches that have none.
    """
    if parts < 1:
        raise ValueError(f"a bundle has at least one batch; got parts={parts}.")

    def bundles(start: int = 0) -> Iterator[list]:
        if not callable(batches) and start:
            raise ValueError(f"these batches cannot begin at {start}; give bundled() a function of the position.")
        stream = iter(batches(start * parts) if callable(batches) else batches)
        while len(bundle := list(islice(stream, parts))) == parts:
            yield bundle

    return bundles


def accumulated(loss: Loss, weigh: Callable[[Any], float | int | Tensor] | None = None) -> Loss:
    """The loss of a list of batches, computed one batch after the other: the gradients add up, and only one batch at a time
    needs memory for its activations.

        fit(model, bundled(batches, 4), steps, loss=accumulated(model.loss))

    With batches of one size this is the loss of the large batch, up to rounding. Where the loss is a mean over labels, and
    batches differ in how many they have, there are two ways. `weigh=None`: each batch counts the same, so a label among few
    counts more than one among many. `weigh=labels`: batch i counts `n_i / sum(n)`, n being the numbers of labels; then each
    label counts the same, as it does in the large batch. Either way a loss that compares the examples of a batch with each
    other (CLIP's) has fewer of them to compare.

    Raises:
        ValueError: (when called) it is no list of batches, or one of them has no labels.
    """

    def compute(parts: Any) -> Tensor:
        if type(parts) is not list or not parts:
            raise ValueError(f"accumulated() takes lists of batches, as bundled() makes them; got {type(parts).__name__}.")
        weights = [1.0] * len(parts) if weigh is None else [float(weigh(part)) for part in parts]
        if not min(weights) > 0:
            raise ValueError(f"the batches weigh {weights}; each must weigh more than 0. Leave out batches without a label.")
        shares = [weight / sum(weights) for weight in weights]
        done: Tensor | float = 0.0
        for part, share in zip(parts[:-1], shares[:-1], strict=True):
            piece = loss(part) * share
            piece.backward()
            done = done + piece.detach()
        return loss(parts[-1]) * shares[-1] + done  # whoever asked for the loss takes the last one's gradient

    return compute


def labels(batch: Any) -> Tensor:
    """How many labels a batch of texts has: those that `next_token_loss` takes its mean over (the first token of a text is not
    predicted).
    """
    return (batch.labels[:, 1:] != -100).sum()


def in_bf16(loss: Loss, device: str | torch.device) -> Loss:
    """The loss with matrix products in bfloat16 (autocast); parameters and the loss itself stay in float32.

    Args:
        loss: `model.loss`, or what another of these functions returned.
        device: where the model is. On a CPU it works, and is slower than float32 on most.

    Raises:
        ValueError: the device cannot do it.
    """
    device = torch.device(device)
    able = torch.amp.is_autocast_available(device.type)
    if device.type == "cuda":
        able = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if not able:
        raise ValueError(f"{device} cannot compute in bfloat16 here; leave in_bf16() out, and train in float32.")

    def compute(batch: Any) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss(batch).float()

    return compute
