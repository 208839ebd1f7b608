"""Sentences with observations as tokens."""

import pytest
import torch

from minivlm.language.sentence import Sentence, Sentences
from minivlm.language.tokenizer import Tokenizer

TOKENIZER = Tokenizer("what is object the goal on red put a".split())
DOOR = Sentences(TOKENIZER, {"img": 3, "obj": 2, "state": 1}, context=40)
IMG, OBJ, STATE = (DOOR.place_id(kind) for kind in DOOR.tokens)
a, b, c = (torch.full((2,), float(i)) for i in range(3))


def words(text: str, after=()) -> list[int]:
    return TOKENIZER.encode(text, after=after)


def test_names_become_places():
    ids, labels, found = DOOR.encode(Sentence("what is <obj_2>? <img>what", {"<obj_2>": a, "<img>": b}, "red"))
    assert ids[:3] == [TOKENIZER.bos, *words("what is")]
    assert [i for i in ids if i in (IMG, OBJ, STATE)] == [OBJ, OBJ, IMG, IMG, IMG]
    assert [kind for kind, _ in found] == ["obj", "img"]
    assert found[0][1] is a
    assert TOKENIZER.decode([i for i in ids if i not in (IMG, OBJ)], skip_specials=True).endswith("what red.")
    learned = [i for i, label in zip(ids, labels, strict=True) if label != -100]
    assert TOKENIZER.decode(learned[:-1]).strip() == "red."
    assert learned[-1] == TOKENIZER.eos
    assert all(label in (-100, i) for i, label in zip(ids, labels, strict=True))


def test_without_observations_it_is_the_text():
    ids, labels, found = DOOR.encode(Sentence("what is the goal?", {}))
    assert ids == [TOKENIZER.bos, *words("what is the goal?")]
    assert set(labels) == {-100}
    assert found == []


def test_a_name_may_come_twice_and_in_any_order():
    _, _, found = DOOR.encode(Sentence("<obj_2>is <obj_1>is <obj_2>a", {"<obj_1>": a, "<obj_2>": b}))
    assert [value is b for _, value in found] == [True, False, True]


def test_names_that_begin_alike_are_told_apart():
    _, _, found = DOOR.encode(Sentence("<obj_11>is <obj_1>a", {"<obj_1>": a, "<obj_11>": b}))
    assert [value is b for _, value in found] == [True, False]


def test_a_batch_is_padded_and_its_observations_stand_in_line():
    rows = [
        Sentence("<state>what", {"<state>": a}, "red"),
        Sentence("<img>is <state>on the goal", {"<img>": b, "<state>": c}, "a red object"),
    ]
    ids, labels, given = DOOR.batch(rows)
    assert list(given) == ["state", "img"]
    assert torch.equal(given["state"], torch.stack([a, c]))
    assert ids.shape == labels.shape
    for row, sentence in enumerate(rows):
        alone, own, _ = DOOR.encode(sentence)
        assert ids[row, : len(alone)].tolist() == alone
        assert labels[row, : len(alone)].tolist() == own
        assert set(labels[row, len(alone) :].tolist()) <= {-100}


def test_prompts_end_where_the_answer_begins():
    rows = [Sentence("<state>what", {"<state>": a}, "red"), Sentence("what is the goal", {})]
    ids, keep, given = DOOR.prompts(rows)
    assert keep[:, -1].all()
    for row, sentence in enumerate(rows):
        alone = DOOR.encode(sentence._replace(answer=None))[0]
        assert ids[row][keep[row]].tolist() == alone
    assert torch.equal(given["state"], a[None])


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (Sentence("", {}), "a sentence has no words: ''"),
        (Sentence("<img> ", {"<img>": a}), "a sentence has no words"),
        (Sentence("what", {}, " "), "an answer is words, and not empty"),
        (Sentence("what", {}, "put <obj_1>"), "Observations are read, never written"),
        (Sentence("<audio>what", {"<audio>": a}), r"names <audio>; kinds are \['img', 'obj', 'state'\]"),
        (Sentence("<img_2>what", {}), r"names <img_2>; kinds are .*, and observations are given of \[\]"),
        (Sentence("<img>what", {"<img>": a, "<state>": a}), "has no <state>, which is given"),
        (Sentence("what " * 45, {}), "the context holds 40"),
        (Sentence("<img> " * 20 + "what", {"<img>": a}), "its observations' places among them; the context holds 40"),
    ],
)
def test_what_does_not_fit(sentence, words):
    for make in (DOOR.batch, DOOR.prompts) if not sentence.answer else (DOOR.batch,):
        with pytest.raises(ValueError, match=words):
            make([sentence])


def test_batches_that_do_not_fit():
    with pytest.raises(ValueError, match="at least one sentence"):
        DOOR.batch([])
    two = [Sentence("<img>what", {"<img>": torch.zeros(shape)}) for shape in (2, 3)]
    with pytest.raises(ValueError, match=r"observations of the kind 'img' differ: \[\(2,\), \(3,\)\]"):
        DOOR.batch(two)


@pytest.mark.parametrize(
    ("tokens", "context", "words"),
    [({"smell": 1}, 9, "no special token <smell> or <smell_1>"), ({"img": 0}, 9, "takes 0 places"), ({}, 0, "context is 0")],
)
def test_doors_that_cannot_be(tokens, context, words):
    with pytest.raises(ValueError, match=words):
        Sentences(TOKENIZER, tokens, context)
