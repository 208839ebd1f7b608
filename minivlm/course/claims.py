"""`python -m minivlm claims`: run notebooks over seeds, several at a time, and keep what they measured in results/.

Notable: each run is a process with a kernel of its own, one thread each. What it measured is stored when it ends, so a
call that was stopped, or killed, is gone on with by the same call: only what is missing, stale or crashed is run. A run
that crashes leaves a row that says so, and a claim that fails its expectation keeps its numbers.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minivlm.course import builder, dependencies, runner
from minivlm.course.claims_progress import Board
from minivlm.course.files import Course, CourseError
from minivlm.course.rows import Run, read_rows, replace_rows, run_of
from minivlm.course.runner import Outcome, Settings
from minivlm.course.staleness import FRESH, Inputs, inputs, run_state, status, table
from minivlm.course.worker import OUTCOME
from minivlm.survey.evidence import CIRCUMSTANCES, evidence, numbers, short

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]|\r")


@dataclass(frozen=True)
class Request:
    """What is asked for: seeds 0 to `seeds` - 1 of each notebook; `fresh` runs again what is stored."""

    results: Path
    seeds: int = 5
    preset: str = "cpu"
    arms: str = "all"
    jobs: int = 2
    fresh: bool = False

    @property
    def device(self) -> str:
        return "gpu" if self.preset == "gpu" and runner.has_gpu() else "cpu"

    def runs(self, names: Iterable[str]) -> list[Run]:
        device = self.device
        return [Run(name, seed, self.preset, self.arms, device) for name in names for seed in range(self.seeds)]


class Worker:
    """A run that is under way, in a process that ends when this one does."""

    def __init__(self, course: Course, run: Run) -> None:
        self.run, self.inputs, self.began = run, inputs(course, run.notebook), time.monotonic()
        self.declared = dependencies.claims(course, run.notebook)
        self.folder = Path(tempfile.mkdtemp(prefix="minivlm-claims-"))
        self.rows = self.folder / "rows.jsonl"
        given = Settings(run.preset, run.seed, run.arms).environment() | ONE_THREAD | {"MINIVLM_RESULTS": str(self.rows)}
        command = [sys.executable, "-m", "minivlm.course.worker", str(course.root), run.notebook, str(self.folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        # A session of its own: Ctrl-C reaches this process alone, which then lets its workers stop.
        self.process = subprocess.Popen(
            command, env=given, encoding="utf-8", errors="replace", start_new_session=True, **pipes
        )
        self.said: deque[str] = deque(maxlen=40)
        self.ended: Outcome | None = None  # once it is stored: what became of it, and the rows that it left
        self.left: list[dict[str, Any]] = []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self) -> None:
        for line in self.process.stdout:
            self.said.append(COLOUR.sub("", line).rstrip())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def now(self) -> str:
        """The section that it is in."""
        for line in reversed(list(self.said)):
            if found := re.search(r"  cell \d+ of \d+  \d+ s  (.+)$", line):
                return found[1]
        return "starting"

    def done(self) -> bool:
        return self.process.poll() is not None

    def outcome(self) -> Outcome:
        """What became of it, once it is done."""
        try:
            return Outcome(**json.loads((self.folder / OUTCOME).read_text(encoding="utf-8")))
        except FileNotFoundError:
            error = f"its process ended without a word (exit status {self.process.returncode}; out of memory?)"
            return Outcome(self.run.notebook, "failed", round(self.seconds, 1), "", error)

    def close(self) -> None:
        """Stop it if it runs, and remove what it wrote."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=12)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join(timeout=2)
        if not self.listener.is_alive():
            self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def rows_of(
    run: Run, made_with: Inputs, declared: Iterable[str], recorded: Iterable[Mapping[str, Any]], outcome: Outcome
) -> list[dict[str, Any]]:
    """The rows that a run leaves: those that it recorded, and if it failed one for each claim that it did not get to.

    A run without any claim leaves one row whose claim is empty.
    """
    recorded, error = list(recorded), "" if outcome.expectation else outcome.error
    if strange := [run_of(dict(row)) for row in recorded if run_of(dict(row)) != run]:
        error = f"the notebook records as {strange[0]!r}, and was run as {run!r}; Lesson(...) should have the notebook's name"
        recorded = [row for row in recorded if run_of(dict(row)) == run]
    about = {"backbones": made_with.backbones, "code": made_with.code, "seconds": outcome.seconds}
    about |= {"failed": outcome.expectation} if outcome.expectation else {}
    about |= {"error": error} if error else {}
    rows = [{key: row[key] for key in row if key in CIRCUMSTANCES} | about | dict(row) for row in recorded]
    missed = [claim for claim in declared if claim not in {row["claim"] for row in rows}] if outcome.error or error else []
    for claim in missed or ([] if rows else [""]):
        base = {"notebook": run.notebook, "claim": claim, "seed": run.seed, "preset": run.preset, "arms": run.arms}
        rows.append(base | surroundings(run) | about)
    return rows


def surroundings(run: Run) -> dict[str, str]:
    import torch  # seconds, and only needed for a run that did not record them itself

    from minivlm.course import lesson

    return lesson.surroundings(torch.device("cuda" if run.device == "gpu" else "cpu"))


