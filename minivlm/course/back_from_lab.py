"""Bring what was edited in JupyterLab back: ordinary cells into the source, include cells into the package."""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from minivlm.course import sources
from minivlm.course.builder import describe
from minivlm.course.definitions import replace_package_text
from minivlm.course.files import Course, CourseError, read, write

BUILT_ID = re.compile("[0-9a-f]{12}")  # the builder's ids; Lab gives a new cell a longer one


def from_lab(course: Course, name: str, header: sources.HeaderText = sources.survey_header) -> list[str]:
    """Update a source and the package from an edited notebook. Returns what changed, in words.

    Cells are recognised by their ids, which Lab keeps; those that were brought back since the last build by their text.

    Raises CourseError for a notebook that was built from another state of the source or the package, a changed header
    cell, or an include cell that no longer defines what it should.
    """
    path = course.source(name)
    source = sources.parse(course.text(name))
    built = sources.build(course, name, header)
    known = {shown.id: (old, shown) for old, shown in zip(source.cells, built.cells, strict=True)}
    edited = read(course.notebook(name))
    if unnamed := [cell for cell in edited.cells if "id" not in cell]:
        raise CourseError(
            f"{course.notebook(name)} has cells without ids ({describe(unnamed[0])}), by which they are recognised. What saved "
            f"it leaves them out; copy your changes into {path} by hand, and edit in JupyterLab."
        )
    recognise(edited.cells, known)
    refuse_older_builds(name, edited.cells, set(known))

    changed: list[str] = []
    cells: list[NotebookNode] = []
    for cell in edited.cells:
        if cell.id not in known:
            if cell.source.strip():
                cells.append(new_cell(cell))
                changed.append(f"{path.name}: new cell ({describe(cell)})")
            continue
        old, shown = known.pop(cell.id)
        changed += bring_back(course, path.name, old, shown, cell)
        cells.append(old)
    changed += [f"{path.name}: cell removed ({describe(shown)})" for _, shown in known.values()]
    if [cell.source for cell in cells] != [cell.source for cell in source.cells] and not changed:
        changed.append(f"{path.name}: cells in another order")
    source.cells = cells
    text = sources.unparse(source)
    if text != course.text(name):
        write(path, text)
    return changed


def recognise(cells: list[NotebookNode], known: dict[str, tuple[NotebookNode, NotebookNode]]) -> None:
    """Give cells that say what the source says by now, under another id, the id of that: nothing of them is to bring back."""
    given = {cell.id for cell in cells}
    free = [shown for id, (_, shown) in known.items() if id not in given]
    for cell in cells:
        if cell.id not in known and (same := next((shown for shown in free if says(shown) == says(cell)), None)):
            free.remove(same)
            cell.id = same.id


def says(cell: NotebookNode) -> tuple[str, str, dict]:
    return cell.cell_type, cell.source, sources.options_from(cell.metadata)


def refuse_older_builds(name: str, cells: list[NotebookNode], known: set[str]) -> None:
    """Raise CourseError if a cell was built from what is no longer the source: bringing it back would undo that change."""
    for cell in cells:
        if BUILT_ID.fullmatch(cell.id) and cell.id not in known:
            raise CourseError(
                f"the cell ({describe(cell)}) was built from an older source or package text. Either you brought changes back "
                f"already and have not built since: then copy this cell's text, run python -m minivlm build {name}, and paste "
                "it. Or source or package changed after the build: then put those aside (git stash push -- minivlm "
                f"notebooks/src), run python -m minivlm build --from-lab {name}, commit, and redo yours (git stash pop)."
            )


def new_cell(cell: NotebookNode) -> NotebookNode:
    """A source cell for a cell that was added in Lab."""
    if cell.cell_type not in sources.OPTIONS:
        raise CourseError(f"a {cell.cell_type} cell ({describe(cell)}); only code and markdown cells are used here")
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    return make(cell.source, metadata=sources.options_from(cell.metadata))


def bring_back(course: Course, source: str, old: NotebookNode, shown: NotebookNode, cell: NotebookNode) -> list[str]:
    """Update one source cell (or the package, for an include) from its edited cell. Returns what changed, in words."""
    changed = []
    if cell.cell_type != shown.cell_type:
        raise CourseError(f"cell ({describe(cell)}) was a {shown.cell_type} cell; add a new cell instead of changing its type")
    if cell.source != shown.source:
        if "header" in old.metadata:
            raise CourseError(f"the header cell is what minivlm.survey says of {old.metadata['header']!r}; change it there")
        if "include" in old.metadata:
            changed += replace_package_text(course, old.metadata["include"], cell.source)
        else:
            old.source = cell.source
            changed.append(f"{source}: cell changed ({describe(cell)})")
    given, wanted = sources.options_from(cell.metadata), sources.options_from(shown.metadata)
    if given != wanted:
        for key in wanted:
            old.metadata.pop(key, None)
        old.metadata.update(given)
        changed.append(f"{source}: options changed ({describe(cell)})")
    return changed
