"""Where the course's files lie, how one is written, and the error that a wrong request gets."""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode


class CourseError(Exception):
    """Something asked for cannot be done. The text says what was given, what was expected and what to do."""


@dataclass(frozen=True)
class Course:
    """One checkout: `root` holds notebooks/, notebooks/src/ and the package."""

    root: Path

    @classmethod
    def here(cls) -> "Course":
        """The checkout that this package was imported from."""
        root = Path(__file__).resolve().parents[2]
        if not (root / "notebooks").is_dir():
            raise CourseError(
                f"no folder notebooks/ in {root}: this command works in a checkout of the course. Clone the repository "
                'and install it from there with: python -m pip install -e "."'
            )
        return cls(root)

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def sources(self) -> Path:
        return self.notebooks / "src"

    def source(self, name: str) -> Path:
        return self.sources / f"{name}.py"

    def notebook(self, name: str) -> Path:
        return self.notebooks / f"{name}.ipynb"

    def text(self, name: str) -> str:
        """The text of a source. Raises CourseError if there is none."""
        try:
            return self.source(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CourseError(f"{name} has no source: {self.source(name)} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CourseError(f"{self.source(name)} cannot be read as text: {error}") from error

    def names(self) -> list[str]:
        """Every notebook that has a source or is built, in reading order."""
        found = {path.stem for path in self.sources.glob("*.py")} | {path.stem for path in self.notebooks.glob("*.ipynb")}
        return sorted(found)

    def choose(self, wanted: list[str]) -> list[str]:
        """The notebooks meant by `01`, `01_clip`, `clip` or a path; all of them for an empty list.

        Raises CourseError for a text that means none of them.
        """
        names = self.names()
        if not wanted:
            return names
        chosen: set[str] = set()
        for text in wanted:
            meant = matching(Path(text).stem, names)
            if not meant:
                raise CourseError(f"no notebook {text!r}. There are: {', '.join(names)}. A number is enough, such as 01.")
            chosen.update(meant)
        return [name for name in names if name in chosen]


def matching(text: str, names: list[str]) -> list[str]:
    """Names meant by a text: first exactly, then by the whole number or title, then by how either begins.

    `1` means `01`, and `CLIP` means `clip`.
    """
    text = text.zfill(2) if text.isdecimal() else text.casefold()
    if not text:
        return []
    for test in (
        lambda name: name == text,
        lambda name: text in name.split("_", 1),
        lambda name: name.startswith(text) or name.partition("_")[2].startswith(text),
    ):
        meant = [name for name in names if test(name.casefold())]
        if meant:
            return meant
    return []


def require(what: str, *packages: str) -> None:
    """Raise CourseError, saying how to install them, unless these packages of the extra `site` are there."""
    if not all(importlib.util.find_spec(name) for name in packages):
        raise CourseError(f'{what} needs a few more packages: python -m pip install -e ".[site]"')


def read(path: Path) -> NotebookNode:
    """A stored notebook. Raises CourseError if the file is missing or not a notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise CourseError(f"{path} does not exist yet; make it with: python -m minivlm build {path.stem}") from None
    except Exception as error:
        raise CourseError(f"{path} is not a notebook that nbformat can read: {error}") from error


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all: under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two runs may write into one folder
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
