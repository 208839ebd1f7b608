"""Break a function or a class in place, wherever it was already imported to."""

import enum
import inspect
import types
from typing import Any

MARK = "SABOTAGED"
KEPT = {"__init_subclass__", "__class_getitem__", "__repr__", "__eq__", "__hash__"}


def sabotage(thing: Any, message: str) -> bool:
    """Make every call of a function, or of any method of a class, raise. Returns False for what cannot be called.

    A function keeps its identity (its code is exchanged), so that `from module import function` gives the broken one
    even to those who imported it long ago.
    """
    text = f"{MARK}: {message}"

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(text)

    if inspect.isclass(thing):
        if issubclass(thing, enum.Enum):
            return False
        for name, member in list(vars(thing).items()):
            if name in KEPT:
                continue
            if isinstance(member, classmethod | staticmethod | property):
                setattr(thing, name, type(member)(fail))
            elif isinstance(member, types.FunctionType):
                setattr(thing, name, fail)
        thing.__init__ = fail
        return True
    inner = inspect.unwrap(thing) if callable(thing) else None
    if not isinstance(inner, types.FunctionType):
        return False
    made: dict[str, Any] = {}
    exec(f"def fail(*args, **kwargs):\n    raise RuntimeError({text!r})", made)
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
