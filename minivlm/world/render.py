"""Scenes -> pictures, by anti-aliased signed distance functions: at any size and aspect ratio, on any device.

A signed distance function says how far a point lies from a shape's outline (negative inside). The outline is therefore
exact at every resolution: a pixel's coverage is `0.5 - distance in pixels`, cut to [0, 1].
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.scenes import Scenes

#: Distances are computed for about this many object pixels at a time on the CPU, so that they stay in its cache.
CPU_CHUNK = 2**17


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
        angle = math.tau * k / 5 + math.pi / 2
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
    scenes: Scenes, height: int, width: int | None = None, device: str | torch.device = "cpu"
) -> Float[Tensor, "b 3 h w"]:
    """Draw scenes: RGB in [0, 1], `height` x `width` pixels (square by default), on `device`.

    Raises:
        ValueError: a side of less than one pixel.
    """
    width = height if width is None else width
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least 1 x 1 pixels; got height={height}, width={width}.")
    device = torch.device(device)
    slots = scenes.present.shape[1]
    step = max(1, CPU_CHUNK // (height * width * slots)) if device.type == "cpu" else len(scenes)
    parts = [_render(scenes[i : i + step], height, width, device) for i in range(0, len(scenes), step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _render(scenes: Scenes, height: int, width: int, device: torch.device) -> Tensor:
    weight = _visible(_coverage(scenes, height, width, device))
    palette = torch.tensor(list(COLOURS.values()))
    paint = torch.cat([palette[scenes.colour], scenes.background[:, None]], 1).to(device, non_blocking=True)
    return torch.einsum("boc,bohw->bchw", paint, weight)


def _coverage(scenes: Scenes, height: int, width: int, device: torch.device) -> Float[Tensor, "b o h w"]:
    """How much of each pixel each object would cover alone. Objects are grouped by shape on the CPU: no waiting."""
    (b, slots), short = scenes.present.shape, min(height, width)
    flat = scenes.present.flatten().nonzero()[:, 0]
    flat = flat[scenes.shape.flatten()[flat].argsort(stable=True)]
    sizes = torch.bincount(scenes.shape.flatten()[flat], minlength=len(SHAPES)).tolist()
    centre = scenes.position.flatten(0, 1)[flat] * torch.tensor([width, height])
    radius = (scenes.size.flatten()[flat] * short)[:, None].to(device, non_blocking=True)
    centre, flat = centre.to(device, non_blocking=True), flat.to(device, non_blocking=True)
    x = ((torch.arange(width, device=device) + 0.5 - centre[:, :1]) / radius)[:, None, :]
    y = ((torch.arange(height, device=device) + 0.5 - centre[:, 1:]) / radius)[:, :, None]
    groups = zip(SHAPES, x.split(sizes), y.split(sizes), radius[..., None].split(sizes), flat.split(sizes), strict=True)
    coverage = torch.zeros(b * slots, height, width, device=device)
    for shape, x, y, radius, where in groups:
        if len(where):
            coverage[where] = DISTANCES[shape](x, y).mul_(-radius).add_(0.5).clamp_(0, 1)
    return coverage.view(b, slots, height, width)


def _visible(coverage: Float[Tensor, "b o h w"]) -> Float[Tensor, "b o+1 h w"]:
    """How much of each pixel shows each object, and the background (last), when later objects lie on top."""
    weights, free = [], torch.ones_like(coverage[:, 0])
    for alpha in reversed(coverage.unbind(1)):
        weights.append(alpha * free)
        free = free - weights[-1]
    return torch.stack([*reversed(weights), free], 1)
