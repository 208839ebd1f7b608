"""What makes a stored number stale, and what does not."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from minivlm.course.dependencies import backbones, claims, code_hash, modules
from minivlm.course.files import Course, CourseError

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "minivlm/__init__.py": "",
    "minivlm/models/__init__.py": "",
    "minivlm/models/toy.py": '"""A model."""\nfrom minivlm.nn.part import WIDTH\n\n'
    'def build():\n    """Builds."""\n    return WIDTH\n',
    "minivlm/nn/__init__.py": '"""Parts."""\n',
    "minivlm/nn/part.py": "def look():\n    from minivlm.nn import late\n    return late\n\nWIDTH = 3  # wide\n",
    "minivlm/nn/late.py": "A = 1\n",
    "minivlm/nn/other.py": "B = 1\n",
    "minivlm/plots/__init__.py": "C = 1\n",
    "minivlm/checkpoints/__init__.py": "from minivlm.models import all_others\n",
}
IMPORTS = "from minivlm.models.toy import build\nfrom minivlm import checkpoints, plots\n"
TRAIN = f"{IMPORTS}lesson.record('it helps', a=build(), b=1)"


@pytest.fixture
def course(tmp_path):
    for file, text in FILES.items():
        write(tmp_path, file, text)
    store(tmp_path, TRAIN)
    return Course(tmp_path)


def write(root, file, text):
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text, encoding="utf-8")


def store(root, *cells, before="Prose."):
    (root / "notebooks").mkdir(exist_ok=True)
    made = [new_markdown_cell(before), *map(new_code_cell, cells)]
    nbformat.write(new_notebook(cells=made), root / "notebooks" / "01_a.ipynb")


def test_modules_are_followed_into_functions_and_packages(course):
    assert modules(course, "01_a") == [
        "minivlm",
        "minivlm.models",
        "minivlm.models.toy",
        "minivlm.nn",
        "minivlm.nn.late",
        "minivlm.nn.part",
    ]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("minivlm/models/toy.py", "return WIDTH", "return WIDTH + 1"),
        ("minivlm/nn/part.py", "WIDTH = 3", "WIDTH = 4"),
        ("minivlm/nn/part.py", "WIDTH = 3", "WIDTH = 3.0"),
        ("minivlm/nn/late.py", "A = 1", "A = 2"),
        ("minivlm/nn/__init__.py", '"""Parts."""', '"""Parts."""\nD = 1'),
        ("minivlm/__init__.py", "", "D = 1"),
    ],
)
def test_code_that_is_imported_makes_stale(course, file, old, new):
    before = code_hash(course, "01_a")
    write(course.root, file, FILES[file].replace(old, new) or new)
    assert code_hash(course, "01_a") != before
    write(course.root, file, FILES[file])
    assert code_hash(course, "01_a") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("minivlm/models/toy.py", '"""A model."""', '"""The model."""\n# and a comment\n'),
        ("minivlm/models/toy.py", '    """Builds."""\n', ""),
        ("minivlm/nn/part.py", "WIDTH = 3  # wide", "\n\nWIDTH   =   3"),
        ("minivlm/nn/other.py", "B = 1", "B = 2"),
        ("minivlm/plots/__init__.py", "C = 1", "C = 2"),
        ("minivlm/checkpoints/__init__.py", "all_others", "each_other"),
    ],
)
def test_wording_layout_figures_and_what_is_not_imported_do_not(course, file, old, new):
    before = code_hash(course, "01_a")
    assert old in FILES[file]
    write(course.root, file, FILES[file].replace(old, new))
    assert code_hash(course, "01_a") == before


def test_of_the_notebook_only_code_up_to_the_last_record_or_expect_counts(course):
    before = code_hash(course, "01_a")
    store(course.root, TRAIN + "  # now", "draw()", "import minivlm.gone", before="Other prose.")
    assert code_hash(course, "01_a") == before
    store(course.root, TRAIN.replace("b=1", "b=2"))
    assert code_hash(course, "01_a") != before
    store(course.root, TRAIN, "lesson.expect(1, at_least=0)")
    assert code_hash(course, "01_a") != before


def test_the_hash_is_the_same_under_every_python(course):
    """What ast.dump says differs from version to version."""
    assert code_hash(course, "01_a") == "74172aadc3eb"


def test_what_is_loaded_counts_where_it_computes():
    """Checkpoints bring the numbers of a backbone and do not count; the class that computes with them must."""
    course = Course(ROOT)
    found = [name for name in course.names() if backbones(course, name)]
    assert len(found) > 5
    for name in found:
        needed = {"minivlm.backbones.store"}
        for folder in backbones(course, name):
            needed.add("minivlm.language.decoder" if folder.startswith("language") else "minivlm.vision.vit")
        assert needed <= set(modules(course, name)), name


def test_claims_are_read_off_the_cells(course):
    store(course.root, "lesson.record('b', x=1)\nother.record('no')", "if x:\n    lesson.record('a', **y)\nlesson.record(z)")
    assert claims(course, "01_a") == ["b", "a"]


def test_what_is_imported_and_is_not_there(course):
    store(course.root, "import minivlm.gone.away")
    with pytest.raises(CourseError, match="the code imports minivlm.gone.away, and neither .*away.py nor"):
        code_hash(course, "01_a")
    store(course.root, "from minivlm.models.toy import build, nothing")  # says the notebook itself
    assert "minivlm.models.toy" in modules(course, "01_a")


def test_what_is_not_python(course):
    write(course.root, "minivlm/nn/late.py", "A = = 1")
    with pytest.raises(CourseError, match="late.py is not Python"):
        code_hash(course, "01_a")
    store(course.root, "x = 1", "x = = 1")
    with pytest.raises(CourseError, match="01_a.ipynb: code cell 2 is not Python"):
        code_hash(course, "01_a")


def test_backbones_are_those_that_the_code_names(course):
    for name in ("language-cpu", "language-gpu", "vision-cpu"):
        card = {"name": name, "weights_sha256": f"{name[0]}{name[-3:]}" * 16}
        write(course.root, f"data/backbones/{name}-v1/card.json", json.dumps(card))
    assert backbones(course, "01_a") == {}
    store(course.root, "backbones.read('vision-cpu')", before="Not language-cpu.")
    assert backbones(course, "01_a") == {"vision-cpu-v1": "vcpuvcpuvcpu"}
    store(course.root, "backbones.load(f'language-{lesson.preset}')\nprint(f'{x}-{y}')")
    assert list(backbones(course, "01_a")) == ["language-cpu-v1", "language-gpu-v1"]
    write(course.root, "data/backbones/vision-cpu-v1/card.json", "{}")
    with pytest.raises(CourseError, match="card.json is damaged"):
        backbones(course, "01_a")
