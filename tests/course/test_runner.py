"""Running notebooks: one kernel for each of the first three tests."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from minivlm.__main__ import main
from minivlm.course import runner
from minivlm.course.files import Course, CourseError, read
from minivlm.course.progress import Progress
from minivlm.course.runner import Outcome, Settings, run, table


def store(root, name, *cells):
    folder = root / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), folder / f"{name}.ipynb")
    return Course(root)


def test_run_passes_forwards_the_claim_and_writes_a_copy(tmp_path, capsys):
    code = "import os\nprint(os.environ['MINIVLM_PRESET'], os.environ['MINIVLM_SEED'])\nprint('claim: a beats b')"
    course = store(tmp_path, "01_a", new_markdown_cell("# Title"), new_code_cell(code))
    stored = course.notebook("01_a").read_bytes()
    assert run(course, ["01_a"], tmp_path / "out", Settings(preset="smoke", seed=3)) == 0
    said = capsys.readouterr().out
    assert "01_a  cell 1 of 2" in said
    assert "Title" in said
    assert "01_a  claim: a beats b" in said
    assert read(tmp_path / "out" / "01_a.ipynb").cells[1].outputs[0].text.startswith("smoke 3\n")
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (row["notebook"], row["status"], row["claim"]) == ("01_a", "passed", "a beats b")
    assert course.notebook("01_a").read_bytes() == stored, "nothing in the checkout is written"


def test_run_of_a_failing_notebook(tmp_path, capsys):
    course = store(tmp_path, "01_a", new_code_cell("x = 1"), new_code_cell("print('so far')\n1 / 0"), new_code_cell("y = 2"))
    assert run(course, ["01_a"], tmp_path / "out", Settings()) == 1
    said = capsys.readouterr().out
    assert "cell 2 of 3 fails" in said
    assert "ZeroDivisionError" in said
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (row["status"], row["error"]) == ("failed", "cell 2: ZeroDivisionError: division by zero")
    first, second, third = read(tmp_path / "out" / "01_a.ipynb").cells
    assert first.execution_count == 1
    assert second.outputs[-1].ename == "ZeroDivisionError"
    assert third.execution_count is None


STOPPED = """
import sys
from pathlib import Path
from minivlm.__main__ import main
from minivlm.course.files import Course

