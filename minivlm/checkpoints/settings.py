"""A `config.json`, field by field: each is checked, and read and written from one table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minivlm.checkpoints.errors import CheckpointError


@dataclass(frozen=True)
class Field:
    """One number: their name, our name, and what it is when the file does not say (the reference's own default)."""

    theirs: str
    ours: str
    default: int | float


@dataclass(frozen=True)
class Settings:
    """One object of a config file; `where` begins each message."""

    values: Mapping[str, Any]
    where: str

    def part(self, name: str) -> "Settings":
        """An object inside this one; empty if it is not there, which means: all as the reference's default.

        Raises:
            CheckpointError: it is something else.
        """
        values = self.values.get(name)
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{self.where}: {name} is {values!r}; expected an object {{...}} with its settings.")
        return Settings(values, f"{self.where}: {name}")

    def number(self, name: str, default: int | float) -> int | float:
        """A number above zero, of the default's kind (whole or not).

        Raises:
            CheckpointError: it is something else.
        """
        value = self.values.get(name, default)
        kinds, words = (int, "a whole number") if isinstance(default, int) else ((int, float), "a number")
        if isinstance(value, bool) or not isinstance(value, kinds) or not (0 < value < math.inf):
            raise CheckpointError(f"{self.where}: {name} is {value!r}; expected {words} above 0.")
        return value if isinstance(default, int) else float(value)

    def numbers(self, fields: Sequence[Field]) -> dict[str, int | float]:
        """All of `fields`, under our names."""
        return {field.ours: self.number(field.theirs, field.default) for field in fields}

    def expect(self, fixed: Mapping[str, Any]) -> None:
        """Check the settings that our class has built in.

        Raises:
            CheckpointError: one differs. It would compute something else.
        """
        for name, built_in in fixed.items():
            value = self.values.get(name, built_in)
            if value != built_in:
                raise CheckpointError(
                    f"{self.where}: {name} is {value!r}; this course's class is written for {built_in!r} only."
                    " Another value would give other numbers, so the checkpoint is not loaded."
                )


def written(config: Any, fields: Sequence[Field]) -> dict[str, int | float]:
    """The fields of one of our configs, under their names."""
    return {field.theirs: getattr(config, field.ours) for field in fields}
