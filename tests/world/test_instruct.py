"""Dialogues are true of their scenes, written from the description alone, and of the kinds asked for."""

import re

import pytest

from minivlm import world
from minivlm.world.instruct import DESCRIBE, EXPLAIN, KINDS, Dialogue, Instructions
from minivlm.world.scenes import things
from tests.world.readers import answer, heard


def drawn(n: int = 300, objects: tuple[int, int] = (1, 3), **options) -> list[tuple[list, Dialogue]]:
    rng = world.generator("test instruct")
    write = Instructions(rng, **options)
    return [(these, write(these)) for these in things(world.draw_scenes(rng, n, objects))]


def test_conversations_are_right_by_an_independent_reader():
    found = [d for _, d in drawn(kinds=["conversation"]) if d.kind == "conversation"]
    assert sum(len(d.turns) for d in found) > 300
    for dialogue in found:
        for question, said in dialogue.turns:
            assert said.endswith("."), f"an answer is a sentence: {said!r}"
            assert answer(question, heard(dialogue.told)) == said[:-1], f"{dialogue.told} {question} {said}"


def test_descriptions_name_every_thing():
    for these, dialogue in drawn(kinds=["detail"]):
        ((question, said),) = dialogue.turns
        assert question in DESCRIBE
        assert said == dialogue.told, "the writer has nothing but what it was told"
        for thing in these:
            assert f"{thing.size} {thing.colour} {thing.shape}" in said


def test_reasoning_asks_for_the_way_and_ends_in_an_answer():
    found = [d for _, d in drawn(objects=(2, 3), kinds=["reasoning"]) if d.kind == "reasoning"]
    assert len(found) > 250
    for dialogue in found:
        ((question, said),) = dialogue.turns
        assert question.endswith(EXPLAIN), question
        assert re.search(r"\bso [\w ]+\.$", said), f"no conclusion: {said!r}"


def test_all_kinds_come_and_only_those_wanted():
    assert {d.kind for _, d in drawn()} == set(KINDS)
    assert {d.kind for _, d in drawn(kinds=["detail"])} == {"detail"}
    questions = [q for _, d in drawn(kinds=["conversation"], questions=["count"]) for q, _ in d.turns]
    assert set(questions) == {"how many things are there?"}


def test_no_question_comes_twice_and_turns_are_bounded():
    for _, dialogue in drawn(kinds=["conversation"], turns=6):
        asked = [question for question, _ in dialogue.turns]
        assert len(set(asked)) == len(asked) <= 6


def test_same_seed_same_dialogues():
    assert [d for _, d in drawn(40)] == [d for _, d in drawn(40)]


def test_bad_requests():
    rng = world.generator("x")
    with pytest.raises(ValueError, match="kinds is a list of some of"):
        Instructions(rng, kinds=["poem"])
    with pytest.raises(ValueError, match="kinds is a list of some of"):
        Instructions(rng, questions=["smell"])
    with pytest.raises(ValueError, match="turns=0"):
        Instructions(rng, turns=0)
    with pytest.raises(ValueError, match="without things"):
        Instructions(rng)([])


