"""Documents hold what they tell, their pixels show it, and questions have one right answer."""

import math
import re
from collections import Counter

import pytest
import torch

from minivlm.world import COLOURS, SHAPES, generator
from minivlm.world.document_questions import CHANCE, ORDINALS, WORDS, DocumentQuestions, table, tell
from minivlm.world.documents import CELLS, HEADS, MOST_ROWS, STYLES, Documents, draw_documents, render, sign_height
from minivlm.world.font import ASPECT, DIGITS, LETTERS
from minivlm.world.glyphs import write_text

SIGNS = LETTERS + DIGITS


def blocks(mask: torch.Tensor) -> list[tuple[int, int]]:
    """Runs of True: [(start, end), ...]."""
    change = torch.diff(mask.int(), prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
    return list(zip((change == 1).nonzero()[:, 0].tolist(), (change == -1).nonzero()[:, 0].tolist(), strict=True))


def read_table(image: torch.Tensor, height: float) -> list[list[str]]:
    """Read a document from its pixels, knowing only how high its signs are: lines, cells between them, signs in them."""
    paper = image[:, 0, 0]
    ink = (image - paper[:, None, None]).norm(dim=0)
    ink = ink / ink.max()
    seen = ink > 0.2
    level, upright = (seen.float().mean(axis) > 0.7 for axis in (1, 0))
    rows, columns = (blocks(lines) for lines in (level, upright))
    pitch = round(height * ASPECT)
    templates = torch.stack(
        [
            1 - write_text(torch.ones(1, 3, math.ceil(height), pitch), c, 0, 0, pitch / ASPECT, (0, 0, 0))[0, 0]
            for c in SIGNS
        ]
    )
    texts = []
    for (_, top), (bottom, _) in zip(rows, rows[1:], strict=False):
        texts.append([])
        for (_, left), (right, _) in zip(columns, columns[1:], strict=False):
            inside = ink[top + 1 : bottom - 1, left + 1 : right - 1]
            texts[-1].append(_read_cell(inside, templates))
    return texts


def _read_cell(ink: torch.Tensor, templates: torch.Tensor) -> str:
    """The signs of one line, whole pixels apart: the row and the column in which templates fit best, then sign by sign."""
    if ink.max() < 0.3:
        return ""
    _, high, pitch = templates.shape
    rows, columns = ((ink > 0.3).any(axis).nonzero()[:, 0] for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    extent = ink.shape[1]
    ink = torch.nn.functional.pad(ink, (pitch // 2, pitch, high // 2, high // 2))
    windows = ink.unfold(0, high, 1).unfold(1, pitch, 1)
    gaps = torch.cdist(windows.flatten(0, 1).flatten(1), templates.flatten(1)).square().view(*windows.shape[:2], -1)
    best, which = gaps.min(2)
    choices = []
    for x in range(pitch // 2 + 1):
        places = range(x, extent + pitch // 2, pitch)
        choices += [(float(best[y, places].mean()), y, places) for y in range(len(best))]
    _, y, places = min(choices, key=lambda choice: choice[0])
    return "".join(SIGNS[int(which[y, place])] for place in places)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (384, 384), (160, 480)])
def test_a_document_can_be_read_from_its_pixels(height, width):
    documents = draw_documents(generator("read"), 8)
    images = render(documents, height, width)
    assert images.shape == (8, 3, height, width)
    assert images.min() >= 0
    assert images.max() <= 1
    sizes = sign_height(documents, height, width)
    assert sizes.min() >= 8
    for image, size, (rows, columns, cells) in zip(images, sizes.tolist(), table(documents), strict=True):
        told = [["", *columns], *[[row, *texts] for row, texts in zip(rows, cells, strict=True)]]
        assert read_table(image, size) == [[text.upper() for text in line] for line in told]


def test_documents_are_what_was_asked_for():
    documents = draw_documents(generator("asked"), 2000, rows=(2, 8), columns=(1, 6))
    assert set(documents.rows.tolist()) == set(range(2, 9))
    assert set(documents.columns.tolist()) == set(range(1, 7))
    styles, fillings = Counter(), Counter()
    for rows, columns, cells in table(documents):
        flat = [text for line in cells for text in line]
        assert len(set(flat)) == len(flat) == len(rows) * len(columns), "a cell comes twice: not clear what is meant"
        assert len(set(rows)) == len(rows)
        assert len(set(columns)) == len(columns)
        if rows[0] in COLOURS:
            assert set(rows) <= set(COLOURS)
            assert set(columns) <= set(SHAPES)
        else:
            assert rows == [str(i + 1) for i in range(len(rows))]
            assert all(column.upper() in LETTERS for column in columns)
        styles[rows[0] in COLOURS] += 1
        fillings[all(text.isdigit() for text in flat)] += 1
        assert all(text.isdigit() for text in flat) or all(re.fullmatch(r"[A-Z]\d", text) for text in flat)
    assert min(styles.values()) > 900
    assert min(fillings.values()) > 900
    assert len(set(HEADS)) == len(HEADS)
    assert len(set(CELLS)) == len(CELLS)


def test_every_cell_and_head_is_equally_likely():
    documents = draw_documents(generator("even"), 4000, (2, 2), (2, 2), styles=("words",), fillings=("numbers",))
    for values, n in ((documents.cells, 100), (documents.row_heads - documents.row_heads.min(), 8)):
        counts = torch.bincount(values.flatten(), minlength=n)
        assert len(counts) == n
        assert counts.min() > 0.5 * counts.max()


def answer(told: str, question: str) -> str:
    """Answers from the words of a document alone."""
    columns = re.split(", | and ", re.match(r"the columns are ([a-z, ]+)\.", told)[1])
    rows = {name: line for name, line in re.findall(r"row (\w+): ([^.]+)\.", told)}
    cells = {
        (row, column): text for row, line in rows.items() for text, column in re.findall(r"(\w+) in column (\w+)", line)
    }
    if found := re.fullmatch(r"what is in row (\w+), column (\w+)\?", question):
        return cells[found.groups()]
    if found := re.fullmatch(r"what is the head of the (\w+) (row|column)\?", question):
        return (list(rows) if found[2] == "row" else columns)[ORDINALS.index(found[1])]
    if found := re.fullmatch(r"which row has the largest number in column (\w+)\?", question):
        return max(rows, key=lambda row: int(cells[row, found[1]]))
    found = re.fullmatch(r"in which row is (\w+)\?", question)
    where = [row for (row, _), text in cells.items() if text == found[1]]
    assert len(where) == 1
    assert found[1] not in rows, "a head is meant as well"
    return where[0]


@pytest.mark.parametrize("kind", CHANCE)
def test_answers_follow_from_what_is_told(kind):
    documents = draw_documents(
        generator("told"), 600, (2, 8), (1, 6), fillings=("numbers", "codes") if kind != "largest" else ("numbers",)
    )
    asked = DocumentQuestions(generator("ask"), kind)(documents)
    assert {question.kind for question in asked} == {kind}
    for question, parts in zip(asked, table(documents), strict=True):
        assert question.told == tell(*parts)
        assert answer(question.told, question.question) == question.answer, question


def test_kinds_are_even_and_no_row_is_the_answer_too_often():
    documents = draw_documents(generator("even"), 6000, (4, 4), (2, 4), styles=("signs",), fillings=("numbers",))
    asked = DocumentQuestions(generator("ask"))(documents)
    kinds = Counter(question.kind for question in asked)
    assert set(kinds) == set(CHANCE)
    assert min(kinds.values()) > 1300
    for kind in ("largest", "find"):
        rows = Counter(question.answer for question in asked if question.kind == kind)
        assert set(rows) == set("1234")
        assert max(rows.values()) < 0.31 * sum(rows.values()), f"{kind}: one row is the answer too often"
    assert not any(question.kind == "head" and question.answer in HEADS[:MOST_ROWS] for question in asked)


@pytest.mark.parametrize("size", [(8, 8), (16, 120), (120, 16), (33, 47), (512, 512)])
def test_tables_stay_inside_any_picture(size):
    documents = draw_documents(generator("inside"), 6)
    images = render(documents, *size)
    assert images.shape == (6, 3, *size)
    if min(size) >= 100:
        border = torch.cat([images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]], -1)
        assert torch.allclose(border, documents.paper[:, :, None].expand_as(border), atol=1e-5)
    assert (images - documents.paper[:, :, None, None]).abs().amax((1, 2, 3)).min() > 0.03, "nothing is drawn"


def test_small_documents_are_large_ones_shrunk_and_alone_as_in_a_batch():
    documents = draw_documents(generator("scale"), 5)
    images = render(documents, 60)
    assert (torch.nn.functional.avg_pool2d(render(documents, 480), 8) - images).abs().mean() < 0.04
    assert torch.allclose(render(documents[3], 60), images[3:4], atol=1e-5)
    assert torch.equal(Documents.join([documents[:2], documents[2:]]).cells, documents.cells)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "at least one document"),
        (dict(rows=(0, 2)), "rows is a pair of whole numbers"),
        (dict(rows=(2, 9)), "at most 8 rows and 6 columns"),
        (dict(columns=(2, 7)), "at most 8 rows and 6 columns"),
        (dict(styles=("letters",)), "styles are one or more"),
        (dict(fillings=()), "fillings are one or more"),
        (dict(fillings="codes"), "fillings are one or more"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        draw_documents(generator("bad"), **(dict(n=2) | request_))


def test_odd_questions_and_sizes_say_why():
    codes = draw_documents(generator("x"), 1, fillings=("codes",))
    with pytest.raises(ValueError, match="add kinds"):
        DocumentQuestions(generator("x"), "largest")(codes)
    with pytest.raises(ValueError, match="some of"):
        DocumentQuestions(generator("x"), "smallest")
    for size in ((0, 5), (5.0, 5)):
        with pytest.raises(ValueError, match="at least 1 x 1"):
            render(codes, *size)
    assert set(STYLES) == {"signs", "words"}


def test_every_word_is_listed():
    asked = DocumentQuestions(generator("q"))(draw_documents(generator("words"), 2000, (1, 8), (1, 6)))
    said = set(re.findall("[a-z]+", " ".join(" ".join(question[1:]) for question in asked)))
    assert said <= {*WORDS, *COLOURS, *SHAPES}, "a text has words that no vocabulary will know"
