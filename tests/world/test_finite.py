"""Finite sets: decided by name and seed, every sample once an epoch, in an order of its own."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.finite import FiniteSet, chosen
from minivlm.world.grammar import Captions
from minivlm.world.web import WebCaptions


def rows(data: FiniteSet) -> list[tuple]:
    """What identifies each sample: its text and its background, which no two scenes share."""
    return list(zip(data.texts, map(tuple, data.scenes.background.tolist()), strict=True))


def test_name_and_seed_decide():
    first, again = FiniteSet("a", 3, 50), FiniteSet("a", 3, 50)
    assert rows(first) == rows(again)
    assert [rows(b) for b in first.epoch(2, 7)] == [rows(b) for b in again.epoch(2, 7)]
    for other in (FiniteSet("b", 3, 50), FiniteSet("a", 4, 50)):
        assert not set(rows(first)) & set(rows(other))
        assert first.order(0).tolist() != other.order(0).tolist()


def test_the_order_is_the_same_on_every_machine():
    assert FiniteSet("order", 1, 8).order(5).tolist() == [5, 1, 7, 6, 0, 4, 2, 3]


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 40), batch=st.integers(1, 50), number=st.integers(0, 10**6))
def test_every_sample_once_an_epoch(size, batch, number):
    data = FiniteSet("once", 0, size)
    batches = list(data.epoch(number, batch))
    assert sorted(row for part in batches for row in rows(part)) == sorted(rows(data))
    assert all(len(part) == batch for part in batches[:-1])
    if batch <= size:
        whole = list(data.epoch(number, batch, whole=True))
        assert [rows(part) for part in whole] == [rows(part) for part in batches[: size // batch]]


def test_epochs_differ_and_do_not_depend_on_each_other():
    data = FiniteSet("epochs", 0, 100)
    orders = [data.order(epoch).tolist() for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 5
    assert data.order(3).tolist() == orders[3]
    stream = data.endless(40)
    drawn = [rows(next(stream)) for _ in range(5)]
    assert drawn == [rows(part) for epoch in range(3) for part in data.epoch(epoch, 40, whole=True)][:5]


def test_texts_belong_to_their_scenes():
    data = FiniteSet("true", 0, 60, write=lambda rng: Captions(rng, detail=0))
    for part in data.epoch(0, 7):
        assert isinstance(part, FiniteSet)
        for i, text in enumerate(part.texts):
            pairs = zip(
                part.scenes.colour[i].tolist(), part.scenes.shape[i].tolist(), part.scenes.present[i], strict=True
            )
            assert all(world.pair_name(c, s) in text for c, s, here in pairs if here), (
                f"{text!r} belongs to another scene"
            )


def test_filtering_and_other_texts():
    data = FiniteSet("filter", 0, 200, objects=(1, 2))
    assert data.scenes.present.shape[1] == 2
    web = WebCaptions(world.generator("filter web"), 0.5)(data.scenes)
    noisy = data.with_texts(web.texts)
    clean = noisy[web.noise == 0]
    assert set(clean.texts) <= set(noisy.texts)
    assert len(clean) == (web.noise == 0).sum()
    both = FiniteSet.join([clean, noisy[web.noise > 0]])
    assert sorted(rows(both)) == sorted(rows(noisy))
    assert len(data[:0]) == 0
    assert list(data[:0].epoch(0, 4)) == []


@settings(deadline=None)
@given(st.data(), st.integers(1, 30))
def test_chosen_is_what_a_list_would_give(data, n):
    number = data.draw(st.integers(-n, n - 1))
    numbers = data.draw(st.lists(st.integers(-n, n - 1)))
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    cut = data.draw(st.slices(n))
    everything = list(range(n))
    assert chosen(number, n).tolist() == [everything[number]]
    assert chosen(cut, n).tolist() == everything[cut]
    for kind in (list, tuple, np.array, lambda v: torch.tensor(v)):
        assert chosen(kind(mask), n).tolist() == [i for i in everything if mask[i]]
        if numbers:
            assert chosen(kind(numbers), n).tolist() == [everything[i] for i in numbers]
    assert chosen([], n).tolist() == []


def test_odd_requests_say_why():
    data = FiniteSet("odd", 0, 5)
    with pytest.raises(IndexError, match="sample 5 of 5"):
        data[5]
    with pytest.raises(ValueError, match="at least 1 scene"):
        FiniteSet("odd", 0, 0)
    with pytest.raises(ValueError, match="5 scenes need a list of as many texts; got 1 texts"):
        data.with_texts(["a"])
    with pytest.raises(ValueError, match="got a WebTexts.*take .texts"):
        data.with_texts(WebCaptions(world.generator("x"))(data.scenes))
    with pytest.raises(ValueError, match="1 to 5"):
        data.epoch(0, 0)
    with pytest.raises(ValueError, match="1 to 5"):
        data.epoch(0, 6, whole=True)
    with pytest.raises(ValueError, match="counted from 0"):
        data.order(-1)
    with pytest.raises(ValueError, match="at least one set"):
        FiniteSet.join([])
