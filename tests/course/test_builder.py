"""Sources to notebooks and back, on a small course. Only the last tests start a kernel."""

import importlib.util
import subprocess

import nbformat
import pytest

from minivlm.__main__ import main
from minivlm.course import builder, commands, sources
from minivlm.course.back_from_lab import from_lab
from minivlm.course.definitions import package_text, parse_include
from minivlm.course.files import CourseError, read
from tests.course.helpers import LESSON, header, make_course


@pytest.fixture
def course(tmp_path):
    return make_course(tmp_path)


def save(course, notebook):
    nbformat.write(notebook, course.notebook("01_toy"))


def cells_of(course):
    return sources.build(course, "01_toy", header).cells


def test_cells(course):
    title, text, first, include, figure, last = cells_of(course)
    assert title.source == "# About toy"
    assert text.source == "## Build\n\nSome $x$ text."
    assert first.source == "import math"
    assert first.metadata == {}
    assert include.source == (
        "# How many heads there are.\nHEADS = 2  # two\n\n\n"
        '# Softly picks values.\ndef attend(q, k):\n    """Scaled product."""\n    return q * k / math.sqrt(HEADS)'
    )
    assert include.metadata == {"minivlm": {"include": "minivlm.toy:HEADS, attend"}}
    assert figure.metadata == {
        "tags": ["nbval-ignore-output"],
        "mystnb": {"image": {"alt": "A line that says nothing"}},
    }
    assert last.cell_type == "code"


def test_ids_are_stable_and_unique(tmp_path):
    course = make_course(tmp_path, "# %%\nx = 1\n\n# %%\nx = 1\n")
    ids = [cell.id for cell in cells_of(course)]
    assert len(set(ids)) == 2
    course.source("01_toy").write_text("# %%\nnew = 0\n\n# %%\nx = 1\n\n# %%\nx = 1\n")
    assert [cell.id for cell in cells_of(course)][1:] == ids


def test_source_round_trip_is_exact():
    assert sources.unparse(sources.parse(LESSON)) == LESSON


def test_parse_include():
    assert parse_include("a.b:X, y, c:Z") == [("a.b", "X"), ("a.b", "y"), ("c", "Z")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('# %% include="minivlm.toy:Missing"\n', "defines no 'Missing'. It defines: HEADS, attend, Attention"),
        ('# %% include="minivlm.nowhere:X"\n', "there is no .*nowhere.py"),
        ('# %% include="Attention"\n', "should look like"),
        ('# %% include="minivlm.toy:attend"\nprint(1)\n', "no text of its own"),
        ('# %% tags=["nbval-ignore"]\nx\n', "unknown tag nbval-ignore; allowed: nbval-check-output"),
        ('# %% tag=["nbval-skip"]\nx\n', "unknown option tag"),
        ('# %% [markdown] alt="x"\n# x\n', "unknown option alt"),
        ("# %% [raw]\n# x\n", "a raw cell"),
        ("", "has no cells"),
    ],
)
def test_bad_sources_are_named(tmp_path, source, words):
    course = make_course(tmp_path, "# %%\nx = 1\n\n" + source if source else "")
    with pytest.raises(CourseError, match=words) as caught:
        sources.build(course, "01_toy", header)
    assert not source or "cell 2" in str(caught.value)


def test_check_says_which_cell(course):
    stored = sources.build(course, "01_toy", header)
    save(course, stored)
    assert builder.check(course, "01_toy", header) == []

    toy = course.root / "minivlm" / "toy.py"
    toy.write_text(toy.read_text().replace("q * k", "q + k"))
    (found,) = builder.check(course, "01_toy", header)
    assert "cell 4 (code, include of minivlm.toy:HEADS, attend): source differs in line 8" in found
    assert "q * k" in found

    stored.cells.pop()
    stored.cells[4].metadata["tags"] = []
    save(course, stored)
    found = builder.check(course, "01_toy", header)
    assert "5 cells are stored, the source has 6" in found[0]
    assert "cell 5" in found[2]
    assert "metadata differs" in found[2]


