"""Runs the cells of one notebook in this process, on the `smoke` preset, and asks three questions on the way.

    python -m tests.notebooks.harness notebooks/01_clip.ipynb wrong_answers.json report.json

1. Does it run although the package's own version of every included definition is broken? (The cell is what runs.)
2. For each included definition: does a later cell fail if the cell's version is broken? (What runs is used.)
3. Does each exercise answer its stub, its solution and known wrong answers as it should?

Questions 2 and 3 are asked in forked children, which have everything that was computed so far and leave no trace.
"""

import ast
import contextlib
import importlib
import io
import json
import linecache
import os
import sys
import traceback
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import jaxtyping

from tests.notebooks import lessons
from tests.notebooks.sabotage import is_marked, sabotage


def in_child(question: Callable[[], dict]) -> dict:
    """The answer of a forked copy of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer = question()
        except BaseException:  # whatever it is has to reach the parent
            answer = {"problem": traceback.format_exc()}
        with os.fdopen(writer, "w") as stream:
            json.dump(answer, stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"problem": "the child died"}


class Run:
    """A namespace in which cells are run, as a kernel would."""

    def __init__(self) -> None:
        from IPython.display import display

        self.module = types.ModuleType("__main__")
        self.module.display = display
        sys.modules["__main__"] = self.module

    @property
    def names(self) -> dict:
        return vars(self.module)

    def execute(self, source: str, name: str) -> str:
        """Run a cell. Returns what it printed; its error is raised."""
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(source, name, "exec"), self.names)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        return printed.getvalue()


def run_cell(run: Run, number: int, cell) -> None:
    """Run a cell; an error is swallowed where the cell's tag announces it."""
    try:
        run.execute(cell.source, f"<cell {number}>")
    except Exception as error:
        if is_marked(error) or "raises-exception" not in cell.metadata.get("tags", []):
            raise


def break_package(cells: list) -> None:
    for _, cell in cells:
        for module, name in lessons.includes(cell):
            thing = getattr(importlib.import_module(module), name)
            sabotage(thing, f"the notebook used {name} of {module} instead of the one in its cell")


def is_alias(thing: object) -> bool:
    """A name for a type, such as `tuple[str, str]` or `Float[Tensor, "b t"]`: it is read when its own cell runs, not later."""
    if isinstance(thing, types.GenericAlias | types.UnionType):
        return True
    return isinstance(thing, type) and issubclass(thing, jaxtyping.AbstractArray)


def is_used(run: Run, name: str, later: list) -> dict:
    """Break a definition of the namespace and run on: {} if a later cell fails for this reason, else what went on."""
    if is_alias(run.names[name]):
        return {}
    if not sabotage(run.names[name], name):
        del run.names[name]
    for number, cell in later:
        try:
            run_cell(run, number, cell)
        except Exception as error:
            if is_marked(error) or (isinstance(error, NameError) and error.name == name):
                return {}
            return {"problem": f"cell {number} failed for another reason: {type(error).__name__}: {error}"}
    return {"problem": "no later cell uses it"}


def with_answer(source: str, answer: str) -> str:
    """A cell with the definitions that an answer replaces, replaced."""
    new = ast.parse(answer).body
    defined = {node.name for node in new if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    body: list[ast.stmt] = []
    placed = False
    for node in ast.parse(source).body:
        if getattr(node, "name", None) not in defined:
            body.append(node)
        elif not placed:
            body += new
            placed = True
    return ast.unparse(ast.Module(body, type_ignores=[]))


def attempt(run: Run, exercise: lessons.Exercise, answer: str | None) -> dict:
    """What an exercise prints and raises with an answer in the place of its stub."""
    printed = ""
    for index, cell in enumerate(exercise.code, start=1):
        try:
            source = cell.source if answer is None else with_answer(cell.source, answer)
            printed += run.execute(source, f"<{exercise.key}, cell {index}>")
        except Exception as error:
            return {"printed": printed, "error": type(error).__name__, "message": str(error)}
    return {"printed": printed, "error": "", "message": ""}


def report(path: Path, wrong: dict) -> dict:
    notebook = lessons.load(path.stem, path.parent)
    cells = [(n, cell) for n, cell in enumerate(notebook.cells, start=1) if cell.cell_type == "code"]
    answer: dict = {"error": "", "unused": {}, "exercises": {}}
    run = Run()
    break_package(cells)
    for position, (number, cell) in enumerate(cells):
        try:
            run_cell(run, number, cell)
        except Exception:
            answer["error"] = f"cell {number}:\n{cell.source}\n\n{traceback.format_exc(limit=-6)}"
            return answer
        for module, name in lessons.includes(cell):
            later = cells[position + 1 :]
            found = in_child(lambda name=name, later=later: is_used(run, name, later))
            if found:
                answer["unused"][f"{module}:{name}"] = found["problem"]
    for exercise in lessons.exercises(notebook):
        answers = {"stub": None, "solution": exercise.solution or "", **dict(wrong.get(exercise.key, []))}
        answer["exercises"][exercise.key] = {
            words: in_child(lambda e=exercise, code=code: attempt(run, e, code)) for words, code in answers.items()
        }
    return answer


def main() -> None:
    notebook, wrong, out = map(Path, sys.argv[1:])
    notebook, out = notebook.resolve(), out.resolve()
    known = json.loads(wrong.read_text(encoding="utf-8"))
    os.chdir(notebook.parent)
    out.write_text(json.dumps(report(notebook, known)), encoding="utf-8")


if __name__ == "__main__":
    main()
