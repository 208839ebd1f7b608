"""The handwritten digits are whole, and pictures of numbers show the numbers that they say."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from minivlm.world import COLOURS, data_files, digits, generator
from minivlm.world.digits import FORMS, SPLITS, Inks, draw_inks, handwriting, split_numbers
from minivlm.world.numbers import CHANCE, MOST, WORDS, NumberQuestions, Numbers, draw_numbers, render


def test_the_digits_are_whole():
    images, labels = handwriting()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal((images * 16).round() / 16, images)
    assert set(labels.tolist()) == set(range(10))
    readme = (data_files.DATA / "digits" / "README.md").read_text(encoding="utf-8")
    assert digits.SHA256 in readme, "the README gives another hash"
    assert "CC BY 4.0" in readme


def test_forms_begin_where_the_labels_begin_again():
    """Everyone filled in the same form: 0 to 9, over and over, at its beginning (one has lost its first zero)."""
    labels = "".join(map(str, handwriting().labels.tolist()))
    for start in FORMS:
        assert labels[start : start + 10] in ("0123456789", "1234567890"), f"no form begins at {start}"
    assert all(110 < end - start <= 130 for start, end in zip(FORMS, (*FORMS[1:], 1797), strict=True))


def test_splits_are_apart_and_complete():
    parts = [split_numbers(split) for split in SPLITS]
    assert sorted(torch.cat(parts).tolist()) == list(range(1797))
    assert all(set(handwriting().labels[part].tolist()) == set(range(10)) for part in parts)
    assert len(split_numbers("test")) > 200
    with pytest.raises(ValueError, match="split is one of"):
        split_numbers("validation")


def test_test_writers_can_be_read_by_those_who_saw_the_others():
    """Labels belong to their images: the nearest training image nearly always has the same label."""
    images, labels = handwriting()
    train, test = split_numbers("train"), split_numbers("test")
    nearest = torch.cdist(images[test].flatten(1), images[train].flatten(1)).argmin(1)
    assert (labels[train][nearest] == labels[test]).float().mean() > 0.9


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"digits.npz is missing.*git checkout -- data/digits/digits\.npz"):
        handwriting.__wrapped__()
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "digits.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged.*sha256"):
        handwriting.__wrapped__()


@pytest.mark.parametrize("height", [3, 4.5, 6, 9, 18, 24.3, 60])
def test_digits_keep_their_ink_and_place_at_any_size(height):
    """Ink and its centre of mass, read from the pixels, are those of the dots."""
    dots = handwriting().images[:20]
    rows = int(height) + 6
    place = torch.full((20, 2), 2.4)
    inks = Inks(dots, place, torch.full((20,), float(height)), torch.zeros(20, 3), torch.arange(20))
    ink = 1 - draw_inks(torch.ones(20, 3, rows, rows), inks)[:, 0]
    dot = height / 9
    assert torch.allclose(ink.sum((1, 2)), dots.sum((1, 2)) * dot**2, rtol=0.05), "digits lose or gain ink"
    pixels, centres = torch.arange(rows) + 0.5, 2.4 + (torch.arange(8) + 1) * dot
    for axis in (1, 2):
        found = (ink.sum(axis) * pixels).sum(1) / ink.sum((1, 2))
        wanted = (dots.sum(axis) * centres).sum(1) / dots.sum((1, 2))
        assert torch.allclose(found, wanted, atol=0.1), "digits are not where they were put"


def read(numbers: Numbers, images: torch.Tensor, i: int) -> list[int]:
    """Read digits from pixels: shrink each square to dots, and compare with every image of the file."""
    ink = torch.tensor(list(COLOURS.values()))[numbers.colour[i]]
    change = ink - numbers.background[i]
    values = ((images[i] - numbers.background[i][:, None, None]) * change[:, None, None]).sum(0) / change.square().sum()
    found = []
    for k in range(int(numbers.count[i])):
        (x, y), dot = numbers.position[i, k].tolist(), float(numbers.height[i, k]) / 9
        line = torch.arange(1, 9) * dot
        grid = torch.stack(torch.meshgrid(x + line, y + line, indexing="xy"), -1)
        grid = grid * 2 / torch.tensor([values.shape[1], values.shape[0]]) - 1
        dots = torch.nn.functional.grid_sample(values[None, None], grid[None], align_corners=False)[0, 0]
        nearest = (handwriting().images - dots).square().sum((1, 2)).argmin()
        found.append(int(handwriting().labels[nearest]))
    return found


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, (10, 20)), (24, 192, (12, 24)), (160, 20, (9, 20))])
def test_numbers_can_be_read_from_the_pixels(scattered, height, width, size):
    most = 1 if width == 20 and not scattered else 3
    numbers = draw_numbers(generator("read"), 60, height, width, (1, most), size, scattered=scattered)
    images = render(numbers)
    assert images.shape == (60, 3, height, width)
    right = [read(numbers, images, i) == shown for i, shown in enumerate(numbers.digits())]
    assert sum(right) > 55, f"{60 - sum(right)} of 60 pictures do not show what they say"


@pytest.mark.parametrize("scattered", [False, True])
def test_digits_lie_inside_and_never_overlap(scattered):
    numbers = draw_numbers(generator("apart"), 2000, 40, 60, (1, 4), (6, 30), scattered=scattered)
    here = numbers.height > 0
    assert torch.equal(here.sum(1), numbers.count)
    end = numbers.position + numbers.height[..., None]
    assert (numbers.position >= -1e-4).all()
    assert (end <= torch.tensor([60, 40]) + 1e-4).all()
    assert numbers.height[here].min() >= 6 - 1e-4
    assert numbers.height.max() <= 30
    over = torch.minimum(end[:, :, None], end[:, None]) - torch.maximum(
        numbers.position[:, :, None], numbers.position[:, None]
    )
    over = (over > 1e-3).all(-1) & ~torch.eye(4, dtype=torch.bool) & here[:, :, None] & here[:, None]
    assert not over.any(), "two digits overlap"
    if not scattered:
        x = numbers.position[..., 0]
        assert (x[:, 1:] > x[:, :-1])[here[:, 1:]].all(), "a number is not written from left to right"


def test_images_come_from_their_split_and_all_digits_come():
    for split in SPLITS:
        numbers = draw_numbers(generator("split"), 4000, 32, 32, split=split)
        here = numbers.height > 0
        assert set(numbers.which[here].tolist()) <= set(split_numbers(split).tolist())
        assert torch.equal(handwriting().labels[numbers.which[here]], numbers.digit[here])
        counts = torch.bincount(numbers.digit[:, 1:][here[:, 1:]], minlength=10)
        assert counts.min() > 0.8 * counts.max(), "digits are not equally likely"
        assert not (numbers.digit[:, 0] == 0)[numbers.count > 1].any(), "a number begins with a zero"


def test_answers_are_what_is_told():
    for scattered in (False, True):
        numbers = draw_numbers(generator("told"), 500, 32, 32, scattered=scattered)
        asked = NumberQuestions(generator("ask"))(numbers)
        for shown, (kind, told, question, answer) in zip(numbers.digits(), asked, strict=True):
            said = [int(c) for c in re.findall(r"\d", told)]
            assert said == shown, (told, shown)
            assert answer == (str(sum(said)) if kind == "sum" else "".join(map(str, said))), (question, answer, told)
        kinds = Counter(question.kind for question in asked)
        assert set(kinds) == ({"sum"} if scattered else set(CHANCE))
    assert len({q.answer for q in asked if q.kind == "sum"}) <= 9 * MOST + 1


def test_other_sizes_show_the_same_picture():
    numbers = draw_numbers(generator("scale"), 4, 32, 64)
    assert (torch.nn.functional.avg_pool2d(render(numbers, 128, 256), 4) - render(numbers)).abs().mean() < 0.004
    assert torch.allclose(render(numbers[2]), render(numbers)[2:3], atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "at least one picture"),
        (dict(digits=(0, 1)), "digits is a pair of whole numbers"),
        (dict(size=9), "size is a pair"),
        (dict(digits=(1, 4)), r"4 digits of 9 pixels do not fit 32 x 32 pixels; 8\.0 would"),
        (dict(digits=(1, 9), size=(12, 20), scattered=True), "do not fit"),
        (dict(split="all"), "split is one of"),
        (dict(width=0), "at least 1 x 1"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        draw_numbers(generator("bad"), **(dict(n=2, height=32, width=32) | request_))


def test_scattered_digits_are_no_number():
    with pytest.raises(ValueError, match='add the kind "sum"'):
        NumberQuestions(generator("x"), "digits")(draw_numbers(generator("x"), 1, 32, 32, scattered=True))
    with pytest.raises(ValueError, match="some of"):
        NumberQuestions(generator("x"), "product")
    assert np.isclose(CHANCE["sum"], 1 / 28)


def test_every_word_is_listed():
    for scattered in (False, True):
        asked = NumberQuestions(generator("q"))(draw_numbers(generator("words"), 200, 32, 32, scattered=scattered))
        said = set(re.findall("[a-z]+", " ".join(" ".join(question[1:]) for question in asked)))
        assert said <= set(WORDS), "a text has words that no vocabulary will know"
