"""Characters look like what they are, at every size, and land where they are put."""

from pathlib import Path

import pytest
import torch

from minivlm.world.font import ASPECT, CHARACTERS, DIGITS, LETTERS, PATHS, encode
from minivlm.world.glyphs import Glyphs, draw_glyphs, text_glyphs, write_text

SIGNS = LETTERS + DIGITS
BLACK = (0.0, 0.0, 0.0)


def drawn(
    text: str, height: float, dx: float = 0.0, dy: float = 0.0, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Ink (h, w) of a text that begins (dx, dy) after the corner of pixel (1, 1)."""
    rows, columns = size or (int(height) + 4, int(height * ASPECT * len(text)) + 4)
    return 1 - write_text(torch.ones(1, 3, rows, columns), text, 1 + dx, 1 + dy, height, BLACK)[0, 0]


def test_the_font_is_whole():
    assert set(LETTERS + DIGITS + ".,:-+=?% ") == set(CHARACTERS) == set(PATHS)
    assert drawn(" ", 20).sum() == 0, "a space has no ink"
    assert all(drawn(c, 20).sum() > 4 for c in CHARACTERS if c != " "), "a character has hardly any ink"


def test_no_two_characters_are_alike_at_8_pixels_wherever_they_lie():
    """Read by templates that lie a quarter of a pixel apart, signs that lie between them are nearest to themselves."""
    phases = [i / 4 for i in range(4)]
    templates = torch.stack([torch.stack([drawn(c, 8, x, y).flatten() for x in phases for y in phases]) for c in SIGNS])
    for dx in (0.12, 0.37, 0.88):
        for dy in (0.12, 0.63):
            query = torch.stack([drawn(c, 8, dx, dy).flatten() for c in SIGNS])
            gaps = torch.stack([torch.cdist(query, template).amin(1) for template in templates], 1)
            read = [SIGNS[i] for i in gaps.argmin(1)]
            wrong = [f"{sign} looks like {other}" for sign, other in zip(SIGNS, read, strict=True) if sign != other]
            assert not wrong, f"at ({dx}, {dy}): {', '.join(wrong)}"


def shape(ink: torch.Tensor) -> torch.Tensor:
    """Ink cut to its own extent, at one size, of length 1."""
    rows, columns = ((ink > 0.5).any(axis).nonzero()[:, 0] for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    flat = torch.nn.functional.interpolate(ink[None, None], (24, 16), mode="area").flatten() - 0.5
    return flat / flat.norm()


def test_signs_are_the_signs_of_a_printed_font():
    """Read by somebody else: each sign is most like the same sign of the font that comes with matplotlib."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono-Bold.ttf"
    font, printed = ImageFont.truetype(str(file), 80), []
    for sign in SIGNS:
        picture = Image.new("L", (120, 120))
        ImageDraw.Draw(picture).text((20, 10), sign, fill=255, font=font)
        printed.append(shape(torch.tensor(list(picture.tobytes())).view(120, 120) / 255))
    ours = torch.stack([shape(drawn(sign, 90)) for sign in SIGNS])
    read = [SIGNS[i] for i in (ours @ torch.stack(printed).T).argmax(1)]
    wrong = [f"{a} looks like {b}" for a, b in zip(SIGNS, read, strict=True) if a != b and a != "Q"]
    assert not wrong, f"{', '.join(wrong)} (a Q is left out: the printed one has its tail below the line)"


@pytest.mark.parametrize("height", [3, 5, 6, 8, 9.5, 12, 15, 24])
def test_small_signs_are_large_signs_shrunk(height):
    """Drawing small is drawing large and averaging: as much ink, in the same places."""
    large = drawn(SIGNS, 8 * height, 7, 7, (8 * 32, 8 * 700))
    small = drawn(SIGNS, height, 0, 0, (32, 700))
    averaged = torch.nn.functional.avg_pool2d(large[None], 8)[0]
    weight, gaps = float(small.sum() / averaged.sum()), (small - averaged).abs()
    rough = height < 4  # neighbours share pixels, in which the darker one counts
    assert abs(weight - 1) < (0.08 if rough else 0.01), f"thin strokes lose or gain weight: {weight:.3f}"
    worst, mean = float(gaps.max()), float(gaps.sum() / averaged.sum())
    assert worst < 0.45, f"a pixel differs by {worst:.2f}"
    assert mean < (0.08 if rough else 0.03), f"pixels differ by {mean:.3f} of the ink"


@pytest.mark.parametrize("character", [c for c in CHARACTERS if c != " "])
def test_ink_stays_in_its_cell(character):
    for height in (8, 20):
        ink = drawn(character, height, 3, 3, (height + 10, height + 10))
        rows, columns = ink.any(1).nonzero()[:, 0], ink.any(0).nonzero()[:, 0]
        assert rows[0] >= 4
        assert rows[-1] < 4 + height, "the character leaves its cell"
        assert columns[0] >= 4
        assert columns[-1] < 4 + height * ASPECT, "the character leaves its cell"


@pytest.mark.parametrize(("height", "width"), [(16, 128), (128, 16), (40, 40), (9, 31)])
def test_a_glyph_is_the_same_on_every_picture_and_cut_off_at_its_border(height, width):
    around = torch.ones(2, 3, height + 60, width + 60)
    glyph = Glyphs.join(
        [
            text_glyphs(c, x, y, 14.0, BLACK, i)
            for i, c in enumerate("AB")
            for x, y in [(-5.3, -6), (2.6, -1), (width - 5.4, height - 8.7)]
        ]
    )
    moved = Glyphs(glyph.character, glyph.position + 30, glyph.height, glyph.colour, glyph.scene)
    whole = draw_glyphs(around, moved)[:, :, 30:-30, 30:-30]
    assert torch.allclose(draw_glyphs(torch.ones(2, 3, height, width), glyph), whole, atol=1e-5)


def test_one_colour_joins_without_a_seam_and_a_later_colour_covers():
    images = torch.ones(1, 3, 20, 20)
    once = write_text(images, "H", 2, 2, 16, BLACK)
    both = draw_glyphs(images, Glyphs.join([text_glyphs("H", 2, 2, 16, BLACK)] * 2))
    assert torch.allclose(once, both), "drawn twice in one call, the edge of a glyph gets darker"
    red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    order = draw_glyphs(images, Glyphs.join([text_glyphs("I", 2, 2, 16, c) for c in (red, blue, red, blue)]))
    assert torch.allclose(order[0, :, 10, 8], torch.tensor(blue)), "the last colour lies on top"
    assert (images == 1).all(), "the pictures that were given are changed"


def test_pictures_do_not_mix():
    glyphs = Glyphs.join([text_glyphs("8", 1, 1, 14, BLACK, scene) for scene in (2, 0)])
    ink = (1 - draw_glyphs(torch.ones(4, 3, 16, 16), glyphs)).flatten(1).sum(1)
    assert (ink > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(text="abc"), "capitals"),
        (dict(text="A$"), r"\['\$'\]"),
        (dict(text="ABCDEFG"), r"height of 11\.0 would"),
        (dict(x=-1), "start within"),
        (dict(height=41), "does not fit"),
        (dict(height=0), "more than 0"),
        (dict(colour="mauve"), "a colour is one of"),
        (dict(colour=(0, 0, 300)), "from 0 to 1"),
    ],
)
def test_impossible_texts_say_why(request_, words):
    settings = dict(text="AB", x=2, y=0, height=12) | request_
    with pytest.raises(ValueError, match=words):
        write_text(torch.ones(1, 3, 40, 60), **settings)


def test_impossible_glyphs_say_why():
    glyph = text_glyphs("A", 0, 0, 8)
    with pytest.raises(ValueError, match="scene runs from 0 to 0; got 1"):
        draw_glyphs(torch.ones(1, 3, 8, 8), text_glyphs("A", 0, 0, 8, scene=1))
    for wrong in (torch.tensor([0.0]), torch.tensor([float("nan")])):
        with pytest.raises(ValueError, match="height of more than 0"):
            draw_glyphs(
                torch.ones(1, 3, 8, 8), Glyphs(glyph.character, glyph.position, wrong, glyph.colour, glyph.scene)
            )
    with pytest.raises(ValueError, match="none"):
        Glyphs.join([])


def test_nothing_to_write_changes_nothing():
    images = torch.rand(2, 3, 8, 8)
    for same in (write_text(images, "", 0, 0, 4), write_text(images, "  ", 0, 0, 4)):
        assert torch.equal(same, images)
    assert encode("") == []
