"""The training loop: AdamW, warm-up and cosine, clipping. Nothing else."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices, not gains, biases, single vectors or the temperature."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def cosine_schedule(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: up in a straight line for `warmup` steps, then
    down to zero along a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    model: nn.Module,
    batches: Iterable,
    steps: int,
    lr: float = 1e-3,
    warmup: int | None = None,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    evaluate: Callable[[], float] | None = None,
    name: str = "",
) -> dict[str, list[float]]:
    """Train `model` on `steps` batches by its own `loss(batch)`, and say about ten
    times how it goes.

    Args:
        batches: yields at least `steps` batches, on the model's device.
        lr: highest learning rate, reached after `warmup` steps (default: a tenth of
            all) and then lowered to zero.
        weight_decay: see `parameter_groups`.
        clip: largest norm of the gradient; longer ones are shortened.
        evaluate: called at each report, in eval mode and without gradients; its value
            is printed and kept.
        name: begins each printed line.

    Returns:
        `loss` at each step; `step` and `value` of each evaluation.

    Raises:
        ValueError: no steps.
        RuntimeError: the loss is not finite, or the batches run out.
    """
    if steps < 1:
        raise ValueError(f"training takes at least one step; got steps={steps}.")
    warmup = max(1, steps // 10) if warmup is None else warmup
    groups = parameter_groups(model, weight_decay)
    optimizer = AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True)
    schedule = LambdaLR(optimizer, lambda step: cosine_schedule(step, steps, warmup))
    every = max(1, math.ceil(steps / 10))
    losses, history = [], {"loss": [], "step": [], "value": []}
    batches = iter(batches)
    model.train()
    for step in range(1, steps + 1):
        batch = next(batches, None)
        if batch is None:
            raise RuntimeError(f"the batches ran out at step {step} of {steps}.")
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        if hasattr(model, "after_step"):
            model.after_step()
        losses.append(loss.detach())  # no .item(): it would make a GPU wait
        if step % every == 0 or step == steps:
            history["loss"] += torch.stack(losses).tolist()
            losses.clear()
            recent = history["loss"][-every:]
            if not math.isfinite(sum(recent)):
                raise RuntimeError(
                    f"the loss is not finite near step {step}; lower lr (now {lr:g})."
                )
            mean = sum(recent) / len(recent)
            line = f"{name} step {step:5d}/{steps}  loss {mean:.3f}".strip()
            if evaluate is not None:
                model.eval()
                with torch.no_grad():
                    value = float(evaluate())
                model.train()
                history["step"].append(step)
                history["value"].append(value)
                line += f"  accuracy {value:.1%}"
            print(line, flush=True)
    model.eval()
    return history
