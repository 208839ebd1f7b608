"""A batch of scenes is a struct of tensors, drawn from a named, seeded generator."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.placing import LARGEST, place
from minivlm.world.splits import SEEN, all_pairs

#: Radii from here on are `large` (rounded as stored radii are); drawn scenes leave a gap between the two words.
LARGE_FROM = float(np.float32(SIZES["large"][0]))

_COLOUR_WORDS = tuple(COLOURS)


def generator(name: str, seed: int = 0) -> np.random.Generator:
    """A generator that depends only on `name` and `seed`: the same numbers on every machine, other names others."""
    return np.random.default_rng([seed, *name.encode()])


@dataclass(frozen=True)
class Scenes(Batch):
    """`b` scenes of up to `o` objects. Absent slots (`present` False) hold zeros.

    Positions are fractions of width and height from the top left corner; sizes are radii as fractions of the shorter
    side; later objects lie on top of earlier ones. All tensors are on the CPU: only pictures go to a device.
    """

    colour: Int[Tensor, "b o"]  # index into COLOURS
    shape: Int[Tensor, "b o"]  # index into SHAPES
    position: Float[Tensor, "b o 2"]  # centre (x, y), y down
    size: Float[Tensor, "b o"]  # radius
    present: Bool[Tensor, "b o"]
    background: Float[Tensor, "b 3"]  # RGB in [0, 1]

    def counts(self) -> Int[Tensor, "b"]:
        """Objects in each scene."""
        return self.present.sum(1)


def draw_scenes(
    rng: np.random.Generator,
    n: int,
    objects: Any = (1, 3),
    pairs: Iterable[Any] = SEEN,
    slots: int | None = None,
    sizes: Any = None,
    aspect: Any = 1.0,
) -> Scenes:
    """Draw `n` scenes of `objects[0]` to `objects[1]` objects that do not touch, each of a colour-shape pair in `pairs`.

    Every pair is equally likely for every object, independent of everything else. `slots` (default: `objects[1]`) is the
    number of columns, so that batches with fewer objects can be joined to others.

    `sizes` is the least and the largest radius, as a fraction of the shorter side, between which radii are drawn
    log-uniformly (default: the ranges of the two size words; `size_word` calls all below the larger one small). For radii
    in pixels divide by the shorter side of the picture: `sizes=(4 / 224, 12 / 224)` for 4 to 12 pixels at 224 x 448.

    `aspect` is width / height of the picture for which nothing touches, here `aspect=448 / 224`; scenes do not store it.

    Raises:
        ValueError: no scenes, no pairs, fewer slots than objects, an aspect beyond 1/8 to 8, or objects that do not fit.
    """
    if not (isinstance(objects, Sequence) and len(objects) == 2 and all(isinstance(o, int) for o in objects)):
        raise ValueError(f"objects is a pair of whole numbers (least, most), such as (1, 3); got {objects!r}.")
    low, high = objects
    pairs = [tuple(pair) for pair in pairs]
    slots = high if slots is None else slots
    if n < 1 or not pairs:
        raise ValueError(f"draw_scenes needs at least one scene and one pair; got n={n} and {len(pairs)} pairs.")
    if not 1 <= low <= high:
        raise ValueError(f"objects=(least, most) must satisfy 1 <= least <= most; got {objects}.")
    if slots < high:
        raise ValueError(f"slots={slots} is fewer than the {high} objects a scene may have.")
    strangers = set(pairs) - set(all_pairs())
    if strangers:
        raise ValueError(
            f"pairs are (colour index, shape index) below ({len(COLOURS)}, {len(SHAPES)}); got {strangers}."
        )
    if not (_is_number(aspect) and 1 / 8 <= aspect <= 8):
        raise ValueError(f"aspect is width / height of the picture, from 1/8 to 8; got {aspect!r}.")
    if sizes is not None:
        if not (isinstance(sizes, Sequence) and len(sizes) == 2 and all(_is_number(size) for size in sizes)):
            raise ValueError(f"sizes is a pair of radii (least, most), such as (0.05, 0.1); got {sizes!r}.")
        if not 0 < sizes[0] <= sizes[1] <= LARGEST:
            raise ValueError(
                f"sizes=(least, most) are fractions of the shorter side, 0 < least <= most <= {LARGEST}; got {sizes}."
                " Divide radii in pixels by the shorter side of the picture."
            )
        sizes = (float(sizes[0]), float(sizes[1]))

    pair = np.asarray(pairs)[rng.integers(len(pairs), size=(n, slots))]
    present = np.arange(slots) < rng.integers(low, high + 1, size=(n, 1))
    position, size = place(rng, present, high, sizes, float(aspect))
    background = rng.uniform(0.86, 0.97, (n, 1)) + rng.uniform(-0.025, 0.025, (n, 3))
    return Scenes(
        colour=torch.from_numpy(pair[..., 0] * present),
        shape=torch.from_numpy(pair[..., 1] * present),
        position=torch.from_numpy(position.astype(np.float32)),
        size=torch.from_numpy(size.astype(np.float32)),
        present=torch.from_numpy(present),
        background=torch.from_numpy(background.astype(np.float32)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def compose(*objects: Any, background: Any = (0.94, 0.94, 0.94)) -> Scenes:
    """One scene by hand: `compose(dict(colour="red", shape="star", x=0.3, y=0.5, size=0.2), ...)`.

    `x`, `y` (default 0.5) and `size` (default 0.2, a radius as a fraction of the shorter side) may be left out.

    Raises:
        ValueError: no object, an unknown colour, shape or key, a size that is not positive, a centre outside the image, a
            background that is not three numbers from 0 to 1.
    """
    if not objects:
        raise ValueError('compose needs at least one object, for example dict(colour="red", shape="star").')
    rgb = tuple(background) if isinstance(background, Sequence) and not isinstance(background, str) else ()
    if len(rgb) != 3 or not all(isinstance(c, int | float) and 0 <= c <= 1 for c in rgb):
        raise ValueError(f"background is red, green and blue, each from 0 to 1; got {background!r}.")
    palette, rows = list(COLOURS), []
    for thing in objects:
        if not isinstance(thing, Mapping):
            raise ValueError(f'an object is a dict, such as dict(colour="red", shape="star"); got {thing!r}.')
        row = {"x": 0.5, "y": 0.5, "size": 0.2, **thing}
        if set(row) != {"colour", "shape", "x", "y", "size"}:
            raise ValueError(f"an object has colour, shape and, if you like, x, y, size; got {sorted(thing)}.")
        if row["colour"] not in palette or row["shape"] not in SHAPES:
            raise ValueError(f"no {row['colour']} {row['shape']} here: colours {palette}, shapes {list(SHAPES)}.")
        numbers = [row["x"], row["y"], row["size"]]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"x, y and size are numbers; got {dict(thing)}.")
        if not (0 < row["size"] < math.inf and 0 <= row["x"] <= 1 and 0 <= row["y"] <= 1):
            raise ValueError(f"size must be positive, x and y within [0, 1]; got {dict(thing)}.")
        rows.append(row)
    return Scenes(
        colour=torch.tensor([[palette.index(row["colour"]) for row in rows]]),
        shape=torch.tensor([[SHAPES.index(row["shape"]) for row in rows]]),
        position=torch.tensor([[[row["x"], row["y"]] for row in rows]], dtype=torch.float32),
        size=torch.tensor([[row["size"] for row in rows]], dtype=torch.float32),
        present=torch.ones(1, len(rows), dtype=torch.bool),
        background=torch.tensor([background], dtype=torch.float32),
    )


class Thing(NamedTuple):
    """One object in words and numbers: what every maker of texts reads. Units as in `Scenes`."""

    colour: str
    shape: str
    size: str  # size_word(radius)
    x: float
    y: float
    radius: float


def things(scenes: Scenes) -> list[list[Thing]]:
    """The objects of each scene, in the order of their slots; absent slots are left out."""
    rows = zip(
        scenes.colour.tolist(), scenes.shape.tolist(), scenes.position.tolist(), scenes.size.tolist(),
        scenes.present.tolist(), strict=True,
    )  # fmt: skip
    return [
        [
            Thing(_COLOUR_WORDS[colour], SHAPES[shape], size_word(radius), x, y, radius)
            for colour, shape, (x, y), radius, there in zip(*row, strict=True)
            if there
        ]
        for row in rows
    ]


def size_word(radius: float) -> str:
    """`small` or `large`; the sizes of drawn scenes leave a gap between the two."""
    return "large" if radius >= LARGE_FROM else "small"
