"""Where the objects of a scene go, so that no two touch: sizes and positions for a whole batch at once.

Lengths are fractions of the picture's shorter side, as radii are: a picture of `aspect` (width / height) 2 is 2 x 1.
"""

import math

import numpy as np

from minivlm.world.palette import SIZES

#: Free space between two objects, and between an object and the border, as a fraction of the shorter side.
MARGIN = 0.03

#: Positions tried at once for an object, and how often, before its scene starts again (the course's scenes: once).
PROPOSALS, ROUNDS = 12, 20

#: Corners of some shapes lie this many radii from the centre (a test measures it).
REACH = 1.07

#: The part of a picture that objects thrown at random can fill in reasonable time.
FULL = 0.45

#: The largest radius: an object that fills its picture.
LARGEST = 0.45

#: Objects placed in vain in a row, without a single scene finished, after which a request is given up.
PATIENCE = 20_000

#: Numbers that one step of placing many objects may hold at a time.
CHUNK = 2**21


def sides(aspect: float) -> np.ndarray:
    """Width and height of a picture whose shorter side is 1."""
    return np.array([max(aspect, 1.0), max(1 / aspect, 1.0)])


def crowding(count: int, least: float, most: float, aspect: float) -> float:
    """The part of a picture's free area that `count` discs cover, with half the margin around each: the mean for radii that
    are log-uniform from `least` to `most`.
    """
    log, half = math.log(most / least), MARGIN / 2
    mean, square = ((most - least) / log, (most**2 - least**2) / log / 2) if log > 1e-6 else (least, least**2)
    width, height = sides(aspect) - MARGIN
    return count * math.pi * (square + 2 * half * mean + half**2) / (width * height)


