"""Soft labels, hard negatives and the contrast that uses a slow copy's features, in numbers worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from minivlm.nn.contrast import Momentum, MomentumContrast, hard_negatives, ramped, soft_labels

LN3 = math.log(3.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- alpha and labels


@pytest.mark.parametrize(("step", "alpha"), [(0, 0.0), (1, 0.1), (2, 0.2), (4, 0.4), (5, 0.4), (1000, 0.4)])
def test_alpha_rises_in_a_straight_line(step, alpha):
    assert ramped(torch.tensor(step), 0.4, ramp=4).item() == pytest.approx(alpha)


def test_soft_labels_by_hand():
    """Two pairs and one remembered. The slow copy gives row 0 the odds 1 : 3 : 1, which is 0.2, 0.6, 0.2."""
    similarity = torch.tensor([[0.0, LN3, 0.0], [LN3, LN3, LN3]])
    labels = soft_labels(similarity, 0.5)
    third = 1 / 3
    wanted = torch.tensor([[0.5 + 0.1, 0.3, 0.1], [third / 2, 0.5 + third / 2, third / 2]])
    torch.testing.assert_close(labels, wanted)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(2))
    assert torch.equal(soft_labels(similarity, 0.0), torch.eye(2, 3))
    torch.testing.assert_close(soft_labels(similarity, 1.0), similarity.softmax(dim=1))


@pytest.mark.parametrize(
    ("change", "value"),
    [("queue", 0), ("ramp", 0), ("rate", 1.5), ("rate", -0.1), ("alpha", 1.1), ("alpha", -1.0)],
)
def test_settings_that_are_refused(change, value):
    with pytest.raises(ValueError, match="queue and ramp must be at least 1, rate and alpha between 0 and 1"):
        Momentum(**{change: value})


# --- hard negatives


def test_a_right_partner_is_never_drawn():
    """Not even where it is by far the most alike."""
    similarity = 50 * torch.eye(6)
    generator = seeded()
    for _ in range(200):
        drawn = hard_negatives(similarity, torch.eye(6, dtype=torch.bool), generator)
        assert (drawn != torch.arange(6)).all()
    twins = torch.eye(6, dtype=torch.bool)
    twins[0, 3] = twins[3, 0] = True
    for _ in range(200):
        drawn = hard_negatives(similarity, twins, generator)
        assert not twins[torch.arange(6), drawn].any()


def test_likeness_decides_how_often():
    """Odds 1 : 3 between the two wrong partners of row 0 (and one part in 10000 more for each)."""
    similarity = torch.tensor([[9.0, 0.0, LN3], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    counts = torch.zeros(3)
    generator = seeded()
    similarity[0, 0] = 0.0  # or the right one would leave them nothing
    for _ in range(2000):
        counts[hard_negatives(similarity, torch.eye(3, dtype=torch.bool), generator)[0]] += 1
    assert counts[0] == 0
    assert counts[2].item() / 2000 == pytest.approx(0.75, abs=0.03)


def test_a_wrong_partner_can_always_be_found():
    """The 0.0001: with a softmax of exactly 0 for all wrong ones, there would be nothing to draw from."""
    similarity = 1000 * torch.eye(3)
    drawn = hard_negatives(similarity, torch.eye(3, dtype=torch.bool), seeded())
    assert (drawn != torch.arange(3)).all()


def test_the_same_seed_draws_the_same_and_nothing_else_is_touched():
    similarity, own = torch.randn(8, 8, generator=seeded()), torch.eye(8, dtype=torch.bool)
    before = torch.get_rng_state()
    one, two = (hard_negatives(similarity, own, seeded(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("positive", [torch.ones(1, 1), torch.tensor([[1, 0], [1, 1]])])
def test_no_wrong_partner(positive):
    row, size = len(positive) - 1, len(positive)
    with pytest.raises(ValueError, match=f"row {row} has no wrong partner in this batch of {size}.*Take a larger batch"):
        hard_negatives(torch.zeros(size, size), positive.bool())


# --- the contrast


def unit(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=seeded(seed)), dim=-1)


def fresh(**settings) -> MomentumContrast:
    torch.manual_seed(0)
    return MomentumContrast(Momentum(**{"queue": 6, "ramp": 4, **settings}), width=5, temperature=0.5)


def test_loss_by_hand():
    """Each row's sums written out."""
    contrast = fresh()
    contrast.steps.fill_(2)  # alpha is half of 0.4
    a, b, slow_a, slow_b = (unit(3, 5, seed=seed) for seed in range(4))
    loss, to_b, to_a = contrast(a, b, slow_a, slow_b)
    total = 0.0
    for fast, slow, others in (
        (a, slow_a, torch.cat([slow_b, contrast.queue_b.features])),
        (b, slow_b, torch.cat([slow_a, contrast.queue_a.features])),
    ):
        for i in range(3):
            opinion = torch.stack([slow[i] @ other / 0.5 for other in others]).exp()
            scores = torch.stack([fast[i] @ other / 0.5 for other in others])
            label = 0.2 * opinion / opinion.sum()
            label[i] += 0.8
            total += -(label * (scores - scores.exp().sum().log())).sum().item() / 3
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)
    torch.testing.assert_close(to_b, a @ slow_b.T / 0.5)
    torch.testing.assert_close(to_a, b @ slow_a.T / 0.5)


