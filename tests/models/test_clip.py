"""CLIP's invariants."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from minivlm.models.clip import CLIP, CLIPConfig, Pairs, contrastive_loss

EOT = 3
CONFIG = CLIPConfig.tiny(vocab_size=40, eot_id=EOT, width=96)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CLIP(CONFIG).eval()


def batch(size: int, seed: int = 0) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 40, (size, 9), generator=generator)
    ids[:, 0], ids[:, 6], ids[:, 7:] = 1, EOT, 0
    side = CONFIG.vision.image_size
    return Pairs(torch.randn(size, 3, side, side, generator=generator), ids)


# --- the loss


def test_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.0, 3.0], [0.0, 0.0, 1.0]])
    rows = [-math.log(math.exp(logits[i, i]) / sum(math.exp(x) for x in logits[i])) for i in range(3)]
    columns = [-math.log(math.exp(logits[i, i]) / sum(math.exp(x) for x in logits[:, i])) for i in range(3)]
    assert contrastive_loss(logits).item() == pytest.approx((sum(rows) + sum(columns)) / 6, rel=1e-6)


def test_loss_is_symmetric():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(contrastive_loss(logits.T), contrastive_loss(logits))
    torch.testing.assert_close(contrastive_loss(logits[order][:, order]), contrastive_loss(logits))
    assert not torch.allclose(contrastive_loss(logits[order]), contrastive_loss(logits)), "which is whose must matter"


@pytest.mark.parametrize(("scale", "loss"), [(1.0, 3.185), (1 / 0.07, 0.00004)])
def test_why_the_temperature_matters(scale, loss):
    """Perfect features, 64 pairs: without a scale the loss cannot get low."""
    assert contrastive_loss(scale * torch.eye(64)).item() == pytest.approx(loss, rel=0.03)


@pytest.mark.parametrize("size", [8, 64])
def test_chance(size):
    assert contrastive_loss(torch.zeros(size, size)).item() == pytest.approx(math.log(size))


# --- the model


@torch.no_grad()
def test_untrained_loss_is_chance_where_the_scale_is_small():
    torch.manual_seed(1)
    fresh = CLIP(dataclasses.replace(CONFIG, temperature=1.0)).eval()
    assert fresh.loss(batch(32)).item() == pytest.approx(math.log(32), rel=0.02)


@torch.no_grad()
def test_the_model_is_symmetric_under_a_joint_permutation(model):
    given = batch(6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(model.loss(Pairs(*(x[order] for x in given))), model.loss(given), atol=1e-5, rtol=1e-5)
    logits = model(*given)
    torch.testing.assert_close(model(given.pixel_values[order], given.ids), logits[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(given.pixel_values, given.ids[order]), logits[:, order], atol=1e-5, rtol=1e-5)
    assert model(given.pixel_values[:2], given.ids).shape == (2, 6)
    torch.testing.assert_close(model.loss(given), contrastive_loss(logits))


@torch.no_grad()
def test_logits_are_scaled_cosines(model):
    given = batch(4)
    image, text = model.embed_image(given.pixel_values), model.embed_text(given.ids)
    for features in (image, text):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(4))
    cosine = F.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(model(*given), cosine / CONFIG.temperature, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tokens_after_the_end_do_not_change_the_text(model):
    ids = batch(4).ids
    changed = ids.clone()
    changed[:, 7:] = torch.randint(4, 40, (4, 2), generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.embed_text(changed), model.embed_text(ids))
    changed[:, 5] = 39
    assert not torch.allclose(model.embed_text(changed), model.embed_text(ids))


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(model):
    pixel_values = batch(5).pixel_values
    alone = torch.cat([model.embed_image(one[None]) for one in pixel_values])
    torch.testing.assert_close(model.embed_image(pixel_values), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("start", [math.log(100) + 1e-3, 50.0])
def test_scale_stays_at_or_below_its_maximum(start):
    fresh = CLIP(CONFIG)
    fresh.log_scale.data.fill_(start)
    fresh.after_step()
    assert fresh.log_scale.exp().item() <= 100.0 * (1 + 1e-5)
    assert fresh.log_scale.requires_grad
    fresh.log_scale.data.fill_(1.5)
    fresh.after_step()
    assert fresh.log_scale.item() == 1.5


def test_scale_starts_at_the_papers():
    assert CLIP(CONFIG).log_scale.exp().item() == pytest.approx(1 / 0.07)


def test_every_parameter_learns():
    """After one step backward, each parameter has a gradient; key biases alone have (nearly) none."""
    torch.manual_seed(0)
    fresh = CLIP(CONFIG)
    fresh.loss(batch(8)).backward()
    silent = [name for name, p in fresh.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_it_learns_a_small_batch():
    """The first test of a contrastive loss: can 16 pairs be told apart? Chance is ln 16 = 2.77."""
    torch.manual_seed(0)
    fresh, given = CLIP(CLIPConfig.tiny(40, EOT, width=48)), batch(16)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        fresh.loss(given).backward()
        optimizer.step()
        fresh.after_step()
    with torch.no_grad():
        assert fresh.loss(given).item() < 0.1
        assert fresh(*given).argmax(1).tolist() == list(range(16))


def test_tiny_fits():
    assert CONFIG.vision.image_size % CONFIG.vision.patch_size == 0
    assert sum(p.numel() for p in CLIP(CONFIG).parameters()) < 2_000_000
