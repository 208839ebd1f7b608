"""Questions that only time answers: what moves where, what came first, what happened at which second.

Whatever does not know the order of the frames is at chance for `direction` and `order`, exactly: a drawn video is as likely
as the same one played backwards, for which the other answer is right. Neither does one frame help, even if its time is known
(`direction`, `speed`, `motion`: an object is equally likely to be anywhere at any time, since it goes on from the opposite
border), or if it is one in which nothing has happened yet or any more (`order`, `second`: nothing does in the first and the
last second). Any other frame shows that something is there, not since when.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from minivlm.world.grammar import NUMBERS, article, number
from minivlm.world.motion import DIRECTIONS, Actor, Videos, actors, film, frames
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.placing import MARGIN
from minivlm.world.questions import Question
from minivlm.world.splits import SEEN, all_pairs

#: Radii of drawn objects, and speeds in sides a second: the words `slowly` and `fast` are far apart.
RADII = (0.10, 0.13)
SLOW, FAST = (0.05, 0.075), (0.13, 0.16)

#: Seconds a drawn video lasts, unless told otherwise; the most things that come in where they are counted.
SECONDS, NEW = 8, 3

#: Kind of question -> probability of a guess among all its answers (in videos of `SECONDS`).
CHANCE: dict[str, float] = {
    "direction": 1 / len(DIRECTIONS),
    "order": 1 / 2,
    "speed": 1 / 2,
    "second": 1 / (SECONDS - 3),
    "count": 1 / (NEW + 1),
    "motion": 1 / 2,
}
KINDS = tuple(CHANCE)

WORDS = (
    *"a an the which way what how many new things first second at or is and does move moves left right up down".split(),
    *"slowly fast faster stands still appear appears vanishes turn turns yes no".split(),
    *NUMBERS,
)


def draw_videos(
    rng: np.random.Generator,
    n: int,
    kind: str,
    seconds: int = SECONDS,
    objects: Any = (2, 3),
    pairs: Iterable[Any] = SEEN,
    slots: int | None = None,
) -> Videos:
    """Draw `n` videos of which a question of that `kind` can be asked (`ask`): always about the objects that lie on top.

    `direction`, `speed` and `motion`: some objects move, each straight on in its own direction, others stand still.
    `order`: each appears for a while. `second`: each appears or changes colour for a while, at its own whole second.
    `count`: objects that are there from the start, of which some vanish, and up to `NEW` that appear.

    All objects of a video differ in shape. No colour is worn, first or second, that `pairs` does not allow to the shape.

    Args:
        seconds: a whole number; things begin at second 1 to `seconds - 3`; what ends again, does so soon after.
        objects: the least and the most of them (for `count`: of those that are there from the start).
        pairs: (colour index, shape index) to draw from: shapes evenly, then their colours.
        slots: number of columns, for joining batches (default: as many as the kind needs).

    Raises:
        ValueError: no videos, an unknown kind, too few seconds, pairs or slots for what is asked; the message says which.
    """
    low, high = _check(n, kind, seconds, objects)
    many = rng.integers(low, high + 1, n)
    new = rng.integers(NEW + 1, size=n) if kind == "count" else np.zeros(n, np.int64)
    most = high + NEW if kind == "count" else high
    slots = most if slots is None else slots
    if slots < most:
        raise ValueError(f"slots={slots} is fewer than the {most} objects a video may have.")
    colour, second_colour, shape = _dress(rng, n, most, list(pairs), turning=kind == "second")
    size = rng.uniform(*RADII, (n, most))
    columns = {"colour": colour, "second_colour": second_colour, "shape": shape, "size": size}
    if kind in ("direction", "speed", "motion"):
        columns |= _moving(rng, kind, many, size)
    else:
        columns |= _happening(rng, kind, many, seconds, size)
    background = rng.uniform(0.86, 0.97, (n, 1)) + rng.uniform(-0.025, 0.025, (n, 3))
    present = np.arange(slots) < (many + new)[:, None]
    still = {"start": np.zeros((n, most, 2)), "velocity": np.zeros((n, most, 2)), "appear": np.zeros((n, most))}
    never = {key: np.full((n, most), math.inf) for key in ("vanish", "change", "back")}
    tensors = {}
    for key, value in (still | never | columns).items():
        full = np.zeros((n, slots, *value.shape[2:]), value.dtype)
        full[:, :most] = value
        full[~present] = 0
        tensors[key] = torch.from_numpy(full if full.dtype == np.int64 else full.astype(np.float32))
    return Videos(
        **tensors,
        present=torch.from_numpy(present),
        duration=torch.full((n,), float(seconds)),
        background=torch.from_numpy(background.astype(np.float32)),
    )


def _check(n: int, kind: str, seconds: int, objects: Any) -> tuple[int, int]:
    if n < 1 or kind not in CHANCE:
        raise ValueError(f"draw_videos needs at least one video and a kind of {list(KINDS)}; got n={n}, kind={kind!r}.")
    if not (isinstance(objects, Sequence) and len(objects) == 2 and all(isinstance(o, int) for o in objects)):
        raise ValueError(f"objects is a pair of whole numbers (least, most), such as (2, 3); got {objects!r}.")
    low, high = objects
    least, most = 2 if kind in ("order", "speed") else 1, len(SHAPES) - (NEW if kind == "count" else 0)
    if not least <= low <= high <= most:
        raise ValueError(
            f"for {kind!r}, objects=(least, most) must satisfy {least} <= least <= most <= {most}; got {objects}."
        )
    needed = 3 + {"order": high, "second": high, "count": NEW}.get(kind, 0)
    if not isinstance(seconds, int) or seconds < needed:
        raise ValueError(f"{kind!r} with objects={objects} needs whole seconds, {needed} or more; got {seconds!r}.")
    return low, high


def _dress(rng: np.random.Generator, n: int, most: int, pairs: list, turning: bool) -> tuple[np.ndarray, ...]:
    """Colours, second colours and shapes, all shapes of a video different."""
    pairs = sorted({tuple(pair) for pair in pairs})
    if strangers := set(pairs) - set(all_pairs()):
        raise ValueError(
            f"pairs are (colour index, shape index) below ({len(COLOURS)}, {len(SHAPES)}); got {strangers}."
        )
    worn = [[c for c, s in pairs if s == shape] for shape in range(len(SHAPES))]
    usable = np.asarray([s for s, colours in enumerate(worn) if len(colours) > turning], np.int64)
    if len(usable) < most:
        why = " that can be worn in two colours" if turning else ""
        raise ValueError(f"a video of {most} objects needs pairs with {most} different shapes{why}; got {len(usable)}.")
    shape = usable[rng.random((n, len(usable))).argsort(1)[:, :most]]
    options = np.asarray([len(colours) for colours in worn])[shape]
    table = np.asarray([colours + [0] * (len(COLOURS) - len(colours)) for colours in worn], np.int64)
    first = (rng.random((n, most)) * options).astype(np.int64)
    other = (first + 1 + (rng.random((n, most)) * (options - 1)).astype(np.int64)) % options
    return table[shape, first], table[shape, other], shape


def _moving(rng: np.random.Generator, kind: str, many: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """How objects move, and where they are at first: evenly anywhere on their lap, hence so at any later time."""
    n, most = size.shape
    asked = np.arange(most) >= (many - (2 if kind == "speed" else 1))[:, None]
    moves = rng.random((n, most)) < 0.5
    fast = rng.random((n, most)) < 0.5
    if kind == "speed":  # of the two that are compared, one is fast
        fast[np.arange(n), many - 2] = ~fast[np.arange(n), many - 1]
    if kind != "motion":
        moves |= asked
    low, high = np.where(fast[..., None], FAST, SLOW).transpose(2, 0, 1)
    speed = rng.uniform(low, high) * moves
    step = np.asarray(list(DIRECTIONS.values()))[rng.integers(len(DIRECTIONS), size=(n, most))]
    border = (size + MARGIN)[..., None]
    return {"start": border + rng.random((n, most, 2)) * (1 - 2 * border), "velocity": speed[..., None] * step}


def _happening(
    rng: np.random.Generator, kind: str, many: np.ndarray, seconds: int, size: np.ndarray
) -> dict[str, np.ndarray]:
    """Places in which objects do not touch, and what happens to them when."""
    n, most = size.shape
    room = 1 / 6 - size - MARGIN  # each has a ninth of the picture to itself
    cell = rng.random((n, 9)).argsort(1)[:, :most]
    centre = (np.stack([cell % 3, cell // 3], -1) + 0.5) / 3
    start = centre + rng.uniform(-1, 1, (n, most, 2)) * room[..., None]
    when = 1.0 + rng.random((n, seconds - 3)).argsort(1)[:, np.arange(most) % (seconds - 3)]
    length = rng.integers(1, 3, size=(n, 1 if kind == "order" else most))
    coin, late = rng.random((n, most)) < 0.5, 1.0 + (rng.random((n, most)) * (seconds - 1)).astype(np.int64)
    if kind == "order":
        return {"start": start, "appear": when, "vanish": when + length}
    end = when + length
    if kind == "second":  # heads appear, tails change colour
        return {
            "start": start,
            "appear": np.where(coin, when, 0.0),
            "vanish": np.where(coin, end, math.inf),
            "change": np.where(coin, math.inf, when),
            "back": np.where(coin, math.inf, end),
        }
    new = np.arange(most) >= many[:, None]
    vanish = np.where(coin, np.where(new, end, late), math.inf)
    return {"start": start, "appear": np.where(new, when, 0.0), "vanish": vanish}


def draw_questions(
    rng: np.random.Generator, n: int, kinds: Iterable[str] = KINDS, **options: Any
) -> tuple[Videos, list[Question]]:
    """Draw `n` videos and a question about each, kinds evenly and in random order. `options` are those of `draw_videos`."""
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if not kinds or n < 1:
        raise ValueError(f"draw_questions needs at least one video and one kind; got n={n} and kinds={kinds}.")
    drawn = rng.integers(len(kinds), size=n)
    most = max(options.get("objects", (2, 3))) + (NEW if "count" in kinds else 0)
    options = {"slots": most, **options}
    parts = [draw_videos(rng, m, kind, **options) for k, kind in enumerate(kinds) if (m := int((drawn == k).sum()))]
    told = [kind for k, kind in enumerate(kinds) if (drawn == k).any()]
    asked = [question for part, kind in zip(parts, told, strict=True) for question in ask(part, kind)]
    order = drawn.argsort(kind="stable").argsort(kind="stable")
    return Videos.join(parts)[torch.from_numpy(order)], [asked[i] for i in order]


def ask(videos: Videos, kind: str) -> list[Question]:
    """One question of that kind about each video: about the objects on top, which `draw_videos` made fit for it.

    Raises:
        ValueError: an unknown kind, or a video that holds no answer, such as a direction of a thing that stands still.
    """
    if kind not in CHANCE:
        raise ValueError(f"kind is one of {list(KINDS)}; got {kind!r}.")
    asked = []
    for video, (these, duration) in enumerate(zip(actors(videos), videos.duration.tolist(), strict=True)):
        found = _ASK[kind](these, duration) if these else None
        if found is None:
            raise ValueError(
                f"video {video} holds no answer to a question of kind {kind!r}: {describe(these) or 'it is empty.'}"
                f" Draw it with draw_videos(rng, n, {kind!r})."
            )
        asked.append(Question(kind, describe(these), *found))
    return asked


def describe(these: Sequence[Actor]) -> str:
    """Everything that happens in a video, a sentence for each object, in the order of the shapes' table."""
    return " ".join(_sentence(actor) for actor in sorted(these, key=lambda actor: SHAPES.index(actor.shape)))


