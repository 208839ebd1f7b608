"""Conversations as tokens."""

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minivlm.language.chat import Chat
from minivlm.language.specials import SPECIALS
from minivlm.language.tokenizer import SPECIAL_IDS, Tokenizer

WORDS = "user assistant what is this a red circle blue ring which of both image".split()
TOKENIZER = Tokenizer(WORDS)
CHAT = Chat(TOKENIZER, image_tokens=3, context=400)
ROOMY = dataclasses.replace(CHAT, context=10**6)
IMAGE = TOKENIZER.encode("<image>")
QUESTION, ANSWER = "<image>\nwhat is this?", "a red circle."

said = st.lists(
    st.sampled_from(
        [*WORDS, " ", "  ", "\n", "?", ".", "7", "é", "<", "<eos>", "<pad>", "<im_start>", "user: ", "redblue"]
    ),
    max_size=8,
).map("".join)
worded = said.filter(lambda text: text.strip())
parts = st.lists(worded | st.just("<image>"), min_size=1, max_size=4)
with_images = parts.map("".join).filter(lambda text: text.replace("<image>", "").strip())


def whole(turns, chat: Chat = CHAT) -> str:
    """The conversation as one text. `<image>` stands once for an image, special tokens of strangers are there as typed."""
    text = chat.system
    for question, answer in turns:
        text += chat.user + question + chat.assistant
        text += "" if answer is None else f" {answer}<eos>"
    return text


def learned(ids, labels) -> list[list[int]]:
    """The stretches with labels."""
    found: list[list[int]] = [[]]
    for token, label in zip(ids, labels, strict=True):
        if label == -100:
            found.append([])
        else:
            assert label == token
            found[-1].append(token)
    return [part for part in found if part]


# --- one conversation


def test_a_conversation_by_hand():
    ids, labels = CHAT.encode([(QUESTION, ANSWER), ("which ring is blue?", "both.")])
    pieces = [p.strip(" ") or p for p in TOKENIZER.pieces(ids)]
    assert pieces == [
        *["<bos>", "user", ":", " ", "<image>", "<image>", "<image>", "\n", "what", "is", "this", "?"],
        *["assistant", ":", "a", "red", "circle", ".", "<eos>"],
        *["user", ":", "which", "ring", "is", "blue", "?", "assistant", ":", "both", ".", "<eos>"],
    ]
    assert len(ids) == len(labels)
    assert [TOKENIZER.decode(part) for part in learned(ids, labels)] == ["a red circle.<eos>", "both.<eos>"]


def test_a_prompt_is_the_beginning_of_what_is_learned():
    """What is written after a prompt is what training put there."""
    prompt, nothing = CHAT.encode([(QUESTION, ANSWER), ("which ring is blue?", None)])
    ids, labels = CHAT.encode([(QUESTION, ANSWER), ("which ring is blue?", "both.")])
    assert ids[: len(prompt)] == prompt
    assert labels[: len(prompt)] == nothing
    assert all(label != -100 for label in labels[len(prompt) :])


@given(st.lists(st.tuples(with_images, worded), min_size=1, max_size=3), st.booleans())
@example([("red", "blue")], False)
@example([("<image>red<image><image> blue", " a")], True)
@example([("is <image>", "<eos>")], True)
@example([("\n<image>\n a", "<pad> <im_start>"), ("a", "a")], False)
def test_labels_stand_on_answers_and_their_end_only(turns, last_is_open):
    turns = [*turns, ("what is this?", None)] if last_is_open else turns
    ids, labels = ROOMY.encode(turns)
    answers = [answer for _, answer in turns if answer is not None]
    parts = learned(ids, labels)
    assert len(parts) == len(answers)
    for part, answer in zip(parts, answers, strict=True):
        assert part[-1] == TOKENIZER.eos
        assert TOKENIZER.eos not in part[:-1]
        assert TOKENIZER.decode([CHAT.tokenizer.encode(":")[0], *part]) == f": {answer}<eos>"
    assert labels[0] == -100
    assert ids[0] == TOKENIZER.bos
    assert ids.count(TOKENIZER.bos) == 1


@given(st.lists(st.tuples(with_images, worded), min_size=1, max_size=3))
def test_it_is_the_text_and_images_stand_where_they_were_put(turns):
    ids, _ = ROOMY.encode(turns)
    images = sum(question.count("<image>") for question, _ in turns)
    assert ids.count(IMAGE[0]) == images * CHAT.image_tokens
    assert TOKENIZER.decode(ids) == "<bos>" + whole(turns).replace("<image>", "<image>" * CHAT.image_tokens)


