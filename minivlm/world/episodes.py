"""Episodes: pictures with names invented for this episode alone. Who names the last picture right has learned in context.

In each episode every class (a colour and shape, a colour, or a shape) has a name drawn anew, so names mean nothing beyond
it. Some pictures of each class come with their name, then one without.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.world.finite import chosen
from minivlm.world.grammar import article
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.questions import Question
from minivlm.world.scenes import Scenes, draw_scenes
from minivlm.world.splits import SEEN, all_pairs, pair_name

#: Words that mean nothing. All begin with a consonant, so that `a` is right before each and gives none away.
NAMES: tuple[str, ...] = (
    "dax", "wug", "blick", "toma", "fep", "zorp", "mip", "lorp", "kiki", "bouba", "gazzer", "mobu",
    "tulver", "noop", "vash", "pim", "quib", "zib", "rond", "sarn", "dof", "hux", "jarn", "kelv",
    "lunt", "murb", "nalp", "pesk", "rulf", "sopo", "tivo", "vonk", "wazo", "yarl", "zindle", "bosp",
    "crul", "dwem", "fisp", "glorn", "hirk", "jeeb", "klem", "luro", "mavu", "nurt", "plob", "quol",
    "relk", "snur", "trag", "vimp", "wolbo", "yemp", "zaff", "bamu", "chiv", "drox", "fomu", "grolp",
    "huld", "jovu", "kwent", "lefa",
)  # fmt: skip

WORDS: tuple[str, ...] = ("this", "is", "a", "an", *NAMES)

#: What makes a class.
BY: tuple[str, ...] = ("pair", "colour", "shape")

#: Classes of an episode unless another number is asked for; `Episodes.chance` is right for every number.
CLASSES = 2

CHANCE: dict[str, float] = {"name": 1 / CLASSES}

#: The query is at least this far from every shot in x, y or radius (fractions of the picture): never a copy.
APART = 0.02


@dataclass(frozen=True)
class Episodes:
    """`n` episodes of `s` named pictures (shots) and one to be named (query), each of one object. All on the CPU."""

    shots: Scenes  # n * s, episode after episode, in the order in which they come
    query: Scenes  # n
    names: Int[Tensor, "n c"]  # index into NAMES for each class
    shown: Int[Tensor, "n s"]  # class of each shot
    asked: Int[Tensor, "n"]  # class of the query

    def __len__(self) -> int:
        return self.asked.shape[0]

    def __getitem__(self, index: Any) -> "Episodes":
        """Episodes at `index` (a number, a slice, a list or tensor of numbers, a mask): always a batch."""
        rows = torch.from_numpy(chosen(index, len(self)))
        count = self.shown.shape[1]
        shots = self.shots[(rows[:, None] * count + torch.arange(count)).flatten()]
        return Episodes(shots, self.query[rows], self.names[rows], self.shown[rows], self.asked[rows])

    @property
    def chance(self) -> float:
        """The level of guessing among the names of the episode."""
        return 1 / self.names.shape[1]

    def scenes(self) -> Scenes:
        """All n * (s + 1) pictures in the order of the text: an episode's shots, its query, the next one's shots, ..."""
        n, count = self.shown.shape
        order = torch.cat([torch.arange(n * count).view(n, count), n * count + torch.arange(n)[:, None]], 1)
        return Scenes.join([self.shots, self.query])[order.flatten()]

    def answers(self, look: bool = False) -> list[str]:
        """The name of each query, or with `look` what it shows, with its article: `a red star`."""
        if look:
            return [article(words) for words in _looks(self.query)]
        return [NAMES[i] for i in self.names.gather(1, self.asked[:, None])[:, 0].tolist()]

    def interleaved(self, image: str = "<image>", gap: str = " ", stop: str = ".", look: bool = False) -> list[str]:
        """Pictures and names in turn: `<image> this is a dax. <image> this is a wug. <image> this is a`.

        `image` stands for each picture, `stop` ends each sentence, `gap` stands between image, sentence and image. With
        `look` each picture is called what it shows, not by its name (`<image> this is a red star. <image> this is`): then
        the last image alone decides what is right.
        """
        said, last = (self._shot_looks(), "this is") if look else (self._shot_names(), "this is a")
        return [
            gap.join([f"{image}{gap}this is {article(words)}{stop}" for words in row] + [f"{image}{gap}{last}"])
            for row in said
        ]

    def told(self) -> list[str]:
        """The same without pictures, up to the name: `a red star is a dax. a blue ring is a wug. a red star is a`."""
        return [f"{question.told} {question.question}" for question in self.questions()]

    def questions(self) -> list[Question]:
        """Kind `name`. `told` describes the shots, each with its name; the question describes the query."""
        rows = zip(self._shot_looks(), self._shot_names(), self.answers(look=True), self.answers(), strict=True)
        found = []
        for looks, names, asked, answer in rows:
            shots = [f"{article(look)} is {article(name)}." for look, name in zip(looks, names, strict=True)]
            found.append(Question("name", " ".join(shots), f"{asked} is a", answer))
        return found

    def _shot_looks(self) -> list[list[str]]:
        words, count = _looks(self.shots), self.shown.shape[1]
        return [words[start : start + count] for start in range(0, len(words), count)]

    def _shot_names(self) -> list[list[str]]:
        return [[NAMES[i] for i in row] for row in self.names.gather(1, self.shown).tolist()]


def draw_episodes(
    rng: np.random.Generator,
    n: int,
    classes: int = CLASSES,
    shots: int = 1,
    by: str = "pair",
    pairs: Iterable[Any] = SEEN,
    names: Sequence[str] = NAMES,
) -> Episodes:
    """Draw `n` episodes of `classes * shots` named pictures, `shots` of each class in random order, and a query.

    Names are drawn without regard to what they name, the query's class evenly, so that neither a name nor its place among
    the shots tells anything. A class is what `by` says. By `colour` ("every red thing is a dax") shapes are random, but no
    shot has the query's: only the colour they share leads to the name; by `shape` likewise. Every picture has an object of
    its own size and place.

    Raises:
        ValueError: a number below 1 (or below 2 classes), an unknown `by`, pair or name, fewer names or classes in the
            world than asked for, or pairs that leave a class no choice of its other attribute.
    """
    pairs, names = [tuple(pair) for pair in pairs], list(names)
    if not all(isinstance(number, int) for number in (n, classes, shots)) or n < 1 or classes < 2 or shots < 1:
        raise ValueError(
            f"an episode needs 2 classes and 1 shot of each, at least, in whole numbers; got {n} episodes with"
            f" classes={classes}, shots={shots}."
        )
    if by not in BY:
        raise ValueError(f"by is what makes a class, one of {BY}; got {by!r}.")
    if not pairs or not set(pairs) <= set(all_pairs()):
        raise ValueError(f"pairs are (colour index, shape index) below ({len(COLOURS)}, {len(SHAPES)}); got {pairs}.")
    if len(set(names)) != len(names) or not set(names) <= set(NAMES):
        raise ValueError(f"names are distinct words of NAMES; got {names}.")

    pairs = np.array(sorted(set(pairs)))
    values = pairs if by == "pair" else np.unique(pairs[:, BY.index(by) - 1])[:, None]
    if classes > min(len(values), len(names)):
        raise ValueError(
            f"classes={classes} is more than there are: {len(values)} by {by}, and {len(names)} names. Ask for fewer."
        )
    value = values[_distinct(rng, n, len(values), classes)]  # (n, classes, 2 or 1)
    name = np.array([NAMES.index(word) for word in names])[_distinct(rng, n, len(names), classes)]
    shown = np.repeat(np.arange(classes), shots)[_distinct(rng, n, classes * shots, classes * shots)]
    asked = rng.integers(classes, size=n)
    of_shots, of_query = (np.take_along_axis(value, which[..., None], 1) for which in (shown, asked[:, None]))
    if by != "pair":
        of_shots, of_query = _completed(rng, of_shots, of_query, pairs, by)
    shot_scenes, query_scenes = _laid_out(rng, n, shown.shape[1])
    return Episodes(
        shots=_looking(shot_scenes, of_shots),
        query=_looking(query_scenes, of_query),
        names=torch.from_numpy(name),
        shown=torch.from_numpy(shown),
        asked=torch.from_numpy(asked),
    )


def _distinct(rng: np.random.Generator, n: int, of: int, count: int) -> np.ndarray:
    """`n` rows of `count` different numbers below `of`, in random order."""
    return rng.random((n, of)).argsort(1, kind="stable")[:, :count]


def _completed(
    rng: np.random.Generator, shots: np.ndarray, query: np.ndarray, pairs: np.ndarray, by: str
) -> tuple[np.ndarray, np.ndarray]:
    """(colour, shape) of shots and queries of which the one that makes the class is known.

    The other is random among `pairs`, but no shot has the query's.
    """
    allowed = np.zeros((len(COLOURS), len(SHAPES)), bool)
    allowed[pairs[:, 0], pairs[:, 1]] = True
    allowed = allowed if by == "colour" else allowed.T
    choices = allowed.sum(1)
    if (choices == 1).any():
        few = (list(COLOURS) if by == "colour" else SHAPES)[int((choices == 1).argmax())]
        raise ValueError(
            f"by {by}, every class needs at least 2 pairs, so that shots and query can differ; {few} has 1."
        )
    free = allowed[query[..., 0]]
    other = (rng.random(free.shape) * free).argmax(-1)
    free = allowed[shots[..., 0]] & (np.arange(allowed.shape[1]) != other[..., None])
    others = (rng.random(free.shape) * free).argmax(-1)
    shots, query = np.stack([shots[..., 0], others], -1), np.stack([query[..., 0], other], -1)
    return (shots, query) if by == "colour" else (shots[..., ::-1], query[..., ::-1])


def _laid_out(rng: np.random.Generator, n: int, count: int) -> tuple[Scenes, Scenes]:
    """One object a picture: `n * count` shots, and `n` queries of which none is laid out as a shot of its episode."""
    shots, query = draw_scenes(rng, n * count, (1, 1)), draw_scenes(rng, n, (1, 1))
    layout = torch.cat([shots.position[:, 0], shots.size], 1).view(n, count, 3)
    while True:
        gap = (torch.cat([query.position[:, 0], query.size], 1)[:, None] - layout).abs().amax(-1)
        close = (gap < APART).any(1)
        if not close.any():
            return shots, query
        fresh = draw_scenes(rng, int(close.sum()), (1, 1))
        order = torch.arange(n)
        order[close] = n + torch.arange(len(fresh))
        query = Scenes.join([query, fresh])[order]


def _looking(scenes: Scenes, pair: np.ndarray) -> Scenes:
    """The scenes with another colour and shape of their one object."""
    pair = torch.from_numpy(np.ascontiguousarray(pair.reshape(-1, 2)))
    return replace(scenes, colour=pair[:, :1], shape=pair[:, 1:])


def _looks(scenes: Scenes) -> list[str]:
    """What each picture shows: `red star`."""
    return [pair_name(*pair) for pair in zip(scenes.colour[:, 0].tolist(), scenes.shape[:, 0].tolist(), strict=True)]
