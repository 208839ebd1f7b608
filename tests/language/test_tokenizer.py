"""Text -> tokens -> the same text, whatever it is."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minivlm import world
from minivlm.language.tokenizer import SPECIAL_IDS, SPECIALS, Tokenizer

WORDS = ["a", "red", "blue", "circle", "square", "Is", "there", "Red"]
TOKENIZER = Tokenizer(WORDS, (*SPECIALS, "<image>"))

anything = st.text(st.characters())  # surrogates, controls and line breaks included
nearly_sentences = st.lists(
    st.sampled_from(
        [*WORDS, "redcircle", " ", "  ", "\n", "\t", ".", "?", "7", "é", "\ud800", "<", "<eos>", "<image>", "<glue>"]
    )
).map("".join)


@given(anything | nearly_sentences)
@example("")
@example(" ")
@example(" red")
@example("red ")
@example("red  blue")
@example("\n red")
@example("\nred\n\nblue\r\n")
@example("redblue")
@example("Redred red.red ,red")
@example("<eos>red<eos> red")
@example("<pad><bos><eos><glue><image><imag")
@example("\ud800\udc00 \udfff")
@example("\x00\x7f\x80\u2028\ufeff")
@example("日本 red 🟥")
@example("<reserved 9>")
def test_round_trip(text):
    ids = TOKENIZER.encode(text)
    assert all(0 <= i < len(TOKENIZER) for i in ids)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode(torch.tensor(ids, dtype=torch.long)) == text


@given(st.lists(st.integers(0, len(TOKENIZER) - 1)))
def test_any_ids_have_a_text(ids):
    assert isinstance(TOKENIZER.decode(ids), str)
    assert isinstance(TOKENIZER.decode(ids, skip_specials=True), str)
    assert len(TOKENIZER.pieces(ids)) == len(ids)


def test_a_word_is_one_token_and_its_space_is_in_it():
    assert len(TOKENIZER.encode("a red circle")) == 3
    assert TOKENIZER.encode("a red")[1:] == TOKENIZER.encode("red")
    assert len(TOKENIZER.encode("a red circle?")) == 4
    assert len(TOKENIZER.encode("a\nred")) == 3
    assert len(TOKENIZER.encode("<image>red")) == 2


def test_every_word_of_the_world_is_one_token():
    words = world.vocabulary()
    tokenizer = Tokenizer(words)
    assert len(words) > 20
    assert all(len(tokenizer.encode(word)) == 1 for word in words)


def test_ids_are_stable():
    """Written down: what these tokens were, they are. Trained weights depend on it."""
    assert SPECIALS == ("<pad>", "<bos>", "<glue>", "<eos>")
    assert (TOKENIZER.pad, TOKENIZER.bos, TOKENIZER.glue, TOKENIZER.eos) == (0, 1, 2, 3)
    assert SPECIAL_IDS == 512
    assert TOKENIZER.encode("a red circle.7<image>\nred7blue  é") == [
        768, 769, 771, 512 + 46, 512 + 55, 4, 512 + 10, 769, 512 + 55, 2, 770, 512 + 32, 512 + 32, 512 + 195, 512 + 169,
    ]  # fmt: skip
    assert len(TOKENIZER) == 512 + 256 + len(WORDS)


def test_more_words_and_more_specials_change_no_earlier_id():
    text = "a red circle? Is there\n<eos>blue 7"
    longer = Tokenizer([*WORDS, "ring"], (*SPECIALS, "<image>", "<box>", "<point>"))
    assert longer.encode(text) == TOKENIZER.encode(text)


def test_case_matters():
    assert TOKENIZER.encode("Red") != TOKENIZER.encode("red")
    assert len(TOKENIZER.encode("RED")) == 3


def test_pieces():
    ids = TOKENIZER.encode("a red7<image>red.blue\n")
    assert TOKENIZER.pieces(ids) == ["a", "red", "7", "<image>", "red", ".", "<glue>", "blue", "\n"]
    assert "".join(TOKENIZER.pieces(TOKENIZER.batch(["a red"], 9)[0].tolist())) == "<bos>ared<eos>"


def test_skip_specials():
    row = TOKENIZER.batch(["a red circle", "a"], 9)[1]
    assert TOKENIZER.decode(row) == "<bos>a<eos><pad><pad>"
    assert TOKENIZER.decode(row, skip_specials=True) == "a"
    assert TOKENIZER.decode([300]) == "<reserved 300>"


@pytest.mark.parametrize("bad", [-1, len(TOKENIZER), 10**9])
def test_unknown_ids(bad):
    with pytest.raises(ValueError, match=rf"token id {bad} lies outside the vocabulary of {len(TOKENIZER)}"):
        TOKENIZER.decode([768, bad])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        TOKENIZER.pieces([bad])


def test_half_a_character_is_shown_and_not_refused():
    assert TOKENIZER.decode(TOKENIZER.encode("é")[:1]) == "\ufffd"


def test_batch():
    ids = TOKENIZER.batch(["a red circle", "blue"], length=5)
    assert ids.tolist() == [[1, 768, 769, 771, 3], [1, 770, 3, 0, 0]]
    assert ids.dtype == torch.long
    assert TOKENIZER.batch(("a",), length=100).shape == (1, 3), "as long as the longest text, not as the context"


@pytest.mark.parametrize("empty", ["", " ", "\n\t"])
def test_empty_text(empty):
    with pytest.raises(ValueError, match="a text is empty .*'a red circle'"):
        TOKENIZER.batch(["a", empty], 9)


def test_no_texts():
    with pytest.raises(ValueError, match="at least one text; got none"):
        TOKENIZER.batch([], 9)


def test_too_long():
    with pytest.raises(ValueError, match=r"has 5 tokens.*the context holds 4: 'a red circle'"):
        TOKENIZER.batch(["a", "a red circle"], 4)
    with pytest.raises(ValueError, match=r"red red .*\.\.\.\. Shorten it") as caught:
        TOKENIZER.batch(["red " * 500], 32)
    assert len(str(caught.value)) < 300, "a long text is not printed whole"


def test_a_single_string():
    with pytest.raises(TypeError, match=r"takes a list of texts; got .*rite \['a red'\]"):
        TOKENIZER.batch("a red", 9)


@pytest.mark.parametrize("words", [["red", "red"], ["red circle"], ["7"], [""], ["é"], ["red\n"]])
def test_bad_words(words):
    with pytest.raises(ValueError, match="words must be distinct and made of ASCII letters"):
        Tokenizer(words)


@pytest.mark.parametrize("specials", [("<bos>",), SPECIALS[:3], (*SPECIALS, *(f"<{i}>" for i in range(509)))])
def test_bad_specials(specials):
    with pytest.raises(ValueError, match="specials must begin with"):
        Tokenizer(WORDS, specials)


def test_strange_text_does_not_fill_the_memory():
    tokenizer = Tokenizer(WORDS)
    for i in range(0, 110_000, 1000):
        tokenizer.encode(" ".join("x" + "".join(chr(97 + int(d)) for d in str(j)) for j in range(i, i + 1000)))
    assert len(tokenizer._known) <= 100_000


def test_specials_are_distinct_and_the_longest_is_found():
    with pytest.raises(ValueError, match="distinct"):
        Tokenizer(["red"], (*SPECIALS, "<a>", "<a>"))
    with pytest.raises(ValueError, match="none empty"):
        Tokenizer(["red"], (*SPECIALS, ""))
    tokenizer = Tokenizer(["red"], (*SPECIALS, "<im", "<image>"))
    assert tokenizer.encode("<image>") == [5]


def test_texts_that_are_none_say_so():
    with pytest.raises(TypeError, match="strings"):
        Tokenizer(["red"]).batch([1], 9)
    assert Tokenizer(["red"]).batch((text for text in ["red"]), 9).shape == (1, 3)
