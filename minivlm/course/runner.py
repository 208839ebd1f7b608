"""Run notebooks as they are stored, for a learner or an experiment; nothing in the checkout is written.

OUT/NAME.ipynb is the executed copy (of a failed notebook too, up to the cell that fails), OUT/summary.json the summary.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from minivlm.course import environment as wishes
from minivlm.course.execute import execute
from minivlm.course.files import Course, CourseError, read, write
from minivlm.course.progress import Progress


@dataclass(frozen=True)
class Settings:
    """What is handed to the notebooks in their environment; None leaves it as it is."""

    preset: str | None = None
    seed: int | None = None
    arms: str | None = None

    def environment(self) -> dict[str, str]:
        given = {f"MINIVLM_{name.upper()}": str(value) for name, value in asdict(self).items() if value is not None}
        inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        whole = inherited | given
        if results := wishes.results(whole, Path.cwd()):  # the kernel's working directory is another
            whole["MINIVLM_RESULTS"] = str(results)
        return whole


@dataclass(frozen=True)
class Outcome:
    """One line of the summary."""

    notebook: str
    status: str  # "passed", "failed" or "stopped"
    seconds: float
    claim: str
    error: str
    expectation: str = ""  # the one that failed, if that is why it failed


def claims(notebook: NotebookNode) -> str:
    """The lines beginning with `claim:` that a notebook printed."""
    printed = (
        line
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
        for line in output.text.splitlines()
    )
    return "; ".join(line.removeprefix("claim:").strip() for line in printed if line.startswith("claim:"))


def run_one(course: Course, name: str, out: Path, environment: dict[str, str]) -> Outcome:
    """Run one notebook and write its executed copy."""
    notebook = read(course.notebook(name))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    progress = Progress(name, notebook)
    status, error, expectation = "passed", "", ""
    running = {"cell": 0}

    def start(index: int) -> None:
        running["cell"] = index
        progress.start(index)

    try:
        execute(notebook, course.notebooks, environment, on_start=start, on_text=progress.text)
    except CellExecutionError as failure:
        status, error = "failed", f"cell {running['cell'] + 1}: {failure.ename}: {failure.evalue}"
        expectation = failure.evalue if failure.ename == "ExpectationFailed" else ""
        progress.line(f"{name}  cell {running['cell'] + 1} of {len(notebook.cells)} fails:\n{failure}")
    except DeadKernelError:
        status, error = "failed", f"cell {running['cell'] + 1}: the kernel died (out of memory?)"
        progress.line(f"{name}  {error}")
    except KeyboardInterrupt:
        status, error = "stopped", f"cell {running['cell'] + 1}: stopped"
    finally:
        write(out / f"{name}.ipynb", nbformat.writes(notebook, indent=1) + "\n")
    progress.clear()
    return Outcome(name, status, round(progress.seconds, 1), claims(notebook), error, expectation)


def table(outcomes: list[Outcome]) -> str:
    """The summary in columns."""
    rows = [("notebook", "status", "seconds", "claim")]
    rows += [(o.notebook, o.status, f"{o.seconds:.1f}", o.error or o.claim) for o in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows)


def check(environment: dict[str, str]) -> None:
    """Raise CourseError for settings that no notebook takes, before a kernel is started; warn of a long run."""
    try:
        wishes.check(environment)
    except ValueError as error:
        raise CourseError(str(error)) from error
    if environment.get("MINIVLM_PRESET") == "gpu" and not has_gpu():
        print("the preset gpu, and no GPU that PyTorch can use: this runs on the CPU and takes long", file=sys.stderr)


def has_gpu() -> bool:
    import torch  # seconds, and only needed here

    return torch.cuda.is_available()


def run(course: Course, names: list[str], out: Path, settings: Settings) -> int:
    """Run notebooks one after the other. Returns the exit status: 0, or 1 if any failed.

    Raises CourseError if a notebook is not built, if a setting does not exist, or if `out` cannot be written or is the
    notebooks' own folder; KeyboardInterrupt if it is stopped, with what there is by then written.
    """
    if out == course.notebooks.resolve():
        raise CourseError(f"--out {out} is the folder of the notebooks themselves; give another one")
    for name in names:
        read(course.notebook(name))
    environment = settings.environment()
    check(environment)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write(out / "summary.json", "[]\n")
    except OSError as error:
        raise CourseError(f"cannot write into --out {out}: {error.strerror}. Give a folder of your own.") from error
    outcomes: list[Outcome] = []
    for name in names:
        outcomes.append(run_one(course, name, out, environment))
        if len(names) > 1:
            print(f"{name}  {outcomes[-1].status} in {outcomes[-1].seconds:.1f} s", flush=True)
        write(out / "summary.json", json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
        if outcomes[-1].status == "stopped":
            raise KeyboardInterrupt
    print(f"\n{table(outcomes)}\n\nExecuted copies and summary.json: {out}", flush=True)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0
