"""Conversations and harder texts that the language model reads: true, in their form, and about what they say they are about."""

from collections import Counter

from minivlm.world.corpus import read
from minivlm.world.corpus_chats import CROWDED, HARD
from tests.world import readers


def test_conversations_are_written_as_a_chat_writes_them():
    one_word = 0
    for text in read("corpus", 0, 0, 200, kinds=["instruct"]):
        assert text.told.startswith("user: ")
        (first, _), *later = text.turns
        assert first.endswith(" assistant:")
        assert "user:" not in first
        assert all(question.startswith("<eos>user: ") and question.endswith(" assistant:") for question, _ in later)
        assert not any(answer.endswith(".") for _, answer in text.turns), "a text puts the full stop after an answer itself"
        if "answer with one word" in first:
            one_word += 1
            assert " " not in text.turns[0][1], text.text
    assert one_word > 10


def test_hard_questions_are_of_hard_kinds_and_their_answers_follow():
    asked = Counter()
    for text in read("corpus", 0, 0, 40, kinds=["hard"]):
        facts = readers.heard(text.told)
        assert len(facts) in (2, 3)
        for question, answer in text.turns:
            assert readers.answer(question, facts) == answer, text.text
            asked[question.split()[0]] += 1
    assert sum(asked.values()) > 120, "several questions about each scene"
    assert set(HARD) == {"relation", "beside", "at", "size"}


def test_crowds_have_four_to_seven_things():
    texts = read("corpus", 0, 0, 60, kinds=["crowded"])
    many = {len(readers.heard(text.told)) for text in texts}
    assert many <= set(range(4, 8))
    assert len(many) > 2
    assert {text.kind for text in texts} <= set(CROWDED)


def test_the_box_that_is_wanted_was_told():
    for text in read("corpus", 0, 0, 60, kinds=["refer"]):
        ((question, answer),) = text.turns
        assert question.startswith("give the box of ")
        assert answer in text.told


def test_balanced_questions_are_said_plainly_and_in_conversations():
    texts = read("corpus", 0, 0, 200, kinds=["balanced"])
    spoken = [text for text in texts if text.told.startswith("user: ")]
    assert 20 < len(spoken) < 120
    assert all(question.endswith(" assistant:") for text in spoken for question, _ in text.turns)
    assert any(text.kind == "reason" for text in texts)
