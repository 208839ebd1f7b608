"""Any number and size of objects on a canvas of any aspect: they do not touch, in real pixels, or a request says why not."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import placing
from minivlm.world.placing import FULL, LARGEST, REACH, crowding
from minivlm.world.render import DISTANCES, _coverage


def drawn_alone(scenes: world.Scenes, height: int, width: int) -> torch.Tensor:
    """How much of each pixel each object covers: (b, o, h, w)."""
    return _coverage(scenes, height, width, torch.device("cpu"))[:, :-1]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**20),
    most=st.integers(1, 25),
    least=st.floats(0.02, 0.3),
    ratio=st.floats(1, 4),
    side=st.sampled_from([64, 80]),
    longer=st.floats(1, 8),
    tall=st.booleans(),
)
def test_nothing_touches_or_is_cut_off_whatever_is_asked(seed, most, least, ratio, side, longer, tall):
    """Seen on the pixels of a picture of that aspect; or the request is refused with what to change."""
    long = round(side * longer)
    height, width = (long, side) if tall else (side, long)
    sizes, aspect = (least, min(least * ratio, LARGEST)), width / height
    if most > 1 and crowding(most, *sizes, aspect) > FULL:
        with pytest.raises(ValueError, match="fewer objects"):
            world.draw_scenes(world.generator("any", seed), 3, (1, most), sizes=sizes, aspect=aspect)
        return
    scenes = world.draw_scenes(world.generator("any", seed), 3, (1, most), sizes=sizes, aspect=aspect)
    coverage = drawn_alone(scenes, height, width)
    assert (coverage.sum(1) <= 1 + 1e-4).all(), "two objects overlap"
    border = torch.cat([coverage[..., 0], coverage[..., -1], coverage[..., 0, :], coverage[..., -1, :]], -1)
    assert border.max() < 0.3, "an object is cut off by the border"
    seen = coverage.flatten(2).amax(2) > 0.2
    assert torch.equal(seen, scenes.present), "an object that the scene has is not in the picture"


def test_dozens_of_small_objects():
    scenes = world.draw_scenes(world.generator("dozens"), 4, (48, 60), sizes=(0.02, 0.04))
    assert scenes.counts().min() >= 48
    assert scenes.present.shape == (4, 60)
    assert (drawn_alone(scenes, 200, 200).sum(1) <= 1 + 1e-4).all(), "two objects overlap"


@pytest.mark.parametrize("ratio", [1, 1.7, 10])
def test_radii_are_log_uniform_and_within_what_was_asked(ratio):
    low = 0.03
    scenes = world.draw_scenes(world.generator("log"), 4000, (1, 2), sizes=(low, low * ratio))
    sizes = scenes.size[scenes.present].double()
    assert sizes.min() > low - 1e-6
    assert sizes.max() < low * ratio + 1e-6
    if ratio > 1:
        u = (sizes / low).log() / np.log(ratio)
        counts = torch.histc(u, 10, 0, 1) / len(u)
        assert (counts - 0.1).abs().max() < 0.02, f"radii are not log-uniform: tenths hold {counts.tolist()}"


def test_slots_do_not_tell_sizes():
    """Large objects are placed first, but that must not show in the order of the slots."""
    scenes = world.draw_scenes(world.generator("slots"), 2000, (6, 6), sizes=(0.03, 0.1))
    means = scenes.size.mean(0)
    assert (means.max() - means.min()) / means.mean() < 0.1, f"mean radius by slot: {means.tolist()}"


def test_radii_in_pixels():
    scenes = world.draw_scenes(world.generator("px"), 5, (1, 4), sizes=(6 / 64, 6 / 64), aspect=128 / 64)
    assert torch.allclose(scenes.size[scenes.present] * 64, torch.tensor(6.0), atol=1e-4)


@pytest.mark.parametrize("shape", world.SHAPES)
def test_no_corner_lies_beyond_the_reach(shape):
    line = torch.linspace(-1.5, 1.5, 1201)
    x, y = line[None, None, :], line[None, :, None]
    inside = DISTANCES[shape](x, y)[0] < 0
    assert (x.square() + y.square()).sqrt()[0][inside].max() < REACH, f"{shape} reaches further than REACH says"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(objects=(1, 5)), "fewer objects, smaller sizes=.* or a longer aspect"),
        (dict(objects=(1, 200), sizes=(0.02, 0.02)), r"of radius 0.02 .* room for about \d+"),
        (dict(objects=(30, 30), sizes=(0.04, 0.3)), r"need .* of the area: .* fewer objects"),
        (dict(sizes=(0, 0.1)), "0 < least"),
        (dict(sizes=(0.2, 0.1)), "0 < least"),
        (dict(sizes=(4, 12)), "Divide radii in pixels"),
        (dict(sizes=0.1), "a pair of radii"),
        (dict(sizes=("a", "b")), "a pair of radii"),
        (dict(sizes=(float("nan"), 0.1)), "0 < least"),
        (dict(aspect=9), "from 1/8 to 8"),
        (dict(aspect=0), "from 1/8 to 8"),
        (dict(aspect="wide"), "from 1/8 to 8"),
        (dict(aspect=float("nan")), "from 1/8 to 8"),
    ],
)
def test_what_cannot_fit_says_why(request_, words):
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        world.draw_scenes(world.generator("bad"), 20, **request_)
    assert time.process_time() - start < 20, "refusing took too long"


def test_trying_ends(monkeypatch):
    """What area alone does not rule out is tried, but not for ever."""
    monkeypatch.setattr(placing, "FULL", 2.0)
    start = time.process_time()
    with pytest.raises(ValueError, match="failed to fit"):
        world.draw_scenes(world.generator("bad"), 20, (6, 6), sizes=(0.2, 0.2))
    assert time.process_time() - start < 5, "giving up took too long"


def test_what_is_drawn_by_default_has_not_changed():
    """Sizes, positions and backgrounds too, to four decimals (`test_scenes` holds the rest to a hash)."""
    scenes = world.draw_scenes(world.generator("frozen", seed=3), 3)
    sizes, places = [0.1605, 0.1971, 0.1916], [[0.6840, 0.7579], [0.7086, 0.2906], [0.2966, 0.7607]]
    assert torch.allclose(scenes.size[0], torch.tensor(sizes), atol=1e-4), "other sizes than before: is VERSION new?"
    assert torch.allclose(scenes.position[0], torch.tensor(places), atol=1e-4), "other positions: is VERSION new?"
