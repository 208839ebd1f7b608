"""Every notebook is the lesson that was promised (docs/architecture.md)."""

import pytest

from minivlm import survey
from tests.notebooks import lessons

every_notebook = pytest.mark.parametrize("stem", lessons.stems())
every_model = pytest.mark.parametrize("stem", lessons.model_stems())


def code(cells: list) -> str:
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def test_there_are_model_notebooks_with_exercises():
    """Tests over an empty list are skipped, not failed: so the lists must not be empty."""
    assert lessons.model_stems(), f"no notebook of a surveyed model among {lessons.stems()}"
    assert any(lessons.exercises(lessons.load(stem)) for stem in lessons.stems()), "no notebook has an exercise"


@every_notebook
def test_title_and_promise(stem):
    notebook = lessons.load(stem)
    titles = [words for cell in notebook.cells for level, words in lessons.headings(cell) if level == 1]
    assert len(titles) == 1, f"{stem}: one title (a level-1 heading) is expected, found {titles}"
    assert lessons.headings(notebook.cells[0])[:1] == [(1, titles[0])], f"{stem}: the first cell should open with the title"
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").lower()
    assert "you will be able to" in text, f"{stem} does not say what 'you will be able to' do"


@every_model
def test_header_comes_from_the_survey(stem):
    model = next(model for model in survey.MODELS if model.notebook == stem)
    given = lessons.load(stem).cells[0].metadata.get("minivlm", {}).get("header")
    assert given == model.name, f'{stem}: the first cell should be # %% [markdown] header="{model.name}", and is {given!r}'


@every_model
def test_sections_in_order(stem):
    notebook = lessons.load(stem)
    found = [words for cell in notebook.cells for level, words in lessons.headings(cell) if level == 2]
    kept = [words for words in found if words in lessons.SECTIONS]
    assert kept == list(lessons.SECTIONS), f"{stem}: level-2 headings {found}"


@every_model
def test_build_section_includes_definitions(stem):
    cells = lessons.section_cells(lessons.load(stem), "Build")
    assert any(lessons.includes(cell) for cell in cells), f"{stem}: 'Build' includes nothing of the package"


@every_model
def test_claim_is_recorded_then_asserted(stem):
    said = [name for cell in lessons.section_cells(lessons.load(stem), "The claim") for name in ordered_calls(cell)]
    assert "lesson.record" in said, f"{stem}: 'The claim' has no lesson.record(...)"
    assert "lesson.expect" in said, f"{stem}: 'The claim' has no lesson.expect(...)"
    assert said.index("lesson.record") < said.index("lesson.expect"), f"{stem}: record first, assert after"


def ordered_calls(cell) -> list[str]:
    """The lesson's calls in a cell, in the order of their lines."""
    names = [name for name in ("lesson.record", "lesson.expect") if name in lessons.calls(cell)]
    return sorted(names, key=cell.source.index)


@every_model
def test_three_exercises(stem):
    found = lessons.exercises(lessons.load(stem))
    assert len(found) >= 3, f"{stem}: at least three exercises are expected, found {[e.heading for e in found]}"
    keys = [exercise.key for exercise in found]
    assert len(set(keys)) == len(keys), f"{stem}: two exercises have the same number: {keys}"


@every_notebook
def test_exercises_are_whole(stem):
    for exercise in lessons.exercises(lessons.load(stem)):
        where = f"{stem}, {exercise.heading!r}"
        assert lessons.EXERCISE.match(f"### {exercise.heading}"), f"{where}: expected '### Exercise 1: title ●○○ 10 minutes'"
        assert any(map(lessons.is_stub, exercise.code)), f"{where}: no stub that raises NotImplementedError"
        assert any("check" in lessons.calls(cell) for cell in exercise.code), f"{where}: no check(...)"
        assert exercise.solution, f"{where}: no <details><summary>Solution</summary> with a ```python block"


WIDEST = 88  # columns that fit beside the menu of the site, and into Lab on a laptop


@every_notebook
def test_code_fits_the_page(stem):
    """A line that has to be scrolled sideways is not read. Definitions are shortened in the package."""
    cells = [cell for cell in lessons.load(stem).cells if cell.cell_type == "code"]
    wide = [line for cell in cells for line in cell.source.splitlines() if len(line) > WIDEST]
    assert not wide, f"{stem}: lines of more than {WIDEST} columns: {wide}"
