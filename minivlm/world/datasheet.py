"""The tables of `docs/world.md` and `data/eval/README.md`: made from what is stored, between two lines of the page."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from minivlm.world import frozen
from minivlm.world.data_files import DATA
from minivlm.world.levels import Level, stored
from minivlm.world.tasks import TASKS

#: The pages, and the lines between which each holds its table.
PAGE, SHEET = DATA.parent / "docs" / "world.md", frozen.FOLDER / "README.md"
START, END = "<!-- made by: python -m minivlm.world write -->", "<!-- end -->"


def percent(share: float) -> str:
    """`33.3`, `1.56`, `< 0.1`."""
    return "< 0.1" if 0 < share < 0.0005 else f"{100 * share:.3g}"


def table(levels: Mapping[str, Mapping[str, Level]]) -> str:
    """The levels as Markdown: a row for each task and kind, in per cent."""
    rows = ["| task | kind | chance | blind |", "|---|---|---:|---:|"]
    for task, found in levels.items():
        for number, (kind, level) in enumerate(found.items()):
            first = "" if number else f"`{task}`"
            rows.append(f"| {first} | {kind} | {percent(level.chance)} | {percent(level.blind)} |")
    return "\n".join(rows)


def sheet(folder: Path = frozen.FOLDER) -> str:
    """The frozen sets as Markdown: a row for each task and kind, with the number of samples and the levels.

    Raises:
        ValueError: sets or levels are missing, damaged or of another version.
    """
    levels = stored(folder / "levels.json")
    rows = ["| task | what | kind | samples | chance | blind |", "|---|---|---|---:|---:|---:|"]
    for task, how in TASKS.items():
        found = frozen.load(task, folder)
        counts = Counter(getattr(row, "kind", "") for row in found.rows)
        for number, (kind, level) in enumerate(levels[task].items()):
            first = ["", ""] if number else [f"`{task}`", how.about]
            many = counts[kind] or len(found)  # what is asked about every sample
            rows.append(f"| {' | '.join([*first, kind, str(many), percent(level.chance), percent(level.blind)])} |")
    return "\n".join(rows)


def refresh(page: str, fresh: str, start: str = START, end: str = END) -> str:
    """The page with `fresh` between its markers, two lines.

    Raises:
        ValueError: a page without the markers, or with several of them.
    """
    if page.count(start) != 1 or page.count(end) != 1 or page.index(start) > page.index(end):
        raise ValueError(f"the page needs each of the lines {start!r} and {end!r} once, in this order.")
    return f"{page[: page.index(start)]}{start}\n\n{fresh}\n\n{page[page.index(end) :]}"


def renew(file: Path, fresh: str) -> None:
    """Refresh the table in a file.

    Raises:
        OSError, ValueError: it cannot be read or written, or lacks the markers.
    """
    frozen.put(file, refresh(file.read_text(encoding="utf-8"), fresh).encode())
