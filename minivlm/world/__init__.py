"""The toy world: scenes of coloured shapes, their pictures and their words.

Everything random comes from a *named, seeded* numpy generator (`generator("train", seed=0)`), so that the same name and
seed give the same scenes on every machine; pictures are rendered in torch, at any size, on any device.
Nothing here knows a model, and no model knows the world.
"""

from minivlm.world.grammar import FRAMES, Captions, article
from minivlm.world.palette import COLOURS, SHAPES, SIZES
from minivlm.world.render import render
from minivlm.world.scenes import Scenes, compose, draw_scenes, generator
from minivlm.world.splits import HELD_OUT, SEEN, all_pairs, pair_name
from minivlm.world.words import vocabulary

#: Version of everything that decides what a scene, a picture or a caption is; part of every stored result.
VERSION = "1.0"

__all__ = [
    "COLOURS",
    "FRAMES",
    "HELD_OUT",
    "SEEN",
    "SHAPES",
    "SIZES",
    "VERSION",
    "Captions",
    "Scenes",
    "all_pairs",
    "article",
    "compose",
    "draw_scenes",
    "generator",
    "pair_name",
    "render",
    "vocabulary",
]
