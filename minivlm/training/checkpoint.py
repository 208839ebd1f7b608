"""A training that was interrupted goes on as if it had not been: the same numbers to the last bit, on the same machine."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from minivlm.training import generators
from minivlm.training.distributed import everyone, like, rank, whole, world
from minivlm.training.store import CheckpointError, Store


class Checkpoint:
    """Where `fit` saves a training, and finds it again.

        with Checkpoint("runs/clip", every=500) as checkpoint:
            fit(model, batches, steps, checkpoint=checkpoint)

    Run the same again, and it goes on after the last checkpoint (or, at the end of the training, does nothing more). Saved are
    parameters and buffers, optimizer, schedule, losses, the step, and the states of the random generators: torch's, numpy's and
    Python's shared ones. What a model keeps as a plain Python number is not; make it a buffer.

    `batches` must be a function: `batches(k)` gives the batches from number k on (0: the first), the same ones whenever it
    is asked. So they depend on their number alone, or come from generators that are wound on to it, never from the shared
    ones.

    Only one training can have a folder at a time; of several processes that train together, the first one writes.

    Args:
        folder: of its own; it is made if it is not there.
        every: steps from one checkpoint to the next. The last step is always saved.
        generators: those that the model or the loss draws from, by name, if it is not the shared ones.

    Raises:
        CheckpointError: on entering: the folder cannot be written to, or is in use.
    """

    def __init__(
        self, folder: str | Path, every: int = 100, generators: Mapping[str, generators.Generator] | None = None
    ) -> None:
        if every < 1:
            raise ValueError(f"a checkpoint is saved at most once a step; got every={every}.")
        self.every, self.generators = every, dict(generators or {})
        self._store = Store(folder)
        self._open = False

    def __enter__(self) -> "Checkpoint":
        if rank() == 0:
            self._store.open()
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._store.close()

    def resume(
        self,
        batches: Callable[[int], Iterable] | Iterable,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        history: dict[str, list],
        settings: dict[str, Any],
    ) -> tuple[int, Iterator]:
        """Put everything where the checkpoint says, if there is one; `fit` calls this before the first step.

        Returns:
            how many steps are done, and the batches that come next.

        Raises:
            ValueError: `batches` is no function.
            CheckpointError: the checkpoint is damaged, or of another training; or the batches draw from shared generators.
        """
        if not callable(batches):
            raise ValueError(
                "with a checkpoint, batches must be a function: batches(k) gives the batches from number k on, so that a"
                f" training can go on in the middle. Got a {type(batches).__name__}."
            )
        if not self._open:
            raise CheckpointError("open it first: with Checkpoint(...) as checkpoint: fit(..., checkpoint=checkpoint).")
        self._training, self._settings = (model, optimizer, schedule, history), settings
        found = self._store.read()
        if found is None:
            return 0, self._remember(self._from(batches, 0))
        done, tensors, about = found
        self._check(about, tensors["model"])
        stream = self._from(batches, done - 1)
        if about["world"] == world() and not _alike(about["last batch"][rank()], _gist(next(stream, None))):
            raise CheckpointError(
                f"batch {done - 1} is not the one that the checkpoint in {self._store.folder} saw: another seed, other data, or"
                " batches(k) does not begin at number k."
            )
        if about["world"] != world():
            next(stream, None)
        self._restore(tensors, about, done)
        print(f"goes on after step {done} of {settings['steps']}, from {self._store.folder}", flush=True)
        return done, self._remember(stream)

    def due(self, step: int) -> bool:
        """Whether step `step` is to be saved."""
        return step % self.every == 0 or step == self._settings["steps"]

    def save(self, step: int) -> None:
        """Save the training after step `step`; of several processes all must call it.

        Raises:
            CheckpointError: it could not be written. The earlier one is whole.
        """
        model, optimizer, schedule, history = self._training
        names = {p: name for name, p in model.named_parameters()}
        trainer = {
            f"optimizer {key} {names[p]}": whole(value) for p, kept in optimizer.state.items() for key, value in kept.items()
        }
        trainer |= {f"history {key}": torch.tensor(values, dtype=torch.float64) for key, values in history.items()}
        for number, states in enumerate(everyone(generators.states(self.generators))):
            trainer |= {f"generator {number} {key}": state for key, state in states.items()}
        about = {
            "settings": _plain(self._settings),
            "trained": [names[p] for group in optimizer.param_groups for p in group["params"]],
            "lr": [group["lr"] for group in optimizer.param_groups],
            "schedule": {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"},
            "world": world(),
            "last batch": everyone(_gist(self._last)),
        }
        tensors = {"model": {name: whole(tensor) for name, tensor in _named(model).items()}, "trainer": trainer}
        error = None
        if rank() == 0:
            try:
                self._store.write(step, tensors, about)
            except CheckpointError as found:
                if world() == 1:
                    raise
                error = str(found)
        if error := everyone(error)[0]:  # or the others would wait for ever
            raise CheckpointError(error)

    def _from(self, batches: Callable[[int], Iterable], start: int) -> Iterator:
        """The batches from `start` on, the first of which shows that none is drawn from the shared generators."""
        before = generators.states()
        stream = iter(batches(start))
        first = next(stream, None)
        drawn = [key for key, state in generators.states().items() if key in before and not torch.equal(state, before[key])]
        if drawn:
            raise CheckpointError(
                f"the batches draw from {drawn[0]}'s shared generator, so they cannot be had again from the middle. Give them a"
                " generator of their own (a DataLoader takes one too: generator=torch.Generator())."
            )
        return stream if first is None else chain([first], stream)

    def _remember(self, stream: Iterator) -> Iterator:
        for batch in stream:
            self._last = batch
            yield batch

    def _check(self, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        model, optimizer, *_ = self._training
        where, names = f"the checkpoint in {self._store.folder}", {p: name for name, p in model.named_parameters()}
        old, new = about["settings"], _plain(self._settings)
        said = [f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in old | new if old.get(key) != new.get(key)]
        now = {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in _named(model).items()}
        then = {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}
        said += [
            f"{name} was {then.get(name, 'not there')} and is {now.get(name, 'not there')}"
            for name in then | now
            if then.get(name) != now.get(name)
        ]
        trained = [names[p] for group in optimizer.param_groups for p in group["params"]]
        if not said and about["trained"] != trained:
            other = sorted(set(about["trained"]) ^ set(trained))
            said = [f"other parts were frozen, or in another group: {', '.join(other[:3]) or 'the order of parameters'}"]
        if not said:
            said = [
                f"{name} is frozen, and its values were others"
                for name, p in model.named_parameters()
                if not p.requires_grad and not torch.equal(whole(p), tensors[name])
            ]
        if said:
            more = f", and {len(said) - 3} more differences" if len(said) > 3 else ""
            raise CheckpointError(
                f"{where} is of another training: {'; '.join(said[:3])}{more}. Go on with the same model and settings, or give"
                " another folder."
            )

    def _restore(self, tensors: dict[str, dict[str, Tensor]], about: dict[str, Any], done: int) -> None:
        model, optimizer, schedule, history = self._training
        trainer = tensors["trainer"]
        with torch.no_grad():
            for name, tensor in _named(model).items():
                tensor.copy_(like(tensors["model"][name], tensor))
        parameters = dict(model.named_parameters())
        for key, value in trainer.items():
            kind, *rest = key.split(" ", 2)
            if kind == "optimizer":
                p = parameters[rest[1]]
                optimizer.state[p][rest[0]] = like(value, p) if value.shape == p.shape and value.ndim else value.to(p.device)
            elif kind == "history":
                history[rest[0]] = [int(x) if rest[0] == "step" else x for x in value.tolist()]
        for group, lr in zip(optimizer.param_groups, about["lr"], strict=True):
            group["lr"] = lr
        schedule.load_state_dict(about["schedule"] | {"lr_lambdas": [None] * len(optimizer.param_groups)})
        mine = f"generator {rank()} "
        found = {key.removeprefix(mine): value for key, value in trainer.items() if key.startswith(mine)}
        if found:
            generators.restore(found, self.generators)
        else:  # more processes than before
            generators.begin_anew(1_000_003 * done + rank(), self.generators)


def _named(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return {key: dict(sorted(value.items())) if isinstance(value, dict) else value for key, value in settings.items()}


def _gist(batch: Any) -> list:
    """A few numbers by which a batch is known again, on another kind of device too: shapes, and sums with weights."""
    if isinstance(batch, Tensor):
        values = batch.detach().cpu().double().flatten()
        weights = torch.linspace(1, 2, len(values), dtype=torch.float64)
        return [str(tuple(batch.shape)), (values * weights).sum().item(), (values.abs() * weights).sum().item()]
    if isinstance(batch, dict):
        return [_gist(value) for value in batch.values()]
    if is_dataclass(batch):
        return [_gist(getattr(batch, field.name)) for field in fields(batch)]
    if isinstance(batch, tuple | list):
        return [_gist(value) for value in batch]
    return [repr(batch)] if isinstance(batch, str | int | float | bool | None) else [type(batch).__name__]


def _alike(a: list, b: list) -> bool:
    if len(a) != len(b):
        return False
    if len(a) == 3 and isinstance(a[1], float) and isinstance(b[1], float):
        return a[0] == b[0] and (a[1:] == b[1:] or math.isclose(a[1], b[1], abs_tol=1e-4 * abs(a[2])))
    return all(_alike(x, y) if isinstance(x, list) and isinstance(y, list) else x == y for x, y in zip(a, b, strict=True))
