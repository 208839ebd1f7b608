"""Boxes are those of the pixels, and their texts say so: written and read back, each convention gives the same boxes."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.boxes import CONVENTIONS, EXTENTS, boxes, parse, write


def read_box(picture: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """The box of all that is not background, from the pixels alone."""
    other = (picture - background[:, None, None]).abs().amax(0) > 1e-3
    rows, columns = other.any(1).nonzero()[:, 0], other.any(0).nonzero()[:, 0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


@pytest.mark.parametrize("shape", world.SHAPES)
@pytest.mark.parametrize(("height", "width"), [(512, 512), (300, 512), (512, 300)])
def test_boxes_are_those_of_the_pixels(shape, height, width):
    for x, y, size in [(0.41, 0.55, 0.31), (0.5, 0.5, 0.2), (0.9, 0.12, 0.06)]:
        scene = world.compose(dict(colour="black", shape=shape, x=x, y=y, size=size))
        seen = read_box(world.render(scene, 3 * height, 3 * width)[0], scene.background[0]) / 3  # soft tips are long
        said = boxes(scene, height, width)[0, 0]
        assert (seen - said).abs().max() <= 1, f"the {shape}'s box is {said.tolist()}, the pixels show {seen.tolist()}"


def test_extents_have_a_row_for_each_shape():
    assert tuple(EXTENTS) == world.SHAPES


def test_boxes_of_drawn_scenes_lie_inside_and_absent_ones_are_zero():
    scenes = world.draw_scenes(world.generator("boxes"), 300, (1, 3), slots=4, aspect=2)
    found = boxes(scenes, 100, 200)
    assert found.shape == (300, 4, 4)
    assert (found[~scenes.present] == 0).all()
    there = found[scenes.present]
    assert (there[:, :2] < there[:, 2:]).all()
    assert (there >= 0).all()
    assert (there <= torch.tensor([200, 100, 200, 100])).all()


def test_what_lies_outside_is_cut_off():
    scene = world.compose(dict(colour="red", shape="circle", x=0.0, y=1.0, size=0.25))
    assert boxes(scene, 40, 80)[0, 0].tolist() == [0, 30, 10, 40]


SQUARE = torch.tensor([[10.0, 20.0, 50.0, 80.0], [0.0, 0.0, 100.0, 100.0]])
TWICE = ["red star", "red star"]


@pytest.mark.parametrize(
    ("convention", "phrases", "text"),
    [
        ("llava", ["red star", "ring"], "red star: [0.1, 0.2, 0.5, 0.8], ring: [0.0, 0.0, 1.0, 1.0]"),
        ("llava_1_5", None, "[0.1, 0.2, 0.5, 0.8], [0.0, 0.0, 1.0, 1.0]"),
        ("qwen_vl", TWICE, "<ref>red star</ref><box>(100,200),(500,800)</box><box>(0,0),(999,999)</box>"),
        ("cogvlm", TWICE, "red star [[100,200,500,800;000,000,999,999]]"),
        ("cogvlm", ["red star", "ring"], "red star [[100,200,500,800]], ring [[000,000,999,999]]"),
        ("internvl_1_5", TWICE, "<ref>red star</ref><box>[[100, 200, 500, 800], [0, 0, 1000, 1000]]</box>"),
        ("nvlm", TWICE, "<ref>red star</ref><box>(100,200),(500,800)</box><box>(0,0),(1000,1000)</box>"),
        (
            "qwen2_vl",
            ["red star", "ring"],
            "<|object_ref_start|>red star<|object_ref_end|><|box_start|>(100,200),(500,800)<|box_end|>"
            "<|object_ref_start|>ring<|object_ref_end|><|box_start|>(0,0),(999,999)<|box_end|>",
        ),
        ("deepseek_vl2", TWICE, "<|ref|>red star<|/ref|><|det|>[[99, 199, 499, 799], [0, 0, 999, 999]]<|/det|>"),
        (
            "qwen2_5_vl",
            TWICE,
            '[{"bbox_2d": [10, 20, 50, 80], "label": "red star"}, {"bbox_2d": [0, 0, 99, 99], "label": "red star"}]',
        ),
    ],
)
def test_each_model_writes_as_its_paper_says(convention, phrases, text):
    assert write(convention, SQUARE, 100, 100, phrases) == text


def test_llava_1_5_measures_the_padded_square():
    """A picture twice as wide as high gets a quarter of the square's height above and below."""
    assert write("llava_1_5", torch.tensor([[0.0, 0.0, 100.0, 50.0]]), 50, 100) == "[0.0, 0.25, 1.0, 0.75]"
    assert parse("llava_1_5", "[0.0, 0.25, 1.0, 0.75]", 50, 100)[1].tolist() == [[0, 0, 100, 50]]


