"""Small windows of ink onto pictures: each touches only its own pixels, however large the picture is."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.palette import COLOURS

#: Samples that a window has along its height, about, and samples that a pixel has along each axis, at most: small windows are
#: drawn larger and averaged, so that thin lines keep their weight and narrow gaps stay open.
FINE, FINEST = 32, 4


class Windows(NamedTuple):
    """Windows of one size. `coverage` is on the device of the pictures, the rest on the CPU, where parameters are."""

    coverage: Float[Tensor, "k h w"]  # how much of each pixel the ink covers, 0 to 1; several places may share one
    which: Int[Tensor, "g"]  # the coverage that goes to each place
    scene: Int[Tensor, "g"]  # index of the picture
    corner: Int[Tensor, "g 2"]  # pixel (x, y) of its top left; what lies beyond the picture is cut off
    colour: Float[Tensor, "g 3"]
    layer: Int[Tensor, "g"]  # from 0; later ones cover earlier ones


def rgb(colour: Any) -> tuple[float, float, float]:
    """A colour's red, green and blue, from its word or from three numbers from 0 to 1.

    Raises:
        ValueError: neither of the two.
    """
    if isinstance(colour, str) and colour in COLOURS:
        return COLOURS[colour]
    numbers = tuple(colour.tolist() if isinstance(colour, Tensor) else colour) if not isinstance(colour, str) else ()
    if len(numbers) != 3 or not all(isinstance(c, int | float) and 0 <= c <= 1 for c in numbers):
        raise ValueError(f"a colour is one of {list(COLOURS)}, or red, green and blue from 0 to 1; got {colour!r}.")
    return tuple(map(float, numbers))


def layers(scene: Int[Tensor, "g"], colour: Float[Tensor, "g 3"]) -> Int[Tensor, "g"]:
    """Layers of pieces that are laid in order: a picture's next layer begins where the colour changes."""
    order = scene.argsort(stable=True)
    scene, colour = scene[order], colour[order]
    fresh = torch.ones_like(scene, dtype=torch.bool)
    fresh[1:] = scene[1:] != scene[:-1]
    change = fresh.clone()
    change[1:] |= (colour[1:] != colour[:-1]).any(1)
    number = change.cumsum(0)
    first = torch.where(fresh, number, 0).cummax(0).values  # the number with which the picture began
    return torch.empty_like(order).scatter_(0, order, number - first)


def groups(heights: Float[Tensor, "g"]) -> list[tuple[Int[Tensor, "k"], int, int]]:
    """Sort pieces by height: (which of them, pixels of the highest, samples a pixel and axis).

    Heights of a group differ by a factor of two at most, so that windows of one size serve them.
    """
    power = torch.frexp(heights).exponent
    power = torch.where(heights == 2.0 ** (power - 1), power - 1, power).clamp(min=0)  # 8 pixels fit into 8
    found = []
    for p in sorted(set(power.tolist())):
        rows = (power == p).nonzero()[:, 0]
        found.append((rows, math.ceil(heights[rows].max()), min(max(FINE // 2**p, 1), FINEST)))
    return found


def lay_(images: Float[Tensor, "b c h w"], pieces: Sequence[Windows]) -> Float[Tensor, "b c h w"]:
    """Lay ink onto the pictures, in place. Within one layer the largest coverage counts, so that where two pieces of one
    colour meet there is no seam and no double.
    """
    b, c, height, width = images.shape
    area = height * width
    flat = images.view(-1)
    channels = torch.arange(c, device=images.device)[:, None] * area
    most = torch.zeros(b * area if pieces else 0, device=images.device)
    last = max((int(part.layer.max()) for part in pieces if len(part.layer)), default=-1)
    for layer in range(last + 1):
        where, offset, coverage, colour = [], [], [], []
        for part in pieces:
            rows = (part.layer == layer).nonzero()[:, 0]
            if len(rows):
                found = _pixels(part, rows, images)
                for into, values in zip((where, offset, coverage, colour), found, strict=True):
                    into.append(values)
        where, offset, coverage, colour = (torch.cat(v, -1) for v in (where, offset, coverage, colour))
        alpha = most.scatter_reduce_(0, where, coverage, "amax")[where]
        if layer < last:
            most[where] = 0
        where = where + offset + channels
        flat[where] = flat[where].lerp_(colour, alpha)  # a pixel that comes twice gets the same value twice
    return images


def _pixels(part: Windows, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All pixels of the windows `rows`: where they are in pictures of one channel, what to add for the further channels of
    the pictures before, coverage, colour (c, n).
    """
    _, c, height, width = images.shape
    h, w = part.coverage.shape[1:]
    which, scene, corner, colour = (v[rows].to(images.device, non_blocking=True) for v in part[1:5])
    x = corner[:, 0, None] + torch.arange(w, device=images.device)
    y = corner[:, 1, None] + torch.arange(h, device=images.device)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    line = (scene[:, None] * height + y.clamp(0, height - 1)) * width
    where = line[:, :, None] + x.clamp(0, width - 1)[:, None]
    coverage = part.coverage[which] * inside
    offset = scene * ((c - 1) * height * width)
    if images.device.type == "cpu":  # elsewhere, knowing how many there are would make the device wait
        there = coverage.flatten().nonzero()[:, 0]
        piece = there // (h * w)
        return where.flatten()[there], offset[piece], coverage.flatten()[there], colour.mT[:, piece]
    wide = [v.repeat_interleave(h * w, 0) for v in (offset, colour)]
    return where.flatten(), wide[0], coverage.flatten(), wide[1].mT
