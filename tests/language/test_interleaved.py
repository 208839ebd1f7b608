"""Documents with images as tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivlm.connectors.gated import last_image
from minivlm.language.interleaved import Interleaved
from minivlm.language.tokenizer import Tokenizer
from minivlm.world import vocabulary
from minivlm.world.episodes import draw_episodes

TOKENIZER = Tokenizer("a red blue star ring this is my dog".split())
DOOR = Interleaved(TOKENIZER, 40)
PETS = "my dog<image>a red star.<image>a blue ring."


def said(ids) -> list[str]:
    return TOKENIZER.pieces(ids)


def test_as_in_the_paper():
    """Figure 9: the end of a chunk before each image and at the end of the document."""
    ids, labels = DOOR.encode(PETS)
    end = "<|endofchunk|>"
    first, second = ["<image>", "a", "red", "star", "."], ["<image>", "a", "blue", "ring", "."]
    assert said(ids) == ["<bos>", "my", "dog", end, *first, end, *second, end, "<eos>"]
    unlearned = [piece for piece, label in zip(said(ids), labels, strict=True) if label == -100]
    assert unlearned == ["<bos>", "<image>", "<image>"]
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))


def test_a_pair():
    ids, _ = DOOR.encode("<image>a red star.")
    assert said(ids) == ["<bos>", "<image>", "a", "red", "star", ".", "<|endofchunk|>", "<eos>"]


def test_to_be_gone_on_with():
    ids, _ = DOOR.encode("<image>a red star.<image>a", finished=False)
    assert said(ids)[-3:] == ["<|endofchunk|>", "<image>", "a"]
    ids, _ = DOOR.encode("<image>", finished=False)
    assert said(ids) == ["<bos>", "<image>"]


def test_images_side_by_side_and_at_the_end():
    ids, _ = DOOR.encode("<image><image>a star.<image>")
    assert said(ids) == ["<bos>", "<image>", "<image>", "a", "star", ".", "<|endofchunk|>", "<image>", "<eos>"]


def test_a_chunk_may_end_as_a_text_does():
    ids, _ = Interleaved(TOKENIZER, 40, end="<eos>").encode("<image>a star.<image>a ring.")
    assert said(ids) == ["<bos>", "<image>", "a", "star", ".", "<eos>", "<image>", "a", "ring", ".", "<eos>"]


def test_other_special_tokens_are_spelled_out():
    ids, _ = DOOR.encode("<image>a <eos> <|endofchunk|> star.")
    assert ids.count(TOKENIZER.eos) == 1
    assert ids.count(DOOR.end_id) == 1


def test_an_unfinished_text_and_its_rest_make_the_finished_one():
    whole, _ = DOOR.encode("<image>a red star.<image>a blue ring.")
    start, _ = DOOR.encode("<image>a red star.<image>a", finished=False)
    assert whole[: len(start)] == start


@given(st.lists(st.sampled_from(["<image>", "a red star.", " my dog", "\n", "ring"]), min_size=1, max_size=6))
def test_nothing_gets_lost(parts):
    text = "".join(parts)
    if text.replace("<image>", "").strip():
        ids, _ = DOOR.encode(text)
        rest = [i for i in ids if i not in (DOOR.end_id, TOKENIZER.bos, TOKENIZER.eos)]
        assert rest.count(DOOR.image_id) == text.count("<image>")
        assert TOKENIZER.decode(rest) == text


def test_batch_and_prompts():
    texts = [PETS, "<image>a red star."]
    ids, labels = DOOR.batch(texts, images=3)
    assert ids.shape == labels.shape
    for row, text in enumerate(texts):
        alone, learned = DOOR.encode(text)
        n = len(alone)
        assert ids[row, :n].tolist() == alone
        assert labels[row, :n].tolist() == learned
        assert (ids[row, n:] == TOKENIZER.pad).all()
        assert (labels[row, n:] == -100).all()
    ids, keep = DOOR.prompts(texts, images=3)
    assert keep.sum(1).tolist() == [len(DOOR.encode(text, finished=False)[0]) for text in texts]
    assert keep[:, -1].all()
    assert said(ids[0, keep[0]].tolist())[-1] == "."


def test_episodes_of_the_world():
    """Each word looks at the picture that it speaks about."""
    episodes = draw_episodes(np.random.default_rng(0), 3, classes=2, shots=2)
    tokenizer = Tokenizer(vocabulary())
    door = Interleaved(tokenizer, 60)
    ids, keep = door.prompts(episodes.interleaved(gap=""), images=15)
    assert keep.all()
    looks = last_image(ids == door.image_id)
    assert looks[:, -1].tolist() == [5, 5, 5]
    names = episodes.names.gather(1, episodes.shown)
    for row in range(3):
        for shot in range(4):
            sentence = tokenizer.decode(ids[row, looks[row] == shot + 1], skip_specials=True)
            name = episodes.interleaved(gap="")[row].split("<image>")[shot + 1]
            assert sentence == name
            assert name.startswith("this is a ")
    assert len(names.unique()) > 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a document has no words: ''"),
        (" \n", "a document has no words"),
        ("<image><image>", "a document has no words: '<image><image>'"),
        ("a star " * 30, "a document has 64 tokens; the context holds 40. Shorten it: 'a star a star"),
    ],
)
def test_documents_that_are_refused(text, words):
    for door in (DOOR.encode, lambda t: DOOR.batch([t], t.count("<image>"))):
        with pytest.raises(ValueError, match=words):
            door(text)


def test_an_empty_prompt():
    with pytest.raises(ValueError, match="no words"):
        DOOR.prompts([""], 0)


@pytest.mark.parametrize("images", [1, 3])
def test_images_and_places_must_match(images):
    for door in (DOOR.batch, DOOR.prompts):
        with pytest.raises(ValueError, match=rf"mention 2 images \('<image>'\), and {images} are given.*\[2, 0\]"):
            door([PETS, "a star."], images)


@pytest.mark.parametrize("texts", [[], "<image>a star."])
def test_a_batch_is_a_list(texts):
    with pytest.raises(ValueError, match="a list of at least one document; got"):
        DOOR.batch(texts, 1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"image": "image"}, "image is 'image', which is no special token"),
        ({"end": "<nothing>"}, "end is '<nothing>', which is no special token"),
        ({"end": "<image>"}, "the first two must differ"),
        ({"context": 0}, "context 0"),
    ],
)
def test_doors_that_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        Interleaved(**{"tokenizer": TOKENIZER, "context": 40, **how})


def test_ids():
    assert (DOOR.image_id, DOOR.end_id) == tuple(TOKENIZER.encode("<image><|endofchunk|>"))
    assert torch.is_tensor(DOOR.batch([PETS], 2)[0])
