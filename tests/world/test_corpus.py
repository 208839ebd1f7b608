"""What the language model reads: the same for the same number, true, and answerable from what is told."""

from collections import Counter

import pytest

from minivlm.world.corpus import KINDS, Reading, read, scene_questions
from minivlm.world.grammar import FRAMES
from minivlm.world.scenes import generator
from tests.world import readers


def test_the_same_name_seed_and_number_give_the_same_texts():
    texts = read("corpus", 0, 7, 40)
    assert texts == read("corpus", 0, 7, 40)
    for other in (read("corpus", 0, 8, 40), read("corpus", 1, 7, 40), read("other", 0, 7, 40)):
        assert texts != other


def test_kinds_come_as_often_as_their_share():
    assert sum(share for _, share in KINDS.values()) == pytest.approx(1)
    shares = Counter(text.kind for text in read("corpus", 0, 0, 4000))
    wanted = {kind: KINDS[kind][1] for kind in ("scene", "name", "reason", "caption", "hard")}  # others: by their questions
    wanted["reason"] += KINDS["balanced"][1] / 3  # a third of those
    for kind, share in wanted.items():
        assert shares[kind] / 4000 == pytest.approx(share, abs=0.025), kind


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_gives_as_many_texts_as_asked_for(kind):
    for n in (1, 13):
        texts = read("corpus", 0, 0, n, kinds=[kind])
        assert len(texts) == n
        assert all(text.told and all(question and answer for question, answer in text.turns) for text in texts)


def test_answers_about_scenes_follow_from_what_is_told():
    asked = Counter()
    for text in read("corpus", 0, 0, 400, kinds=["scene"]):
        frame = max((f.removesuffix("{}") for f in FRAMES if text.told.startswith(f.removesuffix("{}"))), key=len)
        facts = readers.heard(text.told.removeprefix(frame))
        for question, answer in text.turns:
            assert readers.answer(question, facts) == answer, text.text
            asked[question] += 1
    assert len(asked) > 100


def test_invented_names_follow_from_what_was_said_before():
    for text in read("corpus", 0, 0, 200, kinds=["name"]):
        sentences = [sentence.split() for sentence in text.told.strip(".").split(". ")]
        known = {(colour, shape): name for _, colour, shape, _, _, name in sentences}
        for question, name in text.turns:
            _, colour, shape, _, _ = question.split()
            by_pair = {n for pair, n in known.items() if pair == (colour, shape)}
            by_colour = {n for (c, _), n in known.items() if c == colour}
            by_shape = {n for (_, s), n in known.items() if s == shape}
            assert {name} in (by_pair, by_colour, by_shape), f"{name!r} cannot be known: {text.text}"
            known[colour, shape] = name


def test_single_questions_for_measuring():
    asked = scene_questions(generator("measure"), 50, 3)
    assert len(asked) == 50
    assert all(len(readers.heard(text.told)) == 3 and len(text.turns) == 1 for _, text in asked)


def test_a_text_is_what_is_told_and_then_the_turns():
    text = Reading("scene", "a red star.", (("what colour is the star?", "red"), ("how many things are there?", "one")))
    assert text.text == "a red star. what colour is the star? red. how many things are there? one."


@pytest.mark.parametrize(("n", "kinds"), [(0, []), (-1, []), (3, ["gossip"])])
def test_impossible_requests_say_what_there_is(n, kinds):
    with pytest.raises(ValueError, match="scene"):
        read("corpus", 0, 0, n, kinds=kinds)
