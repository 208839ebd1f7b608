"""Characters onto pictures: strokes by signed distance, at any height from a few pixels up, on pictures of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.font import ASPECT, CELL_HEIGHT, CHARACTERS, PEN, encode, segments
from minivlm.world.ink import Windows, groups, lay_, layers, rgb

_SEGMENTS, _COUNTS = segments()

#: Samples that are drawn at a time on the CPU, so that they and their strokes stay in its cache.
CPU_CHUNK = 2**15


@dataclass(frozen=True)
class Glyphs:
    """`g` placed characters, in pixels of the pictures that they go onto. All tensors are on the CPU.

    A character's cell is `ASPECT` times as wide as it is high. Later glyphs lie on top of earlier ones.
    """

    character: Int[Tensor, "g"]  # index into CHARACTERS
    position: Float[Tensor, "g 2"]  # top left corner of the cell (x, y), y down
    height: Float[Tensor, "g"]  # of the cell
    colour: Float[Tensor, "g 3"]  # RGB in [0, 1]
    scene: Int[Tensor, "g"]  # index of the picture

    def __len__(self) -> int:
        return self.character.shape[0]

    @staticmethod
    def join(parts: Sequence[Glyphs]) -> Glyphs:
        """All glyphs of several, in order. Raises ValueError where there are none to join."""
        if not parts:
            raise ValueError("join needs at least one Glyphs; got none.")
        return Glyphs(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Glyphs)})


def draw_glyphs(images: Float[Tensor, "b 3 h w"], glyphs: Glyphs) -> Float[Tensor, "b 3 h w"]:
    """The pictures with glyphs on them: new ones, on the device of the old. What lies beyond a picture is cut off.

    Raises:
        ValueError: a character, a height or a picture's index that cannot be.
    """
    return draw_glyphs_(images.clone(memory_format=torch.contiguous_format), glyphs)


def draw_glyphs_(images: Float[Tensor, "b 3 h w"], glyphs: Glyphs) -> Float[Tensor, "b 3 h w"]:
    """The same in place, onto pictures whose memory is contiguous."""
    _check(glyphs, len(images))
    layer = layers(glyphs.scene, glyphs.colour)
    pieces = []
    for rows, most, samples in groups(glyphs.height):
        corner = glyphs.position[rows].floor()
        key = torch.cat([glyphs.position[rows] - corner, glyphs.height[rows, None], glyphs.character[rows, None]], 1)
        same, which = torch.unique(key, dim=0, return_inverse=True)  # equal glyphs at equal places are drawn once
        coverage = _coverage(same, most, samples, images.device)
        rest = (glyphs.scene[rows], corner.long(), glyphs.colour[rows], layer[rows])
        pieces.append(Windows(coverage, which, *rest))
    return lay_(images, pieces)


def _check(glyphs: Glyphs, pictures: int) -> None:
    if not len(glyphs):
        return
    for name, values, end in (("character", glyphs.character, len(CHARACTERS)), ("scene", glyphs.scene, pictures)):
        if values.min() < 0 or values.max() >= end:
            raise ValueError(f"{name} runs from 0 to {end - 1}; got {int(values.min())} to {int(values.max())}.")
    if not (glyphs.height.isfinite().all() and glyphs.position.isfinite().all() and (glyphs.height > 0).all()):
        raise ValueError("a glyph needs a position in pixels and a height of more than 0; got one without.")


def _coverage(keys: Float[Tensor, "k 4"], most: int, samples: int, device: torch.device) -> Float[Tensor, "k h w"]:
    """How much of each pixel each glyph covers. Keys are (x and y within its first pixel, height, character), on the CPU.

    Strokes are sampled `samples` times a pixel along each axis and averaged, so that thin ones keep their weight.
    """
    order = _COUNTS[keys[:, 3].long()].argsort(descending=True, stable=True)
    rows, columns = (most + 1) * samples, (math.ceil(most * ASPECT) + 1) * samples
    step = max(1, CPU_CHUNK // (rows * columns)) if device.type == "cpu" else len(keys)
    coverage = torch.empty(len(keys), rows // samples, columns // samples, device=device)
    for part in order.split(step):
        unit = CELL_HEIGHT / keys[part, 2].to(device, non_blocking=True)[:, None, None]  # units of the font a pixel
        fine = _distance(keys[part], rows, columns, samples, device)
        fine = fine.mul_(-samples / unit).add_(0.5).clamp_(0, 1)
        if samples > 1:
            fine = torch.nn.functional.avg_pool2d(fine[:, None], samples)[:, 0]
        coverage[part.to(device, non_blocking=True)] = fine
    return coverage


def _distance(
    keys: Float[Tensor, "k 4"], rows: int, columns: int, samples: int, device: torch.device
) -> Float[Tensor, "k rows columns"]:
    """Distance of each sample from the outline of a glyph's strokes (negative inside), in units of the font.

    Glyphs come in order of their numbers of strokes, most first.
    """
    counts = _COUNTS[keys[:, 3].long()]
    number, glyph = (torch.arange(int(counts.max()))[:, None] < counts).nonzero(as_tuple=True)  # first strokes first
    blocks = torch.bincount(number).tolist()
    strokes = _SEGMENTS[keys[glyph, 3].long(), number]
    values = [keys[glyph, :3], strokes[:, :2], strokes[:, 2:] - strokes[:, :2]]
    keys, start, along = (v.to(device, non_blocking=True)[..., None] for v in values)
    unit = CELL_HEIGHT / keys[:, 2]
    x = ((torch.arange(columns, device=device) + 0.5) / samples - keys[:, 0]) * unit - start[:, 0]
    y = ((torch.arange(rows, device=device) + 0.5) / samples - keys[:, 1]) * unit - start[:, 1]
    share = along / along.square().sum(1, keepdim=True).clamp_(min=1e-9)
    t = ((x * share[:, 0])[:, None, :] + (y * share[:, 1])[:, :, None]).clamp_(0, 1)  # of the stroke's nearest point
    off_x = torch.addcmul(x[:, None, :], t, along[:, :1], value=-1).square_()
    off_y = torch.addcmul(y[:, :, None], t, along[:, 1:], value=-1)
    squares = off_x.addcmul_(off_y, off_y).split(blocks)
    nearest = torch.full((len(counts), rows, columns), torch.inf, device=device)
    for block in squares:
        torch.minimum(nearest[: len(block)], block, out=nearest[: len(block)])
    return nearest.sqrt_().sub_(PEN)


def text_glyphs(
    text: str, x: int | float, y: int | float, height: int | float, colour: Any = "black", scene: int = 0
) -> Glyphs:
    """The glyphs of one line of text, its top left corner at (x, y), in cells of `height` pixels.

    Raises:
        ValueError: a character that the font lacks, a colour or a height that is none.
    """
    if not height > 0:
        raise ValueError(f"a text needs a height of more than 0 pixels; got {height}.")
    characters = encode(text)
    n = len(characters)
    steps = torch.arange(n) * (height * ASPECT)
    return Glyphs(
        character=torch.tensor(characters, dtype=torch.long),
        position=torch.stack([x + steps, torch.full((n,), float(y))], 1).float(),
        height=torch.full((n,), float(height)),
        colour=torch.tensor(rgb(colour), dtype=torch.float32).expand(n, 3),
        scene=torch.full((n,), scene),
    )


def write_text(
    images: Float[Tensor, "b 3 h w"],
    text: str,
    x: int | float,
    y: int | float,
    height: int | float,
    colour: Any = "black",
) -> Float[Tensor, "b 3 h w"]:
    """One line of text on each picture: its top left corner at pixel (x, y), in cells of `height` pixels.

    Raises:
        ValueError: a text that does not fit, a character that the font lacks, a colour that is none.
    """
    glyphs = text_glyphs(text, x, y, height, colour)
    rows, columns = images.shape[2:]
    wide = len(text) * height * ASPECT
    if x < 0 or y < 0 or x + wide > columns + 1e-4 or y + height > rows + 1e-4:
        room = min(rows - max(y, 0), (columns - max(x, 0)) / (max(len(text), 1) * ASPECT))
        hint = (
            f"from there, a height of {room:.1f} would"
            if room > 0 and x >= 0 and y >= 0
            else "start within the picture"
        )
        raise ValueError(
            f"{text!r} at ({x}, {y}), {height} high, is {wide:g} wide and does not fit {columns} x {rows} pixels: {hint}."
        )
    if not text:
        return images.clone()
    copies = [
        Glyphs(glyphs.character, glyphs.position, glyphs.height, glyphs.colour, glyphs.scene + i)
        for i in range(len(images))
    ]
    return draw_glyphs(images, Glyphs.join(copies))


__all__ = ["ASPECT", "CHARACTERS", "Glyphs", "draw_glyphs", "text_glyphs", "write_text"]
