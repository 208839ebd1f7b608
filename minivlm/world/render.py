"""Scenes -> pictures, by anti-aliased signed distance functions: at any size and aspect ratio, on any device.

A signed distance function says how far a point lies from a shape's outline (negative inside). The outline is therefore
exact at every resolution: a pixel's coverage is `0.5 - distance in pixels`, cut to [0, 1].
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.scenes import Scenes

#: Pixels of scenes (of three objects; fewer of fuller scenes) drawn at a time: what suits a CPU's cache, a GPU's memory.
CPU_CHUNK, GPU_CHUNK = 2**18, 2**26


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt_() - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.75


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    y = y - 0.12  # y points down: the tip is at the top
    return torch.maximum(x.abs() * (math.sqrt(3) / 2) - y / 2, y) - 0.5


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() * 1.3 + y.abs() - 1) * (1 / math.hypot(1.3, 1))


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 0.28, y - 0.95), torch.maximum(x - 0.95, y - 0.28))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return ((x.square() + y.square()).sqrt_() - 0.75).abs_() - 0.25


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Inside at least four of the five half-planes of a pentagram: the second largest distance decides."""
    first = second = None
    for k in range(5):
        angle = math.tau * k / 5 - math.pi / 2  # one tip up: the plane opposite to it faces down
        plane = x * math.cos(angle) + y * math.sin(angle)
        if first is None:
            first, second = plane, torch.full_like(plane, -torch.inf)
        else:
            second = torch.maximum(second, torch.minimum(first, plane))
            first = torch.maximum(first, plane)
    return second - math.cos(2 * math.pi / 5) * 1.05


def _moon(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_circle(x, y), 0.72 - ((x - 0.52).square() + y.square()).sqrt_())


#: Shape word -> signed distance of points, in units of the shape's radius. `x` is (k, 1, w), `y` is (k, h, 1), y down.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
    "moon": _moon,
}


def render(
    scenes: Scenes, height: Any, width: Any = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Draw scenes: RGB in [0, 1], `height` x `width` pixels (square by default), on `device`.

    Raises:
        ValueError: a side that is not a whole number of at least one pixel.
    """
    width = height if width is None else width
    if not (isinstance(height, int) and isinstance(width, int)) or height < 1 or width < 1:
        raise ValueError(
            f"a picture needs at least 1 x 1 pixels, in whole numbers; got height={height}, width={width}."
        )
    device = torch.device(device)
    layers = scenes.present.shape[1] + 1
    step = max(1, 4 * (CPU_CHUNK if device.type == "cpu" else GPU_CHUNK) // (height * width * layers))
    images = torch.empty(len(scenes), 3, height, width, device=device)
    palette = torch.tensor(list(COLOURS.values()))
    for start in range(0, len(scenes), step):
        part = scenes[start : start + step]
        paint = torch.cat([palette[part.colour], part.background[:, None]], 1).to(device, non_blocking=True)
        weights = _visible(_coverage(part, height, width, device))
        torch.bmm(paint.mT, weights.flatten(2), out=images[start : start + step].flatten(2))
    return images


def _coverage(scenes: Scenes, height: int, width: int, device: torch.device) -> Float[Tensor, "b layers h w"]:
    """How much of each pixel each object would cover alone; one more layer, still empty, is for the background.

    Objects are grouped by shape on the CPU, where the scenes are, so that a GPU never has to wait.
    """
    b, slots = scenes.present.shape
    scene, slot = scenes.present.nonzero(as_tuple=True)
    order = scenes.shape[scene, slot].argsort(stable=True)
    scene, slot = scene[order], slot[order]
    sizes = torch.bincount(scenes.shape[scene, slot], minlength=len(SHAPES)).tolist()
    centre = scenes.position[scene, slot] * torch.tensor([width, height])
    radius = scenes.size[scene, slot] * min(height, width)
    where, centre, radius = (v.to(device, non_blocking=True) for v in (scene * (slots + 1) + slot, centre, radius))
    x = ((torch.arange(width, device=device) + 0.5 - centre[:, :1]) / radius[:, None])[:, None, :]
    y = ((torch.arange(height, device=device) + 0.5 - centre[:, 1:]) / radius[:, None])[:, :, None]
    coverage = torch.zeros(b * (slots + 1), height, width, device=device)
    groups = zip(
        SHAPES, x.split(sizes), y.split(sizes), (-radius[:, None, None]).split(sizes), where.split(sizes), strict=True
    )
    for shape, x, y, scale, index in groups:
        if len(index):
            coverage[index] = DISTANCES[shape](x, y).mul_(scale).add_(0.5).clamp_(0, 1)
    return coverage.view(b, slots + 1, height, width)


def _visible(layers: Float[Tensor, "b layers h w"]) -> Float[Tensor, "b layers h w"]:
    """How much of each pixel shows each layer, in place: what lies on top hides what lies below, background last."""
    free = torch.ones_like(layers[:, 0])
    for layer in reversed(layers[:, :-1].unbind(1)):
        layer.mul_(free)
        free -= layer
    layers[:, -1] = free
    return layers
