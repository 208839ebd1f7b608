"""Figures: what is drawn is what was given, nothing overlaps, nothing leaves the page."""

import ast
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.text import Text
from PIL import Image

from minivlm import plots
from minivlm.plots.__main__ import main
from minivlm.plots.charts import _spread
from minivlm.plots.genealogy import LANES, fingerprint
from minivlm.plots.style import FONT, STYLE, WIDTH, ink_on
from minivlm.survey import FAMILIES, MODELS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(figure):
    figure.canvas.draw()
    return figure.canvas.get_renderer()


def overlap(one, other) -> bool:
    """Do two drawn boxes share more than half a pixel?"""
    return min(one.x1, other.x1) - max(one.x0, other.x0) > 0.5 and min(one.y1, other.y1) - max(one.y0, other.y0) > 0.5


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_style_is_opaque_and_legible():
    with matplotlib.rc_context():
        plots.use_style()
        assert to_rgb(matplotlib.rcParams["figure.facecolor"]) == (1, 1, 1)
        assert to_rgb(matplotlib.rcParams["savefig.facecolor"]) == (1, 1, 1)
        sizes = [value for key, value in STYLE.items() if key.endswith("size") and key != "figure.figsize"]
        assert len(sizes) >= 5
        assert min(sizes) >= 11
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()
        assert cycle["color"] == list(plots.COLOURS)
        assert len(set(map(str, cycle["linestyle"][:5]))) == 5
        before = dict(matplotlib.rcParams)
        plots.use_style()
        assert dict(matplotlib.rcParams) == before


def test_ink_is_legible():
    assert (ink_on("white"), ink_on("black"), ink_on(plots.KINDS["image"])) == ("black", "white", "white")


def test_show_images_shows_the_pixels():
    images = torch.rand(5, 3, 4, 6)
    figure = plots.show_images(
        images, titles=["a b", "c", "d", "e", "a red circle left of a square"], columns=3, wrap=8
    )
    assert len(figure.axes) == 6
    for image, ax in zip(images, figure.axes, strict=False):
        assert np.allclose(ax.images[0].get_array(), image.permute(1, 2, 0).numpy())
        assert ax.images[0].get_interpolation() == "nearest"
    assert figure.axes[4].get_title() == "a red\ncircle\nleft of\na square"
    assert not figure.axes[5].images


def test_show_images_marks_right_and_wrong_by_more_than_colour():
    figure = plots.show_images(torch.rand(2, 1, 4, 4), titles=["red", "blue"], right=[True, False])
    assert [ax.get_title() for ax in figure.axes] == ["✓ red", "✗ blue"]
    assert figure.axes[0].title.get_color() != figure.axes[1].title.get_color()


def test_show_images_takes_different_sizes_and_stays_on_the_page():
    figure = plots.show_images([torch.rand(3, 4, 9), torch.rand(3, 9, 4)], size=6, columns=2)
    assert figure.get_figwidth() <= WIDTH
    assert [ax.images[0].get_array().shape for ax in figure.axes] == [(4, 9, 3), (9, 4, 3)]


@pytest.mark.parametrize("what", ["titles", "colours", "right"])
def test_show_images_wants_as_many_of_each(what):
    with pytest.raises(ValueError, match=f"1 {what} for 2 images"):
        plots.show_images(torch.rand(2, 3, 4, 4), **{what: [True] if what == "right" else ["red"]})


def test_curves_are_named_at_their_ends_without_overlap():
    steps = [0, 1, 2]
    lines = {"with": (steps, [0.1, 0.5, 0.9]), "without": (steps, [0.1, 0.3, 0.9]), "half": (steps, [0.1, 0.3, 0.88])}
    ax = plots.curves(lines, "accuracy", chance=0.25, blind=0.26)
    assert texts(ax) == ["with", "without", "half", "chance", "blind"]
    assert [list(line.get_ydata()) for line in ax.lines[3:]] == [[0.25, 0.25], [0.26, 0.26]]
    assert all(line.get_linestyle() == ":" for line in ax.lines[3:])
    renderer = drawn(ax.figure)
    boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]  # without the line to the curve
    assert not any(overlap(a, b) for a, b in combinations(boxes, 2))
    page = ax.figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)


def test_curves_draw_into_given_axes():
    figure, ax = plt.subplots()
    assert plots.curves({"loss": ([0, 1], [2.0, 1.0])}, "loss", ax=ax) is ax
    assert ax.get_ylabel() == "loss"
    assert len(plt.get_fignums()) == 1


def test_spread_moves_no_more_than_needed():
    assert _spread([0.2, 0.8], 0.1) == [0.2, 0.8]
    assert _spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert _spread([0.9, 0.1, 0.9], 0.1)[1] == 0.1
    crowded = sorted(_spread([0.99, 0.99, 0.99, 0.98], 0.1))
    assert crowded[-1] <= 1
    assert min(np.diff(crowded)) > 0.099


