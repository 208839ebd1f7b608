"""The class that takes the reference's arguments: what it gives, and what it refuses."""

import inspect
from functools import partial

import pytest
import torch
import transformers

from minivlm import checkpoints
from minivlm.checkpoints.llava import ConditionalGeneration
from tests.checkpoints.test_llava import CONFIG, SORTS, small

IMAGE, N = CONFIG.image_id, CONFIG.image_tokens
PLACES = [IMAGE] * N
IDS = torch.tensor([[1, *PLACES, 9, 20, 5], [1, 8, *PLACES, 9, 0]])
MASK = (IDS != 0).long()
PIXELS = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.where(torch.arange(IDS.shape[1]) < 10, -100, IDS)


@pytest.fixture(scope="module")
def model():
    return ConditionalGeneration(small())


@torch.no_grad()
def test_it_answers_under_the_references_names(model):
    result = model(input_ids=IDS, pixel_values=PIXELS, attention_mask=MASK)
    assert result.logits.shape == (*IDS.shape, 30)
    assert result.loss is None
    result = model(IDS, PIXELS, MASK, labels=LABELS)
    assert result.loss.shape == ()
    assert torch.equal(model(IDS, PIXELS, MASK).logits, result.logits)
    assert model.get_image_features(PIXELS).pooler_output.shape == (2, N, 16)
    assert torch.equal(model.get_image_features(PIXELS).pooler_output, model.model.embed_image(PIXELS))
    assert model.config is model.model.config


def test_its_arguments_are_the_references():
    """In the same order, as far as they go."""
    ours = list(inspect.signature(ConditionalGeneration.forward).parameters)
    theirs = list(inspect.signature(transformers.LlavaForConditionalGeneration.forward).parameters)
    assert [name for name in theirs if name in ours] == ours
    assert ours[:4] == theirs[:4]


@torch.no_grad()
def test_generate_gives_prompt_and_continuation(model):
    ids = torch.tensor([[1, *PLACES, 9], [0, *PLACES, 9]])
    mask = torch.tensor([[1] * (N + 2), [0] + [1] * (N + 1)])
    written = model.generate(ids, PIXELS, mask, max_new_tokens=5)
    assert written.shape == (2, N + 7)
    assert torch.equal(written[:, : N + 2], ids)
    words = torch.tensor([[1, 9, 8]])
    assert torch.equal(model.generate(words)[:, :3], words)
    assert model.generate(words).shape == (1, 23)


@torch.no_grad()
def test_other_kinds_of_numbers(model):
    """Masks and ids of any kind; images are computed with in the model's."""
    wanted = model(IDS, PIXELS, MASK).logits
    for dtype in (torch.bool, torch.int32, torch.float32, torch.uint8):
        assert torch.equal(model(IDS, PIXELS, MASK.to(dtype)).logits, wanted)
    for dtype in (torch.int32, torch.uint8, torch.int8):
        assert torch.equal(model(IDS.to(dtype), PIXELS, MASK).logits, wanted)
    loss = model(IDS, PIXELS, MASK, labels=LABELS).loss
    for dtype in (torch.int32, torch.int16):
        assert torch.equal(model(IDS, PIXELS, MASK, labels=LABELS.to(dtype)).loss, loss)
    written = model.generate(IDS[:1].to(torch.uint8), PIXELS[:1], max_new_tokens=3)
    assert torch.equal(written, model.generate(IDS[:1], PIXELS[:1], max_new_tokens=3))
    assert torch.equal(model(IDS, PIXELS.double(), MASK).logits, wanted)
    half = model(IDS, PIXELS.to(torch.bfloat16), MASK).logits
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, wanted, atol=0.1, rtol=0)
    both = ConditionalGeneration(small()).to(torch.bfloat16)
    assert both(IDS, PIXELS, MASK).logits.dtype == torch.bfloat16


@torch.no_grad()
def test_parts_of_different_precision(model):
    """A vision encoder kept in another kind of number than the language model."""
    mixed = ConditionalGeneration(small())
    mixed.model.vision.double()
    mixed.model.connector.double()
    logits = mixed(IDS, PIXELS, MASK).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(IDS, PIXELS, MASK).logits, atol=1e-4, rtol=0)


