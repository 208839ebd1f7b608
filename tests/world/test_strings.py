"""What a card says can be read from its pixels, and questions about it have the right answers."""

import re
from collections import Counter

import pytest
import torch

from minivlm.world import COLOURS, generator
from minivlm.world.font import ASPECT, CHARACTERS, LETTERS
from minivlm.world.glyphs import Glyphs, draw_glyphs, text_glyphs
from minivlm.world.paper import BRIGHTNESS, CONTRAST
from minivlm.world.strings import (
    ALPHABET,
    CHANCE,
    WORDS,
    StringQuestions,
    Strings,
    card_names,
    draw_strings,
    render,
    spelled,
)


def read_card(image: torch.Tensor, background: torch.Tensor, x: float, y: float, height: float) -> str:
    """Read the pixels of one card, each sign by the template that fits best.

    Knows where the text begins and how high it is; not what it says, its colours, or how long it is: the card ends a
    quarter of the height after its text.
    """
    row = (image[:, int(y + height / 2)] - background[:, None]).abs().amax(0) > 1e-3
    end = next((i for i in range(int(x), image.shape[2]) if not row[i]), image.shape[2])
    length = round(((end - x) / height - 0.25) / ASPECT)
    text = ""
    for number in range(length):
        start = x + number * height * ASPECT
        left, top = int(start), int(y)
        seen = image[:, top : int(y + height), left : int(start + height * ASPECT)]
        signs = [text_glyphs(c, start - left, y - top, height, (1, 1, 1), i) for i, c in enumerate(ALPHABET)]
        ink = draw_glyphs(torch.zeros(len(signs), 3, *seen.shape[1:]), Glyphs.join(signs))[:, 0].flatten(1)
        ink = ink - ink.mean(1, keepdim=True)  # what paper and ink are, is not known: correlation
        seen = (seen - seen.mean((1, 2), keepdim=True)).flatten(1)
        text += ALPHABET[int(((ink @ seen.T).norm(dim=1) / ink.norm(dim=1)).argmax())]
    return text


@pytest.mark.parametrize(
    ("height", "width", "size", "grid"),
    [(32, 32, (8, 14), (1, 1)), (32, 256, (8, 20), (1, 3)), (256, 32, (8, 12), (3, 1)), (120, 200, (9, 40), (2, 2))],
)
def test_cards_say_what_they_should(height, width, size, grid):
    """The pixels are read back by template matching; where the text ends, the card ends."""
    strings = draw_strings(generator("read"), 12, height, width, size=size, grid=grid)
    images = render(strings)
    assert images.shape == (12, 3, height, width)
    assert images.min() >= 0
    assert images.max() <= 1
    wrong, total = [], 0
    for i, texts in enumerate(strings.texts()):
        for s, text in enumerate(texts):
            (x, y), high = strings.position[i, s].tolist(), float(strings.height[i, s])
            read = read_card(images[i], strings.background[i], x, y, high)
            total += 1
            if read != text:
                wrong.append(f"{text} is read as {read} at {high:.1f} pixels")
    assert not wrong, f"{len(wrong)} of {total}: {wrong[:5]}"


def test_texts_lengths_and_sizes_are_those_asked_for():
    strings = draw_strings(generator("range"), 3000, 24, 96, length=(2, 5), size=(6, 11), alphabet="XYZ7")
    assert set(strings.length.flatten().tolist()) == {2, 3, 4, 5}
    texts = [text for row in strings.texts() for text in row]
    assert set("".join(texts)) == set("XYZ7")
    assert all(len(text) == n for text, n in zip(texts, strings.length.flatten().tolist(), strict=True))
    assert strings.height.min() >= 6
    assert strings.height.max() <= 11
    assert strings.height.max() > 10.8
    absent = torch.arange(5) >= strings.length[..., None]
    assert (strings.character[absent] == 0).all()


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 3), (3, 3)])
def test_cards_lie_in_their_fields_and_do_not_touch(grid):
    """Seen on the pixels: between fields, and along the border, there is nothing but background."""
    strings = draw_strings(generator("fields"), 40, 90, 180, size=(6, 60), grid=grid)
    images = render(strings)
    apart = (images - strings.background[:, :, None, None]).abs().amax(1) > 1e-4
    rows, columns = 90 // grid[0], 180 // grid[1]
    assert not apart[:, ::rows].any(), "a card reaches the border of its field"
    assert not apart[:, :, ::columns].any(), "a card reaches the border of its field"
    fields = apart.unfold(1, rows, rows).unfold(2, columns, columns).flatten(3).any(3)
    assert fields.all(), "a field is empty"


def test_ink_stands_out_on_paper_and_cards_on_the_background():
    strings = draw_strings(generator("colours"), 5000, 20, 40)
    weights = torch.tensor(BRIGHTNESS)
    ink = torch.tensor(list(COLOURS.values()))[strings.colour] @ weights
    assert ((ink - strings.card @ weights).abs() >= CONTRAST - 1e-5).all(), "an ink is hardly seen on its card"
    assert ((strings.card @ weights - (strings.background @ weights)[:, None]).abs() > 0.08).all(), (
        "a card is hardly seen"
    )
    assert set(strings.colour.flatten().tolist()) == set(range(len(COLOURS))), "a colour never comes"


