"""What is frozen stays as it is to the last bit, stays in eval mode, and whoever touches it is named."""

import pytest
import torch
from torch import nn

from minivlm.training import fit, frozen, train_mode


class Part(nn.Module):
    """Has everything that training mode could change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.plain = nn.BatchNorm1d(4, affine=False)  # buffers, and no parameter
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        return self.dropout(self.plain(self.norm(self.linear(x))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision, self.connector, self.language = Part(), Part(), Part()
        self.modes = []

    def loss(self, batch):
        self.modes.append({name: part.training for name, part in self.named_modules()})
        return self.language(self.connector(self.vision(batch))).square().mean()


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def batches():
    generator = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(8, 4, generator=generator)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    return [name for name in a if torch.equal(a[name], b[name])]


def flags(module: nn.Module) -> tuple[dict[str, bool], dict[str, bool]]:
    return (
        {name: p.requires_grad for name, p in module.named_parameters()},
        {name: part.training for name, part in module.named_modules()},
    )


def test_frozen_parts_are_bit_identical_and_the_others_learn(model):
    before = state(model)
    with frozen(model.vision, model.language):
        fit(model, batches(), 11, evaluate=lambda: 0.0)  # evaluation switches modes in between
    after = state(model)
    unchanged = same(before, after)
    for name in before:
        if name.startswith(("vision.", "language.")):
            assert name in unchanged, f"{name} of a frozen part has changed"
        elif not name.endswith("count"):
            assert name not in unchanged, f"{name} of a trained part has not changed"


def test_frozen_parts_stay_in_eval_mode_through_fit(model):
    with frozen(model.vision):
        fit(model, batches(), 11, evaluate=lambda: 0.0)
    assert len(model.modes) == 11
    for modes in model.modes:
        wrong = [name for name, training in modes.items() if training == name.startswith("vision")]
        assert not wrong, f"in the wrong mode: {wrong}"


def test_the_second_stage_trains_what_the_first_left_in_eval_mode(model):
    for _ in range(2):
        with frozen(model.vision):
            fit(model, batches(), 2)
        assert not model.connector.training
    assert all(modes["connector"] and modes["language.dropout"] for modes in model.modes)


def test_freezing_by_hand_counts_for_the_modes_too(model):
    model.vision.requires_grad_(False)
    train_mode(model)
    assert not model.vision.dropout.training
    assert model.connector.plain.training, "a part without parameters has the mode of what it stands in"


def test_a_frozen_part_without_parameters_stays_in_eval_mode_too(model):
    with frozen(model.connector.dropout):
        train_mode(model)
        assert not model.connector.dropout.training
        assert model.connector.norm.training


def test_flags_and_modes_come_back_as_they_were(model):
    model.vision.linear.bias.requires_grad_(False)
    model.vision.norm.eval()
    before = flags(model)
    with frozen(model.vision, model.language):
        inside = flags(model)
        with frozen(model.vision.linear, model.connector):
            assert not any(p.requires_grad for p in model.parameters())
        assert flags(model) == inside, "the inner block did not put back what the outer one had set"
        assert not any(p.requires_grad for p in model.vision.parameters())
        assert not any(part.training for part in model.vision.modules())
        assert model.connector.training
    assert flags(model) == before
    with frozen(model, model.vision):  # one in the other
        assert not any(p.requires_grad for p in model.parameters())
    assert flags(model) == before


def test_an_error_inside_is_passed_on_and_flags_come_back(model):
    before = flags(model)

    def fail():
        model.vision.count += 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), frozen(model.vision):
        fail()
    assert flags(model) == before
    train_mode(model)  # and nothing is still taken for frozen


def touch_weight(part):
    part.linear.weight.data[0, 0] += 1e-7


def touch_sign_of_zero(part):
    part.linear.bias.data[0] = -0.0


def touch_buffer(part):
    part.count += 1


def touch_statistics(part):
    part.train()(torch.randn(8, 4))


def replace(part):
    part.linear.weight = nn.Parameter(torch.ones(4, 4))


def retype(part):
    part.count = part.count.int()


def remove(part):
    del part.norm


def add(part):
    part.register_buffer("more", torch.zeros(1))


@pytest.mark.parametrize(
    ("touch", "words"),
    [
        (touch_weight, r"linear\.weight of the frozen Part has changed"),
        (touch_sign_of_zero, r"linear\.bias of the frozen Part has changed"),
        (touch_buffer, "count of the frozen Part has changed"),
        (touch_statistics, r"norm\.running_mean .* and so have \d others"),
        (replace, r"linear\.weight of the frozen Part has changed"),
        (retype, "count of the frozen Part has changed"),
        (remove, r"norm\.weight of the frozen Part is gone"),
        (add, "more of the frozen Part is new"),
    ],
)
def test_whatever_changes_is_named(model, touch, words):
    model.vision.linear.bias.data[0] = 0.0
    with pytest.raises(RuntimeError, match=words), frozen(model.language, model.vision):
        touch(model.vision)
    assert model.connector.linear.weight.requires_grad
    assert model.language.linear.weight.requires_grad, "after a complaint flags must come back too"


def test_a_parameter_shared_with_a_trained_part_is_refused(model):
    model.language.linear.weight = model.vision.linear.weight
    with (
        pytest.raises(ValueError, match=r"vision\.linear\.weight is frozen, .* is language\.linear\.weight of a trained"),
        frozen(model.vision),
    ):
        fit(model, batches(), 1)
    with frozen(model.vision, model.language):  # both: nothing is wrong
        fit(model, batches(), 1)


def test_nothing_to_freeze_and_nothing_to_train_say_so(model):
    with pytest.raises(ValueError, match="takes the modules"), frozen():
        pass
    with pytest.raises(ValueError, match="nothing to train: Model"), frozen(model):
        fit(model, batches(), 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_type_of_number_is_compared(dtype):
    part = nn.Linear(3, 3).to(dtype)
    with frozen(part):
        pass
    with pytest.raises(RuntimeError, match="bias"), frozen(part):
        part.bias.data[1] += 1
