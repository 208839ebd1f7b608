"""BLIP-2's first stage: who sees whom in its three tasks, what they ask, and what they train."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

import minivlm.models.blip2_stage1
from minivlm.connectors.qformer import QFormerConfig, itm_mask
from minivlm.evaluation import probes
from minivlm.models.blip import begin, blip_vit
from minivlm.models.blip2_stage1 import (
    Matcher,
    MatcherConfig,
    Stage1,
    Stage1Config,
    similarity,
)
from minivlm.models.clip import Pairs

DEC = 2
VISION = blip_vit(image_size=12, patch_size=4, width=12, layers=2, heads=3, hidden=20, eps=1e-6)
READS = QFormerConfig(queries=3, width=16, layers=3, heads=4, hidden=20, seen=12, vocab_size=30, context=8)
MUTE = dataclasses.replace(READS, vocab_size=None)
STAGE_1 = Stage1Config(VISION, READS, embedding=10, dec_id=DEC)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """No two parameters alike, none zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.eval()


@pytest.fixture
def first() -> Stage1:
    torch.manual_seed(0)
    return shaken(Stage1(STAGE_1))


def pairs(size: int = 5, seed: int = 0) -> Pairs:
    """Images and texts of different lengths, [CLS] first, padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, 30, (size, 6), generator=generator)
    ids[:, 0] = 1
    ids[1, 4:] = 0
    ids[3, 2:] = 0
    return Pairs(torch.randn(size, 3, 12, 12, generator=generator), ids)


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def with_gradient(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-9}


def judged(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images and texts of each question about a match, from now on."""
    right, seen = Matcher.judge, []

    def judge(self, image, ids, keep=None):
        seen.append((image, ids))
        return right(self, image, ids, keep)

    monkeypatch.setattr(Matcher, "judge", judge)
    return seen


# --- stage 1: who sees whom


@torch.no_grad()
def test_contrast_is_what_either_side_says_alone(first):
    given = pairs()
    logits = first.contrast(first.see(given.pixel_values), given.ids)
    torch.testing.assert_close(logits, first(*given) / first.temperature, atol=1e-5, rtol=1e-5)
    changed = given.ids.clone()
    changed[0, 2] += 1
    other = first.contrast(first.see(given.pixel_values), changed)
    assert torch.equal(other[:, 1:], logits[:, 1:])
    assert not torch.allclose(other[:, 0], logits[:, 0], atol=1e-4)


