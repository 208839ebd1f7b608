"""The levels of guessing: the readers find what is to be found, and no question gives its answer away."""

import re
from pathlib import Path

import pytest

from minivlm import world
from minivlm.survey.models import MODELS
from minivlm.world import datasheet, levels
from minivlm.world.levels import Level, blind, stored
from minivlm.world.questions import Question
from minivlm.world.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]

#: By how much a blind reader may beat chance: it may be lucky by a little, and knows which pairs there are.
MARGIN = 0.08

#: Where the words of a question tell more by nature, and how.
OPEN = {
    ("reasoning", "property beside"): 0.11,  # they say whether it is a colour or a shape
    ("web", "clean or not"): 0.3,  # loops and cut ends are seen without a picture
    ("documents", "largest"): 0.13,  # rows are called by colours or by numbers, small ones are always there
    ("documents", "find"): 0.1,
    ("robot", "plan"): 0.37,  # a third of the goals is one action away
    ("robot", "next"): 0.35,
    ("robot", "under"): 0.1,  # some colours are never stacked on each other
    ("robot_held_out", "plan"): 0.37,
    ("robot_held_out", "next"): 0.35,
    ("questions_held_out", "same"): 0.12,  # seen shapes that share few colours are held-out ones that share some
}


def excess(found: dict[str, dict[str, Level]]) -> list[str]:
    return [
        f"{task}, {kind}: {level.blind:.3f} blindly, {level.chance:.3f} by chance"
        for task, kinds in found.items()
        for kind, level in kinds.items()
        if level.blind > level.chance + OPEN.get((task, kind), MARGIN)
    ]


def test_every_task_and_kind_has_its_levels():
    found = stored()
    assert list(found) == list(TASKS)
    for task, kinds in found.items():
        assert list(kinds) == list(TASKS[task].chance)
        assert all(0 <= level.chance <= 1 and 0 <= level.blind <= 1 and level.asked >= 100 for level in kinds.values())


def test_no_question_gives_its_answer_away():
    assert not excess(stored()), "\n".join(excess(stored()))


@pytest.mark.parametrize("task", ["questions", "reasoning", "compare", "videos", "hear", "robot"])
def test_nor_do_fresh_ones(task):
    """Fewer than are stored, hence a wider margin."""
    for kind, level in levels.levels(task, fit=4, tries=3).items():
        assert level.blind <= level.chance + OPEN.get((task, kind), MARGIN) + 0.06, f"{kind}: {level}"


def asked(question: str, answer: str) -> Question:
    return Question("kind", "", question, answer)


def test_a_common_answer_is_found():
    rows = [asked("a?", "yes")] * 3 + [asked("b?", "no")]
    assert blind(rows, rows[::-1], keys={"kind": levels.READERS["kind"]}) == {"kind": 0.75}


def test_a_wording_that_tells_is_found():
    rows = [asked(f"is it {n}?", "yes" if n % 2 else "no") for n in range(10)]
    assert blind(rows, rows) == {"kind": 1.0}


def test_a_template_that_tells_is_found():
    fit = [asked("is there a red star?", "yes"), asked("is there a moon?", "no")]
    tried = [asked("is there a blue ring?", "yes"), asked("is there a cross?", "no")] * 5
    assert blind(fit, tried) == {"kind": 1.0}


def test_the_first_of_two_is_found():
    fit = [
        asked("which is faster, the star or the ring?", "star"),
        asked("which is faster, the moon or the star?", "moon"),
    ]
    tried = [
        asked("which is faster, the cross or the circle?", "cross"),
        asked("which is faster, the ring or the moon?", "ring"),
    ]
    assert blind(fit, tried) == {"kind": 1.0}


def test_what_cannot_be_told_is_not_found():
    rng = world.generator("coin")
    rows = [
        asked(f"is the {'star' if a else 'ring'} red?", "yes" if b else "no")
        for a, b in rng.integers(2, size=(4000, 2))
    ]
    assert abs(blind(rows[:3000], rows[3000:])["kind"] - 0.5) < 0.05


def test_questions_are_balanced_for_more_than_chance_would_give(monkeypatch):
    """The leak that balancing stops: without it, whoever knows the wording knows whether it is the same."""
    from minivlm.world.questions import Questions
    from minivlm.world.scenes import things

    ask = Questions(world.generator("raw"), kinds="same")
    raw = [q for these in things(world.draw_scenes(world.generator("leak"), 3000, (2, 3))) for q in ask(these)]
    assert blind(raw[:2000], raw[2000:])["same"] > 0.7 > stored()["questions"]["same"].blind


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task 'taste': there are questions"):
        levels.levels("taste")


def test_levels_of_another_version_are_refused(tmp_path):
    (tmp_path / "levels.json").write_text('{"version": "0", "tasks": {}}')
    with pytest.raises(ValueError, match="is of version 0"):
        stored(tmp_path / "levels.json")
    with pytest.raises(ValueError, match="cannot be read"):
        stored(tmp_path / "none.json")


def test_the_text_of_levels_is_read_back(tmp_path):
    (tmp_path / "levels.json").write_text(levels.text(stored()))
    assert stored(tmp_path / "levels.json") == stored()


def test_the_page_of_the_world_is_fresh():
    page = datasheet.PAGE.read_text(encoding="utf-8")
    assert datasheet.refresh(page, datasheet.table(stored())) == page, "run: python -m minivlm.world write"


def test_the_page_names_every_model_and_modules_that_exist():
    page = datasheet.PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\|.*\|(.*)\|$", page[: page.index("## How it is drawn")], re.MULTILINE)
    assert [name for name, _ in rows] == [model.name for model in MODELS]
    for name, modules in rows:
        named = re.findall(r"`(\w+)`", modules)
        assert named, f"{name} needs nothing?"
        for module in named:
            assert (ROOT / "minivlm" / "world" / f"{module}.py").is_file(), f"{name}: minivlm/world/{module}.py"
    for attribute in re.findall(r"`(\w+\.[A-Za-z_]+)`", page):
        module, name = attribute.split(".")
        if (ROOT / "minivlm" / "world" / f"{module}.py").is_file() and name != "py":
            source = (ROOT / "minivlm" / "world" / f"{module}.py").read_text(encoding="utf-8")
            assert re.search(rf"^(?:def |class )?{name}\b", source, re.MULTILINE), f"{attribute} does not exist"


def test_a_page_without_markers_says_so():
    with pytest.raises(ValueError, match="needs each of the lines"):
        datasheet.refresh("nothing", "table")


@pytest.mark.parametrize(
    ("share", "words"), [(0.5, "50"), (1 / 3, "33.3"), (1 / 64, "1.56"), (1e-9, "< 0.1"), (0.0, "0")]
)
def test_per_cent(share, words):
    assert datasheet.percent(share) == words
