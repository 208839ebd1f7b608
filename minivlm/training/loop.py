"""The training loop: AdamW, warm-up and cosine, clipping. Nothing else."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from minivlm.training.checkpoint import Checkpoint
from minivlm.training.freezing import train_mode
from minivlm.training.rates import split_by_rate


def parameter_groups(
    model: nn.Module, weight_decay: float, lrs: dict[str, float] | None = None
) -> list[dict]:
    """Decay matrices, not gains, biases, single vectors or the temperature. Parts that
    `lrs` names have groups and a learning rate of their own; see `split_by_rate`.
    """
    groups = []
    for lr, parameters in split_by_rate(model, lrs or {}):
        matrices = [p for p in parameters if p.ndim >= 2]
        others = [p for p in parameters if p.ndim < 2]
        own = {} if lr is None else {"lr": lr}
        groups.append({"params": matrices, "weight_decay": weight_decay, **own})
        groups.append({"params": others, "weight_decay": 0.0, **own})
    return groups


def cosine_schedule(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: up in a straight line for `warmup` steps, then
    down to zero along a cosine.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    model: nn.Module,
    batches: Iterable | Callable[[int], Iterable],
    steps: int,
    lr: float = 1e-3,
    warmup: int | None = None,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    evaluate: Callable[[], float] | None = None,
    name: str = "",
    lrs: dict[str, float] | None = None,
    loss: Callable | None = None,
    checkpoint: Checkpoint | None = None,
) -> dict[str, list[float]]:
    """Train `model` on `steps` batches by its own `loss(batch)`, and say about ten
    times how it goes.

    Args:
        batches: yields at least `steps` batches, on the model's device; or a function
            that gives them from any position on (0: the first).
        lr: highest learning rate, reached after `warmup` steps (default: a tenth of
            all) and then lowered to zero.
        weight_decay: see `parameter_groups`.
        clip: largest norm of the gradient; longer ones are shortened.
        evaluate: called at each report, in eval mode and without gradients; its value
            is printed and kept.
        name: begins each printed line.
        lrs: learning rates of parts that have one of their own, by name, as in
            `{"connector": 2e-3}`; `lr` is for the rest.
        loss: computes it in the place of `model.loss`: in parts, in bfloat16, on many
            devices (`training/losses.py`, `training/distributed.py`).
        checkpoint: where the training is saved, and goes on if it was interrupted;
            needs `batches` as a function.

    Returns:
        `loss` at each step; `step` and `value` of each evaluation.

    Raises:
        ValueError: no steps, or nothing to train; see also `split_by_rate`.
        RuntimeError: the loss is not finite, or the batches run out.
    """
    if steps < 1:
        raise ValueError(f"training takes at least one step; got steps={steps}.")
    warmup = max(1, steps // 10) if warmup is None else warmup
    groups = parameter_groups(model, weight_decay, lrs)
    optimizer = AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True)
    schedule = LambdaLR(optimizer, lambda step: cosine_schedule(step, steps, warmup))
    every = max(1, math.ceil(steps / 10))
    done, losses, history = 0, [], {"loss": [], "step": [], "value": []}
    if checkpoint is not None:
        same = dict(steps=steps, lr=lr, lrs=lrs, warmup=warmup, clip=clip)
        same["weight_decay"] = weight_decay
        state = (model, optimizer, schedule, history)
        done, batches = checkpoint.resume(batches, *state, same)
    batches = iter(batches(0) if callable(batches) else batches)
    compute = model.loss if loss is None else loss
    train_mode(model)  # but not for what is frozen
    for step in range(done + 1, steps + 1):
        batch = next(batches, None)
        if batch is None:
            raise RuntimeError(f"the batches ran out at step {step} of {steps}.")
        optimizer.zero_grad(set_to_none=True)
        loss = compute(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        if hasattr(model, "after_step"):
            model.after_step()
        losses.append(loss.detach())  # no .item(): it would make a GPU wait
        reporting = step % every == 0 or step == steps
        saving = checkpoint is not None and checkpoint.due(step)
        if reporting or saving:
            history["loss"] += torch.stack(losses).tolist()
            losses.clear()
            recent = history["loss"][-every:]
            if not math.isfinite(sum(recent)):
                raise RuntimeError(
                    f"the loss is not finite near step {step}; lower lr (now {lr:g})."
                )
        if reporting:
            mean = sum(recent) / len(recent)
            line = f"{name} step {step:5d}/{steps}  loss {mean:.3f}".strip()
            if evaluate is not None:
                model.eval()
                with torch.no_grad():
                    value = float(evaluate())
                train_mode(model)
                history["step"].append(step)
                history["value"].append(value)
                line += f"  accuracy {value:.1%}"
            print(line, flush=True)
        if saving:
            checkpoint.save(step)
    model.eval()
    return history
