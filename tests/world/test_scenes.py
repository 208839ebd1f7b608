"""Scenes are the same everywhere, do not touch, and never leak from one split into another."""

import hashlib

import numpy as np
import pytest
import torch

from minivlm import world
from minivlm.world.scenes import things


def fingerprints(scenes: world.Scenes) -> set[bytes]:
    """What identifies each scene: everything that decides its picture."""
    facts = [scenes.colour, scenes.shape, scenes.position, scenes.size, scenes.present, scenes.background]
    return {b"".join(fact[i].numpy().tobytes() for fact in facts) for i in range(len(scenes))}


def test_same_name_and_seed_same_scenes_on_every_machine():
    """A stored hash: if it changes, so does every number of the course, and the world needs a new VERSION."""
    scenes = world.draw_scenes(world.generator("frozen", seed=3), 256)
    captions = world.Captions(world.generator("frozen words"))(scenes)
    exact = hashlib.sha256(
        scenes.colour.numpy().tobytes() + scenes.shape.numpy().tobytes() + "\n".join(captions).encode()
    )
    assert (world.VERSION, exact.hexdigest()[:16]) == ("1.0", "4d2d109638361efd"), (
        "the world draws other scenes or captions than before: give it a new VERSION and update this hash"
    )


def test_names_and_seeds_are_independent():
    drawn = [
        world.draw_scenes(world.generator(name, seed), 500)
        for name in ("train", "validation", "test")
        for seed in (0, 1)
    ]
    prints = [fingerprints(scenes) for scenes in drawn]
    assert all(len(p) == 500 for p in prints), "a generator repeats itself"
    assert len(set.union(*prints)) == 500 * len(drawn), "two generators with other names or seeds drew the same scene"


@pytest.mark.parametrize("objects", [(1, 1), (1, 3), (3, 3)])
def test_no_held_out_pair_is_ever_drawn_for_training(objects):
    scenes = world.draw_scenes(world.generator("train"), 20_000, objects)
    pairs = set(zip(scenes.colour[scenes.present].tolist(), scenes.shape[scenes.present].tolist(), strict=True))
    assert not pairs & set(world.HELD_OUT), "a held-out pair is in a training scene"
    assert pairs == set(world.SEEN), "a pair that training may show never came in 20,000 scenes"


def test_a_fifth_of_the_pairs_is_held_out_evenly():
    assert len(world.HELD_OUT) >= 0.2 * len(world.all_pairs())
    assert sorted([*world.HELD_OUT, *world.SEEN]) == sorted(world.all_pairs())
    for axis, words in enumerate((world.COLOURS, world.SHAPES)):
        counts = np.bincount([pair[axis] for pair in world.HELD_OUT], minlength=len(words))
        assert (counts == counts[0]).all(), "some colour or shape is held out more often than another"


def test_objects_do_not_touch_and_lie_inside():
    """Seen on the pixels: drawn alone, no two objects of a scene cover the same pixel, and none is cut off."""
    from minivlm.world.render import _coverage

    scenes = world.draw_scenes(world.generator("apart"), 300, (3, 3))
    coverage = _coverage(scenes, 96, 96, torch.device("cpu"))[:, :-1]
    assert (coverage.sum(1) <= 1 + 1e-5).all(), "two objects overlap"
    border = torch.cat([coverage[..., 0], coverage[..., -1], coverage[..., 0, :], coverage[..., -1, :]], -1)
    assert (border == 0).all(), "an object is cut off by the border"


def test_counts_sizes_and_absent_slots():
    scenes = world.draw_scenes(world.generator("counts"), 3000, (1, 3), slots=4)
    assert scenes.present.shape == (3000, 4)
    assert set(scenes.counts().tolist()) == {1, 2, 3}
    assert (scenes.size[~scenes.present] == 0).all()
    assert (scenes.position[~scenes.present] == 0).all()
    sizes = scenes.size[scenes.present]
    assert all(any(low <= s <= high for low, high in world.SIZES.values()) for s in sizes.double().tolist())


