import json

import pytest
import torch

from minivlm.course import lesson as module
from minivlm.course.lesson import ExpectationFailed, Lesson

CIRCUMSTANCES = Lesson.circumstances


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("PRESET", "SEED", "ARMS", "RESULTS"):
        monkeypatch.delenv(f"MINIVLM_{name}", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Lesson, "circumstances", lambda self: {"seed": self.seed, "preset": self.preset})


def choose(lesson):
    return vars(lesson.choose(cpu={"steps": 100, "width": 8}, gpu={"steps": 900}, smoke={"steps": 2}))


def test_defaults():
    lesson = Lesson("01_clip")
    assert repr(lesson) == "Lesson 01_clip: preset cpu, seed 0, arms lesson, device cpu"
    assert torch.get_num_threads() == 1
    assert not lesson.all_arms
    assert choose(lesson) == {"steps": 100, "width": 8}


@pytest.mark.parametrize(("preset", "steps"), [("cpu", 100), ("gpu", 900), ("smoke", 2), ("gpu-smoke", 2)])
def test_presets_override_cpu(monkeypatch, preset, steps):
    monkeypatch.setenv("MINIVLM_PRESET", preset)
    assert choose(Lesson("x")) == {"steps": steps, "width": 8}


def test_gpu_is_the_default_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Lesson("x").preset == "gpu"
    assert Lesson("x").device.type == "cuda"
    monkeypatch.setenv("MINIVLM_PRESET", "cpu")
    assert Lesson("x").device.type == "cpu", "a pinned preset runs where its numbers were made"


def test_seed_makes_runs_repeat(monkeypatch):
    monkeypatch.setenv("MINIVLM_SEED", "5")
    Lesson("x")
    first = torch.rand(3)
    assert Lesson("x").seed == 5
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PRESET", "tpu", "MINIVLM_PRESET='tpu': choose one of cpu, gpu, smoke"),
        ("ARMS", "some", "choose one of lesson, all"),
        ("SEED", "-1", "give a whole number"),
        ("SEED", "one", "give a whole number"),
        ("SEED", str(2**63), "below 2"),
        ("RESULTS", "LICENSE/r.jsonl", "LICENSE/r.jsonl: cannot write there .* name a file of your own"),
    ],
)
def test_bad_environment(monkeypatch, name, value, words):
    monkeypatch.setenv(f"MINIVLM_{name}", value)
    with pytest.raises(ValueError, match=words):
        Lesson("x")


def test_unknown_setting():
    with pytest.raises(ValueError, match="smoke= sets step, which cpu= does not have: steps"):
        Lesson("x").choose(cpu={"steps": 1}, gpu={}, smoke={"step": 2})