def _sentence(actor: Actor) -> str:
    said = []
    if actor.direction:
        said.append(f"moves {actor.direction} {'slowly' if actor.speed < FAST[0] * 0.9 else 'fast'}")
    if actor.appear > 0:
        said.append(f"appears at second {actor.appear:g}")
    if actor.change < math.inf:
        said.append(f"turns {actor.second_colour} at second {actor.change:g}")
        if actor.back < math.inf:
            said.append(f"turns {actor.colour} at second {actor.back:g}")
    if actor.vanish < math.inf:
        said.append(f"vanishes at second {actor.vanish:g}")
    return f"{article(actor.name)} {' and '.join(said) or 'stands still'}."


Found = tuple[str, str] | None  # question and answer, or nothing to ask


def _direction(these: Sequence[Actor], duration: float) -> Found:
    return (f"which way does the {these[-1].name} move?", these[-1].direction) if these[-1].direction else None


def _motion(these: Sequence[Actor], duration: float) -> Found:
    return f"does the {these[-1].name} move?", "yes" if these[-1].direction else "no"


def _order(these: Sequence[Actor], duration: float) -> Found:
    a, b = these[-2:] if len(these) > 1 else these * 2
    if a.appear == b.appear or not all(0 < actor.appear < duration for actor in (a, b)):
        return None
    return f"which appears first, the {a.shape} or the {b.shape}?", min(a, b, key=lambda actor: actor.appear).shape


