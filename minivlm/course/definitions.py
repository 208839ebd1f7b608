"""The package's own text of a definition, read and replaced without importing it.

A definition is a top-level function, class or assignment with the comment lines directly above it.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from minivlm.course.files import Course, CourseError, write


@dataclass(frozen=True)
class Definition:
    """Lines `start` to `end` (counted from 0, `end` excluded) of a file define `name`."""

    name: str
    start: int
    end: int
    text: str
    is_assignment: bool


def definitions(source: str) -> dict[str, Definition]:
    """Every top-level definition of a Python text, by name, in order.

    Raises SyntaxError if the text is not Python.
    """
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        for name in defined_names(node):
            start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
            while start > 0 and lines[start - 1].startswith("#"):
                start -= 1
            text = "\n".join(lines[start : node.end_lineno])
            found[name] = Definition(name, start, node.end_lineno, text, isinstance(node, ast.Assign | ast.AnnAssign))
    return found


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [target.id for target in node.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name() as target):
            return [target.id]
    return []


def parse_include(text: str) -> list[tuple[str, str]]:
    """Pairs (module, name) of an include such as `minivlm.nn.attention:Attention, rotate`.

    Raises CourseError if the text has another form.
    """
    pairs: list[tuple[str, str]] = []
    for part in (part.strip() for part in text.split(",")):
        module, colon, name = part.rpartition(":")
        if not colon and pairs:
            module = pairs[-1][0]
        if not module or not name.isidentifier():
            raise CourseError(f"include={text!r}: {part!r} should look like minivlm.nn.attention:Attention")
        pairs.append((module, name))
    return pairs


def module_path(course: Course, module: str) -> Path:
    """The file of a module of the checkout. Raises CourseError if there is none."""
    stem = course.root.joinpath(*module.split("."))
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    raise CourseError(f"include of {module}: there is no {stem.with_suffix('.py')}")


def package_text(course: Course, include: str) -> str:
    """The text that an include cell shows. Raises CourseError if a module or a definition is missing."""
    parts = []
    for module, name in parse_include(include):
        path = module_path(course, module)
        found = definitions(path.read_text(encoding="utf-8"))
        if name not in found:
            raise CourseError(f"include={include!r}: {path} defines no {name!r}. It defines: {', '.join(found) or 'nothing'}.")
        parts.append(found[name])
    text = parts[0].text
    for before, after in zip(parts, parts[1:], strict=False):
        text += ("\n" if before.is_assignment and after.is_assignment else "\n\n\n") + after.text
    return text


def replace_package_text(course: Course, include: str, cell: str) -> list[str]:
    """Put the definitions of an edited include cell back into the package. Returns what changed, in words.

    Raises CourseError if the cell is not Python, lacks one of its definitions, or has code besides them.
    """
    try:
        edited = definitions(cell)
    except SyntaxError as error:
        raise CourseError(f"the cell of {include} is not Python: {error}") from error
    pairs = parse_include(include)
    names = [name for _, name in pairs]
    if list(edited) != names:
        raise CourseError(
            f"the cell of {include} should define exactly {', '.join(names)}, in this order, and defines "
            f"{', '.join(edited) or 'nothing'}. Put anything else into a cell of its own."
        )
    changed = []
    for module, name in pairs:
        path = module_path(course, module)
        source = path.read_text(encoding="utf-8")
        old, new = definitions(source)[name], edited[name]
        if old.text != new.text:
            lines = source.splitlines()
            lines[old.start : old.end] = new.text.splitlines()
            write(path, "\n".join(lines) + "\n")
            changed.append(f"{path.relative_to(course.root)}: {name}")
    if not changed:
        raise CourseError(f"the cell of {include} has text outside its definitions. Put it into a cell of its own.")
    return changed
