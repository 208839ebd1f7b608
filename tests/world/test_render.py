"""Pictures show what the scene says, at every size and aspect ratio."""

import pytest
import torch

from minivlm import world
from minivlm.world.render import DISTANCES

PALETTE = torch.tensor(list(world.COLOURS.values()))


def test_every_shape_has_a_distance_function():
    assert tuple(DISTANCES) == world.SHAPES


@pytest.mark.parametrize("shape", world.SHAPES)
def test_shapes_fill_their_circle_and_do_not_leave_it(shape):
    line = torch.linspace(-1.5, 1.5, 301)
    x, y = line[None, None, :], line[None, :, None]
    inside = DISTANCES[shape](x, y)[0] < 0
    radius = (x.square() + y.square()).sqrt()[0]
    assert radius[inside].max() < 1.07, f"{shape} leaves its circle: neighbours would touch"
    assert radius[inside].max() > 0.9, f"{shape} is smaller than its size says"
    assert inside.float().mean() * 9 > 0.7, f"{shape} covers too little to be seen"


def test_shapes_can_be_told_apart():
    things = [world.compose(dict(colour="black", shape=shape, size=0.3)) for shape in world.SHAPES]
    pictures = world.render(world.Scenes.join(things), 32).flatten(1)
    gaps = torch.cdist(pictures, pictures) + 99 * torch.eye(len(pictures))
    assert gaps.min() > 4, "two shapes look almost alike at 32 pixels"


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (33, 47), (40, 320), (320, 40)])
def test_the_centre_of_each_object_has_its_colour(height, width):
    """Read the pixels: where the scene says a filled object is, its colour is; elsewhere at the corner, background."""
    scenes = world.draw_scenes(world.generator("read"), 200, (1, 3))
    images = world.render(scenes, height, width)
    assert images.shape == (200, 3, height, width)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    filled = scenes.present & (scenes.size * min(height, width) > 3)
    for hollow in ("ring", "moon"):
        filled &= scenes.shape != world.SHAPES.index(hollow)
    b, o = filled.nonzero(as_tuple=True)
    x = (scenes.position[b, o, 0] * width).long()
    y = (scenes.position[b, o, 1] * height).long()
    seen = images[b, :, y, x]
    if len(b):
        assert torch.allclose(seen, PALETTE[scenes.colour[b, o]], atol=2e-3)
    assert (height, width) == (8, 8) or len(b) > 100
    if min(height, width) > 16:
        assert torch.allclose(images[:, :, 0, 0], scenes.background, atol=1e-5)


@pytest.mark.parametrize("shape", world.SHAPES)
def test_a_large_picture_shrunk_is_the_small_picture(shape):
    """Anti-aliasing is right if drawing small equals drawing large and averaging."""
    scene = world.compose(dict(colour="blue", shape=shape, x=0.43, y=0.56, size=0.3))
    large = world.render(scene, 512)
    small = world.render(scene, 64)
    averaged = torch.nn.functional.avg_pool2d(large, 8)
    assert (averaged - small).abs().mean() < 2e-3
    assert (averaged - small).abs().max() < 0.35


def test_shapes_keep_their_proportions_on_wide_canvases():
    scene = world.compose(dict(colour="black", shape="square", size=0.3))
    dark = world.render(scene, 40, 200)[0].mean(0) < 0.5
    rows, columns = dark.any(1).sum(), dark.any(0).sum()
    assert rows == columns


def test_later_objects_lie_on_top():
    below = dict(colour="red", shape="square", size=0.4)
    above = dict(colour="blue", shape="circle", size=0.2)
    middle = world.render(world.compose(below, above), 32)[0, :, 16, 16]
    assert torch.allclose(middle, PALETTE[list(world.COLOURS).index("blue")], atol=1e-3)


def test_a_scene_looks_the_same_alone_and_in_any_batch():
    scenes = world.draw_scenes(world.generator("batch"), 150)
    together = world.render(scenes, 32)
    alone = torch.cat([world.render(scenes[i], 32) for i in range(0, 150, 10)])
    assert torch.allclose(together[::10], alone, atol=1e-6)


@pytest.mark.parametrize("size", [(0, 32), (32, 0), (-1, 5), (2.5, 5)])
def test_empty_pictures_say_why(size):
    with pytest.raises(ValueError, match="at least 1 x 1"):
        world.render(world.draw_scenes(world.generator("x"), 1), *size)