@given(st.lists(st.tuples(with_images, worded), min_size=1, max_size=3))
@example([("what is this?", "a ring."), ("which is red", "both")])
@example([("red <image> blue <image>red", "a")])
def test_piece_by_piece_is_the_whole(turns):
    """Encoded at once, in pieces only around special tokens, the same ids come out: no word is cut in two, no space lost."""
    turns = [
        tuple(text.replace("<eos>", "").replace("<pad>", "").replace("<im_start>", "") for text in t) for t in turns
    ]
    if not all(q.replace("<image>", "").strip() and a.strip() for q, a in turns):
        return
    ids, _ = dataclasses.replace(ROOMY, image_tokens=1).encode(turns)
    assert ids == TOKENIZER.encode("<bos>" + whole(turns))


@given(st.lists(st.tuples(with_images, worded), min_size=1, max_size=3))
@example([("what is <eos> this <bos><pad>", "<eos> a <image_placeholder>")])
@example([("<image> <im_start>", "<glue><|im_end|>")])
def test_what_strangers_type_becomes_no_special_token(turns):
    ids, _ = ROOMY.encode(turns)
    allowed = {TOKENIZER.bos, TOKENIZER.eos, TOKENIZER.glue, IMAGE[0]}
    assert {i for i in ids if i < SPECIAL_IDS} <= allowed
    assert ids.count(TOKENIZER.eos) == len(turns), "an answer ends where it ends"
    assert ids.count(TOKENIZER.bos) == 1


@pytest.mark.parametrize("text", [text for text in SPECIALS if text != "<image>"][:30])
def test_special_tokens_are_spelled_out(text):
    ids, _ = CHAT.encode([(f"what is {text}?", f"this is {text}.")])
    assert TOKENIZER.decode(ids) == f"<bos>user: what is {text}? assistant: this is {text}.<eos>"
    assert [i for i in ids if i < SPECIAL_IDS and i != TOKENIZER.glue] == [TOKENIZER.bos, TOKENIZER.eos]


def test_other_templates():
    chat = dataclasses.replace(CHAT, system="this is a circle. ", user="what: ", assistant=" ring:", image="<img>")
    turns = [("<img> red <image>?", "blue"), ("which?", "both")]
    ids, labels = chat.encode(turns)
    assert ids.count(chat.image_id) == 3
    assert IMAGE[0] not in ids, "another model's token is text here"
    assert TOKENIZER.decode(ids) == "<bos>" + whole(turns, chat).replace("<img>", "<img>" * 3)
    assert TOKENIZER.decode(ids).count("this is a circle.") == 1, "the system speaks once"
    words = dataclasses.replace(chat, image_tokens=1).encode([("<img> red?", "blue"), ("which?", "both")])[0]
    assert words == TOKENIZER.encode("<bos>" + whole([("<img> red?", "blue"), ("which?", "both")], chat))
    assert len(learned(ids, labels)) == 2


# --- what it refuses


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], "needs at least one turn; got none"),
        ([("", "a")], "a question is empty: ''"),
        ([(" \n", "a")], "a question is empty"),
        ([("<image>", "a")], "a question is empty: '<image>'"),
        ([("what", "")], "an answer is words, and not empty; got ''"),
        ([("what", " ")], "an answer is words, and not empty; got ' '"),
        ([("what", "a <image>")], "got 'a <image>'. Images stand in what the user says"),
        ([("what", None), ("is", "a")], "the answer to 'what' is missing, and the conversation goes on"),
        (
            [("what is this? " * 99, "a")],
            r"has \d+ tokens, 3 for each image; the context holds 400. Shorten it: 'what is",
        ),
        ([("<image> a " * 99, "a")], "the context holds 400"),
    ],
)
def test_bad_conversations(turns, words):
    with pytest.raises(ValueError, match=words):
        CHAT.encode(turns)
    with pytest.raises(ValueError, match=words):
        CHAT.batch([[("what", "a")], turns], images=str(turns).count("<image>") - str(turns).count("'a <image>'"))


def test_the_context_is_used_to_its_end():
    ids, _ = CHAT.encode([(QUESTION, ANSWER)])
    assert dataclasses.replace(CHAT, context=len(ids)).encode([(QUESTION, ANSWER)])[0] == ids
    with pytest.raises(ValueError, match=f"has {len(ids)} tokens"):
        dataclasses.replace(CHAT, context=len(ids) - 1).encode([(QUESTION, ANSWER)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "<foo>"}, "image is '<foo>', which is no special token"),
        ({"image": "image"}, "image is 'image', which is no special token"),
        ({"image": ""}, "image is '', which is no special token"),
        ({"image": "<glue>"}, "image is '<glue>', which is no special token"),
        ({"system": "this is <image>. "}, "stands in system, user or assistant"),
        ({"user": "user: <image>\n"}, "stands in system, user or assistant"),
        ({"image_tokens": -1}, "image_tokens is -1 and context 400; they must be at least 0"),
        ({"context": 0}, "image_tokens is 3 and context 0"),
    ],
)
def test_bad_templates(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CHAT, **changes)


