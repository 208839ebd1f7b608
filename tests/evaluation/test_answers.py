"""Answers are written whole, in order, and counted by kind."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from minivlm.evaluation.answers import asked, by_kind, plain, respond, right, share_right, table, usual
from minivlm.language.chat import Chat
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.instructblip import InstructBLIP, InstructBLIPConfig
from minivlm.models.llava import LLaVA, LLaVAConfig
from minivlm.world.levels import Level

TOKENIZER = Tokenizer("what colour is the circle red blue green user assistant".split())
RED, BLUE = (TOKENIZER.encode(word)[0] for word in ("red", "blue"))
CHAT = Chat(TOKENIZER, image_tokens=1, context=64)
ASK = ("<image>\nwhat colour?", None)


class Row(NamedTuple):
    kind: str
    question: str
    answer: str


QUESTIONS = [
    Row("colour", "what colour is the circle?", "red"),
    Row("count", "how many?", "two"),
    Row("colour", "what colour is the star?", "blue"),
    Row("colour", "what colour is the ring?", "red"),
]


class Says(nn.Module):
    """Says `red` as often as its images' first number says, then <eos>; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.zeros(1)), []

    def generate(self, ids, pixel_values=None, keep=None, max_new_tokens=32, eos=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls.append((pixel_values, eos))
        out = torch.full((len(ids), max_new_tokens), BLUE)
        many = [int(image.flatten()[0]) for image in pixel_values] if pixel_values is not None else [1] * len(ids)
        first = (ids == CHAT.image_id).sum(1).tolist() if pixel_values is not None else [1] * len(ids)
        for row, own in enumerate(first):
            n = sum(many[:own])
            many = many[own:]
            out[row, :n] = RED
            out[row, n : n + 1] = eos
        return out


def images(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float)[:, None, None, None].expand(-1, 3, 2, 2)


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("listed", [False, True])
def test_answers_come_in_order_and_end_where_they_end(batch, listed):
    pixel_values = images(1, 3, 1, 2, 0)
    two = [("<image> and <image>", "red"), ("the circle?", None)]
    conversations = [[ASK], two, [ASK], [ASK]]
    model = Says().train()
    said = respond(model, CHAT, conversations, list(pixel_values) if listed else pixel_values, 5, batch=batch)
    assert said == ["red", "red red red red", "red red", ""]
    assert model.training, "the mode is what it was"
    assert len(model.calls) == -(-4 // batch)


def test_an_answer_without_an_end_is_cut_by_its_length_alone():
    assert respond(Says(), CHAT, [[ASK]], images(9), max_new_tokens=4) == ["red red red red"]


def test_another_end():
    model = Says()
    assert respond(model, CHAT, [[ASK]], images(2), eos=BLUE) == ["red red"]
    assert model.calls[0][1] == BLUE


def test_the_space_that_a_chat_puts_before_an_answer_is_no_part_of_it():
    ids, labels = CHAT.encode([("how many?", "3 circle")])

    class Scripted(Says):
        def generate(self, *given, **how):
            return torch.tensor([[i for i, label in zip(ids, labels, strict=True) if label != -100]])

    assert respond(Scripted(), CHAT, [[("how many?", None)]]) == ["3 circle"]


def test_without_images():
    model = Says()
    assert respond(model, CHAT, [[("what colour?", None)]] * 2) == ["red", "red"]
    assert model.calls == [(None, TOKENIZER.eos)]


def test_llava_answers_as_it_generates():
    torch.manual_seed(0)
    config = LLaVAConfig.tiny(len(TOKENIZER), CHAT.image_id, width=32)
    model = LLaVA(config)
    chat = Chat(TOKENIZER, config.image_tokens, 128)
    pixel_values = torch.rand(3, 3, 32, 32)
    conversations = [[ASK], [("<image> what colour is the red circle?", None)], [ASK]]
    said = respond(model, chat, conversations, pixel_values, 6, batch=2)
    for turns, image, text in zip(conversations, pixel_values, said, strict=True):
        ids, keep = chat.prompts([turns], 1)
        new = model.generate(ids, image[None], keep, max_new_tokens=6, eos=TOKENIZER.eos)[0].tolist()
        new = new[: new.index(TOKENIZER.eos)] if TOKENIZER.eos in new else new
        assert text == TOKENIZER.decode(new, skip_specials=True).strip()


class Listens(Says):
    """As `Says`, and remembers what it was asked of each image."""

    def generate(self, ids, pixel_values=None, keep=None, max_new_tokens=32, eos=None, **told):
        self.told = [*getattr(self, "told", []), told]
        return super().generate(ids, pixel_values, keep, max_new_tokens, eos)


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_what_is_asked_goes_with_its_image(batch):
    asked = torch.arange(8).view(4, 2)
    keep = asked != 3
    two = [("<image> and <image>", "red"), ("the circle?", None)]
    conversations = [[ASK], [("what colour?", None)], two, [ASK]]
    model = Listens()
    said = respond(model, CHAT, conversations, images(1, 3, 1, 2), 5, batch=batch, asked=asked, asked_keep=keep)
    assert said == ["red", *respond(Says(), CHAT, conversations[1:], images(3, 1, 2), 5, batch=batch)]
    whole = [told for told in model.told if told]
    assert torch.equal(torch.cat([told["asked"] for told in whole]), asked)
    assert torch.equal(torch.cat([told["asked_keep"] for told in whole]), keep)
    if batch == 1:
        assert [len(told["asked"]) if told else None for told in model.told] == [1, None, 2, 1]


def test_nothing_asked_says_nothing():
    model = Listens()
    respond(model, CHAT, [[ASK]], images(1))
    respond(model, CHAT, [[ASK]], images(1), asked=torch.ones(1, 3, dtype=torch.long))
    assert [set(told) for told in model.told] == [set(), {"asked"}]


def test_instructblip_answers_as_it_generates():
    torch.manual_seed(0)
    config = InstructBLIPConfig.tiny(len(TOKENIZER), CHAT.image_id, width=48)
    model = InstructBLIP(config).eval()
    for p in model.parameters():  # at its start it would say the same whatever it is asked
        torch.nn.init.normal_(p, std=0.2)
    chat = Chat(TOKENIZER, config.image_tokens, 128)
    pixel_values = torch.rand(4, 3, 32, 32)
    questions = ["what colour?", "what colour is the red circle?", "is the circle green?", "green?"]
    conversations = [[(f"<image> {question}", None)] for question in questions]
    asked = TOKENIZER.batch(questions, 16)
    keep = asked != TOKENIZER.pad
    said = respond(model, chat, conversations, pixel_values, 6, batch=3, asked=asked, asked_keep=keep)
    for turns, image, row, real, text in zip(conversations, pixel_values, asked, keep, said, strict=True):
        ids, kept = chat.prompts([turns], 1)
        how = dict(asked=row[None, real], max_new_tokens=6, eos=TOKENIZER.eos)
        new = model.generate(ids, image[None], kept, **how)[0].tolist()
        new = new[: new.index(TOKENIZER.eos)] if TOKENIZER.eos in new else new
        assert text == TOKENIZER.decode(new, skip_specials=True).strip()
    assert said != respond(model, chat, conversations, pixel_values, 6), "what is asked should matter"


@pytest.mark.parametrize(("name", "kind"), [("asked", torch.long), ("asked_keep", torch.bool)])
def test_a_row_for_each_image(name, kind):
    with pytest.raises(ValueError, match=f"{name} has 1 rows for 2 images; give one for each"):
        respond(Listens(), CHAT, [[ASK], [ASK]], images(1, 1), **{name: torch.ones(1, 3, dtype=kind)})


@pytest.mark.parametrize(
    ("conversations", "given", "words"),
    [
        ([], None, "give conversations to answer"),
        ([[ASK]], None, "mention 1 images .* 0 are given"),
        ([[ASK], [ASK]], images(1), "mention 2 images .* 1 are given"),
        ([[("<image> what?", "red")]], images(1), "nothing is left to answer"),
    ],
)
def test_respond_refuses(conversations, given, words):
    with pytest.raises(ValueError, match=words):
        respond(Says(), CHAT, conversations, given)


@pytest.mark.parametrize("said", ["red", " red.", "red .", "red. \n"])
def test_what_does_not_count(said):
    assert plain(said) == "red"


def test_what_counts():
    assert plain("red..") == "red."
    assert plain("Red") == "Red"
    assert plain("a red ring. it is small.") == "a red ring. it is small"


def test_by_kind():
    said = ["red.", "three", "red", " red"]
    assert right(said, QUESTIONS) == [True, False, False, True]
    assert by_kind(said, QUESTIONS) == {"colour": 2 / 3, "count": 0.0}
    assert share_right(said, QUESTIONS) == 0.5
    assert asked(QUESTIONS) == {"colour": 3, "count": 1}
    assert by_kind(said, QUESTIONS, lambda i, answer: answer == "three" and i == 1) == {"colour": 0.0, "count": 1.0}
    with pytest.raises(ValueError, match="3 answers to 4 questions"):
        by_kind(said[:3], QUESTIONS)
    with pytest.raises(ValueError, match="0 answers to 0 questions"):
        share_right([], [])


def test_the_table():
    shares = {"colour": 2 / 3, "count": 0.0}
    assert table(shares, QUESTIONS) == "kind    asked  right\ncolour      3   0.67\ncount       1   0.00"
    levels = {"colour": Level(1 / 8, 0.25, 100), "count": Level(0.5, 0.5, 100)}
    assert table(shares, QUESTIONS, levels).splitlines() == [
        "kind    asked  right  blind  chance",
        "colour      3   0.67   0.25    0.12",
        "count       1   0.00   0.50    0.50",
    ]


def test_the_usual_answer():
    known = [
        Row("colour", "what colour is the circle?", "green."),
        Row("colour", "what colour is the circle?", "green"),
        Row("colour", "what colour is the circle?", "red"),
        Row("colour", "what colour is the sky?", "blue"),
        Row("colour", "what colour is the sea?", "blue"),
        Row("colour", "what colour is the sun?", "blue"),
        Row("place", "where is she?", "left"),
        Row("place", "where is it?", "top"),
    ]
    assert usual(known, QUESTIONS) == ["green", "blue", "blue", "blue"], "same words, else the kind, else all"
    assert usual(known, [Row("place", "where is he?", "")]) == ["top"], "among equals the last in the alphabet"
    with pytest.raises(ValueError, match="questions with answers to learn from"):
        usual([], QUESTIONS)
