"""The cell is the code that runs, and exercises answer as they should (see harness.py). The `smoke` preset keeps it short."""

import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.notebooks import lessons

WRONG_ANSWERS = Path(__file__).parent / "wrong_answers"
with_exercises = pytest.mark.parametrize("stem", [s for s in lessons.stems() if lessons.exercises(lessons.load(s))])
every_notebook = pytest.mark.parametrize("stem", lessons.stems())


def wrong_answers(stem: str) -> dict[str, list[tuple[str, str]]]:
    """Exercise to [(code, words that the message has to contain)]."""
    path = WRONG_ANSWERS / f"{stem}.py"
    return runpy.run_path(str(path))["WRONG"] if path.exists() else {}


def ask(notebook: Path, wrong: dict[str, list[tuple[str, str]]]) -> dict:
    """The harness's report on one notebook, from a process of its own."""
    by_label = {key: [(f"wrong {i}", code) for i, (code, _) in enumerate(pairs)] for key, pairs in wrong.items()}
    with tempfile.TemporaryDirectory() as scratch:
        answers, report = Path(scratch, "wrong.json"), Path(scratch, "report.json")
        answers.write_text(json.dumps(by_label), encoding="utf-8")
        command = [sys.executable, "-m", "tests.notebooks.harness", str(notebook), str(answers), str(report)]
        environment = os.environ | {"MINIVLM_PRESET": "smoke", "MPLBACKEND": "agg"}
        done = subprocess.run(command, cwd=lessons.ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"the harness failed on {notebook.name}:\n{done.stdout}\n{done.stderr}"
        return json.loads(report.read_text(encoding="utf-8"))


@functools.cache
def report(stem: str) -> dict:
    return ask(lessons.FOLDER / f"{stem}.ipynb", wrong_answers(stem))


@every_notebook
def test_runs_although_the_package_is_broken(stem):
    """Everything after an include cell uses the cell's definition, so that a reader's edit takes effect."""
    assert not report(stem)["error"], f"{stem}, {report(stem)['error']}"


@every_notebook
def test_every_included_definition_is_used_later(stem):
    unused = report(stem)["unused"]
    assert not unused, f"{stem}: broken in its cell, the notebook still runs on:\n" + "\n".join(
        f"  {name}: {problem}" for name, problem in unused.items()
    )


@with_exercises
def test_stubs_say_to_do(stem):
    for key, found in report(stem)["exercises"].items():
        stub = found["stub"]
        assert not stub.get("error"), f"{stem}, {key}: the stub stops Run All: {stub}"
        assert "to do" in stub["printed"], f"{stem}, {key}: the stub does not print 'to do': {stub}"


@with_exercises
def test_solutions_are_correct(stem):
    for key, found in report(stem)["exercises"].items():
        solution = found["solution"]
        right = "correct" in solution.get("printed", "") and "to do" not in solution["printed"] and not solution["error"]
        assert right, f"{stem}, {key}: its own solution is not accepted: {solution}"


@with_exercises
def test_wrong_answers_are_named(stem):
    known = wrong_answers(stem)
    for key, found in report(stem)["exercises"].items():
        where = f"{stem}, {key}"
        assert known.get(key), f"{where}: no wrong answer in {WRONG_ANSWERS / stem}.py; WRONG = {{{key!r}: [(code, words)]}}"
        for index, (code, words) in enumerate(known[key]):
            said = found[f"wrong {index}"]
            assert said.get("error") == "AssertionError", f"{where}: this wrong answer is not caught:\n{code}\n{said}"
            assert words in said["message"], f"{where}: the message should say {words!r}, and says {said['message']!r}"


def test_wrong_answers_belong_to_exercises():
    for path in sorted(WRONG_ANSWERS.glob("*.py")):
        keys = {exercise.key for exercise in lessons.exercises(lessons.load(path.stem))}
        unknown = set(wrong_answers(path.stem)) - keys
        assert not unknown, f"{path}: no such exercise in {path.stem}: {unknown}; there are {keys}"
