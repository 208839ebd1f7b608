"""Robot tables, actions, plans and goals in words, and back.

Blocks are called by colour ("the red block"); where two have the same colour, by number ("object 2"), which only an
entity token ties to what is seen: "object 2 is <obj_2>." (PaLM-E, section 4).
"""

import re
from collections.abc import Sequence

from minivlm.world.grammar import article
from minivlm.world.palette import COLOURS
from minivlm.world.planner import Goal
from minivlm.world.robot import PLACES, Tables
from minivlm.world.robot_moves import Placement

#: Words of these texts and of the questions that are no colours.
WORDS: tuple[str, ...] = tuple(
    "the a an block blocks object is are on table at place put all and what under top nothing can be moved now"
    " goal reached plan next action done yes no".split()
)

_ALL = "all blocks are on the table"
_NUMBER = re.compile(r"(?:^|(?<=\. ))\d+\. ")  # "place 4. 2. put": the 4 is no number of a step


def names(tables: Tables, numbered: bool = False) -> list[tuple[str, ...]]:
    """What each block of each table is called: by colour, or (`numbered`) by number, from 1.

    Raises:
        ValueError: by colour, where two blocks have the same.
    """
    words, found = list(COLOURS), []
    for colours, n in zip(tables.colour.tolist(), tables.counts().tolist(), strict=True):
        if numbered:
            found.append(tuple(f"object {i + 1}" for i in range(n)))
        elif len(set(colours[:n])) < n:
            repeated = [words[c] for c in colours[:n]]
            raise ValueError(f"colours must differ to name blocks by them; got {repeated}. Use numbered=True.")
        else:
            found.append(tuple(f"the {words[c]} block" for c in colours[:n]))
    return found


def introduce(tables: Tables, slot: str = "<obj_{}>") -> list[str]:
    """`object 1 is <obj_1>. object 2 is <obj_2>.`: where each block's own vectors are to stand in the text."""
    return [" ".join(f"object {i + 1} is {slot.format(i + 1)}." for i in range(n)) for n in tables.counts().tolist()]


def tell(tables: Tables, numbered: bool = False) -> list[str]:
    """Each table in words, place by place from the left and from the table upwards."""
    words, told = list(COLOURS), []
    for i, (columns, called) in enumerate(zip(tables.columns(), names(tables, numbered), strict=True)):
        sentences = []
        for place, column in enumerate(columns):
            for level, block in enumerate(column):
                kind = f"{article(words[tables.colour[i, block]])} block " if numbered else ""
                where = Placement(block, column[level - 1]) if level else Placement(block, None, place)
                sentences.append(f"{called[block]} is {kind}{_on(where, called)}.")
        told.append(" ".join(sentences))
    return told


def _on(placement: Placement, called: Sequence[str]) -> str:
    if placement.on is not None:
        return f"on {called[placement.on]}"
    return "on the table" if placement.place is None else f"on the table at place {placement.place + 1}"


def _parse(text: str, pattern: str, called: Sequence[str], example: str) -> Placement:
    """Read a placement from `pattern`, in which BLOCK and WHERE stand for themselves."""
    one = "|".join(called)
    pattern = pattern.replace("BLOCK", f"(?P<block>{one})")
    pattern = pattern.replace("WHERE", rf"on (?:(?P<on>{one})|the table(?: at place (?P<place>\d+))?)")
    found = re.fullmatch(pattern, text.strip())
    if not found or (found["place"] and not 1 <= int(found["place"]) <= PLACES):
        raise ValueError(f"got {text!r}; expected {example!r} with blocks {list(called)}, places 1 to {PLACES}.")
    block, on, place = found["block"], found["on"], found["place"]
    return Placement(called.index(block), called.index(on) if on else None, int(place) - 1 if place else None)


def action_text(action: Placement, called: Sequence[str]) -> str:
    """`put the red block on the blue block`, `put object 2 on the table at place 3`. `called` are the blocks' names."""
    return f"put {called[action.block]} {_on(action, called)}"


def parse_action(text: str, called: Sequence[str]) -> Placement:
    """The action that a text says.

    Raises:
        ValueError: no action, or about blocks or places that are not there.
    """
    return _parse(text, r"put BLOCK WHERE\.?", called, f"put {called[0]} on the table at place 2")


def plan_text(actions: Sequence[Placement], called: Sequence[str]) -> str:
    """`1. put the red block on the table. 2. put the blue block on the red block`."""
    return ". ".join(f"{i + 1}. {action_text(action, called)}" for i, action in enumerate(actions))


def parse_plan(text: str, called: Sequence[str]) -> tuple[Placement, ...]:
    """The actions of a plan.

    Raises:
        ValueError: not numbered from 1 upwards, or an action that is none.
    """
    numbers = [int(number.strip(" .")) for number in _NUMBER.findall(text)]
    before, *parts = _NUMBER.split(text)
    if not parts or before.strip() or numbers != list(range(1, len(parts) + 1)):
        raise ValueError(f"a plan is numbered, '1. put ... 2. put ...'; got {text!r}.")
    return tuple(parse_action(part, called) for part in parts)


def goal_text(goal: Goal, called: Sequence[str]) -> str:
    """`the red block is on the blue block and the blue block is on the table`; `all blocks are on the table`."""
    if len(called) > 1 and set(goal) == {Placement(i) for i in range(len(called))}:
        return _ALL
    return " and ".join(f"{called[fact.block]} is {_on(fact, called)}" for fact in goal)


def parse_goal(text: str, called: Sequence[str]) -> Goal:
    """The goal that a text says.

    Raises:
        ValueError: no goal, or about blocks or places that are not there.
    """
    if text.strip() == _ALL:
        return tuple(Placement(i) for i in range(len(called)))
    example = f"{called[0]} is on the table"
    return tuple(_parse(part, "BLOCK is WHERE", called, example) for part in text.split(" and "))
