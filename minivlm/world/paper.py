"""What signs are put onto: sheets and cards, inks that stand out on them, and how a sheet fits a picture of another size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.palette import COLOURS

#: Brightness of paper: light or dark, and how far its channels may stray from grey.
LIGHT, DARK, TINT = (0.86, 0.97), (0.05, 0.16), 0.025

#: Least difference in brightness between ink and paper.
CONTRAST = 0.35

#: Parts that red, green and blue have in brightness.
BRIGHTNESS = (0.30, 0.59, 0.11)

_BRIGHT = [sum(part * c for part, c in zip(BRIGHTNESS, colour, strict=True)) for colour in COLOURS.values()]
_ON_LIGHT = [i for i, bright in enumerate(_BRIGHT) if bright <= LIGHT[0] - TINT - CONTRAST]
_ON_DARK = [i for i, bright in enumerate(_BRIGHT) if bright >= DARK[1] + TINT + CONTRAST]


def draw_paper(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Int[Tensor, "..."], Float[Tensor, "... 3"]]:
    """Inks (index into COLOURS) and papers (RGB): half of the papers light, half dark, inks at least `CONTRAST` away."""
    dark = rng.random(shape) < 0.5
    low, high = (np.where(dark, *ends) for ends in zip(DARK, LIGHT, strict=True))
    paper = (low + (high - low) * rng.random(shape))[..., None] + rng.uniform(-TINT, TINT, (*shape, 3))
    choice = rng.random(shape)
    on_light, on_dark = (np.asarray(inks)[(choice * len(inks)).astype(int)] for inks in (_ON_LIGHT, _ON_DARK))
    return torch.from_numpy(np.where(dark, on_dark, on_light)), torch.from_numpy(paper.astype(np.float32))


def check_canvas(height: Any, width: Any) -> None:
    """Raises ValueError unless both are whole numbers of at least one pixel."""
    if not (isinstance(height, int) and isinstance(width, int)) or height < 1 or width < 1:
        raise ValueError(
            f"a picture needs at least 1 x 1 pixels, in whole numbers; got height={height}, width={width}."
        )


def check_range(name: str, value: Any, kind: type | tuple[type, ...] = (int, float), least: int | float = 1) -> tuple:
    """A pair (least, most) of numbers, as a tuple. Raises ValueError if it is something else."""
    ok = isinstance(value, Sequence) and len(value) == 2 and all(isinstance(v, kind) for v in value)
    if not ok or not least <= value[0] <= value[1] < float("inf"):
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"{name} is a pair of {what} (least, most), the first at least {least}; got {value!r}.")
    return tuple(value) if kind is int else tuple(map(float, value))


def fit(canvas: Int[Tensor, "b 2"], height: int, width: int) -> tuple[Float[Tensor, "b"], Float[Tensor, "b 2"]]:
    """How sheets of `canvas` (height, width) pixels lie on pictures of another size: as large as they fit, centred.

    Returns the scale, and where the sheet's top left corner (x, y) comes to lie.
    """
    size = torch.tensor([height, width])
    scale = (size / canvas).min(1).values
    return scale, ((size - canvas * scale[:, None]) / 2).flip(1)


def stripes(low: Float[Tensor, "..."], high: Float[Tensor, "..."], pixels: int) -> Float[Tensor, "... p"]:
    """How much of each pixel of a line lies between `low` and `high`."""
    pixel = torch.arange(pixels, device=low.device)
    return (torch.minimum(pixel + 1, high[..., None]) - torch.maximum(pixel, low[..., None])).clamp_(0, 1)


def sheets(
    background: Float[Tensor, "b 3"],
    boxes: Float[Tensor, "b s 4"],
    cards: Float[Tensor, "b s 3"],
    height: int,
    width: int,
    device: str | torch.device = "cpu",
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of one colour with cards on them that do not overlap; boxes are (x1, y1, x2, y2) in pixels."""
    boxes, background = boxes.to(device), background.to(device)
    across = stripes(boxes[..., 0], boxes[..., 2], width)
    down = stripes(boxes[..., 1], boxes[..., 3], height)
    return weave(background, down, across, cards.to(device) - background[:, None])


def weave(
    background: Float[Tensor, "b 3"],
    down: Float[Tensor, "b s h"],
    across: Float[Tensor, "b s w"],
    change: Float[Tensor, "b s 3"],
) -> Float[Tensor, "b 3 h w"]:
    """Pictures of one colour, changed by `s` patterns: by `change`, where `down` times `across` is 1."""
    b, _, height = down.shape
    down = torch.cat([down.new_ones(b, 1, height), down], 1)
    across = torch.cat([across.new_ones(b, 1, across.shape[2]), across], 1)
    paint = torch.einsum("bsc,bsh->bchs", torch.cat([background[:, None], change], 1), down)
    return torch.bmm(paint.flatten(1, 2), across).unflatten(1, (3, height))
