"""Text -> tokens -> the same text, whatever it is."""

import hashlib

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minivlm import survey, world
from minivlm.language.specials import FIRST, MODEL_TOKENS, OURS, SPECIALS
from minivlm.language.tokenizer import SPECIAL_IDS, Tokenizer

WORDS = ["a", "red", "blue", "circle", "square", "Is", "there", "Red", "image"]
TOKENIZER = Tokenizer(WORDS)

anything = st.text(st.characters())  # surrogates, controls and line breaks included
nearly_sentences = st.lists(
    st.sampled_from(
        [*WORDS, "redcircle", " ", "  ", "\n", "\t", ".", "?", "7", "é", "\ud800", "<", ">", "[", *SPECIALS]
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
@example("<imag<image>e> [SEP][SEP <row_1_col_1>")
@example("red<|im_start|>red <|im_start|> red\n<box>1")
def test_round_trip(text):
    for specials in (True, False):
        ids = TOKENIZER.encode(text, specials)
        assert all(0 <= i < len(TOKENIZER) for i in ids)
        named = [i for i in ids if i < SPECIAL_IDS and i != TOKENIZER.glue]
        assert specials or not named, f"untrusted text became special tokens: {TOKENIZER.pieces(named)}"
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
    assert FIRST == ("<pad>", "<bos>", "<glue>", "<eos>")
    assert (TOKENIZER.pad, TOKENIZER.bos, TOKENIZER.glue, TOKENIZER.eos) == (0, 1, 2, 3)
    assert SPECIAL_IDS == 640
    assert TOKENIZER.encode("a red circle.7<image>\nred7blue  é") == [
        896, 897, 899, 640 + 46, 640 + 55, 4, 640 + 10, 897, 640 + 55, 2, 898, 640 + 32, 640 + 32, 640 + 195, 640 + 169,
    ]  # fmt: skip
    assert len(TOKENIZER) == 640 + 256 + len(WORDS)


def test_special_ids_are_fixed_for_ever():
    """A fingerprint of the first names. New ones are appended: they change neither it nor any id."""
    assert SPECIALS[:4] == FIRST
    written = 126
    fingerprint = hashlib.sha256("\n".join(SPECIALS[:written]).encode()).hexdigest()[:16]
    assert fingerprint == "b1b3fc30581c277e", "a special token got another id: trained weights are void. Append only."
    assert SPECIAL_IDS - written >= 512, "room for later notebooks"
    assert SPECIAL_IDS % 64 == 0


def test_every_model_has_its_special_tokens():
    assert list(MODEL_TOKENS) == [model.name for model in survey.MODELS]
    used = {token for tokens in MODEL_TOKENS.values() for token in tokens}
    assert set(SPECIALS) == used | set(FIRST) | set(OURS), "a token without a model, or a model without its token"
    assert len(set(SPECIALS)) == len(SPECIALS)
    assert not any("tile" in token for token in SPECIALS), "NVLM's tile tags are plain text by design"
    for token in set(SPECIALS) - {"<glue>"}:
        ids = TOKENIZER.encode(token)
        assert ids == [SPECIALS.index(token)], f"{token} is not one token"
        assert TOKENIZER.decode(ids) == token
        spelled = TOKENIZER.encode(token, specials=False)
        assert min(spelled) >= SPECIAL_IDS or TOKENIZER.glue in spelled
        assert TOKENIZER.decode(spelled, skip_specials=True) == token, "what was typed is text, and not skipped"


def test_untrusted_text():
    assert TOKENIZER.encode("<image>") == [SPECIALS.index("<image>")]
    word = 640 + 256 + WORDS.index("image")
    assert TOKENIZER.encode("<image>", specials=False) == [640 + ord("<"), 2, word, 640 + ord(">")]
    assert TOKENIZER.batch(["a<eos>"], 9).tolist() == [[1, 896, 3, 3]]
    typed = TOKENIZER.batch(["a<eos>"], 9, specials=False)
    assert (typed == TOKENIZER.eos).sum() == 1
    assert TOKENIZER.decode(typed[0], skip_specials=True) == "a<eos>"


def test_more_words_and_more_specials_change_no_earlier_id():
    text = "a red circle? Is there\n<eos>blue 7"
    longer = Tokenizer([*WORDS, "ring"], (*SPECIALS, "<later>", "[NEW]"))
    assert longer.encode("<later>") == [len(SPECIALS)]
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
    assert TOKENIZER.decode([500]) == "<reserved 500>"


@pytest.mark.parametrize("bad", [-1, len(TOKENIZER), 10**9])
def test_unknown_ids(bad):
    with pytest.raises(ValueError, match=rf"token id {bad} lies outside the vocabulary of {len(TOKENIZER)}"):
        TOKENIZER.decode([896, bad])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        TOKENIZER.pieces([bad])


def test_half_a_character_is_shown_and_not_refused():
    assert TOKENIZER.decode(TOKENIZER.encode("é")[:1]) == "\ufffd"


def test_batch():
    ids = TOKENIZER.batch(["a red circle", "blue"], length=5)
    assert ids.tolist() == [[1, 896, 897, 899, 3], [1, 898, 3, 0, 0]]
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


@pytest.mark.parametrize("specials", [("<bos>",), FIRST[:3], (*FIRST, *(f"<{i}>" for i in range(637)))])
def test_bad_specials(specials):
    with pytest.raises(ValueError, match="specials must begin with"):
        Tokenizer(WORDS, specials)


def test_strange_text_does_not_fill_the_memory():
    tokenizer = Tokenizer(WORDS)
    for i in range(0, 110_000, 1000):
        tokenizer.encode(" ".join("x" + "".join(chr(97 + int(d)) for d in str(j)) for j in range(i, i + 1000)))
    assert len(tokenizer._known) <= 100_000


def test_specials_are_distinct_and_the_longest_is_found():
    with pytest.raises(ValueError, match="distinct.*duplicates"):
        Tokenizer(["red"], (*FIRST, "<a>", "<a>"))
    tokenizer = Tokenizer(["red"], (*FIRST, "<im", "<image>"))
    assert tokenizer.encode("<image>") == [5]


@pytest.mark.parametrize("special", ["", "x", "<", "\n", "red", " red", " <image>", "Image>"])
def test_specials_that_plain_text_would_hide(special):
    with pytest.raises(ValueError, match="two characters or more.*begin with a letter or a space"):
        Tokenizer(["red"], (*FIRST, special))


anything_special = st.text(min_size=2).filter(lambda text: not text[0].isalpha() and text[0] != " ")


@given(st.lists(anything_special))
def test_any_specials_are_found(specials):
    """Whatever they are made of: brackets, carets, hyphens, line breaks."""
    tokenizer = Tokenizer(["red"], tuple(dict.fromkeys((*FIRST, *specials))))
    for special in {*specials} - {"<glue>"}:
        assert tokenizer.decode(tokenizer.encode(special)) == special
        assert tokenizer.encode(special) == [tokenizer.specials.index(special)]
        assert tokenizer.decode(tokenizer.encode(special, specials=False)) == special


def test_texts_that_are_none_say_so():
    with pytest.raises(TypeError, match="strings"):
        Tokenizer(["red"]).batch([1], 9)
    assert Tokenizer(["red"]).batch((text for text in ["red"]), 9).shape == (1, 3)
