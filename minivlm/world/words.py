"""The vocabulary: every word that any text of the world is made of."""

from functools import cache
from importlib import import_module

from minivlm.world.palette import COLOURS, SHAPES, SIZES

#: Modules of the world that make texts, in the order in which their words enter. The order decides ids: append only.
_MODULES = (
    "grammar", "questions", "reasoning", "refer", "compare", "web", "episodes", "strings", "numbers",
    "document_questions", "videos", "sounds", "robot_words", "corpus",
)  # fmt: skip


@cache
def _words() -> tuple[str, ...]:
    words = [*COLOURS, *SHAPES, *SIZES]
    for module in _MODULES:
        words += import_module(f"minivlm.world.{module}").WORDS
    return tuple(dict.fromkeys(words))


def vocabulary() -> list[str]:
    """Every word, lower case, in a fixed order; a new word changes the ids of those after it, and `world.VERSION`."""
    return list(_words())
