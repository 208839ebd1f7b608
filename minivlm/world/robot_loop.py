"""The robot at work: it looks, does one thing, and looks again, because things slip.

A planner is a function of tables and goals to the text of each next action; whether the goal is reached says the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from minivlm.world.planner import FORMS, Goal, distances, goals, holds
from minivlm.world.robot import PLACES, SEEN_STACKS, Tables, draw_tables
from minivlm.world.robot_moves import Placement, fault, moves, step
from minivlm.world.robot_questions import LONGEST
from minivlm.world.robot_words import action_text, goal_text, names, parse_action

#: How often what the gripper carries slips out and falls onto the table.
SLIP = 0.3

#: Actions that are tried for one goal.
TRIES = 8


@dataclass(frozen=True)
class Jobs:
    """Tables with a goal each, and what their blocks are called. `far`: actions that the goal needs."""

    tables: Tables
    goals: tuple[Goal, ...]
    called: tuple[tuple[str, ...], ...]
    far: tuple[int, ...]

    def texts(self) -> list[str]:
        """The goals in words."""
        return [goal_text(goal, called) for goal, called in zip(self.goals, self.called, strict=True)]

    def __len__(self) -> int:
        return len(self.goals)


#: (tables as they are now, jobs, which of the jobs they are) -> what each robot should do: an action in words, or `done`.
Planner = Callable[[Tables, Jobs, Sequence[int]], Sequence[str]]


def draw_jobs(
    rng: np.random.Generator,
    n: int,
    stacks: Iterable[Any] = SEEN_STACKS,
    forms: Sequence[str] = FORMS,
    onto: Iterable[Any] | None = None,
    **tables: Any,
) -> Jobs:
    """Draw `n` jobs, those of 1, 2 and `LONGEST` actions equally often, then forms as evenly as the tables allow.

    Args:
        stacks: (upper, lower) colours that may be stacked on the tables, and in goals unless `onto` says which may there.
        forms: kinds of goals, see `planner.FORMS`.
        onto: (upper, lower) colours of which each goal has one at least.
        tables: more about the tables, see `draw_tables`.

    Raises:
        ValueError: fewer jobs than one, or unknown forms.
    """
    if n < 1 or not forms or isinstance(forms, str) or set(forms) - set(FORMS):
        raise ValueError(f"draw at least one job, of forms out of {FORMS}; got n={n}, forms={forms!r}.")
    stacks, wanted = [tuple(p) for p in stacks], None if onto is None else {tuple(p) for p in onto}
    lengths = [1 + i % LONGEST for i in range(n)]
    found: list[tuple[Tables, Goal, int]] = []
    while len(found) < n:
        drawn = draw_tables(rng, 2 * (n - len(found)), stacks=stacks, slots=PLACES, **tables)
        for i, columns in enumerate(drawn.columns()):
            if len(found) == n:
                break
            far, colours, many = lengths[len(found)], drawn.colour[i].tolist(), sum(map(len, columns))
            fitting = {
                form: [g for g in goals(many, form) if distances(many, g).get(columns) == far and
                       _allowed(g, colours, stacks, wanted)]
                for form in forms
            }  # fmt: skip
            if some := [form for form in forms if fitting[form]]:
                form = some[rng.integers(len(some))]
                found.append((drawn[i], fitting[form][rng.integers(len(fitting[form]))], far))
    tables_, chosen, far = zip(*found, strict=True)
    joined = Tables.join(tables_)
    return Jobs(joined, chosen, tuple(names(joined)), far)


def _allowed(goal: Goal, colours: Sequence[int], stacks: Sequence[Any], wanted: set | None) -> bool:
    pairs = {(colours[fact.block], colours[fact.on]) for fact in goal if fact.on is not None}
    return bool(pairs) and bool(pairs & wanted) if wanted is not None else all(pair in stacks for pair in pairs)


def work(
    jobs: Jobs, planner: Planner, rng: np.random.Generator, slip: float = SLIP, tries: int = TRIES
) -> tuple[list[bool], list[Tables]]:
    """Let a planner work at each job, one action after the other, each chosen by looking at the table as it is now.

    A job ends with `done`, or after `tries` actions. What cannot be done, or is no action, changes nothing and costs a try.
    With the probability `slip` a block falls out of the gripper, to a free place of the table, or stays where it was.

    Returns:
        whether each job's goal holds at its end, and all tables before the first round and after each.

    Raises:
        ValueError: `slip` is no probability, `tries` below 1, or a planner that does not say as much as it was asked.
    """
    if not 0 <= slip <= 1 or tries < 1:
        raise ValueError(f"slip is a probability, tries at least 1; got {slip}, {tries}.")
    tables, open_, history = jobs.tables, list(range(len(jobs))), [jobs.tables]
    # Drawn for all beforehand: so two planners have the same luck.
    luck, where = rng.random((tries, len(jobs))), rng.random((tries, len(jobs)))
    for k in range(tries):
        if not open_:
            break
        said = planner(tables[open_], jobs, open_)
        columns, going = tables.columns(), []
        for i, words in zip(open_, said, strict=True):
            if words.strip().rstrip(".") == "done":
                continue
            going.append(i)
            try:
                action = parse_action(words, jobs.called[i])
            except ValueError:
                continue
            if fault(columns[i], action):
                continue
            if luck[k, i] < slip:
                falls = [Placement(action.block, None, p) for p in range(PLACES) if not columns[i][p]]
                falls = [f for f in falls if not fault(columns[i], f)]
                if not falls:
                    continue
                action = falls[int(where[k, i] * len(falls))]
            tables = _put(tables, i, action)
        open_ = going
        history.append(tables)
    return [holds(columns, goal) for columns, goal in zip(tables.columns(), jobs.goals, strict=True)], history


def _put(tables: Tables, i: int, action: Placement) -> Tables:
    one = step(tables[[i]], [action])
    place, level, gripper = tables.place.clone(), tables.level.clone(), tables.gripper.clone()
    place[i], level[i], gripper[i] = one.place[0], one.level[0], one.gripper[0]
    return replace(tables, place=place, level=level, gripper=gripper)


def randomly(rng: np.random.Generator) -> Planner:
    """Any possible action."""

    def planner(tables: Tables, jobs: Jobs, which: Sequence[int]) -> list[str]:
        options = [moves(columns) for columns in tables.columns()]
        picked = [some[rng.integers(len(some))][0] for some in options]
        return [action_text(action, jobs.called[i]) for action, i in zip(picked, which, strict=True)]

    return planner


def blindly() -> Planner:
    """For one `work`: the goal's own words as actions, from the table upwards, over and over; no look at the table."""
    rounds = count()

    def planner(tables: Tables, jobs: Jobs, which: Sequence[int]) -> list[str]:
        now = next(rounds)
        facts = [goal[::-1][now % len(goal)] for goal in (jobs.goals[i] for i in which)]
        return [action_text(fact, jobs.called[i]) for fact, i in zip(facts, which, strict=True)]

    return planner
