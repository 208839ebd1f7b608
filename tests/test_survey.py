"""The survey's table is whole, and what is made from it says what it says."""

import re
from dataclasses import replace

import pytest

from minivlm import survey
from minivlm.survey import FAMILIES, MODELS, ROWS, by_name
from minivlm.survey.__main__ import main
from minivlm.survey.markdown import diff_table, measured, read_results
from minivlm.survey.models import ROOT

NAMES = [model.name for model in MODELS]
every_model = pytest.mark.parametrize("model", MODELS, ids=NAMES)


def test_numbers_run_on_and_names_are_distinct():
    assert [model.number for model in MODELS] == [f"{i:02d}" for i in range(1, len(MODELS) + 1)]
    for field in ("name", "title", "paper", "arxiv", "idea"):
        assert len({getattr(model, field) for model in MODELS}) == len(MODELS), field


def test_order_is_that_of_the_dates():
    dates = [model.date for model in MODELS]
    assert dates == sorted(dates)


@every_model
def test_one_model(model):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", model.name)
    assert re.fullmatch(r"\d{4}\.\d{5}", model.arxiv)
    if model.name != "smolvlm":  # released half a year before its paper
        assert model.date == f"20{model.arxiv[:2]}-{model.arxiv[2:4]}"
    assert model.family in FAMILIES
    assert model.idea.endswith(".")
    assert not re.search(r"[.!?] ", model.idea), "one sentence"
    assert set(model.new) <= set(ROWS)
    assert model.new


@every_model
@pytest.mark.parametrize("row", ROWS)
def test_rows_are_short_phrases(model, row):
    phrase = getattr(model, row)
    words = [word for word in phrase.split() if re.search(r"\w", word)]
    assert 1 <= len(words) <= 12, f"{model.name}.{row}: {phrase!r}"
    assert phrase == phrase.strip().rstrip(".")
    assert "|" not in phrase
    assert "\n" not in phrase


@every_model
def test_parents_came_before(model):
    assert (model.parents == ()) == (model.name == "clip")
    for parent in model.parents:
        assert NAMES.index(parent) < NAMES.index(model.name)


@every_model
def test_new_rows_differ_from_every_parent(model):
    for row in model.new:
        for parent in model.parents:
            assert getattr(model, row) != getattr(by_name(parent), row), f"{model.name}: {row} is {parent}'s"


def test_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="llava_1_5"):
        by_name("llava15")


@every_model
def test_header(model):
    lines = survey.header(model.name).splitlines()
    assert lines[0] == f"# {model.number} · {model.title}"
    assert f"[{model.paper}](https://arxiv.org/abs/{model.arxiv})" in lines[2]
    assert lines[4] == f"> {model.idea}"
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[6:]]
    assert rows[0][1:] == [*(by_name(p).title for p in model.parents), ("→ " if model.parents else "") + model.title]
    assert len(rows) == 2 + len(ROWS)
    assert {len(row) for row in rows} == {2 + len(model.parents)}
    bold = [row[0].strip("*") for row in rows[2:] if row[0].startswith("**") and row[-1].startswith("**")]
    assert bold == [label for field, label in ROWS.items() if field in model.new]


