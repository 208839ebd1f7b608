"""The states of the random generators, as tensors: what a training draws next is part of where it stands."""

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generator = torch.Generator | np.random.Generator


def states(own: Mapping[str, Generator] | None = None) -> dict[str, Tensor]:
    """The state of each generator that everybody shares (torch's, on the CPU and on this GPU, numpy's, Python's), and of
    those in `own`.
    """
    name, keys, *rest = np.random.get_state()
    found = {
        "torch": torch.get_rng_state(),
        "numpy": _pack([name, keys.tolist(), *rest]),
        "python": _pack(random.getstate()),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda"] = torch.cuda.get_rng_state()
    for key, generator in (own or {}).items():
        is_torch = isinstance(generator, torch.Generator)
        found[f"own {key}"] = generator.get_state() if is_torch else _pack(generator.bit_generator.state)
    return found


def restore(found: Mapping[str, Tensor], own: Mapping[str, Generator] | None = None) -> None:
    """Put the generators where `states` found them.

    Raises:
        KeyError: a generator in `own` that was not there then.
    """
    torch.set_rng_state(found["torch"])
    name, keys, *rest = _unpack(found["numpy"])
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    version, state, gauss = _unpack(found["python"])
    random.setstate((version, tuple(state), gauss))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(found["cuda"])
    for key, generator in (own or {}).items():
        state = found[f"own {key}"]
        if isinstance(generator, torch.Generator):
            generator.set_state(state)
        else:
            generator.bit_generator.state = _unpack(state)


def begin_anew(seed: int, own: Mapping[str, Generator] | None = None) -> None:
    """Seed all of them: for a process that was not there when the states were taken."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    for generator in (own or {}).values():
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        else:
            generator.bit_generator.state = type(generator.bit_generator)(seed).state


def _pack(state: Any) -> Tensor:
    return torch.tensor(list(json.dumps(state, default=_plain).encode()), dtype=torch.uint8)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _unpack(tensor: Tensor) -> Any:
    return json.loads(bytes(tensor.tolist()))
