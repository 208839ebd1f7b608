"""Things that move, appear, vanish and change colour, known exactly at every moment: hence at any frame rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.world.batch import Batch
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.placing import MARGIN
from minivlm.world.render import render
from minivlm.world.scenes import Scenes, compose

#: Direction word -> (x, y) step; y points down.
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Videos(Batch):
    """`b` videos of up to `o` objects. Absent slots (`present` False) hold zeros; what never happens, happens at infinity.

    An object moves at constant velocity inside the picture. Where it would touch the border, it goes on from the opposite
    border: its place alone never tells which way it moves, as it would if it had to end where there is still room.
    Times are seconds from the start of the video; an interval holds its begin, not its end. Positions and sizes are those
    of `Scenes`; velocities are widths (x) and heights (y) a second. Later objects lie on top. All is on the CPU.
    """

    colour: Int[Tensor, "b o"]  # index into COLOURS
    second_colour: Int[Tensor, "b o"]  # worn while change <= t < back
    shape: Int[Tensor, "b o"]  # index into SHAPES
    size: Float[Tensor, "b o"]  # radius
    start: Float[Tensor, "b o 2"]  # centre at second 0
    velocity: Float[Tensor, "b o 2"]
    appear: Float[Tensor, "b o"]  # seen while appear <= t < vanish
    vanish: Float[Tensor, "b o"]
    change: Float[Tensor, "b o"]
    back: Float[Tensor, "b o"]
    present: Bool[Tensor, "b o"]
    duration: Float[Tensor, "b"]  # seconds
    background: Float[Tensor, "b 3"]  # RGB in [0, 1]

    def at(self, times: Float[Tensor, "b f"]) -> Scenes:
        """The scenes at `times`, in seconds: `b * f` of them, video after video.

        The state at a moment depends on that moment alone, so two frame rates agree wherever their times do.

        Raises:
            ValueError: no times, rows that are not one for each video, or a time before 0 or after the duration.
        """
        if times.ndim != 2 or times.shape[0] != len(self) or times.shape[1] == 0:
            raise ValueError(
                f"times must be (videos, frames) with at least one frame; got {tuple(times.shape)} for {len(self)} videos."
            )
        t = times.double().cpu()
        inside = (t >= 0) & (t <= self.duration[:, None])
        if not inside.all():
            video = int((~inside).any(1).int().argmax())
            raise ValueError(
                f"times must lie within the video, from 0 to its {float(self.duration[video]):g} seconds;"
                f" got {float(t[video][~inside[video]][0]):g} for video {video}."
            )
        t = t[:, :, None]  # (b, f, 1): all objects
        seen = self.present[:, None] & (self.appear[:, None] <= t) & (t < self.vanish[:, None])
        second = (self.change[:, None] <= t) & (t < self.back[:, None])
        colour = torch.where(second, self.second_colour[:, None], self.colour[:, None])
        low = self._border()[:, None, :, None]
        start, velocity = self.start[:, None].double(), self.velocity[:, None].double()
        there = low + torch.remainder(start - low + velocity * t[..., None], 1 - 2 * low)
        there = torch.where(velocity == 0, start, there).float()

        def flat(x: Tensor) -> Tensor:
            x = x.expand(-1, t.shape[1], *x.shape[2:])
            return rearrange(x * seen.view(*seen.shape, *[1] * (x.ndim - 3)), "b f ... -> (b f) ...")

        return Scenes(
            colour=flat(colour),
            shape=flat(self.shape[:, None]),
            position=flat(there),
            size=flat(self.size[:, None]),
            present=rearrange(seen, "b f o -> (b f) o"),
            background=self.background.repeat_interleave(t.shape[1], 0),
        )

    def least_rate(self) -> float:
        """Frames a second at which nothing is lost: whole seconds stay apart (one frame each), and no object goes through
        half its lap or more between two frames, as it would seem to move backwards from there on (a wheel in a film does).
        """
        laps = (self.velocity.double().abs() / (1 - 2 * self._border()[..., None])).amax()
        return max(1.0, 2 * float(laps))

    def _border(self) -> Float[Tensor, "b o"]:
        """How close to the border a centre comes."""
        return self.size.double() + MARGIN


def frames(
    videos: Videos, rate: Any, height: Any, width: Any = None, device: str | torch.device = "cpu", count: Any = None
) -> tuple[Float[Tensor, "b f 3 h w"], Float[Tensor, "b f"]]:
    """Pictures of the videos at `rate` frames a second from second 0 on, and their times in seconds, both on `device`.

    All frames before the end of the video, or the first `count` of them.

    Raises:
        ValueError: a rate that is not positive, no frames, frames beyond the end, or videos of different durations without
            `count`.
    """
    if not _is_number(rate) or not 0 < rate < math.inf:
        raise ValueError(f"rate is a positive number of frames a second; got {rate!r}.")
    if count is None:
        durations = sorted(set(videos.duration.tolist()))
        if len(durations) != 1:
            raise ValueError(
                f"a batch of frames needs videos of one duration; got {durations} seconds. Say count=..., the number of"
                " frames, or take videos[videos.duration == ...]."
            )
        count = math.ceil(durations[0] * rate - 1e-6)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count is a whole number of frames, at least 1; got {count!r}.")
    times = (torch.arange(count, dtype=torch.float64) / rate).float().expand(len(videos), count)
    images = render(videos.at(times), height, width, device)
    return rearrange(images, "(b f) c h w -> b f c h w", f=count), times.to(device)


def film(*objects: Any, seconds: Any = 8, background: Any = (0.94, 0.94, 0.94)) -> Videos:
    """One video by hand: `film(dict(colour="red", shape="star", moves="left"), dict(colour="blue", shape="ring", appear=3))`.

    An object has what `compose` takes (x and y: where it is at second 0), and may have `moves` (left, right, up or down)
    at `speed` sides a second (0.1 by default), `appear`, `vanish`, and `turns` (a colour) from second `change` to `back`.

    Raises:
        ValueError: no object, an unknown word or key, a number that makes no sense; the message says which.
    """
    if not _is_number(seconds) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds is how long the video lasts, a positive number; got {seconds!r}.")
    usual = {
        "moves": None,
        "speed": 0.1,
        "appear": 0.0,
        "vanish": math.inf,
        "turns": None,
        "change": 0.0,
        "back": math.inf,
    }
    plain, rows = [], []
    for thing in objects:
        if not isinstance(thing, Mapping):
            raise ValueError(
                f'an object is a dict, such as dict(colour="red", shape="star", moves="left"); got {thing!r}.'
            )
        row = {key: thing.get(key, value) for key, value in usual.items()}
        plain.append({key: value for key, value in thing.items() if key not in usual})
        if row["moves"] not in (None, *DIRECTIONS) or row["turns"] not in (None, *COLOURS):
            raise ValueError(f"moves is one of {list(DIRECTIONS)}, turns one of {list(COLOURS)}; got {dict(thing)}.")
        numbers = [row[key] for key in ("speed", "appear", "vanish", "change", "back")]
        if not all(_is_number(value) and value >= 0 for value in numbers):
            raise ValueError(f"speed, appear, vanish, change and back are numbers from 0 on; got {dict(thing)}.")
        if not (row["appear"] < min(row["vanish"], seconds) and row["change"] < row["back"]):
            raise ValueError(f"appear comes before vanish and the end, change before back; got {dict(thing)}.")
        if row["turns"] is None and {"change", "back"} & set(thing):
            raise ValueError(f"change and back say when a thing has the colour it turns; got {dict(thing)} without turns.")
        rows.append(row)
    scene = compose(*plain, background=background)
    if (scene.size >= 0.5 - MARGIN).any() or any(not row["speed"] < math.inf for row in rows):
        raise ValueError(f"an object's size must be below {0.5 - MARGIN:g}, its speed finite; got {objects}.")
    palette = list(COLOURS)

    def column(key: str) -> Tensor:
        return torch.tensor([[float(row[key]) for row in rows]])

    never = torch.tensor([[row["turns"] is None for row in rows]])
    turned = [[palette.index(row["turns"]) if row["turns"] else int(scene.colour[0, i]) for i, row in enumerate(rows)]]
    return Videos(
        colour=scene.colour,
        second_colour=torch.tensor(turned),
        shape=scene.shape,
        size=scene.size,
        start=scene.position,
        velocity=torch.tensor([[DIRECTIONS.get(row["moves"], (0, 0)) for row in rows]]) * column("speed")[..., None],
        appear=column("appear"),
        vanish=column("vanish"),
        change=column("change").masked_fill(never, math.inf),
        back=column("back"),
        present=scene.present,
        duration=torch.tensor([float(seconds)]),
        background=scene.background,
    )


class Actor(NamedTuple):
    """One object of a video in words and numbers: what makers of texts read. Units as in `Videos`."""

    colour: str
    second_colour: str
    shape: str
    direction: str  # by the axis on which it is faster; "" if it stands still
    speed: float
    appear: float
    vanish: float
    change: float
    back: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def actors(videos: Videos) -> list[list[Actor]]:
    """The objects of each video, in the order of their slots; absent slots are left out."""
    palette = list(COLOURS)
    columns = (
        videos.present, videos.colour, videos.second_colour, videos.shape, videos.velocity, videos.appear, videos.vanish,
        videos.change, videos.back,
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        [
            Actor(
                palette[colour], palette[second], SHAPES[shape], _direction(*velocity), max(map(abs, velocity)), *times
            )
            for there, colour, second, shape, velocity, *times in zip(*row, strict=True)
            if there
        ]
        for row in rows
    ]


def _direction(x: float, y: float) -> str:
    if x == y == 0:
        return ""
    return ("left" if x < 0 else "right") if abs(x) > abs(y) else ("up" if y < 0 else "down")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
