"""One look for all figures: colours that colour-blind readers can tell apart, and text that survives half size."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

Number = int | float
Numbers = Sequence[int | float] | np.ndarray | Tensor

# Okabe and Ito's palette without its yellow, which vanishes on white.
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS: tuple[str, ...] = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), "-")
GREY, INK = "#767676", "#222222"

# The colour of a box in an architecture drawing says what flows through it.
KINDS: dict[str, str] = {"image": BLUE, "connector": ORANGE, "text": GREEN, "loss": PURPLE, "frozen": "#9A9A9A"}
RIGHT, WRONG = GREEN, VERMILION

WIDTH = 9.0  # inches; no figure is wider
FONT = 11.0  # points; no text is smaller

STYLE: dict[str, object] = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.figsize": (6.5, 3.4),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "axes.facecolor": "white",
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": FONT + 1,
    "axes.labelsize": FONT,
    "font.size": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.fontsize": FONT,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Set the look of all figures from here on. Calling it twice changes nothing."""
    mpl.rcParams.update(STYLE)


def new_axes(width: Number, height: Number) -> Axes:
    """The axes of a new figure of that size in inches, at most `WIDTH` wide, in the course's style."""
    with mpl.rc_context(STYLE):
        _, ax = plt.subplots(figsize=(min(width, WIDTH), height))
    return ax


def floats(numbers: Numbers) -> list[float]:
    """Plain floats, from a list, an array or a tensor."""
    return [float(number) for number in numbers]


def figure_of(ax: Axes) -> Figure:
    """The figure that `ax` stands in."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def ink_on(colour: object) -> str:
    """Black or white, whichever is easier to read on `colour` (relative luminance as WCAG defines it)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour))
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18 else "black"


def tint(colour: str, amount: float = 0.78) -> tuple[float, float, float]:
    """`colour` mixed with white; 1 is white."""
    red, green, blue = mpl.colors.to_rgb(colour)
    return (red + (1 - red) * amount, green + (1 - green) * amount, blue + (1 - blue) * amount)
