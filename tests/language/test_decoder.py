"""The decoder."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minivlm.language.decoder import Decoder, DecoderConfig, Texts

CONFIG = DecoderConfig(vocab_size=40, context=32, width=24, layers=3, heads=6, kv_heads=2, hidden=36)


def decoder(**changes) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(dataclasses.replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.fixture
def ids():
    return torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(1))


# --- config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kv_heads": 4}, "heads 6 is no multiple of kv_heads 4"),
        ({"heads": 7, "kv_heads": 7}, "width 24 is no multiple of heads 7; say head_width"),
        ({"head_width": 5}, "a head is 5 features wide; that must be even"),
        ({"heads": 24, "kv_heads": 24}, "a head is 1 features wide"),
        ({"layers": 0}, "layers is 0; it must be above 0"),
        ({"eps": -1e-5}, "eps is -1e-05"),
        ({"rope_base": float("nan")}, "rope_base is nan"),
        ({"kv_heads": 0}, "kv_heads is 0"),
    ],
)
def test_config_refuses_what_does_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_head_width():
    assert CONFIG.hd == 4
    assert dataclasses.replace(CONFIG, head_width=10).hd == 10
    assert dataclasses.replace(CONFIG, head_width=4) == CONFIG
    assert dataclasses.replace(CONFIG, heads=2).hd == 12, "the width of a head follows"
    assert dataclasses.replace(CONFIG, heads=7, kv_heads=7, head_width=4).hd == 4


def test_sizes():
    """LLaMA 7B: 6.7 billion (LLaMA, table 2). Counted by hand here, against the reference in tests/checkpoints."""
    with torch.device("meta"):
        count = sum(p.numel() for p in Decoder(DecoderConfig.llama_7b()).parameters())
    assert round(count / 1e8) == 67
    for width in (32, 48, 64, 96, 128, 192, 256):
        assert DecoderConfig.tiny(900, width).kv_heads >= 1
    tiny = Decoder(DecoderConfig.tiny(900))
    assert sum(p.numel() for p in tiny.parameters()) < 1e6
    assert not hasattr(tiny, "head"), "tied: one matrix reads and writes"


def test_start():
    model = Decoder(dataclasses.replace(CONFIG, width=120, qkv_bias=True))
    for name, p in model.named_parameters():
        if p.ndim == 2:
            assert 0.018 < p.std() < 0.022, name
        else:
            assert torch.equal(p, torch.zeros_like(p) if name.endswith("bias") else torch.ones_like(p)), name


# --- forward


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"qkv_bias": True}, {"head_width": 6}, {"kv_heads": 6}])
def test_causal(changes, ids):
    model = decoder(**changes)
    for at in range(1, 9):
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 1) % 40
        before, after = model(ids), model(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at:], after[:, at:])


@torch.no_grad()
def test_padding_changes_nothing(model, ids):
    """On either side; and alone is as in a batch."""
    alone = torch.cat([model(row[None, :6]) for row in ids])
    garbage = torch.full((2, 4), 7)
    keep = torch.arange(10).expand(2, -1)
    right = model(torch.cat([ids[:, :6], garbage], 1), keep=keep < 6)[:, :6]
    left = model(torch.cat([garbage, ids[:, :6]], 1), keep=keep >= 4)[:, 4:]
    torch.testing.assert_close(right, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(left, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(model(torch.cat([garbage, ids[:, :6]], 1))[:, 4:], alone, atol=1e-2)


@torch.no_grad()
def test_only_distances_count(model, ids):
    positions = torch.arange(9).expand(2, -1)
    torch.testing.assert_close(model(ids, positions=positions), model(ids), atol=1e-5, rtol=0)
    torch.testing.assert_close(model(ids, positions=positions + 11), model(ids), atol=1e-4, rtol=0)
    assert not torch.allclose(model(ids, positions=2 * positions), model(ids), atol=1e-2)


@torch.no_grad()
def test_embeddings_are_ids(model, ids):
    assert torch.equal(model(embeddings=model.embed(ids)), model(ids))
    for given in ({}, {"ids": ids, "embeddings": model.embed(ids)}):
        with pytest.raises(ValueError, match="either ids or embeddings"):
            model(**given)


@torch.no_grad()
@pytest.mark.parametrize("parts", [(9,), (4, 5), (1,) * 9, (5, 1, 3)])
@pytest.mark.parametrize("padded", [False, True])
def test_cached_equals_uncached(model, ids, parts, padded):
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[1, :3] = not padded
    cache, outputs, start = model.new_cache(9), [], 0
    for size in parts:
        end = start + size
        outputs.append(model(ids[:, start:end], keep=keep[:, :end] if padded else None, cache=cache))
        start = end
    whole = model(ids, keep=keep if padded else None)
    torch.testing.assert_close(torch.cat(outputs, 1)[keep], whole[keep], atol=1e-5, rtol=0)


@torch.no_grad()
def test_keep_covers_the_cache(model, ids):
    cache = model.new_cache(9)
    model(ids[:, :5], cache=cache)
    with pytest.raises(ValueError, match=r"keep has shape \(2, 4\); expected \(2, 9\): the 5 tokens in the cache"):
        model(ids[:, 5:], keep=torch.ones(2, 4, dtype=torch.bool), cache=cache)


# --- loss


def test_loss_by_hand(model, ids):
    labels = ids.clone()
    labels[0, :4] = labels[1, 7:] = -100
    labels[:, 0] = 39  # nothing stands before it: it is never predicted
    logp = model(ids).log_softmax(-1)
    wanted = [-logp[0, t - 1, ids[0, t]] for t in range(4, 9)] + [-logp[1, t - 1, ids[1, t]] for t in range(1, 7)]
    torch.testing.assert_close(model.loss(Texts(ids, labels)), torch.stack(wanted).mean())
    everything = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(model.loss(Texts(ids, ids)), everything)


def test_loss_ignores_padding(model, ids):
    keep = torch.ones(2, 9, dtype=torch.bool)
    keep[0, 7:] = False
    labels = ids.masked_fill(~keep, -100)
    changed = ids.masked_fill(~keep, 3)
    torch.testing.assert_close(model.loss(Texts(ids, labels, keep)), model.loss(Texts(changed, labels, keep)))


def test_it_learns():
    torch.manual_seed(0)
    model = Decoder(CONFIG)
    ids = torch.arange(8).repeat(4, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = model.loss(Texts(ids, ids))
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert all(p.grad is not None for p in model.parameters())


def test_one_matrix_if_tied():
    tied = decoder(tied=True)
    assert isinstance(tied.embedding, nn.Embedding)
    x = torch.randn(2, 24)
    torch.testing.assert_close(tied.logits(x), x @ tied.embedding.weight.T)
