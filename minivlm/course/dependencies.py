"""What a notebook's numbers depend on: its code, the package's code that it imports, the backbones that it names.

Notable: all of it is read from the files, nothing is imported or run. Code is compared as Python reads it, without
comments, docstrings and layout, so that better wording makes no stored number stale. Of a notebook only the cells up to
its last `record` or `expect` count: what comes after has not touched a number.
"""

import ast
import fnmatch
import hashlib
import json
from collections.abc import Iterable
from functools import cache

from minivlm.course.files import Course, CourseError, read

PACKAGE = "minivlm"
# No number is theirs: they draw, tell and check, and checkpoints gives what lies in a folder, to the last bit or not at all
# (tests/checkpoints). It knows every model, so with it a change of one would make the numbers of all others stale.
BESIDE = ("minivlm.plots", "minivlm.survey", "minivlm.course.exercises", "minivlm.checkpoints")
DIGITS = 12  # of a hash, in a row


def code_cells(course: Course, name: str) -> list[str]:
    """The stored notebook's code cells, up to the last that records or expects; all of them if none does.

    Raises CourseError if the notebook is not built, or if a cell is not Python.
    """
    cells = [cell.source for cell in read(course.notebook(name)).cells if cell.cell_type == "code"]
    last = len(cells)
    for number, text in enumerate(cells, start=1):
        try:
            if _calls(_tree(text), "record", "expect"):
                last = number
        except SyntaxError as error:
            raise CourseError(f"{course.notebook(name)}: code cell {number} is not Python: {error}") from error
    return cells[:last]


def claims(course: Course, name: str) -> list[str]:
    """The claims that the stored notebook records, in order: those that are written as plain strings."""
    found = [call for text in code_cells(course, name) for call in _calls(_tree(text), "record")]
    written = [call.args[0].value for call in found if call.args and isinstance(call.args[0], ast.Constant)]
    return list(dict.fromkeys(text for text in written if isinstance(text, str)))


def code_hash(course: Course, name: str) -> str:
    """A hash of the stored notebook's code and of every module of the package that it imports, directly or not.

    Raises CourseError if the notebook or a module is not there, or if one of them is not Python.
    """
    cells = code_cells(course, name)
    wanted = [module for text in cells for module in _imported(_tree(text))]
    digest = hashlib.sha256()
    for text in cells:
        digest.update(_plain(_tree(text)).encode())
    for module, text in sorted(_modules(course, wanted).items()):
        digest.update(f"\0{module}\0{_digest(text)}".encode())
    return digest.hexdigest()[:DIGITS]


def modules(course: Course, name: str) -> list[str]:
    """The modules of the package that the hash covers."""
    return sorted(_modules(course, [m for text in code_cells(course, name) for m in _imported(_tree(text))]))


def backbones(course: Course, name: str) -> dict[str, str]:
    """The backbones whose names the notebook's code contains: folder name to the beginning of its weights' hash.

    An f-string names all that it could mean: f"language-{preset}" is each size of the language model.
    """
    patterns = {pattern for text in code_cells(course, name) for pattern in _strings(_tree(text))}
    found = {}
    for card in sorted((course.root / "data" / "backbones").glob("*/card.json")):
        try:
            about = json.loads(card.read_text(encoding="utf-8"))
            called, weights = about["name"], about["weights_sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise CourseError(f"{card} is damaged ({error!r}); restore it from the repository") from error
        if any(fnmatch.fnmatchcase(called, pattern) for pattern in patterns):
            found[card.parent.name] = weights[:DIGITS]
    return found


def _modules(course: Course, wanted: Iterable[str]) -> dict[str, str]:
    """These modules, the packages they lie in and all that they import, each with its text."""
    found: dict[str, str] = {}
    todo = list(wanted)
    while todo:
        module = todo.pop()
        if module in found or any(f"{module}.".startswith(f"{room}.") for room in BESIDE):
            continue
        stem = course.root.joinpath(*module.split("."))
        path = next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)
        if path is None:
            parent = module.rpartition(".")[0]
            if parent in found or _is_module(course, parent):  # a name that the module defines
                todo.append(parent)
                continue
            raise CourseError(f"the code imports {module}, and neither {stem}.py nor {stem.parent}.py is there")
        found[module] = path.read_text(encoding="utf-8")
        try:
            todo += _imported(_tree(found[module]))
        except SyntaxError as error:
            raise CourseError(f"{path} is not Python: {error}") from error
        if "." in module:
            todo.append(module.rpartition(".")[0])
    return found


def _is_module(course: Course, module: str) -> bool:
    stem = course.root.joinpath(*module.split("."))
    return bool(module) and (stem.with_suffix(".py").is_file() or (stem / "__init__.py").is_file())


def _imported(tree: ast.Module) -> list[str]:
    """What is imported of the package anywhere in the code, in functions too; `from a import b` may mean a.b."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module if alias.name == "*" else f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == PACKAGE]


def _calls(tree: ast.Module, *methods: str) -> list[ast.Call]:
    """The calls of `lesson.record` and its like, in the order of the text."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    calls = [call for call in calls if call.func.attr in methods and ast.unparse(call.func.value) == "lesson"]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _strings(tree: ast.Module) -> set[str]:
    """The strings of the code, those of an f-string as a pattern; what says nothing (only a star) is left out."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.add("".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values))
    return {text for text in found if any(letter.isalpha() for letter in text)}


@cache
def _tree(text: str) -> ast.Module:
    """Raises SyntaxError if the text is not Python."""
    return ast.parse(text)


@cache
def _digest(text: str) -> str:
    return hashlib.sha256(_plain(_tree(text)).encode()).hexdigest()


def _plain(node: object) -> str:
    """The tree as text, without docstrings; like `ast.dump`, whose text depends on the version of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_plain, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            value = value[ast.get_docstring(node, clean=False) is not None :]
        if value is not None and value != []:
            fields.append(f"{field}={_plain(value)}")
    return f"{type(node).__name__}({','.join(fields)})"
