"""Which stored claims are fresh, stale, of unknown code, crashed or missing."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from minivlm.course.files import Course
from minivlm.course.rows import Run, run_of
from minivlm.course.staleness import inputs, run_state, state, status, table

CODE = "from minivlm.toy import build\nbackbones.read('vision-cpu')\nlesson.record('it helps', learned=1, fixed=0)"


@pytest.fixture
def course(tmp_path):
    for file, text in {
        "minivlm/__init__.py": "",
        "minivlm/toy.py": "A = 1\n",
        "data/backbones/vision-cpu-v1/card.json": '{"name": "vision-cpu", "weights_sha256": "0123456789abcdef"}',
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(CODE)]), tmp_path / "notebooks" / "01_a.ipynb")
    return Course(tmp_path)


def row(course, seed=0, **more):
    now = inputs(course, "01_a")
    about = {"notebook": "01_a", "claim": "it helps", "seed": seed, "preset": "cpu", "arms": "all", "device": "cpu"}
    return about | {"code": now.code, "backbones": now.backbones, "learned": 0.9, "fixed": 0.5} | more


def test_a_row_is_fresh_until_the_code_changes(course):
    made = row(course)
    assert state(made, inputs(course, "01_a")) == "fresh"
    (course.root / "minivlm" / "toy.py").write_text("A = 2\n")
    assert state(made, inputs(course, "01_a")) == "stale"


def test_a_row_is_fresh_until_a_backbone_changes(course):
    made = row(course)
    assert made["backbones"] == {"vision-cpu-v1": "0123456789ab"}
    card = course.root / "data/backbones/vision-cpu-v1/card.json"
    card.write_text(card.read_text().replace("0123", "9999"))
    assert state(made, inputs(course, "01_a")) == "stale"


def test_other_states(course):
    now = inputs(course, "01_a")
    unmarked = {key: value for key, value in row(course).items() if key != "code"}
    assert state(unmarked, now) == "unknown code"
    assert state(row(course, error="out of memory"), now) == "crashed"
    assert state(row(course, failed="learned is 0.9, expected at least 1"), now) == "fresh"


def test_a_run_is_in_the_worst_state_of_its_rows(course):
    now, rows = inputs(course, "01_a"), [row(course), row(course, claim="b", code="0"), row(course, seed=1)]
    assert run_state(rows, run_of(rows[0]), now) == "stale"
    assert run_state(rows, run_of(rows[2]), now) == "fresh"
    assert run_state(rows, Run("01_a", 2, "cpu", "all", "cpu"), now) == "missing"


def put(course, *rows):
    (course.root / "results").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (course.root / "results" / "01_a.jsonl").write_text(text, encoding="utf-8")


def lines(course, seeds=5, arms="all"):
    return status(course, course.root / "results", ["01_a"], range(seeds), "cpu", arms, "cpu")


def test_status_names_the_seeds_of_each_state(course):
    unmarked = {key: value for key, value in row(course, seed=3).items() if key != "code"}
    crashed = {key: value for key, value in row(course, seed=2, error="no").items() if key not in ("learned", "fixed")}
    put(course, row(course), row(course, seed=1, code="0"), crashed, unmarked)
    (line,) = lines(course)
    assert line.states == {0: "fresh", 1: "stale", 2: "crashed", 3: "unknown code", 4: "missing"}
    head, said = table([line]).splitlines()
    assert head.split("  ")[0] == "notebook"
    assert "it helps  cpu, all arms, cpu  fresh 0; stale 1; unknown code 3; crashed 2; missing 4  3 of 4 seeds: " in said
    assert said.endswith("learned 0.90, fixed 0.50, difference 0.40 [0.40, 0.40]: reproduced")


def test_status_without_results_and_of_other_arms(course):
    (line,) = lines(course, seeds=2)
    assert line.states == {0: "missing", 1: "missing"}
    put(course, row(course))
    asked, stored = lines(course, seeds=1, arms="lesson")
    assert (asked.arms, asked.states) == ("lesson", {0: "missing"})
    assert (stored.arms, stored.states) == ("all", {0: "fresh"})


def test_a_claim_that_a_stored_run_did_not_record_is_not_missing(course):
    put(course, row(course, claim="another"))
    assert [(line.claim, line.states) for line in lines(course, seeds=1)] == [("another", {0: "fresh"})]


def test_the_stored_results_can_be_told_apart():
    """Of the course itself: whatever state its rows are in, each has one."""
    course = Course.here()
    names = [path.stem for path in sorted((course.root / "results").glob("*.jsonl"))]
    assert names
    for line in status(course, course.root / "results", names, range(5), "cpu", "all", "cpu"):
        assert line.states
        assert line.cells()[3]
