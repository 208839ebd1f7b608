"""A decoder that starts looking: its first layer looks back, and it learns to look things up in a few steps."""

import pytest
import torch

from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.language.start import LOOKS, OFFSETS, looking_start
from minivlm.nn.rotary import rotary_turn, rotate


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(qkv_bias=False), "qkv_bias=False"),
        (dict(kv_heads=2), "2 key heads"),
        (dict(width=126, head_width=32), "width 126"),
        (dict(head_width=30), "heads of 30"),
    ],
)
def test_a_decoder_that_cannot_start_so_is_told_why(change, words):
    sizes = dict(vocab_size=50, context=64, width=128, layers=2, heads=4, kv_heads=4, hidden=64, qkv_bias=True)
    with pytest.raises(ValueError, match=words):
        looking_start(Decoder(DecoderConfig(**{**sizes, **change})), seed=0)


def test_at_the_start_each_head_of_the_first_layer_looks_at_its_distance():
    config = DecoderConfig(50, 64, 128, 2, 4, 4, 64, qkv_bias=True)
    model = Decoder(config)
    looking_start(model, seed=0)
    x = model.blocks[0].norm_1(model.embed(torch.randint(50, (1, 20), generator=torch.Generator().manual_seed(0))))
    q, k, _ = model.blocks[0].attention.qkv(x).view(1, 20, 3, 4, config.hd).permute(2, 0, 3, 1, 4)
    turn = rotary_turn(torch.arange(20)[None], config.hd)
    scores = rotate(q, turn) @ rotate(k, turn).mT
    scores = scores.masked_fill(~torch.ones(20, 20, dtype=torch.bool).tril(), -torch.inf)
    best = scores.argmax(-1)[0, :, 8:]
    for head, offset in enumerate(OFFSETS):
        assert (torch.arange(8, 20) - best[head] == offset).all(), f"head {head} does not look {offset} tokens back"


def test_every_look_asks_with_something_that_was_brought_there():
    assert all(0 < asked <= 3 and 0 <= searched <= 3 and 0 <= found <= 3 for asked, searched, found in LOOKS)


def test_the_start_depends_on_its_seed_alone():
    config = DecoderConfig(50, 64, 64, 2, 4, 4, 64, tied=True, qkv_bias=True)
    models = []
    for before, seed in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(before)
        models.append(Decoder(config))
        looking_start(models[-1], seed)
    same, other = (
        [torch.equal(a, b) for a, b in zip(models[0].parameters(), m.parameters(), strict=True)] for m in models[1:]
    )
    assert all(same), "something is left of what was drawn before"
    assert not all(other)


@pytest.mark.slow
def test_from_this_start_looking_up_is_learned_in_a_few_steps():
    """Pairs of words, then `word ?`: which word stood before it? From the usual start, that takes many times as long."""
    torch.set_num_threads(1)
    config = DecoderConfig(100, 64, 64, 3, 4, 4, 128, tied=True, qkv_bias=True)
    right = {}
    for start in ("looking", "usual"):
        torch.manual_seed(0)
        model, dice = Decoder(config), torch.Generator().manual_seed(1)
        if start == "looking":
            looking_start(model, seed=0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(201):
            words = 1 + torch.rand(64, 99, generator=dice).argsort(1)[:, :16].view(64, 8, 2)
            asked = words.gather(1, torch.rand(64, 8, generator=dice).argsort(1)[:, :, None].expand(-1, -1, 2))
            turns = torch.stack([asked[..., 1], torch.zeros(64, 8, dtype=torch.long), asked[..., 0]], 2)
            ids = torch.cat([words.flatten(1), turns.flatten(1)], 1)
            answers = torch.arange(18, 40, 3)
            if step == 200:
                right[start] = (model(ids).argmax(-1)[:, answers - 1] == ids[:, answers]).float().mean().item()
                break
            labels = torch.full_like(ids, -100)
            labels[:, answers] = ids[:, answers]
            loss = model.loss(Texts(ids, labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert right["looking"] > 0.8 > 0.3 > right["usual"], f"looked up after 200 steps: {right}"
