"""The three ways to read: who sees whom, cell by cell; and writing."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from minivlm.language.bert import SHARED_PARTS, Bert, BertBlock, BertConfig, reading_mask, share

CONFIG = BertConfig(vocab_size=30, context=16, width=12, layers=2, heads=3, hidden=20, seen=8)
IDS = torch.tensor([[3, 7, 8, 9, 10, 4], [3, 11, 12, 4, 0, 0]])
KEEP = IDS != 0
IMAGE = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
MODES = {"text encoder": (False, False), "grounded encoder": (True, False), "grounded decoder": (True, True)}


def fresh(config: BertConfig = CONFIG, head: bool = True, seed: int = 0) -> Bert:
    """A random one whose numbers are all of a size that matters."""
    torch.manual_seed(seed)
    model = Bert(config, head)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.ndim < 2 else 0.3))
            if "norm" in name and "weight" in name:
                p.fill_(1.0)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return fresh()


def read(model, mode, ids=IDS, image=IMAGE, keep=KEEP):
    grounded, causal = MODES[mode]
    return model(ids, image if grounded else None, causal, keep)


# --- masks


def test_masks_by_hand():
    keep = torch.tensor([[True, True, True, False], [False, False, True, True]])
    assert reading_mask(keep, causal=False).int().tolist() == [[[1, 1, 1, 0]], [[0, 0, 1, 1]]]
    assert reading_mask(keep, causal=True).int().tolist() == [
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]],
    ]


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_who_sees_whom_cell_by_cell(model, mode):
    """A word changes; which places notice? In the first text all words, in the second not the padding."""
    before = read(model, mode)
    for column in range(6):
        changed = IDS.clone()
        changed[:, column] = 20
        noticed = (read(model, mode, changed) - before).abs().amax(dim=-1) > 1e-6
        for row in range(6):
            may_see = row >= column if MODES[mode][1] else True
            assert noticed[0, row].item() is may_see, (row, column)
            if row < 4:
                assert noticed[1, row].item() is (may_see and column < 4), (row, column)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_who_sees_the_image(model, mode):
    """Each word each part of its own image, or none at all."""
    before = read(model, mode)
    for token in range(5):
        other = IMAGE.clone()
        other[0, token] += 1
        noticed = (read(model, mode, image=other) - before).abs().amax(dim=-1) > 1e-6
        assert noticed[0].tolist() == [MODES[mode][0]] * 6
        assert not noticed[1].any()


@torch.no_grad()
def test_hidden_parts_of_what_is_seen(model):
    seen_keep = torch.tensor([[True, True, False, True, False], [True] * 5])
    before = model(IDS, IMAGE, True, KEEP, seen_keep)
    other = torch.where(seen_keep[..., None], IMAGE, 9.0)
    assert torch.equal(model(IDS, other, True, KEEP, seen_keep), before)
    alone = model(IDS[:1], IMAGE[:1, seen_keep[0]], True, KEEP[:1])
    torch.testing.assert_close(before[:1], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_padding_on_the_right_as_alone(model, mode):
    alone = read(model, mode, IDS[1:, :4], IMAGE[1:], None)
    torch.testing.assert_close(read(model, mode)[1:, :4], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_modes_differ(model):
    a, b, c = (read(model, mode) for mode in MODES)
    for one, other in ((a, b), (b, c), (a, c)):
        assert not torch.allclose(one, other, atol=1e-3)
    seen = model.look(IMAGE)
    assert torch.equal(model(IDS, seen, True, KEEP), c), "looked at once is looked at"


# --- parts


@torch.no_grad()
def test_block_by_hand():
    """Post-norm, the epsilon under the root."""
    torch.manual_seed(0)
    block = BertBlock(dataclasses.replace(CONFIG, eps=0.1))
    for parameter in block.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    x, image = torch.randn(2, 4, 12), torch.randn(2, 5, 8)

    def norm(layer, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * layer.weight + layer.bias

    y = norm(block.norm_1, x + block.attention(x, block.attention.keys_values(x)))
    seen = block.cross.keys_values(image)
    z = norm(block.norm_2, y + block.cross(y, seen))
    for given, stream in ((None, y), (seen, z)):
        wanted = norm(block.norm_3, stream + block.mlp[2](F.gelu(block.mlp[0](stream))))
        torch.testing.assert_close(block(x, seen=given), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_positions_are_columns(model):
    ids = torch.tensor([[7, 7, 7]])
    x = model(ids)[0]
    assert not torch.allclose(x[0], x[1], atol=1e-3)
    shifted, keep = torch.tensor([[0, 7, 7, 7]]), torch.tensor([[False, True, True, True]])
    assert not torch.allclose(model(shifted, keep=keep)[0, 1:], x, atol=1e-3), "padding on the left takes places"


@torch.no_grad()
def test_logits_by_hand(model):
    x = model(IDS)
    dense, _, norm = model.head
    wanted = norm(F.gelu(dense(x))) @ model.embedding.weight.T + model.head_bias
    torch.testing.assert_close(model.logits(x), wanted, atol=1e-5, rtol=1e-5)
    assert not any("decoder" in name or name.endswith("head.weight") for name in model.state_dict()), "tied"


@torch.no_grad()
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_label_smoothing_by_hand(model, smoothing):
    """`1 - smoothing` of the label on the word, `smoothing / V` on each of all V words."""
    labels = torch.where(KEEP, IDS, -100)
    labels[0, 1] = -100
    x = model(IDS, causal=True, keep=KEEP)
    log_p = model.logits(x).log_softmax(dim=-1)
    found = []
    for row in range(2):
        for column in range(1, 6):
            if (word := int(labels[row, column])) != -100:
                guess = log_p[row, column - 1]
                found.append(-((1 - smoothing) * guess[word] + smoothing * guess.mean()).item())
    assert len(found) == 7
    assert model.next_token_loss(x, labels, smoothing).item() == pytest.approx(sum(found) / 7, rel=1e-5)


def test_smoothing_in_round_numbers():
    """Three words, all equally likely: surprise ln 3 with any smoothing; and one nearly sure: 0.1 of it is lost."""
    model = fresh(dataclasses.replace(CONFIG, vocab_size=3))
    labels, x = torch.tensor([[0, 1]]), torch.zeros(1, 2, 12)
    for bias, wanted in ((torch.zeros(3), 1.0986123), (torch.tensor([0.0, 30.0, 0.0]), 0.1 * 30 * 2 / 3)):
        model.logits = lambda features, bias=bias: bias.expand(len(features), 3)
        assert model.next_token_loss(x, labels, 0.1).item() == pytest.approx(wanted, rel=1e-5)


# --- writing


@torch.no_grad()
def test_what_is_cached_changes_nothing(model):
    whole = model(IDS, IMAGE, True)
    cache, seen, parts = model.new_cache(6), model.look(IMAGE), []
    for part in (IDS[:, :3], IDS[:, 3:4], IDS[:, 4:]):
        parts.append(model(part, seen, True, cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_is_the_likeliest_word_each_time(model):
    prompt = IDS[:, :2]
    written = model.generate(prompt, IMAGE, max_new_tokens=6)
    ids = prompt
    for _ in range(6):
        guess = model.logits(model(ids, IMAGE, True)[:, -1]).argmax(dim=-1)
        ids = torch.cat([ids, guess[:, None]], dim=1)
    assert torch.equal(written, ids[:, 2:])


@torch.no_grad()
def test_a_row_that_has_ended_is_filled_up(model):
    free = model.generate(IDS[:, :1], IMAGE, max_new_tokens=8)
    eos = int(free[0, 2])
    written = model.generate(IDS[:, :1], IMAGE, max_new_tokens=8, eos=eos, pad=29)
    for row, wanted in zip(written.tolist(), free.tolist(), strict=True):
        end = wanted.index(eos) + 1 if eos in wanted else 8
        assert row == (wanted[:end] + [29] * 8)[: len(row)]
    short = model.generate(IDS[:1, :1], IMAGE[:1], max_new_tokens=8, eos=int(free[0, 0]))
    assert short.shape == (1, 1), "all have ended"


@torch.no_grad()
def test_prompts_of_different_lengths_as_alone(model):
    left, keep = torch.tensor([[3, 7, 8, 9], [0, 0, 3, 11]]), torch.tensor([[True] * 4, [False, False, True, True]])
    together = model.generate(left, IMAGE, keep, max_new_tokens=6)
    assert torch.equal(together[:1], model.generate(left[:1], IMAGE[:1], max_new_tokens=6))
    assert torch.equal(together[1:], model.generate(left[1:, 2:], IMAGE[1:], max_new_tokens=6))


@torch.no_grad()
def test_nucleus_sampling_comes_from_the_generator(model):
    def write(seed, **how):
        generator = torch.Generator().manual_seed(seed)
        return model.generate(IDS[:, :1], IMAGE, max_new_tokens=9, temperature=1.0, generator=generator, **how).tolist()

    assert write(0) == write(0)
    assert write(0) != write(1)
    greedy = model.generate(IDS[:, :1], IMAGE, max_new_tokens=9).tolist()
    assert write(0, top_p=1e-6) == greedy, "the nucleus is the likeliest word alone"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; the prompt has 6 tokens and the context holds 16, so .* 1 to 10"),
        ({"max_new_tokens": 11}, "max_new_tokens is 11"),
        ({"temperature": -1.0}, "temperature must be at least 0, top_p above 0 and at most 1; got -1.0 and 1.0"),
        ({"top_p": 0.0}, "got 0.0 and 0.0"),
        ({"top_p": 1.5}, "got 0.0 and 1.5"),
    ],
)
def test_generate_refuses(model, how, words):
    with pytest.raises(ValueError, match=words):
        model.generate(IDS, IMAGE, **how)


def test_what_is_refused(model):
    with pytest.raises(ValueError, match="a text has 17 tokens; the context holds 16"):
        model(torch.zeros(1, 17, dtype=torch.long))
    blind = Bert(dataclasses.replace(CONFIG, seen=None))
    assert not any("cross" in name or "norm_2" in name for name in blind.state_dict())
    assert blind(IDS).shape == (2, 6, 12)
    with pytest.raises(ValueError, match="this Bert has no cross-attention to look at an image with"):
        blind(IDS, IMAGE)
    with pytest.raises(ValueError, match="width 12 is no multiple of heads 5"):
        dataclasses.replace(CONFIG, heads=5)
    with pytest.raises(ValueError, match="seen is 0; it must be at least 1, or None"):
        dataclasses.replace(CONFIG, seen=0)


def test_the_start():
    """BERT's, at its width; as large beside the stream at another."""
    torch.manual_seed(0)
    for width, std in ((768, 0.02), (192, 0.04)):
        model = Bert(BertConfig(50, 40, width, layers=1, heads=4, hidden=2 * width, seen=9), head=True)
        for name, p in model.named_parameters():
            if p.ndim == 2:
                assert p.std().item() == pytest.approx(std, rel=0.05), name
            else:
                assert (p == float(name.endswith("weight"))).all(), name  # gains 1, biases 0


# --- sharing


@pytest.mark.parametrize("how", SHARED_PARTS)
def test_what_is_shared_is_one_object(how):
    encoder, decoder = Bert(CONFIG), Bert(CONFIG, head=True)
    share(encoder, decoder, how)
    for ours, theirs in zip(encoder.blocks, decoder.blocks, strict=True):
        for name, part in ours.named_children():
            assert (part is getattr(theirs, name)) is (name in SHARED_PARTS[how]), name
    for name in ("embedding", "positions", "norm_before"):
        assert (getattr(encoder, name) is getattr(decoder, name)) is (how != "nothing")
    assert set(SHARED_PARTS["all"]) == {name for name, _ in encoder.blocks[0].named_children()}
