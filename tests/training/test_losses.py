"""In parts, or in bfloat16, the loss is what it says it is."""

import pytest
import torch
from torch import nn

from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.training import accumulated, bundled, fit, in_bf16, labels


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.seen = []

    def loss(self, batch):
        x = self.linear(batch)
        self.seen.append(x.dtype)
        return (x - batch.sum(1, keepdim=True)).square().mean()


def batches(size: int):
    """Rows do not depend on the size of the batches."""

    def stream(start: int = 0):
        generator = torch.Generator().manual_seed(0)
        rows = iter(lambda: torch.randn(3, generator=generator), None)
        for _ in range(start * size):
            next(rows)
        while True:
            yield torch.stack([next(rows) for _ in range(size)])

    return stream


def line() -> Line:
    torch.manual_seed(0)
    return Line()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_one_size_equal_the_large_batch(parts):
    large, small = line(), line()
    one = fit(large, batches(16), 30, lr=0.05)["loss"]
    many = fit(small, bundled(batches(16 // parts), parts), 30, lr=0.05, loss=accumulated(small.loss))["loss"]
    assert many == pytest.approx(one, rel=1e-5, abs=1e-7)
    assert torch.allclose(small.linear.weight, large.linear.weight, atol=1e-5)


def texts() -> list[Texts]:
    """Two batches, with 2 and 14 labels; one label stands first, where nothing predicts it."""
    ids = torch.randint(0, 20, (4, 8), generator=torch.Generator().manual_seed(0))
    few, many = ids[:2].clone(), ids[2:].clone()
    few[:, 1:7] = -100
    few[1, 0] = -100
    return [Texts(ids[:2], few), Texts(ids[2:], many)]


def gradients(model: nn.Module, loss) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    value = loss()
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_means_are_weighted_as_said():
    torch.manual_seed(0)
    model = Decoder(DecoderConfig.tiny(20, width=16, layers=1))
    few, many = texts()
    assert (int(labels(few)), int(labels(many))) == (2, 14)
    large = Texts(torch.cat([few.ids, many.ids]), torch.cat([few.labels, many.labels]))
    whole = gradients(model, lambda: model.loss(large))
    by_label = gradients(model, lambda: accumulated(model.loss, weigh=labels)([few, many]))
    by_batch = gradients(model, lambda: accumulated(model.loss)([few, many]))
    half = gradients(model, lambda: (model.loss(few) + model.loss(many)) / 2)
    for got, expected, what in ((by_label, whole, "weighed by labels"), (by_batch, half, "each batch the same")):
        assert torch.allclose(got[0], expected[0], atol=1e-6), f"{what}: loss"
        assert torch.allclose(got[1], expected[1], atol=1e-6), f"{what}: gradient"
    assert not torch.allclose(by_batch[1], whole[1], atol=1e-4), "the two ways should differ here"


def test_bundles_begin_anywhere():
    stream = bundled(batches(2), 3)
    first = [bundle for bundle, _ in zip(stream(0), range(4), strict=False)]
    for start in range(4):
        for a, b in zip(next(stream(start)), first[start], strict=True):
            assert torch.equal(a, b)
    assert len(list(bundled([1, 2, 3, 4, 5], 2)(0))) == 2, "what is left over is left out"
    with pytest.raises(ValueError, match="cannot begin at 1"):
        next(bundled([1, 2, 3], 2)(1))
    with pytest.raises(ValueError, match="parts=0"):
        bundled([1], 0)


def test_what_is_no_bundle_or_has_no_labels_says_so():
    model = line()
    with pytest.raises(ValueError, match="takes lists of batches.* got Tensor"):
        fit(model, batches(2), 1, loss=accumulated(model.loss))
    few, _ = texts()
    empty = Texts(few.ids, torch.full_like(few.labels, -100))
    with pytest.raises(ValueError, match=r"weigh \[2.0, 0.0\]; each must weigh more than 0"):
        accumulated(model.loss, weigh=labels)([few, empty])


def test_bfloat16_computes_in_bfloat16_and_learns_in_float32():
    model, plain = line(), line()
    history = fit(model, batches(16), 30, lr=0.05, loss=in_bf16(model.loss, "cpu"))
    usual = fit(plain, batches(16), 30, lr=0.05)
    assert set(model.seen) == {torch.bfloat16}
    assert set(plain.seen) == {torch.float32}, "bfloat16 must be asked for"
    assert model.linear.weight.dtype == torch.float32
    assert history["loss"] != usual["loss"]
    assert history["loss"] == pytest.approx(usual["loss"], rel=0.1, abs=0.02)


def test_bfloat16_and_parts_go_together():
    model = line()
    loss = accumulated(in_bf16(model.loss, "cpu"))
    fit(model, bundled(batches(4), 4), 5, loss=loss)
    assert model.seen == [torch.bfloat16] * 20


def test_a_device_without_bfloat16_says_so(monkeypatch):
    with pytest.raises(ValueError, match="meta cannot compute in bfloat16 here; leave in_bf16"):
        in_bf16(line().loss, "meta")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(ValueError, match="cuda cannot compute in bfloat16"):
        in_bf16(line().loss, "cuda")
