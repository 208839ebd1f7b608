"""Questions about documents, and documents told row by row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minivlm.world.documents import CELLS, HEADS, MOST_ROWS, NUMBERS, STYLES, Documents
from minivlm.world.questions import Question
from minivlm.world.strings import chosen

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

WORDS = (
    *"what is in row rows column columns the head of which has largest number are and".split(),
    *ORDINALS,
    *"abcdefghijklmnopqrstuvwxyz",
)

_ROW_HEADS = len({head for rows, _ in STYLES.values() for head in rows})

#: Kind -> probability of a guess among all the answers that documents drawn without further wishes can have.
CHANCE: dict[str, float] = {
    "cell": 1 / len(CELLS),
    "head": 1 / (len(HEADS) - MOST_ROWS),  # numbers of rows are not asked for
    "largest": 1 / _ROW_HEADS,
    "find": 1 / _ROW_HEADS,
}


def table(documents: Documents) -> list[tuple[list[str], list[str], list[list[str]]]]:
    """Each document in words: (heads of its rows, heads of its columns, cells row by row)."""
    fields = (documents.row_heads, documents.column_heads, documents.cells, documents.rows, documents.columns)
    found = []
    for rows, columns, cells, r, c in zip(*(field.tolist() for field in fields), strict=True):
        texts = [[CELLS[cell] for cell in row[:c]] for row in cells[:r]]
        found.append(([HEADS[head] for head in rows[:r]], [HEADS[head] for head in columns[:c]], texts))
    return found


def tell(rows: list[str], columns: list[str], cells: list[list[str]]) -> str:
    """A document row by row: `the columns are star and ring. row red: 42 in column star, 7 in column ring. ...`"""
    lines = [f"the columns are {_list(columns)}."]
    for row, texts in zip(rows, cells, strict=True):
        held = [f"{text} in column {column}" for text, column in zip(texts, columns, strict=True)]
        lines.append(f"row {row}: {', '.join(held)}.")
    return " ".join(lines)


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


class DocumentQuestions:
    """Draws questions: `DocumentQuestions(rng)(documents)` gives one a document.

    "cell": what a row holds in a column. "head": how a column, or a row with a word, is called. "largest": the row of the
    largest number of a column, where there are numbers. "find": the row of a text (one of two signs: no head is meant).

    Args:
        rng: where the choices come from.
        kinds: which kinds to draw from, evenly among those that the document allows.

    Raises:
        ValueError: no kinds, or one that does not exist.
    """

    def __init__(self, rng: np.random.Generator, kinds: Iterable[str] = tuple(CHANCE)) -> None:
        self.rng, self.kinds = rng, chosen(kinds, CHANCE)

    def __call__(self, documents: Documents) -> list[Question]:
        """One question a document.

        Raises:
            ValueError: a document that allows none of the kinds.
        """
        asked = []
        for rows, columns, cells in table(documents):
            allowed = [kind for kind in self.kinds if getattr(self, f"_{kind}")(rows, columns, cells)]
            if not allowed:
                raise ValueError(
                    f"none of {self.kinds} can be asked about the document {tell(rows, columns, cells)!r}: add kinds, or"
                    " draw documents with other fillings."
                )
            kind = self._pick(allowed)
            asked.append(Question(kind, tell(rows, columns, cells), *getattr(self, f"_{kind}")(rows, columns, cells)))
        return asked

    def _pick(self, options):
        return options[int(self.rng.random() * len(options))]

    def _cell(self, rows, columns, cells):
        r, c = self._pick(range(len(rows))), self._pick(range(len(columns)))
        return f"what is in row {rows[r]}, column {columns[c]}?", cells[r][c]

    def _head(self, rows, columns, cells):
        lines = [("column", columns)] if rows[0] in HEADS[:MOST_ROWS] else [("column", columns), ("row", rows)]
        word, heads = self._pick(lines)
        number = self._pick(range(len(heads)))
        return f"what is the head of the {ORDINALS[number]} {word}?", heads[number]

    def _largest(self, rows, columns, cells):
        if not cells[0][0].isdigit() or len(rows) < 2:
            return None
        c = self._pick(range(len(columns)))
        numbers = [int(texts[c]) for texts in cells]
        return f"which row has the largest number in column {columns[c]}?", rows[numbers.index(max(numbers))]

    def _find(self, rows, columns, cells):
        found = [(text, row) for row, texts in zip(rows, cells, strict=True) for text in texts if len(text) == 2]
        if len(rows) < 2 or not found:
            return None
        text, row = self._pick(found)
        return f"in which row is {text}?", row


__all__ = ["CHANCE", "NUMBERS", "ORDINALS", "WORDS", "DocumentQuestions", "table", "tell"]
