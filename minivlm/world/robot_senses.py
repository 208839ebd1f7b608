"""What a robot's sensors say of its blocks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minivlm.world.palette import COLOURS
from minivlm.world.robot import HIGHEST, PLACES, Tables

#: Numbers of one block: there, its place, its height, its colour, the colour under it and the colour on it.
NUMBERS = 1 + PLACES + HIGHEST + 3 * len(COLOURS)


def touch_vectors(tables: Tables) -> Float[Tensor, "b k d"]:
    """A vector for each block, of switches that are 0 or 1: there; which place; how high; which colour; which colour it touches
    below (none: the table), and which above. Absent blocks: zeros.
    """
    there = tables.present[..., None].float()
    colour = F.one_hot(tables.colour, len(COLOURS)) * there
    same = (tables.place[:, :, None] == tables.place[:, None]) & tables.present[:, :, None] & tables.present[:, None]
    rests = (same & (tables.level[:, :, None] == tables.level[:, None] + 1)).float()  # the first on the second
    where = [F.one_hot(tables.place, PLACES) * there, F.one_hot(tables.level, HIGHEST) * there]
    return torch.cat([there, *where, colour, rests @ colour, rests.mT @ colour], -1)
