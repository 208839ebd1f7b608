"""Would the parity tests notice? What the files with planted mistakes share: one `test_planted_*.py` a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.parity.harness import Case, Mismatch, check


@dataclass(frozen=True)
class Mistake:
    """`seen`: outputs in which the mistake must be seen; `unseen`: outputs that it must not touch, which says that the
    mistake planted is the one meant."""

    name: str
    plant: Callable[[pytest.MonkeyPatch, nn.Module], None]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    cases: tuple[Case, ...]


def registry(mistakes: list[Mistake], default: Case) -> Callable:
    """A decorator that puts a function (monkeypatch, loaded model), which plants a mistake, into the list."""

    def mistake(name: str, seen: tuple[str, ...], unseen: tuple[str, ...] = (), cases: tuple[Case, ...] = (default,)):
        def register(plant):
            mistakes.append(Mistake(name, plant, seen, unseen, cases))
            return plant

        return register

    return mistake


def assert_seen(planted: Mistake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails, where it should and nowhere else."""
    for number, case in enumerate(planted.cases):
        with pytest.raises(Mismatch) as caught:
            check(case, folder / str(number), lambda loaded: planted.plant(monkeypatch, loaded))
        monkeypatch.undo()
        differ = caught.value.names
        assert differ >= set(planted.seen), f"not seen in {sorted(set(planted.seen) - differ)}"
        assert not differ & set(planted.unseen), f"also seen in {sorted(differ & set(planted.unseen))}"


def side_by_side(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of heads of that width, whose rotary pairs are half a head apart, in the order that this course has them: each
    pair side by side. Row by row, unlike the package's.
    """
    half = width // 2
    order = [head + i + side for head in range(0, len(rows), width) for i in range(half) for side in (0, half)]
    return rows[order]


def set_tensor(tensor: torch.Tensor, value: torch.Tensor | float) -> None:
    with torch.no_grad():
        tensor.copy_(torch.as_tensor(value))
