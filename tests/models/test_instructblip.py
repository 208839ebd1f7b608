"""InstructBLIP's invariants: what is asked changes what the queries find, and nothing else does more than in BLIP-2."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from minivlm.evaluation import probes
from minivlm.models.blip2 import BLIP2, BLIP2Config
from minivlm.models.blip2_stage1 import Stage1
from minivlm.models.instructblip import InstructBLIP, InstructBLIPConfig, Instructions, reading_mask, shares
from tests.models.test_blip2 import (
    IMAGE,
    LLAMA_SIZES,
    MUTE,
    OPT_SIZES,
    READS,
    STAGE_1,
    STAGE_2,
    VISION,
    captions,
    shaken,
    trained,
    with_gradient,
)

CONFIG = InstructBLIPConfig(VISION, READS, LLAMA_SIZES, IMAGE)
KEEP = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()


@pytest.fixture(params=[LLAMA_SIZES, OPT_SIZES], ids=["LLaMA", "OPT"])
def model(request) -> InstructBLIP:
    torch.manual_seed(0)
    return shaken(InstructBLIP(dataclasses.replace(CONFIG, language=request.param)))


def batch(seed: int = 0) -> Instructions:
    """BLIP-2's, and for each of the five images an instruction of its own length."""
    given, generator = captions(seed=seed), torch.Generator().manual_seed(seed + 7)
    asked = torch.randint(1, 30, (5, 4), generator=generator) * KEEP
    return Instructions(*given, asked, KEEP)


@torch.no_grad()
def test_what_is_asked_changes_what_is_found(model):
    given = batch()
    found = model.embed_image(given.pixel_values, given.asked, given.asked_keep)
    assert found.shape == (5, 3, 20), "the instruction adds no token"
    other = model.embed_image(given.pixel_values, given.asked.flip(1), given.asked_keep.flip(1))
    assert (found - other).abs().amax(dim=(1, 2)).min() > 1e-4
    one = given.pixel_values[:1].expand(5, -1, -1, -1)
    same_image = model.embed_image(one, given.asked, given.asked_keep)
    assert F.cosine_similarity(same_image[0], same_image[1], dim=-1).max() < 1 - 1e-4
    blind = model.embed_image(one)
    torch.testing.assert_close(blind, blind[:1].expand_as(blind), atol=1e-6, rtol=0)  # BLIP-2: whatever is asked


@torch.no_grad()
def test_without_an_instruction_it_is_a_blip2(model):
    given = batch()
    plain = BLIP2(BLIP2Config(VISION, MUTE, model.config.language, IMAGE)).eval()
    theirs = model.state_dict()
    plain.load_state_dict({name: theirs[name] for name in plain.state_dict()})
    assert torch.equal(model(given.ids, given.pixel_values), plain(given.ids, given.pixel_values))
    words = torch.tensor([[9, 10, 11]])
    assert torch.equal(model(words), model.language(words))


