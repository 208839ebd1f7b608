"""OPT: what differs from `Decoder`. What it computes, `tests/parity` compares."""

import dataclasses

import pytest
import torch

from minivlm.language.decoder import Decoder, Texts
from minivlm.language.generate import generate, pad_left
from minivlm.language.opt import OFFSET, OPT, OPTConfig

CONFIG = OPTConfig(vocab_size=40, context=16, width=12, layers=2, heads=3, hidden=20)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = OPT(CONFIG).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


@torch.no_grad()
def test_the_first_two_positions_are_nobodys(model):
    ids = torch.arange(5, 11)[None]
    keep = torch.tensor([[False, False, True, True, True, True]])
    before, hidden = model(ids), model(ids, keep=keep)[:, 2:]
    model.positions.weight[:OFFSET] = 100.0
    assert torch.equal(model(ids), before)
    torch.testing.assert_close(model(ids, keep=keep)[:, 2:], hidden)
    model.positions.weight[OFFSET, 0] += 1.0  # not all alike: a LayerNorm would not see it
    assert not torch.allclose(model(ids), before, atol=1e-3)


@torch.no_grad()
def test_positions_follow_the_mask(model):
    ids = torch.arange(5, 10)[None]
    left = torch.tensor([[0, 0, *range(5, 10)]])
    torch.testing.assert_close(model(left, keep=left > 0)[:, 2:], model(ids), atol=1e-5, rtol=1e-5)
    moved = model(ids, positions=torch.arange(5)[None] + 3)
    assert not torch.allclose(moved, model(ids), atol=1e-3)


@torch.no_grad()
def test_the_past_does_not_know_the_future(model):
    ids = torch.arange(5, 11)[None]
    changed = ids.clone()
    changed[0, 3] = 30
    assert torch.equal(model(ids)[:, :3], model(changed)[:, :3])
    assert not torch.allclose(model(ids)[:, 3:], model(changed)[:, 3:], atol=1e-3)


@torch.no_grad()
def test_cached_is_uncached(model):
    ids, keep = pad_left([[5, 6, 7, 8], [9, 10]])
    whole = model(ids, keep=keep)
    cache = model.new_cache(4)
    first = model(ids[:, :2], keep=keep[:, :2], cache=cache)
    rest = [model(ids[:, i : i + 1], keep=keep[:, : i + 1], cache=cache) for i in (2, 3)]
    both = torch.cat([first, *rest], dim=1)
    torch.testing.assert_close(both[keep], whole[keep], atol=1e-5, rtol=1e-5)
    cache = model.new_cache(4)
    model(ids[:, :1], keep=keep[:, :1], cache=cache)
    torch.testing.assert_close(model(ids[:, 1:], keep=keep, cache=cache)[keep[:, 1:]], whole[:, 1:][keep[:, 1:]])


def test_it_writes_what_it_finds_likeliest(model):
    ids, keep = pad_left([[5, 6, 7, 8], [9, 10]])
    new = generate(model, ids, keep, max_new_tokens=5)
    with torch.no_grad():
        for row in range(2):
            text = ids[row][keep[row]]
            for token in new[row]:
                assert model(text[None])[0, -1].argmax() == token
                text = torch.cat([text, token[None]])


def test_embeddings_ids_and_loss(model):
    ids = torch.arange(5, 11)[None]
    with torch.no_grad():
        assert torch.equal(model(embeddings=model.embed(ids)), model(ids))
    loss = model.loss(Texts(ids, ids))
    wanted = torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert not model.positions.weight.grad[:OFFSET].any()


def test_it_is_a_decoder_with_another_head_where_untied():
    assert issubclass(OPT, Decoder)
    tied, untied = OPT(CONFIG), OPT(dataclasses.replace(CONFIG, tied=False))
    assert set(untied.state_dict()) - set(tied.state_dict()) == {"head.weight"}
    assert untied(torch.tensor([[1, 2]])).shape == (1, 2, 40)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"width": 13}, "no multiple of heads"), ({"layers": 0}, "layers is 0"), ({"eps": 0.0}, "eps is 0.0")],
)
def test_config_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_it_refuses(model):
    ids = torch.zeros(1, 17, dtype=torch.long)
    with pytest.raises(ValueError, match="a text has 17 tokens; the context holds 16. Shorten it"):
        model(ids)
    keep = torch.arange(17)[None] > 0
    assert model(ids, keep=keep).shape == (1, 17, 40), "padding takes no place"
    with pytest.raises(ValueError, match="either ids or embeddings"):
        model()
    with pytest.raises(ValueError, match=r"keep has shape \(1, 3\); expected \(1, 2\)"):
        model(ids[:, :2], keep=keep[:, :3])


@pytest.mark.parametrize(
    ("config", "many"), [(OPTConfig.opt_2_7b(), 2_651_596_800), (OPTConfig.opt_6_7b(), 6_658_473_984)]
)
def test_released_sizes(config, many):
    with torch.device("meta"):
        model = OPT(config)
    assert sum(p.numel() for p in model.parameters()) == many
