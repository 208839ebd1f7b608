"""What a notebook says about itself: its preset, seed and arms, and what it measured.

    lesson = Lesson("01_clip")
    run = lesson.choose(cpu=dict(steps=600, width=64), gpu=dict(steps=4000, width=256), smoke=dict(steps=2))
    ...
    lesson.record("captions beat labels", with_captions=0.91, with_labels=0.62)
    lesson.expect(0.91 - 0.62, at_least=0.1, what="the gain from captions")

The environment chooses: MINIVLM_PRESET (cpu, gpu, smoke, gpu-smoke), MINIVLM_SEED, MINIVLM_ARMS (lesson, all),
MINIVLM_RESULTS (a file to which `record` appends; a relative one is meant from the checkout). The preset `smoke` takes a few
steps, only to see that every cell runs: claims are recorded and not asserted. `gpu-smoke` does so at the sizes of `gpu`.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from minivlm.course import environment

if TYPE_CHECKING:
    from minivlm.survey.evidence import Evidence

ROOT = Path(__file__).resolve().parents[2]


class ExpectationFailed(AssertionError):
    """A number is not what the lesson expects. It was recorded before: what did not reproduce is a result too."""


class Lesson:
    """One run of one notebook.

    Seeds torch, and on a CPU gives it one thread: small models are faster so, and sums come out the same everywhere.
    """

    def __init__(self, name: str) -> None:
        """Raises ValueError for a preset, a seed or arms that do not exist, or a file of results that cannot be written."""
        self.name = name
        self.preset = environment.choice(
            os.environ, "MINIVLM_PRESET", environment.PRESETS, "gpu" if torch.cuda.is_available() else "cpu"
        )
        self.arms = environment.choice(os.environ, "MINIVLM_ARMS", environment.ARMS, "lesson")
        self.seed = environment.seed(os.environ)
        if path := environment.results(os.environ, ROOT):
            refuse_unwritable(path)
        self.device = torch.device("cuda" if self.preset == "gpu" and torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        torch.manual_seed(self.seed)

    @property
    def large(self) -> bool:
        """True for models of the size that a GPU trains."""
        return self.preset.startswith("gpu")

    @property
    def short(self) -> bool:
        """True if only a few steps are taken, which measure nothing."""
        return self.preset.endswith("smoke")

    @property
    def all_arms(self) -> bool:
        """True if every ablation arm is to be trained, not only the one that the lesson shows."""
        return self.arms == "all"

    def __repr__(self) -> str:
        return f"Lesson {self.name}: preset {self.preset}, seed {self.seed}, arms {self.arms}, device {self.device}"

    def choose(self, *, cpu: dict[str, Any], gpu: dict[str, Any], smoke: dict[str, Any]) -> SimpleNamespace:
        """The settings of the chosen preset: `cpu`, with what `gpu`, `smoke` or both say otherwise.

        Raises ValueError for a setting that `cpu` does not have.
        """
        for preset, given in (("gpu", gpu), ("smoke", smoke)):
            if unknown := sorted(set(given) - set(cpu)):
                raise ValueError(f"{preset}= sets {', '.join(unknown)}, which cpu= does not have: {', '.join(cpu)}")
        return SimpleNamespace(**cpu | (gpu if self.large else {}) | (smoke if self.short else {}))

    def record(self, claim: str, **numbers: Any) -> None:
        """Print the claim with its numbers, and append them to the file MINIVLM_RESULTS if there is one.

        The first number is that of the model with its idea, the second without it, and more is better: the claim is that
        the first is larger. `chance` and `blind` are levels to compare with: the README shows these, the notebook all.
        Write the claim as a plain string: the runner of the claims reads it off the cell, to know what a seed that
        crashed did not measure. Record first, assert after: what did not reproduce is a result too.

        Raises TypeError for what is not a number, ValueError for a number named as a column of every row.
        """
        from minivlm.survey.evidence import CIRCUMSTANCES

        if taken := sorted(set(numbers) & CIRCUMSTANCES):
            raise ValueError(f"record: {', '.join(taken)} is a column of every row; choose another name for the number")
        plain = {key: as_number(key, value) for key, value in numbers.items()}
        shown = ", ".join(f"{key} {value:.4g}" for key, value in plain.items())
        print(f"claim: {claim}" + (f" | {shown}" if shown else ""))
        if path := environment.results(os.environ, ROOT):
            row = {"notebook": self.name, "claim": claim, **self.circumstances()} | plain
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")

    def circumstances(self) -> dict[str, Any]:
        """What a number depends on beside the code."""
        return {"seed": self.seed, "preset": self.preset, "arms": self.arms, **surroundings(self.device)}

    def expect(
        self, value: Any, *, at_least: float | int | None = None, at_most: float | int | None = None, what: str = "the value"
    ) -> None:
        """Raise ExpectationFailed, an AssertionError, if `value` is outside the bounds (NaN always is); in `smoke`, do nothing.

        Raises ValueError if no bound is given.
        """
        if at_least is None and at_most is None:
            raise ValueError("expect needs a bound: at_least= or at_most=")
        if self.short:
            return
        value = as_number(what, value)
        if at_least is not None and not value >= at_least:
            raise ExpectationFailed(f"{what} is {value:.4g}, expected at least {at_least:.4g}")
        if at_most is not None and not value <= at_most:
            raise ExpectationFailed(f"{what} is {value:.4g}, expected at most {at_most:.4g}")

    def results(self) -> list[dict[str, Any]]:
        """The stored rows of this notebook (results/NAME.jsonl), an empty list if there are none.

        A row of a seed that crashed has an `error` and no numbers. Raises ValueError for a damaged file.
        """
        from minivlm.survey.evidence import read_rows

        return read_rows(ROOT / "results" / f"{self.name}.jsonl")

    def evidence(self) -> "list[Evidence]":
        """The stored claims of this notebook over seeds, those of this preset."""
        from minivlm.survey.evidence import evidence

        rows = [row for row in self.results() if row.get("notebook") == self.name and row.get("preset") == self.preset]
        return evidence(rows)

    def stored(self, claim: str) -> dict[str, list[float]]:
        """What is stored of a claim on this preset: each number's name to its values, one a seed, as `plots.bars` takes
        them. Empty if nothing is stored. Of two kinds of device, the one stored last.
        """
        return {found.claim: found.measured for found in self.evidence()}.get(claim, {})

    def verdict(self) -> str:
        """What the stored seeds say of each claim, a line each: means, difference with its interval, reproduced or not.

        It depends on what is stored and on nothing else.
        """
        lines = [f"{found.claim}\n  {found}" for found in self.evidence() if found.claim]
        missing = f"nothing stored for preset {self.preset}: python -m minivlm claims {self.name} --preset {self.preset}"
        return "\n".join(lines) or missing


def surroundings(device: torch.device) -> dict[str, str]:
    """The columns of a row that say where it was made."""
    from minivlm import world

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "world": world.VERSION,
    }


def refuse_unwritable(path: Path) -> None:
    """Raise ValueError if this file could not be appended to: better before the training than after it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ValueError(f"MINIVLM_RESULTS={path}: cannot write there ({error.strerror}); name a file of your own") from error


def as_number(name: str, value: Any) -> float | int:
    """A plain number from a number, or from an array or a tensor of one element. Raises TypeError for anything else."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} should be a number, and is {value!r}")
    return value
