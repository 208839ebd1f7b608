"""Robot tables -> pictures: a side view at any size, on any device, and a mask for each block.

Everything is drawn by signed distances to rounded boxes. The shapes do not overlap, so that coverages simply add.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.world.palette import COLOURS
from minivlm.world.robot import HIGHEST, PLACES, Tables

#: Pixels of blocks that are drawn at a time: on the CPU so that they stay in its cache, on a GPU so that they fit.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**26

#: RGB of the table and of the gripper: none of the blocks' colours.
TABLE, GRIPPER = (0.72, 0.62, 0.52), (0.50, 0.52, 0.56)

# Lengths in units of a place: a block's side, from one block to the next above it, the table's thickness, how far the
# gripper's fingers reach down. The gap between blocks keeps two of the same colour apart.
_SIDE, _PITCH, _THICK, _HAND = 0.84, 0.92, 0.24, 0.70
_HEIGHT = _THICK + HIGHEST * _PITCH + _HAND + 0.1


def block_centres(tables: Tables, height: int, width: int) -> tuple[Float[Tensor, "b k 2"], float]:
    """Centres (x, y) of all blocks in pixels, y down, and the side of a block. Absent blocks: at the first place."""
    unit = min(width / PLACES, height / _HEIGHT)
    x = (tables.place + 0.5) * (width / PLACES) + tables.shift * unit
    y = height - unit * (_THICK + _SIDE / 2 + tables.level * _PITCH)
    return torch.stack([x, y], -1), unit * _SIDE


def block_masks(
    tables: Tables, height: Any, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b k h w"]:
    """How much of each pixel each block covers, for object-centric encoders; zeros for absent blocks.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    height, width = _checked(height, width)
    centre, side = block_centres(tables, height, width)
    centre, present = (v.to(device, non_blocking=True) for v in (centre, tables.present))
    x, y = _pixels(height, width, device)
    mask = _box(x - centre[..., 0, None, None], y - centre[..., 1, None, None], side / 2, side / 2, side / 5)
    return mask * present[..., None, None]


def render_tables(
    tables: Tables, height: Any, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Draw tables: RGB in [0, 1], `height` x `width` pixels (square by default), on `device`.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    height, width = _checked(height, width)
    device = torch.device(device)
    palette = torch.tensor([*COLOURS.values(), TABLE, GRIPPER])
    images = torch.empty(len(tables), 3, height, width, device=device)
    chunk = CPU_CHUNK if device.type == "cpu" else GPU_CHUNK
    count = max(1, chunk // (height * width * tables.colour.shape[1]))
    for start in range(0, len(tables), count):
        part = tables[start : start + count]
        layers = torch.cat([block_masks(part, height, width, device), _furniture(part, height, width, device)], 1)
        layers = torch.cat([layers, (1 - layers.sum(1, keepdim=True)).clamp(min=0)], 1)
        scenery = palette[len(COLOURS) :].expand(len(part), -1, -1)
        paint = torch.cat([palette[part.colour], scenery, part.background[:, None]], 1).to(device, non_blocking=True)
        torch.bmm(paint.mT, layers.flatten(2), out=images[start : start + count].flatten(2))
    return images.clamp_(0, 1)


def _checked(height: Any, width: Any) -> tuple[int, int]:
    width = height if width is None else width
    if not (isinstance(height, int) and isinstance(width, int)) or height < 1 or width < 1:
        raise ValueError(
            f"a picture needs at least 1 x 1 pixels, in whole numbers; got height={height}, width={width}."
        )
    return height, width


def _pixels(height: int, width: int, device: Any) -> tuple[Tensor, Tensor]:
    """Centres of the pixels: x as a row, y as a column."""
    return torch.arange(width, device=device) + 0.5, torch.arange(height, device=device)[:, None] + 0.5


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float, corner: float = 0.0) -> Tensor:
    """Coverage of pixels at (x, y) from the centre of a box with rounded corners; all in pixels."""
    x, y = x.abs() - (half_width - corner), y.abs() - (half_height - corner)
    outside = (x.clamp(min=0).square() + y.clamp(min=0).square()).sqrt()
    distance = outside + torch.maximum(x, y).clamp(max=0) - corner
    return (0.5 - distance).clamp(0, 1)


def _furniture(tables: Tables, height: int, width: int, device: Any) -> Float[Tensor, "b 2 h w"]:
    """Coverage by the table and by the gripper: a rod from above, a palm and two fingers."""
    unit = min(width / PLACES, height / _HEIGHT)
    x, y = _pixels(height, width, device)
    table = (0.5 - (height - unit * _THICK - y)).clamp(0, 1).expand(len(tables), height, width)
    x = x - ((tables.gripper + 0.5) * (width / PLACES)).to(device, non_blocking=True)[:, None, None]
    tip = height - unit * (_HEIGHT - _HAND)  # the fingers' lower end
    palm = tip - unit * 0.42
    rod = _box(x, y - palm / 2, unit * 0.08, palm / 2)
    hand = _box(x, y - palm, unit * 0.40, unit * 0.08)
    fingers = _box(x.abs() - unit * 0.33, y - (tip + palm) / 2, unit * 0.07, (tip - palm) / 2)
    return torch.stack([table, torch.maximum(rod, torch.maximum(hand, fingers))], 1)
