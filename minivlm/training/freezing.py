"""Parts that a stage of training leaves alone: they learn nothing, stay in eval mode, and a checksum says that it is so."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Modules inside a `with frozen(...)` now, so that `train_mode` knows them.
_FROZEN: list[nn.Module] = []


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Keep modules as they are: without gradients and in eval mode, and the same to the last bit at the end.

        with frozen(model.vision, model.language):
            fit(model, batches, steps)

    At the end gradients and modes are as they were before: call `model.eval()` before you use the model. It may be nested, and
    modules may lie in one another. A loop of your own must say `train_mode(model)` instead of `model.train()`, as `fit` does.

    Raises:
        ValueError: no modules.
        RuntimeError: at the end, a parameter or buffer has changed, come or gone; the message has its name. (An error from
            inside is passed on instead.)
    """
    if not modules:
        raise ValueError("frozen() takes the modules to freeze, as in frozen(model.vision, model.language).")
    before = [_fingerprints(module) for module in modules]
    flags = {p: p.requires_grad for module in modules for p in module.parameters()}
    modes = {part: part.training for module in modules for part in module.modules()}
    _FROZEN.extend(modules)
    try:
        for module in modules:
            module.requires_grad_(False).eval()
        yield
        for module, marks in zip(modules, before, strict=True):
            _compare(module, marks)
    finally:
        for module in modules:
            _FROZEN.remove(module)
        for p, flag in flags.items():
            p.requires_grad_(flag)
        for part, mode in modes.items():
            part.training = mode


def train_mode(model: nn.Module) -> None:
    """`model.train()`, but what is frozen stays in eval mode: no dropout, no running statistics. Frozen is what stands in a
    `with frozen(...)`, and any module all of whose parameters are without gradient.

    Raises:
        ValueError: a parameter inside a `with frozen(...)` belongs to a trained part of the model too.
    """
    _check_sharing(model)
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
    for module in _FROZEN:  # some have no parameters
        module.eval()


def _fingerprints(module: nn.Module) -> dict[str, str]:
    """A mark of each parameter and buffer, of its bits, shape and type."""
    named = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    return {name: _fingerprint(tensor) for name, tensor in named.items()}


def _fingerprint(tensor: Tensor) -> str:
    tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # one's own shard, if it is shared out
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def _compare(module: nn.Module, before: dict[str, str]) -> None:
    after = _fingerprints(module)
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    if changed:
        first, kind = changed[0], type(module).__name__
        what = "is gone" if first not in after else "is new" if first not in before else "has changed"
        more = f", and so have {len(changed) - 1} others" if changed[1:] else ""
        raise RuntimeError(
            f"{first} of the frozen {kind} {what}{more}. Something other than the optimizer wrote to it: look for in-place"
            " changes, after_step, or a part of it that was put into training mode."
        )


def _check_sharing(model: nn.Module) -> None:
    """No parameter may be both inside and outside the frozen modules of `model`."""
    inside, outside = {}, {}
    roots = set(_FROZEN)

    def walk(module: nn.Module, name: str, ice: bool) -> None:
        ice = ice or module in roots
        for key, p in module.named_parameters(recurse=False, remove_duplicate=False):
            (inside if ice else outside).setdefault(p, f"{name}{key}")
        for key, child in module.named_children():
            walk(child, f"{name}{key}.", ice)

    walk(model, "", False)
    for p, name in inside.items():
        if p in outside:
            raise ValueError(
                f"{name} is frozen, and the same parameter is {outside[p]} of a trained part, which could not learn. Freeze"
                " both parts, or give each a copy of its own."
            )