# --- batches


CONVERSATIONS = [
    [(QUESTION, ANSWER), ("which ring is blue?", "both.")],
    [("what is this?", "a ring.")],
    [("<image> <image> which is red?", "both.")],
]


def test_a_batch_is_padded_on_the_right():
    ids, labels = CHAT.batch(CONVERSATIONS, images=3)
    assert ids.shape == labels.shape
    for row, marks, turns in zip(ids.tolist(), labels.tolist(), CONVERSATIONS, strict=True):
        alone, alone_labels = CHAT.encode(turns)
        n = len(alone)
        assert row == alone + [TOKENIZER.pad] * (len(row) - n)
        assert marks == alone_labels + [-100] * (len(row) - n)


def test_prompts_are_padded_on_the_left():
    asked = [[*turns[:-1], (turns[-1][0], None)] for turns in CONVERSATIONS]
    ids, keep = CHAT.prompts(asked, images=3)
    assert ids.shape == keep.shape
    for row, mask, turns in zip(ids.tolist(), keep.tolist(), asked, strict=True):
        alone, _ = CHAT.encode(turns)
        n = len(row) - len(alone)
        assert row == [TOKENIZER.pad] * n + alone
        assert mask == [False] * n + [True] * len(alone)
    with pytest.raises(ValueError, match=r"nothing is left to answer in \('what is this\?', 'a ring.'\)"):
        CHAT.prompts([asked[0], CONVERSATIONS[1]], images=1)


@pytest.mark.parametrize("images", [0, 2, 4])
def test_images_and_their_places_must_match(images):
    for door in (CHAT.batch, CHAT.prompts):
        with pytest.raises(ValueError, match=rf"mention 3 images \('<image>'\), and {images} are given; write"):
            door(CONVERSATIONS, images=images)
    with pytest.raises(ValueError, match="at least one conversation; got none"):
        CHAT.batch([], images=0)


# --- the tokenizer's share: to go on from ids


@given(st.lists(st.sampled_from(["red", " red", " ", "\n", "?", " a", "7", "é", " blue ", "Xy"])), st.data())
def test_going_on_from_ids(pieces, data):
    """Cut anywhere between two tokens' texts, the pieces make a text; cut between words, the same ids as well."""
    text = "".join(pieces)
    at = data.draw(st.integers(0, len(text)))
    ids = TOKENIZER.encode(text[:at], after=[])
    ids += TOKENIZER.encode(text[at:], after=ids)
    assert TOKENIZER.decode(ids) == text
    at_word = len("".join(pieces[: len(pieces) // 2]))
    clean = at_word == len(text) or not (text[at_word].isalpha() and text[:at_word][-1:].isalpha())
    if clean and not (text[:at_word].endswith(" ") and text[at_word:][:1].isalpha()):
        ids = TOKENIZER.encode(text[:at_word])
        ids += TOKENIZER.encode(text[at_word:], after=ids)
        assert ids == TOKENIZER.encode(text)


@pytest.mark.parametrize(
    ("before", "text", "pieces"),
    [
        ([], "red", ["red"]),
        (["<bos>"], "red", ["red"]),
        (["<image>"], "red", ["red"]),
        (["\n"], "red", ["red"]),
        (["blue"], "red", ["<glue>", "red"]),
        (["blue"], " red", ["red"]),
        (["?"], " red", ["red"]),
        (["<bos>"], " red", [" ", "<glue>", "red"]),
        (["blue"], "", []),
    ],
)
def test_what_a_piece_becomes_depends_on_what_is_before(before, text, pieces):
    after = [i for piece in before for i in TOKENIZER.encode(piece)] if before else []
    ids = TOKENIZER.encode(text, after=after)
    assert [p.strip(" ") or p for p in TOKENIZER.pieces(ids)] == pieces
    assert TOKENIZER.decode([*after, *ids]) == "".join(before) + text


def test_after_is_not_changed():
    after = TOKENIZER.encode("blue")
    TOKENIZER.encode(" red", after=after)
    assert after == TOKENIZER.encode("blue")