def test_check_needs_both_files(course):
    assert "not built yet" in builder.check(course, "01_toy", header)[0]
    save(course, sources.build(course, "01_toy", header))
    course.source("01_toy").unlink()
    assert "has no source" in builder.check(course, "01_toy", header)[0]


def test_check_exit_status(course, capsys, monkeypatch):
    monkeypatch.setattr(sources, "survey_header", header)
    assert commands.check(course, ["01_toy"]) == 1
    assert "1 of 1 notebooks are out of step" in capsys.readouterr().out


def test_untidy_source_is_found_and_tidied(course):
    path = course.source("01_toy")
    path.write_text(LESSON.replace("# ## Build\n#\n", "# ## Build\n# \n\n\n"))
    assert "--tidy" in builder.check(course, "01_toy", header)[0]
    assert builder.tidy(course, "01_toy")
    assert not builder.tidy(course, "01_toy")


def test_from_lab_brings_cells_and_package_text_back(course):
    notebook = sources.build(course, "01_toy", header)
    save(course, notebook)
    assert from_lab(course, "01_toy", header) == []
    assert course.source("01_toy").read_text() == LESSON

    notebook.cells[1].source = "## Build\n\nBetter text."
    notebook.cells[3].source = notebook.cells[3].source.replace("q * k", "k * q")
    notebook.cells[4].metadata["mystnb"]["image"]["alt"] = "A better line"
    notebook.cells.insert(5, nbformat.v4.new_code_cell("new = 1"))
    del notebook.cells[6]
    save(course, notebook)
    changed = from_lab(course, "01_toy", header)
    assert [text.split(" (")[0] for text in changed] == [
        "01_toy.py: cell changed",
        "minivlm/toy.py: attend",
        "01_toy.py: options changed",
        "01_toy.py: new cell",
        "01_toy.py: cell removed",
    ]
    toy = (course.root / "minivlm" / "toy.py").read_text()
    assert "return k * q / math.sqrt(HEADS)\n\n\nclass Attention:" in toy
    text = course.source("01_toy").read_text()
    assert "# Better text." in text
    assert 'alt="A better line"' in text
    assert "new = 1" in text
    assert "claim" not in text
    built = [cell.source for cell in cells_of(course)]
    assert built == [cell.source for cell in notebook.cells]


def test_from_lab_refuses_what_it_cannot_place(course):
    for index, text, words in (
        (0, "# Mine", "minivlm.survey"),
        (3, "x = 1", "should define exactly HEADS, attend"),
        (3, "def attend(:", "is not Python"),
    ):
        notebook = sources.build(course, "01_toy", header)
        notebook.cells[index].source = text
        save(course, notebook)
        with pytest.raises(CourseError, match=words):
            from_lab(course, "01_toy", header)
        assert course.source("01_toy").read_text() == LESSON


def test_from_lab_undoes_no_newer_change(course):
    """A notebook that was built before the package or the source changed must not put the old text back."""
    save(course, sources.build(course, "01_toy", header))
    toy = course.root / "minivlm" / "toy.py"
    toy.write_text(toy.read_text().replace("q * k", "q + k"))
    with pytest.raises(CourseError, match=r"include of minivlm.toy:HEADS, attend\) was built from an older"):
        from_lab(course, "01_toy", header)
    assert "q + k" in toy.read_text()


def edit_in_lab(course, index, text):
    notebook = read(course.notebook("01_toy"))
    notebook.cells[index].source = text
    save(course, notebook)


def test_from_lab_a_second_time_without_a_build(course):
    save(course, sources.build(course, "01_toy", header))
    notebook = read(course.notebook("01_toy"))
    notebook.cells[1].source = "## Build\n\nBetter text."
    notebook.cells.append(nbformat.v4.new_code_cell("new = 1", id="an-id-that-lab-gave-to-a-new-cell"))
    save(course, notebook)
    assert from_lab(course, "01_toy", header)
    text = course.source("01_toy").read_text()
    assert from_lab(course, "01_toy", header) == [], "there is nothing more"
    edit_in_lab(course, 2, "import cmath")
    (changed,) = from_lab(course, "01_toy", header)
    assert "import cmath" in changed
    assert course.source("01_toy").read_text() == text.replace("import math", "import cmath")
    edit_in_lab(course, 2, "import random")
    with pytest.raises(CourseError, match=r"brought changes back already and have not built since.*minivlm build 01_toy"):
        from_lab(course, "01_toy", header)


