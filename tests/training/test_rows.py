"""New words learn, old ones do not."""

import pytest
import torch

from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.training.freezing import frozen
from minivlm.training.loop import fit
from minivlm.training.rows import only_rows

IDS = torch.tensor([[1, 5, 19, 7, 18], [1, 18, 6, 19, 5]])


def decoder(tied: bool) -> Decoder:
    torch.manual_seed(0)
    return Decoder(DecoderConfig(20, 16, 16, 2, 4, 2, 24, tied=tied))


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_named_rows_change(tied, capsys):
    """Through a training with weight decay and momentum, and to the last bit."""
    model = decoder(tied)
    matrices = [model.embedding] if tied else [model.embedding, model.head]
    before = {name: p.clone() for name, p in model.state_dict().items()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with frozen(model.blocks, model.norm), only_rows(*matrices, rows=[18, 19]):
        learning = [p for p in model.parameters() if p.requires_grad]
        assert [tuple(p.shape) for p in learning] == [(2, 16)] * len(matrices)
        fit(model, [Texts(IDS, IDS)] * 3, steps=3, lr=0.1, weight_decay=0.5)
        inside = model(IDS)
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, was in before.items():
        if name in ("embedding.weight", "head.weight"):
            assert torch.equal(after[name][:18], was[:18]), name
            assert (after[name][18:] != was[18:]).all(), name
        else:
            assert torch.equal(after[name], was), name
    assert torch.equal(model(IDS), inside)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert type(model.embedding) is torch.nn.Embedding


def test_a_frozen_weight_is_frozen_again():
    model = decoder(tied=True)
    model.embedding.weight.requires_grad_(False)
    with only_rows(model.embedding, rows=[3]):
        assert model.embedding.parametrizations.weight.original.requires_grad
    assert not model.embedding.weight.requires_grad


def test_an_error_inside_is_passed_on_and_leaves_nothing_behind():
    model = decoder(tied=True)
    before = model.embedding.weight.clone()
    with pytest.raises(IndexError), only_rows(model.embedding, rows=[3]):
        model(IDS + 99)
    assert torch.equal(model.embedding.weight, before)
    assert type(model.embedding) is torch.nn.Embedding


@pytest.mark.parametrize("rows", [[], [20], [-1], [3, 3]])
def test_rows_that_are_refused(rows):
    model = decoder(tied=True)
    with pytest.raises(ValueError, match="row"), only_rows(model.embedding, rows=rows):
        pass
    with pytest.raises(ValueError, match="takes modules"), only_rows(rows=[1]):
        pass
