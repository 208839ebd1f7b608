"""A robot's tables: coloured blocks at a few places in a row, one on another up to a limit, and a gripper above them.

This module holds the states. `robot_moves` simulates what the gripper does, `robot_pictures` draws, `robot_words` says it,
`planner` finds the shortest way to a goal, `robot_questions` asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.palette import COLOURS

#: Places on the table, in a row from the left.
PLACES = 4

#: Blocks that a stack may have.
HIGHEST = 3

#: Blocks that a table may have: all of them fit side by side.
MOST = PLACES

#: How far a block may stand from the middle of its place, in either direction, as a fraction of the place's width.
SHIFT = 0.05

#: (upper colour, lower colour) of pairs that are stacked in no training picture, goal or plan. Each colour is held out
#: over two others and under two others, so every colour is seen above and below others, but not so combined.
HELD_OUT_STACKS: tuple[tuple[int, int], ...] = tuple(
    pair for pair in product(range(len(COLOURS)), repeat=2) if (pair[1] - pair[0]) % len(COLOURS) in (2, 5)
)

#: Pairs that training stacks are made of. (A colour on itself occurs where colours repeat.)
SEEN_STACKS: tuple[tuple[int, int], ...] = tuple(
    pair for pair in product(range(len(COLOURS)), repeat=2) if pair not in HELD_OUT_STACKS
)

#: One table as its stacks: for each place, the numbers of its blocks, from the table upwards.
Columns = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Tables(Batch):
    """`b` tables of up to `k` blocks. Absent slots (`present` False) hold zeros. All tensors are on the CPU."""

    colour: Int[Tensor, "b k"]  # index into COLOURS
    place: Int[Tensor, "b k"]  # from the left
    level: Int[Tensor, "b k"]  # blocks underneath
    shift: Float[Tensor, "b k"]  # from the middle of the place, as a fraction of its width
    present: Bool[Tensor, "b k"]
    gripper: Int[Tensor, "b"]  # the place it hangs over
    background: Float[Tensor, "b 3"]  # RGB in [0, 1]

    def counts(self) -> Int[Tensor, "b"]:
        """Blocks on each table."""
        return self.present.sum(1)

    def columns(self) -> list[Columns]:
        """Each table as its stacks."""
        order = (self.level + HIGHEST * ~self.present).argsort(dim=1, stable=True).tolist()
        rows = zip(order, self.place.tolist(), self.counts().tolist(), strict=True)
        return [tuple(tuple(i for i in o[:n] if p[i] == at) for at in range(PLACES)) for o, p, n in rows]


def state_vectors(tables: Tables) -> Float[Tensor, "b k d"]:
    """What a robot's sensors say about each block, for a state encoder: present, x and height in [0, 1], colour one-hot."""
    x = (tables.place + 0.5 + tables.shift) / PLACES
    height = tables.level / (HIGHEST - 1)
    colour = torch.nn.functional.one_hot(tables.colour, len(COLOURS))
    vectors = torch.cat([torch.ones_like(x)[..., None], x[..., None], height[..., None], colour], -1)
    return vectors * tables.present[..., None]


@cache
def arrangements(n: int) -> tuple[Columns, ...]:
    """Every way in which `n` blocks can stand on the table."""
    sizes = [s for s in product(range(HIGHEST + 1), repeat=PLACES) if sum(s) == n]
    ends = [[sum(s[: p + 1]) for p in range(PLACES)] for s in sizes]
    return tuple(
        tuple(order[e - h : e] for e, h in zip(end, size, strict=True))
        for size, end in zip(sizes, ends, strict=True)
        for order in permutations(range(n))
    )


