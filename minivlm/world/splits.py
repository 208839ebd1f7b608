"""Which colour-shape pairs are never seen in training.

Each colour is kept from two shapes and each shape from two colours (16 of 64 pairs, a quarter): every colour and every
shape is seen in training, these *combinations* are not. Naming one of them right therefore needs composition, not memory.
"""

from minivlm.world.palette import COLOURS, SHAPES

#: (colour index, shape index) of every pair, in the order of the prompts: colour first.
_PAIRS = [(c, s) for c in range(len(COLOURS)) for s in range(len(SHAPES))]

#: Pairs in no training image.
HELD_OUT: tuple[tuple[int, int], ...] = tuple((c, s) for c, s in _PAIRS if (s - c) % len(SHAPES) in (0, 3))

#: Pairs that training images are made of.
SEEN: tuple[tuple[int, int], ...] = tuple(pair for pair in _PAIRS if pair not in HELD_OUT)


def all_pairs() -> list[tuple[int, int]]:
    """All (colour index, shape index) pairs, ordered so that pair (c, s) stands at `c * len(SHAPES) + s`."""
    return list(_PAIRS)


def pair_name(colour: int, shape: int) -> str:
    """The words of a pair: `pair_name(0, 0) == "red circle"`."""
    return f"{list(COLOURS)[colour]} {SHAPES[shape]}"
