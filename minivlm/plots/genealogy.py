"""The family tree of the surveyed models: one lane a family, time to the right, curves from parents to children."""

import hashlib
from collections.abc import Collection, Sequence
from itertools import pairwise
from os.path import commonprefix

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from minivlm.plots.style import BLUE, FONT, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, WIDTH, tint
from minivlm.survey import FAMILIES, MODELS, Model, built

LANES: dict[str, str] = dict(zip(FAMILIES, (BLUE, VERMILION, SKY, GREEN, PURPLE, ORANGE), strict=True))

# Inches: room for the lanes' names, right margin, height of a row, of a box, lane padding, height of the years' line.
LEFT, MARGIN, ROW, BOX, PAD, YEARS = 1.45, 0.1, 0.39, 0.27, 0.08, 0.36
APART = 1.0  # a model that does not continue a row keeps this far from whoever stands before it there

Place = tuple[float, float, float]  # of a box: centre x, centre y, width
Point = tuple[float, float]


def _width(model: Model) -> float:
    """Width of a model's box in inches."""
    return TextPath((0, 0), model.title, size=FONT).get_extents().width / 72 + 0.2


def _heirs(models: Sequence[Model]) -> dict[str, str]:
    """For a parent, the one child of its own family that continues its row: the one named most like it, else the first."""
    heirs: dict[str, str] = {}
    for parent in models:
        children = [m for m in models if parent.name in m.parents and m.family == parent.family]
        if children:
            heirs[parent.name] = max(children, key=lambda m: len(commonprefix([m.title, parent.title]))).name
    return heirs


def _rows(models: Sequence[Model], x: dict[str, float]) -> dict[str, int]:
    """The row of each model in its lane, counted from below. Heirs stand in their parent's row; others start where no
    neighbour is so close that a line between the two would be imagined."""
    heirs = _heirs(models)
    ends: dict[tuple[str, int], float] = {}
    rows: dict[str, int] = {}
    for model in models:
        left, right = x[model.name] - _width(model) / 2, x[model.name] + _width(model) / 2
        inherited = [rows[p] for p in model.parents if heirs.get(p) == model.name]
        row = next((r for r in inherited if ends[model.family, r] < left), None)
        if row is None:
            row = next(r for r in range(len(models)) if ends.get((model.family, r), -9.0) + APART < left)
        rows[model.name] = row
        ends[model.family, row] = right
    return rows


def _routes(parent: Place, child: Place) -> list[list[Point]]:
    """Bezier curves from parent to child: from side to side, and leaving or arriving by the top or bottom."""
    px, py, pw = parent
    cx, cy, cw = child
    right, left = (px + pw / 2, py), (cx - cw / 2, cy)
    routes: list[list[Point]] = []
    if left[0] - right[0] > 0.18:
        half = (left[0] + right[0]) / 2
        routes.append([right, (half, right[1]), (half, left[1]), left])
    if py == cy:
        return routes or [[right, right, left, left]]
    sign = 1 if cy > py else -1
    leave, arrive = py + sign * BOX / 2, cy - sign * BOX / 2
    outs = [px + pw * t for t in (-0.35, -0.15, 0.15, 0.35)]
    ins = [cx + cw * t for t in (-0.35, -0.15, 0.15, 0.35)]
    half = (leave + arrive) / 2
    routes += [[(a, leave), (a, half), (b, half), (b, arrive)] for a in outs for b in ins]
    routes += [[(a, leave), (a, cy), (a, cy), left] for a in outs if left[0] - a > 0.3]
    routes += [[right, (b, py), (b, py), (b, arrive)] for b in ins if b - right[0] > 0.3]
    return routes


