"""notebooks/src/NAME.py -> notebooks/NAME.ipynb, executed and stored with its outputs."""

import os
from collections.abc import Callable

import nbformat
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from minivlm.course import sources
from minivlm.course.execute import execute
from minivlm.course.files import Course, CourseError, read, write

# What the stored outputs were made with, whatever the machine: the tests pin the same.
PINNED = {"MINIVLM_PRESET": "cpu", "MINIVLM_SEED": "0", "OMP_NUM_THREADS": "1"}
UNSET = ("MINIVLM_ARMS", "MINIVLM_RESULTS", "MPLBACKEND")


def describe(cell: NotebookNode) -> str:
    """A cell in a few words, for messages."""
    where = cell.metadata.get("minivlm", {})
    first = next((line for line in cell.source.splitlines() if line.strip()), "(empty)")
    return f"{cell.cell_type}, " + (f"include of {where['include']}" if "include" in where else repr(first[:60]))


def differences(built: NotebookNode, stored: NotebookNode) -> list[str]:
    """How a stored notebook differs from its source, cell by cell, in words. Outputs are not compared."""
    found = []
    if built.metadata != stored.metadata:
        found.append(f"notebook metadata: stored {dict(stored.metadata)}, should be {dict(built.metadata)}")
    if len(built.cells) != len(stored.cells):
        found.append(f"{len(stored.cells)} cells are stored, the source has {len(built.cells)}")
    for number, (new, old) in enumerate(zip(built.cells, stored.cells, strict=False), start=1):
        for part in ("cell_type", "source", "metadata", "id"):
            if new.get(part) != old.get(part):
                found.append(f"cell {number} ({describe(new)}): {part} differs{first_difference(new, old, part)}")
                break
    return found


def first_difference(new: NotebookNode, old: NotebookNode, part: str) -> str:
    """Where two cells differ: the first differing line of their sources, or the two values."""
    if part != "source":
        return f": stored {old.get(part)!r}, should be {new.get(part)!r}"
    ours, theirs = new.source.splitlines(), old.source.splitlines()
    for line in range(max(len(ours), len(theirs))):
        mine, stored = (text[line] if line < len(text) else "(no line)" for text in (ours, theirs))
        if mine != stored:
            return f" in line {line + 1}: stored {stored!r}, should be {mine!r}"
    return ""


def check(course: Course, name: str, header: sources.HeaderText = sources.survey_header) -> list[str]:
    """What is out of step between a source, the package and the stored notebook; nothing is run."""
    if not course.source(name).exists():
        return [f"{course.notebook(name)} has no source {course.source(name)}"]
    text = course.text(name)
    found = []
    if sources.unparse(sources.parse(text)) != text:
        found.append(f"{course.source(name)} is not written as jupytext writes it; put it right with --tidy")
    if not course.notebook(name).exists():
        return [*found, f"not built yet; make it with: python -m minivlm build {name}"]
    return found + differences(sources.build(course, name, header), read(course.notebook(name)))


def has_outputs(notebook: NotebookNode) -> bool:
    """True if every code cell that has code was run."""
    return all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip())


def build(
    course: Course,
    name: str,
    force: bool = False,
    header: sources.HeaderText = sources.survey_header,
    on_start: Callable[[int, int], None] | None = None,
) -> bool:
    """Build and run one notebook if its cells changed. Returns whether it was written.

    Raises CourseError if a cell fails; the stored notebook is then left as it was.
    """
    built = sources.build(course, name, header)
    path = course.notebook(name)
    if not force and path.exists():
        stored = read(path)
        if not differences(built, stored) and has_outputs(stored):
            return False
    environment = {key: value for key, value in os.environ.items() if key not in UNSET} | PINNED
    metadata = built.metadata.copy()
    try:
        execute(
            built,
            course.notebooks,
            environment,
            on_start=lambda index: on_start(index + 1, len(built.cells)) if on_start else None,
        )
    except CellExecutionError as error:
        raise CourseError(f"{name} was not built, because a cell fails:\n{error}") from error
    built.metadata = metadata
    write(path, nbformat.writes(built, indent=1) + "\n")
    return True


def tidy(course: Course, name: str) -> bool:
    """Rewrite a source as jupytext writes it. Returns whether that changed anything."""
    path, text = course.source(name), course.text(name)
    tidied = sources.unparse(sources.parse(text))
    if tidied != text:
        write(path, tidied)
    return tidied != text