def bare(method):
    """Without the check of annotations, which these tests have and a user has not."""
    return partial(inspect.unwrap(method.__func__), method.__self__)


def replaced(at: tuple[int, int], value: int) -> torch.Tensor:
    ids = IDS.clone()
    ids[at] = value
    return ids


HIDING = MASK.clone()
HIDING[1, 3] = 0
STRADDLING = replaced((0, 1), 9)
STRADDLING[1, 1] = IMAGE  # as many places as before, and one image in two texts
META = torch.zeros(2, 3, 12, 12, device="meta")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"input_ids": IDS.float()}, TypeError, "whole numbers; got torch.float32"),
        ({"input_ids": IDS[0]}, ValueError, r"shape \(B, T\); got \(13,\)"),
        ({"input_ids": IDS[:, :0]}, ValueError, r"shape \(B, T\); got \(2, 0\)"),
        ({"input_ids": replaced((0, 12), 30)}, ValueError, "runs from 0 to 30; the vocabulary has ids 0 to 29"),
        ({"input_ids": replaced((0, 12), -200)}, ValueError, "runs from -200 to"),
        ({"input_ids": IDS.repeat(1, 4)}, ValueError, "52 columns, but the context holds 40"),
        ({"attention_mask": MASK[:, :3]}, ValueError, r"attention_mask must have shape \(2, 13\); got \(2, 3\)"),
        ({"attention_mask": MASK[:, None]}, ValueError, r"attention_mask must have shape \(2, 13\)"),
        ({"attention_mask": MASK * 2}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"attention_mask": HIDING}, ValueError, r"row 1: attention_mask hides places of an image \(id 7\)"),
        ({"pixel_values": None}, ValueError, r"places for 2 images \(id 7, 9 times each\), and pixel_values has 0"),
        ({"pixel_values": PIXELS[:1]}, ValueError, "places for 2 images .* and pixel_values has 1"),
        ({"pixel_values": PIXELS.repeat(2, 1, 1, 1)}, ValueError, "places for 2 images .* and pixel_values has 4"),
        ({"input_ids": torch.tensor([[1, 9]]), "attention_mask": None}, ValueError, "places for 0 images .* has 2"),
        (
            {"input_ids": replaced((1, 12), IMAGE), "attention_mask": None},
            ValueError,
            "row 1 .* has 10 places .* takes 9",
        ),
        ({"input_ids": replaced((0, 1), 9)}, ValueError, "row 0 of input_ids has 8 places for images"),
        ({"input_ids": STRADDLING}, ValueError, "row 0 of input_ids has 8 places for images"),
        (
            {"pixel_values": torch.zeros(2, 3, 16, 16)},
            ValueError,
            r"pixel_values must have shape \('B', 3, 12, 12\); got \(2, 3, 16, 16\).*ImageProcessor\(12\)",
        ),
        ({"pixel_values": torch.zeros(2, 1, 12, 12)}, ValueError, "pixel_values must have shape"),
        ({"pixel_values": PIXELS[0]}, ValueError, "pixel_values must have shape"),
        ({"pixel_values": PIXELS[:0]}, ValueError, "pixel_values must have shape"),
        ({"pixel_values": PIXELS.to(torch.uint8)}, TypeError, "float tensor; got torch.uint8"),
        ({"pixel_values": META}, ValueError, "pixel_values is on meta, and the model on cpu; move one to the other"),
        ({"input_ids": IDS.to("meta")}, ValueError, "input_ids is on meta, and the model on cpu"),
        ({"attention_mask": MASK.to("meta")}, ValueError, "attention_mask is on meta, and the model on cpu"),
        ({"labels": LABELS.to("meta")}, ValueError, "labels is on meta, and the model on cpu"),
        ({"labels": LABELS[:1]}, ValueError, r"labels must have shape \(2, 13\); got \(1, 13\)"),
        (
            {"labels": torch.where(LABELS == 5, 30, LABELS)},
            ValueError,
            "labels must be ids from 0 to 29, or -100 .* numbers from 0 to 30",
        ),
        ({"labels": torch.where(LABELS == 5, -99, LABELS)}, ValueError, "labels must be ids from 0 to 29, or -100"),
        (
            {"labels": torch.full_like(IDS, -100)},
            ValueError,
            "some of them ids after the first column; got none there",
        ),
        (
            {"labels": torch.where(torch.arange(IDS.shape[1]) == 0, IDS, -100)},
            ValueError,
            "after the first column; got none there",
        ),
        ({"labels": LABELS.float()}, TypeError, "labels must be a tensor of whole numbers; got torch.float32"),
        ({"labels": LABELS.bool()}, TypeError, "labels must be a tensor of whole numbers; got torch.bool"),
        ({"labels": LABELS.tolist()}, TypeError, "labels must be a tensor; got list"),
        ({"input_ids": IDS.tolist()}, TypeError, "input_ids must be a tensor; got list"),
        ({"input_ids": None}, TypeError, "input_ids must be a tensor of whole numbers; got None"),
        ({"input_ids": IDS.bool()}, TypeError, "whole numbers; got torch.bool"),
        ({"attention_mask": MASK.tolist()}, TypeError, "attention_mask must be a tensor; got list"),
        ({"attention_mask": MASK * torch.nan}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"pixel_values": PIXELS.numpy()}, TypeError, "pixel_values must be a tensor; got ndarray"),
    ],
)
def test_what_it_refuses(model, given, error, words):
    arguments = {"input_ids": IDS, "pixel_values": PIXELS, "attention_mask": MASK, **given}
    with pytest.raises(error, match=words):
        bare(model.forward)(**arguments)
    if "labels" not in given:
        with pytest.raises(error, match=words):
            bare(model.generate)(**arguments)


