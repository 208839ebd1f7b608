"""What the tests of the notebooks share: which notebooks there are, and how one is read."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"

SECTIONS = (
    "The idea in one picture",
    "Build",
    "Is it right?",
    "Train",
    "Look",
    "The claim",
    "Paper and toy",
    "Exercises",
)
EXERCISE = re.compile(r"^### (Exercise \d+)\b[:.]?\s*(.+?)\s*(●○○|●●○|●●●)\D*(\d+)\s*min", re.MULTILINE)
SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>.*?```python\n(.*?)```.*?</details>", re.DOTALL)


def stems() -> list[str]:
    """Every notebook, from its source. Never an empty list: a test over nothing would pass."""
    found = sorted(path.stem for path in (FOLDER / "src").glob("*.py"))
    assert found, f"no notebook sources in {FOLDER / 'src'}"
    return found


def model_stems() -> list[str]:
    """The notebooks of surveyed models that are written so far; to them the whole contract applies."""
    from minivlm import survey

    return [model.notebook for model in survey.MODELS if model.notebook in stems()]


def load(stem: str, folder: Path = FOLDER) -> NotebookNode:
    path = folder / f"{stem}.ipynb"
    assert path.exists(), f"{path} is not built: python -m minivlm build {stem}"
    return nbformat.read(path, as_version=4)


def includes(cell: NotebookNode) -> list[tuple[str, str]]:
    """(module, name) of every definition that an include cell holds."""
    from minivlm.course.definitions import parse_include

    text = cell.metadata.get("minivlm", {}).get("include", "")
    return parse_include(text) if text else []


def headings(cell: NotebookNode) -> list[tuple[int, str]]:
    """(level, text) of the headings of a markdown cell, those inside code blocks left out."""
    if cell.cell_type != "markdown":
        return []
    text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
    return [(len(mark), words.strip()) for mark, words in re.findall(r"^(#{1,6}) (.+)$", text, flags=re.MULTILINE)]


def section_cells(notebook: NotebookNode, title: str) -> list[NotebookNode]:
    """The cells from a level-2 heading to the next one."""
    cells, inside = [], False
    for cell in notebook.cells:
        for level, words in headings(cell):
            if level == 2:
                inside = words == title
        if inside:
            cells.append(cell)
    return cells


def calls(cell: NotebookNode) -> set[str]:
    """What a code cell calls, as written: {"check", "lesson.record", ...}."""
    if cell.cell_type != "code":
        return set()
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)}


def is_stub(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "raise NotImplementedError" in cell.source


@dataclass
class Exercise:
    """One exercise: its heading and the cells up to the next heading."""

    key: str  # "Exercise 1"
    heading: str
    cells: list[NotebookNode] = field(default_factory=list)

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @property
    def solution(self) -> str | None:
        """The code of its folded solution."""
        found = SOLUTION.search("\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown"))
        return found[1] if found else None


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """Every cell group under a level-3 heading that begins with `Exercise`, well formed or not."""
    found: list[Exercise] = []
    inside = False
    for cell in notebook.cells:
        for level, words in headings(cell):
            inside = level == 3 and words.startswith("Exercise") if level <= 3 else inside
            if inside and level == 3:
                key = re.match(r"Exercise\s*\d*", words)
                found.append(Exercise(key[0].strip(), words))
        if inside:
            found[-1].cells.append(cell)
    return found
