"""What matters of a table for a goal, in words: a chain of thought before an action.

The words are those in which tables are told (`robot_words.tell`), but only what the goal's blocks and place have to do with.
"""

from collections.abc import Sequence

from minivlm.world.planner import Goal
from minivlm.world.robot import Columns, find
from minivlm.world.robot_moves import Placement
from minivlm.world.robot_questions import Question
from minivlm.world.robot_words import action_text, goal_text, parse_goal


def thought(columns: Columns, goal: Goal, called: Sequence[str], above: bool = True) -> str:
    """Where each of the goal's blocks stands and (`above`) what stands on it, and on what it is to stand on.

    `the red block is on the table at place 2. nothing is on the red block. the blue block is on the green block`
    """
    said: list[str] = []

    def where(block: int) -> None:
        place, level = find(columns, block)
        below = Placement(block, columns[place][level - 1]) if level else Placement(block, None, place)
        said.append(_is(below, called))

    def what_is_on(block: int) -> None:
        place, level = find(columns, block)
        upper = columns[place][level:]
        if len(upper) == 1:
            said.append(f"nothing is on {called[block]}")
        for low, up in zip(upper, upper[1:], strict=False):
            said.append(_is(Placement(up, low), called))

    if len(goal) > 1 and all(fact.on is None for fact in goal):  # all blocks on the table
        raised = [Placement(up, low) for c in columns for low, up in zip(c, c[1:], strict=False)]
        return ". ".join(_is(one, called) for one in raised) or goal_text(goal, called)
    for block, on, place in goal:
        where(block)
        if above:
            what_is_on(block)
            if on is not None:
                what_is_on(on)
            elif place is not None and not columns[place]:
                said.append(f"nothing is on the table at place {place + 1}")
            elif place is not None and block not in columns[place]:
                where(columns[place][0])
                what_is_on(columns[place][0])
    return ". ".join(dict.fromkeys(said))


def _is(placement: Placement, called: Sequence[str]) -> str:
    return action_text(placement, called).removeprefix("put ").replace(" on ", " is on ", 1)


def thoughtful(question: Question, columns: Columns, called: Sequence[str]) -> str:
    """The answer to a question, behind the thought if it is about a goal: `... . put the red block on the blue block`."""
    if question.kind not in ("next", "done", "plan"):
        return question.answer
    goal = parse_goal(question.question.removeprefix("the goal is: ").split(". ")[0], called)
    return f"{thought(columns, goal, called, above=question.kind != 'done')}. {question.answer}"
