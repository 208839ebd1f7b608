"""What of a table matters for a goal, in words: a chain of thought before an action.

It says what is under the goal's blocks and what is on them, in other words than goals and tables are told in: a language model
that has read many of those would copy the goal's own sentence instead of looking.
"""

from collections.abc import Sequence

from minivlm.world.planner import Goal
from minivlm.world.robot import Columns, find
from minivlm.world.robot_questions import Question
from minivlm.world.robot_words import parse_goal


def thought(columns: Columns, goal: Goal, called: Sequence[str], above: bool = True) -> str:
    """What is under each of the goal's blocks and (`above`) on it, up to the top of its stack; so, too, on that which it is to
    stand on.

    `under the red block is the table. on the red block is nothing. on the blue block is the green block. on the green ...`

    Args:
        columns, goal, called: as in `robot_words` and `planner`.
        above: without, only whether the goal is reached can be said.
    """
    said: list[str] = []

    def under(block: int, at: bool = False) -> None:
        place, level = find(columns, block)
        table = f"the table at place {place + 1}" if at else "the table"
        said.append(f"under {called[block]} is {called[columns[place][level - 1]] if level else table}")

    def on(block: int) -> None:
        place, level = find(columns, block)
        upper = columns[place][level:]
        for low, up in zip(upper, (*upper[1:], None), strict=True):
            said.append(f"on {called[low]} is {'nothing' if up is None else called[up]}")

    for block, target, place in goal:
        under(block, at=place is not None)
        if above:
            on(block)
            if target is not None:
                on(target)
            elif place is not None:
                bottom = columns[place][:1]
                said.append(f"at place {place + 1} is {called[bottom[0]] if bottom else 'nothing'}")
                for first in bottom:
                    on(first)
    return ". ".join(dict.fromkeys(said))


def thoughtful(question: Question, columns: Columns, called: Sequence[str]) -> str:
    """The answer to a question; if it is about a goal, behind the thought: `... . put the red block on the blue block`."""
    if question.kind not in ("next", "done", "plan"):
        return question.answer
    goal = parse_goal(question.question.removeprefix("the goal is: ").split(". ")[0], called)
    return f"{thought(columns, goal, called, above=question.kind != 'done')}. {question.answer}"