def test_other_sizes_show_the_same_picture():
    strings = draw_strings(generator("scale"), 3, 64, 128, size=(16, 30), grid=(1, 2))
    half = torch.nn.functional.avg_pool2d(render(strings, 256, 512), 4)
    assert (half - render(strings)).abs().mean() < 0.01
    tall = render(strings, 256, 128)
    assert (tall[:, :, 96:160] - render(strings)).abs().mean() < 1e-5, (
        "on a taller picture the sheet lies in the middle"
    )
    assert torch.allclose(tall[:, :, :90], strings.background[:, :, None, None].expand(3, 3, 90, 128), atol=1e-5)


def test_a_card_looks_the_same_alone_and_in_any_batch():
    strings = draw_strings(generator("batch"), 30, 32, 64, grid=(1, 2))
    alone = torch.cat([render(strings[i]) for i in range(0, 30, 5)])
    assert torch.allclose(render(strings)[::5], alone, atol=1e-5)
    assert Strings.join([strings[:10], strings[10:]]).texts() == strings.texts()


def test_answers_are_what_is_told():
    """Answered by reading `told` and the question alone."""
    strings = draw_strings(generator("ask"), 400, 64, 64, size=(6, 9), length=(1, 3), grid=(2, 2))
    for kind, told, question, answer in StringQuestions(generator("q"))(strings):
        said = dict(re.findall(r"(the card [a-z ]+) says ([^.]+)\.", told))
        assert len(said) == 4
        if kind == "read":
            assert said[re.fullmatch(r"what does (.*) say\?", question)[1]] == answer, (told, question)
        else:
            which, card = re.fullmatch(r"what is the (first|last) sign of (.*)\?", question).groups()
            assert said[card].split()[0 if which == "first" else -1] == answer, (told, question)


def test_told_is_the_truth_and_answers_are_even():
    strings = draw_strings(generator("even"), 4000, 24, 40)
    asked = StringQuestions(generator("q"))(strings)
    assert [q.told for q in asked] == [f"the card says {spelled(text)}." for (text,) in strings.texts()]
    kinds = Counter(q.kind for q in asked)
    assert set(kinds) == set(CHANCE)
    assert min(kinds.values()) > 1800
    for wording in ("what is the first sign?", "what is the last sign?"):
        answers = Counter(q.answer for q in asked if q.question == wording)
        assert set(answers) == set(ALPHABET)
        assert max(answers.values()) < 3 * sum(answers.values()) / len(ALPHABET), "an answer is too frequent"


def test_cards_are_called_by_where_they_are():
    assert card_names(1, 1) == ["the card"]
    assert card_names(1, 2) == ["the card on the left", "the card on the right"]
    assert card_names(3, 1) == ["the card at the top", "the card in the middle", "the card at the bottom"]
    nine = card_names(3, 3)
    assert len(set(nine)) == 9
    assert nine[4] == "the card in the middle"
    assert nine[8] == "the card at the bottom right"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "at least one picture"),
        (dict(length=(0, 2)), "length is a pair of whole numbers"),
        (dict(length=(3, 2)), "length is a pair"),
        (dict(length=2), "length is a pair"),
        (dict(size=(8, float("inf"))), "size is a pair"),
        (dict(alphabet=""), "different signs"),
        (dict(alphabet="AA"), "different signs"),
        (dict(alphabet="ab"), "capitals"),
        (dict(grid=(1, 4)), "from 1 to 3"),
        (dict(grid=2), "from 1 to 3"),
        (dict(length=(1, 9)), r"9 signs of 8 pixels .* do not fit .* 4\.\d would"),
        (dict(height=0), "at least 1 x 1"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        draw_strings(generator("bad"), **(dict(n=2, height=32, width=32) | request_))


def test_odd_kinds_and_numbers_say_why():
    with pytest.raises(ValueError, match="some of"):
        StringQuestions(generator("x"), ["write"])
    with pytest.raises(ValueError, match="some of"):
        StringQuestions(generator("x"), [])
    with pytest.raises(IndexError, match="sample 2 of 2"):
        draw_strings(generator("x"), 2, 32, 32)[2]
    with pytest.raises(ValueError, match="differ in length alone"):
        Strings.join([draw_strings(generator("x"), 2, 32, 32, length=(1, n)) for n in (1, 2)])
    assert set(LETTERS) < set(CHARACTERS)


def test_every_word_is_listed():
    for grid in ((1, 1), (1, 2), (3, 3)):
        asked = StringQuestions(generator("q"))(draw_strings(generator("words"), 200, 128, 128, grid=grid))
        said = set(re.findall("[a-z]+", " ".join(" ".join(question[1:]) for question in asked)))
        assert said <= set(WORDS), "a text has words that no vocabulary will know"
