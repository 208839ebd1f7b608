"""What a notebook says about itself: its preset, seed and arms, and what it measured.

    lesson = Lesson("01_clip")
    run = lesson.choose(cpu=dict(steps=600, width=64), gpu=dict(steps=4000, width=256), smoke=dict(steps=2))
    ...
    lesson.record("captions beat labels", with_captions=0.91, with_labels=0.62)
    lesson.expect(0.91 - 0.62, at_least=0.1, what="the gain from captions")

The environment chooses: MINIVLM_PRESET (cpu, gpu, smoke), MINIVLM_SEED, MINIVLM_ARMS (lesson, all), MINIVLM_RESULTS (a
file to which `record` appends; a relative one is meant from the checkout). The preset `smoke` takes a few steps, only to
see that every cell runs: claims are recorded and not asserted.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from minivlm.course import environment

ROOT = Path(__file__).resolve().parents[2]


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
    def all_arms(self) -> bool:
        """True if every ablation arm is to be trained, not only the one that the lesson shows."""
        return self.arms == "all"

    def __repr__(self) -> str:
        return f"Lesson {self.name}: preset {self.preset}, seed {self.seed}, arms {self.arms}, device {self.device}"

    def choose(self, *, cpu: dict[str, Any], gpu: dict[str, Any], smoke: dict[str, Any]) -> SimpleNamespace:
        """The settings of the chosen preset: `cpu`, with what `gpu` or `smoke` say otherwise.

        Raises ValueError for a setting that `cpu` does not have.
        """
        for preset, given in (("gpu", gpu), ("smoke", smoke)):
            if unknown := sorted(set(given) - set(cpu)):
                raise ValueError(f"{preset}= sets {', '.join(unknown)}, which cpu= does not have: {', '.join(cpu)}")
        return SimpleNamespace(**{**cpu, **{"cpu": {}, "gpu": gpu, "smoke": smoke}[self.preset]})

    def record(self, claim: str, **numbers: Any) -> None:
        """Print the claim with its numbers, and append them to the file MINIVLM_RESULTS if there is one.

        The first number is that of the model with its idea, the second without it; `chance` and `blind` are levels to
        compare with: the README shows these, the notebook all. Record first, assert after: what did not reproduce is a
        result too. Raises TypeError for what is not a number.
        """
        plain = {key: as_number(key, value) for key, value in numbers.items()}
        shown = ", ".join(f"{key} {value:.4g}" for key, value in plain.items())
        print(f"claim: {claim}" + (f" | {shown}" if shown else ""))
        if path := environment.results(os.environ, ROOT):
            about = {"notebook": self.name, "claim": claim, **self.circumstances()}
            if taken := sorted(set(plain) & set(about)):
                raise ValueError(f"record: {', '.join(taken)} is a column of every row; choose another name for the number")
            row = about | plain
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")

    def circumstances(self) -> dict[str, Any]:
        """What a number depends on beside the code."""
        from minivlm import world

        on_gpu = self.device.type == "cuda"
        return {
            "seed": self.seed,
            "preset": self.preset,
            "arms": self.arms,
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "torch": torch.__version__,
            "world": world.VERSION,
        }

    def expect(
        self, value: Any, *, at_least: float | int | None = None, at_most: float | int | None = None, what: str = "the value"
    ) -> None:
        """Raise AssertionError if `value` is outside the bounds (NaN always is); in `smoke`, do nothing.

        Raises ValueError if no bound is given.
        """
        if at_least is None and at_most is None:
            raise ValueError("expect needs a bound: at_least= or at_most=")
        if self.preset == "smoke":
            return
        value = as_number(what, value)
        if at_least is not None and not value >= at_least:
            raise AssertionError(f"{what} is {value:.4g}, expected at least {at_least:.4g}")
        if at_most is not None and not value <= at_most:
            raise AssertionError(f"{what} is {value:.4g}, expected at most {at_most:.4g}")

    def results(self) -> list[dict[str, Any]]:
        """The stored rows of this notebook (results/NAME.jsonl), an empty list if there are none."""
        path = ROOT / "results" / f"{self.name}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


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
