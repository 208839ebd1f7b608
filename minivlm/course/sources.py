"""Text sources (py:percent) to notebook cells.

Four kinds of cells, beside plain markdown:

    # %%                                                          ordinary code
    # %% tags=["nbval-ignore-output"] alt="What the figure shows" ... with options
    # %% include="minivlm.nn.attention:Attention, split_heads"    the package's own text of these definitions
    # %% [markdown] header="clip"                                 what minivlm.survey.header("clip") says
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from minivlm.course.definitions import package_text
from minivlm.course.files import Course, CourseError

TAGS = {"nbval-ignore-output", "nbval-check-output", "raises-exception", "nbval-skip"}
OPTIONS = {"code": {"tags", "alt", "include"}, "markdown": {"header"}}
# Always the same, so that a notebook run with another Python does not change: and "python3" is whichever one runs it.
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
EMPTY_HEADER = re.compile(r'^(# %% \[markdown\] header="[^"\n]*"\n)#\n', re.MULTILINE)
HeaderText = Callable[[str], str]


def survey_header(name: str) -> str:
    """The header of a model's notebook, from the one table of models."""
    from minivlm import survey

    return survey.header(name)


def parse(text: str) -> NotebookNode:
    """The cells of a py:percent text, with their options as metadata."""
    return jupytext.reads(text, fmt="py:percent")


def unparse(source: NotebookNode) -> str:
    """The py:percent text of such cells: the inverse of `parse`."""
    source.metadata.setdefault("jupytext", {})["notebook_metadata_filter"] = "-all"
    text = jupytext.writes(source, fmt="py:percent")
    return EMPTY_HEADER.sub(r"\1", text)  # jupytext writes an empty markdown cell as one "#"


def options_of(cell: NotebookNode, place: str) -> dict:
    """The checked options of a source cell. Raises CourseError for one that does not exist, naming the ones that do."""
    if cell.cell_type not in OPTIONS:
        raise CourseError(f"{place}: a {cell.cell_type} cell; only code and markdown cells are used here")
    options = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}
    allowed = OPTIONS[cell.cell_type]
    if unknown := sorted(set(options) - allowed):
        raise CourseError(f"{place}: unknown option {', '.join(unknown)}; a {cell.cell_type} cell may have: {sorted(allowed)}")
    if unknown := sorted(set(options.get("tags", [])) - TAGS):
        raise CourseError(f"{place}: unknown tag {', '.join(unknown)}; allowed: {', '.join(sorted(TAGS))}")
    if ("include" in options or "header" in options) and cell.source.strip():
        raise CourseError(f"{place}: an include or header cell has no text of its own; found {cell.source[:60]!r}")
    return options


def built_cell(course: Course, cell: NotebookNode, place: str, header: HeaderText) -> NotebookNode:
    """The notebook's cell for a source's cell."""
    options = options_of(cell, place)
    text, metadata = cell.source, {}
    try:
        if "include" in options:
            text = package_text(course, options["include"])
            metadata["minivlm"] = {"include": options["include"]}
        if "header" in options:
            text = header(options["header"]).strip()
            metadata["minivlm"] = {"header": options["header"]}
    except (CourseError, KeyError) as error:
        raise CourseError(f"{place}: {error.args[0]}") from error
    if "tags" in options:
        metadata["tags"] = list(options["tags"])
    if "alt" in options:
        metadata["mystnb"] = {"image": {"alt": options["alt"]}}
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    return make(text, metadata=metadata)


def options_from(metadata: dict) -> dict:
    """The options of a source cell, from the metadata of a built cell (what Lab itself adds is left out)."""
    options = dict(metadata.get("minivlm", {}))
    if metadata.get("tags"):
        options["tags"] = list(metadata["tags"])
    if alt := metadata.get("mystnb", {}).get("image", {}).get("alt"):
        options["alt"] = alt
    return options


def build(course: Course, name: str, header: HeaderText = survey_header) -> NotebookNode:
    """The notebook of a source, without outputs.

    Raises CourseError, naming the cell, for an unknown option, tag, module or definition.
    """
    source = parse(course.text(name))
    cells, seen = [], Counter()
    for number, cell in enumerate(source.cells, start=1):
        built = built_cell(course, cell, f"{name}, cell {number}", header)
        key = f"{name}\0{built.cell_type}\0{built.source}"
        seen[key] += 1
        built.id = hashlib.sha256(f"{key}\0{seen[key]}".encode()).hexdigest()[:12]
        cells.append(built)
    if not cells:
        raise CourseError(f"{course.source(name)} has no cells; they begin with a line '# %%' or '# %% [markdown]'")
    notebook = new_notebook(cells=cells, metadata=nbformat.from_dict(METADATA))
    notebook.nbformat_minor = 5
    return notebook
