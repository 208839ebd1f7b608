"""Each definition of the lesson rooms is introduced in exactly one notebook. Read from the sources; nothing is run."""

import ast
from collections import defaultdict

from minivlm.course import sources
from minivlm.course.definitions import defined_names, parse_include
from tests.notebooks import lessons

ROOMS = ("nn", "vision", "language", "connectors", "audio", "models")
FILES = ("training/loop.py",)


def public_definitions() -> set[str]:
    """`module:name` of every public top-level function and class of the rooms."""
    package = lessons.ROOT / "minivlm"
    paths = [path for room in ROOMS for path in sorted((package / room).rglob("*.py"))] + [package / file for file in FILES]
    found = set()
    for path in paths:
        module = ".".join(path.relative_to(lessons.ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.update(f"{module}:{name}" for name in defined_names(node) if not name.startswith("_"))
    return found


def included() -> dict[str, list[str]]:
    """`module:name` to the notebooks that include it."""
    found = defaultdict(list)
    for stem in lessons.stems():
        for cell in sources.parse((lessons.FOLDER / "src" / f"{stem}.py").read_text(encoding="utf-8")).cells:
            for module, name in parse_include(cell.metadata["include"]) if "include" in cell.metadata else ():
                found[f"{module}:{name}"].append(stem)
    return found


def test_there_are_definitions():
    assert public_definitions(), "no public definition found in the lesson rooms; does this test look in the right place?"


def test_no_definition_is_a_black_box():
    missing = sorted(public_definitions() - set(included()))
    assert not missing, "no notebook introduces: " + ", ".join(missing) + ". Include each where it is first needed."


def test_no_definition_is_introduced_twice():
    twice = {name: stems for name, stems in included().items() if len(stems) > 1}
    assert not twice, f"introduced more than once, import them the second time: {twice}"
