"""A chain of thought: every sentence is true, the last one holds the answer, and the answer is right."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.reasoning import CHANCE, KINDS, Reasoned, Reasoning
from minivlm.world.scenes import things
from tests.world.readers import answer, heard, is_true, seen


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**20), most=st.integers(2, 5), few=st.booleans())
def test_thoughts_are_true_and_lead_to_the_answer(seed, most, few):
    pairs = [(0, 1), (0, 2), (1, 2), (1, 1)] if few else world.all_pairs()
    sizes = (0.08, 0.12) if most > 3 else None
    scenes = world.draw_scenes(world.generator("reasoning", seed), 12, (2, most), pairs, sizes=sizes)
    ask = Reasoning(world.generator("asked", seed))
    for i, these in enumerate(things(scenes)):
        for asked in ask(these, 6):
            for facts in (seen(scenes, i), heard(asked.told)):
                assert answer(asked.question, facts) == asked.answer, f"{asked} is not so in {facts}"
                *steps, last = asked.thought.removesuffix(".").split(". ")
                assert steps, f"no step before the answer: {asked}"
                assert last == f"so {asked.answer}"
                for step in steps:
                    assert is_true(step, facts), f"{step!r} is a false step of {asked}"


def test_the_reader_notices_false_steps():
    facts = heard("a small red star at the top left and a large blue ring on the right.")
    for true in (
        "the star is to the left of the ring",
        "the ring is not above the star",
        "stars: one",
        "the ring is blue",
    ):
        assert is_true(true, facts), true
    for false in (
        "the star is below the ring",
        "the red thing is not above the ring",
        "blue things: two",
        "the ring is red",
    ):
        assert not is_true(false, facts), f"the test's own reader believes {false!r}"


@pytest.fixture(scope="module")
def many() -> list[Reasoned]:
    scenes = world.draw_scenes(world.generator("reasoning"), 1500, (2, 3))
    ask = Reasoning(world.generator("asked"))
    return [asked for these in things(scenes) for asked in ask(these, 3)]


def test_every_kind_and_every_answer_comes(many):
    assert {asked.kind for asked in many} == set(KINDS) == set(CHANCE)
    for kind in KINDS:
        answers = Counter(asked.answer for asked in many if asked.kind == kind)
        wordings = 2 if kind == "property beside" else 1  # it asks for a colour or for a shape, and says so
        assert len(answers) == wordings * round(1 / CHANCE[kind]), answers


def test_a_thought_holds_more_than_the_answer(many):
    """The steps name what the question does not: the thing beside, or the numbers that are compared."""
    for asked in many:
        new = set(re.findall("[a-z]+", asked.thought)) - set(re.findall("[a-z]+", asked.question)) - {"so", "is", "a"}
        assert new - {asked.answer} or asked.kind == "count beside", asked


def test_only_known_words(many):
    known = {*world.vocabulary()}
    for asked in many[:800]:
        assert set(re.findall(r"[a-z]+", " ".join(asked[1:]))) <= known, asked


def test_same_generator_same_thoughts():
    these = things(world.draw_scenes(world.generator("again"), 1, (3, 3)))[0]
    a, b = (Reasoning(world.generator("a"))(these, 20) for _ in range(2))
    assert a == b


@pytest.mark.parametrize("kinds", [[], ["colours"], "taste"])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match="kinds is a list of some of"):
        Reasoning(world.generator("bad"), kinds)