def draw_tables(
    rng: np.random.Generator,
    n: int,
    blocks: Any = (3, 4),
    stacks: Iterable[Any] = SEEN_STACKS,
    stacked: bool = True,
    twins: bool = False,
    slots: int | None = None,
) -> Tables:
    """Draw `n` tables of `blocks[0]` to `blocks[1]` blocks, every arrangement equally likely before the conditions.

    `stacks`: the (upper colour, lower colour) pairs that may stand one on another. `stacked`: at least one block stands on
    another. `twins`: two blocks have the same colour (otherwise all differ), so that only their numbers tell them apart.
    `slots` (default: `blocks[1]`) is the number of columns of the tensors.

    Raises:
        ValueError: no tables, a number of blocks that does not fit, unknown colours, or conditions that nothing fulfils.
    """
    if not (isinstance(blocks, Sequence) and len(blocks) == 2 and all(isinstance(b, int) for b in blocks)):
        raise ValueError(f"blocks is a pair of whole numbers (least, most), such as (3, 4); got {blocks!r}.")
    (low, high), stacks = blocks, [tuple(pair) for pair in stacks]
    slots = high if slots is None else slots
    if n < 1:
        raise ValueError(f"draw_tables needs at least one table; got n={n}.")
    if not 1 <= low <= high <= MOST or slots < high:
        raise ValueError(
            f"blocks=(least, most) must satisfy 1 <= least <= most <= {MOST}, slots; got {blocks}, {slots}."
        )
    if low < 2 and (stacked or twins):
        raise ValueError(f"stacked and twins need two blocks or more; got blocks={blocks}, {stacked=}, {twins=}.")
    strangers = set(stacks) - set(SEEN_STACKS) - set(HELD_OUT_STACKS)
    if strangers:
        raise ValueError(f"stacks are (upper, lower) colour indices below {len(COLOURS)}; got {sorted(strangers)}.")
    if stacked and not any(twins or upper != lower for upper, lower in stacks):
        raise ValueError(f"no two blocks may be stacked, but stacked=True asks for it; got stacks={stacks}.")

    allowed = np.zeros((len(COLOURS), len(COLOURS)), bool)
    for pair in stacks:
        allowed[pair] = True
    layouts = [_layouts(k, slots) for k in range(low, high + 1)]
    starts, sizes = np.cumsum([0, *map(len, layouts)]), np.asarray([len(part) for part in layouts])
    layouts = np.concatenate(layouts)
    colour, layout = np.zeros((n, slots), np.int64), np.zeros((n, slots, 2), np.int64)
    count, todo = np.zeros(n, np.int64), np.arange(n)
    while len(todo):
        here = count[todo] = rng.integers(low, high + 1, size=len(todo))
        layout[todo] = layouts[starts[here - low] + rng.integers(sizes[here - low])]
        colour[todo] = rng.random((len(todo), len(COLOURS))).argsort(1, kind="stable")[:, :slots]
        if twins:
            one = rng.integers(here)
            colour[todo, (one + 1 + rng.integers(here - 1)) % here] = colour[todo, one]
        p, c, real = layout[todo], colour[todo], np.arange(slots) < here[:, None]
        touching = (p[:, :, None, 0] == p[:, None, :, 0]) & (p[:, :, None, 1] == p[:, None, :, 1] + 1)
        touching &= real[:, :, None] & real[:, None]
        good = (~touching | allowed[c[:, :, None], c[:, None]]).all((1, 2))
        todo = todo[~good | (stacked & ~touching.any((1, 2)))]
    present = np.arange(slots) < count[:, None]
    shift = rng.uniform(-SHIFT, SHIFT, (n, slots)) * present
    background = rng.uniform(0.86, 0.97, (n, 1)) + rng.uniform(-0.025, 0.025, (n, 3))
    return Tables(
        colour=torch.from_numpy(colour * present),
        place=torch.from_numpy(layout[..., 0] * present),
        level=torch.from_numpy(layout[..., 1] * present),
        shift=torch.from_numpy(shift.astype(np.float32)),
        present=torch.from_numpy(present),
        gripper=torch.from_numpy(rng.integers(PLACES, size=n)),
        background=torch.from_numpy(background.astype(np.float32)),
    )


@cache
def _layouts(n: int, slots: int) -> np.ndarray:
    """(arrangement, slot, (place, level)) of every arrangement of `n` blocks; zeros in the slots beyond."""
    table = np.zeros((len(arrangements(n)), slots, 2), np.int64)
    for row, columns in zip(table, arrangements(n), strict=True):
        for block in range(n):
            row[block] = find(columns, block)
    return table


def compose_table(*columns: Any, gripper: int = 0) -> Tables:
    """One table by hand: `compose_table(["red", "blue"], [], ["green"])` is blue on red at place 1 and green at place 3.

    Raises:
        ValueError: no block, too many places or blocks, a stack that is too high, an unknown colour.
    """
    columns = [[column] if isinstance(column, str) else list(column) for column in columns]
    blocks = [(colour, p, level) for p, column in enumerate(columns) for level, colour in enumerate(column)]
    palette = list(COLOURS)
    if len(columns) > PLACES or not 1 <= len(blocks) <= MOST or any(len(column) > HIGHEST for column in columns):
        raise ValueError(f"a table has up to {PLACES} places, 1 to {MOST} blocks, {HIGHEST} a stack; got {columns}.")
    unknown = [colour for colour, _, _ in blocks if colour not in palette]
    if unknown or gripper not in range(PLACES):
        raise ValueError(f"colours are {palette}, gripper is a place from 0 to {PLACES - 1}; got {unknown}, {gripper}.")
    return Tables(
        colour=torch.tensor([[palette.index(colour) for colour, _, _ in blocks]]),
        place=torch.tensor([[p for _, p, _ in blocks]]),
        level=torch.tensor([[level for _, _, level in blocks]]),
        shift=torch.zeros(1, len(blocks)),
        present=torch.ones(1, len(blocks), dtype=torch.bool),
        gripper=torch.tensor([gripper]),
        background=torch.full((1, 3), 0.94),
    )


def find(columns: Columns, block: int) -> tuple[int, int]:
    """(place, level) of a block.

    Raises:
        ValueError: there is no such block.
    """
    for place, column in enumerate(columns):
        if block in column:
            return place, column.index(block)
    raise ValueError(f"no block {block} on the table {columns}.")
