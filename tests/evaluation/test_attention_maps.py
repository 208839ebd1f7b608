"""The weights shown are those that the decoder uses."""

import pytest
import torch
from einops import rearrange

from minivlm.evaluation.attention_maps import attention_maps
from minivlm.language.decoder import Decoder, DecoderConfig


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
