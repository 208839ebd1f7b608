"""The Q-Former: masks cell by cell, who influences whom, and what it refuses."""

import dataclasses

import pytest
import torch

from minivlm.connectors.qformer import QFormer, QFormerBlock, QFormerConfig, itc_mask, itg_mask, itm_mask

CONFIG = QFormerConfig(queries=3, width=12, layers=4, heads=3, hidden=20, seen=10, vocab_size=30, context=8)
KEEP = torch.tensor([[True, True, True], [True, True, False]])


@pytest.fixture
def qformer():
    torch.manual_seed(0)
    model = QFormer(CONFIG).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def given(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 7, 10, generator=generator), torch.randint(1, 30, (2, 3), generator=generator)


def table(text: str) -> list[list[bool]]:
    """Rows of a mask as one draws them: x may see, . may not."""
    return [[cell == "x" for cell in row] for row in text.split()]


# --- masks


def test_masks_cell_by_cell():
    """Two queries and three words; in the second text the last word is padding."""
    whole, padded = itm_mask(2, KEEP).tolist()
    assert whole == table("xxxxx xxxxx xxxxx xxxxx xxxxx")
    assert padded == table("xxxx. xxxx. xxxx. xxxx. xxxx.")
    whole, padded = itc_mask(2, KEEP).tolist()
    assert whole == table("xx... xx... ..xxx ..xxx ..xxx")
    assert padded == table("xx... xx... ..xx. ..xx. ..xx.")
    whole, padded = itg_mask(2, KEEP).tolist()
    assert whole == table("xx... xx... xxx.. xxxx. xxxxx")
    assert padded == table("xx... xx... xxx.. xxxx. xxxx.")


def test_masks_leave_what_they_are_given():
    keep = KEEP.clone()
    for mask in (itm_mask, itc_mask, itg_mask):
        assert mask(4, keep).shape == (2, 7, 7)
        assert mask(4, keep).dtype == torch.bool
        assert torch.equal(keep, KEEP)


# --- who influences whom


