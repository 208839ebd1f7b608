"""Documents with rows and columns: tables of numbers or codes under ruled lines, to be read in detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.font import ASPECT, DIGITS, LETTERS, encode
from minivlm.world.glyphs import Glyphs, draw_glyphs_
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.paper import check_canvas, check_range, draw_paper, stripes, weave

#: Most rows and columns under and beside the heads.
MOST_ROWS, MOST_COLUMNS = 8, 6

#: What heads can be, as they are spoken of. A head is its place in the table; on paper it stands in capitals.
HEADS: tuple[str, ...] = (*DIGITS[1 : MOST_ROWS + 1], *LETTERS.lower(), *COLOURS, *SHAPES)

#: What cells can hold: numbers from 0 to 99, then codes of a letter and a digit. A cell is its place in the table.
NUMBERS = 100
CELLS: tuple[str, ...] = (*map(str, range(NUMBERS)), *(letter + digit for letter in LETTERS for digit in DIGITS))

#: Kinds of heads: (those of rows, those of columns), as places in HEADS.
_WORDS_FROM = MOST_ROWS + len(LETTERS)
STYLES: dict[str, tuple[range, range]] = {
    "signs": (range(MOST_ROWS), range(MOST_ROWS, _WORDS_FROM)),
    "words": (range(_WORDS_FROM, _WORDS_FROM + len(COLOURS)), range(_WORDS_FROM + len(COLOURS), len(HEADS))),
}

#: Kinds of cells, as places in CELLS.
FILLINGS: dict[str, range] = {"numbers": range(NUMBERS), "codes": range(NUMBERS, len(CELLS))}

#: Height of the signs as a fraction of a row's, at most; free space in a column, in signs; thickness of lines, in signs.
FILL, GAP, LINE = 0.66, 1.0, 0.06

_LONGEST = max(map(len, HEADS))


def _codes(words: tuple[str, ...]) -> Int[Tensor, "words longest"]:
    """Characters of each word, in capitals; -1 where there are none."""
    return torch.tensor([encode(word.upper()) + [-1] * (_LONGEST - len(word)) for word in words])


_HEAD_CODES, _CELL_CODES = _codes(HEADS), _codes(CELLS)


@dataclass(frozen=True)
class Documents(Batch):
    """`b` tables of up to `r` x `c` cells. Absent rows and columns hold zeros."""

    cells: Int[Tensor, "b r c"]  # index into CELLS; no two of a document are the same
    row_heads: Int[Tensor, "b r"]  # index into HEADS
    column_heads: Int[Tensor, "b c"]  # index into HEADS
    rows: Int[Tensor, "b"]
    columns: Int[Tensor, "b"]
    box: Float[Tensor, "b 4"]  # the table (x1, y1, x2, y2), as fractions of the picture's width and height
    colour: Int[Tensor, "b"]  # of the ink: index into COLOURS
    paper: Float[Tensor, "b 3"]  # RGB


def draw_documents(
    rng: np.random.Generator,
    n: int,
    rows: Any = (3, 6),
    columns: Any = (2, 4),
    styles: Any = tuple(STYLES),
    fillings: Any = tuple(FILLINGS),
) -> Documents:
    """Draw `n` tables of `rows[0]` to `rows[1]` rows and `columns[0]` to `columns[1]` columns.

    `styles`: rows with numbers and columns with letters ("signs"), or rows with colours and columns with shapes ("words").
    `fillings`: "numbers" or "codes". Each is drawn evenly.

    Raises:
        ValueError: no tables, an impossible range, a style or filling that does not exist.
    """
    if n < 1:
        raise ValueError(f"draw_documents needs at least one document; got n={n}.")
    (r_low, r), (c_low, c) = check_range("rows", rows, int), check_range("columns", columns, int)
    if r > MOST_ROWS or c > MOST_COLUMNS:
        raise ValueError(
            f"a document has at most {MOST_ROWS} rows and {MOST_COLUMNS} columns; got {rows} and {columns}."
        )
    for word, given, known in (("styles", styles, STYLES), ("fillings", fillings, FILLINGS)):
        if isinstance(given, str) or not given or set(given) - set(known):
            raise ValueError(f"{word} are one or more of {list(known)}; got {given!r}.")
    n_rows, n_columns = rng.integers(r_low, r + 1, n), rng.integers(c_low, c + 1, n)
    here_r, here_c = np.arange(r) < n_rows[:, None], np.arange(c) < n_columns[:, None]
    style = rng.integers(len(styles), size=(n, 1))
    row_ranges, column_ranges = zip(*(STYLES[s] for s in styles), strict=True)
    row_heads = _different(rng, style, row_ranges, r)
    numbered = np.asarray([s == "signs" for s in styles])[style]
    row_heads = np.where(numbered, np.arange(r), row_heads)  # numbers stand in order, from 1
    column_heads = _different(rng, style, column_ranges, c)
    cells = _different(rng, rng.integers(len(fillings), size=(n, 1)), [FILLINGS[f] for f in fillings], r * c)
    corner, opposite = rng.uniform(0.02, 0.08, (n, 2)), rng.uniform(0.92, 0.98, (n, 2))
    colour, paper = draw_paper(rng, (n,))
    return Documents(
        cells=torch.from_numpy(cells.reshape(n, r, c) * (here_r[:, :, None] & here_c[:, None])),
        row_heads=torch.from_numpy(row_heads * here_r),
        column_heads=torch.from_numpy(column_heads * here_c),
        rows=torch.from_numpy(n_rows),
        columns=torch.from_numpy(n_columns),
        box=torch.from_numpy(np.concatenate([corner, opposite], 1).astype(np.float32)),
        colour=colour,
        paper=paper,
    )


def _different(rng: np.random.Generator, choice: np.ndarray, ranges: Any, most: int) -> np.ndarray:
    """Rows of `most` different numbers, each out of the range that is its row's choice (n, 1)."""
    sizes = np.array([len(numbers) for numbers in ranges])[choice]
    keys = rng.random((len(choice), max(map(len, ranges))))
    keys[np.arange(keys.shape[1]) >= sizes] = 2  # beyond the range: never among the first
    return keys.argsort(1, kind="stable")[:, :most] + np.array([numbers.start for numbers in ranges])[choice]


