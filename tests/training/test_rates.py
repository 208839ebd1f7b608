"""Each part learns at its own rate, and a misspelt part is an error."""

import math

import pytest
import torch
from torch import nn

from minivlm.training import fit, frozen, parameter_groups
from minivlm.training.rates import split_by_rate


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.connector, self.connector_2 = nn.Linear(2, 2), nn.Linear(2, 2)
        self.language = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def loss(self, batch):
        return (self.scale * self.language(self.connector_2(self.connector(batch)))).square().mean()


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def batches():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(8, 2, generator=generator)


def rates(model: nn.Module, lrs: dict[str, float]) -> dict[str, float | None]:
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: lr for lr, parameters in split_by_rate(model, lrs) for p in parameters}


def test_names_begin_with_the_part_and_the_longest_counts(model):
    found = rates(model, {"connector": 0.1, "language": 0.2, "language.1": 0.3, "language.1.bias": 0.4, "scale": 0.5})
    assert found == {
        "connector.weight": 0.1,
        "connector.bias": 0.1,
        "connector_2.weight": None,  # another part, though its name begins alike
        "connector_2.bias": None,
        "language.0.weight": 0.2,
        "language.0.bias": 0.2,
        "language.1.weight": 0.3,
        "language.1.bias": 0.4,
        "scale": 0.5,
    }


def test_groups_have_rate_and_decay(model):
    groups = parameter_groups(model, 0.1, {"connector": 0.5})
    assert [(len(g["params"]), g["weight_decay"], g.get("lr")) for g in groups] == [
        (3, 0.1, None),
        (4, 0.0, None),
        (1, 0.1, 0.5),
        (1, 0.0, 0.5),
    ]


def test_without_rates_the_groups_are_the_two_of_always(model):
    decayed, plain = parameter_groups(model, 0.1)
    trainable = list(model.parameters())
    assert [p is q for p, q in zip(decayed["params"], [p for p in trainable if p.ndim >= 2], strict=True)] == [True] * 4
    assert [p is q for p, q in zip(plain["params"], [p for p in trainable if p.ndim < 2], strict=True)] == [True] * 5
    assert decayed.keys() == plain.keys() == {"params", "weight_decay"}


def test_one_step_moves_each_part_by_its_rate(model):
    """Adam's first step is the learning rate times the sign of the gradient."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, batches(), 1, lr=1e-4, weight_decay=0.0, lrs={"connector": 1e-2, "language.1": 1e-3})
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    expected = dict.fromkeys(moved, 1e-4) | dict.fromkeys(["connector.weight", "connector.bias"], 1e-2)
    expected |= dict.fromkeys(["language.1.weight", "language.1.bias"], 1e-3)
    assert moved == pytest.approx(expected, rel=0.01)


def test_every_rate_follows_the_schedule(model):
    """Ten steps with a rate of its own for everything equal ten steps at that rate."""
    other = Model()
    other.load_state_dict(model.state_dict())
    one = fit(model, batches(), 10, lr=1e-2)["loss"]
    two = fit(other, batches(), 10, lr=7.0, lrs=dict.fromkeys(("connector", "connector_2", "language", "scale"), 1e-2))["loss"]
    assert one == two


@pytest.mark.parametrize(
    ("lrs", "words"),
    [
        ({"conector": 1e-3}, "'conector', and Model has no such part; it has connector, connector_2, language, scale"),
        ({"conn": 1e-3}, "no such part"),
        ({"": 1e-3}, "no such part"),
        ({"connector": 0.0}, "is 0.0; it must be above 0"),
        ({"connector": -1.0}, "must be above 0"),
        ({"connector": math.nan}, "must be above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(model, lrs, words):
    with pytest.raises(ValueError, match=words):
        fit(model, batches(), 1, lrs=lrs)


def test_a_frozen_part_takes_no_rate(model):
    with frozen(model.connector):
        with pytest.raises(ValueError, match="'connector' a learning rate, but all of it is frozen"):
            fit(model, batches(), 1, lrs={"connector": 1e-3})
        model.language[0].requires_grad_(False)
        assert rates(model, {"language": 0.1})["language.1.weight"] == 0.1, "half a part may be frozen"


def test_one_parameter_has_one_rate(model):
    model.language[1].weight = model.connector.weight
    with pytest.raises(ValueError, match=r"connector\.weight and language\.1\.weight are one parameter"):
        rates(model, {"connector": 0.1})
    with pytest.raises(ValueError, match="two learning rates"):
        rates(model, {"connector": 0.1, "language": 0.2})
    assert rates(model, {"connector": 0.1, "language": 0.1})["connector.weight"] == 0.1