def _points(route: list[Point], count: int = 60) -> list[Point]:
    """Points along a Bezier curve of four."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = route
    points = []
    for i in range(1, count):
        t, u = i / count, 1 - i / count
        k = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
        points.append((k[0] * ax + k[1] * bx + k[2] * cx + k[3] * dx, k[0] * ay + k[1] * by + k[2] * cy + k[3] * dy))
    return points


def _cost(route: list[Point], others: Collection[Place]) -> float:
    """How bad a route is: inches of it behind boxes of others weigh a hundred times the inches of the rest."""
    points = _points(route)
    cost = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        inch = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        hidden = any(abs(x1 - x) < w / 2 + 0.05 and abs(y1 - y) < BOX / 2 + 0.05 for x, y, w in others)
        cost += inch * (100 if hidden else 1) + (10 if x1 < LEFT else 0)
    return cost


def _draw_curve(
    ax: Axes, parent: Place, child: Place, others: Collection[Place], colour: str, taken: set[Point]
) -> None:
    """The line from parent to child that hides least behind other boxes and shares no end with those already drawn
    (`taken`, which it extends); a white rim shows which passes over which."""
    route = min(_routes(parent, child), key=lambda route: _cost(route, others) + 0.05 * (route[-1] in taken))
    taken.add(route[-1])
    path = Path(route, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    ax.add_patch(PathPatch(path, facecolor="none", edgecolor="white", linewidth=3.6, zorder=2))
    ax.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, linewidth=1.6, zorder=2.1))


def fingerprint() -> str:
    """Changes when the picture's content does: the survey's lineage, or which models are built. Stored in the file."""
    lineage = [(m.title, m.date, m.family, m.parents, m.name in built()) for m in MODELS]
    return hashlib.sha256(repr(lineage).encode()).hexdigest()[:16]


def genealogy(models: Sequence[Model] | None = None, done: Collection[str] | None = None) -> Figure:
    """The family tree. Models that are built (`done`; default, those on disk) are filled, the others outlined.

    Models stand at equal distances in the order of their notebooks, so years with many papers are wide.
    """
    models = MODELS if models is None else models
    done = built() if done is None else done
    first, last = LEFT + _width(models[0]) / 2, WIDTH - MARGIN - _width(models[-1]) / 2
    step = (last - first) / max(1, len(models) - 1)
    x = {m.name: first + step * i for i, m in enumerate(models)}
    rows = _rows(models, x)

    lanes = [family for family in FAMILIES if any(m.family == family for m in models)]
    deep = {f: (1 + max(rows[m.name] for m in models if m.family == f)) * ROW + 2 * PAD for f in lanes}
    height = sum(deep.values()) + YEARS
    with mpl.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure = plt.figure(figsize=(WIDTH, height))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()

    places: dict[str, Place] = {}
    floor = height - YEARS
    for index, family in enumerate(lanes):
        floor -= deep[family]
        if index % 2 == 0:
            ax.add_patch(Rectangle((0, floor), WIDTH, deep[family], facecolor="#F5F5F5", edgecolor="none", zorder=0))
        name = FAMILIES[family].replace(" the ", " the\n").replace("learned ", "learned\n")
        ax.text(0.1, floor + deep[family] / 2, name, va="center", fontsize=FONT, color=INK, linespacing=1.1)
        for m in models:
            if m.family == family:
                places[m.name] = (x[m.name], floor + PAD + ROW * (rows[m.name] + 0.5), _width(m))

    years: dict[str, list[float]] = {}
    for m in models:
        years.setdefault(m.date[:4], []).append(x[m.name])
    for year, columns in years.items():
        ax.text(
            sum(columns) / len(columns), height - 0.19, year, ha="center", va="center", fontsize=FONT + 1, color=INK
        )
        if year != min(years):
            left = min(columns) - step / 2
            ax.plot([left, left], [0, height - YEARS], color="#C4C4C4", lw=1.0, ls=(0, (1, 2)), zorder=0.5)

    if any(m.name in done for m in models) and any(m.name not in done for m in models):
        ax.text(0.1, height - 0.19, "filled: built", va="center", fontsize=FONT, color="#5A5A5A")

    taken: set[Point] = set()
    for m in models:
        for parent in m.parents:
            if parent in places:
                others = [place for name, place in places.items() if name not in (parent, m.name)]
                colour = LANES[next(p.family for p in models if p.name == parent)]
                _draw_curve(ax, places[parent], places[m.name], others, colour, taken)
        cx, cy, w = places[m.name]
        colour = LANES[m.family]
        ax.add_patch(
            FancyBboxPatch(
                (cx - w / 2, cy - BOX / 2),
                w,
                BOX,
                boxstyle="round,pad=0,rounding_size=0.09",
                facecolor=tint(colour, 0.6) if m.name in done else "white",
                edgecolor=colour,
                linewidth=1.8,
                zorder=3,
            )
        )
        ax.text(cx, cy - 0.01, m.title, ha="center", va="center_baseline", fontsize=FONT, color="black", zorder=4)
    return figure
