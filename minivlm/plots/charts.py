"""Charts of what was measured. Chance and blind levels are drawn wherever they are known."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from minivlm.plots.style import (
    BLUE,
    COLOURS,
    DASHES,
    FONT,
    GREY,
    INK,
    VERMILION,
    WIDTH,
    Number,
    Numbers,
    figure_of,
    floats,
    ink_on,
    new_axes,
    tint,
)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """The heights moved apart as little as it takes to keep `gap` between neighbours, within [0, 1], order kept."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = [heights[i] for i in order]
    for _ in range(200):
        for low in range(len(placed) - 1):
            missing = gap - (placed[low + 1] - placed[low])
            if missing > 1e-9:
                placed[low] -= missing / 2
                placed[low + 1] += missing / 2
        if placed:
            shift = max(0.0, -placed[0])
            placed = [p + shift for p in placed]
            shift = max(0.0, placed[-1] - 1.0)
            placed = [p - shift for p in placed]
    result = [0.0] * len(heights)
    for position, index in enumerate(order):
        result[index] = placed[position]
    return result


def curves(
    lines: Mapping[str, tuple[Numbers, Numbers]],
    ylabel: str,
    chance: Number | None = None,
    blind: Number | None = None,
    xlabel: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Lines named at their right ends; `lines` maps a name to (steps, values). Dotted: the levels of chance and of a model
    that sees no image. Set axis limits before or leave them: the names are placed by the limits at the time of the call."""
    if ax is None:
        ax = new_axes(6.5, 3.4)
    ends: list[tuple[str, float, str]] = []
    for index, (name, (steps, values)) in enumerate(lines.items()):
        steps, values = floats(steps), floats(values)
        colour = COLOURS[index % len(COLOURS)]
        ax.plot(steps, values, color=colour, linestyle=DASHES[index % len(DASHES)], linewidth=2.2)
        if values:
            ends.append((name, values[-1], colour))
    for name, level in (("chance", chance), ("blind", blind)):
        if level is not None:
            ax.axhline(level, color=GREY, linestyle=":", linewidth=1.6, zorder=1)
            ends.append((name, level, "#5A5A5A"))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(x=0)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top)
    box = ax.get_position()
    height = figure_of(ax).get_figheight() * box.height * 72
    wanted = [(value - bottom) / (top - bottom) for _, value, _ in ends]
    for (name, _, colour), want, place in zip(ends, wanted, _spread(wanted, 1.3 * FONT / height), strict=True):
        moved = abs(place - want) > 0.01
        ax.annotate(
            name,
            xy=(1.005, want),
            xytext=(1.05, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=FONT,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 0} if moved else None,
        )
    return ax


def bars(
    values: Mapping[str, Number | Numbers],
    label: str,
    chance: Number | None = None,
    blind: Number | None = None,
    highlight: str | Sequence[str] | None = None,
    fmt: str = "{:.2f}",
    intervals: Mapping[str, tuple[Number, Number]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One horizontal bar a name, the first on top, its value printed behind it. A list is one number a seed: the bar is
    their mean and each seed a dot. `highlight`: names in full colour, the others pale. Dotted: chance and blind levels.
    `intervals`: from where to where a thin line is drawn on the bars that it names, say their 95% intervals."""
    names = list(values)
    if ax is None:
        ax = new_axes(6.5, 0.7 + 0.46 * len(names) + (0.25 if chance is not None or blind is not None else 0))
    chosen = set(names) if highlight is None else {highlight} if isinstance(highlight, str) else set(highlight)
    if not chosen <= set(names):
        raise ValueError(f"no bar is called {', '.join(sorted(chosen - set(names)))}")
    intervals = intervals or {}
    if not set(intervals) <= set(names):
        raise ValueError(f"no bar is called {', '.join(sorted(set(intervals) - set(names)))}")
    seeds_of = {name: [float(v)] if isinstance(v, int | float) else floats(v) for name, v in values.items()}
    for row, (name, seeds) in enumerate(seeds_of.items()):
        mean = sum(seeds) / len(seeds)
        low, high = (float(end) for end in intervals.get(name, (mean, mean)))
        if name in intervals:
            ax.plot([low, high], [row, row], color=INK, linewidth=1.6, marker="|", markersize=7, zorder=4)
        ax.barh(row, mean, height=0.62, color=BLUE if name in chosen else tint(BLUE, 0.62), zorder=2)
        if len(seeds) > 1:
            ax.scatter(seeds, [row] * len(seeds), s=26, color="white", edgecolor=INK, linewidth=1.0, zorder=4)
        ax.annotate(
            fmt.format(mean),
            xy=(max([*seeds, mean, high, 0.0]), row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold" if name in chosen and highlight is not None else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            zorder=5,
        )
    levels = [(name, level) for name, level in (("chance", chance), ("blind", blind)) if level is not None]
    tops = [float(high) for _, high in intervals.values()] + [level for _, level in levels]
    largest = max([max(seeds) for seeds in seeds_of.values()] + tops + [0.0])
    ax.set_xlim(0, 1.14 * largest or 1.0)
    # Two levels close together are named to the left and right of their lines.
    levels.sort(key=lambda pair: pair[1])
    for position, (name, level) in enumerate(levels):
        ax.axvline(level, color=INK, linestyle=":", linewidth=1.6, zorder=3)
        side = "center" if len(levels) == 1 else "right" if position == 0 else "left"
        shift = {"center": 0, "right": -2, "left": 2}[side]
        ax.annotate(
            name,
            xy=(level, 1),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 2),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color="#5A5A5A",
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
    return ax


def heatmap(
    matrix: Float[Tensor, "r c"] | np.ndarray,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    fmt: str = "{:.2f}",
    mask: Tensor | np.ndarray | None = None,
    limits: tuple[Number, Number] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A matrix in cividis, its numbers printed where there is room. Cells where `mask` is true are framed (held-out pairs,
    say). `limits`: of the colour scale; default, those of the matrix."""
    numbers = np.asarray(matrix.detach().cpu().float() if isinstance(matrix, Tensor) else matrix, dtype=float)
    height, width = numbers.shape
    annotated = height * width <= 150 and width <= 14
    if ax is None:
        cell = 0.58 if annotated else min(0.3, 4.5 / max(width, height))
        longest = max((len(str(row)) for row in rows), default=0) if rows is not None else 2
        ax = new_axes(
            min(WIDTH, width * cell + longest * 0.1 + (0.4 if annotated else 1.2)),
            height * min(cell, 0.45) + (1.3 if columns is not None else 0.7),
        )
    low, high = limits or (float(np.nanmin(numbers)), float(np.nanmax(numbers)))
    shown = ax.imshow(numbers, cmap="cividis", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    if annotated:
        for row in range(height):
            for column in range(width):
                number = numbers[row, column]
                if np.isfinite(number):
                    ink = ink_on(shown.cmap(shown.norm(number)))
                    ax.text(column, row, fmt.format(number), ha="center", va="center", color=ink, fontsize=FONT)
    else:
        figure_of(ax).colorbar(shown, ax=ax, fraction=0.046, pad=0.03).outline.set_visible(False)
    if mask is not None:
        framed = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask, dtype=bool)
        for row, column in zip(*np.nonzero(framed), strict=True):
            ax.add_patch(
                Rectangle((column - 0.44, row - 0.42), 0.88, 0.84, fill=False, edgecolor=VERMILION, linewidth=2.6)
            )
    for axis, labels in ((ax.yaxis, rows), (ax.xaxis, columns)):
        if labels is not None:
            axis.set_ticks(range(len(labels)), labels)
        else:
            axis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
    if columns is not None and max(len(str(c)) for c in columns) > 5:
        ax.tick_params(axis="x", labelrotation=35)
        for tick in ax.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)
    return ax
