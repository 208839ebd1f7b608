"""The claims runner, on notebooks of a line or two: some ten kernels in all."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from minivlm.__main__ import main
from minivlm.course import claims as module
from minivlm.course import sources
from minivlm.course.claims import Request, rows_of, run_claims, with_claims
from minivlm.course.claims_progress import Board, duration
from minivlm.course.files import Course, CourseError
from minivlm.course.rows import Run, file_of, read_rows, replace_rows
from minivlm.course.runner import Outcome
from minivlm.course.staleness import Inputs

# What a Lesson does, without waiting for torch.
LESSON = '''# %% [markdown]
# # A lesson

# %%
import json
import os
import time
from pathlib import Path


class ExpectationFailed(AssertionError):
    pass


class Lesson:
    seed = int(os.environ["MINIVLM_SEED"])

    def record(self, claim, **numbers):
        print(f"claim: {claim}")
        row = {"notebook": "01_a", "claim": claim, "seed": self.seed, "preset": os.environ["MINIVLM_PRESET"]}
        row |= {"arms": os.environ["MINIVLM_ARMS"], "device": "cpu", "torch": "2", "world": "1.0"}
        with open(os.environ["MINIVLM_RESULTS"], "a") as stream:
            stream.write(json.dumps(row | numbers) + "\\n")


lesson = Lesson()

'''
CELLS = LESSON + "# %%\n"


def make(root, body, name="01_a"):
    course = Course(root)
    course.sources.mkdir(parents=True, exist_ok=True)
    text = sources.unparse(sources.parse(CELLS + body))
    course.source(name).write_text(text, encoding="utf-8")
    nbformat.write(sources.build(course, name), course.notebook(name))
    return course


def request(course, **more):
    return Request(course.root / "results", **({"seeds": 2} | more))


def stored(course):
    return read_rows(course.root / "results", "01_a")


KILLED = """
import sys
from pathlib import Path
from minivlm.course.claims import Request, run_claims
from minivlm.course.files import Course

root = Path(sys.argv[1])
sys.exit(run_claims(Course(root), ["01_a"], Request(root / "results", seeds=2, jobs=2)))
"""

SLOW = """began = Path("..") / f"began{lesson.seed}"
if lesson.seed == 1 and not began.exists():
    began.write_text(str(os.getpid()))
    time.sleep(120)
lesson.record("it helps", learned=0.9, fixed=0.5)
print(os.environ["OMP_NUM_THREADS"])
"""


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert condition()


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in open(f"/proc/{process}/stat").read().split(")")[1][:3] if os.path.exists(f"/proc/{process}") else True


@pytest.mark.skipif(os.name == "nt", reason="another way of killing")
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_call_that_is_killed_is_gone_on_with(tmp_path, capsys, how):
    """Seed 0 is stored, seed 1 hangs; then the runner is killed. The second call runs seed 1 alone."""
    course = make(tmp_path, SLOW)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    began = tmp_path / "began1"
    wait_for(lambda: runner.poll() is not None or began.exists() and began.read_text() and stored(course))
    runner.send_signal(how)
    said, _ = runner.communicate(timeout=60)
    assert "2 runs: 01_a; seeds 0 to 1, preset cpu, arms all. 0 are stored, 2 to run, 2 at a time\n" in said
    assert ("1 of 2 runs are stored, and the same command runs the others" in said) == (how == signal.SIGINT)
    assert [row["seed"] for row in stored(course)] == [0]
    kernel = int(began.read_text())
    wait_for(lambda: not alive(kernel), 30)

    before = stored(course)
    capsys.readouterr()
    assert run_claims(course, ["01_a"], request(course)) == 0
    said = capsys.readouterr().out
    assert "1 are stored, 1 to run" in said
    assert "01_a seed 1: done" in said
    assert "seed 0: " not in said
    assert stored(course)[0] == before[0]
    assert [row["seed"] for row in stored(course)] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [".lock.tmp", "01_a.jsonl"]


CRASHES = """lesson.record("it helps", learned=0.9, fixed=0.5)
if lesson.seed == 1:
    raise ExpectationFailed("learned is 0.9, expected at least 1")

# %%
if lesson.seed == 2:
    1 / 0