def test_record_prints_and_appends(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MINIVLM_RESULTS", str(tmp_path / "deep" / "r.jsonl"))
    lesson = Lesson("01_clip")
    lesson.record("a beats b", a=torch.tensor(0.91234), b=0.5, n=3)
    lesson.record("again", a=1.0)
    assert capsys.readouterr().out == "claim: a beats b | a 0.9123, b 0.5, n 3\nclaim: again | a 1\n"
    rows = [json.loads(line) for line in (tmp_path / "deep" / "r.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "notebook": "01_clip",
        "claim": "a beats b",
        "seed": 0,
        "preset": "cpu",
        "a": pytest.approx(0.91234),
        "b": 0.5,
        "n": 3,
    }
    assert len(rows) == 2


def test_a_relative_file_of_results_lies_in_the_checkout(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("MINIVLM_RESULTS", "results/r.jsonl")
    Lesson("x").record("c", a=1)
    assert (tmp_path / "results" / "r.jsonl").read_text().count("\n") == 1


def test_the_largest_seed(monkeypatch):
    monkeypatch.setenv("MINIVLM_SEED", str(2**63 - 1))
    assert Lesson("x").seed == 2**63 - 1


def test_circumstances_name_what_a_number_depends_on():
    from minivlm import world

    found = CIRCUMSTANCES(Lesson("x"))
    assert found == {
        "seed": 0,
        "preset": "cpu",
        "arms": "lesson",
        "device": "cpu",
        "torch": torch.__version__,
        "world": world.VERSION,
    }
    json.dumps(found)


def test_record_refuses_names_of_columns_and_non_numbers(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIVLM_RESULTS", str(tmp_path / "r.jsonl"))
    for column in ("seed", "code", "seconds", "error", "failed", "backbones"):
        with pytest.raises(ValueError, match=f"{column} is a column"):
            Lesson("x").record("c", **{column: 1})
    with pytest.raises(TypeError, match="a should be a number"):
        Lesson("x").record("c", a="0.9")


def test_expect():
    lesson = Lesson("x")
    lesson.expect(torch.tensor(0.5), at_least=0.5, at_most=0.5)
    with pytest.raises(ExpectationFailed, match=r"the gain is 0\.1, expected at least 0\.2"):
        lesson.expect(0.1, at_least=0.2, what="the gain")
    with pytest.raises(AssertionError, match=r"the loss is 3, expected at most 2"):
        lesson.expect(3, at_most=2, what="the loss")
    with pytest.raises(AssertionError, match="nan"):
        lesson.expect(float("nan"), at_least=0)
    with pytest.raises(ValueError, match="needs a bound"):
        lesson.expect(1)


def test_smoke_asserts_nothing(monkeypatch, capsys):
    monkeypatch.setenv("MINIVLM_PRESET", "smoke")
    Lesson("x").expect(0.1, at_least=0.2)
    assert capsys.readouterr().out == ""


def test_results(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert Lesson("01_clip").results() == []
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "01_clip.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert Lesson("01_clip").results() == [{"a": 1}, {"a": 2}]


def store(monkeypatch, tmp_path, *rows):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "results").mkdir()
    text = "".join(json.dumps({"notebook": "01_clip", "claim": "it helps", "preset": "cpu"} | row) + "\n" for row in rows)
    (tmp_path / "results" / "01_clip.jsonl").write_text(text)


def test_a_damaged_file_of_results_says_where(monkeypatch, tmp_path):
    store(monkeypatch, tmp_path, {"seed": 0})
    (tmp_path / "results" / "01_clip.jsonl").write_text("{")
    with pytest.raises(ValueError, match="01_clip.jsonl, line 1 is not a row"):
        Lesson("01_clip").results()


def test_what_is_stored_over_seeds(monkeypatch, tmp_path):
    seeds = [{"seed": seed, "learned": 0.9 + seed / 100, "fixed": 0.5, "chance": 0.1} for seed in range(3)]
    crash = {"seed": 3, "error": "out of memory"}
    store(monkeypatch, tmp_path, *seeds, crash, {"seed": 0, "preset": "gpu", "learned": 0.1, "fixed": 0.5})
    lesson = Lesson("01_clip")
    assert lesson.stored("it helps") == {"learned": [0.9, 0.91, 0.92], "fixed": [0.5] * 3, "chance": [0.1] * 3}
    assert lesson.stored("another claim") == {}
    said = "it helps\n  3 of 4 seeds: learned 0.91, fixed 0.50, difference 0.41 [0.40, 0.42]: reproduced"
    assert lesson.verdict() == lesson.verdict() == said


def test_a_claim_whose_interval_includes_zero_is_not_reproduced(monkeypatch, tmp_path):
    seeds = [{"seed": seed, "learned": value, "fixed": 0.5} for seed, value in enumerate((0.4, 0.6, 0.7))]
    store(monkeypatch, tmp_path, *seeds)
    assert Lesson("01_clip").verdict().endswith("difference 0.07 [-0.10, 0.20]: not reproduced")


def test_nothing_stored_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert Lesson("x").verdict() == "nothing stored for preset cpu: python -m minivlm claims x --preset cpu"