@torch.no_grad()
@pytest.mark.parametrize("mask", [itc_mask, itg_mask])
def test_text_does_not_influence_queries(qformer, mask):
    """Under ITC and ITG, whatever the text is, the queries find the same: what they find alone."""
    image, ids = given()
    sees = mask(3, KEEP)
    queries, text = qformer(image, ids, sees)
    other, changed = qformer(image, ids.flip(1), sees)
    assert torch.equal(queries, other)
    assert not torch.allclose(text, changed, atol=1e-3)
    torch.testing.assert_close(qformer(image)[0], queries, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_text_influences_queries_in_matching(qformer):
    image, ids = given()
    queries, _ = qformer(image, ids, itm_mask(3, KEEP))
    other, _ = qformer(image, ids.flip(1), itm_mask(3, KEEP))
    assert (queries - other).abs().amax(dim=(1, 2)).min() > 1e-3
    torch.testing.assert_close(qformer(image, ids)[0][:1], queries[:1])  # without padding, None is this mask


@torch.no_grad()
def test_under_itc_a_text_does_not_know_the_image(qformer):
    image, ids = given()
    _, text = qformer(image, ids, itc_mask(3, KEEP))
    _, other = qformer(image.flip(0), ids, itc_mask(3, KEEP))
    assert torch.equal(text, other)
    _, alone = qformer(ids=ids, mask=KEEP[:, None])
    torch.testing.assert_close(alone, text, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_under_itg_a_word_knows_the_image_and_what_stands_before(qformer):
    image, ids = given()
    sees = itg_mask(3, KEEP)
    _, text = qformer(image, ids, sees)
    _, other = qformer(image.flip(0), ids, sees)
    assert (text - other).abs().amax(dim=2).min() > 1e-4, "every word has the image from the queries"
    for place in range(3):
        changed = ids.clone()
        changed[:, place] = (ids[:, place] + 1) % 30
        _, other = qformer(image, changed, sees)
        assert torch.equal(text[:, :place], other[:, :place])
        assert (text[:1, place:] - other[:1, place:]).abs().amax(dim=2).min() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("mask", [itm_mask, itc_mask, itg_mask])
def test_padding_changes_nothing(qformer, mask):
    image, ids = given()
    longer = torch.nn.functional.pad(ids, (0, 2), value=9)
    keep = torch.ones_like(ids, dtype=torch.bool)
    queries, text = qformer(image, ids, mask(3, keep))
    padded, words = qformer(image, longer, mask(3, torch.nn.functional.pad(keep, (0, 2))))
    torch.testing.assert_close(padded, queries, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(words[:, :3], text, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_all_the_image_says_comes_through_cross_attention(qformer):
    """Without it, two images are one; and the order of an image's tokens does not count."""
    image, _ = given()
    queries, _ = qformer(image)
    torch.testing.assert_close(qformer(image.flip(1))[0], queries, atol=1e-6, rtol=1e-6)
    assert (queries[0] - queries[1]).abs().max() > 1e-3
    for block in qformer.blocks:
        block.looks = False
    blind, _ = qformer(image)
    assert torch.equal(blind[0], blind[1])


@torch.no_grad()
def test_queries_have_no_places(qformer):
    """Queries in another order find the same, in that order."""
    image, ids = given()
    queries, text = qformer(image, ids)
    qformer.queries.copy_(qformer.queries.flip(0))
    other, words = qformer(image, ids)
    torch.testing.assert_close(other, queries.flip(1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(words, text, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_words_have_places(qformer):
    ids = torch.tensor([[4, 4, 4]])
    _, text = qformer(ids=ids)
    assert (text[0, 0] - text[0, 1]).abs().max() > 1e-3
    qformer.positions.zero_()
    _, text = qformer(ids=ids)
    torch.testing.assert_close(text[0, 0], text[0, 1])


# --- parts


@pytest.mark.parametrize(("every", "look"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])])
def test_which_layers_look(every, look):
    qformer = QFormer(dataclasses.replace(CONFIG, layers=5, cross_every=every))
    assert [i for i, block in enumerate(qformer.blocks) if block.looks] == look
    assert [i for i, block in enumerate(qformer.blocks) if hasattr(block, "cross")] == look


def test_without_a_vocabulary_there_are_no_parts_for_text():
    """Stage 2: BLIP-2 deletes them."""
    reads = {name for name, _ in QFormer(CONFIG).named_parameters()}
    mute = {name for name, _ in QFormer(dataclasses.replace(CONFIG, vocab_size=None)).named_parameters()}
    text = {name for name in reads if "text_" in name or name.startswith(("embedding", "positions"))}
    assert mute == reads - text
    assert len(text) == 2 + 4 * 6
    assert dataclasses.replace(CONFIG, vocab_size=None) == dataclasses.replace(CONFIG, vocab_size=None, context=99)


@torch.no_grad()
def test_queries_and_text_have_mlps_of_their_own(qformer):
    image, ids = given()
    block: QFormerBlock = qformer.blocks[0]
    sides = (torch.randn(2, 3, 12), torch.randn(2, 3, 12))
    queries, text = block(*sides, image, None)
    block.text_mlp[0].weight.add_(1.0)
    again, changed = block(*sides, image, None)
    assert torch.equal(again, queries)
    assert not torch.allclose(changed, text, atol=1e-3)
    block.mlp[0].weight.add_(1.0)
    again, same = block(*sides, image, None)
    assert torch.equal(same, changed)
    assert not torch.allclose(again, queries, atol=1e-3)


@torch.no_grad()
def test_the_stream_is_normalised_after_each_sublayer(qformer):
    """Post-norm: with gains 1 and shifts 0, what comes out has mean 0 and variance 1."""
    for name, p in qformer.named_parameters():
        if "norm" in name:
            p.fill_(float(name.endswith("weight")))
    for side in qformer(*given()):
        torch.testing.assert_close(side.mean(dim=-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(side.var(dim=-1, unbiased=False), torch.ones(2, 3), atol=1e-4, rtol=0)


@torch.no_grad()
def test_either_side_alone(qformer):
    image, ids = given()
    queries, text = qformer(image)
    assert (queries.shape, text.shape) == ((2, 3, 12), (2, 0, 12))
    queries, text = qformer(ids=ids)
    assert (queries.shape, text.shape) == ((2, 0, 12), (2, 3, 12))


# --- what it refuses


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"queries": 0}, "queries is 0; it must be at least 1"),
        ({"queries": -4}, "queries is -4"),
        ({"layers": 0}, "layers is 0"),
        ({"cross_every": 0}, "cross_every is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"seen": 0}, "seen is 0"),
        ({"heads": 5}, "width 12 is no multiple of heads 5"),
    ],
)
def test_config_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_it_refuses(qformer):
    image, ids = given()
    with pytest.raises(ValueError, match="got neither"):
        qformer()
    with pytest.raises(ValueError, match="tokens are 11 wide; this Q-Former looks at tokens of width 10"):
        qformer(torch.randn(2, 7, 11))
    with pytest.raises(ValueError, match="a text has 9 tokens; the Q-Former's context holds 8. Shorten it"):
        qformer(image, torch.zeros(2, 9, dtype=torch.long))
    with pytest.raises(ValueError, match="reads no text; its config needs a vocab_size"):
        QFormer(dataclasses.replace(CONFIG, vocab_size=None))(image, ids)


def test_sizes():
    """BERT-base with cross-attention in every second layer, counted by hand."""
    with torch.device("meta"):
        reads = QFormer(QFormerConfig.bert_base(1408, 30523))
        mute = QFormer(QFormerConfig.bert_base(1408))
    width, layers = 768, 12
    attention = 4 * width * (width + 1)
    mlp, norm = 2 * 4 * width * width + 5 * width, 2 * width
    cross = 2 * width * (width + 1) + 2 * width * (1408 + 1) + norm
    wanted = 32 * width + norm + layers * (attention + norm + mlp + norm) + layers // 2 * cross
    assert sum(p.numel() for p in mute.parameters()) == wanted
    text = (30523 + 512) * width + layers * (mlp + norm)
    assert sum(p.numel() for p in reads.parameters()) == wanted + text
