"""BLIP-2's invariants: what its second stage trains, what stays frozen to the last bit, and what it takes from the first."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from minivlm.evaluation import probes
from minivlm.language.decoder import DecoderConfig
from minivlm.language.opt import OPT, OPTConfig
from minivlm.models.blip2 import BLIP2, BLIP2Config, Captions
from minivlm.models.blip2_stage1 import Stage1, Stage1Config
from tests.models.test_blip2_stage1 import DEC, READS, STAGE_1, VISION, shaken, trained, with_gradient

IMAGE = 7
MUTE = dataclasses.replace(READS, vocab_size=None)
OPT_SIZES = OPTConfig(vocab_size=30, context=24, width=20, layers=2, heads=4, hidden=24)
LLAMA_SIZES = DecoderConfig(30, 24, 20, 2, 5, 5, hidden=24)
STAGE_2 = BLIP2Config(VISION, MUTE, OPT_SIZES, IMAGE)


@pytest.fixture
def first() -> Stage1:
    torch.manual_seed(0)
    return shaken(Stage1(STAGE_1))


@pytest.fixture(params=[OPT_SIZES, LLAMA_SIZES], ids=["OPT", "LLaMA"])
def second(request) -> BLIP2:
    torch.manual_seed(0)
    return shaken(BLIP2(dataclasses.replace(STAGE_2, language=request.param)))


def captions(size: int = 4, seed: int = 0) -> Captions:
    """An image and four words a row; the last has two images and is longer."""
    generator = torch.Generator().manual_seed(seed)
    places = [IMAGE] * 3
    rows = [[*places, *torch.randint(8, 30, (5,), generator=generator).tolist(), 0, 0, 0] for _ in range(size - 1)]
    rows.append([*places, 9, *places, *torch.randint(8, 30, (4,), generator=generator).tolist()])
    ids = torch.tensor(rows)
    labels = torch.where((ids == IMAGE) | (ids == 0), -100, ids)
    return Captions(torch.randn(size + 1, 3, 12, 12, generator=generator), ids, labels)


# --- stage 2


@torch.no_grad()
def test_an_image_is_as_many_words_as_there_are_queries(second):
    given = captions()
    assert second.embed_image(given.pixel_values).shape == (5, 3, 20)
    assert second.config.image_tokens == 3
    fine = dataclasses.replace(STAGE_2, vision=dataclasses.replace(VISION, patch_size=2))
    assert BLIP2(fine).embed_image(given.pixel_values).shape == (5, 3, 20)


def test_probes_of_a_model_that_speaks(second, capsys):
    probes.run(second, captions(), {"storing": "in tests/checkpoints"})


@torch.no_grad()
def test_the_image_stands_first_in_the_words_own_space(second):
    given = captions()
    embeddings = second.embed(given.ids, given.pixel_values)
    assert torch.equal(embeddings[0, :3], second.embed_image(given.pixel_values)[0])
    assert torch.equal(embeddings[0, 3:], second.language.embed(given.ids)[0, 3:])
    words = torch.tensor([[9, 10, 11]])
    assert torch.equal(second(words), second.language(words))


def test_what_stage_2_trains(second):
    """Q-Former, linear layer and the norm on top of the vision encoder; the language model and the rest stay the same to the
    last bit, though gradients go through them.
    """
    second.freeze()
    names = {name for name, _ in second.named_parameters()}
    wanted = {name for name in names if name.startswith(("qformer.", "connector.", "vision.norm_after."))}
    assert trained(second) == wanted
    before = {name: p.detach().clone() for name, p in second.named_parameters()}
    optimizer = torch.optim.AdamW(second.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        second.loss(captions(seed=step)).backward()
        optimizer.step()
    assert with_gradient(second) == wanted
    for name, p in second.named_parameters():
        assert torch.equal(before[name], p) == (name not in wanted), name


def test_no_loss_on_images_or_prompts(second):
    given = captions()
    logits = second(given.ids, given.pixel_values)
    wanted = given.labels[:, 1:] != -100
    by_hand = F.cross_entropy(logits[:, :-1][wanted], given.ids[:, 1:][wanted])
    torch.testing.assert_close(second.loss(given), by_hand)


@torch.no_grad()
def test_stage_2_starts_from_stage_1(first, second):
    """All but the Q-Former's parts for text; queries find what they found."""
    given = captions()
    other = second.embed_image(given.pixel_values)
    language = {name: p.clone() for name, p in second.language.named_parameters()}
    second.start_from(first)
    queries, _ = first.qformer(first.see(given.pixel_values))
    assert torch.equal(second.embed_image(given.pixel_values), second.connector(queries))
    assert not torch.allclose(second.embed_image(given.pixel_values), other, atol=1e-3)
    assert all(torch.equal(p, language[name]) for name, p in second.language.named_parameters())
    second.qformer.queries.zero_()
    assert first.qformer.queries.any(), "a copy, not the same"


def test_the_language_model_is_of_the_configs_kind():
    assert type(BLIP2(STAGE_2).language) is OPT
    assert type(BLIP2(BLIP2Config.tiny(30, 7, width=48)).language).__name__ == "Decoder"


# --- what it refuses


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataclasses.replace(STAGE_2, qformer=dataclasses.replace(MUTE, seen=13)), "qformer.seen is 13; .*tokens, 12"),
        (lambda: dataclasses.replace(STAGE_2, image_id=30), "image_id is 30; the vocabulary has ids 0 to 29"),
    ],
)
def test_config_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_it_refuses(second):
    given = captions()
    with pytest.raises(ValueError, match="keeps 15 places for image tokens; 4 images of 3"):
        second(given.ids, given.pixel_values[:4])
    with pytest.raises(ValueError, match="keeps 15 places for image tokens; 0 images"):
        second(given.ids)
    with pytest.raises(ValueError, match="the context holds 24"):
        second.generate(given.ids[-1:], given.pixel_values[:2], max_new_tokens=20)


# --- sizes


@pytest.mark.parametrize(
    ("config", "all_of_it", "millions"),
    [(BLIP2Config.opt_2_7b(), 3_744_679_936, 107), (BLIP2Config.opt_6_7b(), 7_752_738_304, 108)],
)
def test_released_sizes(config, all_of_it, millions):
    """On the meta device. What is trained is the number of the paper (table 2)."""
    with torch.device("meta"):
        model = BLIP2(config)
    model.freeze()
    assert sum(p.numel() for p in model.parameters()) == all_of_it
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) // 1_000_000 == millions


def test_released_stage_1_goes_with_stage_2():
    first, second = Stage1Config.released(), BLIP2Config.opt_2_7b()
    assert first.vision == second.vision
    assert dataclasses.replace(first.qformer, vocab_size=None) == second.qformer
    tiny, small = Stage1Config.tiny(30, DEC), BLIP2Config.tiny(40, 7)
    assert tiny.vision == small.vision
    assert dataclasses.replace(tiny.qformer, vocab_size=None) == small.qformer