def test_bars_print_the_mean_and_dot_the_seeds():
    ax = plots.bars({"with": [0.8, 0.9], "without": 0.4}, "accuracy", chance=0.25, blind=0.3, highlight="with")
    assert texts(ax) == ["0.85", "0.40", "chance", "blind"]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.85, 0.4])
    (dots,) = ax.collections
    assert [list(dot) for dot in dots.get_offsets()] == [[0.8, 0], [0.9, 0]]
    assert ax.patches[0].get_facecolor() == to_rgba(plots.COLOURS[0])
    assert ax.patches[1].get_facecolor() != to_rgba(plots.COLOURS[0])
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first bar on top"
    renderer = drawn(ax.figure)
    boxes = [text.get_window_extent(renderer) for text in ax.texts]
    assert not any(overlap(a, b) for a, b in combinations(boxes, 2))


def test_bars_know_their_names():
    with pytest.raises(ValueError, match="withuot"):
        plots.bars({"with": 1.0}, "accuracy", highlight="withuot")
    with pytest.raises(ValueError, match="no bar is called withuot"):
        plots.bars({"with": 1.0}, "accuracy", intervals={"withuot": (0.5, 1.0)})


def test_the_number_of_a_bar_stands_behind_its_interval():
    ax = plots.bars({"with": 0.5, "without": 0.4}, "accuracy", intervals={"with": (0.4, 0.7)})
    drawn = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    assert [list(x) for x in drawn] == [[0.4, 0.7]]
    assert [text.xy[0] for text in ax.texts[:2]] == [0.7, 0.4]
    assert ax.get_xlim()[1] > 0.7


def test_heatmap_prints_numbers_and_frames_cells():
    matrix = torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.75, float("nan")]])
    ax = plots.heatmap(matrix, ["red", "blue"], ["circle", "square", "star"], "accuracy", mask=matrix > 0.7)
    assert texts(ax) == ["0.00", "1.00", "0.50", "0.25", "0.75"]
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [(round(f.get_x() + 0.44), round(f.get_y() + 0.42)) for f in frames] == [(1, 0), (1, 1)]
    assert ax.images[0].get_cmap().name == "cividis"


def test_heatmap_leaves_large_matrices_unprinted():
    ax = plots.heatmap(torch.rand(30, 30), title="attention")
    assert texts(ax) == []
    assert len(ax.figure.axes) == 2, "a colour bar instead"


def test_overlay_covers_the_image():
    ax = plots.overlay(torch.rand(3, 8, 12), torch.rand(2, 3), colour_bar=True)
    picture, weights = ax.images
    assert list(picture.get_extent()) == list(weights.get_extent()) == [-0.5, 11.5, 7.5, -0.5]
    assert weights.get_array().shape == (2, 3)
    colours = weights.to_rgba(np.array([weights.norm.vmin, weights.norm.vmax]))
    assert colours[0, 3] < 0.05 < 0.8 < colours[1, 3], "small weights are clear, large ones are not"


def test_tokens_keep_to_the_page():
    words = ["a", "<image>", "supercalifragilistic", *["word"] * 40]
    ax = plots.tokens(words, weights=[i / 50 for i in range(43)])
    assert texts(ax) == words
    assert ax.figure.get_figwidth() <= WIDTH
    renderer = drawn(ax.figure)
    chips = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    assert len(chips) == len(words)
    for chip, text in zip(chips, ax.texts, strict=True):
        outer, inner = chip.get_window_extent(renderer), text.get_window_extent(renderer)
        assert outer.x0 < inner.x0
        assert inner.x1 < outer.x1, f"{text.get_text()} does not fit its chip"
    assert not any(
        overlap(a.get_window_extent(renderer), b.get_window_extent(renderer)) for a, b in combinations(chips, 2)
    )


def test_tokens_want_one_weight_a_word():
    with pytest.raises(ValueError, match="1 weights for 2 words"):
        plots.tokens(["a", "b"], weights=[1.0])


def test_tokens_without_weight_draw():
    plots.tokens(["a", "b"], weights=[0.0, 0.0])
    plots.tokens(["a"])


