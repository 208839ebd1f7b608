"""Every answer follows from the scene's numbers, and from its description: read by a reader that shares no code with them."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.questions import CHANCE, KINDS, WORDS, Question, Questions, example
from minivlm.world.scenes import things
from tests.world.readers import NAME, PLACES, SIDE, answer, beside, heard, meant, seen


def check(scenes: world.Scenes, i: int, asked: Question) -> None:
    """The answer follows from the tensors of scene `i`, and from what is told."""
    facts, words = seen(scenes, i), heard(asked.told)
    assert answer(asked.question, facts) == asked.answer, f"{asked} is not so in {facts}"
    assert answer(asked.question, words) == asked.answer, f"{asked}: told otherwise"
    for field in ("size", "colour", "shape", "place"):
        assert sorted(f[field] for f in facts) == sorted(f[field] for f in words), (
            f"told of another scene: {asked.told}"
        )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**20), most=st.integers(1, 5), few=st.booleans())
def test_every_answer_is_true_and_told(seed, most, few):
    pairs = [(0, 1), (0, 2), (1, 2), (1, 1)] if few else world.all_pairs()  # few pairs: many things alike
    sizes = (0.08, 0.12) if most > 3 else None
    scenes = world.draw_scenes(world.generator("questions", seed), 12, (1, most), pairs, sizes=sizes)
    ask = Questions(world.generator("asked", seed), pairs=pairs)
    for i, these in enumerate(things(scenes)):
        for asked in ask(these, 12):
            check(scenes, i, asked)


@pytest.fixture(scope="module")
def many() -> list[Question]:
    scenes = world.draw_scenes(world.generator("questions"), 2000, (1, 3))
    ask = Questions(world.generator("asked"))
    return [asked for these in things(scenes) for asked in ask(these, 4)]


def test_every_kind_comes(many):
    kinds = Counter(asked.kind for asked in many)
    assert set(kinds) == set(KINDS) == set(CHANCE)
    assert min(kinds.values()) > 100, kinds


def test_no_question_is_about_what_is_hard_to_see():
    """Whoever is asked where something is sees it clearly within its place; what is compared is clearly apart."""
    scenes = world.draw_scenes(world.generator("hard"), 1500, (1, 3))
    ask, checked = Questions(world.generator("asked"), kinds=("place", "at", "relation", "beside")), Counter()
    for i, these in enumerate(things(scenes)):
        for kind, _, question, said in ask(these, 2):
            facts = seen(scenes, i)
            if kind in ("place", "at"):
                fact = next(f for f in facts if f["place"] in (said, question[:-1].split(" the ")[-1]))
                gap = min(abs(fact[axis] - edge) for axis in "xy" for edge in (0.42, 0.58))
                if len(facts) == 1:
                    assert gap >= 0.03, f"{question} {fact} lies on a border"
            elif kind == "relation":
                name, side, other = re.fullmatch(rf"is {NAME} {SIDE} {NAME}\?", question).groups()
                one, two = facts[meant(name, facts)], facts[meant(other, facts)]
                axis = "x" if "left" in side or "right" in side else "y"
                assert abs(one[axis] - two[axis]) >= 0.06, f"{question} is too close to call: {one} {two}"
            checked[kind] += 1
    assert min(checked.values()) > 100, checked


def test_the_reader_notices_lies():
    facts = heard("a small red star at the top left and a large blue ring on the right.")
    assert answer("where is the star?", facts) == "top left"
    assert answer("is the star above the ring?", facts) == "yes"
    assert answer("is the ring to the left of the red thing?", facts) == "no"
    assert answer("what is to the right of the star?", facts) == "a blue ring"
    assert answer("are the star and the ring the same size?", facts) == "no"
    assert not beside(facts[1], "above", facts[0])
    for wrong in ("where is the moon?", "what is below the blue thing?", "is the star red?"):
        with pytest.raises(AssertionError):
            answer(wrong, facts)
    with pytest.raises(AssertionError, match="more than the reader understands"):
        heard("a small red star at the top left and a hat.")


def test_no_is_a_near_miss(many):
    """What is not there shares a word with something that is."""
    for asked in many:
        if asked.kind == "existence" and asked.answer == "no":
            there = {word for fact in heard(asked.told) for word in (fact["colour"], fact["shape"])}
            assert there & set(asked.question[:-1].split()), asked


def test_answers_are_those_that_chance_counts(many):
    answers = {kind: {asked.answer for asked in many if asked.kind == kind} for kind in KINDS}
    for kind, found in answers.items():
        assert len(found) == round(1 / CHANCE[kind]), f"{kind} has the answers {sorted(found)}"
    assert answers["place"] == {place for row in PLACES for place in row}


def test_nothing_held_out_is_asked_for(many):
    held = {world.pair_name(*pair) for pair in world.HELD_OUT}
    for asked in many:
        assert not any(name in f"{asked.question} {asked.answer}" for name in held), asked


def test_only_known_words(many):
    known = {*world.vocabulary()}
    assert {*WORDS} <= known
    for asked in many[:1000]:
        assert set(re.findall(r"[a-z]+", " ".join(asked[1:]))) <= known, asked


def test_same_generator_same_questions():
    these = things(world.draw_scenes(world.generator("again"), 1, (3, 3)))[0]
    a, b = (Questions(world.generator("a"))(these, 20) for _ in range(2))
    assert a == b


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_example(kind):
    assert re.fullmatch(r"[a-z ]+\? [a-z ]+", example(kind))


@pytest.mark.parametrize("kinds", [[], ["colours"], "taste"])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match="kinds is a list of some of"):
        Questions(world.generator("bad"), kinds)
