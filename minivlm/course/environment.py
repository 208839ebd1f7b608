"""What the environment may ask of a notebook. Read twice: by the runner, before a kernel starts, and by the lesson.

MINIVLM_PRESET (cpu, gpu, smoke, gpu-smoke), MINIVLM_SEED, MINIVLM_ARMS (lesson, all), MINIVLM_RESULTS (a file).
"""

from collections.abc import Mapping
from pathlib import Path

PRESETS = ("cpu", "gpu", "smoke", "gpu-smoke")
ARMS = ("lesson", "all")
SEEDS = 2**63  # torch takes no larger one


def choice(environment: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    """One of `choices`. Raises ValueError for anything else, naming them."""
    value = environment.get(name) or default
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(choices)}")
    return value


def seed(environment: Mapping[str, str]) -> int:
    """MINIVLM_SEED, 0 if not given. Raises ValueError for what is not a seed."""
    text = environment.get("MINIVLM_SEED") or "0"
    if not text.isdecimal() or len(text) > 19 or int(text) >= SEEDS:
        raise ValueError(f"MINIVLM_SEED={text!r}: give a whole number, 0 or more, below 2**63")
    return int(text)


def results(environment: Mapping[str, str], folder: Path) -> Path | None:
    """MINIVLM_RESULTS, if given; a relative one is meant from `folder`."""
    text = environment.get("MINIVLM_RESULTS")
    return folder / text if text else None


def check(environment: Mapping[str, str]) -> None:
    """Raises ValueError for a preset, arms or a seed that do not exist."""
    choice(environment, "MINIVLM_PRESET", PRESETS, "cpu")
    choice(environment, "MINIVLM_ARMS", ARMS, "lesson")
    seed(environment)
