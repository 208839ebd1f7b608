"""Any batch of samples as a flat dict of tensors, and back; choosing and joining samples of whatever kind."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from minivlm.world.scenes import Scenes


def pack(sample: Any) -> dict[str, Tensor]:
    """Every tensor of a dataclass of tensors and of such dataclasses, by dotted name: `first.colour`."""
    packed = {}
    for field in fields(sample):
        value = getattr(sample, field.name)
        inner = {f".{name}": tensor for name, tensor in pack(value).items()} if is_dataclass(value) else {"": value}
        packed |= {field.name + name: tensor.contiguous() for name, tensor in inner.items()}
    return packed


def unpack(cls: type, packed: Mapping[str, Tensor], inner: Mapping[str, type] | None = None) -> Any:
    """The sample that was packed. `inner` says of which class a field is that is a dataclass itself (default: Scenes).

    Raises:
        ValueError: tensors that are not those of the class.
    """
    values = {}
    for field in fields(cls):
        start = f"{field.name}."
        within = {name.removeprefix(start): tensor for name, tensor in packed.items() if name.startswith(start)}
        if within:
            values[field.name] = unpack((inner or {}).get(field.name, Scenes), within)
        elif field.name in packed:
            values[field.name] = packed[field.name]
    if set(pack_names(values)) != set(packed) or len(values) < len(fields(cls)):
        expected = [field.name for field in fields(cls)]
        raise ValueError(f"{cls.__name__} is made of {expected}; got the tensors {sorted(packed)}.")
    return cls(**values)


def pack_names(values: Mapping[str, Any]) -> list[str]:
    """The dotted names of all tensors in a dict of tensors and samples."""
    return [
        f"{name}.{within}" if within else name
        for name, value in values.items()
        for within in (pack(value) if is_dataclass(value) else [""])
    ]


def join(parts: Sequence[Any], inner: Mapping[str, type] | None = None) -> Any:
    """One batch from several of the same class, whatever it is."""
    packed = [pack(part) for part in parts]
    return unpack(type(parts[0]), {name: torch.cat([p[name] for p in packed]) for name in packed[0]}, inner)
