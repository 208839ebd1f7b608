"""A batch of scenes is a struct of tensors, drawn from a named, seeded generator."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.splits import SEEN, all_pairs

#: Free space between two objects, and between an object and the border, as a fraction of the shorter side.
MARGIN = 0.03

#: Positions tried for an object before its scene starts again.
PROPOSALS = 12


def generator(name: str, seed: int = 0) -> np.random.Generator:
    """A generator that depends only on `name` and `seed`: the same numbers on every machine, other names others."""
    return np.random.default_rng([seed, *name.encode()])


@dataclass(frozen=True)
class Scenes:
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

    def __len__(self) -> int:
        return self.shape.shape[0]

    def __getitem__(self, index: Any) -> Scenes:
        """Scenes at `index` (a number, a slice, a list or tensor of numbers, a mask): always a batch, even if of one.

        Raises:
            IndexError: a single number beyond the batch.
        """
        try:
            number = operator.index(index)
        except TypeError:
            pass
        else:
            if not -len(self) <= number < len(self):
                raise IndexError(f"scene {number} of {len(self)}: the numbers run from 0 to {len(self) - 1}.")
            index = [number % len(self)]
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def counts(self) -> Int[Tensor, "b"]:
        """Objects in each scene."""
        return self.present.sum(1)

    @staticmethod
    def join(parts: Sequence[Scenes]) -> Scenes:
        """One batch from several.

        Raises:
            ValueError: nothing to join, or batches with different numbers of slots.
        """
        slots = {part.present.shape[1] for part in parts}
        if len(slots) != 1:
            raise ValueError(
                f"join needs batches with the same number of slots; got {sorted(slots) or 'no batch'}."
                " Draw with slots=... to give each the same."
            )
        return Scenes(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Scenes)})


def draw_scenes(
    rng: np.random.Generator,
    n: int,
    objects: Any = (1, 3),
    pairs: Iterable[Any] = SEEN,
    slots: int | None = None,
) -> Scenes:
    """Draw `n` scenes of `objects[0]` to `objects[1]` objects that do not touch, each of a colour-shape pair in `pairs`.

    Every pair is equally likely for every object, independent of everything else. `slots` (default: `objects[1]`) is the
    number of columns, so that batches with fewer objects can be joined to others.

    Raises:
        ValueError: no scenes, no pairs, more than 4 objects (they would not fit), or fewer slots than objects.
    """
    if not (isinstance(objects, Sequence) and len(objects) == 2 and all(isinstance(o, int) for o in objects)):
        raise ValueError(f"objects is a pair of whole numbers (least, most), such as (1, 3); got {objects!r}.")
    low, high = objects
    pairs = [tuple(pair) for pair in pairs]
    slots = high if slots is None else slots
    if n < 1 or not pairs:
        raise ValueError(f"draw_scenes needs at least one scene and one pair; got n={n} and {len(pairs)} pairs.")
    if not 1 <= low <= high <= 4:
        raise ValueError(f"objects=(least, most) must satisfy 1 <= least <= most <= 4, so that they fit; got {objects}.")
    if slots < high:
        raise ValueError(f"slots={slots} is fewer than the {high} objects a scene may have.")
    strangers = set(pairs) - set(all_pairs())
    if strangers:
        raise ValueError(f"pairs are (colour index, shape index) below ({len(COLOURS)}, {len(SHAPES)}); got {strangers}.")

    pair = np.asarray(pairs)[rng.integers(len(pairs), size=(n, slots))]
    present = np.arange(slots) < rng.integers(low, high + 1, size=(n, 1))
    position, size = _place(rng, present)
    background = rng.uniform(0.86, 0.97, (n, 1)) + rng.uniform(-0.025, 0.025, (n, 3))
    return Scenes(
        colour=torch.from_numpy(pair[..., 0] * present),
        shape=torch.from_numpy(pair[..., 1] * present),
        position=torch.from_numpy(position.astype(np.float32)),
        size=torch.from_numpy(size.astype(np.float32)),
        present=torch.from_numpy(present),
        background=torch.from_numpy(background.astype(np.float32)),
    )


def _place(rng: np.random.Generator, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and positions without touching, for all scenes at once.

    Object after object gets the first of `PROPOSALS` positions that touches no earlier one; a scene in which none is
    free starts again.
    """
    n, slots = present.shape
    position, size = np.zeros((n, slots, 2)), np.zeros((n, slots))
    ranges = np.asarray(list(SIZES.values()))
    todo = np.arange(n)
    while len(todo):
        here = present[todo]
        bounds = ranges[rng.integers(len(ranges), size=here.shape)]
        radius = rng.uniform(bounds[..., 0], bounds[..., 1])
        centre = np.zeros((*here.shape, 2))
        good = np.ones(len(todo), bool)
        for slot in range(slots):
            edge = (radius[:, slot] + MARGIN)[:, None, None]
            proposal = rng.uniform(edge, 1 - edge, (len(todo), PROPOSALS if slot else 1, 2))
            apart = proposal[:, :, None] - centre[:, None, :slot]  # (scene, proposal, earlier object, xy)
            needed = radius[:, None, :slot] + radius[:, slot, None, None] + MARGIN
            free = ((apart**2).sum(-1) > needed**2).all(-1)
            centre[:, slot] = proposal[np.arange(len(todo)), free.argmax(1)]
            good &= free.any(1) | ~here[:, slot]
        position[todo[good]], size[todo[good]] = centre[good], radius[good]
        todo = todo[~good]
    return position * present[..., None], size * present


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