def unit(convention: str, height: int, width: int) -> torch.Tensor:
    """One step of a convention's numbers, in pixels, along x and y."""
    steps = {"llava": 1000, "llava_1_5": 100, "deepseek_vl2": 999}.get(convention, 1000)
    if convention == "qwen2_5_vl":
        return torch.ones(4)
    longer = max(height, width)
    sides = (longer, longer) if convention == "llava_1_5" else (width, height)
    return torch.tensor([*sides, *sides]) / steps


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    height=st.integers(16, 700),
    width=st.integers(16, 700),
    words=st.lists(st.sampled_from(["red star", "the large ring", "moon"]), min_size=3, max_size=3),
)
def test_written_and_read_back_a_box_is_off_by_one_unit_at_most(convention, seed, height, width, words):
    scenes = world.draw_scenes(world.generator("round", seed), 1, (1, 3))
    there = boxes(scenes, height, width)[scenes.present]
    phrases = words[: len(there)]
    text = write(convention, there, height, width, phrases)
    names, back = parse(convention, text, height, width)
    assert names == (phrases if convention != "llava_1_5" else [""] * len(there))
    off = (back - there).abs() / unit(convention, height, width)
    assert off.max() <= 1.01, f"{text} is off by {off.max():.2f} units: {back.tolist()} for {there.tolist()}"


@pytest.mark.parametrize(
    ("convention", "text"),
    [
        ("qwen_vl", " <ref> red star </ref> <box> ( 1 , 2 ) , ( 3 , 4 ) </box> "),
        ("internvl_1_5", "<ref>red star</ref><box>[[1,2,3,4]]</box>"),
        ("cogvlm", "red star [[1, 2, 3, 4]]"),
        ("qwen2_5_vl", '```json\n[\n\t{"label": "red star", "bbox_2d": [1, 2, 3, 4]}\n]\n```'),
    ],
)
def test_spaces_and_fences_do_not_matter(convention, text):
    names, back = parse(convention, text, 1000, 1000)
    assert names == ["red star"]
    assert (back - torch.tensor([[1.0, 2, 3, 4]])).abs().max() < 0.01


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    "spoil", ["", "red star", lambda t: t[:-1], lambda t: t + " and", lambda t: re.sub(r"\d", "x", t)]
)
def test_malformed_text_says_what_was_expected(convention, spoil):
    good = write(convention, torch.tensor([[100.0, 101, 500, 802]]), 1000, 1000, ["red star"])
    text = spoil if isinstance(spoil, str) else spoil(good)
    assert text != good
    with pytest.raises(ValueError, match="expected|look like|such as|are 0 <="):
        parse(convention, text, 1000, 1000)


@settings(deadline=None, max_examples=100)
@given(
    convention=st.sampled_from(sorted(CONVENTIONS)),
    text=st.text(alphabet='[](){}<>|,;:. 0123456789"abox_2dlre/f', max_size=40),
)
def test_any_text_is_read_or_refused_with_a_value_error(convention, text):
    try:
        names, back = parse(convention, text, 64, 64)
    except ValueError:
        return
    assert len(names) == len(back) >= 1
    assert ((back >= 0) & (back <= 64)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<ref>star</ref><box>(9,2),(3,4)</box>", "x1 <= x2"),
        ("<ref>star</ref><box>(1,2),(3,1000)</box>", "999"),
        ("<ref>star</ref><box>(1,2),(3,4)</box><box>", "from character"),
        ("<ref></ref><box>(1,2),(3,4)</box>", "look like"),
    ],
)
def test_impossible_boxes_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse("qwen_vl", text, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("qwen", SQUARE, 100, 100, TWICE), "no convention 'qwen'"),
        (("qwen_vl", SQUARE, 100, 100, None), "2 are needed"),
        (("qwen_vl", SQUARE, 100, 100, ["a", "b<"]), "without any of"),
        (("qwen_vl", SQUARE, 100, 100, ["a", " "]), "made of words"),
        (("qwen_vl", SQUARE[:0], 100, 100, []), "at least one box"),
        (("qwen_vl", torch.zeros(1, 4), 100, 100, ["a"]), r"scenes\.present"),
        (("qwen_vl", SQUARE, 50, 100, TWICE), "y2 <= 50"),
        (("qwen_vl", SQUARE, 0, 100, TWICE), "1 x 1"),
    ],
)
def test_impossible_requests_say_why(arguments, words):
    with pytest.raises(ValueError, match=words):
        write(*arguments)


@pytest.mark.parametrize("convention", list(CONVENTIONS))
@pytest.mark.parametrize("text", [" " * 3000, "<ref>" + " " * 3000, "<ref>" + "a " * 3000, "[" * 50_000])
def test_what_a_model_may_write_by_mistake_is_refused(convention, text):
    """Not looked at for minutes, nor until the stack is full."""
    with pytest.raises(ValueError, match="box"):
        parse(convention, text, 100, 100)


def test_a_number_beyond_all_pictures_is_refused():
    with pytest.raises(ValueError, match="box"):
        parse("qwen2_5_vl", '[{"bbox_2d": [1, 2, 3, ' + "9" * 400 + '], "label": "red star"}]', 100, 100)
