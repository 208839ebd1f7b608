"""Questions about robot tables: what to do for a goal, whether it is reached, what can be done, what stands where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minivlm.world.palette import COLOURS
from minivlm.world.planner import FORMS, Goal, distances, goals, holds, plan, reaches
from minivlm.world.questions import Question
from minivlm.world.robot import PLACES, SEEN_STACKS, Columns, Tables
from minivlm.world.robot_moves import Placement, fault, move
from minivlm.world.robot_words import (
    action_text,
    goal_text,
    names,
    parse_action,
    parse_goal,
    parse_plan,
    plan_text,
    tell,
)

#: The whole plan; its next action ("done" where there is nothing to do); whether the goal is reached (failure detection);
#: whether an action is possible (affordance); what is under a block; what is on top at a place.
KINDS: tuple[str, ...] = ("plan", "next", "done", "possible", "under", "top")

#: Actions of the longest plan that is asked for.
LONGEST = 3

#: Actions that can be said: a block onto another, onto the table, onto the table at a place.
_ACTIONS = len(COLOURS) * (len(COLOURS) - 1 + 1 + PLACES)

#: Kind -> how often a uniform guess among all answers to a question is right (blocks called by colour).
CHANCE: dict[str, float] = {
    "plan": 1 / sum(_ACTIONS**length for length in range(1, LONGEST + 1)),
    "next": 1 / (_ACTIONS + 1),
    "done": 1 / 2,
    "possible": 1 / 2,
    "under": 1 / len(COLOURS),  # seven other blocks, or the table
    "top": 1 / (len(COLOURS) + 1),
}

_GOAL = "the goal is: {}. "


class RobotQuestions:
    """Draws questions: `RobotQuestions(rng)(tables)` gives one a table, of a random kind that the table allows.

    Plans are of 1 to `LONGEST` actions, each length equally often ("next": none as well). Yes and no are equally likely
    for every wording; where the goal is not reached, 1 to `LONGEST` actions are missing, each number equally often. The
    table, or nothing, is the answer as often as any one block.

    Args:
        rng: where the choices come from.
        kinds: which kinds to ask, equally often where the tables allow.
        stacks: (upper, lower) colours of every block on a block in goals, plans and questions. Draw the tables with the same.
        numbered: call blocks by number; needed where colours repeat.
        forms: which goals to set, see `planner.FORMS`.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        kinds: Sequence[str] = KINDS,
        stacks: Iterable[Any] = SEEN_STACKS,
        numbered: bool = False,
        forms: Sequence[str] = FORMS,
    ) -> None:
        for word, given, known in (("kinds", kinds, KINDS), ("forms", forms, FORMS)):
            if isinstance(given, str) or not given or set(given) - set(known):
                raise ValueError(f"{word} are one or more of {known}; got {given!r}.")
        self.rng, self.kinds, self.numbered, self.forms = rng, list(kinds), numbered, list(forms)
        self.stacks = {tuple(pair) for pair in stacks}

    def __call__(self, tables: Tables) -> list[Question]:
        """One question a table.

        Raises:
            ValueError: a table about which none of the kinds can be asked; two blocks of one colour, not `numbered`.
        """
        asked = self._ask(tables)
        if None in asked:
            told = tell(tables[asked.index(None)], self.numbered)[0]
            raise ValueError(
                f"none of {self.kinds} can be asked about the table {told!r}: draw tables with stacked=True,"
                " allow more kinds, forms or stacks, or leave such tables out with sift."
            )
        return [question for question in asked if question]

    def sift(self, tables: Tables) -> tuple[Tables, list[Question]]:
        """The tables about which something can be asked, and a question for each (for narrow kinds, forms or stacks)."""
        asked = self._ask(tables)
        return tables[[i for i, question in enumerate(asked) if question]], [question for question in asked if question]

    def _ask(self, tables: Tables) -> list[Question | None]:
        told, called = tell(tables, self.numbered), names(tables, self.numbered)
        asked: list[Question | None] = []
        for words, *facts in zip(told, tables.columns(), tables.colour.tolist(), called, strict=True):
            found = ((kind, getattr(self, f"_{kind}")(*facts)) for kind in self._shuffled(self.kinds))
            asked.append(next((Question(kind, words, *said) for kind, said in found if said), None))
        return asked

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[self.rng.integers(len(options))]

    def _shuffled(self, options: Sequence[Any]) -> list[Any]:
        return [options[i] for i in self.rng.permutation(len(options))]

    def _allowed(self, placements: Iterable[Placement], colours: list[int]) -> bool:
        return all(p.on is None or (colours[p.block], colours[p.on]) in self.stacks for p in placements)

    def _goals(self, columns: Columns, colours: list[int], form: str) -> list[tuple[Goal, int]]:
        """Goals of a form with the length of their plans, where goal and plan have allowed stacks only."""
        n = sum(map(len, columns))
        found = [(goal, distances(n, goal).get(columns, LONGEST + 1)) for goal in goals(n, form)]
        return [
            (goal, far)
            for goal, far in found
            if far <= LONGEST and self._allowed((*goal, *plan(columns, goal)), colours)
        ]

    def _far_goal(self, columns: Columns, colours: list[int], lengths: Sequence[int]) -> Goal | None:
        """A goal for which the length of the plan is drawn first, then its form."""
        options = {form: self._goals(columns, colours, form) for form in self.forms}
        for length in self._shuffled(lengths):
            for form in self._shuffled(self.forms):
                fitting = [goal for goal, far in options[form] if far == length]
                if fitting:
                    return self._pick(fitting)
        return None

    def _plan(self, columns, colours, called) -> tuple[str, str] | None:
        goal = self._far_goal(columns, colours, range(1, LONGEST + 1))
        if goal is None:
            return None
        return _GOAL.format(goal_text(goal, called)) + "what is the plan?", plan_text(plan(columns, goal), called)

    def _next(self, columns, colours, called) -> tuple[str, str] | None:
        goal = self._far_goal(columns, colours, range(LONGEST + 1))
        if goal is None:
            return None
        actions = plan(columns, goal)
        answer = action_text(actions[0], called) if actions else "done"
        return _GOAL.format(goal_text(goal, called)) + "what is the next action?", answer

    def _done(self, columns, colours, called) -> tuple[str, str] | None:
        for form in self._shuffled(self.forms):
            options = self._goals(columns, colours, form)
            yes = [goal for goal, far in options if far == 0]
            no = [[goal for goal, far in options if far == length] for length in range(1, LONGEST + 1)]
            no = [part for part in no if part]
            if yes and no:  # else the wording would give the answer away
                answer = self._pick(["yes", "no"])
                goal = self._pick(yes if answer == "yes" else self._pick(no))
                return _GOAL.format(goal_text(goal, called)) + "is the goal reached?", answer
        return None

    def _possible(self, columns, colours, called) -> tuple[str, str] | None:
        n = sum(map(len, columns))
        onto = [Placement(a, b) for a in range(n) for b in range(n) if a != b]
        onto = [p for p in onto if self._allowed([p], colours) and not holds(columns, (p,))]
        free = {column[-1] for column in columns if column}
        wordings = [
            [(f"can {called[block]} be moved now?", block in free) for block in range(n)],
            [(f"can {called[p.block]} be put on {called[p.on]} now?", not fault(columns, p)) for p in onto],
        ]
        for options in self._shuffled(wordings):
            answers = {truth: [question for question, it in options if it == truth] for truth in (True, False)}
            if answers[True] and answers[False]:
                truth = bool(self.rng.integers(2))
                return self._pick(answers[truth]), "yes" if truth else "no"
        return None

    def _under(self, columns, colours, called) -> tuple[str, str] | None:
        lowest = [(column[0], "the table") for column in columns if column]
        raised = [(up, called[low]) for column in columns for low, up in zip(column, column[1:], strict=False)]
        if not raised:
            return None
        block, answer = self._pick(lowest if self._rarely(len(COLOURS), len(called)) else raised)
        return f"what is under {called[block]}?", answer

    def _top(self, columns, colours, called) -> tuple[str, str] | None:
        empty = [place for place, column in enumerate(columns) if not column]
        full = [place for place, column in enumerate(columns) if column]
        if not empty:
            return None
        place = self._pick(empty if self._rarely(len(COLOURS) + 1, len(called) + 1) else full)
        return f"what is on top at place {place + 1}?", called[columns[place][-1]] if columns[place] else "nothing"

    def _rarely(self, coloured: int, numbered: int) -> bool:
        """True as often as one answer of as many as there are."""
        return bool(self.rng.integers(numbered if self.numbered else coloured) == 0)


def correct(table: Tables, question: Question, said: str) -> bool:
    """Whether an answer about one table is right. A plan is run in the simulator: any that reaches the goal in as few
    actions is right. So is any next action after which fewer are needed.

    Raises:
        ValueError: a batch of other than one table.
    """
    if len(table) != 1:
        raise ValueError(f"correct looks at one table at a time; got {len(table)}.")
    if said.strip() == question.answer:
        return True
    if question.kind not in ("plan", "next") or question.answer == "done":
        return False
    called = names(table, numbered=question.told.startswith("object "))[0]
    (columns,) = table.columns()
    goal = parse_goal(question.question.removeprefix(_GOAL.split("{")[0]).split(". ")[0], called)
    best = len(plan(columns, goal))
    try:
        actions = parse_plan(said, called) if question.kind == "plan" else (parse_action(said, called),)
    except ValueError:
        return False
    if question.kind == "plan":
        return len(actions) == best and reaches(columns, goal, actions)
    after = [move(columns, action) for action in actions if not fault(columns, action)]
    return bool(after) and len(plan(after[0], goal)) < best
