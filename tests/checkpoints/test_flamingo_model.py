"""The class that takes the reference's arguments: what it gives, and what it refuses."""

import inspect

import pytest
import torch
import transformers

from minivlm.checkpoints.flamingo_model import VisionText2Text
from tests.checkpoints.test_flamingo import CONFIG, small
from tests.checkpoints.test_llava_model import bare

IMAGE = CONFIG.image_id
IDS = torch.tensor([[1, IMAGE, 9, 20, IMAGE, 5], [1, 8, IMAGE, 9, 12, 0]])
MASK = (IDS != 0).long()
PIXELS = torch.randn(2, 2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LOOKS = ((IDS == IMAGE).cumsum(1)[..., None] == torch.tensor([1, 2])).long()
LABELS = torch.where(torch.arange(6) < 3, -100, IDS)


@pytest.fixture(scope="module")
def model():
    return VisionText2Text(small())


@torch.no_grad()
def test_it_answers_under_the_references_names(model):
    result = model(input_ids=IDS, attention_mask=MASK, pixel_values=PIXELS, image_attention_mask=LOOKS)
    assert result.logits.shape == (2, 6, 30)
    assert result.loss is None
    assert torch.equal(result.image_hidden_states[1], model.model.embed_image(PIXELS[1]))
    learned = model(IDS, MASK, PIXELS, LOOKS, LABELS)
    assert learned.loss.shape == ()
    assert torch.equal(learned.logits, result.logits)
    assert model.config is model.model.config


@torch.no_grad()
def test_as_the_lesson_says_it(model):
    """Where the mask is that of the last image, it is what the lesson's class makes of the ids alone."""
    lesson = model.model(IDS, torch.cat([PIXELS[0], PIXELS[1, :1]]), MASK.bool())
    torch.testing.assert_close(model(IDS, MASK, PIXELS, LOOKS).logits[MASK.bool()], lesson[MASK.bool()])


@torch.no_grad()
def test_any_mask(model):
    """Who looks at what is the caller's business: at later images, at several, at none."""
    wanted = model(IDS, MASK, PIXELS, LOOKS).logits
    for looks in (torch.ones_like(LOOKS), torch.zeros_like(LOOKS), LOOKS.flip(2)):
        assert not torch.allclose(model(IDS, MASK, PIXELS, looks).logits, wanted, atol=1e-3)
    blind = model(IDS, MASK, PIXELS, torch.zeros_like(LOOKS)).logits
    assert torch.equal(model(IDS, MASK, PIXELS + 1, torch.zeros_like(LOOKS)).logits, blind)


def test_its_arguments_are_the_references():
    """In the same order, as far as they go."""
    ours = list(inspect.signature(VisionText2Text.forward).parameters)
    theirs = list(inspect.signature(transformers.IdeficsForVisionText2Text.forward).parameters)
    assert [name for name in theirs if name in ours] == ours


@torch.no_grad()
def test_generate_gives_prompt_and_continuation(model):
    ids = torch.tensor([[1, IMAGE, 9, IMAGE], [0, 1, IMAGE, 9]])
    looks = ((ids == IMAGE).cumsum(1)[..., None] == torch.tensor([1, 2])).long()
    mask = (ids != 0).long()
    written = model.generate(ids, mask, PIXELS, looks, max_new_tokens=5)
    assert written.shape == (2, 9)
    assert torch.equal(written[:, :4], ids)
    lesson = model.model.generate(ids, torch.cat([PIXELS[0], PIXELS[1, :1]]), mask.bool(), max_new_tokens=5)
    assert torch.equal(written[:, 4:], lesson)


@torch.no_grad()
def test_other_kinds_of_numbers(model):
    wanted = model(IDS, MASK, PIXELS, LOOKS).logits
    for dtype in (torch.bool, torch.int32, torch.float32, torch.uint8):
        assert torch.equal(model(IDS, MASK.to(dtype), PIXELS, LOOKS.to(dtype)).logits, wanted)
    assert torch.equal(model(IDS.int(), MASK, PIXELS, LOOKS).logits, wanted)
    assert torch.equal(model(IDS, MASK, PIXELS.double(), LOOKS).logits, wanted)
    both = VisionText2Text(small()).to(torch.bfloat16)
    assert both(IDS, MASK, PIXELS, LOOKS).logits.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"input_ids": None}, TypeError, "input_ids must be a tensor of whole numbers; got None"),
        ({"input_ids": IDS.float()}, TypeError, "whole numbers; got torch.float32"),
        ({"input_ids": IDS[0]}, ValueError, r"shape \(B, T\); got \(6,\)"),
        ({"input_ids": IDS + 25}, ValueError, "the vocabulary has ids 0 to 29"),
        ({"input_ids": IDS.repeat(1, 8)}, ValueError, "48 columns, but the context holds 40"),
        ({"input_ids": IDS.tolist()}, TypeError, "input_ids must be a tensor; got list"),
        ({"attention_mask": MASK[:, :3]}, ValueError, r"attention_mask must have shape \(2, 6\); got \(2, 3\)"),
        ({"attention_mask": MASK * 2}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"pixel_values": None}, TypeError, "a mask of zeros: nobody looks at it"),
        ({"image_attention_mask": None}, TypeError, "a mask of zeros: nobody looks at it"),
        ({"pixel_values": PIXELS[0]}, ValueError, r"pixel_values must have shape \(2, images, 3, 12, 12\); got \(2, 3, 12"),
        ({"pixel_values": PIXELS[:1]}, ValueError, r"pixel_values must have shape \(2, images, 3, 12, 12\)"),
        ({"pixel_values": PIXELS[:, :0]}, ValueError, "pixel_values must have shape"),
        ({"pixel_values": torch.zeros(2, 2, 3, 16, 16)}, ValueError, r"pixel_values must have shape .*ImageProcessor\(12\)"),
        ({"pixel_values": PIXELS.to(torch.uint8)}, TypeError, "float tensor; got torch.uint8"),
        ({"pixel_values": PIXELS.to("meta")}, ValueError, "pixel_values is on meta, and the model on cpu; move one"),
        ({"image_attention_mask": LOOKS[:, :5]}, ValueError, r"image_attention_mask must have shape \(2, 6, 2\); got"),
        ({"image_attention_mask": LOOKS[..., :1]}, ValueError, r"image_attention_mask must have shape \(2, 6, 2\); got"),
        ({"image_attention_mask": LOOKS * 2}, ValueError, "must hold 1 where a token looks at an image, else 0"),
        ({"labels": LABELS[:1]}, ValueError, r"labels must have shape \(2, 6\); got \(1, 6\)"),
        ({"labels": LABELS.float()}, TypeError, "labels must be a tensor of whole numbers"),
        ({"labels": LABELS + 25}, ValueError, "labels must be ids from 0 to 29, or -100"),
        ({"labels": torch.full_like(IDS, -100)}, ValueError, "some of them ids after the first column; got none there"),
    ],
)
def test_what_it_refuses(model, given, error, words):
    arguments = {
        "input_ids": IDS,
        "attention_mask": MASK,
        "pixel_values": PIXELS,
        "image_attention_mask": LOOKS,
        **given,
    }
    with pytest.raises(error, match=words):
        bare(model.forward)(**arguments)
    if "labels" not in given:
        with pytest.raises(error, match=words):
            bare(model.generate)(**arguments)


def test_generate_refuses(model):
    how = {"attention_mask": MASK, "pixel_values": PIXELS, "image_attention_mask": LOOKS}
    with pytest.raises(ValueError, match="padded on the left"):
        model.generate(IDS, **how)
    how |= {"attention_mask": None}
    for more, error, words in (
        ({"max_new_tokens": 35}, ValueError, "the context holds 40"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens must be at least 1"),
        ({"max_new_tokens": 2.0}, TypeError, "max_new_tokens must be a whole number; got 2.0"),
        ({"eos_token_id": 30}, ValueError, "eos_token_id is 30; expected one id from 0 to 29"),
        ({"pad_token_id": None}, ValueError, "pad_token_id is None"),
    ):
        with pytest.raises(error, match=words):
            bare(model.generate)(IDS, **how, **more)
