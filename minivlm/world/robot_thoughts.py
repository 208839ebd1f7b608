"""What a robot sees, aloud, before it answers or acts: a chain of thought.

First the stacks, place by place. Then, for a goal, what is under the goal's blocks and what is on them, in other words than
goals are told in: a language model that has read many of those would copy the goal's own sentence instead of looking.
"""

from collections.abc import Sequence

from minivlm.world.palette import COLOURS
from minivlm.world.planner import Goal
from minivlm.world.robot import Columns, Tables, find
from minivlm.world.robot_questions import Question
from minivlm.world.robot_words import names, parse_goal


def stacks(tables: Tables) -> list[str]:
    """The colours of each stack of each table, from the left, from the table upwards: `place 1: black blue. place 4: red.`"""
    words, said = list(COLOURS), []
    for colours, columns in zip(tables.colour.tolist(), tables.columns(), strict=True):
        each = [" ".join(words[colours[block]] for block in column) for column in columns]
        said.append(" ".join(f"place {place + 1}: {stack}." for place, stack in enumerate(each) if stack))
    return said


def aloud(tables: Tables, questions: Sequence[Question]) -> list[str]:
    """A question about each table: its answer, and before it the stacks and, if it is about a goal, the thought.

    Raises:
        ValueError: not one question for each table, or a table of which two blocks have the same colour.
    """
    if len(tables) != len(questions):
        raise ValueError(f"ask one question of each table; got {len(questions)} of {len(tables)} tables.")
    each = zip(stacks(tables), questions, tables.columns(), names(tables), strict=True)
    return [f"{seen} {thoughtful(question, columns, called)}" for seen, question, columns, called in each]


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