def render(
    documents: Documents, height: Any, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of documents: RGB in [0, 1], `height` x `width` pixels (square by default), on `device`.

    Signs are as large as all of the table's fit, see `sign_height`.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    width = height if width is None else width
    check_canvas(height, width)
    codes, across, down, size = _layout(documents, height, width)
    images = _ruled(documents, across, down, size, height, width, torch.device(device))
    length = (codes >= 0).sum(3)
    scene, row, column, sign = (codes >= 0).nonzero(as_tuple=True)
    pitch = size[scene] * ASPECT
    middle_x = (across[scene, column] + across[scene, column + 1]) / 2
    x = middle_x + (sign - length[scene, row, column] / 2) * pitch
    y = (down[scene, row] + down[scene, row + 1] - size[scene]) / 2
    place = torch.stack([x, y], 1)
    place = torch.where(_sharp(size)[scene, None], place.round(), place)
    ink = torch.tensor(list(COLOURS.values()))[documents.colour[scene]]
    return draw_glyphs_(images, Glyphs(codes[scene, row, column, sign], place, size[scene], ink, scene))


def sign_height(documents: Documents, height: Any, width: Any = None) -> Float[Tensor, "b"]:
    """Height in pixels of the signs' cells, on pictures of `height` x `width` pixels.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    width = height if width is None else width
    check_canvas(height, width)
    return _layout(documents, height, width)[3]


def _layout(documents: Documents, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Characters (b, r + 1, c + 1, longest), lines between columns (b, c + 2) and rows (b, r + 2), signs' height (b).

    The lines of absent rows and columns lie on the table's last one.
    """
    b, r, c = documents.cells.shape
    here_r = torch.arange(r + 1) <= documents.rows[:, None]
    here_c = torch.arange(c + 1) <= documents.columns[:, None]
    codes = torch.full((b, r + 1, c + 1, _LONGEST), -1)
    codes[:, 1:, 1:] = _CELL_CODES[documents.cells]
    codes[:, 1:, 0] = _HEAD_CODES[documents.row_heads]
    codes[:, 0, 1:] = _HEAD_CODES[documents.column_heads]
    codes.masked_fill_(~(here_r[:, :, None] & here_c[:, None])[..., None], -1)
    signs = ((codes >= 0).sum(3).amax(1) + GAP) * here_c  # a column is as wide as its longest text
    x1, y1, x2, y2 = (documents.box * torch.tensor([width, height, width, height])).unbind(1)
    row = (y2 - y1) / (documents.rows + 1)
    size = torch.minimum(row * FILL, (x2 - x1) / (signs.sum(1) * ASPECT))
    whole = (size * ASPECT).floor() / ASPECT
    size = torch.where(_sharp(whole), whole, size)
    share = torch.nn.functional.pad(signs.cumsum(1), (1, 0)) / signs.sum(1, keepdim=True)
    across = x1[:, None] + share * (x2 - x1)[:, None]
    down = y1[:, None] + torch.arange(r + 2).minimum(documents.rows[:, None] + 1) * row[:, None]
    return codes, across, down, size


def _sharp(size: Float[Tensor, "b"]) -> Tensor:
    """Whether signs are placed on whole pixels: where they are large enough for it not to be seen."""
    return size >= 8


def _ruled(documents, across, down, size, height, width, device) -> Float[Tensor, "b 3 h w"]:
    """Sheets with the tables' lines: at least a pixel thick where signs can be read, thinner where they cannot."""
    half = (size / 8).clamp(max=1).maximum(size * LINE)[:, None] / 2
    ends_x, ends_y = (torch.cat([line[:, :1] - half, line[:, -1:] + half], 1).to(device) for line in (across, down))
    across, down, half = across.to(device), down.to(device), half.to(device)
    upright, level = (stripes(line - half, line + half, n).amax(1) for line, n in ((across, width), (down, height)))
    span_x, span_y = (stripes(ends[:, 0], ends[:, 1], n) for ends, n in ((ends_x, width), (ends_y, height)))
    paper = documents.paper.to(device)
    ink = torch.tensor(list(COLOURS.values()))[documents.colour].to(device)
    change = ((ink - paper) / 2)[:, None]  # lines are paler than signs
    return weave(
        paper,
        torch.stack([span_y, level, span_y * level], 1),
        torch.stack([upright, span_x, upright * span_x], 1),
        torch.cat([change, change, -change], 1),  # where two lines cross there is no more ink than in one
    )
