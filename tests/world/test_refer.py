"""A referring expression fits the one object it names, or none: read back from its words alone."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.refer import WORDS, Referred, refer
from minivlm.world.scenes import things

PHRASE = re.compile(
    r"the (?:(leftmost|rightmost|highest|lowest) )?(?:(small|large) )?"
    rf"(?:({'|'.join(world.COLOURS)}) )?({'|'.join(world.SHAPES)}|thing)(?: (?:at|on|in) the (.+))?"
)


def fitting(phrase: str, scenes: world.Scenes, scene: int) -> list[int]:
    """The slots that a phrase fits: read from its words and from the scene's numbers."""
    end, size, colour, shape, place = PHRASE.fullmatch(phrase).groups()
    slots = []
    for slot in range(scenes.present.shape[1]):
        if not scenes.present[scene, slot]:
            continue
        x, y = scenes.position[scene, slot].tolist()
        facts = {
            "colour": list(world.COLOURS)[scenes.colour[scene, slot]],
            "shape": world.SHAPES[scenes.shape[scene, slot]],
            "size": "small" if scenes.size[scene, slot] < 0.23 else "large",
            "place": " ".join(
                word
                for value, words in ((y, ("top", "", "bottom")), (x, ("left", "", "right")))
                if (word := words[0] if value < 0.42 else words[1] if value < 0.58 else words[2])
            )
            or "middle",
        }
        said = {"colour": colour, "shape": None if shape == "thing" else shape, "size": size, "place": place}
        if all(word is None or facts[name] == word for name, word in said.items()):
            slots.append(slot)
    if end and slots:
        axis, pick = {"leftmost": (0, min), "rightmost": (0, max), "highest": (1, min), "lowest": (1, max)}[end]
        slots = [pick(slots, key=lambda slot: scenes.position[scene, slot, axis].item())]
    return slots


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), crowd=st.booleans(), few=st.booleans())
def test_a_phrase_fits_exactly_the_one_object_or_none(seed, crowd, few):
    pairs = [(0, 1), (0, 2), (1, 2)] if few else world.SEEN  # few pairs: many objects alike
    request = dict(objects=(2, 8), sizes=(0.05, 0.1)) if crowd else dict(objects=(1, 3))
    scenes = world.draw_scenes(world.generator("refer", seed), 20, pairs=pairs, **request)
    found = refer(world.generator("phrases", seed), scenes, absent=0.5, pairs=pairs)
    for referred in found:
        fits = fitting(referred.phrase, scenes, referred.scene)
        scene = things(scenes)[referred.scene]
        assert fits == ([referred.slot] if referred.exists else []), f"{referred} fits {fits} of {scene}"
        assert (referred.slot == -1) is not referred.exists


@pytest.fixture(scope="module")
def many() -> tuple[world.Scenes, list[Referred]]:
    scenes = world.draw_scenes(world.generator("refer"), 3000, (1, 3))
    return scenes, refer(world.generator("phrases"), scenes, absent=0.5)


def test_nearly_every_scene_gets_a_phrase_and_half_of_them_fit(many):
    scenes, found = many
    assert len(found) > 0.97 * len(scenes)
    assert [referred.scene for referred in found] == sorted({referred.scene for referred in found})
    assert abs(sum(referred.exists for referred in found) / len(found) - 0.5) < 0.03


def test_the_form_does_not_tell_whether_it_fits(many):
    """Each form (which words are said, not which words they are) is true as often as false."""
    _, found = many
    forms = Counter()
    for referred in found:
        form = tuple(group is not None and group != "thing" for group in PHRASE.fullmatch(referred.phrase).groups())
        forms[form, referred.exists] += 1
    for form in {form for form, _ in forms}:
        yes, no = forms[form, True], forms[form, False]
        assert yes + no < 100 or 0.35 < yes / (yes + no) < 0.65, (
            f"{form} (end, size, colour, shape, place): {yes} yes, {no} no"
        )


def test_phrases_are_short_and_of_every_kind(many):
    _, found = many
    counts = Counter(sum(bool(g) and g != "thing" for g in PHRASE.fullmatch(r.phrase).groups()) for r in found)
    assert set(counts) == {1, 2, 3} or set(counts) == {1, 2, 3, 4}
    assert counts[1] + counts[2] > 0.9 * len(found)
    groups = zip(*(PHRASE.fullmatch(r.phrase).groups() for r in found), strict=True)
    assert all(any(group) for group in groups), "some kind of phrase never came"


def test_only_known_words(many):
    known = {*world.COLOURS, *world.SHAPES, *world.SIZES, *WORDS}
    assert {word for referred in many[1] for word in referred.phrase.split()} <= known


def test_absent_pairs_are_among_those_allowed(many):
    seen = {(list(world.COLOURS)[c], world.SHAPES[s]) for c, s in world.SEEN}
    for referred in many[1]:
        _, _, colour, shape, _ = PHRASE.fullmatch(referred.phrase).groups()
        assert shape == "thing" or not colour or (colour, shape) in seen, f"{referred.phrase} is held out"


def test_same_generator_same_phrases():
    scenes = world.draw_scenes(world.generator("refer"), 20)
    assert refer(world.generator("a"), scenes) == refer(world.generator("a"), scenes)


def test_no_probability_says_so():
    with pytest.raises(ValueError, match="from 0 to 1"):
        refer(world.generator("a"), world.draw_scenes(world.generator("refer"), 2), absent=2)
