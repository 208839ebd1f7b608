"""Every caption is true of its scene, checked by a reader that knows the scene's facts but not the grammar."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world

COLOUR, SHAPE, SIZE = ("|".join(words) for words in (world.COLOURS, world.SHAPES, world.SIZES))
NOUN = re.compile(rf"\b(an?) (?:({SIZE}) )?({COLOUR}) ({SHAPE})\b")


def facts(scenes: world.Scenes, i: int) -> list[dict]:
    return [
        dict(
            colour=list(world.COLOURS)[scenes.colour[i, o]],
            shape=world.SHAPES[scenes.shape[i, o]],
            size="large" if scenes.size[i, o] > 0.23 else "small",
            x=float(scenes.position[i, o, 0]),
            y=float(scenes.position[i, o, 1]),
        )
        for o in range(scenes.present.shape[1])
        if scenes.present[i, o]
    ]


def is_true(caption: str, things: list[dict]) -> str:
    """An empty text if the caption is true of the scene, or what is wrong with it."""
    said = NOUN.findall(caption)
    if sorted((c, s) for _, _, c, s in said) != sorted((t["colour"], t["shape"]) for t in things):
        return "it does not name exactly the objects of the scene"
    for article, size, colour, shape in said:
        if (article == "an") != ((size or colour)[0] in "aeiou"):
            return f"article of {colour} {shape}"
        if size and not any((t["colour"], t["shape"], t["size"]) == (colour, shape, size) for t in things):
            return f"the {colour} {shape} is not {size}"
    place = re.search(r" (?:at|on|in) the ([a-z ]+)$", caption)
    if place and len(things) == 1:
        x, y = things[0]["x"], things[0]["y"]
        for word, holds in dict(left=x < 0.42, right=x > 0.58, top=y < 0.42, bottom=y > 0.58).items():
            if (word in place[1].split()) != holds:
                return f"place {place[1]!r} of ({x:.2f}, {y:.2f})"
    how = re.search(r"to the left of|to the right of|above|below", caption)
    if how:
        for a, b in (things, things[::-1]):
            if (a["colour"], a["shape"]) == said[0][2:] and (b["colour"], b["shape"]) == said[1][2:]:
                holds = {
                    "to the left of": a["x"] < b["x"],
                    "to the right of": a["x"] > b["x"],
                    "above": a["y"] < b["y"],
                    "below": a["y"] > b["y"],
                }
                if holds[how[0]]:
                    return ""
        return f"relation {how[0]!r}"
    return ""


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), most=st.integers(1, 4), detail=st.floats(0, 1))
def test_captions_are_true(seed, most, detail):
    rng = world.generator("captions", seed)
    scenes = world.draw_scenes(rng, 20, (1, most))
    for i, caption in enumerate(world.Captions(rng, detail=detail)(scenes)):
        fault = is_true(caption, facts(scenes, i))
        assert not fault, f"{caption!r} is not true of {facts(scenes, i)}: {fault}"


def test_the_reader_notices_lies():
    things = [dict(colour="red", shape="star", size="small", x=0.1, y=0.5)]
    assert not is_true("a small red star on the left", things)
    for lie in ("a red moon", "a large red star", "a red star on the right", "a red star and a red star", "an red star"):
        assert is_true(lie, things), f"the test's own reader believes {lie!r}"
    two = [*things, dict(colour="blue", shape="ring", size="small", x=0.9, y=0.5)]
    assert not is_true("a red star to the left of a blue ring", two)
    assert is_true("a blue ring to the left of a red star", two)


def test_every_word_is_in_the_vocabulary():
    rng = world.generator("words")
    captions = world.Captions(rng, detail=0.5)(world.draw_scenes(rng, 5000, (1, 4)))
    unknown = set(re.findall("[a-z]+", " ".join(captions))) - set(world.vocabulary())
    assert not unknown, f"captions use words the vocabulary lacks: {sorted(unknown)}"


def test_captions_vary_and_repeat_for_the_same_seed():
    scenes = world.draw_scenes(world.generator("vary"), 200, (1, 1), pairs=[(0, 1)])
    first = world.Captions(world.generator("say"))(scenes)
    assert first == world.Captions(world.generator("say"))(scenes)
    assert len(set(first)) > 20


@pytest.mark.parametrize("wrong", [dict(frames="a {}"), dict(frames=()), dict(frames=("no place",)), dict(detail=7)])
def test_odd_captions_say_why(wrong):
    with pytest.raises(ValueError, match="got"):
        world.Captions(world.generator("x"), **wrong)


@pytest.mark.parametrize(("noun", "words"), [("orange star", "an orange star"), ("red star", "a red star")])
def test_articles(noun, words):
    assert world.article(noun) == words


def test_nothing_is_said_to_stand_beside_itself():
    """Of two things alike, no relation can be told; in words that is `the red star is below the red star`."""
    say = world.Captions(world.generator("alike"), styles=("long",))
    scenes = world.draw_scenes(world.generator("alike"), 400, (2, 3), pairs=[(0, 6), (4, 5)])
    for caption in say(scenes):
        assert not re.search(r"the (\w+ \w+) is (?:to the \w+ of|above|below) the \1\b", caption), caption


@pytest.mark.parametrize("style", ["tags", "short", "full"])
def test_an_empty_scene_is_told_as_such(style):
    scene = world.compose(dict(colour="red", shape="star"))
    empty = replace(scene, present=scene.present & False)
    assert "nothing" in world.Captions(world.generator("empty"), styles=(style,))(empty)[0]
