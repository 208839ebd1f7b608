"""Checking an exercise, with messages that name the mistake.

    def scale(q, k):
        raise NotImplementedError

    check("Exercise 1", scale, ((q, k), expected), mistakes={"you forgot to divide by sqrt(hd)": lambda q, k: q @ k.T})

A stub prints "to do" and Run All goes on; a right answer prints "correct"; a wrong one raises AssertionError.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

# ((arguments of attempt), what it should return), or a function that is called with attempt and asserts what it likes
Case = tuple[tuple, Any] | Callable[[Callable], None]


def check(
    name: str,
    attempt: Callable,
    *cases: Case,
    mistakes: Mapping[str, Callable] | None = None,
    hints: str = "",
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> bool:
    """Try an exercise. Returns True (and prints "correct"), or False for a stub (and prints "to do").

    A case is `((arguments), expected)` or a function that gets `attempt` and asserts. `mistakes` are known wrong
    answers, each under the words that tell the learner what is wrong: when `attempt` returns what one of them returns,
    on every case where that one differs from the expected value, these words are the message. `hints` follow any
    message. Values may be tensors, arrays, numbers, strings, None, and tuples, lists or dicts of these.

    Raises AssertionError for a wrong answer, naming the mistake; ValueError if there is no case, or if a mistake is
    right on all cases (then the cases do not tell it apart).
    """
    if not cases:
        raise ValueError(f"{name}: check needs at least one case")
    same = {"rtol": rtol, "atol": atol}
    pairs = [case for case in cases if not callable(case)]
    known = {words: wrong_values(name, words, wrong, pairs, same) for words, wrong in (mistakes or {}).items()}
    hint = f"\n  Hint: {hints}" if hints else ""
    try:
        values = [call(attempt, arguments) for arguments, _ in pairs]
        for case in cases:
            if callable(case):
                case(attempt)
    except NotImplementedError:
        print(f"{name}: to do")
        return False
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}{hint}") from error
    except Exception as error:
        raise AssertionError(f"{name}: your code raises {type(error).__name__}: {error}{hint}") from error

    faults = [difference(value, expected, **same) for value, (_, expected) in zip(values, pairs, strict=True)]
    if any(faults):
        number = next(index for index, fault in enumerate(faults) if fault)
        case = f" (case {number + 1} of {len(pairs)})" if len(pairs) > 1 else ""
        words = [w for w, wrong in known.items() if is_this_mistake(values, wrong, same)]
        raise AssertionError(f"{name}: {words[0] if words else faults[number]}{case}{hint}")
    print(f"{name}: correct")
    return True


def call(function: Callable, arguments: tuple) -> Any:
    """Call with copies, so that a function that changes its arguments spoils no other case."""
    return function(*(copied(argument) for argument in arguments))


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def wrong_values(name: str, words: str, wrong: Callable, pairs: list, same: dict) -> list:
    """What a known mistake returns on each case, None where it happens to be right there (as a list of 0 or 1 values)."""
    values = []
    for arguments, expected in pairs:
        value = call(wrong, arguments)
        values.append([value] if difference(value, expected, **same) else [])
    if pairs and not any(values):
        raise ValueError(f"{name}: the mistake {words!r} gives the right answer on every case; add one that shows it")
    return values


def is_this_mistake(values: list, wrong: list, same: dict) -> bool:
    """True if the values are those of a known mistake wherever that one is wrong."""
    return any(wrong) and all(not w or not difference(v, w[0], **same) for v, w in zip(values, wrong, strict=True))


def difference(value: Any, expected: Any, rtol: float, atol: float) -> str:
    """How a value differs from the expected one, in words; an empty text if it does not."""
    same = {"rtol": rtol, "atol": atol}
    if value is None and expected is not None:
        return "your function returns None; is there a return?"
    if isinstance(expected, torch.Tensor | np.ndarray):
        return array_difference(value, expected, **same)
    if isinstance(expected, bool | str) or expected is None:
        return "" if value == expected else f"expected {expected!r}, got {value!r}"
    if isinstance(expected, int | float):
        return number_difference(value, expected, **same)
    if isinstance(expected, dict):
        if not isinstance(value, dict) or set(value) != set(expected):
            return f"expected a dict with the keys {sorted(expected)}, got {value!r}"
        inner = ((f"[{key!r}]", value[key], expected[key]) for key in expected)
    elif isinstance(expected, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(expected):
            return f"expected {len(expected)} values, got {value!r}"
        inner = ((f"value {i + 1}", v, e) for i, (v, e) in enumerate(zip(value, expected, strict=True)))
    else:
        return "" if value == expected else f"expected {expected!r}, got {value!r}"
    return next((f"{where}: {fault}" for where, v, e in inner if (fault := difference(v, e, **same))), "")


def number_difference(value: Any, expected: float | int, rtol: float, atol: float) -> str:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        if np.prod(value.shape) != 1:
            return f"expected one number, got the shape {tuple(value.shape)}"
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected a number, got {value!r}"
    return "" if np.isclose(value, expected, rtol=rtol, atol=atol, equal_nan=True) else f"expected {expected}, got {value}"


def array_difference(value: Any, expected: torch.Tensor | np.ndarray, rtol: float, atol: float) -> str:
    """Kind, shape, dtype, then values."""
    if type(expected) is np.ndarray and not isinstance(value, np.ndarray):
        return f"expected a numpy array, got {type(value).__name__}"
    if isinstance(expected, torch.Tensor) and not isinstance(value, torch.Tensor):
        return f"expected a tensor, got {type(value).__name__}"
    if tuple(value.shape) != tuple(expected.shape):
        return f"expected the shape {tuple(expected.shape)}, got {tuple(value.shape)}"
    if value.dtype != expected.dtype:
        return f"expected the dtype {expected.dtype}, got {value.dtype}"
    ours, theirs = (torch.as_tensor(array).detach().cpu() for array in (value, expected))
    if not ours.is_floating_point() and not ours.is_complex():
        if torch.equal(ours, theirs):
            return ""
        return f"{int((ours != theirs).sum())} of {ours.numel()} values are not the expected ones"
    if torch.allclose(ours, theirs, rtol=rtol, atol=atol, equal_nan=True):
        return ""
    if bool((ours.isnan() & ~theirs.isnan()).any()):
        return "there are NaNs in your result"
    gap = (ours - theirs).abs().nan_to_num(posinf=float("inf"))
    where = np.unravel_index(int(gap.argmax()), tuple(gap.shape)) if gap.ndim else ()
    place = f" at {tuple(int(i) for i in where)}" if gap.ndim else ""
    return f"the shape is right and the values are not; the largest difference is {float(gap.max()):.3g}{place}"