@torch.no_grad()
def test_an_instruction_of_nothing_but_padding_asks_nothing(model):
    given = batch()
    keep = given.asked_keep & (torch.arange(5) != 1)[:, None]
    found, nothing = model.embed_image(given.pixel_values, given.asked, keep), model.embed_image(given.pixel_values)
    torch.testing.assert_close(found[1], nothing[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[0], nothing[0], atol=1e-4)


@torch.no_grad()
def test_padding_of_an_instruction_changes_nothing(model):
    given = batch()
    found = model.embed_image(given.pixel_values, given.asked, given.asked_keep)
    other = torch.where(given.asked_keep, given.asked, 17)
    torch.testing.assert_close(
        model.embed_image(given.pixel_values, other, given.asked_keep), found, atol=1e-6, rtol=1e-6
    )
    for i in range(5):
        row = given.asked[i : i + 1, : int(given.asked_keep[i].sum())]
        alone = model.embed_image(given.pixel_values[i : i + 1], row)
        torch.testing.assert_close(alone, found[i : i + 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_image_has_its_own_instruction(model):
    given = batch()
    found = model.embed_image(given.pixel_values, given.asked, given.asked_keep)
    asked = given.asked.clone()
    asked[2, 0] = (asked[2, 0] + 1) % 30
    other = model.embed_image(given.pixel_values, asked, given.asked_keep)
    assert (found != other).any(dim=2).any(dim=1).tolist() == [False, False, True, False, False]
    logits = model(given.ids, given.pixel_values, None, given.asked, given.asked_keep)
    changed = model(given.ids, given.pixel_values, None, asked, given.asked_keep)
    assert (logits != changed).any(dim=2).any(dim=1).tolist() == [False, False, True, False]


@torch.no_grad()
def test_only_what_the_queries_found_goes_on(model):
    """The last layer's MLP for text may be anything; the first's may not."""
    given = batch()
    images = (given.pixel_values, given.asked, given.asked_keep)
    found = model.embed_image(*images)
    model.qformer.blocks[-1].text_mlp[0].weight.add_(1.0)
    assert torch.equal(model.embed_image(*images), found)
    model.qformer.blocks[0].text_mlp[0].weight.add_(1.0)
    assert not torch.allclose(model.embed_image(*images), found, atol=1e-4)


@torch.no_grad()
def test_it_writes_what_it_finds_likeliest(model):
    given = batch()
    ids = given.ids[:3, :8]
    images = (given.pixel_values[:3], None, given.asked[:3], given.asked_keep[:3])
    text = model.embed(ids, images[0], *images[2:])
    for column in model.generate(ids, *images, max_new_tokens=4).T:
        assert torch.equal(model.language(embeddings=text)[:, -1].argmax(-1), column)
        text = torch.cat([text, model.language.embed(column[:, None])], dim=1)


def test_what_it_trains(model):
    """What BLIP-2's second stage trains; of the last layer's parts for text nothing learns."""
    model.freeze()
    names = {name for name, _ in model.named_parameters()}
    assert trained(model) == {
        name for name in names if name.startswith(("qformer.", "connector.", "vision.norm_after."))
    }
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model.loss(batch(step)).backward()
        optimizer.step()
    idle = {name for name in names if name.startswith("qformer.blocks.2.text_")}
    assert with_gradient(model) == trained(model) - idle
    for name, p in model.named_parameters():
        if name not in trained(model):
            assert torch.equal(before[name], p), name


def test_no_loss_on_images_or_instructions(model):
    given = batch()
    logits = model(given.ids, given.pixel_values, None, given.asked, given.asked_keep)
    wanted = given.labels[:, 1:] != -100
    torch.testing.assert_close(model.loss(given), F.cross_entropy(logits[:, :-1][wanted], given.ids[:, 1:][wanted]))
    whole = given._replace(asked_keep=None)
    keep = torch.ones_like(given.asked, dtype=torch.bool)
    assert torch.equal(model.loss(whole), model.loss(given._replace(asked_keep=keep)))


@torch.no_grad()
def test_it_starts_from_stage_1_with_its_parts_for_text(model):
    torch.manual_seed(3)
    first = shaken(Stage1(STAGE_1))
    model.start_from(first)
    theirs = first.qformer.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.qformer.state_dict().items())


@pytest.mark.parametrize("asked", [True, False])
def test_probes_of_a_model_that_speaks(model, capsys, asked):
    """With an instruction for each image, and as a BLIP-2."""
    given = batch() if asked else Instructions(*captions())
    measured = probes.run(model, given, {"storing": "in tests/checkpoints"})
    assert set(measured) == set(probes.SPEAKING) - {"storing"}


def test_probes_see_what_goes_wrong_with_instructions(model):
    """Padding that is read, and an instruction at another's image."""
    model.__class__ = type("ReadsPadding", (InstructBLIP,), {"embed_image": lambda self, pixels, asked=None, keep=None: (
        InstructBLIP.embed_image(self, pixels, asked))})  # fmt: skip
    with pytest.raises(AssertionError, match="among the others, it has other scores"):
        probes.padding(model, batch())
    model.__class__ = type("Mixed", (InstructBLIP,), {"embed_image": lambda self, pixels, asked=None, keep=None: (
        InstructBLIP.embed_image(self, pixels, asked.roll(1, 0), keep.roll(1, 0)))})  # fmt: skip
    with pytest.raises(AssertionError, match="its text and its images stand elsewhere"):
        probes.permutation(model, batch())
    with pytest.raises(ValueError, match="5 images, and what is asked is for 4; it takes a row for each"):
        probes.padding(model, batch()._replace(asked=batch().asked[:4]))


def test_shares_are_roots():
    assert shares([100, 100]) == [0.5, 0.5]
    assert shares([1_000_000, 10_000, 100]) == pytest.approx([0.901, 0.090, 0.009], abs=1e-3)
    for sizes in ([], [4, 0]):
        with pytest.raises(ValueError, match="size of each data set, at least 1"):
            shares(sizes)


def test_config_refuses():
    with pytest.raises(ValueError, match="qformer.vocab_size is None: this Q-Former reads no instructions"):
        InstructBLIPConfig(VISION, MUTE, LLAMA_SIZES, IMAGE)
    with pytest.raises(ValueError, match="image_id is 30"):
        dataclasses.replace(CONFIG, image_id=30)
    with pytest.raises(ValueError, match="qformer.seen is 13"):
        dataclasses.replace(CONFIG, qformer=dataclasses.replace(READS, seen=13))
    assert STAGE_2.qformer == dataclasses.replace(CONFIG.qformer, vocab_size=None)


def test_it_refuses(model):
    given = batch()
    with pytest.raises(ValueError, match="a text has 9 tokens; the Q-Former's context holds 8"):
        model.embed_image(given.pixel_values, torch.ones(5, 9, dtype=torch.long))
    with pytest.raises(ValueError, match="keeps 15 places for image tokens; 4 images of 3"):
        model(given.ids, given.pixel_values[:4], None, given.asked[:4])


@pytest.mark.parametrize(
    ("images", "asked", "keep", "words"),
    [
        (5, 4, None, "5 images and 4 instructions"),
        (0, 5, None, "0 images and 5 instructions"),
        (5, 5, (5, 3), r"asked_keep has shape \(5, 3\); asked has \(5, 4\)"),
        (5, 5, (4, 4), r"asked_keep has shape \(4, 4\); asked has \(5, 4\)"),
        (5, None, (5, 4), r"asked_keep has shape \(5, 4\); nothing is asked"),
    ],
)
def test_instructions_that_do_not_fit_are_refused(images, asked, keep, words):
    asked = None if asked is None else torch.ones(asked, 4, dtype=torch.long)
    keep = None if keep is None else torch.ones(keep, dtype=torch.bool)
    with pytest.raises(ValueError, match=words):
        reading_mask(3, images, asked, keep)


def test_instructions_without_images_are_refused(model):
    with pytest.raises(ValueError, match="0 images and 5 instructions"):
        model.generate(batch().ids, None, None, batch().asked, max_new_tokens=1)


@pytest.mark.parametrize("config", [InstructBLIPConfig.vicuna_7b(), InstructBLIPConfig.vicuna_13b()])
def test_released_sizes(config):
    """On the meta device. What is trained are some 188 million numbers, and a little more for Vicuna 13B's wider words."""
    with torch.device("meta"):
        model = InstructBLIP(config)
    model.freeze()
    many = sum(p.numel() for p in model.parameters() if p.requires_grad)
    wider = 769 * (config.language.width - 4096)
    assert (many - wider) // 1_000_000 == 188
