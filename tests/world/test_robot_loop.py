"""The robot at work, checked with planners whose success is known."""

import numpy as np
import pytest
import torch

from minivlm import world
from minivlm.world.planner import FORMS, distances, holds, plan
from minivlm.world.robot import HELD_OUT_STACKS, SEEN_STACKS
from minivlm.world.robot_loop import Jobs, blindly, draw_jobs, randomly, work
from minivlm.world.robot_words import action_text


def jobs(n: int = 60, **how) -> Jobs:
    return draw_jobs(world.generator("jobs"), n, **how)


def luck() -> np.random.Generator:
    return world.generator("luck")


def knowing(tables, given, which):
    """The shortest way, looked up anew each time."""
    ways = [plan(columns, given.goals[i]) for columns, i in zip(tables.columns(), which, strict=True)]
    return [action_text(way[0], given.called[i]) if way else "done." for way, i in zip(ways, which, strict=True)]


def test_jobs_are_as_far_as_they_say_and_lengths_come_equally():
    given = jobs()
    for columns, goal, far in zip(given.tables.columns(), given.goals, given.far, strict=True):
        assert distances(sum(map(len, columns)), goal)[columns] == far
    assert [given.far.count(k) for k in (1, 2, 3)] == [20, 20, 20]
    assert jobs().texts() == given.texts(), "not the same for the same name"


def test_goals_of_the_forms_and_stacks_that_were_asked_for():
    pairs = lambda given: [
        {(c[f.block], c[f.on]) for f in goal if f.on is not None}
        for c, goal in zip(given.tables.colour.tolist(), given.goals, strict=True)
    ]
    assert set.union(*pairs(jobs())) <= set(SEEN_STACKS)
    assert all(p & set(HELD_OUT_STACKS) for p in pairs(jobs(30, onto=HELD_OUT_STACKS)))
    assert all(len(goal) == 2 for goal in jobs(12, forms=["tower"]).goals)
    assert len({len(goal) for goal in jobs().goals}) > 1


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_who_knows_the_way_arrives(slip):
    given = jobs()
    ok, history = work(given, knowing, luck(), slip=slip)
    assert np.mean(ok) == 1.0 if slip == 0 else np.mean(ok) > 0.9
    ends = history[-1].columns()
    assert ok == [holds(columns, goal) for columns, goal in zip(ends, given.goals, strict=True)]
    assert len(history) <= (5 if slip == 0 else 9)
    assert torch.equal(history[0].place, given.tables.place), "the jobs' own tables are left alone"


def test_a_plan_that_is_not_made_anew_fails_when_things_slip():
    given = jobs(90)
    first = [plan(columns, goal) for columns, goal in zip(given.tables.columns(), given.goals, strict=True)]

    def carry_out():
        round_ = iter(range(99))

        def planner(tables, given, which):
            k = next(round_)
            return [action_text(first[i][k], given.called[i]) if k < len(first[i]) else "done" for i in which]

        return planner

    assert all(work(given, carry_out(), luck(), slip=0.0)[0])
    open_loop, closed = (np.mean(work(given, p, luck())[0]) for p in (carry_out(), knowing))
    assert open_loop < 0.85 < 0.95 < closed


def test_random_and_blind_reach_something():
    given = jobs(120)
    by = lambda ok: [np.mean([o for o, far in zip(ok, given.far, strict=True) if far == k]) for k in (1, 2, 3)]
    at_random, blind = (work(given, p, luck())[0] for p in (randomly(luck()), blindly()))
    assert 0.05 < np.mean(at_random) < 0.4
    assert by(blind)[0] > 0.9, "a goal that is one action away is its own plan"
    assert by(blind)[2] < 0.2


@pytest.mark.parametrize("said", ["", "fly", "put the red block on the moon", "put object 9 on the table"])
def test_what_is_no_action_changes_nothing(said):
    given = jobs(12)
    ok, history = work(given, lambda tables, jobs, which: [said] * len(which), luck())
    assert not any(ok)
    assert len(history) == 9, "it costs a try"
    assert torch.equal(history[-1].place, given.tables.place)


def test_done_ends_it():
    given = jobs(12)
    ok, history = work(given, lambda tables, jobs, which: ["done"] * len(which), luck())
    assert not any(ok)
    assert len(history) == 2


def test_what_slips_falls_onto_the_table_or_stays():
    given = jobs(60)
    _, (before, after, *_) = work(given, knowing, luck(), slip=1.0, tries=1)
    for i, (was, now) in enumerate(zip(before.columns(), after.columns(), strict=True)):
        moved = [b for b in range(int(given.tables.counts()[i])) if before.place[i, b] != after.place[i, b]]
        assert len(moved) <= 1
        if moved:
            assert (moved[0],) in now
        else:
            assert was == now


def test_two_planners_have_the_same_luck():
    given = jobs(30)
    one, two = (work(given, knowing, luck())[1][-1] for _ in range(2))
    assert torch.equal(one.place, two.place)


@pytest.mark.parametrize("how", [{"n": 0}, {"n": 3, "forms": ["throw"]}, {"n": 3, "forms": "on"}, {"n": 3, "forms": []}])
def test_jobs_that_cannot_be(how):
    with pytest.raises(ValueError, match=f"forms out of .{FORMS[0]}|forms out of"):
        draw_jobs(world.generator("x"), **how)


@pytest.mark.parametrize("how", [{"slip": 1.5}, {"slip": -1.0}, {"tries": 0}])
def test_work_that_cannot_be(how):
    with pytest.raises(ValueError, match="slip is a probability, tries at least 1"):
        work(jobs(3), knowing, luck(), **how)
    with pytest.raises(ValueError, match=r"zip\(\)|argument"):
        work(jobs(3), lambda *_: ["done"], luck())