def test_generate_refuses(model):
    with pytest.raises(ValueError, match="padded on the left"):
        model.generate(IDS, PIXELS, MASK)
    with pytest.raises(ValueError, match="the context holds 40"):
        model.generate(IDS[:1], PIXELS[:1], max_new_tokens=28)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        model.generate(IDS[:1], PIXELS[:1], max_new_tokens=0)
    for how, error, words in (
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be a whole number; got 2.5"),
        ({"eos_token_id": 30}, ValueError, "eos_token_id is 30; expected one id from 0 to 29"),
        ({"eos_token_id": [2, 3]}, ValueError, r"eos_token_id is \[2, 3\]; expected one id"),
        ({"pad_token_id": None}, ValueError, "pad_token_id is None; expected one id"),
        ({"pad_token_id": -1}, ValueError, "pad_token_id is -1; expected one id"),
    ):
        with pytest.raises(error, match=words):
            bare(model.generate)(IDS[:1], PIXELS[:1], **{"max_new_tokens": 3, **how})
    with pytest.raises(ValueError, match="pixel_values is on meta"):
        model.get_image_features(META)


def test_padding_with_the_place_of_an_image():
    """The original repository's unknown word both pads and, here, marks places: it is seen."""
    model = ConditionalGeneration(small(SORTS["one layer"]))
    assert model.config.image_id == 0
    ids = torch.where(IDS == IMAGE, 0, IDS)
    mask = MASK.clone()
    with pytest.raises(
        ValueError, match=r"row 1: attention_mask hides places of an image \(id 0\).*pad with another id"
    ):
        model(ids, PIXELS, mask)


def test_one_image_for_each_row_in_order(tmp_path):
    """What `load` gave is what was saved, image by image."""
    checkpoints.save(small(SORTS["one matrix"]), tmp_path / "llava")
    loaded = checkpoints.load(tmp_path / "llava")
    with torch.no_grad():
        both = loaded(IDS, PIXELS, MASK).logits
        for row in range(2):
            alone = loaded(IDS[row : row + 1], PIXELS[row : row + 1], MASK[row : row + 1]).logits
            torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=0)
        assert not torch.allclose(loaded(IDS, PIXELS.flip(0), MASK).logits, both, atol=1e-3)