@torch.no_grad()
def test_similarity_is_that_of_the_best_query():
    image = F.normalize(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    text = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    found = similarity(image, text)
    for i in range(2):
        for k in range(5):
            assert found[i, k].item() == pytest.approx(max(float(q @ text[k]) for q in image[i]), abs=1e-6)
    assert similarity(image, text[:1]).shape == (2, 1), "one text is a batch too"


@torch.no_grad()
def test_writing_does_not_look_ahead_and_begins_with_dec(first):
    given = pairs()
    image = first.see(given.pixel_values)
    logits = first.write(image, given.ids)
    assert logits.shape == (5, 6, 30)
    for place in range(1, 6):
        changed = given.ids.clone()
        changed[0, place] = (changed[0, place] + 1) % 30
        other = first.write(image, changed)
        assert torch.equal(other[0, :place], logits[0, :place])
        assert not torch.allclose(other[0, place:], logits[0, place:], atol=1e-4)
    changed = given.ids.clone()
    changed[:, 0] = 25
    assert torch.equal(first.write(image, changed), logits), "the first token is overwritten"
    first.qformer.embedding.weight[DEC] += 1.0 * torch.arange(16) / 16
    assert not torch.allclose(first.write(image, given.ids), logits, atol=1e-3)


@torch.no_grad()
def test_writing_knows_the_image_from_the_queries_alone(first):
    """Were the queries the same for all images, so would be what is written."""
    given = pairs()
    image = first.see(given.pixel_values)
    assert (first.write(image, given.ids) - first.write(image.flip(0), given.ids)).abs().max() > 1e-3
    for block in first.qformer.blocks:
        block.looks = False
    assert torch.equal(first.write(image, given.ids), first.write(image.flip(0), given.ids))


@torch.no_grad()
def test_matching_sees_both(first):
    given = pairs()
    right = first.match(*given)
    assert ((0 < right) & (right < 1)).all()
    assert not torch.allclose(first.match(given.pixel_values, given.ids.roll(1, 0)), right, atol=1e-4)
    assert not torch.allclose(first.match(given.pixel_values.roll(1, 0), given.ids), right, atol=1e-4)
    queries, _ = first.qformer(first.see(given.pixel_values), given.ids, itm_mask(3, given.ids != 0))
    each = torch.stack([first.match_head(queries[:, i]) for i in range(3)])
    torch.testing.assert_close(first.judge(first.see(given.pixel_values), given.ids), each.mean(dim=0))


# --- stage 1: losses


@torch.no_grad()
def test_losses_by_hand(first):
    given = pairs()
    image, found = first.see(given.pixel_values), first.losses(given, torch.Generator().manual_seed(0))
    assert list(found) == ["itc", "itm", "itg"]
    logits, n = first.contrast(image, given.ids), 5

    def surprise(row, right):
        """0.9 on the right one and 0.1 on all alike."""
        log = row.log_softmax(-1)
        return -(0.9 * log[right] + 0.1 * log.mean())

    both = [surprise(side[i], i) for side in (logits, logits.T) for i in range(n)]
    torch.testing.assert_close(found["itc"], sum(both) / (2 * n))
    said = begin(given.ids, DEC)
    scores = first.write(image, given.ids)
    written = [surprise(scores[b, t - 1], said[b, t]) for b in range(n) for t in range(1, 6) if said[b, t]]
    assert len(written) == 5 * 5 - 2 - 4
    torch.testing.assert_close(found["itg"], sum(written) / len(written))
    torch.testing.assert_close(first.loss(given, torch.Generator().manual_seed(0)), sum(found.values()))


@torch.no_grad()
def test_matching_is_asked_about_one_right_pair_in_three(first, monkeypatch):
    """A third are right; wrong images and wrong texts are not one's own."""
    given, seen = pairs(), judged(monkeypatch)
    first.losses(given, torch.Generator().manual_seed(0))
    ((images, texts),) = seen
    image = first.see(given.pixel_values)
    assert torch.equal(images[:5], image)
    assert torch.equal(texts[:5], given.ids)
    assert torch.equal(texts[5:10], given.ids)
    assert torch.equal(images[10:], image)
    for i in range(5):
        assert not torch.equal(images[5 + i], image[i])
        assert any(torch.equal(images[5 + i], one) for one in image)
        assert not torch.equal(texts[10 + i], given.ids[i])


@torch.no_grad()
def test_wrong_partners_are_the_most_alike(first, monkeypatch):
    """Each text's wrong image is alike to that text, each image's wrong text to that image. (That the more alike are drawn
    more often, `tests/nn/test_contrast.py` says; here always the most alike are.)
    """
    likeliest = lambda similarity, positive, generator: similarity.masked_fill(positive, -math.inf).argmax(dim=1)
    monkeypatch.setattr(minivlm.models.blip2_stage1, "hard_negatives", likeliest)
    given, seen = pairs(), judged(monkeypatch)
    first.losses(given)
    ((images, texts),) = seen
    image = first.see(given.pixel_values)
    alike = first.contrast(image, given.ids).fill_diagonal_(-math.inf)
    assert alike.argmax(dim=0).tolist() != alike.argmax(dim=1).tolist(), "or both sides would be one"
    assert torch.equal(images[5:10], image[alike.argmax(dim=0)])
    assert torch.equal(texts[10:], given.ids[alike.argmax(dim=1)])


def test_equal_texts_are_not_wrong_partners(first):
    given = pairs()
    ids = given.ids[:1].repeat(5, 1)
    with pytest.raises(ValueError, match="no wrong partner"):
        first.losses(given._replace(ids=ids), torch.Generator().manual_seed(0))


def test_the_same_seed_the_same_loss(first):
    one, two = (first.loss(pairs(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)


# --- stage 1: what learns


def test_what_stage_1_trains():
    torch.manual_seed(0)
    model = Stage1(STAGE_1)
    model.freeze()
    names = {name for name, _ in model.named_parameters()}
    frozen = {name for name in names if name.startswith("vision.") and not name.startswith("vision.norm_after.")}
    assert trained(model) == names - frozen
    assert {"vision.norm_after.weight", "vision.norm_after.bias"} < trained(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(2):
        optimizer.zero_grad()
        model.loss(pairs(seed=step), torch.Generator().manual_seed(step)).backward()
        optimizer.step()
    assert with_gradient(model) == trained(model)
    after = dict(model.named_parameters())
    assert {name for name in names if not torch.equal(before[name], after[name])} == trained(model)


@pytest.mark.parametrize(
    ("task", "silent"),
    [
        ("itc", {"match_head", "word_head", "word_bias"}),
        ("itm", {"image_projection", "text_projection", "temperature", "word_head", "word_bias", "last text MLP"}),
        ("itg", {"image_projection", "text_projection", "temperature", "match_head", "last queries"}),
    ],
)
def test_which_parameters_each_task_reaches(first, task, silent):
    """Of the last layer, ITM reads the queries alone, ITG the text alone."""
    first.losses(pairs(), torch.Generator().manual_seed(0))[task].backward()
    last = len(first.qformer.blocks) - 1
    parts = {
        "last text MLP": tuple(f"qformer.blocks.{last}.text_{what}" for what in ("mlp", "norm")),
        "last queries": tuple(f"qformer.blocks.{last}.{what}." for what in ("mlp", "norm_2", "norm_3", "cross")),
    }
    begins = tuple(begin for name in silent for begin in parts.get(name, (name,)))
    found = {name for name, _ in first.named_parameters()} - with_gradient(first)
    keys = {name for name in found if name.endswith(("cross.kv.bias", "qkv.bias"))}
    assert found - keys == {name for name in dict(first.named_parameters()) if name.startswith(begins)} - keys


def test_tasks_can_be_left_out():
    torch.manual_seed(0)
    some = Stage1(dataclasses.replace(STAGE_1, tasks=("itc", "itm")))
    assert list(some.losses(pairs(), torch.Generator().manual_seed(0))) == ["itc", "itm"]
    assert not [name for name, _ in some.named_parameters() if name.startswith("word_")]
    alone = Stage1(dataclasses.replace(STAGE_1, tasks=("itg",)))
    assert list(alone.losses(pairs())) == ["itg"]
    assert not hasattr(alone, "temperature")


def test_it_learns_a_small_batch():
    """ITC of 6 pairs begins at ln 6 and more; matching at ln 3 - 2/3 ln 2 (one in three is right)."""
    torch.manual_seed(0)
    model, given = Stage1(Stage1Config.tiny(30, DEC, width=48)), None
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(8, 30, (6, 6), generator=generator)
    ids[:, 0] = 1
    given = Pairs(torch.randn(6, 3, 32, 32, generator=generator), ids)
    model.freeze()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    first = {name: loss.item() for name, loss in model.losses(given, generator).items()}
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(given, generator).backward()
        optimizer.step()
    with torch.no_grad():
        last = model.losses(given, generator)
        assert last["itc"] < 0.6 * first["itc"]
        assert last["itg"] < 0.6 * first["itg"]
        assert model(*given).argmax(1).tolist() == list(range(6))


@torch.no_grad()
def test_the_matcher_is_what_is_left(first):
    given, matcher = pairs(), first.matcher()
    assert type(matcher) is Matcher
    assert torch.equal(matcher(*given), first(*given))
    assert torch.equal(matcher.match(*given), first.match(*given))
    left = set(first.state_dict()) - set(matcher.state_dict())
    assert {name.split(".")[0] for name in left} == {"temperature", "word_head", "word_bias"}


def test_probes_of_a_model_that_embeds(first, capsys):
    probes.run(first, pairs())


# --- what it refuses


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataclasses.replace(STAGE_1, qformer=dataclasses.replace(READS, seen=13)), "qformer.seen is 13; .*tokens, 12"),
        (lambda: dataclasses.replace(STAGE_1, qformer=MUTE), "qformer.vocab_size is None: this Q-Former reads no text"),
        (lambda: MatcherConfig(VISION, MUTE), "qformer.vocab_size is None"),
        (lambda: dataclasses.replace(STAGE_1, dec_id=30), "dec_id is 30; the vocabulary has ids 0 to 29"),
        (lambda: dataclasses.replace(STAGE_1, pad_id=-1), "pad_id is -1"),
        (lambda: dataclasses.replace(STAGE_1, tasks=()), "tasks is"),
        (lambda: dataclasses.replace(STAGE_1, tasks=("itc", "lm")), "expected one or several of"),
        (lambda: dataclasses.replace(STAGE_1, tasks=("itm",)), "'itm' needs 'itc'"),
        (lambda: QFormerConfig(0, 16, 3, 4, 20, 12), "queries is 0; it must be at least 1"),
    ],
)
def test_config_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()
