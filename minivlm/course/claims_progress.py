"""What the claims runner says while it runs: a line for what happened; what is under way, on a terminal all the time."""

import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOBase
from typing import Protocol, runtime_checkable

from minivlm.course.rows import Run

EVERY = 60  # seconds between two lines on what is under way, where there is no terminal


@runtime_checkable
class UnderWay(Protocol):
    """A run that is under way: how long by now, and in which section of its notebook."""

    run: Run
    seconds: float
    now: str


class Board:
    """Counts runs, guesses the time that is left, and prints.

    `known`: seconds that a run of a notebook took before; it is corrected by every run that ends.
    """

    def __init__(self, jobs: int, known: Mapping[str, float], wanted: int, stream: TextIOBase | None = None) -> None:
        self.jobs, self.known, self.wanted, self.done = jobs, dict(known), wanted, 0
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.told = time.monotonic()

    def note(self, run: Run, seconds: float) -> None:
        """A run ended."""
        self.known[run.notebook] = seconds
        self.done += 1

    def left(self, todo: Iterable[Run], running: Sequence[UnderWay]) -> str:
        """How many runs are left, and about how long they take; an empty text if none is."""
        todo = list(todo)
        count = len(todo) + len(running)
        return f"; {count} left{self.time_left(todo, running)}" if count else ""

    def time_left(self, todo: Sequence[Run], running: Sequence[UnderWay]) -> str:
        """A notebook that was never run is taken to be like those known; an empty text if none is known."""
        count = len(todo) + len(running)
        if not self.known or not count:
            return ""
        usual = sum(self.known.values()) / len(self.known)
        work = sum(self.known.get(run.notebook, usual) for run in todo)
        rest = [max(0.0, self.known.get(worker.run.notebook, usual) - worker.seconds) for worker in running]
        return f", about {duration(max([(work + sum(rest)) / min(self.jobs, count), *rest]))}"

    def show(self, todo: Iterable[Run], running: Sequence[UnderWay]) -> None:
        """What is under way: rewritten on a terminal, else a line every so often."""
        if not running or not self.live and time.monotonic() - self.told < EVERY:
            return
        self.told = time.monotonic()
        under_way = ", ".join(f"{worker.run} ({worker.now}, {worker.seconds:.0f} s)" for worker in running)
        text = f"running {under_way}{self.left(todo, running)}"
        if self.live:
            print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", file=self.stream, flush=True)
        else:
            self.line(text)

    def line(self, text: str) -> None:
        print(("\r\033[K" if self.live else "") + text, file=self.stream, flush=True)

    def clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