def test_things_are_the_rows_of_the_tensors():
    scenes = world.draw_scenes(world.generator("things"), 50, (1, 3), slots=5)
    rows = things(scenes)
    assert [len(row) for row in rows] == scenes.counts().tolist()
    for row, one in zip(rows, scenes, strict=True):
        back = world.compose(*(dict(colour=t.colour, shape=t.shape, x=t.x, y=t.y, size=t.radius) for t in row))
        for name in ("colour", "shape", "position", "size"):
            kept = getattr(one, name)[:, : len(row)]
            assert torch.equal(getattr(back, name), kept), f"{name} of the things differs from the scene's"
        assert all(low <= t.radius <= high for t in row for low, high in [world.SIZES[t.size]]), "wrong size word"


def test_indexing_and_joining():
    scenes = world.draw_scenes(world.generator("index"), 10)
    for index in (0, -1, slice(2, 4), [1, 2], torch.tensor([3]), scenes.counts() == 1):
        assert isinstance(scenes[index], world.Scenes)
    assert len(scenes[0]) == len(scenes[-1]) == 1
    joined = world.Scenes.join([scenes[:4], scenes[4:]])
    assert fingerprints(joined) == fingerprints(scenes)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "at least one scene"),
        (dict(n=1, pairs=[]), "at least one scene"),
        (dict(n=1, objects=(0, 2)), "objects"),
        (dict(n=1, objects=(3, 2)), "objects"),
        (dict(n=1, objects=(1, 9)), "they fit"),
        (dict(n=1, objects=(1, 3), slots=2), "slots=2"),
        (dict(n=1, pairs=[(8, 0)]), r"\(8, 0\)"),
        (dict(n=1, objects=2), "a pair of whole numbers"),
        (dict(n=1, objects=(1.5, 2)), "a pair of whole numbers"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        world.draw_scenes(world.generator("bad"), **request_)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (dict(colour="mauve", shape="star"), "mauve"),
        (dict(colour="red", shape="blob"), "blob"),
        (dict(colour="red", shape="star", size=0), "positive"),
        (dict(colour="red", shape="star", size=float("nan")), "positive"),
        (dict(colour="red", shape="star", x=1.5), "within"),
        (dict(colour="red", shape="star", radius=1), "radius"),
        (dict(colour="red", shape="star", size=float("inf")), "positive"),
        (dict(colour="red", shape="star", x="0.5"), "numbers"),
        ([dict(colour="red", shape="star")], "an object is a dict"),
    ],
)
def test_composing_nonsense_says_why(thing, words):
    with pytest.raises(ValueError, match=words):
        world.compose(thing)


@pytest.mark.parametrize("number", [1, -2, np.int64(1), torch.tensor(1)])
def test_a_number_gives_a_batch_of_one(number):
    scenes = world.draw_scenes(world.generator("index"), 3)
    assert fingerprints(scenes[number]) == fingerprints(scenes[1:2])


def test_a_mask_of_one_is_a_mask():
    scene = world.draw_scenes(world.generator("index"), 1)
    assert [len(scene[torch.tensor([keep])]) for keep in (True, False)] == [1, 0]


def test_a_number_beyond_the_batch_says_so_and_loops_end():
    scenes = world.draw_scenes(world.generator("index"), 3)
    with pytest.raises(IndexError, match="sample 3 of 3"):
        scenes[3]
    assert [len(scene) for scene in scenes] == [1, 1, 1]


def test_joining_unequal_slots_says_how():
    one, two = (world.draw_scenes(world.generator("join"), 2, (n, n)) for n in (1, 2))
    with pytest.raises(ValueError, match="slots="):
        world.Scenes.join([one, two])
    with pytest.raises(ValueError, match="at least one batch"):
        world.Scenes.join([])


@pytest.mark.parametrize("background", [(255, 255, 255), (0.5, 0.5), "white"])
def test_odd_backgrounds_say_why(background):
    with pytest.raises(ValueError, match="from 0 to 1"):
        world.compose(dict(colour="red", shape="star"), background=background)


def test_composing_nothing_says_why():
    with pytest.raises(ValueError, match="at least one"):
        world.compose()


def test_missing_colour_says_what_an_object_has():
    with pytest.raises(ValueError, match="colour, shape"):
        world.compose(dict(shape="star"))
