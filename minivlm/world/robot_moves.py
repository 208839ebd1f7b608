"""An exact simulator of the robot: it takes a block that nothing stands on and puts it on another block or on the table.

What the robot does and what it is meant to reach are both *placements*: a block and what it stands on.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from minivlm.world.palette import COLOURS
from minivlm.world.robot import HIGHEST, PLACES, Columns, Tables, find


class Placement(NamedTuple):
    """Block `block` stands on block `on`, or, where that is None, on the table (at `place`, if it is not None).

    As an action: put it there. An action without a place takes the free place furthest to the left.
    """

    block: int
    on: int | None = None
    place: int | None = None


def fault(columns: Columns, action: Placement, names: Sequence[str] = ()) -> str:
    """Why the action is impossible now, in words; an empty text if it is possible."""
    name = lambda block: names[block] if names else f"block {block}"
    block, on, at = action
    blocks = {b for column in columns for b in column}
    if block not in blocks or not (on is None or on in blocks):
        return f"no such block in {action}: the table has {sorted(blocks)}"
    (place, level), tops = find(columns, block), {column[-1] for column in columns if column}
    if block not in tops:
        return f"{name(block)} cannot be moved: {name(columns[place][level + 1])} stands on it; move that first"
    if on is not None:
        if at is not None:
            return f"{action} has both a block and a place to put {name(block)} on: give one of the two"
        if on == block:
            return f"{name(block)} cannot be put on itself"
        if level and columns[place][level - 1] == on:
            return f"{name(block)} is on {name(on)} already"
        if on not in tops:
            return f"{name(on)} is not free: something stands on it; move that first"
        if len(columns[find(columns, on)[0]]) >= HIGHEST:
            return f"the stack under {name(block)} would be higher than {HIGHEST} blocks; choose a lower one"
    elif at is None:
        if level == 0:
            return f"{name(block)} is on the table already"
        if all(columns):
            return f"no place on the table is free for {name(block)}"
    elif at not in range(PLACES):
        return f"the table has places 1 to {PLACES}; got place {at + 1}"
    elif columns[at]:
        return f"place {at + 1} is not free: {name(columns[at][0])} stands there"
    return ""


def move(columns: Columns, action: Placement, names: Sequence[str] = ()) -> Columns:
    """The stacks after an action. `names` are what errors call the blocks.

    Raises:
        ValueError: the action is impossible; says why.
    """
    reason = fault(columns, action, names)
    if reason:
        raise ValueError(f"impossible action: {reason}.")
    if action.on is not None:
        target = find(columns, action.on)[0]
    else:
        target = columns.index(()) if action.place is None else action.place
    rest = [tuple(b for b in column if b != action.block) for column in columns]
    rest[target] += (action.block,)
    return tuple(rest)


@cache
def moves(columns: Columns) -> tuple[tuple[Placement, Columns], ...]:
    """Every possible action with what it leads to, ordered: the block furthest to the left first; for each, the table
    before places from the left before other blocks from the left.
    """
    tops = [column[-1] for column in columns if column]
    where = [(None, None), *((None, place) for place in range(PLACES)), *((block, None) for block in tops)]
    actions = [Placement(block, *spot) for block in tops for spot in where]
    return tuple((action, move(columns, action)) for action in actions if not fault(columns, action))


def step(tables: Tables, actions: Sequence[Placement]) -> Tables:
    """Carry out one action on each table: the block keeps its shift, the gripper ends above it.

    Raises:
        ValueError: not one action a table, or an impossible one; says which and why.
    """
    if len(actions) != len(tables):
        raise ValueError(f"step needs one action a table; got {len(actions)} actions for {len(tables)} tables.")
    place, level, gripper = tables.place.clone(), tables.level.clone(), tables.gripper.clone()
    for i, (columns, action) in enumerate(zip(tables.columns(), actions, strict=True)):
        names = [f"{list(COLOURS)[c]} block {b}" for b, c in enumerate(tables.colour[i].tolist())]
        after = move(columns, action, names)
        place[i, action.block], level[i, action.block] = find(after, action.block)
        gripper[i] = place[i, action.block]
    return replace(tables, place=place, level=level, gripper=gripper)
