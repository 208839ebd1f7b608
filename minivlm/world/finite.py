"""A fixed, finite set of scenes and texts, for experiments about data: noise, balance, few examples."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minivlm.world.grammar import Captions
from minivlm.world.scenes import Scenes, draw_scenes, generator


def chosen(index: Any, n: int) -> np.ndarray:
    """The row numbers, from 0 to n - 1, that `index` means: a number, a slice, a list or tensor of numbers, a mask.

    Raises:
        IndexError: a number beyond the rows, or a mask of another length.
    """
    if isinstance(index, Tensor):
        index = index.numpy()
    try:
        number = operator.index(index)
    except TypeError:
        if isinstance(index, Sequence):
            index = list(index) or slice(0)
        return np.arange(n)[index]
    if not -n <= number < n:
        raise IndexError(f"sample {number} of {n}: the numbers run from 0 to {n - 1}.")
    return np.array([number % n])


class FiniteSet:
    """`size` scenes with a text each, decided by `name` and `seed` alone: the same on every machine.

    `[index]` gives a smaller set (a batch is a small set; a mask filters), `with_texts` the same scenes with other texts,
    `join` one set from several. A larger `size` is another set, not a longer one; take nested ones as `data[:100]`.

    Args:
        name: of the set; every name has other scenes.
        seed: a whole number.
        size: scenes.
        write: from a generator to what turns scenes into one text each, such as `Captions`.
        draw: further arguments of `draw_scenes`, such as `objects` and `pairs`.
    """

    def __init__(
        self,
        name: str,
        seed: int = 0,
        size: int = 1000,
        write: Callable[[np.random.Generator], Callable[[Scenes], list[str]]] = Captions,
        **draw: Any,
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"a set holds at least 1 scene; got size={size!r}.")
        scenes = draw_scenes(generator(f"{name} scenes", seed), size, **draw)
        self._fill(name, seed, scenes, write(generator(f"{name} texts", seed))(scenes))

    def _fill(self, name: str, seed: int, scenes: Scenes, texts: Any) -> FiniteSet:
        if not isinstance(texts, list) or len(texts) != len(scenes) or not all(isinstance(text, str) for text in texts):
            got = f"{len(texts)} texts" if isinstance(texts, list) else f"a {type(texts).__name__}"
            raise ValueError(
                f"{len(scenes)} scenes need a list of as many texts; got {got}. (Of web captions take .texts.)"
            )
        self.name, self.seed, self.scenes, self.texts = name, seed, scenes, texts
        return self

    def _like(self, scenes: Scenes, texts: Any) -> FiniteSet:
        return FiniteSet.__new__(FiniteSet)._fill(self.name, self.seed, scenes, texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> FiniteSet:
        """The samples at `index` (a number, a slice, a list or tensor of numbers, a mask): always a set."""
        rows = chosen(index, len(self))
        return self._like(self.scenes[torch.from_numpy(rows)], [self.texts[i] for i in rows])

    def with_texts(self, texts: Any) -> FiniteSet:
        """The same scenes with other texts, one each.

        Raises:
            ValueError: another number of texts than scenes.
        """
        return self._like(self.scenes, texts)

    @staticmethod
    def join(parts: Sequence[FiniteSet]) -> FiniteSet:
        """One set from several, with the first one's name and seed; they need the same number of slots.

        Raises:
            ValueError: nothing to join, or different numbers of slots.
        """
        if not parts:
            raise ValueError("join needs at least one set; got none.")
        texts = [text for part in parts for text in part.texts]
        return parts[0]._like(Scenes.join([part.scenes for part in parts]), texts)

    def order(self, epoch: int) -> np.ndarray:
        """The order of the samples in an epoch. Every epoch has its own, whatever was drawn before."""
        if epoch < 0:
            raise ValueError(f"epochs are counted from 0; got {epoch}.")
        return generator(f"{self.name} epoch {epoch}", self.seed).permutation(len(self))

    def epoch(self, number: int, batch: int, whole: bool = False) -> Iterator[FiniteSet]:
        """Every sample once, in `order(number)`, in batches of `batch`; the last may be smaller, or with `whole` is left out.

        Raises:
            ValueError: a batch of no samples, or with `whole` one larger than the set.
        """
        if batch < 1 or (whole and batch > len(self)):
            raise ValueError(f"a batch holds 1 to {len(self)} of the set's samples; got {batch}.")
        order = self.order(number)
        last = len(self) - batch if whole else len(self) - 1
        return (self[order[start : start + batch]] for start in range(0, last + 1, batch))

    def endless(self, batch: int) -> Iterator[FiniteSet]:
        """Epoch after epoch, in whole batches: as many as the training asks for."""
        number = 0
        while True:
            yield from self.epoch(number, batch, whole=True)
            number += 1
