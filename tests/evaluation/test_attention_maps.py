"""The weights shown are those that the decoder uses."""

import pytest
import torch
from einops import rearrange

from minivlm.connectors.qformer import QFormer, QFormerConfig, itm_mask
from minivlm.evaluation.attention_maps import attention_during, attention_maps
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.nn.attention import Attention
from minivlm.nn.cross_attention import CrossAttention


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(40, 32, 32, 2, 4, 2, hidden=24, qkv_bias=True))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.mark.parametrize("padded", [False, True])
def test_weights_times_values_are_what_the_layer_gives(decoder, padded):
    ids = torch.randint(40, (3, 9))
    keep = torch.ones(3, 9, dtype=torch.bool)
    if padded:
        keep[0, :4] = keep[1, :1] = False
    seen = {}
    attention = decoder.blocks[1].attention
    attention.register_forward_hook(lambda module, args, out: seen.update(x=args[0], out=out))
    maps = attention_maps(decoder, ids=ids, keep=keep if padded else None)
    assert maps.shape == (2, 3, 4, 9, 9)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 3, 4, 9), atol=1e-5), "each row of weights sums to one"
    assert (maps.triu(1) == 0).all(), "nobody looks ahead"
    qkv = rearrange(attention.qkv(seen["x"]), "b t (nh hd) -> b nh t hd", hd=8)
    values = qkv[:, -2:].repeat_interleave(2, dim=1)
    out = attention.out(rearrange(maps[1] @ values, "b nh t hd -> b t (nh hd)"))
    real = keep if padded else torch.ones(3, 9, dtype=torch.bool)
    assert torch.allclose(out[real], seen["out"][real], atol=1e-4), "these weights are not the ones that were used"


def test_the_decoder_is_left_as_it_was(decoder):
    attention_maps(decoder, ids=torch.randint(40, (1, 5)))
    assert not decoder.blocks[0].attention._forward_pre_hooks, "a hook was left behind"


def test_a_cache_is_refused(decoder):
    with pytest.raises(ValueError, match="without a cache"):
        attention_maps(decoder, ids=torch.randint(40, (1, 5)), cache=decoder.new_cache(8))


QFORMER = QFormerConfig(queries=3, width=24, layers=4, heads=2, hidden=20, seen=10, vocab_size=30, context=9)


@pytest.fixture
def qformer():
    torch.manual_seed(0)
    model = QFormer(QFORMER)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def outcome(layer):
    """What a layer was given and what it gave, when it is called."""
    seen = {}
    layer.register_forward_hook(
        lambda module, args, named, out: seen.update(args=args, **named, out=out), with_kwargs=True
    )
    return seen


@torch.no_grad()
def test_what_the_queries_of_a_qformer_look_at(qformer):
    image, looking = torch.randn(5, 7, 10), [block.cross for block in qformer.blocks if block.looks]
    seen = outcome(looking[1])
    maps = attention_during(lambda: qformer(image), looking)
    assert maps.shape == (2, 5, 2, 3, 7)
    assert torch.allclose(maps.sum(-1), torch.ones(2, 5, 2, 3), atol=1e-5)
    values = seen["args"][1][1]
    out = looking[1].out(rearrange(maps[1] @ values, "b nh t hd -> b t (nh hd)"))
    assert torch.allclose(out, seen["out"], atol=1e-5), "these weights are not the ones that were used"
    ids = torch.randint(30, (5, 4))
    told = attention_during(lambda: qformer(image, ids), looking)
    assert (told - maps).abs().max() > 1e-3, "what is asked must change where they look"


@torch.no_grad()
def test_what_queries_and_words_take_from_each_other(qformer):
    image, ids = torch.randn(2, 7, 10), torch.randint(30, (2, 4))
    mask = itm_mask(3, torch.tensor([[True] * 4, [True, True, False, False]]))
    layers = [block.attention for block in qformer.blocks]
    seen = outcome(layers[2])
    maps = attention_during(lambda: qformer(image, ids, mask), layers)
    assert maps.shape == (4, 2, 2, 7, 7)
    assert (maps[:, 1, :, :, 5:] == 0).all(), "nobody looks at padding"
    _, _, values = rearrange(layers[2].qkv(seen["args"][0]), "b t (three nh hd) -> three b nh t hd", three=3, nh=2)
    out = layers[2].out(rearrange(maps[2] @ values, "b nh t hd -> b t (nh hd)"))
    assert torch.allclose(out, seen["out"], atol=1e-5), "these weights are not the ones that were used"


@torch.no_grad()
def test_masks_of_cross_attention_and_causal_attention():
    cross, mask = CrossAttention(12, 3, 8, norm=torch.nn.LayerNorm), torch.ones(2, 4, 6, dtype=torch.bool)
    mask[:, :, 4:] = False
    x, keys_values = torch.randn(2, 4, 12), cross.keys_values(torch.randn(2, 6, 8))
    maps = attention_during(lambda: cross(x, keys_values, mask=mask), [cross])
    assert (maps[..., 4:] == 0).all()
    out = cross.out(rearrange(maps[0] @ keys_values[1], "b nh t hd -> b t (nh hd)"))
    torch.testing.assert_close(out, cross(x, keys_values, mask), atol=1e-6, rtol=0)
    layer = Attention(12, 3)
    assert (attention_during(lambda: layer(x, causal=True), [layer]).triu(1) == 0).all()
    assert (attention_during(lambda: layer(x), [layer]) > 0).all()


def test_what_cannot_be_looked_at(qformer, decoder):
    image, looking = torch.randn(1, 7, 10), [block.cross for block in qformer.blocks if block.looks]
    with pytest.raises(ValueError, match="none of these layers was called"):
        attention_during(lambda: qformer(ids=torch.zeros(1, 2, dtype=torch.long)), looking)
    with pytest.raises(ValueError, match=r"shapes \[\(1, 2, 3, 3\), \(1, 2, 3, 7\)\]; look at those of one shape"):
        attention_during(lambda: qformer(image), [qformer.blocks[0].attention, *looking])
    ids, cache = torch.randint(40, (1, 5)), decoder.new_cache(8)
    with pytest.raises(ValueError, match="a layer has a cache"):
        attention_during(lambda: decoder.features(ids, cache=cache), [decoder.blocks[0].attention])
    assert not any(layer._forward_pre_hooks for layer in looking), "a hook was left behind"
