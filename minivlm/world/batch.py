"""What every batch of samples can do: its length, choosing some of it, joining several."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch

Some = TypeVar("Some", bound="Batch")


class Batch:
    """For frozen dataclasses of tensors whose first axis is the batch. An index always gives a batch, even if of one."""

    def __len__(self) -> int:
        return getattr(self, fields(self)[0].name).shape[0]

    def __getitem__(self: Some, index: Any) -> Some:
        """The samples at `index`: a number, a slice, a list or tensor of numbers, a mask.

        Raises:
            IndexError: a single number beyond the batch.
        """
        if not getattr(index, "ndim", 0):  # a mask of one sample would pass for a number
            try:
                number = operator.index(index)
            except TypeError:
                pass
            else:
                if not -len(self) <= number < len(self):
                    raise IndexError(f"sample {number} of {len(self)}: the numbers run from 0 to {len(self) - 1}.")
                index = [number % len(self)]
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    @classmethod
    def join(cls: type[Some], parts: Sequence[Some]) -> Some:
        """One batch from several.

        Raises:
            ValueError: nothing to join, or batches that differ in their other axes.
        """
        if not parts:
            raise ValueError("join needs at least one batch; got none.")
        for field in fields(cls):
            shapes = {tuple(getattr(part, field.name).shape[1:]) for part in parts}
            if len(shapes) > 1:
                raise ValueError(
                    f"join needs batches that differ in length alone; {field.name} has the further axes {sorted(shapes)}."
                    " Draw them with the same settings, such as slots=... for scenes."
                )
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})
