"""The stored rows of the claims, results/NAME.jsonl: one row a claim, seed, preset, arms and kind of device.

Notable: a file is read, changed and replaced under a lock that the system lets go when its holder dies, and replaced
whole. So two runners lose no row of each other, and one that is killed leaves the file as it was.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minivlm.course.environment import ARMS
from minivlm.course.files import CourseError, write
from minivlm.survey import evidence

LOCK = ".lock.tmp"  # git ignores it


@dataclass(frozen=True)
class Run:
    """One execution of one notebook: the rows that it leaves share these."""

    notebook: str
    seed: int
    preset: str
    arms: str
    device: str  # "cpu" or "gpu"

    def __str__(self) -> str:
        return f"{self.notebook} seed {self.seed}"


def run_of(row: dict[str, Any]) -> Run:
    """The run that left a row."""
    about = (row.get(key) for key in ("notebook", "seed", "preset", "arms"))
    return Run(*about, device=evidence.device_kind(row))


def file_of(results: Path, notebook: str) -> Path:
    return results / f"{notebook}.jsonl"


def read_rows(results: Path, notebook: str) -> list[dict[str, Any]]:
    """The stored rows of a notebook. Raises CourseError for a damaged file."""
    try:
        return evidence.read_rows(file_of(results, notebook))
    except ValueError as error:
        raise CourseError(str(error)) from error


def replace_rows(results: Path, run: Run, rows: Iterable[dict[str, Any]]) -> None:
    """Store what a run left in the place of what the same run left before, whatever its claims were then.

    Raises CourseError if the folder cannot be written, or if what is there is damaged.
    """
    with locked(results):
        kept = [row for row in read_rows(results, run.notebook) if run_of(row) != run]
        found = [*kept, *rows]
        claims = {claim: place for place, claim in enumerate(dict.fromkeys(row.get("claim", "") for row in found))}
        found.sort(key=lambda row: order(claims, row))
        write(file_of(results, run.notebook), "".join(json.dumps(row) + "\n" for row in found))


def order(claims: dict[str, int], row: dict[str, Any]) -> tuple:
    """Rows lie claim by claim and seed by seed; those of all arms last, because of one seed's rows the last counts."""
    arms = ARMS.index(row["arms"]) if row.get("arms") in ARMS else -1
    seed = row.get("seed") if isinstance(row.get("seed"), int) else -1
    return claims[row.get("claim", "")], str(row.get("preset")), evidence.device_kind(row), arms, seed


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait for whoever has it. Raises CourseError if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / LOCK).open("a+b")
    except OSError as error:
        raise CourseError(f"cannot write into {folder}: {error.strerror}; name another folder with --results") from error
    with stream:
        hold(stream.fileno())
        yield


if os.name == "nt":
    import msvcrt

    def hold(descriptor: int) -> None:
        """Lock the first byte; let go when the file is closed."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        while True:
            try:
                return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.05)

else:
    import fcntl

    def hold(descriptor: int) -> None:
        """Lock the file; let go when it is closed."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)
