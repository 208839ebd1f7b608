"""A stroke font: capital letters, digits and a few signs, each drawn by a pen along a few lines.

A cell is 6 units wide and 8 high; the pen's middle moves on the 4 x 6 units inside, x to the right and y down, and the pen
is one unit thick. A cell of 8 pixels is therefore a classic 5 x 7 dot font, and a larger one shows smooth curves. A path is a
row of points `xy` (or `x,y` where they are no single digits) joined by straight lines; `~xy` is a corner that is rounded off,
a quarter of an ellipse from the point before to the point after. Letters and digits that printed fonts mix up differ: a
zero has a stroke in it, a one a flag and a foot, an I two serifs.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Units of the font: size of a cell, and where in it the point 00 lies.
CELL_WIDTH, CELL_HEIGHT, ORIGIN = 6, 8, 1

#: Half the thickness of the pen, in units.
PEN = 0.5

#: Width of a cell as a fraction of its height.
ASPECT = CELL_WIDTH / CELL_HEIGHT

#: Straight pieces of a rounded corner.
_PIECES = 4

_O = "20 ~40 42 44 ~46 26 ~06 04 02 ~00 20"
_P = "06 00 2.4,0 ~40 4,1.6 ~4,3.2 2.4,3.2 0,3.2"

#: Character -> the pen's paths. A path of one point is a dot.
PATHS: dict[str, tuple[str, ...]] = {
    " ": (),
    "A": ("06 20 46", "0.7,4 3.3,4"),
    "B": ("03 2.5,3 ~43 4,4.5 ~46 2.5,6 06 00 2.3,0 ~3.7,0 3.7,1.5 ~3.7,3 2.3,3",),
    "C": ("3.9,1.2 ~3.7,0 2.2,0 ~00 02 04 ~06 2.2,6 ~3.7,6 3.9,4.8",),
    "D": ("06 00 1.8,0 ~40 42 44 ~46 1.8,6 06",),
    "E": ("40 00 06 46", "03 3.2,3"),
    "F": ("40 00 06", "03 3.2,3"),
    "G": ("4,1.4 ~40 2.2,0 ~00 02 04 ~06 2.2,6 ~46 4,4.4 4,3.3 2.3,3.3",),
    "H": ("00 06", "40 46", "03 43"),
    "I": ("20 26", "0.7,0 3.3,0", "0.7,6 3.3,6"),
    "J": ("40 44 ~46 26 ~06 0,4.4",),
    "K": ("00 06", "40 0,3.8", "1.4,2.7 46"),
    "L": ("00 06 46",),
    "M": ("06 00 23 40 46",),
    "N": ("06 00 46 40",),
    "O": (_O,),
    "P": (_P,),
    "Q": (_O, "2,3.8 4.2,6.2"),
    "R": (_P, "2,3.2 46"),
    "S": ("4,1.3 ~40 20 ~00 0,1.5 ~03 23 ~43 4,4.5 ~46 26 ~06 0,4.7",),
    "T": ("00 40", "20 26"),
    "U": ("00 04 ~06 26 ~46 44 40",),
    "V": ("00 26 40",),
    "W": ("00 16 2,1.6 36 40",),
    "X": ("00 46", "40 06"),
    "Y": ("00 23 40", "23 26"),
    "Z": ("00 40 06 46",),
    "0": ("20 ~3.8,0 3.8,2 3.8,4 ~3.8,6 26 ~0.2,6 0.2,4 0.2,2 ~0.2,0 20", "1.5,3.9 2.5,2.1"),
    "1": ("0.6,1.4 20 26", "0.4,6 3.6,6"),
    "2": ("0,1.6 ~00 20 ~40 4,1.6 ~4,2.6 3.1,3.4 06 46",),
    "3": ("0,1.2 ~00 20 ~3.8,0 3.8,1.5 ~3.8,3 2,3 ~43 4,4.5 ~46 26 ~06 0,4.8", "1.2,3 23"),
    "4": ("36 30 04 44",),
    "5": ("40 00 0,2.5 2,2.5 ~4,2.5 4,4.25 ~46 26 ~06 0,4.9",),
    "6": ("3.4,0 ~00 03 0,4.2 ~06 26 ~46 4,4.3 ~4,2.6 2,2.6 ~0,2.6 0,4.2",),
    "7": ("00 40 1.4,6",),
    "8": (
        "20 ~3.7,0 3.7,1.5 ~3.7,3 23 ~0.3,3 0.3,1.5 ~0.3,0 20",
        "23 ~43 4,4.5 ~46 26 ~06 0,4.5 ~03 23",
    ),
    "9": ("0.6,6 ~46 43 4,1.8 ~40 20 ~00 0,1.7 ~0,3.4 2,3.4 ~4,3.4 4,1.8",),
    ".": ("2,5.8",),
    ",": ("2.3,5.4 1.7,6.4",),
    ":": ("2,1.8", "2,5.2"),
    "-": ("0.6,3 3.4,3",),
    "+": ("0.2,3 3.8,3", "2,1.2 2,4.8"),
    "=": ("0.3,2 3.7,2", "0.3,4.2 3.7,4.2"),
    "?": ("0,1.5 ~00 20 ~40 4,1.6 ~4,2.8 3,3.1 ~2,3.4 2,4.1", "2,5.9"),
    "%": ("40 06", "0.3,0.8 0.6,0.8", "3.4,5.2 3.7,5.2"),
}

#: All characters of the font; a glyph is its place in this text.
CHARACTERS = "".join(PATHS)
LETTERS, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"


def encode(text: str) -> list[int]:
    """Places of a text's characters in `CHARACTERS`.

    Raises:
        ValueError: a character that the font lacks.
    """
    if strangers := sorted({c for c in text if c not in PATHS}):
        hint = " Write letters as capitals." if any(c.upper() in PATHS for c in strangers) else ""
        raise ValueError(f"the font has no {strangers} (in {text!r}); it has {CHARACTERS!r}.{hint}")
    return [CHARACTERS.index(c) for c in text]


def _points(path: str) -> list[tuple[float, float]]:
    """The points that a path goes through, its round corners in pieces."""
    tokens = path.split()
    places = [tuple(float(v) for v in (t.split(",") if "," in t else t)) for t in (t.lstrip("~") for t in tokens)]
    points = [places[0]]
    for i in range(1, len(tokens)):
        if not tokens[i].startswith("~"):
            points.append(places[i])
            continue
        (ax, ay), (cx, cy), (bx, by) = places[i - 1 : i + 2]
        for k in range(1, _PIECES):
            s, c = (1 - f(math.pi / 2 * k / _PIECES) for f in (math.sin, math.cos))
            points.append((cx + (ax - cx) * s + (bx - cx) * c, cy + (ay - cy) * s + (by - cy) * c))
    return points


def _segments(paths: tuple[str, ...]) -> list[tuple[float, float, float, float]]:
    segments = []
    for path in paths:
        points = _points(path)
        segments += [(*a, *b) for a, b in zip(points, points[1:] or points, strict=False)]
    return segments


def segments() -> tuple[Float[Tensor, "characters most 4"], Int[Tensor, "characters"]]:
    """Each character's strokes (x1, y1, x2, y2), in units from the corner of its cell, and how many there are."""
    rows = [_segments(paths) for paths in PATHS.values()]
    counts = torch.tensor([len(row) for row in rows])
    table = torch.zeros(len(rows), int(counts.max()), 4)
    for character, row in enumerate(rows):
        table[character, : len(row)] = torch.tensor(row).view(-1, 4) + ORIGIN
    return table, counts