lesson.record("it lasts", later=0.9, never=0.5)
"""


def test_crashed_and_failed_seeds_leave_rows(tmp_path, capsys):
    course = make(tmp_path, CRASHES)
    assert run_claims(course, ["01_a"], request(course, seeds=3, jobs=3)) == 1
    said = capsys.readouterr().out
    assert re.search(r"01_a seed 1: failed: learned is 0.9, expected at least 1 \(\d+ s\)", said)
    assert re.search(r"01_a seed 2: crashed: cell \d: ZeroDivisionError: division by zero", said)
    assert "| ZeroDivisionError: division by zero" in said, "the traceback is shown"
    assert "it helps\n    3 seeds, 1 failed an expectation: learned 0.90" in said
    assert "it lasts\n    1 of 3 seeds, 1 failed an expectation: later 0.90" in said
    helps, lasts = ([row for row in stored(course) if row["claim"] == claim] for claim in ("it helps", "it lasts"))
    assert [row["seed"] for row in helps] == [row["seed"] for row in lasts] == [0, 1, 2]
    assert [row["learned"] for row in helps] == [0.9] * 3, "what was recorded stays"
    assert [row.get("later") for row in lasts] == [0.9, None, None]
    for rows in (helps, lasts):
        assert [row.get("failed") for row in rows] == [None, "learned is 0.9, expected at least 1", None]
        assert [row.get("error", "").partition(": ")[2] for row in rows] == ["", "", "ZeroDivisionError: division by zero"]
        assert all(row["seconds"] > 0 and len(row["code"]) == 12 for row in rows)
        assert len({row["code"] for row in rows}) == 1
    assert lasts[2].keys() - lasts[0].keys() == {"error"}
    assert {"device", "torch", "world", "preset", "arms"} <= lasts[2].keys()


@pytest.fixture
def no_kernel(monkeypatch):
    """Runs that end at once: what was asked for, and what each leaves."""
    asked = []

    class Ended(module.Worker):
        def __init__(self, course, run):
            self.run, self.inputs, self.declared = run, module.inputs(course, run.notebook), ["it helps"]
            self.began, self.said = time.monotonic(), []
            asked.append(run.seed)

        def done(self):
            return True

        def close(self):
            pass

    def store(worker, results):
        row = {"notebook": "01_a", "claim": "it helps", "seed": worker.run.seed, "preset": worker.run.preset}
        row |= {"arms": worker.run.arms, "device": "cpu", "learned": 0.9, "fixed": 0.5}
        worker.ended = Outcome("01_a", "passed", 1.0, "", "")
        worker.left = rows_of(worker.run, worker.inputs, worker.declared, [row], worker.ended)
        replace_rows(results, worker.run, worker.left)
        return False

    monkeypatch.setattr(module, "Worker", Ended)
    monkeypatch.setattr(module, "store", store)
    return asked


def test_only_what_is_missing_stale_or_crashed_is_run(tmp_path, no_kernel, capsys):
    course = make(tmp_path, 'lesson.record("it helps", learned=1)\n')
    assert run_claims(course, ["01_a"], request(course)) == 0
    capsys.readouterr()
    assert run_claims(course, ["01_a"], request(course, seeds=9)) == 0
    assert "9 runs: 01_a; seeds 0 to 8, preset cpu, arms all. 2 are stored, 7 to run, 2 at a time, about 4 s\n" in (
        said := capsys.readouterr().out
    )
    assert "01_a seed 2: done (1 s); 6 left, about 3 s\n    it helps: learned 0.90, fixed 0.50\n" in said
    assert no_kernel == list(range(9))
    del no_kernel[3:]
    rows = stored(course)
    rows[1] |= {"error": "out of memory"}
    replace_rows(tmp_path / "results", Run("01_a", 1, "cpu", "all", "cpu"), [rows[1]])
    run_claims(course, ["01_a"], request(course, seeds=3))
    assert no_kernel.pop() == 1
    run_claims(course, ["01_a"], request(course, seeds=1, arms="lesson"))
    assert no_kernel.pop() == 0
    assert len(stored(course)) == 10
    course = make(tmp_path, 'lesson.record("it helps", learned=2)\n')
    run_claims(course, ["01_a"], request(course, seeds=3))
    assert no_kernel == [0, 1, 2, 0, 1, 2]
    run_claims(course, ["01_a"], request(course, seeds=1, fresh=True))
    assert no_kernel[6:] == [0]


def test_requests_that_cannot_be_done(tmp_path, no_kernel):
    course = make(tmp_path, 'lesson.record("it helps", learned=1)\n')
    with pytest.raises(CourseError, match="smoke takes a few steps .* --results"):
        run_claims(course, ["01_a"], request(course, preset="smoke"))
    with pytest.raises(CourseError, match="--jobs 0: give 1 or more"):
        run_claims(course, ["01_a"], request(course, jobs=0))
    with pytest.raises(CourseError, match="--seeds 0: give 1 or more"):
        run_claims(course, ["01_a"], request(course, seeds=0))
    course.source("01_a").write_text(course.text("01_a").replace("learned=1", "learned=2"))
    with pytest.raises(CourseError, match=r"01_a is not the notebook of its source \(cell 3 .*python -m minivlm build 01_a"):
        run_claims(course, ["01_a"], request(course))
    assert not no_kernel
    assert not file_of(tmp_path / "results", "01_a").exists()


def test_notebooks_without_a_claim_are_left_out_unless_named(tmp_path):
    course = make(tmp_path, 'lesson.record("it helps", learned=1)\n')
    make(tmp_path, "x = 1\n", name="02_b")
    course.source("03_c").write_text("# %%\n")
    assert with_claims(course, course.names()) == ["01_a"]


RUN, MADE = Run("01_a", 0, "cpu", "all", "cpu"), Inputs("abc", {"vision-cpu-v1": "123"})


def test_a_run_without_a_claim_leaves_a_row():
    (row,) = rows_of(RUN, MADE, [], [], Outcome("01_a", "passed", 2.5, "", ""))
    assert (row["claim"], row["code"], row["backbones"], row["seconds"]) == ("", "abc", MADE.backbones, 2.5)
    assert "error" not in row


def test_a_claim_that_a_run_had_no_cause_to_record_is_no_crash():
    recorded = {"notebook": "01_a", "claim": "a", "seed": 0, "preset": "cpu", "arms": "all", "device": "cpu", "n": 3}
    (row,) = rows_of(RUN, MADE, ["a", "only with more arms"], [recorded], Outcome("01_a", "passed", 2.5, "", ""))
    assert row == recorded | {"code": "abc", "backbones": MADE.backbones, "seconds": 2.5}


def test_a_lesson_of_another_name_is_an_error():
    recorded = {"notebook": "06_other", "claim": "a", "seed": 0, "preset": "cpu", "arms": "all", "device": "cpu", "n": 3}
    (row,) = rows_of(RUN, MADE, ["a"], [recorded], Outcome("01_a", "passed", 2.5, "", ""))
    assert row["notebook"] == "01_a"
    assert "Lesson(...) should have the notebook's name" in row["error"]
    assert "n" not in row


def test_the_command_line(capsys):
    assert main(["claims", "01", "--status", "--seeds", "2"]) == 0
    assert "contrast names unseen pairs" in capsys.readouterr().out
    assert main(["claims", "99"]) == 2
    assert "no notebook '99'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["claims", "--status", "--fresh"])


class UnderWay:
    def __init__(self, run, seconds):
        self.run, self.seconds, self.now = run, seconds, "Train"


def test_time_left():
    board = Board(2, {"01_a": 100.0}, 4, io.StringIO())
    todo = [Run("01_a", seed, "cpu", "all", "cpu") for seed in range(3)]
    assert board.left(todo, []) == "; 3 left, about 2 min"  # 300 s of work for two
    assert board.left([], [UnderWay(RUN, 40.0)]) == "; 1 left, about 60 s"
    assert board.left(todo[:1], [UnderWay(RUN, 40.0)]) == "; 2 left, about 80 s"
    assert board.left([], []) == ""
    assert Board(2, {}, 4, io.StringIO()).left(todo, []) == "; 3 left"
    assert [duration(seconds) for seconds in (40.0, 720.0, 12600.0)] == ["40 s", "12 min", "3.5 h"]


def test_what_is_under_way_is_one_line_on_a_terminal_and_seldom_said_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        board = Board(1, {}, 1, stream)
        for seconds in (1.0, 2.0):
            board.show([], [UnderWay(RUN, seconds)])
    assert terminal.getvalue().count("\n") == 0
    assert "running 01_a seed 0 (Train, 2 s); 1 left" in terminal.getvalue()
    assert file.getvalue() == ""
    board.told -= 3600
    board.show([], [UnderWay(RUN, 2.0)])
    assert file.getvalue() == "running 01_a seed 0 (Train, 2 s); 1 left\n"


def test_a_process_that_ends_without_a_word_is_a_crash(tmp_path, monkeypatch, capsys):
    course = make(tmp_path, 'lesson.record("it helps", learned=1)\n')
    monkeypatch.setattr(module.sys, "executable", "false" if os.name != "nt" else sys.executable)
    assert run_claims(course, ["01_a"], request(course, seeds=1)) == 1
    (row,) = stored(course)
    assert row["error"].startswith("its process ended without a word (exit status 1")
    assert json.loads(file_of(tmp_path / "results", "01_a").read_text())["claim"] == "it helps"
