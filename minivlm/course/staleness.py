"""Which stored rows of the claims say what today's code would say.

A row is `fresh` if it was made with the code and the backbones that are here, `stale` if with others, of `unknown code` if
it does not say, and `crashed` if its run ended in an error. A run of which nothing is stored is `missing`. A run whose
expectation failed is none of these: it did not reproduce, its numbers stand.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minivlm.course import dependencies
from minivlm.course.files import Course
from minivlm.course.rows import Run, read_rows, run_of
from minivlm.survey.evidence import Evidence, evidence

FRESH, STALE, UNKNOWN, CRASHED, MISSING = STATES = ("fresh", "stale", "unknown code", "crashed", "missing")


@dataclass(frozen=True)
class Inputs:
    """What a notebook's numbers are made with today: see `minivlm.course.dependencies`."""

    code: str
    backbones: dict[str, str]


def inputs(course: Course, name: str) -> Inputs:
    """Raises CourseError if the notebook is not built, or if it imports what is not there."""
    return Inputs(dependencies.code_hash(course, name), dependencies.backbones(course, name))


def state(row: dict[str, Any], now: Inputs) -> str:
    """One of the first four states."""
    if row.get("error"):
        return CRASHED
    if not row.get("code"):
        return UNKNOWN
    return FRESH if row["code"] == now.code and row.get("backbones", {}) == now.backbones else STALE


def run_state(rows: Iterable[dict[str, Any]], run: Run, now: Inputs) -> str:
    """The state of a run: that of its rows, the worst if they differ."""
    return max((state(row, now) for row in rows if run_of(row) == run), key=STATES.index, default=MISSING)


@dataclass(frozen=True)
class Line:
    """One line of the status: a claim on one preset, with one choice of arms and one kind of device."""

    notebook: str
    claim: str
    preset: str
    arms: str
    device: str
    states: dict[int, str]  # by seed
    found: Evidence | None

    def cells(self) -> list[str]:
        counts = Counter(self.states.values())
        seeds = "; ".join(
            f"{name} {', '.join(str(seed) for seed, its in sorted(self.states.items()) if its == name)}"
            for name in STATES
            if counts[name]
        )
        run = ", ".join([self.preset, f"{self.arms} arms" if self.arms == "all" else "lesson", self.device])
        return [self.notebook, self.claim or "(no claim)", run, seeds, str(self.found) if self.found else ""]


def status(
    course: Course, results: Path, names: Iterable[str], seeds: Iterable[int], preset: str, arms: str, device: str
) -> list[Line]:
    """What is stored of each claim, and what of these seeds, preset and arms is not.

    Raises CourseError if a notebook is not built, or if a file of results is damaged.
    """
    lines = []
    seeds = list(seeds)
    for name in names:
        now, rows = inputs(course, name), read_rows(results, name)
        wanted = [(claim, preset, arms, device) for claim in dependencies.claims(course, name) or [""]]
        stored = [(row.get("claim", ""), *(getattr(run_of(row), key) for key in ("preset", "arms", "device"))) for row in rows]
        for key in dict.fromkeys([*wanted, *stored]):
            claim, *how = key
            here = [row for row, its in zip(rows, stored, strict=True) if its == key]
            states = {row["seed"]: state(row, now) for row in here}
            if how == [preset, arms, device]:  # a run that is stored may have had no cause to record this claim
                ran = {row["seed"] for row, its in zip(rows, stored, strict=True) if list(its[1:]) == how}
                states |= {seed: MISSING for seed in seeds if seed not in ran}
            if states:
                lines.append(Line(name, *key, states, next((e for e in evidence(here) if e.seeds), None)))
    return lines


def table(lines: Iterable[Line]) -> str:
    """The status in columns."""
    rows = [["notebook", "claim", "run", "seeds", "over all stored seeds"], *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
