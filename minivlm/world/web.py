"""Captions as the web has them: many true, some of another picture, some wrong in a word, some saying nothing.

What was planted is known, so that a filter can be measured. It is kept apart from the texts: training gets `.texts`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minivlm.world.finite import chosen
from minivlm.world.grammar import Captions
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.scenes import Scenes, draw_scenes
from minivlm.world.splits import SEEN

#: What a caption can be. `swapped`: a true caption of another scene. `wrong colour`, `wrong shape`: one thing renamed.
#: `generic`: nothing about any scene. `truncated`: the start of a true caption. `loop`: one whose end repeats itself.
NOISE: tuple[str, ...] = ("clean", "swapped", "wrong colour", "wrong shape", "generic", "truncated", "loop")

#: Kinds that name a thing which the scene does not have.
FALSE: tuple[str, ...] = ("swapped", "wrong colour", "wrong shape")

#: Texts that say nothing; `{}` becomes a number.
GENERIC: tuple[str, ...] = (
    "best price today", "free shipping", "click here for more", "order now", "no title", "sale today", "img {}",
    "stock photo {}", "image {} for free", "page {}", "picture of the day", "more here",
)  # fmt: skip

WORDS: tuple[str, ...] = (
    "best", "price", "today", "free", "shipping", "click", "here", "for", "more", "order", "now", "no", "title", "sale",
    "img", "stock", "page", "day",
)  # fmt: skip

#: Words after which a caption could have ended as well: a text cut there would not look cut.
_ENDS = {
    *SHAPES, "top", "bottom", "left", "right", "middle", "picture", "photo", "image", "drawing", "thing", "things",
}  # fmt: skip
_PAIR = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_COLOUR_INDEX = {word: i for i, word in enumerate(COLOURS)}
_SHAPE_INDEX = {word: i for i, word in enumerate(SHAPES)}
_TRIES = 200


@dataclass(frozen=True)
class WebTexts:
    """Captions and what was planted in each. Train on `texts` alone; `noise` is for measuring."""

    texts: list[str]
    noise: Int[Tensor, "b"]  # index into NOISE

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> "WebTexts":
        """The captions at `index` (a number, a slice, a list or tensor of numbers, a mask): always a batch."""
        rows = chosen(index, len(self))
        return WebTexts([self.texts[i] for i in rows], self.noise[torch.from_numpy(rows)])


class WebCaptions:
    """Draws noisy captions: `WebCaptions(rng, noise=0.5)(scenes)` gives a `WebTexts` with one caption a scene.

    Args:
        rng: where the choices come from.
        noise: probability that a caption is not clean.
        kinds: which kinds of noise, evenly.
        captions: writes true captions that name colour and shape of what they speak of; default `Captions(rng)`.
        pairs: (colour, shape) pairs that may be named wrongly, so that no noise brings up a pair that is held out.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        noise: int | float = 0.5,
        kinds: Sequence[str] = NOISE[1:],
        captions: Callable[[Scenes], list[str]] | None = None,
        pairs: Iterable[tuple[int, int]] = SEEN,
    ) -> None:
        if not 0 <= noise <= 1:
            raise ValueError(f"noise is a probability, from 0 to 1; got {noise}.")
        if isinstance(kinds, str) or not kinds or not set(kinds) <= set(NOISE[1:]):
            raise ValueError(f"kinds is a list of some of {NOISE[1:]}; got {kinds!r}.")
        self.rng, self.noise, self.kinds = rng, noise, list(kinds)
        self.captions = Captions(rng) if captions is None else captions
        self.pairs = [tuple(pair) for pair in pairs]
        self._allowed = torch.zeros(len(COLOURS), len(SHAPES), dtype=torch.bool)
        for colour, shape in self.pairs:
            self._allowed[colour, shape] = True

    def __call__(self, scenes: Scenes) -> WebTexts:
        """One caption a scene.

        Raises:
            ValueError: a scene of which nothing false can be said, because it holds all `pairs`.
        """
        number = np.array([NOISE.index(kind) for kind in self.kinds])[
            self.rng.integers(len(self.kinds), size=len(scenes))
        ]
        number = np.where(self.rng.random(len(scenes)) < self.noise, number, 0)
        true = self.captions(scenes)
        texts, there = list(true), _pairs_there(scenes)
        for kind in self.kinds:
            rows = np.flatnonzero(number == NOISE.index(kind))
            if kind == "swapped":
                found = self._false(rows, there, lambda rows, trial: self._others(rows, true, trial))
            elif kind in FALSE:
                found = self._false(rows, there, lambda rows, _, kind=kind: self._renamed(scenes, rows, there, kind))
            else:
                found = [getattr(self, f"_{kind}")(true[i]) for i in rows]
            for i, text in zip(rows, found, strict=True):
                texts[i] = text
        return WebTexts(texts, torch.from_numpy(number))

    def _false(self, rows: np.ndarray, there: Bool[Tensor, "b c s"], propose: Callable[..., list[str]]) -> list[str]:
        """For each row the first proposed text that names a pair which the row's scene lacks."""
        found: dict[int, str] = {}
        for trial in range(_TRIES):
            todo = np.array([i for i in rows if i not in found], dtype=int)
            if not len(todo):
                return [found[i] for i in rows]
            for i, text in zip(todo, propose(todo, trial), strict=True):
                if any(
                    not there[i, _COLOUR_INDEX[colour], _SHAPE_INDEX[shape]] for colour, shape in _PAIR.findall(text)
                ):
                    found[i] = text
        raise ValueError(
            f"no false caption was found for scene {todo[0]} in {_TRIES} tries: it holds every pair that may be named, or"
            " the captions name no pair. Use scenes with fewer objects."
        )

    def _others(self, rows: np.ndarray, true: list[str], trial: int) -> list[str]:
        """Captions of other scenes of the batch; of new scenes if there are no fitting ones."""
        if trial < _TRIES // 2:
            return [true[j] for j in self.rng.integers(len(true), size=len(rows))]
        return self.captions(draw_scenes(self.rng, len(rows), (1, 3), self.pairs))

    def _renamed(self, scenes: Scenes, rows: np.ndarray, there: Bool[Tensor, "b c s"], kind: str) -> list[str]:
        """Captions of the scenes with another colour, or another shape, for one object of each."""
        here, each = scenes[torch.from_numpy(rows)], torch.arange(len(rows))
        slot = (torch.from_numpy(self.rng.random(here.present.shape)) * here.present).argmax(1)
        free = self._allowed & ~there[torch.from_numpy(rows)]
        if kind == "wrong colour":
            free, old = free[each, :, here.shape[each, slot]], here.colour
        else:
            free, old = free[each, here.colour[each, slot]], here.shape
        new = old.clone()
        new[each, slot] = (torch.from_numpy(self.rng.random(free.shape)) * free).argmax(1)
        return self.captions(replace(here, **{"colour" if kind == "wrong colour" else "shape": new}))

    def _generic(self, _: str) -> str:
        return GENERIC[self.rng.integers(len(GENERIC))].format(self.rng.integers(1000, 10_000))

    def _truncated(self, text: str) -> str:
        words = text.split()
        cuts = [i for i in range(1, len(words)) if words[i - 1].strip(",.") not in _ENDS]
        return " ".join(words[: cuts[self.rng.integers(len(cuts))]])

    def _loop(self, text: str) -> str:
        words = text.split()
        end = words[-int(self.rng.integers(2, 5)) :]
        return " ".join(words + end * int(self.rng.integers(3, 7)))


def loops(text: str, times: int = 3) -> bool:
    """Whether a text ends in the same words said `times` times or more in a row.

    Raises:
        ValueError: `times` below 2, which every text would fulfil.
    """
    if times < 2:
        raise ValueError(f"a loop says something at least 2 times; got times={times}.")
    words = text.split()
    return any(words[-n * times :] == words[-n:] * times for n in range(1, len(words) // times + 1))


def _pairs_there(scenes: Scenes) -> Bool[Tensor, "b c s"]:
    """Which colour-shape pairs each scene has."""
    there = torch.zeros(len(scenes), len(COLOURS), len(SHAPES), dtype=torch.bool)
    row, slot = scenes.present.nonzero(as_tuple=True)
    there[row, scenes.colour[row, slot], scenes.shape[row, slot]] = True
    return there
