"""What the rows of `results/*.jsonl` say of a claim, over the seeds it was run with.

Notable: seeds are compared in pairs. What a claim says is the difference of its first two numbers (the model with its
idea, and without it) at one seed; the interval of the mean difference is a percentile bootstrap over seeds (Efron and
Tibshirani, An Introduction to the Bootstrap, chapter 13). It is drawn from its own fixed generator: the same rows, the
same interval. A claim whose interval includes zero is not reproduced, and says so wherever it is shown. From few seeds
such an interval is narrower than it should be; from fewer than `NEEDED` nothing is concluded.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LEVELS = ("chance", "blind")
NEEDED = 3  # seeds; two differences have hardly a spread
CONFIDENCE = 0.95
RESAMPLES = 10_000

# Fields of a results row that say how it was made and what became of it, not what was measured.
CIRCUMSTANCES = frozenset(
    {"notebook", "claim", "seed", "preset", "arms", "device", "torch", "world"}
    | {"backbones", "code", "seconds", "error", "failed"}
)

REPRODUCED, NOT, REVERSED = "reproduced", "not reproduced", "not reproduced, but the reverse"
TOO_FEW, NOTHING_TO_COMPARE = f"too few seeds, {NEEDED} needed", "nothing to compare with"

Row = Mapping[str, object]


def read_rows(file: Path) -> list[dict[str, object]]:
    """The rows of one file of results, [] if there is none. Raises ValueError for a line that is not a row."""
    if not file.exists():
        return []
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number} is not a row of results ({line[:60]!r}); mend or remove the line")
            rows.append(row)
    return rows


def device_kind(row: Row) -> str:
    """`cpu` or `gpu`: rows of two GPUs are of one kind."""
    return "cpu" if row.get("device", "cpu") == "cpu" else "gpu"


def numbers(row: Row) -> dict[str, float]:
    """What a row measured, by name."""
    return {
        key: float(value)
        for key, value in row.items()
        if key not in CIRCUMSTANCES and isinstance(value, int | float) and not isinstance(value, bool)
    }


def interval(differences: Sequence[float | int]) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean. Raises ValueError for fewer than `NEEDED` values."""
    differences, count = sorted(differences), len(differences)  # whatever their order, the same interval
    if count < NEEDED:
        raise ValueError(f"an interval over seeds needs {NEEDED} of them or more, and got {count}")
    draw = random.Random(0).random  # of Python's generators the one that stays the same from version to version
    means = sorted(sum(differences[int(draw() * count)] for _ in range(count)) / count for _ in range(RESAMPLES))
    cut = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return means[cut], means[-1 - cut]


def short(value: float | int) -> str:
    """Two decimals, or for what is nearer to zero its first digit."""
    return f"{value:.2f}" if value == 0 or not abs(value) < 0.095 else f"{value:.1g}"


def words(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True)
class Evidence:
    """One claim of one notebook, on one preset and kind of device.

    `measured` maps each number's name to its values, one for each of `seeds`; `without` are seeds of which there is no
    number (they crashed), `failed` those whose run failed an expectation.
    """

    notebook: str
    claim: str
    preset: str
    device: str
    seeds: tuple[object, ...]
    without: tuple[object, ...]
    failed: tuple[object, ...]
    measured: dict[str, list[float]]

    @property
    def main(self) -> list[str]:
        """The names of the first two numbers that are no levels: with the idea, and without it."""
        return [name for name in self.measured if name not in LEVELS][:2]

    @property
    def differences(self) -> list[float]:
        """With the idea minus without it, seed by seed; [] if the claim has only one number."""
        if len(self.main) < 2:
            return []
        return [one - other for one, other in zip(*(self.measured[name] for name in self.main), strict=True)]

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean difference, if there are seeds enough."""
        return interval(self.differences) if len(self.differences) >= NEEDED else None

    @property
    def verdict(self) -> str:
        """`reproduced` if the whole interval lies above zero."""
        if not self.differences:
            return NOTHING_TO_COMPARE
        if self.interval is None:
            return TOO_FEW
        low, high = self.interval
        return REPRODUCED if low > 0 else REVERSED if high < 0 else NOT

    @property
    def count(self) -> str:
        """How many seeds there are, and how many were lost or failed."""
        of = f" of {len(self.seeds) + len(self.without)}" if self.without else ""
        text = f"{len(self.seeds)}{of} seed" + ("" if len(self.seeds) == 1 and not of else "s")
        return text + (f", {len(self.failed)} failed an expectation" if self.failed else "")

    @property
    def difference(self) -> str:
        """The mean difference with its interval, in words; an empty text if there is none."""
        if not self.differences:
            return ""
        text = f"difference {short(mean(self.differences))}"
        return text + (" [{}, {}]".format(*map(short, self.interval)) if self.interval else "")

    def __str__(self) -> str:
        """One line: how many seeds, the means, the difference, the verdict."""
        if not self.main:
            return f"{self.count}: no numbers"
        means = [f"{words(name)} {short(mean(self.measured[name]))}" for name in self.main]
        return f"{self.count}: " + ", ".join([*means, *filter(None, [self.difference])]) + f": {self.verdict}"


def mean(values: Sequence[float | int]) -> float:
    return sum(values) / len(values)


def spread(name: str, values: Sequence[float | int]) -> str:
    """A number's name, its mean over seeds and, if they differ, its lowest and highest value."""
    low, high = short(min(values)), short(max(values))
    return f"{words(name)} {short(mean(values))}" + (f" ({low} to {high})" if low != high else "")


def evidence(rows: Iterable[Row]) -> list[Evidence]:
    """Every claim of these rows, in their order; presets and kinds of device are never averaged together.

    Of several rows of one seed the last with numbers counts. Only numbers that each seed has are kept.
    """
    found: dict[tuple[str, str, str, str], dict[object, Row]] = {}
    for row in rows:
        key = (str(row.get("notebook", "")), str(row.get("claim", "")), str(row.get("preset", "")), device_kind(row))
        seeds = found.setdefault(key, {})
        if numbers(row) or not numbers(seeds.get(row.get("seed"), {})):
            seeds[row.get("seed")] = row
    result = []
    for key, seeds in found.items():
        good = {seed: numbers(row) for seed, row in seeds.items() if numbers(row)}
        names = [name for name in next(iter(good.values()), {}) if all(name in values for values in good.values())]
        result.append(
            Evidence(
                *key,
                seeds=tuple(good),
                without=tuple(seed for seed in seeds if seed not in good),
                failed=tuple(seed for seed, row in seeds.items() if row.get("failed")),
                measured={name: [values[name] for values in good.values()] for name in names},
            )
        )
    return result
