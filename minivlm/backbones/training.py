"""Training that can stop at any moment and goes on as if it had not: the state is written whole or not at all."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from minivlm.training.loop import cosine_schedule, parameter_groups

#: Steps between two states on disk, and between two entries in the record of losses.
SAVE_EVERY, LOG_EVERY = 100, 20


@runtime_checkable
class Recipe(Protocol):
    """What the trainer needs to know."""

    steps: int
    lr: float
    warmup: int
    weight_decay: float
    seed: int

    def build(self) -> nn.Module: ...
    def batches(self, start: int) -> Any: ...


class Run:
    """A model in training: step by step, the same whether or not it was interrupted (on one machine and kind of device).

    Args:
        recipe: what to train and how.
        state: file of the state; if it is there, training goes on from it.
        device: where to train.

    Raises:
        ValueError: the state is damaged, or of another recipe.
    """

    def __init__(self, recipe: Recipe, state: Path | None = None, device: str | torch.device = "cpu") -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.state_file, self.device = recipe, state, torch.device(device)
        self.mark = "" if state is None else fingerprint(recipe)
        self.model = recipe.build().to(self.device)
        groups = parameter_groups(self.model, recipe.weight_decay)
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6, fused=fused)
        self.step, self.seconds, self.losses, self._recent = 0, 0.0, [], []
        if state is not None and state.exists():
            self._restore(state)

    def go(self, until: int | None = None, report: Callable[["Run"], None] | None = None) -> "Run":
        """Train up to step `until` (default: the end), writing the state from time to time."""
        recipe, until = self.recipe, self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.model.train()
        begun = time.perf_counter()
        batches = iter(recipe.batches(self.step)) if self.step < until else iter(())
        while self.step < until:
            batch = next(batches)
            for group in self.optimizer.param_groups:
                group["lr"] = recipe.lr * cosine_schedule(self.step, recipe.steps, recipe.warmup)
            loss = self.model.loss(type(batch)(*(x.to(self.device) for x in batch)))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            if hasattr(self.model, "after_step"):
                self.model.after_step()
            self.step += 1
            self._recent.append(loss.detach())
            if self.step % LOG_EVERY == 0:
                mean = torch.stack(self._recent).mean().item()
                self._recent.clear()
                if not math.isfinite(mean):
                    raise RuntimeError(f"the loss is not finite near step {self.step}; lower lr (now {recipe.lr:g}).")
                self.losses.append(round(mean, 5))
            if self.step % SAVE_EVERY == 0 or self.step == until:
                now = time.perf_counter()
                self.seconds, begun = self.seconds + now - begun, now
                if self.state_file is not None and self.step % LOG_EVERY == 0:
                    self._save(self.state_file)
                if report is not None:
                    report(self)
                    self.model.train()
        self.model.eval()
        return self

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for name, p in self.model.named_parameters():
            tensors[f"model.{name}"] = p.detach()
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    def _save(self, path: Path) -> None:
        about = {"step": self.step, "seconds": self.seconds, "losses": self.losses, "recipe": self.mark}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        save_file(self._tensors(), temporary, metadata={"run": json.dumps(about)})
        os.replace(temporary, path)

    def _restore(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as the state of a training run ({error}); delete it.") from error
        if about["recipe"] != self.mark:
            raise ValueError(f"{path} is the state of another recipe, or of another world; delete it, or give another folder.")
        for name, p in self.model.named_parameters():
            p.data.copy_(tensors[f"model.{name}"])
            keys = [key for key in tensors if key.startswith("optimizer.") and key.split(".", 2)[2] == name]
            self.optimizer.state[p] = {key.split(".")[1]: tensors[key].to(p.device) for key in keys}
        self.step, self.seconds, self.losses = about["step"], about["seconds"], about["losses"]


def fingerprint(recipe: Recipe) -> str:
    """Hash of a recipe's numbers and of the batch it begins with: a changed world would go on as another one."""
    first = next(iter(recipe.batches(0)))
    data = b"".join(part.contiguous().numpy().tobytes() for part in first)
    return hashlib.sha256(repr(recipe).encode() + data).hexdigest()[:16]