def refuse(course: Course, names: Iterable[str], request: Request) -> None:
    """Raise CourseError for a request that cannot be done, before anything is run."""
    for what, number in (("--seeds", request.seeds), ("--jobs", request.jobs)):
        if number < 1:
            raise CourseError(f"{what} {number}: give 1 or more")
    if request.preset.endswith("smoke") and request.results.resolve() == (course.root / "results").resolve():
        raise CourseError("the preset smoke takes a few steps and measures nothing: keep its rows apart with --results FOLDER")
    for name in names:
        if found := builder.check(course, name):
            raise CourseError(f"{name} is not the notebook of its source ({found[0]}); first: python -m minivlm build {name}")


def with_claims(course: Course, names: Iterable[str]) -> list[str]:
    """Of these notebooks those that are built and record a claim."""
    return [name for name in names if course.notebook(name).exists() and dependencies.claims(course, name)]


def run_claims(course: Course, names: list[str], request: Request) -> int:
    """Run what is missing, stale or crashed. Returns the exit status: 0, or 1 if a run crashed.

    Raises CourseError if a notebook is not built from its source, or if the results cannot be written; KeyboardInterrupt
    if it is stopped: what is done by then is stored.
    """
    refuse(course, names, request)
    runner.check({**os.environ, **Settings(request.preset, 0, request.arms).environment()})
    runs = request.runs(names)
    now = {name: (read_rows(request.results, name), inputs(course, name)) for name in names}
    stored = [run for run in runs if run_state(now[run.notebook][0], run, now[run.notebook][1]) == FRESH]
    todo = deque(run for run in runs if request.fresh or run not in stored)
    board = Board(request.jobs, known_seconds(request, names), len(todo))
    seeds = f"seeds 0 to {request.seeds - 1}" if request.seeds > 1 else "seed 0"
    board.line(
        f"{len(runs)} runs: {', '.join(names)}; {seeds}, preset {request.preset}, arms {request.arms}. "
        f"{len(stored)} are stored, {len(todo)} to run, {request.jobs} at a time{board.time_left(todo, [])}"
    )
    crashed, running = 0, []
    try:
        while todo or running:
            while todo and len(running) < request.jobs:
                run = todo.popleft()
                if not request.fresh and is_fresh(course, run, request.results):
                    board.line(f"{run}: stored by another call meanwhile")
                    continue
                running.append(Worker(course, run))
                board.line(f"{run}: started")
            for worker in [worker for worker in running if worker.done()]:
                running.remove(worker)
                crashed += store(worker, request.results)
                tell(worker, board, todo, running)
            board.show(todo, running)
            time.sleep(0.2)
    except KeyboardInterrupt:
        board.line(f"stopping; {board.done} of {board.wanted} runs are stored, and the same command runs the others")
        raise
    finally:
        board.clear()
        for worker in running:
            worker.close()
    report(request, names)
    return 1 if crashed else 0


def store(worker: Worker, results: Path) -> bool:
    """Store what a run that is done has left. Returns whether it crashed."""
    try:
        worker.listener.join(timeout=2)
        recorded = []
        if worker.rows.exists():
            recorded = [json.loads(line) for line in worker.rows.read_text(encoding="utf-8").splitlines()]
        worker.ended = worker.outcome()
        worker.left = rows_of(worker.run, worker.inputs, worker.declared, recorded, worker.ended)
        replace_rows(results, worker.run, worker.left)
    finally:
        worker.close()
    return any(row.get("error") for row in worker.left)


def tell(worker: Worker, board: Board, todo: Iterable[Run], running: Sequence[Worker]) -> None:
    """Say what a run that is stored measured, or why it crashed."""
    board.note(worker.run, worker.ended.seconds)
    error = next((row["error"] for row in worker.left if row.get("error")), "")
    failed = worker.ended.expectation
    end = f"crashed: {error}" if error else f"failed: {failed}" if failed else "done"
    board.line(f"{worker.run}: {end} ({worker.ended.seconds:.0f} s){board.left(todo, running)}")
    for row in worker.left:
        if found := numbers(row):
            board.line(f"    {row['claim']}: " + ", ".join(f"{name} {short(value)}" for name, value in found.items()))
    if error:
        board.line("\n".join(f"    | {line}" for line in worker.said))


def is_fresh(course: Course, run: Run, results: Path) -> bool:
    return run_state(read_rows(results, run.notebook), run, inputs(course, run.notebook)) == FRESH


def known_seconds(request: Request, names: Iterable[str]) -> dict[str, float]:
    """How long a run of a notebook took the last time, where that is stored."""
    rows = [row for name in names for row in read_rows(request.results, name)]
    alike = [row for row in rows if (row.get("preset"), row.get("arms")) == (request.preset, request.arms)]
    return {row["notebook"]: row["seconds"] for row in alike if row.get("seconds") and not row.get("error")}


def report(request: Request, names: Iterable[str]) -> None:
    """Say what the stored rows say of each claim."""
    for name in names:
        for found in evidence(row for row in read_rows(request.results, name) if row.get("preset") == request.preset):
            if found.claim:
                print(f"{name}  {found.claim}\n    {found}")
    print(f"rows: {request.results}; the README's table: python -m minivlm.survey --write README.md", flush=True)


def print_status(course: Course, names: list[str], request: Request) -> int:
    """Print which stored claims are fresh, and what they say."""
    for name in names:
        if builder.check(course, name):
            print(f"{name}.ipynb is not what its source makes; the lines below are about it: python -m minivlm build {name}")
    seeds = range(request.seeds)
    print(table(status(course, request.results, names, seeds, request.preset, request.arms, request.device)))
    return 0
