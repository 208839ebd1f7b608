"""Stored rows: what replaces what, and two writers to one file."""

import subprocess
import sys

import pytest

from minivlm.course.files import CourseError
from minivlm.course.rows import LOCK, Run, file_of, locked, read_rows, replace_rows, run_of
from minivlm.survey.evidence import evidence


def row(seed=0, claim="it helps", arms="all", preset="cpu", device="cpu", **more):
    about = {"notebook": "01_a", "claim": claim, "seed": seed, "preset": preset, "arms": arms, "device": device}
    return about | more


def put(results, *rows):
    replace_rows(results, run_of(rows[0]), rows)


def test_a_run_replaces_what_the_same_run_left(tmp_path):
    put(tmp_path, row(a=1), row(claim="second", b=1))
    put(tmp_path, row(seed=1, a=1))
    put(tmp_path, row(a=2))
    assert read_rows(tmp_path, "01_a") == [row(a=2), row(seed=1, a=1)], "the second claim is no more; seed 1 stays"


@pytest.mark.parametrize("other", [{"seed": 1}, {"arms": "lesson"}, {"preset": "gpu"}, {"preset": "gpu", "device": "T4"}])
def test_another_run_replaces_nothing(tmp_path, other):
    put(tmp_path, row(a=1))
    put(tmp_path, row(**other, a=2))
    assert len(read_rows(tmp_path, "01_a")) == 2


def test_two_gpus_are_of_one_kind(tmp_path):
    put(tmp_path, row(preset="gpu", device="T4", a=1))
    put(tmp_path, row(preset="gpu", device="A100", a=2))
    assert [found["a"] for found in read_rows(tmp_path, "01_a")] == [2]


def test_rows_lie_claim_by_claim_and_seed_by_seed_and_all_arms_count(tmp_path):
    put(tmp_path, row(seed=1, a=0.1), row(seed=1, claim="other", a=1))
    put(tmp_path, row(a=0.1), row(claim="other", a=1))
    put(tmp_path, row(arms="lesson", a=0.9))
    found = read_rows(tmp_path, "01_a")
    assert [(r["claim"], r["arms"], r["seed"]) for r in found] == [
        ("it helps", "lesson", 0),
        ("it helps", "all", 0),
        ("it helps", "all", 1),
        ("other", "all", 0),
        ("other", "all", 1),
    ]
    assert evidence(found)[0].measured["a"] == [0.1, 0.1]


def test_nothing_but_the_file_is_left(tmp_path):
    put(tmp_path / "deep", row(a=1))
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"01_a.jsonl", LOCK}


WRITER = """
import sys
from pathlib import Path
from minivlm.course.rows import Run, replace_rows

first = int(sys.argv[2])
for seed in range(first, first + 40):
    run = Run("01_a", seed, "cpu", "all", "cpu")
    row = {"notebook": "01_a", "claim": "c", "seed": seed, "preset": "cpu", "arms": "all", "device": "cpu", "a": seed}
    replace_rows(Path(sys.argv[1]), run, [row])
"""


def test_two_writers_lose_no_row_of_each_other(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(first)]) for first in (0, 40)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert [found["seed"] for found in read_rows(tmp_path, "01_a")] == list(range(80))


HOLDER = """
import sys, time
from pathlib import Path
from minivlm.course.rows import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_holder(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0"])
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(timeout=2)
    assert read_rows(tmp_path, "01_a") == [], "written although another holds the lock"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert writer.wait(timeout=60) == 0
    assert len(read_rows(tmp_path, "01_a")) == 40


def test_a_damaged_file_is_not_replaced(tmp_path):
    file_of(tmp_path, "01_a").write_text("{", encoding="utf-8")
    with pytest.raises(CourseError, match="01_a.jsonl, line 1 is not a row"):
        put(tmp_path, row(a=1))
    assert file_of(tmp_path, "01_a").read_text(encoding="utf-8") == "{"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CourseError, match="cannot write into .*file.*--results"), locked(tmp_path / "file"):
        pass


def test_a_run_reads_as_a_person_says_it():
    assert str(Run("01_a", 3, "cpu", "all", "cpu")) == "01_a seed 3"
    assert run_of(row(seed=3)) == Run("01_a", 3, "cpu", "all", "cpu")
