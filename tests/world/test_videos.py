"""Videos are exact at every moment, and what is asked about them can be read off the pixels, but off no single frame."""

import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import videos as v
from minivlm.world.motion import DIRECTIONS
from minivlm.world.render import _coverage

COLOUR, SHAPE = "|".join(world.COLOURS), "|".join(world.SHAPES)
PALETTE = dict(zip(world.COLOURS, torch.tensor(list(world.COLOURS.values())), strict=True))
KIND = st.sampled_from(v.KINDS)


def drawn(kind: str, n: int, seed: int = 0, **options) -> tuple[v.Videos, list[v.Question]]:
    videos = v.draw_videos(world.generator(f"videos {kind}", seed), n, kind, **options)
    return videos, v.ask(videos, kind)


def where(images: torch.Tensor, colour: str) -> list[tuple[float, float] | None]:
    """For each frame: the middle of all pixels of a colour, as fractions of width and height; None if there are none."""
    found = []
    for image in images:
        y, x = ((image - PALETTE[colour][:, None, None]).abs().amax(0) < 0.02).nonzero(as_tuple=True)
        h, w = image.shape[1:]
        found.append((float(x.float().mean() + 0.5) / w, float(y.float().mean() + 0.5) / h) if len(x) > 3 else None)
    return found


def steps(places: list[tuple[float, float]]) -> tuple[str, float]:
    """Direction and step size of most steps: those from one border to the other are few."""
    way, size = [], []
    for (x, y), (x2, y2) in zip(places, places[1:], strict=False):
        dx, dy = x2 - x, y2 - y
        way.append(("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("up" if dy < 0 else "down"))
        size.append(max(abs(dx), abs(dy)))
    return Counter(way).most_common(1)[0][0], float(np.median(size))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), kind=KIND, rate=st.sampled_from([1, 1.5, 2, 7 / 3]), times=st.integers(2, 4))
def test_frame_rates_agree_where_their_times_do(seed, kind, rate, times):
    videos, _ = drawn(kind, 2, seed)
    slow, at = v.frames(videos, rate, 16, 20)
    fast, at_fast = v.frames(videos, rate * times, 16, 20)
    same = at_fast[:, ::times][:, : at.shape[1]]
    assert torch.allclose(same, at, atol=1e-6), "every so many frames of the higher rate have the times of the lower"
    exact = same[0] == at[0]
    assert exact.sum() > at.shape[1] / 2
    assert torch.equal(slow[:, exact], fast[:, ::times][:, : at.shape[1]][:, exact]), "same time, other picture"


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), kind=KIND, time=st.floats(0, 8, width=32))
def test_the_state_at_any_time_is_what_happened_until_then(seed, kind, time):
    """An independent actor takes the scene from second 0 to `time` in small steps."""
    videos, _ = drawn(kind, 3, seed)
    scenes = videos.at(torch.full((3, 1), time))
    for i in range(3):
        for o in range(videos.present.shape[1]):
            seen = bool(videos.present[i, o]) and videos.appear[i, o] <= time < videos.vanish[i, o]
            assert bool(scenes.present[i, o]) == seen, "an object is not seen when it should be, or the other way round"
            if not seen:
                assert scenes.size[i, o] == scenes.colour[i, o] == 0, "absent slots hold zeros"
                continue
            turned = videos.change[i, o] <= time < videos.back[i, o]
            assert scenes.colour[i, o] == (videos.second_colour if turned else videos.colour)[i, o]
            low = float(videos.size[i, o]) + 0.03
            for axis in (0, 1):
                place, velocity = float(videos.start[i, o, axis]), float(videos.velocity[i, o, axis])
                for _ in range(1000):
                    place += velocity * time / 1000
                    place += (1 - 2 * low) * ((place < low - 1e-9) - (place > 1 - low + 1e-9)) * (velocity != 0)
                gap = abs(place - float(scenes.position[i, o, axis]))
                assert min(gap, abs(gap - 1 + 2 * low)) < 1e-4, "a moving object is not where its velocity brings it"


@pytest.mark.parametrize("kind", v.KINDS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (96, 200)])
def test_objects_stay_inside_and_still_ones_do_not_touch(kind, height, width):
    videos, _ = drawn(kind, 40)
    scenes = videos.at(torch.arange(0, 8, 0.5).expand(40, -1))
    coverage = _coverage(scenes, height, width, torch.device("cpu"))[:, :-1].sum(1)
    border = torch.cat([coverage[..., 0], coverage[..., -1], coverage[..., 0, :], coverage[..., -1, :]], -1)
    assert (border == 0).all(), "an object is cut off by the border"
    if kind in ("order", "second", "count"):
        assert (coverage <= 1 + 1e-5).all(), "two objects that stand still overlap: an event may be hidden"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), rate=st.sampled_from([1, 2, 3.3]))
