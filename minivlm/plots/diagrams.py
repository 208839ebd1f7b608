"""An architecture drawn by code: boxes whose colour says what flows through them, and arrows between them."""

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minivlm.plots.style import FONT, INK, KINDS, Number, new_axes, tint

Point = tuple[Number, Number]


def diagram(width: Number = 8.0, height: Number = 2.6) -> Axes:
    """An empty page of that many inches; coordinates are inches from its lower left corner."""
    ax = new_axes(width, height)
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    return ax


def box(
    ax: Axes, x: Number, y: Number, w: Number, h: Number, text: str, colour: str = "text", frozen: bool = False
) -> FancyBboxPatch:
    """A rounded box with its lower left corner at (x, y); the patch is what `arrow` takes.

    `colour`: a kind (image, connector, text, loss) or any matplotlib colour. A `frozen` part is grey and hatched, its
    border dashed and still of its kind's colour: it says what flows there, but it does not learn.
    """
    edge = KINDS.get(colour, colour)
    patch = FancyBboxPatch(
        (x, y),
        w,
        h,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor="#EDEDED" if frozen else tint(edge),
        edgecolor=edge,
        linewidth=2.0,
        linestyle=(0, (3, 2)) if frozen else "-",
        zorder=2,
    )
    ax.add_patch(patch)
    if frozen:  # a second patch, because a hatch is drawn in the colour of its border
        ax.add_patch(
            FancyBboxPatch(
                (x, y),
                w,
                h,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor="none",
                edgecolor="#D6D6D6",
                linewidth=0,
                hatch="//",
                zorder=2.1,
            )
        )
    behind = {"facecolor": "#EDEDED", "edgecolor": "none", "pad": 1.5} if frozen else None
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=FONT, color=INK, zorder=3, bbox=behind)
    return patch


def _extent(end: FancyBboxPatch | Point) -> tuple[Number, Number, Number, Number]:
    """(x, y, w, h) of a box; of a point, with no size."""
    if isinstance(end, FancyBboxPatch):
        return end.get_x(), end.get_y(), end.get_width(), end.get_height()
    return (*end, 0, 0)


def _ports(start: FancyBboxPatch | Point, end: FancyBboxPatch | Point) -> tuple[Point, Point]:
    """Where an arrow leaves one box and enters the other: the middles of the sides that face each other."""
    ax, ay, aw, ah = _extent(start)
    bx, by, bw, bh = _extent(end)
    right, up = bx + bw / 2 - ax - aw / 2, by + bh / 2 - ay - ah / 2
    beside = max(bx - ax - aw, ax - bx - bw)  # the free space between them, sideways
    above = max(by - ay - ah, ay - by - bh)
    if beside >= above:
        sign = 1 if right > 0 else -1
        a = (ax + aw / 2 + sign * aw / 2, ay + ah / 2)
        b = (bx + bw / 2 - sign * bw / 2, by + bh / 2)
        low, high = max(ay, by), min(ay + ah, by + bh)
        if low < high and a[1] != b[1] and bh > 0 and ah > 0:  # they overlap in height: a level arrow
            a, b = (a[0], (low + high) / 2), (b[0], (low + high) / 2)
    else:
        sign = 1 if up > 0 else -1
        a = (ax + aw / 2, ay + ah / 2 + sign * ah / 2)
        b = (bx + bw / 2, by + bh / 2 - sign * bh / 2)
        low, high = max(ax, bx), min(ax + aw, bx + bw)
        if low < high and a[0] != b[0] and bw > 0 and aw > 0:
            a, b = ((low + high) / 2, a[1]), ((low + high) / 2, b[1])
    return a, b


def arrow(
    ax: Axes,
    a: FancyBboxPatch | Point,
    b: FancyBboxPatch | Point,
    text: str = "",
    colour: str = INK,
    dashed: bool = False,
) -> FancyArrowPatch:
    """An arrow from `a` to `b`, each a box or a point; `text` stands beside its middle. `dashed`: gradients, say."""
    start, end = _ports(a, b)
    patch = FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=14,
        shrinkA=1.5,
        shrinkB=1.5,
        linewidth=1.6,
        linestyle="--" if dashed else "-",
        color=KINDS.get(colour, colour),
        zorder=1.5,
    )
    ax.add_patch(patch)
    if text:
        level = abs(end[0] - start[0]) >= abs(end[1] - start[1])
        ax.annotate(
            text,
            ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2),
            xytext=(0, 5) if level else (6, 0),
            textcoords="offset points",
            ha="center" if level else "left",
            va="bottom" if level else "center",
            fontsize=FONT,
        )
    return patch
