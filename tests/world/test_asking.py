"""Scenes with one question each: as many as asked for, kinds and answers evenly, every answer true."""

from collections import Counter, defaultdict
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.asking import ask, batches, reason, shares, wanted
from minivlm.world.questions import KINDS
from minivlm.world.reasoning import KINDS as THOUGHTS
from tests.world.readers import answer, heard, seen

#: Kinds of which each answer comes equally often.
EVEN = ("colour", "shape", "size", "count", "count of", "existence", "place", "relation", "same")


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 2**20), most=st.integers(2, 3), held=st.booleans(), thoughts=st.booleans())
def test_each_scene_has_a_question_with_a_true_answer(seed, most, held, thoughts):
    pairs = world.HELD_OUT if held else world.SEEN
    scenes, asked = (reason if thoughts else ask)(world.generator("ask", seed), 66, objects=(2, most), pairs=pairs)
    assert len(scenes) == len(asked) == 66
    for i, question in enumerate(asked):
        for facts in (seen(scenes, i), heard(question.told)):
            assert answer(question.question, facts) == question.answer, f"{question} is not so in {facts}"
    there = set(zip(scenes.colour[scenes.present].tolist(), scenes.shape[scenes.present].tolist(), strict=True))
    assert there <= set(pairs)


def spread(values) -> int:
    return max(values) - min(values)


@pytest.mark.parametrize("n", [1, 50, 99 * 8])
def test_kinds_and_answers_come_evenly(n):
    _, asked = ask(world.generator("even"), n)
    kinds = Counter(question.kind for question in asked)
    assert spread([kinds[kind] for kind in KINDS]) <= 1, kinds
    if n > 100:
        for kind in EVEN:
            answers = Counter(question.answer for question in asked if question.kind == kind)
            assert spread(answers.values()) <= 1 + (kind == "same"), f"{kind}: {dict(answers)}"


def test_a_number_that_divides_is_divided_exactly():
    _, asked = ask(world.generator("exact"), 72 * len(KINDS))
    answers = defaultdict(Counter)
    for question in asked:
        answers[question.kind][question.answer] += 1
    for kind in EVEN:
        assert spread(answers[kind].values()) == 0, f"{kind}: {dict(answers[kind])}"
    assert sum(answers["at"].values()) == sum(answers["beside"].values()) == 72


def test_the_property_does_not_tell_whether_it_is_the_same():
    _, asked = ask(world.generator("same"), 120, kinds="same")
    cells = Counter((question.question.split()[-1], question.answer) for question in asked)
    assert set(cells.values()) == {20}, cells


def test_chains_of_thought_are_balanced():
    _, asked = reason(world.generator("thoughts"), 96 * len(THOUGHTS))
    for kind in THOUGHTS:
        answers = Counter(question.answer for question in asked if question.kind == kind)
        assert spread(answers.values()) == 0, f"{kind}: {dict(answers)}"


def test_the_order_says_nothing():
    """Kinds are mixed from the first to the last, as are rare answers, which are found late."""
    _, asked = ask(world.generator("order"), 99 * 8)
    places = [i for i, question in enumerate(asked) if question.answer in ("middle", "two")]
    assert abs(sum(places) / len(places) / len(asked) - 0.5) < 0.12
    assert len({question.kind for question in asked[:60]}) == len(KINDS)


def test_other_numbers_of_things_have_other_answers():
    _, asked = ask(world.generator("more"), 60, kinds=["count", "count of"], objects=(2, 3))
    assert {question.answer for question in asked if question.kind == "count"} == {"two", "three"}
    _, asked = ask(world.generator("one"), 60, kinds=["count of", "size", "place"], objects=(1, 1))
    assert {question.answer for question in asked if question.kind == "count of"} == {"zero", "one"}


def test_batches_follow_one_another():
    stream = batches(world.generator("stream"), 100, kinds=["count", "colour"])
    first, second = islice(stream, 2)
    assert len(first[0]) == len(first[1]) == len(second[0]) == len(second[1]) == 100
    assert first[1] != second[1]
    for scenes, asked in (first, second):
        for i, question in enumerate(asked):
            assert answer(question.question, seen(scenes, i)) == question.answer


def test_same_generator_same_questions():
    (a, asked), (b, again) = (ask(world.generator("again"), 30) for _ in range(2))
    assert asked == again
    assert torch.equal(a.position, b.position)
    assert ask(world.generator("other"), 30)[1] != asked


def test_shares():
    rng = world.generator("shares")
    counts = Counter(x for _ in range(300) for x in shares(rng, 4, "abc"))
    assert sum(counts.values()) == 1200
    assert spread(counts.values()) < 100, "who gets the rest is not drawn"
    assert wanted(rng, 4, {"a": [("x",), ("y",)], "b": []}) == {("a", ("x",)): 1, ("a", ("y",)): 1, ("b", ()): 2}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: ask(rng, 0), "at least one question"),
        (lambda rng: ask(rng, 3, kinds=[]), "kinds=\\[\\]"),
        (lambda rng: ask(rng, 3, kinds=["taste"]), "taste"),
        (lambda rng: reason(rng, 3, kinds=["colour"]), "colour"),
        (lambda rng: ask(rng, 3, kinds="relation", objects=(1, 1)), "Allow more objects"),
        (lambda rng: ask(rng, 3, objects=2), "a pair of whole numbers"),
        (lambda rng: ask(rng, 3, pairs=[]), "one pair"),
        (lambda rng: next(batches(rng, 0)), "batch=0"),
    ],
)
def test_impossible_requests_say_why(make, words):
    with pytest.raises(ValueError, match=words):
        make(world.generator("bad"))
