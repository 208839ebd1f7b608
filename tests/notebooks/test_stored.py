"""Closes the holes through which a green nbval run would mean nothing.

nbval compares no cell without an execution count, no picture, nothing that is skipped or ignored; so these are counted.
"""

import ast
import re

import pytest

from minivlm.course import builder
from minivlm.course.files import Course
from minivlm.course.sources import METADATA, TAGS
from tests.notebooks import lessons

LARGEST = 3_000_000  # bytes
MOST_IGNORED = 1 / 3  # of a notebook's code cells
NETWORK = re.compile(r"https?://|\burlopen\b|\brequests\.|torch\.hub|download=True|^[!%]\s*(pip|conda|wget|curl)", re.MULTILINE)

every_notebook = pytest.mark.parametrize("stem", lessons.stems())


def code_cells(stem: str) -> list:
    """(number, cell) of every code cell with code, numbered as in the file."""
    cells = lessons.load(stem).cells
    return [(i, cell) for i, cell in enumerate(cells, start=1) if cell.cell_type == "code" and cell.source.strip()]


def outputs(stem: str) -> list:
    return [(number, output) for number, cell in code_cells(stem) for output in cell.outputs]


def test_every_source_is_built_and_every_notebook_has_a_source():
    assert sorted(path.stem for path in lessons.FOLDER.glob("*.ipynb")) == lessons.stems()


@every_notebook
def test_in_step_with_source_and_package(stem):
    found = builder.check(Course(lessons.ROOT), stem)
    assert not found, f"{stem} is out of step; python -m minivlm build {stem}\n" + "\n".join(found)


@every_notebook
def test_every_cell_was_run_in_order(stem):
    counts = [cell.execution_count for _, cell in code_cells(stem)]
    assert counts == list(range(1, len(counts) + 1)), f"{stem}: execution counts {counts}"
    assert counts, f"{stem} has no code"


@every_notebook
def test_no_errors_without_the_tag(stem):
    for number, cell in code_cells(stem):
        if "raises-exception" not in cell.metadata.get("tags", []):
            errors = [output for output in cell.outputs if output.output_type == "error"]
            assert not errors, f"{stem}, cell {number} stores an error: {errors[0].ename}: {errors[0].evalue}"


@every_notebook
def test_metadata_is_fixed(stem):
    notebook = lessons.load(stem)
    assert notebook.metadata == METADATA, f"{stem}: {dict(notebook.metadata)} (widgets? another kernel?)"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids), f"{stem}: cell ids are not unique"


@every_notebook
def test_no_stderr(stem):
    found = [f"cell {n}: {o.text[:200]}" for n, o in outputs(stem) if o.get("name") == "stderr"]
    assert not found, f"{stem} stores warnings:\n" + "\n".join(found)


@every_notebook
def test_no_widgets(stem):
    found = [n for n, output in outputs(stem) if any("widget" in kind for kind in output.get("data", {}))]
    assert not found, f"{stem}: cells {found} show widgets, which pages and nbval cannot"


@every_notebook
def test_tags_are_known_and_none_skips(stem):
    for number, cell in code_cells(stem):
        tags = set(cell.metadata.get("tags", []))
        assert tags <= TAGS, f"{stem}, cell {number}: tags {tags - TAGS}"
        assert "nbval-skip" not in tags, f"{stem}, cell {number} is skipped by the tests"
        assert "NBVAL_" not in cell.source, f"{stem}, cell {number}: use tags, not # NBVAL_ comments"


@every_notebook
def test_few_outputs_are_ignored(stem):
    cells = code_cells(stem)
    ignored = [number for number, cell in cells if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    share = len(ignored) / len(cells)
    assert share <= MOST_IGNORED, f"{stem}: {share:.0%} of the code cells are not compared: {ignored}"


@pytest.mark.parametrize("stem", lessons.model_stems())
def test_what_comes_before_training_is_compared(stem):
    notebook = lessons.load(stem)
    for title in lessons.SECTIONS[: lessons.SECTIONS.index("Train")]:
        for cell in lessons.section_cells(notebook, title):
            assert "nbval-ignore-output" not in cell.metadata.get("tags", []), (
                f"{stem}, {title}: nothing is trained yet, so print what is the same everywhere instead of ignoring it:\n"
                + cell.source
            )


@every_notebook
def test_size(stem):
    size = (lessons.FOLDER / f"{stem}.ipynb").stat().st_size
    assert size < LARGEST, f"{stem}.ipynb has {size:,} bytes; smaller or fewer figures"


@every_notebook
def test_no_cell_ends_in_a_semicolon(stem):
    for number, cell in code_cells(stem):
        assert not cell.source.rstrip().endswith(";"), f"{stem}, cell {number} ends in ';': under nbval it shows its value"


@every_notebook
def test_figures_have_alternative_text(stem):
    for number, cell in code_cells(stem):
        images = [o for o in cell.outputs if any(kind.startswith("image/") for kind in o.get("data", {}))]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if images:
            assert len(alt) >= 15, f'{stem}, cell {number} draws a figure: say what is to be seen in # %% alt="..."'
        else:
            assert not alt, f"{stem}, cell {number} has an alternative text and no figure"
    for cell in lessons.load(stem).cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source, f"{stem}: a picture without alternative text: {cell.source[:80]}"


@every_notebook
def test_no_network(stem):
    for number, cell in code_cells(stem):
        found = NETWORK.search(cell.source)
        assert not found, f"{stem}, cell {number}: {found[0]!r}; a lesson works offline"
    for cell in lessons.load(stem).cells:
        if cell.cell_type == "markdown":
            remote = re.search(r"!\[[^\]]*\]\(https?:|<(img|iframe|script)[^>]*https?:", cell.source)
            assert not remote, f"{stem}: a picture from the network: {cell.source[:80]}"


@every_notebook
def test_every_cell_is_plain_python(stem):
    for number, cell in code_cells(stem):
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            pytest.fail(f"{stem}, cell {number} is not plain Python (a magic?): {error}")