def place(
    rng: np.random.Generator, present: np.ndarray, most: int, sizes: tuple[float, float] | None, aspect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n, o, 2), as fractions of width and height, and radii (n, o); zeros where `present` (n, o) is False.

    `most` is how many objects a scene may have. Without `sizes`, radii are those of the size words, each word equally
    likely; else log-uniform from `sizes[0]` to `sizes[1]`. Object after object gets the first of the proposed positions that
    touches no earlier one. A scene in which none is free starts again with other radii, so that where it is crowded small
    ones are more frequent.

    Raises:
        ValueError: the scenes do not fit: by the area of the smallest objects, or because every try failed.
    """
    needs = crowding(most, *_bounds(sizes), aspect)
    if most > 1 and needs > FULL:
        raise ValueError(_too_full(most, sizes, aspect, f"need {needs:.3f} of the area"))
    # Up to four objects of the words' sizes on a square: the course's scenes, whose drawn numbers must never change.
    plain = sizes is None and aspect == 1 and most <= 4
    step = len(present) if plain else max(1, CHUNK // (PROPOSALS * present.shape[1]))
    parts = [_place(rng, present[i : i + step], sizes, aspect, plain) for i in range(0, len(present), step)]
    position, size = (np.concatenate(part) for part in zip(*parts, strict=True))
    return position * present[..., None], size * present


def _place(rng, present, sizes, aspect, plain) -> tuple[np.ndarray, np.ndarray]:
    n, slots = present.shape
    position, size = np.zeros((n, slots, 2)), np.zeros((n, slots))
    wide, fruitless, todo = sides(aspect), 0, np.arange(n)
    while len(todo):
        if fruitless * slots > PATIENCE:
            most = int(present[todo].sum(1).max())
            raise ValueError(_too_full(most, sizes, aspect, f"failed to fit {fruitless} times in a row"))
        # The last few scenes, which may be the hard ones, get many tries at a time.
        tries = todo if plain else todo.repeat(max(1, 64 // len(todo)))
        here = present[tries]
        radius = _radii(rng, here.shape, sizes)
        # In a crowd the largest go first, while there is room; what is absent goes last.
        order = None if plain else np.where(here, -radius, 0).argsort(1, kind="stable")
        if order is not None:
            radius, here = np.take_along_axis(radius, order, 1), np.take_along_axis(here, order, 1)
        centre, good = _throw(rng, radius, here, wide, plain)
        if order is not None:
            back = order.argsort(1)
            radius, centre = np.take_along_axis(radius, back, 1), np.take_along_axis(centre, back[..., None], 1)
        finished, first = np.unique(tries[good], return_index=True)
        rows = np.flatnonzero(good)[first]
        position[finished], size[finished] = centre[rows] / wide, radius[rows]
        fruitless = 0 if len(rows) else fruitless + len(tries)
        todo = np.setdiff1d(todo, finished)
    return position, size


def _throw(rng, radius, here, wide, plain) -> tuple[np.ndarray, np.ndarray]:
    """One try for each scene, slot after slot: centres (n, o, 2), and in which scenes all objects found a place."""
    n, slots = radius.shape
    centre, good = np.zeros((n, slots, 2)), np.ones(n, bool)
    for slot in range(slots):
        rows = np.arange(n) if plain else np.flatnonzero(good & here[:, slot])
        for _ in range(1 if plain else ROUNDS):
            spot, free = _propose(rng, radius[rows], centre[rows], slot, wide, REACH * (not plain))
            centre[rows, slot] = spot
            rows = rows[~free]
            if not len(rows):
                break
        good[rows] &= ~here[rows, slot]
    return centre, good


def _propose(rng, radius, centre, slot, wide, reach) -> tuple[np.ndarray, np.ndarray]:
    """For each scene the first proposed centre (n, 2) of object `slot` that touches no earlier one, and if there is one."""
    edge = np.maximum(radius[:, slot] + MARGIN, radius[:, slot] * reach + MARGIN / 3)[:, None, None]
    proposal = edge + (wide - edge - edge) * rng.random((len(radius), PROPOSALS if slot else 1, 2))
    x, y = proposal[..., 0], proposal[..., 1]
    free = np.ones(x.shape, bool)
    for other in range(slot):
        both = radius[:, other] + radius[:, slot]
        needed = np.maximum(both + MARGIN, both * reach)[:, None]
        dx, dy = x - centre[:, other, :1], y - centre[:, other, 1:]
        free &= dx * dx + dy * dy > needed * needed
    return proposal[np.arange(len(radius)), free.argmax(1)], free.any(1)


def _radii(rng: np.random.Generator, shape: tuple[int, ...], sizes: tuple[float, float] | None) -> np.ndarray:
    """Radii: of the size words, or log-uniform."""
    if sizes is None:
        bounds = np.asarray(list(SIZES.values()))[rng.integers(len(SIZES), size=shape)]
        return bounds[..., 0] + (bounds[..., 1] - bounds[..., 0]) * rng.random(shape)
    # least * (most / least) ** u, bit by bit of u: square roots are the same on every machine, powers are not.
    u, factor = rng.random(shape), sizes[1] / sizes[0]
    radius = np.full(shape, float(sizes[0]))
    for _ in range(24):
        u, factor = u * 2, math.sqrt(factor)
        bit = u >= 1
        u, radius = u - bit, np.where(bit, radius * factor, radius)
    return radius


def _bounds(sizes: tuple[float, float] | None) -> tuple[float, float]:
    """Radii that decide by area alone: of the size words, the smallest, because large ones are drawn again and again."""
    return (least := min(low for low, _ in SIZES.values()), least) if sizes is None else sizes


def _too_full(most: int, sizes: tuple[float, float] | None, aspect: float, why: str) -> str:
    least, largest = _bounds(sizes)
    room = max(1, int(FULL / crowding(1, least, largest, aspect)))
    radii = f"{least:g}" if least == largest else f"{least:g} to {largest:g}"
    return (
        f"{most} objects of radius {radii} (of the shorter side) at aspect {aspect:g} {why}: ask for fewer objects, smaller"
        f" sizes=(least, most) or a longer aspect, so that they fit. At most {FULL} of it is filled: room for about {room}."
    )
