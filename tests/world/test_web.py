"""Noise in web captions is what it is said to be, read from the words against the scenes' parameters."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.grammar import WORDS as GRAMMAR
from minivlm.world.grammar import Captions
from minivlm.world.web import FALSE, GENERIC, NOISE, WORDS, WebCaptions, WebTexts, loops


def named(text: str) -> list[tuple[str, str]]:
    """The things a text names: each colour word with the shape word after it."""
    words = re.findall("[a-z]+", text)
    return [(a, b) for a, b in zip(words, words[1:], strict=False) if a in world.COLOURS and b in world.SHAPES]


def things(scenes: world.Scenes, i: int) -> list[tuple[str, str]]:
    colours = list(world.COLOURS)
    return [
        (colours[c], world.SHAPES[s])
        for c, s, here in zip(scenes.colour[i], scenes.shape[i], scenes.present[i], strict=True)
        if here
    ]


def drawn(seed: int = 0, n: int = 200, most: int = 3, **settings) -> tuple[world.Scenes, WebTexts]:
    scenes = world.draw_scenes(world.generator("web scenes", seed), n, (1, most))
    return scenes, WebCaptions(world.generator("web", seed), **settings)(scenes)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), most=st.integers(1, 4), noise=st.floats(0, 1))
def test_clean_is_true_and_wrong_is_false(seed, n, most, noise):
    scenes, web = drawn(seed, n, most, noise=noise)
    assert len(web.texts) == n == len(web.noise)
    for i, (text, number) in enumerate(zip(web.texts, web.noise.tolist(), strict=True)):
        kind, said, there = NOISE[number], Counter(named(text)), Counter(things(scenes, i))
        if kind == "clean":
            assert said == there, f"clean, but {text!r} does not name {dict(there)}"
            assert not loops(text), f"clean, but it repeats itself: {text!r}"
        elif kind in FALSE:
            assert set(said) - set(there), f"{kind}, but {text!r} is true of {dict(there)}"
            assert not loops(text)
        else:
            assert not set(said) - set(there), f"{kind} must not be false: {text!r} of {dict(there)}"
        if kind in ("wrong colour", "wrong shape"):
            same = 1 if kind == "wrong colour" else 0
            assert sorted(pair[same] for pair in said.elements()) == sorted(pair[same] for pair in there.elements()), (
                f"{kind}: {text!r} changes more than one attribute of {dict(there)}"
            )
            assert sum((said - there).values()) == 1, f"{kind}: exactly one thing is renamed, not so in {text!r}"
        if kind == "generic":
            about = {*world.COLOURS, *world.SHAPES, *world.SIZES, "top", "bottom", "left", "right", "middle"}
            assert not about & set(text.split()), f"generic, but it says something: {text!r}"
        if kind == "loop":
            assert loops(text), f"a loop that {loops.__name__} does not see: {text!r}"


def test_a_swapped_caption_is_another_scenes_and_true_there():
    scenes, web = drawn(noise=1.0, kinds=["swapped"])
    theirs = {tuple(sorted(things(scenes, i))) for i in range(len(scenes))}
    assert all(tuple(sorted(named(text))) in theirs for text in web.texts)


def test_a_lone_scene_can_be_swapped():
    scenes, web = drawn(n=1, noise=1.0, kinds=["swapped"])
    assert set(named(web.texts[0])) - set(things(scenes, 0))


def test_a_truncated_caption_is_the_start_of_a_true_one_and_looks_cut():
    scenes = world.draw_scenes(world.generator("cut"), 300)

    class Fixed:
        def __call__(self, scenes):
            return true

    true = Captions(world.generator("true"), styles=("tags", "short", "full", "long"))(scenes)
    web = WebCaptions(world.generator("web"), 1.0, ["truncated"], captions=Fixed())(scenes)
    for cut, whole in zip(web.texts, true, strict=True):
        assert cut
        assert whole.startswith(cut + " ")
        assert cut.split()[-1].strip(",.") not in {*world.SHAPES, "left", "right", "top", "bottom", "middle"}


@pytest.mark.parametrize("noise", [0, 0.005, 0.5, 1])
@pytest.mark.parametrize("kinds", [NOISE[1:], ("loop",), ("swapped", "generic")])
def test_shares_are_as_asked(noise, kinds):
    n = 4000
    _, web = drawn(n=n, noise=noise, kinds=kinds)
    count = np.bincount(web.noise.numpy(), minlength=len(NOISE))
    for kind, got in zip(NOISE, count, strict=True):
        share = 1 - noise if kind == "clean" else noise / len(kinds) if kind in kinds else 0
        assert abs(got - n * share) <= 5 * (n * share * (1 - share)) ** 0.5, (
            f"{kind}: {got} of {n}, asked for {share:.3f}"
        )


def test_no_noise_names_a_held_out_pair():
    held_out = {tuple(world.pair_name(*pair).split()) for pair in world.HELD_OUT}
    for n in (1, 2000):
        _, web = drawn(n=n, noise=1.0, kinds=FALSE)
        assert not held_out & {pair for text in web.texts for pair in named(text)}


def test_every_word_is_known():
    _, web = drawn(n=3000, noise=0.9)
    known = {*world.COLOURS, *world.SHAPES, *world.SIZES, *GRAMMAR, *WORDS}
    unknown = {word for text in (*web.texts, *GENERIC) for word in re.findall("[a-z]+", text)} - known
    assert not unknown, f"words that WORDS lacks: {sorted(unknown)}"
    used = {word for text in GENERIC for word in text.split()}
    assert set(WORDS) <= used, f"WORDS has words that no text uses: {set(WORDS) - used}"


def test_same_generator_same_captions_and_articles_are_right():
    (_, first), (_, second) = drawn(3), drawn(3)
    assert first.texts == second.texts
    assert torch.equal(first.noise, second.noise)
    wrong = [text for text in first.texts if re.search(r"\ba [aeiou]|\ban [^aeiou]", text)]
    assert not wrong, f"article: {wrong}"


def test_indexing():
    _, web = drawn(n=20)
    part = web[web.noise == 0]
    assert (part.noise == 0).all()
    assert part.texts == [text for text, number in zip(web.texts, web.noise, strict=True) if number == 0]
    assert len(web[3]) == 1


@pytest.mark.parametrize(
    ("text", "times", "answer"),
    [
        ("a red star a red star a red star", 3, True),
        ("we see a red star a red star", 3, False),
        ("we see a red star a red star", 2, True),
        ("star star star", 3, True),
        ("red red star star", 3, False),
        ("", 3, False),
        ("a red star, a red star and a red star", 3, False),
    ],
)
def test_loops(text, times, answer):
    assert loops(text, times) == answer


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(noise=1.5), "probability"),
        (dict(noise=-0.1), "probability"),
        (dict(kinds=()), "list of some of"),
        (dict(kinds="loop"), "list of some of"),
        (dict(kinds=["clean"]), "list of some of"),
    ],
)
def test_odd_requests_say_why(wrong, words):
    with pytest.raises(ValueError, match=words):
        WebCaptions(world.generator("x"), **wrong)
    with pytest.raises(ValueError, match="2 times"):
        loops("a", 1)


def test_a_scene_that_has_everything_says_why():
    scenes = world.draw_scenes(world.generator("one"), 3, (1, 1), pairs=[(0, 1)])
    with pytest.raises(ValueError, match="no false caption was found for scene 0"):
        WebCaptions(world.generator("x"), 1.0, ["wrong colour"], pairs=[(0, 1)])(scenes)