def test_directions_are_read_off_the_pixels(seed, rate):
    videos, asked = drawn("direction", 3, seed, objects=(1, 1))
    images, _ = v.frames(videos, rate, 40)
    for video, question in zip(images, asked, strict=True):
        colour = re.search(COLOUR, question.question)[0]
        way, _ = steps(where(video, colour))
        assert way == question.answer, f"{question}: the pixels move {way}"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), rate=st.sampled_from([1, 1.7, 3]))
def test_what_comes_first_is_read_off_the_pixels(seed, rate):
    videos, asked = drawn("order", 6, seed, objects=(2, 2))
    images, _ = v.frames(videos, rate, 64, 80)
    for video, question in zip(images, asked, strict=True):
        colours = {s: c for c, s in re.findall(f"({COLOUR}) ({SHAPE})", question.told)}
        if len(set(colours.values())) < 2:
            continue  # this reader goes by colour
        begun = {s: next(k for k, place in enumerate(where(video, c)) if place) for s, c in colours.items()}
        assert question.answer == min(begun, key=begun.get), f"{question}: first seen in frames {begun}"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), rate=st.sampled_from([1, 1.3, 2, 5]))
def test_seconds_are_read_off_the_pixels_at_any_rate(seed, rate):
    videos, asked = drawn("second", 4, seed, objects=(1, 1))
    images, times = v.frames(videos, rate, 64)
    for video, question, at in zip(images, asked, times.tolist(), strict=True):
        colour = re.findall(COLOUR, question.question)[-1]
        first = next(t for t, place in zip(at, where(video, colour), strict=True) if place)
        assert question.answer == str(math.floor(first)), f"{question}: {colour} is first seen at {first}"


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["direction", "speed", "motion"]))
def test_motion_is_read_off_the_places_of_the_thing_that_is_named(seed, kind):
    videos, asked = drawn(kind, 8, seed)
    scenes = videos.at(torch.arange(9.0).expand(8, -1))
    for i, question in enumerate(asked):
        seen = {}
        for o in range(3):
            row = slice(9 * i, 9 * i + 9)
            if scenes.present[row.start, o]:
                seen[world.SHAPES[int(scenes.shape[row.start, o])]] = steps(scenes.position[row, o].tolist())
        named = re.findall(SHAPE, question.question)
        if kind == "speed":
            assert question.answer == max(named, key=lambda shape: seen[shape][1]), question
            assert max(seen[s][1] for s in named) > 1.5 * min(seen[s][1] for s in named) > 0, "no clear gap"
        else:
            way, size = seen[named[0]]
            assert question.answer == (way if kind == "direction" else "yes" if size > 0 else "no"), question


def answer_from(question: v.Question) -> str:
    """What somebody answers who has only read."""
    said = {re.search(SHAPE, s)[0]: s for s in question.told.split(". ")}
    named = re.findall(SHAPE, question.question)
    number = lambda shape, word: int(re.search(rf"{word} at second (\d+)", said[shape])[1])
    match question.kind:
        case "direction":
            return re.search("moves (left|right|up|down)", said[named[0]])[1]
        case "motion":
            return "yes" if "moves" in said[named[0]] else "no"
        case "speed":
            return next(shape for shape in named if "fast" in said[shape])
        case "order":
            return min(named, key=lambda shape: number(shape, "appears"))
        case "second":
            turned = re.search(rf"turn ({COLOUR})", question.question)
            return str(number(named[0], f"turns {turned[1]}" if turned else "appears"))
        case "count":
            return ("zero", "one", "two", "three")[question.told.count("appears")]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), kind=KIND)
def test_reading_what_is_told_is_enough(seed, kind):
    for question in drawn(kind, 10, seed)[1]:
        assert answer_from(question) == question.answer, f"{question} cannot be answered by reading"


def guessing(clues: list, answers: list[str]) -> float:
    """How often the best guess from the clue is right: learned from the first half, tried on the second."""
    half, seen = len(clues) // 2, defaultdict(Counter)
    for clue, answer in zip(clues[:half], answers[:half], strict=True):
        seen[clue][answer] += 1
    tried = [seen[c].most_common(1)[0][0] == a for c, a in zip(clues[half:], answers[half:], strict=True) if c in seen]
    assert len(tried) > 0.9 * half, "too many different clues for this test"
    return float(np.mean(tried))


@pytest.mark.parametrize("kind", v.KINDS)
def test_answers_are_balanced_and_questions_give_nothing_away(kind):
    _, asked = drawn(kind, 8000)
    counts = Counter(question.answer for question in asked)
    if kind in ("order", "speed"):
        counts = Counter(q.answer == re.search(SHAPE, q.question)[0] for q in asked)
    assert len(counts) == round(1 / v.CHANCE[kind])
    assert max(counts.values()) < 1.15 * min(counts.values()), f"answers are not even: {counts}"
    shapes = [" ".join(re.findall(SHAPE, question.question)) for question in asked]
    level = guessing(shapes, [q.answer for q in asked])
    assert level < v.CHANCE[kind] + 0.035, f"the question's words give the answer away: {level:.3f}"


