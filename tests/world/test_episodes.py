"""Episodes: the words lead to the name, and nothing else does."""

import importlib
import pkgutil
import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import episodes
from minivlm.world.episodes import BY, CHANCE, NAMES, Episodes, draw_episodes
from minivlm.world.grammar import WORDS as GRAMMAR

SENTENCE = re.compile(r"an? (\w+) (\w+) is a ?(\w*)")


def drawn(seed: int = 0, n: int = 100, **settings) -> Episodes:
    return draw_episodes(world.generator("episodes", seed), n, **settings)


def looks(scenes: world.Scenes) -> list[tuple[str, str]]:
    return [
        (list(world.COLOURS)[c], world.SHAPES[s])
        for c, s in zip(scenes.colour[:, 0].tolist(), scenes.shape[:, 0].tolist(), strict=True)
    ]


def read(told: str, by: str) -> str:
    """Who reads nothing but the words: the name of what shares the query's class."""
    *shots, (colour, shape, open_end) = SENTENCE.findall(told)
    assert not open_end, "the text gives the answer away"
    same = {
        "pair": lambda c, s: (c, s) == (colour, shape),
        "colour": lambda c, _: c == colour,
        "shape": lambda _, s: s == shape,
    }
    names = {name for c, s, name in shots if same[by](c, s)}
    assert len(names) == 1, f"the class of the query has {len(names)} names in {told!r}"
    return names.pop()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 12),
    classes=st.integers(2, 8),
    shots=st.integers(1, 5),
    by=st.sampled_from(BY),
)
def test_the_words_lead_to_the_name(seed, n, classes, shots, by):
    drawn_ = drawn(seed, n, classes=classes, shots=shots, by=by)
    assert len(drawn_) == n == len(drawn_.query)
    assert len(drawn_.shots) == n * classes * shots
    assert drawn_.chance == 1 / classes
    for told, question, answer in zip(drawn_.told(), drawn_.questions(), drawn_.answers(), strict=True):
        assert read(told, by) == answer == question.answer
        assert told == f"{question.told} {question.question}"
        shown = [name for _, _, name in SENTENCE.findall(question.told)]
        assert sorted(Counter(shown).values()) == [shots] * classes, (
            "every class is shown equally often, under one name"
        )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), by=st.sampled_from(BY), shots=st.integers(1, 12))
def test_pictures_and_text_tell_the_same(seed, by, shots):
    some = drawn(seed, 5, by=by, shots=shots)
    count = some.shown.shape[1]
    scenes = some.scenes()
    assert len(scenes) == 5 * (count + 1)
    assert (scenes.counts() == 1).all()
    seen = looks(scenes)
    for i in range(5):
        mine = seen[i * (count + 1) : (i + 1) * (count + 1)]
        said = [(c, s) for c, s, _ in SENTENCE.findall(some.told()[i])]
        assert said == mine, "the words describe other pictures, or in another order"
        names = [name for _, _, name in SENTENCE.findall(some.told()[i])]
        assert (
            some.interleaved()[i]
            == " ".join(f"<image> this is a {name}." for name in names[:-1]) + " <image> this is a"
        )
        text = some.interleaved("[IMG]", "", "\n", look=True)[i] + " " + some.answers(look=True)[i] + "\n"
        assert re.findall(r"\[IMG\]this is an? (\w+) (\w+)\n", text) == mine
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), by=st.sampled_from(BY), shots=st.integers(1, 6), classes=st.integers(2, 5))
def test_the_query_is_no_copy(seed, by, shots, classes):
    some = drawn(seed, 40, by=by, shots=shots, classes=classes)
    count = classes * shots
    place = torch.cat([some.shots.position[:, 0], some.shots.size], 1).view(40, count, 3)
    asked = torch.cat([some.query.position[:, 0], some.query.size], 1)
    assert (place - asked[:, None]).abs().amax(-1).min() >= episodes.APART, "a query is laid out as a shot"
    shots_, query = looks(some.shots), looks(some.query)
    for i in range(40):
        around = shots_[i * count : (i + 1) * count]
        if by != "pair":
            other = 1 if by == "colour" else 0
            assert query[i][other] not in {look[other] for look in around}, "a shot shares what does not make the class"


def test_only_pairs_that_are_allowed():
    for by in BY:
        some = drawn(n=3000, by=by, shots=2)
        pairs = set(zip(*(getattr(some.scenes(), f)[:, 0].tolist() for f in ("colour", "shape")), strict=True))
        assert not pairs & set(world.HELD_OUT), f"by {by}: a held-out pair is shown"
        assert pairs == set(world.SEEN), f"by {by}: some pair never comes"
        held = drawn(n=100, by=by, pairs=world.HELD_OUT).scenes()
        assert set(zip(held.colour[:, 0].tolist(), held.shape[:, 0].tolist(), strict=True)) <= set(world.HELD_OUT)


