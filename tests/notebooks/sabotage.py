"""Break a function or a class in place, wherever it was already imported to.

The loader of released checkpoints may go on using the package's own: it needs a model's shapes to check a folder, and what
it gives to a notebook are plain numbers and tensors.
"""

import enum
import inspect
import sys
import types
from pathlib import Path
from typing import Any

MARK = "SABOTAGED"
LOADER = str(Path("minivlm", "checkpoints"))
KEPT = {"__init_subclass__", "__class_getitem__", "__repr__", "__eq__", "__hash__"}


def loader_calls() -> bool:
    """True if the call under way was made inside `minivlm.checkpoints`."""
    frame = sys._getframe(1)
    while frame is not None:
        if LOADER in str(Path(frame.f_code.co_filename).parent):
            return True
        frame = frame.f_back
    return False


def guarded(original: Any, text: str) -> Any:
    """A function that raises, except for the loader."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        if loader_calls():
            return original(*args, **kwargs)
        raise RuntimeError(text)

    return fail


def sabotage(thing: Any, message: str) -> bool:
    """Make every call of a function, or of any method of a class, raise. Returns False for what cannot be called.

    A function keeps its identity (its code is exchanged), so that `from module import function` gives the broken one
    even to those who imported it long ago.
    """
    text = f"{MARK}: {message}"
    if inspect.isclass(thing):
        if issubclass(thing, enum.Enum):
            return False
        for name, member in list(vars(thing).items()):
            if name in KEPT:
                continue
            if isinstance(member, classmethod | staticmethod | property):
                inner = member.fget if isinstance(member, property) else member.__func__
                setattr(thing, name, type(member)(guarded(inner, text)))
            elif isinstance(member, types.FunctionType):
                setattr(thing, name, guarded(member, text))
        if "__init__" not in vars(thing):
            thing.__init__ = guarded(thing.__init__, text)
        return True
    inner = inspect.unwrap(thing) if callable(thing) else None
    if not isinstance(inner, types.FunctionType):
        return False
    original = types.FunctionType(
        inner.__code__, inner.__globals__, inner.__name__, inner.__defaults__, inner.__closure__
    )
    original.__kwdefaults__ = inner.__kwdefaults__
    if inner.__closure__:
        raise ValueError(f"{inner.__qualname__} has a closure; its code cannot be exchanged")
    name = f"__sabotaged_{inner.__name__}"
    inner.__globals__[name] = guarded(original, text)
    made: dict[str, Any] = {}
    exec(f"def fail(*args, **kwargs):\n    return {name}(*args, **kwargs)", made)
    inner.__code__, inner.__defaults__, inner.__kwdefaults__ = made["fail"].__code__, None, None
    return True


def is_marked(error: BaseException | None) -> bool:
    """True if an error, or what it was raised from, comes from a sabotaged definition."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if MARK in str(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