root = Path(sys.argv[1])
Course.here = lambda: Course(root)
sys.exit(main(["run", "--out", str(root / "out")]))
"""


@pytest.mark.skipif(os.name == "nt", reason="another way of stopping")
def test_stopping_says_so_and_keeps_what_there_is(tmp_path):
    began = tmp_path / "began"
    wait = f"print('so far')\nimport pathlib, time\npathlib.Path({str(began)!r}).touch()\ntime.sleep(60)"
    store(tmp_path, "01_a", new_code_cell("x = 1"), new_code_cell(wait))
    store(tmp_path, "02_b", new_code_cell("y = 1"))
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not began.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip() == "stopped"
    (row,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (row["notebook"], row["status"], row["error"]) == ("01_a", "stopped", "cell 2: stopped")
    assert read(tmp_path / "out" / "01_a.ipynb").cells[0].execution_count == 1


def test_a_failed_expectation_is_told_from_other_failures(tmp_path, monkeypatch):
    def fail(name):
        def execute(notebook, folder, environment, **hooks):
            raise CellExecutionError("a traceback", name, "the gain is 0.1, expected at least 0.2")

        return execute

    course = store(tmp_path, "01_a", new_code_cell("x = 1"))
    for name, expectation in (("ExpectationFailed", "the gain is 0.1, expected at least 0.2"), ("AssertionError", "")):
        monkeypatch.setattr(runner, "execute", fail(name))
        outcome = runner.run_one(course, "01_a", tmp_path / "out", {})
        assert (outcome.status, outcome.expectation) == ("failed", expectation)


@pytest.fixture
def no_kernel(monkeypatch):
    """No notebook is run; the environment that it would have got."""
    got = {}
    monkeypatch.setattr(runner, "execute", lambda notebook, folder, environment, **hooks: got.update(environment))
    for name in ("PRESET", "SEED", "ARMS", "RESULTS"):
        monkeypatch.delenv(f"MINIVLM_{name}", raising=False)
    return got


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SEED", "-1", "MINIVLM_SEED='-1': give a whole number, 0 or more"),
        ("SEED", str(2**63), "below 2"),
        ("PRESET", "tpu", "choose one of cpu, gpu, smoke"),
        ("ARMS", "some", "choose one of lesson, all"),
    ],
)
def test_bad_settings_start_no_kernel(tmp_path, monkeypatch, no_kernel, name, value, words):
    monkeypatch.setenv(f"MINIVLM_{name}", value)
    with pytest.raises(CourseError, match=words):
        run(store(tmp_path, "01_a"), ["01_a"], tmp_path / "out", Settings())
    assert not no_kernel
    assert not (tmp_path / "out").exists()


def test_results_are_meant_from_where_the_command_is_given(tmp_path, monkeypatch, no_kernel):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIVLM_RESULTS", "r.jsonl")
    assert run(store(tmp_path, "01_a"), ["01_a"], tmp_path / "out", Settings()) == 0
    assert no_kernel["MINIVLM_RESULTS"] == str(tmp_path / "r.jsonl")


@pytest.mark.parametrize(("gpu", "lines"), [(True, 0), (False, 1)])
def test_the_preset_gpu_without_a_gpu_is_said_to_take_long(tmp_path, monkeypatch, capsys, no_kernel, gpu, lines):
    monkeypatch.setattr(runner, "has_gpu", lambda: gpu)
    run(store(tmp_path, "01_a"), ["01_a"], tmp_path / "out", Settings(preset="gpu"))
    said = capsys.readouterr().err
    assert said.count("runs on the CPU and takes long\n") == said.count("\n") == lines


def test_run_refuses_the_notebooks_folder(tmp_path):
    course = store(tmp_path, "01_a")
    with pytest.raises(CourseError, match="folder of the notebooks themselves"):
        run(course, ["01_a"], course.notebooks, Settings())


def test_run_refuses_an_out_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="cannot write into --out"):
        run(store(tmp_path, "01_a"), ["01_a"], tmp_path / "file" / "out", Settings())


def test_unknown_notebook_is_an_error_that_lists_the_others(capsys):
    assert main(["run", "99"]) == 2
    said = capsys.readouterr().err
    assert "no notebook '99'" in said
    assert "00a_start_here" in said


def test_unknown_preset_is_an_error(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--preset", "tpu"])
    assert caught.value.code == 2
    assert "tpu" in capsys.readouterr().err


def test_settings_leave_what_is_not_given(monkeypatch):
    monkeypatch.setenv("MINIVLM_PRESET", "cpu")
    monkeypatch.delenv("MINIVLM_ARMS", raising=False)
    environment = Settings(seed=7).environment()
    assert environment["MINIVLM_PRESET"] == "cpu"
    assert environment["MINIVLM_SEED"] == "7"
    assert "MINIVLM_ARMS" not in environment


def test_table():
    rows = [Outcome("01_a", "passed", 1.25, "a beats b", ""), Outcome("02_long", "failed", 10.0, "", "cell 2: E: no")]
    assert table(rows).splitlines() == [
        "notebook  status  seconds  claim",
        "01_a      passed  1.2      a beats b",
        "02_long   failed  10.0     cell 2: E: no",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_and_claims_stay():
    notebook = new_notebook(cells=[new_markdown_cell("## Train"), new_code_cell("")])
    terminal = Terminal()
    progress = Progress("01_a", notebook, terminal)
    progress.start(0)
    progress.start(1)
    progress.text(1, "step 1\n")
    progress.text(1, "claim: yes\n")
    progress.clear()
    lines = terminal.getvalue().split("\n")
    assert len(lines) == 2, "only the claim ends a line"
    assert lines[0].endswith("01_a  claim: yes")
    assert "step 1" in lines[0]
    assert lines[1].endswith("\r\033[K")