@pytest.mark.parametrize("time", [0, 1, 4, 7])
@pytest.mark.parametrize("kind", ["direction", "speed", "motion"])
def test_no_single_frame_tells_motion(kind, time):
    """Where the thing is, among 5 x 5 places, at a known time: no better than a guess."""
    videos, asked = drawn(kind, 8_000, objects=(2, 2))
    scenes = videos.at(torch.full((8_000, 1), float(time)))
    cells = ((scenes.position - 0.16) / 0.68 * 5).long().clamp(0, 4)
    places = (cells[..., 0] * 5 + cells[..., 1])[:, -1].tolist()
    answers = [q.answer == re.search(SHAPE, q.question)[0] if kind == "speed" else q.answer for q in asked]
    level = guessing(places, answers)
    assert level < v.CHANCE[kind] + 0.03, f"the place at second {time} gives {kind} away: {level:.3f}"


@pytest.mark.parametrize("kind", ["order", "second"])
def test_frames_without_their_order_tell_nothing(kind):
    """What is asked about is seen or not in each frame. All frames in a bag are useless, and so are the first and the last."""
    videos, asked = drawn(kind, 10_000, objects=(2, 2) if kind == "order" else (1, 1))
    times = torch.arange(0, 8, 0.5).expand(10_000, -1)
    scenes = videos.at(times)
    state = (scenes.present * (1 + scenes.colour)).view(10_000, 16, -1)
    first = videos.colour[:, None] + 1
    state = (state == 0) * 1 + (state == first) * 2  # gone, there, there in its second colour
    key = (state * torch.tensor([10, 1][-state.shape[-1] :])).sum(-1)
    answers = [q.answer == re.search(SHAPE, q.question)[0] if kind == "order" else q.answer for q in asked]
    level = guessing([tuple(row) for row in key.sort(1).values.tolist()], answers)
    assert level < v.CHANCE[kind] + 0.03, f"a bag of frames gives {kind} away: {level:.3f}"
    for frame in (0, 15):
        level = guessing(key[:, frame].tolist(), answers)
        assert level < v.CHANCE[kind] + 0.03, f"frame {frame} alone gives {kind} away: {level:.3f}"
    assert guessing([tuple(row) for row in key.tolist()], answers) == 1, "this test's reader sees too little"


def test_below_the_least_rate_motion_is_lost():
    videos = v.film(dict(colour="red", shape="star", size=0.1, moves="right", speed=0.5), seconds=20)
    assert videos.least_rate() == pytest.approx(2 * 0.5 / 0.74)
    for rate, way in ((1.5 * videos.least_rate(), "right"), (0.6 * videos.least_rate(), "left")):
        images, _ = v.frames(videos, rate, 48)
        assert steps(where(images[0], "red"))[0] == way
    drawn_ones, _ = drawn("direction", 2000)
    assert drawn_ones.least_rate() == 1, "drawn videos can be read at a frame a second"


@pytest.mark.parametrize("kind", v.KINDS)
def test_no_held_out_pair_is_ever_shown_in_training(kind):
    videos, asked = drawn(kind, 3000)
    scenes = videos.at(torch.arange(9.0).expand(3000, -1))
    pairs = set(zip(scenes.colour[scenes.present].tolist(), scenes.shape[scenes.present].tolist(), strict=True))
    assert pairs <= set(world.SEEN), "a held-out pair is in a training video"
    words = set(re.findall("[a-z]+", " ".join(" ".join(question[1:]) for question in asked)))
    assert words <= {*v.WORDS, *world.COLOURS, *world.SHAPES}, "a text uses a word that WORDS lacks"
    shown = videos.shape.masked_fill(~videos.present, -1)
    for row in shown.tolist():
        assert len(there := [s for s in row if s >= 0]) == len(set(there)), "two objects of a video have one shape"


def test_mixed_questions_belong_to_their_videos():
    videos, asked = v.draw_questions(world.generator("mixed"), 200)
    assert len(videos) == len(asked) == 200
    assert {question.kind for question in asked} == set(v.KINDS)
    for i, question in enumerate(asked):
        assert v.ask(videos[i], question.kind) == [question], "a question stands beside another's video"
    again, asked_again = v.draw_questions(world.generator("mixed"), 200)
    assert asked == asked_again
    assert torch.equal(videos.start, again.start)


