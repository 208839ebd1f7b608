"""The loop trains, says how it goes, and stops loudly."""

import itertools
import math

import pytest
import torch
from torch import nn

from minivlm.training import cosine_schedule, fit, parameter_groups


class Line(nn.Module):
    """Learns y = 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(1, 1)
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
        self.steps = 0

    def loss(self, batch):
        return (self.weight(batch) - 2 * batch).square().mean()

    def after_step(self) -> None:
        self.steps += 1


def batches(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(16, 1, generator=generator)


def line() -> Line:
    torch.manual_seed(0)
    return Line()


def test_it_learns_and_reports(capsys):
    model = line()
    history = fit(model, batches(), 200, lr=0.05, weight_decay=0.0, evaluate=lambda: model.weight.weight.item(), name="line")
    assert history["loss"][-1] < 1e-3 < history["loss"][0]
    assert len(history["loss"]) == model.steps == 200
    assert history["step"] == list(range(20, 201, 20))
    assert len(history["value"]) == 10
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("line step   200/200  loss 0.000")
    assert not model.training, "a trained model is left in eval mode"


def test_same_seed_same_numbers():
    runs = [fit(line(), batches(), 30, lr=0.05)["loss"] for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("steps", [1, 7, 10, 11])
def test_every_number_of_steps_is_counted_and_reported(steps):
    model = line()
    history = fit(model, batches(), steps, evaluate=lambda: 0.0)
    assert len(history["loss"]) == model.steps == steps
    assert history["step"][-1] == steps


def test_the_schedule_rises_and_sinks():
    factors = [cosine_schedule(step, 100, 10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == factors[10] == 1
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 1e-3
    assert cosine_schedule(100, 100, 10) == pytest.approx(0)


def test_only_matrices_decay_and_frozen_parts_are_left_out():
    model = line()
    decayed, plain = parameter_groups(model, 0.1)
    assert [p is q for p, q in zip(decayed["params"], [model.weight.weight], strict=True)] == [True]
    assert [p is q for p, q in zip(plain["params"], [model.weight.bias], strict=True)] == [True]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0)
    fit(model, batches(), 3)
    assert torch.equal(model.frozen, torch.ones(3, 3))


def test_evaluation_is_without_gradient_and_in_eval_mode():
    model = line()
    seen = []
    fit(model, batches(), 2, evaluate=lambda: seen.append((model.training, torch.is_grad_enabled())) or 0.0)
    assert seen == [(False, False)] * 2


def test_running_out_of_batches_says_when():
    with pytest.raises(RuntimeError, match="ran out at step 4 of 9"):
        fit(line(), itertools.islice(batches(), 3), 9)


def test_an_infinite_loss_stops_the_training():
    class Broken(Line):
        def loss(self, batch):
            return self.weight(batch).sum() * math.inf

    with pytest.raises(RuntimeError, match="not finite"):
        fit(Broken(), batches(), 20)


def test_no_steps_says_why():
    with pytest.raises(ValueError, match="at least one step"):
        fit(line(), batches(), 0)
