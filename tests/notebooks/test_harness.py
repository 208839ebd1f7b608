"""The harness itself: does it catch what it is there to catch? On small notebooks over a small package."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.notebooks.test_runs import ask

PACKAGE = """
from dataclasses import dataclass

LIMIT = 3

def double(x):
    return 2 * x

def quadruple(x):
    return double(double(x))

@dataclass(frozen=True)
class Config:
    width: int = 4
"""
DOUBLE = "def double(x):\n    return 2 * x"
QUADRUPLE = "def quadruple(x):\n    return double(double(x))"
CONFIG = "@dataclass(frozen=True)\nclass Config:\n    width: int = 4"
CHECK = 'check("Exercise 1", half, ((4,), 2.0), mistakes={"you multiplied": lambda x: 2.0 * x})'
IMPORT_CHECK = new_code_cell("from minivlm.course.exercises import check")
HEADING = new_markdown_cell("### Exercise 1: halves ●○○ 5 minutes")
STUB = new_code_cell("def half(x):\n    raise NotImplementedError")


def included(name: str, text: str):
    return new_code_cell(text, metadata={"minivlm": {"include": f"harness_toy:{name}"}})


def solution(code: str):
    return new_markdown_cell(f"<details><summary>Solution</summary>\n\n```python\n{code}\n```\n\n</details>")


@pytest.fixture
def ask_about(tmp_path, monkeypatch):
    (tmp_path / "harness_toy.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def ask_about(*cells, wrong=None):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "toy.ipynb")
        return ask(tmp_path / "toy.ipynb", wrong or {})

    return ask_about


def test_a_sound_notebook(ask_about):
    start = new_code_cell("from dataclasses import dataclass")
    use = new_code_cell("assert quadruple(Config(width=1).width) == 4 and LIMIT == 3")
    constant = included("LIMIT", "LIMIT = 3")
    cells = [start, included("double", DOUBLE), included("quadruple", QUADRUPLE), included("Config", CONFIG), constant, use]
    assert ask_about(*cells) == {"error": "", "unused": {}, "exercises": {}}


def test_using_the_packages_version_is_caught(ask_about):
    """The cell defines `double`, and then a function of the package calls the package's."""
    cells = [included("double", DOUBLE), new_code_cell("import harness_toy\nharness_toy.quadruple(double(1))")]
    assert "the notebook used double of harness_toy instead of the one in its cell" in ask_about(*cells)["error"]


def test_an_unused_definition_is_caught(ask_about):
    cells = [included("double", DOUBLE), new_code_cell("1 + 1")]
    assert ask_about(*cells)["unused"] == {"harness_toy:double": "no later cell uses it"}


def test_a_definition_that_is_imported_again_is_caught(ask_about):
    cells = [included("LIMIT", "LIMIT = 3"), new_code_cell("from harness_toy import LIMIT\nassert LIMIT")]
    assert ask_about(*cells)["unused"] == {"harness_toy:LIMIT": "no later cell uses it"}


def test_a_failing_cell_is_caught(ask_about):
    assert "ZeroDivisionError" in ask_about(new_code_cell("1 / 0"))["error"]


def test_exercises(ask_about):
    wrong = {"Exercise 1": [("def half(x):\n    return 2.0 * x", "you multiplied"), ("def half(x):\n    return 2.0", "")]}
    cells = [IMPORT_CHECK, HEADING, STUB, new_code_cell(CHECK), solution("def half(x):\n    return x / 2")]
    found = ask_about(*cells, wrong=wrong)["exercises"]["Exercise 1"]
    assert found["stub"] == {"printed": "Exercise 1: to do\n", "error": "", "message": ""}
    assert found["solution"] == {"printed": "Exercise 1: correct\n", "error": "", "message": ""}
    assert found["wrong 0"] == {"printed": "", "error": "AssertionError", "message": "Exercise 1: you multiplied"}
    assert found["wrong 1"]["error"] == "", "an answer that happens to be right on all cases is not caught, and so reported"


def test_a_solution_that_is_wrong_is_seen(ask_about):
    cells = [IMPORT_CHECK, HEADING, STUB, new_code_cell(CHECK), solution("def half(x):\n    return x - 1")]
    assert ask_about(*cells)["exercises"]["Exercise 1"]["solution"]["error"] == "AssertionError"
