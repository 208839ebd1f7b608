"""Pictures of what a model is given and of where it looks."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minivlm.plots.style import (
    FONT,
    GREY,
    INK,
    RIGHT,
    STYLE,
    VERMILION,
    WIDTH,
    WRONG,
    Number,
    Numbers,
    figure_of,
    floats,
    ink_on,
    new_axes,
)

CHARACTER = 0.62  # width of an average character, in units of the font size


def _pixels(image: Float[Tensor, "c h w"]) -> np.ndarray:
    """(H, W, 3) numbers in [0, 1] for matplotlib; one channel becomes grey."""
    pixels = image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def show_images(
    images: Float[Tensor, "b c h w"] | Sequence[Float[Tensor, "c _ _"]],
    titles: Sequence[str] | None = None,
    columns: int = 8,
    size: Number = 1.2,
    colours: Sequence[str] | None = None,
    right: Sequence[bool] | None = None,
    wrap: int | None = None,
) -> Figure:
    """A grid of images in [0, 1], each under its title.

    `size`: inches a cell (less where `columns` of them would be too wide). `colours`: of the titles. `right`: mark each
    title as right (green, tick) or wrong (vermilion, cross). `wrap`: characters a line; default, what fits.
    A sequence may hold images of different sizes; each keeps its aspect ratio.
    """
    count = len(images)
    for name, given in {"titles": titles, "colours": colours, "right": right}.items():
        if given is not None and len(given) != count:
            raise ValueError(f"{len(given)} {name} for {count} images")
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    size = min(size, WIDTH / columns)
    wrap = wrap or max(6, int(size * 72 / (FONT * CHARACTER)))
    texts = ["" for _ in range(count)] if titles is None else [str(title) for title in titles]
    if right is not None:
        texts = [f"{'✓' if good else '✗'} {text}" for good, text in zip(right, texts, strict=True)]
        colours = colours or [RIGHT if good else WRONG for good in right]
    texts = ["\n".join(textwrap.wrap(text, wrap)) for text in texts]
    heights = []
    for row in range(rows):
        lines = max((t.count("\n") + 1 for t in texts[row * columns : (row + 1) * columns] if t), default=0)
        heights.append(size + lines * FONT * 1.25 / 72 + 0.06)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(columns * size, sum(heights)), height_ratios=heights, squeeze=False
        )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    for index, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if index < count:
            ax.imshow(_pixels(images[index]), interpolation="nearest", vmin=0, vmax=1)
            ax.set_title(texts[index], fontsize=FONT, color=colours[index] if colours else INK, pad=3)
    return figure


def overlay(
    image: Float[Tensor, "c h w"],
    weights: Float[Tensor, "rows columns"],
    ax: Axes | None = None,
    title: str = "",
    colour_bar: bool = False,
    limits: tuple[Number, Number] | None = None,
) -> Axes:
    """A map of one weight a patch (attention, similarity) laid over the image it belongs to.

    The image turns grey and pale, so that the only colour in the picture is the map's: clear at the lower of `limits`,
    vermilion at the upper. Default limits: the smallest and the largest weight; `colour_bar` shows them.
    """
    if ax is None:
        ax = new_axes(3.1 if colour_bar else 2.4, 2.4)
    pixels = _pixels(image)
    height, width = pixels.shape[:2]
    grid = weights.detach().cpu().float().numpy()
    low, high = limits or (float(grid.min()), float(grid.max()))
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    pale = 0.35 + 0.65 * pixels @ np.array([0.299, 0.587, 0.114])
    ax.imshow(pale, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    ends = [mpl.colors.to_rgba(VERMILION, alpha) for alpha in (0.0, 0.9)]
    clear = mpl.colors.LinearSegmentedColormap.from_list("clear", ends)
    shown = ax.imshow(grid, cmap=clear, vmin=low, vmax=high, interpolation="nearest", extent=extent)
    ax.set_axis_off()
    if title:
        ax.set_title(title)
    if colour_bar:
        bar = figure_of(ax).colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
        bar.outline.set_visible(False)
        bar.locator = mpl.ticker.MaxNLocator(3)
        bar.update_ticks()
    return ax


def tokens(
    words: Sequence[str],
    weights: Numbers | None = None,
    ax: Axes | None = None,
    title: str = "",
    width: Number = WIDTH,
) -> Axes:
    """A row of word chips, wrapped where it gets wider than `width` inches, coloured by `weights` where given."""
    if weights is not None and len(weights) != len(words):
        raise ValueError(f"{len(weights)} weights for {len(words)} words")
    advance, padding, gap, line = FONT * 0.602 / 72, 0.07, 0.06, 0.36  # inches; a fixed-width font has one advance
    places: list[tuple[float, float, float]] = []
    x, y = 0.0, 0.0
    for word in words:
        chip = max(len(word), 1) * advance + 2 * padding
        if x > 0 and x + chip > width - 0.1:
            x, y = 0.0, y + line
        places.append((x, y, chip))
        x += chip + gap
    widest = max((x + chip for x, _, chip in places), default=1.0)
    if ax is None:
        ax = new_axes(widest + 0.1, y + line + (0.3 if title else 0.05))
    shares = None if weights is None else floats(weights)
    top = max(shares or [], default=0.0)
    for index, (word, (x, y, chip)) in enumerate(zip(words, places, strict=True)):
        fill: object = "#F1F1F1"
        if shares is not None:
            fill = mpl.colormaps["cividis"](shares[index] / top if top > 0 else 0.0)
        ax.add_patch(
            FancyBboxPatch(
                (x, y),
                chip,
                line - 0.1,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=fill,
                edgecolor=GREY,
                lw=0.6,
            )
        )
        ax.text(
            x + chip / 2,
            y + (line - 0.1) / 2,
            word,
            family="monospace",
            fontsize=FONT,
            color=ink_on(fill),
            ha="center",
            va="center_baseline",
        )
    ax.set(xlim=(-0.02, widest + 0.02), ylim=(places[-1][1] + line - 0.06 if places else 1, -0.04), aspect="equal")
    ax.set_axis_off()
    if title:
        ax.set_title(title, loc="left")
    return ax
