"""The classes that take the reference's arguments: what they give, and what they refuse."""

import inspect

import pytest
import torch

from minivlm.checkpoints import blip_models
from tests.checkpoints.test_blip import CLASSES, SORTS, small

WRAPPERS = {
    "captioner": blip_models.Captioner,
    "filter": blip_models.Matcher,
    "answers": blip_models.Respondent,
}
IDS = torch.tensor([[7, 9, 20, 11, 5], [7, 12, 5, 1, 1]])
MASK = (IDS != 1).long()
LABELS = torch.where(IDS == 1, -100, IDS)
PIXELS = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    return {kind: wrapper(small(SORTS[kind])) for kind, wrapper in WRAPPERS.items()}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_their_arguments_are_the_references(kind):
    """In the same order, as far as they go."""
    for method in ("forward", "generate"):
        if hasattr(WRAPPERS[kind], method):
            ours = list(inspect.signature(getattr(WRAPPERS[kind], method)).parameters)
            theirs = list(inspect.signature(getattr(CLASSES[kind], method)).parameters)
            assert [name for name in theirs if name in ours] == [name for name in ours if name != "max_new_tokens"]


@torch.no_grad()
def test_they_answer_under_the_references_names(models):
    given = models["captioner"](PIXELS, IDS, MASK, LABELS)
    assert given.logits.shape == (2, 5, 30)
    assert given.loss.shape == ()
    assert given.image_embeds.shape == given.last_hidden_state.shape == (2, 10, 12)
    assert models["captioner"](PIXELS, IDS).loss is None
    assert models["filter"](IDS, PIXELS, attention_mask=MASK).itm_score.shape == (2, 2)
    compared = models["filter"](IDS, PIXELS[:1], use_itm_head=False)
    assert compared.itm_score.shape == (1, 2)
    assert compared.question_embeds.shape == (2, 5, 12)
    assert models["answers"](IDS, PIXELS, IDS, MASK, MASK, LABELS).loss.shape == ()
    assert models["answers"](IDS, PIXELS, IDS).loss is None


@torch.no_grad()
def test_generate_gives_the_beginning_and_what_follows(models):
    written = models["captioner"].generate(PIXELS, max_new_tokens=3)
    assert written[:, 0].tolist() == [7, 7]
    assert written.shape[1] <= 4
    prompt = torch.tensor([[4, 9, 20, 5], [4, 12, 13, 5]])
    written = models["captioner"].generate(PIXELS, prompt, max_new_tokens=3)
    assert written[:, :3].tolist() == [[7, 9, 20], [7, 12, 13]]
    assert models["answers"].generate(IDS, PIXELS, MASK, max_new_tokens=3)[:, 0].tolist() == [7, 7]


@torch.no_grad()
def test_padding_that_is_hidden_changes_nothing(models):
    """But in what answers are generated from: there the reference looks at it, and so does ours."""
    other = torch.where(MASK == 0, 22, IDS)
    captioner, judge, answers = models.values()
    for ids in (IDS, other):
        torch.testing.assert_close(
            captioner(PIXELS, ids, MASK).logits[MASK.bool()], captioner(PIXELS, IDS, MASK).logits[MASK.bool()]
        )
        torch.testing.assert_close(
            judge(ids, PIXELS, attention_mask=MASK).itm_score, judge(IDS, PIXELS, attention_mask=MASK).itm_score
        )
        given = [answers(x, PIXELS, IDS, MASK, MASK, LABELS).loss for x in (ids, IDS)]
        torch.testing.assert_close(*given)


@torch.no_grad()
def test_other_kinds_of_numbers(models):
    model = models["captioner"]
    wanted = model(PIXELS, IDS, MASK).logits
    for dtype in (torch.bool, torch.int32, torch.float32, torch.uint8):
        assert torch.equal(model(PIXELS, IDS, MASK.to(dtype)).logits, wanted)
    assert torch.equal(model(PIXELS.double(), IDS.int(), MASK).logits, wanted)
    half = blip_models.Captioner(small(SORTS["captioner"])).to(torch.bfloat16)
    assert half(PIXELS, IDS, MASK).logits.dtype == torch.bfloat16


BAD = (
    ({"input_ids": IDS.float()}, TypeError, "whole numbers; got torch.float32"),
    ({"input_ids": IDS[0]}, ValueError, r"shape \(B, T\); got \(5,\)"),
    ({"input_ids": IDS + 20}, ValueError, "runs from 21 to 40; the vocabulary has ids 0 to 29"),
    ({"input_ids": IDS - 3}, ValueError, "runs from -2 to"),
    ({"input_ids": IDS.repeat(1, 4), "attention_mask": None}, ValueError, "20 columns, but the context holds 16"),
    ({"attention_mask": MASK[:, :3]}, ValueError, r"attention_mask must have shape \(2, 5\); got \(2, 3\)"),
    ({"attention_mask": MASK * 2}, ValueError, "must hold 1 for tokens and 0 for padding"),
    ({"attention_mask": MASK * torch.tensor([[1], [0]])}, ValueError, "row 1: attention_mask hides the whole text"),
    ({"pixel_values": PIXELS[:1]}, ValueError, "one text for each image; got 1 images and 2 texts"),
    ({"pixel_values": PIXELS[0]}, ValueError, "pixel_values must have shape"),
    ({"pixel_values": torch.zeros(2, 3, 16, 16)}, ValueError, r"shape \('B', 3, 12, 12\); got \(2, 3, 16, 16\)"),
    ({"pixel_values": PIXELS.to(torch.uint8)}, TypeError, "float tensor; got torch.uint8"),
)


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize(("given", "error", "words"), BAD)
def test_what_they_refuse(models, kind, given, error, words):
    arguments = {"input_ids": IDS, "pixel_values": PIXELS, "attention_mask": MASK, **given}
    more = {"decoder_input_ids": IDS} if kind == "answers" else {}
    with pytest.raises(error, match=words) as caught:
        models[kind](**arguments, **more)
    assert "jaxtyping" not in type(caught.value).__module__
    if kind != "filter":
        with pytest.raises(error, match=words):
            models[kind].generate(**arguments)


@pytest.mark.parametrize("kind", ["captioner", "answers"])
@pytest.mark.parametrize("labels", [LABELS[:1], LABELS + 25, torch.full_like(IDS, -100), torch.where(IDS == 9, -3, IDS)])
def test_labels_that_are_refused(models, kind, labels):
    more = {"decoder_input_ids": IDS} if kind == "answers" else {}
    with pytest.raises(ValueError, match=r"labels must (have shape \(2, 5\); got|be ids from 0 to 29, or -100)"):
        models[kind](input_ids=IDS, pixel_values=PIXELS, labels=labels, **more)


def test_refusals_of_one(models):
    captioner, _, answers = models.values()
    with pytest.raises(ValueError, match="input_ids needs two columns or more"):
        captioner.generate(PIXELS, IDS[:, :1])
    with pytest.raises(ValueError, match="max_new_tokens is 16; the prompt has 1 tokens and the context holds 16"):
        captioner.generate(PIXELS, max_new_tokens=16)
    with pytest.raises(ValueError, match="give decoder_input_ids or labels, or call generate"):
        answers(IDS, PIXELS)
    with pytest.raises(ValueError, match=r"labels \(without decoder_input_ids\) runs from -100"):
        answers(IDS, PIXELS, labels=LABELS)
    with pytest.raises(ValueError, match="one text for each image; got 2 images and 1 texts"):
        answers(IDS, PIXELS, IDS[:1])