def test_built_needs_a_notebook_and_a_module(tmp_path):
    assert survey.built(tmp_path) == ()
    for file in ("notebooks/01_clip.ipynb", "notebooks/02_blip.ipynb", "minivlm/models/clip.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert survey.built(tmp_path) == ("clip",)
    assert "| [CLIP](notebooks/01_clip.ipynb) |" in survey.table([], root=tmp_path)
    assert "| BLIP |" in survey.table([], root=tmp_path)


def row(**numbers):
    return {"notebook": "01_clip", "claim": "it helps", "preset": "cpu", "torch": "2.6", "world": 1, **numbers}


def test_measured_is_the_mean_over_seeds():
    clip = by_name("clip")
    rows = [row(seed=s, learned=x, fixed=0.2, other=1, chance=0.1) for s, x in enumerate((0.8, 0.9, 1.0))]
    assert measured(rows, clip) == (
        "it helps: **reproduced**, learned 0.90 (0.80 to 1.00), fixed 0.20, difference 0.70 [0.60, 0.80], chance 0.10 "
        "(3 seeds, cpu)"
    )
    assert measured(rows[:2], clip) == (
        "it helps: **too few seeds, 3 needed**, learned 0.85 (0.80 to 0.90), fixed 0.20, difference 0.65, chance 0.10 "
        "(2 seeds, cpu)"
    )
    assert measured(rows, by_name("blip")) == "—"
    assert measured([], clip) == "—"


def test_measured_hides_no_crash_and_counts_a_seed_once():
    clip = by_name("clip")
    rows = [row(seed=0, learned=0.1), row(seed=0, learned=0.8), row(seed=1, error="out of memory")]
    assert measured(rows, clip) == "it helps: **nothing to compare with**, learned 0.80 (1 of 2 seeds, cpu)"
    assert measured(rows[-1:], clip) == "—"


def test_measured_keeps_presets_and_claims_apart():
    rows = [row(seed=0, learned=0.8), row(seed=0, learned=0.9, preset="gpu"), row(seed=0, x=1.0, claim="second")]
    rows.append(row(seed=0, learned=0.7, preset="gpu", device="A100"))
    assert measured(rows, by_name("clip")).split("<br>") == [
        "it helps: **nothing to compare with**, learned 0.80 (1 seed, cpu)",
        "it helps: **nothing to compare with**, learned 0.90 (1 seed, gpu)",
        "second: **nothing to compare with**, x 1.00 (1 seed, cpu)",
        "it helps: **nothing to compare with**, learned 0.70 (1 seed, gpu, on a GPU)",
    ]


def test_results_are_read_from_every_file(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"seed": 2}\n\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"seed": 0}\n{"seed": 1}\n', encoding="utf-8")
    assert [found["seed"] for found in read_results(tmp_path)] == [0, 1, 2]
    assert read_results(tmp_path / "nowhere") == []


def test_refresh_replaces_what_is_between_the_markers():
    text = "before\n<!-- survey -->\nold\n<!-- /survey -->\nafter\n"
    assert survey.refresh(text, "new") == "before\n<!-- survey -->\nnew\n<!-- /survey -->\nafter\n"
    for wrong in ("", "<!-- survey -->", "<!-- /survey --><!-- survey -->", text + text):
        with pytest.raises(ValueError, match="survey"):
            survey.refresh(wrong, "new")


def test_command_writes_and_checks(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text("# é\n<!-- survey --><!-- /survey -->\n", encoding="utf-8")
    assert main(["--check", str(file)]) == 1
    assert "stale" in capsys.readouterr().err
    assert main(["--write", str(file)]) == 0
    assert main(["--check", str(file)]) == 0
    assert survey.table() in file.read_text(encoding="utf-8")
    assert main(["--header", "clip"]) == 0
    assert capsys.readouterr().out.startswith("# 01 · CLIP")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--check", "nofile", "nofile: No such file"),
        ("--write", "nofile", "nofile: No such file"),
        ("--check", "/", "/: Is a directory"),
        ("--check", "LICENSE", "LICENSE: expected <!-- survey -->"),
        ("--header", "nope", "no surveyed model is called 'nope'; known: clip"),
        ("--header", "", "no surveyed model is called ''"),
    ],
)
def test_command_refuses_in_one_line(monkeypatch, capsys, option, value, words):
    monkeypatch.chdir(ROOT)
    assert main([option, value]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {words}")
    assert said.count("\n") == 1


def test_a_bar_in_a_cell_does_not_end_it():
    clip = replace(by_name("clip"), loss="p(text | image)")
    assert "p(text \\| image)" in diff_table(clip)


def test_readme_is_fresh():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert survey.refresh(text, survey.table()) == text, (
        "README.md is stale: python -m minivlm.survey --write README.md"
    )


def test_readme_plan_has_every_model_once():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    plan = re.findall(r"^\| (?:1?\d) \| ([\d ab,]+) \|", text, flags=re.MULTILINE)
    planned = [number for cell in plan for number in cell.split(", ")]
    assert sorted(planned) == ["00a", "00b", *(model.number for model in MODELS), "22"]
    assert f"builds {len(MODELS)} vision-language models" in text
