"""Which parameter learns how fast."""

import math
from collections.abc import Mapping

from torch import nn


def split_by_rate(model: nn.Module, lrs: Mapping[str, float]) -> list[tuple[float | None, list[nn.Parameter]]]:
    """Trainable parameters by learning rate.

    Args:
        lrs: learning rates by the beginning of a parameter's name, as in `{"connector": 2e-3, "language": 2e-5}`: a module or a
            single parameter. Of two that fit, the longer one counts.

    Returns:
        first `None` and what no name in `lrs` fits, if there is such; then each rate and its parameters, in the order of `lrs`.

    Raises:
        ValueError: nothing in the model learns; a name that the model does not have, or that is frozen as a whole; a rate that
            is not above zero; a parameter that is shared by two parts with different rates.
    """
    trainable = {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    if not trainable:
        raise ValueError(f"nothing to train: {type(model).__name__} has no parameter that requires a gradient.")
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for prefix, lr in lrs.items():
        if not any(_fits(prefix, name) for name in known):
            parts = sorted({name.split(".")[0] for name in known})
            raise ValueError(f"lrs names {prefix!r}, and {type(model).__name__} has no such part; it has {', '.join(parts)}.")
        if not any(_fits(prefix, name) for name in trainable):
            raise ValueError(f"lrs gives {prefix!r} a learning rate, but all of it is frozen; leave it out, or let it learn.")
        if not (0 < lr < math.inf):
            raise ValueError(f"the learning rate of {prefix!r} is {lr}; it must be above 0. To leave a part alone, freeze it.")
    owner: dict[nn.Parameter, tuple[str | None, str]] = {}
    for name, p in trainable.items():
        prefix = max((prefix for prefix in lrs if _fits(prefix, name)), key=len, default=None)
        first, other = owner.setdefault(p, (prefix, name))
        if first != prefix and _rate(lrs, first) != _rate(lrs, prefix):
            raise ValueError(f"{other} and {name} are one parameter, and lrs gives them two learning rates; give them one.")
    parts = [(_rate(lrs, prefix), [p for p, (mine, _) in owner.items() if mine == prefix]) for prefix in (None, *lrs)]
    return [(lr, parameters) for lr, parameters in parts if parameters]


def _rate(lrs: Mapping[str, float], prefix: str | None) -> float | None:
    return None if prefix is None else float(lrs[prefix])


def _fits(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
