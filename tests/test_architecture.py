"""Imports only point down (docs/architecture.md), read from the source without importing it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "minivlm"

# From the ground up. A room may import from lower floors, never from its own (except from itself) or a higher one.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"world", "nn", "survey"}),
    frozenset({"vision", "language", "audio", "plots"}),
    frozenset({"connectors"}),
    frozenset({"models"}),
    frozenset({"training", "evaluation"}),
    frozenset({"checkpoints"}),
    frozenset({"backbones"}),
    frozenset({"course"}),
    frozenset({"__main__"}),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Beyond the floors: pure model code knows neither the toy world nor how anything is drawn or told.
PURE = frozenset({"nn", "vision", "language", "audio", "connectors", "models"})
NEVER = {room: frozenset({"world", "survey", "plots"}) for room in PURE} | {"plots": frozenset({"world", "nn"})}


def room_of(file: Path, package: Path) -> str:
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere in a file, inside functions too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append((node.lineno, "." * node.level + (node.module or "")))
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names] if node.module == "minivlm" else [""]
            found += [(node.lineno, f"{node.module}.{name}".rstrip(".")) for name in names]
    return found


def complaints(package: Path) -> list[str]:
    """One line for each import that points up, sideways or where it never may."""
    found = []
    for file in sorted(package.rglob("*.py")):
        room = room_of(file, package)
        for line, name in imported(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.relative_to(package.parent).as_posix()}:{line}"
            parts = name.split(".")
            if name.startswith("."):
                found.append(f"{where}: {name} is relative; say minivlm.room.file")
            elif parts[0] != "minivlm":
                continue
            elif room == "__init__":
                found.append(
                    f"{where}: minivlm/__init__.py imports {name}; it imports nothing, so that each room loads alone"
                )
            elif room not in FLOOR:
                found.append(
                    f"{where}: the room {room} stands on no floor; add it to FLOORS and to docs/architecture.md"
                )
            elif len(parts) > 1 and parts[1] != room:
                other = parts[1]
                if other in NEVER.get(room, ()):
                    found.append(f"{where}: {room} must know nothing of {other}")
                elif FLOOR.get(other, 99) >= FLOOR[room]:
                    found.append(f"{where}: {room} imports {other}, which does not stand below it")
    return found


def test_imports_only_point_down():
    assert len(list(PACKAGE.rglob("*.py"))) > 10
    assert not complaints(PACKAGE), "\n".join(complaints(PACKAGE))


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("nn/attention.py", "from minivlm.vision.vit import ViT", "does not stand below"),
        ("vision/vit.py", "import minivlm.language.tokenizer", "does not stand below"),
        ("language/tokenizer.py", "def f():\n    from minivlm import world", "language must know nothing of world"),
        ("models/clip.py", "from minivlm.plots import bars", "models must know nothing of plots"),
        ("models/clip.py", "from minivlm.training.loop import fit", "does not stand below"),
        ("world/scenes.py", "from minivlm.nn.attention import Attention", "does not stand below"),
        ("world/scenes.py", "from ..nn import attention", "relative"),
        ("training/loop.py", "from minivlm.evaluation import benchmark", "does not stand below"),
        ("plots/charts.py", "from minivlm.models.clip import CLIP", "does not stand below"),
        ("garage/car.py", "import minivlm.nn", "no floor"),
        ("__init__.py", "from minivlm import nn", "imports nothing"),
    ],
)
def test_the_check_catches(tmp_path, file, line, words):
    path = tmp_path / "minivlm" / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n", encoding="utf-8")
    (complaint,) = complaints(tmp_path / "minivlm")
    assert words in complaint
    assert f"minivlm/{file}:" in complaint


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/clip.py", "from minivlm.vision.vit import ViT"),
        ("models/clip.py", "import torch"),
        ("world/grammar.py", "from minivlm.world.scenes import Scenes"),
        ("evaluation/benchmark.py", "from minivlm import world"),
        ("course/lesson.py", "from minivlm import survey, plots"),
    ],
)
def test_the_check_lets_pass(tmp_path, file, line):
    path = tmp_path / "minivlm" / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n", encoding="utf-8")
    assert complaints(tmp_path / "minivlm") == []


def test_the_survey_needs_no_torch():
    """The table of the README and the notebooks' headers are made in a blink, by whoever has Python."""
    for file in (PACKAGE / "survey").glob("*.py"):
        names = {name.split(".")[0] for _, name in imported(ast.parse(file.read_text(encoding="utf-8")))}
        assert not names & {"torch", "numpy", "matplotlib"}, file.name


def test_every_room_is_on_the_plan_of_the_house():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert len(rooms) > 5
    for room in rooms:
        assert f"`{room}/`" in text, f"docs/architecture.md says nothing of minivlm/{room}/"