def test_films_by_hand():
    film = v.film(
        dict(colour="red", shape="star", x=0.8, size=0.1, moves="left"),
        dict(colour="blue", shape="ring", appear=3, vanish=5, turns="green", change=4),
        seconds=6,
    )
    assert v.describe(v.actors(film)[0]) == (
        "a blue ring appears at second 3 and turns green at second 4 and vanishes at second 5. a red star moves left slowly."
    )
    scenes = film.at(torch.tensor([[0.0, 2.0, 3.0, 4.0, 5.0]]))
    assert scenes.present[:, 1].tolist() == [False, False, True, True, False]
    assert scenes.position[:3, 0, 0].tolist() == pytest.approx([0.8, 0.6, 0.5])
    assert scenes.colour[2:4, 1].tolist() == [list(world.COLOURS).index(c) for c in ("blue", "green")]
    with pytest.raises(ValueError, match="holds no answer"):
        v.ask(film, "direction")
    images, times = v.frames(film, 2, 8, 10, count=3)
    assert (images.shape, times.tolist()) == ((1, 3, 3, 8, 10), [[0, 0.5, 1]])


def test_parts_and_joins():
    videos, _ = drawn("order", 6)
    assert len(videos[0]) == len(videos[-1]) == len(videos[[3]]) == 1
    assert torch.equal(v.Videos.join([videos[:2], videos[2:]]).appear, videos.appear)
    with pytest.raises(IndexError, match="6 of 6"):
        videos[6]
    with pytest.raises(ValueError, match=r"\[\(3,\), \(4,\)\]"):
        v.Videos.join([videos, drawn("order", 2, slots=4)[0]])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(rate=0), "positive number of frames"),
        (dict(rate=-2), "positive number of frames"),
        (dict(rate=float("nan")), "positive number of frames"),
        (dict(rate="fast"), "positive number of frames"),
        (dict(rate=1, count=0), "at least 1"),
        (dict(rate=1, count=10), "from 0 to its 8 seconds; got 9"),
        (dict(rate=1, height=0), "at least 1 x 1"),
    ],
)
def test_impossible_frames_say_why(request_, words):
    videos, _ = drawn("motion", 2)
    with pytest.raises(ValueError, match=words):
        v.frames(videos, **{"height": 8, **request_})


@pytest.mark.parametrize(
    ("times", "words"), [([[-1.0]], "got -1"), ([[8.5]], "got 8.5"), ([[float("nan")]], "got nan")]
)
def test_times_outside_the_video_say_why(times, words):
    videos, _ = drawn("motion", 1)
    with pytest.raises(ValueError, match=words):
        videos.at(torch.tensor(times))
    with pytest.raises(ValueError, match="at least one frame"):
        videos.at(torch.zeros(1, 0))


def test_videos_of_unequal_length_need_a_count():
    videos = v.Videos.join([drawn("motion", 1, seconds=s)[0] for s in (4, 6)])
    with pytest.raises(ValueError, match=r"\[4.0, 6.0\] seconds"):
        v.frames(videos, 1, 8)
    assert v.frames(videos, 1, 8, count=4)[0].shape == (2, 4, 3, 8, 8)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0, kind="order"), "at least one video"),
        (dict(n=1, kind="dance"), "dance"),
        (dict(n=1, kind="order", objects=(1, 2)), "2 <= least"),
        (dict(n=1, kind="order", objects=2), "a pair of whole numbers"),
        (dict(n=1, kind="order", seconds=5), "6 or more"),
        (dict(n=1, kind="count", objects=(1, 6)), "most <= 5"),
        (dict(n=1, kind="motion", slots=1), "slots=1"),
        (dict(n=1, kind="motion", pairs=[(0, 1)]), "3 different shapes"),
        (dict(n=1, kind="second", pairs=[(0, 1), (0, 2), (0, 3)]), "two colours"),
        (dict(n=1, kind="motion", pairs=[(0, 9)]), r"\(0, 9\)"),
    ],
)
def test_impossible_draws_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        v.draw_videos(world.generator("bad"), **request_)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (dict(moves="north"), "moves is one of"),
        (dict(turns="mauve"), "turns one of"),
        (dict(speed=-1), "numbers from 0 on"),
        (dict(speed=float("inf")), "finite"),
        (dict(appear="soon"), "numbers from 0 on"),
        (dict(size=0.5), "size must be below"),
        (dict(weight=1), "weight"),
        (dict(appear=5, vanish=3), "appear comes before vanish"),
        (dict(appear=30), "appear comes before vanish and the end"),
        (dict(turns="blue", change=6, back=3), "change before back"),
        (dict(change=2), "without turns"),
    ],
)
def test_filming_nonsense_says_why(thing, words):
    with pytest.raises(ValueError, match=words):
        v.film({"colour": "red", "shape": "star", **thing})
    assert set(DIRECTIONS) == {"left", "right", "up", "down"}
