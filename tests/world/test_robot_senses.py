"""What a robot feels, read off its tables."""

import torch

from minivlm import world
from minivlm.world.robot import HIGHEST, PLACES, compose_table, draw_tables
from minivlm.world.robot_senses import NUMBERS, touch_vectors

COLOURS = list(world.COLOURS)


def read(vector: torch.Tensor) -> list:
    there, place, level, *colours = vector.split([1, PLACES, HIGHEST, 8, 8, 8])
    one = lambda part: int(part.argmax()) if part.sum() == 1 else None
    return [bool(there), one(place), one(level), *[one(part) for part in colours]]


def test_by_hand():
    (vectors,) = touch_vectors(compose_table(["red", "blue"], [], ["green"]))
    name = COLOURS.index
    assert vectors.shape == (3, NUMBERS)
    assert read(vectors[0]) == [True, 0, 0, name("red"), None, name("blue")]
    assert read(vectors[1]) == [True, 0, 1, name("blue"), name("red"), None]
    assert read(vectors[2]) == [True, 2, 0, name("green"), None, None]


def test_what_is_touched_is_what_stands_there():
    tables = draw_tables(world.generator("touch"), 100, slots=4)
    vectors = touch_vectors(tables)
    assert (vectors[~tables.present] == 0).all()
    assert set(vectors.unique().tolist()) == {0.0, 1.0}
    for i, columns in enumerate(tables.columns()):
        colour = tables.colour[i].tolist()
        for place, column in enumerate(columns):
            for level, block in enumerate(column):
                below = colour[column[level - 1]] if level else None
                above = colour[column[level + 1]] if level + 1 < len(column) else None
                assert read(vectors[i, block]) == [True, place, level, colour[block], below, above]
