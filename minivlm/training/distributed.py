"""The same script on several devices: `torchrun --nproc-per-node 4 train.py`. See docs/training.md."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from minivlm.training.losses import Loss


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and where it computes."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def processes() -> Iterator[Ranks]:
    """Join the processes that torchrun started, and leave them at the end. Only the first one prints. Without torchrun it
    is one process, and nothing is set up.

        with processes() as ranks:
            model = CLIP(config).to(ranks.device)
            fit(model, batches, steps, loss=replicated(model))
    """
    gpu = torch.cuda.is_available()
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1, torch.device("cuda" if gpu else "cpu"))
        return
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere) if rank() else nullcontext():
            yield Ranks(rank(), world(), device)
    finally:
        dist.destroy_process_group()


def replicated(model: nn.Module, weigh: Callable[[Any], Tensor] | None = None, **options: Any) -> Loss:
    """For `fit(..., loss=...)`: a copy of the model in each process; each computes the loss of its own batch, and the gradients
    are averaged (DistributedDataParallel). All copies begin as the first one. What is to be frozen must be frozen before.

    Args:
        weigh: as in `accumulated`: by default the batch of each process counts the same; with `weigh=labels` each label does.
        options: of DistributedDataParallel, as `find_unused_parameters=True` where a parameter has no part in some losses.

    Returns:
        the loss, with the value of the mean over all processes. Alone, it is `model.loss`.
    """
    if world() == 1:
        return model.loss
    return _mean(nn.parallel.DistributedDataParallel(_Forward(model), **options), weigh)


def sharded(model: nn.Module, weigh: Callable[[Any], Tensor] | None = None) -> Loss:
    """As `replicated`, for a model that does not fit: each process keeps its share of every parameter, gradient and state
    of the optimizer, and has a layer as a whole only while it computes it (FSDP2). A layer is what stands in a ModuleList.
    All processes must have built the same model, with the same seed.

    Raises:
        ValueError: a parameter that is a single number, which cannot be shared out.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    single = [name for name, p in model.named_parameters() if p.ndim == 0]
    if single:
        raise ValueError(
            f"{single[0]} is a single number, which cannot be shared out: make it a vector of one, or use replicated()."
        )
    if world() == 1:
        return model.loss
    for layers in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer)
    fully_shard(model)
    for method in ("loss", "generate", "embed_image", "embed_text"):  # they enter the model as forward does
        if hasattr(model, method):
            register_fsdp_forward_method(model, method)
    return _mean(lambda batch: model.loss(batch), weigh)


class _Forward(nn.Module):
    """DistributedDataParallel watches `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Tensor:
        return self.model.loss(batch)


def _mean(loss: Callable[[Any], Tensor], weigh: Callable[[Any], Tensor] | None) -> Loss:
    def compute(batch: Any) -> Tensor:
        mine = loss(batch)
        if weigh is not None:
            weight = torch.as_tensor(weigh(batch), dtype=torch.float32, device=mine.device)
            total = weight.clone()
            dist.all_reduce(total)
            mine = mine * (weight * world() / total)
        value = mine.detach().clone()
        dist.all_reduce(value)
        return mine + (value / world() - mine.detach())  # the gradient of one's own, the value of all

    return compute


def share(batch: Any, rank: int, world: int) -> Any:
    """The rows of a batch that are this process's: drawn alike everywhere, the batch is the same however many share it. Where
    drawing is dear (images from a disk), share out the numbers of the examples instead; see `data.shuffled`.

    Args:
        batch: a tensor, or a (named) tuple, list or dictionary of such.

    Raises:
        ValueError: the rows cannot be shared evenly, or the tensors differ in rows.
    """
    rows: set[int] = set()

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            rows.add(len(value))
            return value.tensor_split(world)[rank]
        if isinstance(value, dict):
            return {key: part(each) for key, each in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(part, value))
        return type(value)(map(part, value)) if isinstance(value, tuple | list) else value

    found = part(batch)
    if len(rows) != 1 or rows.pop() % world:
        counted = sorted(len(value) for value in _tensors(batch))
        raise ValueError(f"a batch whose tensors have {counted} rows cannot be shared by {world} processes row by row.")
    return found


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def rank() -> int:
    """The number of this process; the first is 0."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def everyone(value: Any) -> list:
    """What each process says, in order. All must ask."""
    if world() == 1:
        return [value]
    found: list = [None] * world()
    dist.all_gather_object(found, value)
    return found


def whole(tensor: Tensor) -> Tensor:
    """On the CPU and in one piece, with memory of its own; of a tensor that is shared out all processes must ask."""
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return tensor.cpu().clone(memory_format=torch.contiguous_format)


def like(value: Tensor, target: Tensor) -> Tensor:
    """`value` on the device of `target`, and shared out as `target` is; all processes must ask."""
    value = value.to(target.device)
    if not hasattr(target, "placements"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, target.device_mesh, target.placements)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