def _speed(these: Sequence[Actor], duration: float) -> Found:
    a, b = these[-2:] if len(these) > 1 else these * 2
    slow, fast = sorted((a, b), key=lambda actor: actor.speed)
    if fast.speed < 1.5 * slow.speed or slow.speed == 0:  # nobody is asked about less
        return None
    return f"which is faster, the {a.shape} or the {b.shape}?", fast.shape


def _second(these: Sequence[Actor], duration: float) -> Found:
    actor = these[-1]
    if 0 < actor.appear < duration and actor.appear.is_integer():
        return f"at what second does the {actor.name} appear?", f"{actor.appear:g}"
    if 0 < actor.change < duration and actor.change.is_integer():
        return f"at what second does the {actor.shape} turn {actor.second_colour}?", f"{actor.change:g}"
    return None


def _count(these: Sequence[Actor], duration: float) -> Found:
    return "how many new things appear?", number(sum(0 < actor.appear < duration for actor in these))


_ASK: dict[str, Callable[[Sequence[Actor], float], Found]] = {
    "direction": _direction,
    "order": _order,
    "speed": _speed,
    "second": _second,
    "count": _count,
    "motion": _motion,
}

__all__ = [
    "CHANCE", "KINDS", "WORDS", "Actor", "Videos", "actors", "ask", "describe", "draw_questions", "draw_videos", "film",
    "frames",
]  # fmt: skip
