"""Which examples of a finite set make up which batch."""

from collections.abc import Callable, Iterator

import numpy as np


def shuffled(n: int, batch: int, seed: int = 0, rank: int = 0, world: int = 1) -> Callable[[int], Iterator[list[int]]]:
    """The numbers of the examples in each batch, without end: each pass through the set in another order, and what is left over
    when a pass has no full batch any more is left out of it.

        order = shuffled(len(dataset), batch=256, rank=ranks.rank, world=ranks.world)
        DataLoader(dataset, batch_sampler=order(start), ...)

    They depend on seed and position alone, so `order(k)` begins with batch k at once. With `world` processes each gets its own
    part of the same batch.

    Args:
        n: examples in the set.
        batch: examples of a batch, those of all processes together.

    Raises:
        ValueError: the batch is larger than the set, or cannot be shared evenly.
    """
    if not 1 <= batch <= n:
        raise ValueError(f"a batch of {batch} cannot be drawn from {n} examples; it takes 1 to {n}.")
    if batch % world or not 0 <= rank < world:
        raise ValueError(f"a batch of {batch} cannot be shared by {world} processes (this one is {rank}).")
    mine, passes = batch // world, n // batch

    def order(start: int) -> Iterator[list[int]]:
        position = start
        while True:
            epoch = position // passes
            indices = np.random.default_rng([seed, epoch]).permutation(n)
            while position // passes == epoch:
                at = position % passes * batch + rank * mine
                yield indices[at : at + mine].tolist()
                position += 1

    return order