def test_gradients_reach_the_model_and_the_temperature_only():
    contrast = fresh()
    contrast.steps.fill_(4)
    a, b, slow_a, slow_b = (unit(3, 5, seed=seed).requires_grad_() for seed in range(4))
    loss, to_b, to_a = contrast(a, b, slow_a, slow_b)
    assert not to_b.requires_grad
    assert not to_a.requires_grad
    loss.backward()
    assert a.grad.any()
    assert b.grad.any()
    assert contrast.temperature.grad.any()


def test_labels_have_no_gradient_to_the_temperature():
    """It would learn to make the slow copy's opinion vague: compared with the gradient for labels that are held fixed."""
    contrast = fresh(alpha=1.0, ramp=1)
    contrast.steps.fill_(1)
    a, b = unit(3, 5, seed=0), unit(3, 5, seed=1)
    contrast(a, b, a, b)[0].backward()
    t = contrast.temperature.detach().clone().requires_grad_()
    loss = 0.0
    for x, others in ((a, [b, contrast.queue_b.features]), (b, [a, contrast.queue_a.features])):
        scores = x @ torch.cat(others).T
        loss = loss + F.cross_entropy(scores / t, (scores / 0.5).softmax(dim=1)) / 2
    loss.backward()
    torch.testing.assert_close(contrast.temperature.grad, t.grad)


def test_what_changes_after_a_step_and_what_before():
    """The loss alone changes nothing: it can be asked twice, and for evaluation."""
    contrast = fresh()
    before = {name: tensor.clone() for name, tensor in contrast.state_dict().items()}
    a, b, slow_a, slow_b = (unit(4, 5, seed=seed) for seed in range(4))
    first = contrast(a, b, slow_a, slow_b)[0]
    assert torch.equal(contrast(a, b, slow_a, slow_b)[0], first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in contrast.state_dict().items())
    contrast.after_step()
    assert torch.equal(contrast.queue_a.features[:4], slow_a)
    assert torch.equal(contrast.queue_b.features[:4], slow_b)
    assert torch.equal(contrast.queue_a.features[4:], before["queue_a.features"][4:])
    assert contrast.steps.item() == 1
    contrast.after_step()  # no loss since: nothing new to remember
    assert contrast.queue_a.place.item() == 4
    assert contrast.steps.item() == 2


@pytest.mark.parametrize(("given", "kept"), [(0.7, 0.5), (-0.2, 0.001), (0.0, 0.001), (0.3, 0.3)])
def test_the_temperature_itself_is_kept_in_bounds(given, kept):
    """Not its logarithm."""
    contrast = fresh()
    contrast.temperature.data.fill_(given)
    contrast.after_step()
    assert contrast.temperature.item() == pytest.approx(kept)
    assert contrast.temperature.requires_grad