def test_from_lab_advice_of_git_works(course):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=course.root, check=True, capture_output=True)

    save(course, sources.build(course, "01_toy", header))
    git("init")
    git("add", ".")
    git("commit", "-m", "built")
    edit_in_lab(course, 2, "import cmath")
    toy = course.root / "minivlm" / "toy.py"
    toy.write_text(toy.read_text().replace("q * k", "q + k"))
    with pytest.raises(CourseError) as caught:
        from_lab(course, "01_toy", header)
    stash = "git stash push -- minivlm notebooks/src"
    assert stash in str(caught.value)
    git(*stash.split()[1:])
    assert len(from_lab(course, "01_toy", header)) == 1
    git("commit", "-am", "from Lab")
    git("stash", "pop")
    assert "import cmath" in course.source("01_toy").read_text()
    assert "q + k" in toy.read_text()


def test_from_lab_needs_ids(course):
    notebook = sources.build(course, "01_toy", header)
    for cell in notebook.cells:
        del cell["id"]
    notebook.nbformat_minor = 4
    save(course, notebook)
    with pytest.raises(CourseError, match="cells without ids"):
        from_lab(course, "01_toy", header)
    assert "id differs" in builder.check(course, "01_toy", header)[0]


@pytest.mark.parametrize("action", [builder.build, builder.tidy, from_lab])
def test_a_missing_source_is_named(course, action):
    save(course, sources.build(course, "01_toy", header))
    course.source("01_toy").unlink()
    with pytest.raises(CourseError, match=r"01_toy has no source: .*01_toy.py does not exist"):
        action(course, "01_toy")


@pytest.mark.parametrize("option", [[], ["--check"], ["--tidy"], ["--from-lab"]])
def test_build_says_what_to_install(monkeypatch, capsys, option):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupytext" else find(name))
    assert main(["build", "00a", *option]) == 2
    assert 'build needs a few more packages: python -m pip install -e ".[site]"' in capsys.readouterr().err


def test_package_text_of_a_decorated_definition(course):
    text = "# this\n@wraps\n@twice\ndef f():\n    pass  # end"
    (course.root / "minivlm" / "toy.py").write_text(f"# not this\n\n{text}\n\n# nor this\n")
    assert package_text(course, "minivlm.toy:f") == text


def test_build_runs_stores_and_leaves_alone(course, monkeypatch):
    monkeypatch.setenv("MINIVLM_PRESET", "gpu")
    with course.source("01_toy").open("a") as stream:
        stream.write("import os\nprint(os.environ['MINIVLM_PRESET'], os.path.basename(os.getcwd()))\n")
    assert builder.build(course, "01_toy", header=header)
    stored = read(course.notebook("01_toy"))
    assert builder.differences(sources.build(course, "01_toy", header), stored) == []
    figure, last = stored.cells[4:]
    assert [output.get("text") for output in figure.outputs] == ["a\nb\n", None], "one stream output, then the value"
    assert last.outputs[0].text.endswith("cpu notebooks\n"), "the preset is pinned"
    assert stored.metadata == sources.METADATA

    before = course.notebook("01_toy").read_bytes()
    assert not builder.build(course, "01_toy", header=header), "nothing changed"
    assert builder.build(course, "01_toy", force=True, header=header)
    assert course.notebook("01_toy").read_bytes() == before, "two builds give the same bytes"


def test_build_that_fails_names_the_cell_and_keeps_the_old(course):
    save(course, sources.build(course, "01_toy", header))
    before = course.notebook("01_toy").read_bytes()
    course.source("01_toy").write_text("# %%\n1 / 0\n")
    with pytest.raises(CourseError, match=r"(?s)a cell fails.*1 / 0.*ZeroDivisionError"):
        builder.build(course, "01_toy", header=header)
    assert course.notebook("01_toy").read_bytes() == before