def even(counts: np.ndarray, what: str) -> None:
    """All cells equally likely: within five standard deviations."""
    expected = counts.sum() / counts.size
    worst = np.abs(counts - expected).max()
    assert worst < 5 * expected**0.5, f"{what}: {worst:.0f} off the even {expected:.0f}"


@pytest.mark.parametrize("by", BY)
def test_nothing_but_the_class_tells_the_name(by):
    n, classes, shots = 20_000, 3, 2
    some = drawn(n=n, by=by, classes=classes, shots=shots)
    answer = some.names.gather(1, some.asked[:, None])[:, 0].numpy()
    even(np.bincount(answer, minlength=64), "answers")
    even(np.bincount(some.names.flatten().numpy(), minlength=64), "names")
    even(np.bincount(some.asked.numpy(), minlength=classes), "class of the query")
    right = some.shown == some.asked[:, None]
    even(right.sum(0).numpy(), "place of the right name among the shots")
    patterns = np.unique(right.numpy() @ 2 ** np.arange(classes * shots), return_counts=True)[1]
    assert len(patterns) == 15, "some order of the shots never comes"
    even(patterns, "order of the shots")
    information = {}
    for axis in ("colour", "shape"):
        look = getattr(some.query, axis)[:, 0].numpy()
        table = np.zeros((8, 64))
        np.add.at(table, (look, answer), 1)
        joint = table / n
        apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        information[axis] = (joint[joint > 0] * np.log(joint[joint > 0] / apart[joint > 0])).sum()
        # without any dependence 2 n I is chi-squared with 7 * 63 degrees of freedom
        assert 2 * n * information[axis] < 441 + 6 * (2 * 441) ** 0.5, f"names know the {axis}: {information}"


def test_blind_guessing_is_at_chance():
    """The last name said, the first, the most frequent: none beats `CHANCE`."""
    n = 10_000
    some = drawn(n=n, shots=2)
    names = some.names.gather(1, some.shown)
    answer = some.names.gather(1, some.asked[:, None])[:, 0]
    for place in range(names.shape[1]):
        share = (names[:, place] == answer).float().mean().item()
        assert abs(share - CHANCE["name"]) < 5 * 0.5 / n**0.5, f"name number {place} is right in {share:.3f}"


def test_names():
    assert len(set(NAMES)) == len(NAMES) == 64
    assert all(re.fullmatch("[b-df-hj-np-tv-z][a-z]+", name) for name in NAMES), (
        "a name begins with a vowel: `a` is wrong"
    )
    world_words = {*world.COLOURS, *world.SHAPES, *world.SIZES, *GRAMMAR}
    assert not set(NAMES) & world_words
    words = {
        word for text in (*drawn(by="shape").told(), *drawn().interleaved()) for word in re.findall("[a-z]+", text)
    }
    assert words - {"image"} <= {*world_words, *episodes.WORDS}


def test_no_other_room_uses_a_name():
    for room in pkgutil.iter_modules(world.__path__):
        if room.name not in ("episodes", "corpus"):
            words = getattr(importlib.import_module(f"minivlm.world.{room.name}"), "WORDS", ())
            assert not set(words) & set(NAMES), f"{room.name} gives these names a meaning: {set(words) & set(NAMES)}"


def test_names_can_be_kept_back():
    few = NAMES[-4:]
    assert set(drawn(n=200, classes=4, names=few).answers()) == set(few)


def test_indexing_and_repeating():
    some, again = drawn(n=9), drawn(n=9)
    assert some.told() == again.told()
    assert torch.equal(some.scenes().position, again.scenes().position)
    for index in (3, -1, slice(2, 5), [0, 4], some.asked == 0):
        part = some[index]
        rows = np.arange(9)[index if not isinstance(index, torch.Tensor) else index.numpy()]
        assert part.told() == [some.told()[i] for i in np.atleast_1d(rows)]
    with pytest.raises(IndexError, match="sample 9 of 9"):
        some[9]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "got 0 episodes"),
        (dict(classes=1), "classes=1"),
        (dict(shots=0), "shots=0"),
        (dict(by="size"), "one of"),
        (dict(classes=9, by="colour"), "8 by colour"),
        (dict(classes=3, names=NAMES[:2]), "2 names"),
        (dict(names=["dax", "star"]), "distinct words of NAMES"),
        (dict(pairs=[(9, 0)]), r"below \(8, 8\)"),
        (dict(pairs=[]), "pairs are"),
        (dict(pairs=[(0, 1), (1, 1), (1, 2)], by="colour"), "red has 1"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        drawn(**request_)
