"""Goals for the robot, and the shortest plans that reach them.

A goal is a tuple of placements that must all hold. Blocks are numbers here, so that what is found once serves all colours.
"""

from collections import deque
from collections.abc import Sequence
from functools import cache
from itertools import permutations

from minivlm.world.robot import MOST, PLACES, Columns, arrangements, find
from minivlm.world.robot_moves import Placement, move, moves

Goal = tuple[Placement, ...]

#: Kinds of goals: one block on another; a block on the table; on the table at a place; three in a tower; all on the table.
FORMS: tuple[str, ...] = ("on", "table", "place", "tower", "all")


@cache
def goals(n: int, form: str) -> tuple[Goal, ...]:
    """Every goal of a form for `n` blocks.

    Raises:
        ValueError: an unknown form, or a number of blocks that no table has.
    """
    if form not in FORMS or not 1 <= n <= MOST:
        raise ValueError(f"forms are {FORMS}, for 1 to {MOST} blocks; got {form!r} for {n}.")
    if form == "on":
        return tuple((Placement(a, b),) for a, b in permutations(range(n), 2))
    if form == "tower":
        return tuple((Placement(a, b), Placement(b, c)) for a, b, c in permutations(range(n), 3))
    if form == "place":
        return tuple((Placement(a, None, place),) for a in range(n) for place in range(PLACES))
    each = tuple(Placement(a) for a in range(n))
    return (each,) if form == "all" else tuple((one,) for one in each)


def holds(columns: Columns, goal: Goal) -> bool:
    """Whether every placement of the goal is true of the table."""
    for block, on, at in goal:
        place, level = find(columns, block)
        if on is None and (level > 0 or at not in (None, place)):
            return False
        if on is not None and (level == 0 or columns[place][level - 1] != on):
            return False
    return True


@cache
def distances(n: int, goal: Goal) -> dict[Columns, int]:
    """Actions needed from every arrangement of `n` blocks to the goal: breadth-first search from where it holds.

    The search may run backwards because every move can be undone by one move. Empty if the goal can never hold.
    """
    reached = {columns: 0 for columns in arrangements(n) if holds(columns, goal)}
    queue = deque(reached)
    while queue:
        columns = queue.popleft()
        for _, after in moves(columns):
            if after not in reached:
                reached[after] = reached[columns] + 1
                queue.append(after)
    return reached


@cache
def plan(columns: Columns, goal: Goal) -> tuple[Placement, ...]:
    """A shortest plan; no action if the goal holds.

    Of several, the one whose first action is named by the goal; else whose first action comes first in `robot_moves.moves`
    (the block furthest to the left, the table before other blocks); and so on for the second.

    Raises:
        ValueError: the goal can never hold.
    """
    far = distances(sum(map(len, columns)), goal)
    if not far:
        raise ValueError(f"no arrangement of these blocks fulfils the goal {goal}: it contradicts itself.")
    found = []
    while far[columns]:
        closer = [(action, after) for action, after in moves(columns) if far[after] < far[columns]]
        action, columns = min(closer, key=lambda pair: pair[0] not in goal)  # the first of the smallest
        found.append(action)
    return tuple(found)


def reaches(columns: Columns, goal: Goal, actions: Sequence[Placement]) -> bool:
    """Whether the simulator can carry out the actions one after the other, and the goal then holds."""
    try:
        for action in actions:
            columns = move(columns, action)
    except ValueError:
        return False
    return holds(columns, goal)