def test_arrows_join_the_sides_that_face_each_other():
    ax = plots.diagram(4, 3)
    left, right, above = plots.box(ax, 0, 0, 1, 1, "a"), plots.box(ax, 2, 0, 1, 1, "b"), plots.box(ax, 0, 2, 1, 1, "c")
    ends = {}
    for name, (a, b) in {
        "right": (left, right),
        "left": (right, left),
        "up": (left, above),
        "down": (above, left),
    }.items():
        ends[name] = plots.arrow(ax, a, b)._posA_posB
    assert ends["right"] == [(1, 0.5), (2, 0.5)]
    assert ends["left"] == [(2, 0.5), (1, 0.5)]
    assert ends["up"] == [(0.5, 1), (0.5, 2)]
    assert ends["down"] == [(0.5, 2), (0.5, 1)]
    low = plots.box(ax, 2, 1.5, 1, 1, "d")
    tall = plots.box(ax, 3.5, 0, 0.4, 3, "e")
    assert plots.arrow(ax, low, tall)._posA_posB == [(3, 2), (3.5, 2)], "level where it can be"
    assert plots.arrow(ax, (0, 1.5), low)._posA_posB == [(0, 1.5), (2, 2)]


def test_frozen_boxes_look_frozen():
    ax = plots.diagram()
    learns = plots.box(ax, 0, 0, 1, 1, "a", "image")
    before = len(ax.patches)
    frozen = plots.box(ax, 2, 0, 1, 1, "a", "image", frozen=True)
    assert learns.get_edgecolor() == frozen.get_edgecolor() == to_rgba(plots.KINDS["image"])
    assert learns.get_facecolor() != frozen.get_facecolor()
    assert any(patch.get_hatch() for patch in ax.patches[before:])


@pytest.mark.parametrize("done", [(), ("clip", "llava"), tuple(m.name for m in MODELS)], ids=["none", "some", "all"])
def test_genealogy_is_legible(done):
    figure = plots.genealogy(done=done)
    (ax,) = figure.axes
    renderer = drawn(figure)
    boxes = {patch: patch.get_window_extent(renderer) for patch in ax.patches if isinstance(patch, FancyBboxPatch)}
    assert len(boxes) == len(MODELS)
    assert not any(overlap(a, b) for a, b in combinations(boxes.values(), 2))
    page = figure.bbox
    for box in boxes.values():
        assert page.x0 < box.x0
        assert box.x1 < page.x1
    titles = {text.get_text(): text for text in ax.texts}
    assert {model.title for model in MODELS} <= set(titles)
    assert min(text.get_fontsize() for text in ax.texts) >= FONT
    for model, (patch, box) in zip(MODELS, boxes.items(), strict=True):
        inner = titles[model.title].get_window_extent(renderer)
        assert box.x0 < inner.x0
        assert inner.x1 < box.x1, f"{model.title} does not fit its box"
        filled = to_rgb(patch.get_facecolor()) != (1, 1, 1)
        assert filled == (model.name in done)
    others = [text for text in ax.texts if text.get_text() not in {m.title for m in MODELS}]
    extents = [text.get_window_extent(renderer) for text in others]
    assert not any(overlap(a, b) for a, b in combinations([*extents, *boxes.values()], 2))


def test_genealogy_hides_no_line_behind_a_box():
    figure = plots.genealogy(done=())
    (ax,) = figure.axes
    drawn(figure)
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    lines = [
        patch for patch in ax.patches if isinstance(patch, PathPatch) and to_rgb(patch.get_edgecolor()) != (1, 1, 1)
    ]
    assert len(lines) == sum(len(model.parents) for model in MODELS)
    for line in lines:
        points = line.get_path().interpolated(1).to_polygons(closed_only=False)[0]
        for box in boxes:
            x, y, w, h = box.get_x(), box.get_y(), box.get_width(), box.get_height()
            inside = [(px, py) for px, py in points if x + 0.02 < px < x + w - 0.02 and y + 0.02 < py < y + h - 0.02]
            assert not inside, "a line from parent to child runs behind another model"


def test_genealogy_of_a_part_of_the_survey():
    figure = plots.genealogy(MODELS[:6], done=("clip",))
    assert {model.title for model in MODELS[:6]} <= {text.get_text() for text in figure.axes[0].texts}


def test_every_family_has_a_lane():
    assert list(LANES) == list(FAMILIES)


def test_command_names_a_file_that_cannot_be_written(capsys):
    assert main(["/nope/x.png"]) == 2
    assert capsys.readouterr().err == "error: /nope/x.png: No such file or directory\n"


def test_stored_picture_is_fresh_and_small():
    file = ROOT / "docs" / "_static" / "genealogy.png"
    with Image.open(file) as picture:
        said = picture.info.get("Description")
    assert said == fingerprint(), "stale: python -m minivlm.plots docs/_static/genealogy.png"
    assert file.stat().st_size < 200_000


def test_no_figure_shows_itself():
    for file in (ROOT / "minivlm" / "plots").glob("*.py"):
        calls = [
            node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ]
        assert not [call for call in calls if isinstance(call, ast.Attribute) and call.attr == "show"], file.name
