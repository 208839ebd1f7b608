"""Would the parity tests notice? Mistakes that people make with a LLaMA, each planted, each seen."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import minivlm.language.decoder
import minivlm.nn.grouped_query
from minivlm import checkpoints
from minivlm.language.decoder import Decoder, DecoderBlock
from minivlm.nn.grouped_query import GroupedQueryAttention, KVCache
from minivlm.nn.norm import RMSNorm
from minivlm.nn.rotary import rotary_turn, rotate
from minivlm.nn.swiglu import SwiGLU
from tests.parity.cases.decoder import CASES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor, side_by_side

GROUPED, TIED, QWEN2 = CASES
BLOCKS = ("right: block 0", "left: block 0")
LOGITS = ("right: logits", "left: logits", "lesson: logits", "lesson: embeddings")
LOSSES = ("right: loss", "left: loss", "lesson: loss")
WRITTEN = ("generated", "generated to eos")
ALL = (*LOGITS, *LOSSES)

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, GROUPED)


# --- norms


@mistake("RMSNorm eps 1e-6 for 1e-5", LOGITS)
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, RMSNorm):
            module.eps = 1e-6


@mistake("eps outside the root", LOGITS)
def _(patch, loaded):
    norm = lambda self, x: self.weight * x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)
    patch.setattr(RMSNorm, "forward", norm)


@mistake("LayerNorm for RMSNorm", (*BLOCKS, *ALL))
def _(patch, loaded):
    patch.setattr(RMSNorm, "forward", lambda self, x: F.layer_norm(x, x.shape[-1:], self.weight, None, self.eps))


@mistake("gain is 1 + weight, as in Gemma", (*BLOCKS, *ALL))
def _(patch, loaded):
    patch.setattr(RMSNorm, "forward", lambda self, x: F.rms_norm(x, x.shape[-1:], 1 + self.weight, self.eps))


@mistake("no norm after the blocks", ALL, ("right: block 2", "left: block 2"))
def _(patch, loaded):
    loaded.model.norm = nn.Identity()


@mistake("post-norm for pre-norm", (*BLOCKS, *ALL))
def _(patch, loaded):
    def forward(self, x, turn, mask=None, cache=None):
        x = self.norm_1(x + self.attention(x, turn, mask, cache))
        return self.norm_2(x + self.mlp(x))

    patch.setattr(DecoderBlock, "forward", forward)


@mistake("the two norms of a block change places", (*BLOCKS, *ALL))
def _(patch, loaded):
    for block in loaded.model.blocks:
        block.norm_1, block.norm_2 = block.norm_2, block.norm_1


# --- rotary positions


@mistake("rope base 10000 for the config's", (*BLOCKS, *ALL))
def _(patch, loaded):
    turn = rotary_turn
    patch.setattr(
        minivlm.language.decoder, "rotary_turn", lambda positions, width, base: turn(positions, width, 10000.0)
    )


@mistake("rope pairs halves instead of neighbours", (*BLOCKS, *ALL))
def _(patch, loaded):
    def halves(x, turn):
        a, b = x.chunk(2, dim=-1)
        cos, sin = turn.real[:, None], turn.imag[:, None]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    patch.setattr(minivlm.nn.grouped_query, "rotate", halves)


@mistake("rope turns the other way in keys", (*BLOCKS, *ALL))
def _(patch, loaded):
    right, calls = rotate, []

    def wrong(x, turn):
        calls.append(x)
        return right(x, turn if len(calls) % 2 else turn.conj())

    patch.setattr(minivlm.nn.grouped_query, "rotate", wrong)


@mistake("rope on values as well", (*BLOCKS, *ALL))
def _(patch, loaded):
    with_attention(patch, values=True)


@mistake("no rope", (*BLOCKS, *ALL))
def _(patch, loaded):
    patch.setattr(minivlm.nn.grouped_query, "rotate", lambda x, turn: x)


@mistake("exponent -i / hd for -2 i / hd", (*BLOCKS, *ALL))
def _(patch, loaded):
    turn = rotary_turn
    patch.setattr(minivlm.language.decoder, "rotary_turn", lambda p, width, base: turn(p, width, base**0.5))


@mistake("positions start anew with a cache", WRITTEN, ALL)
def _(patch, loaded):
    turn = rotary_turn
    anew = lambda positions, width, base: turn(positions - positions[:, :1] * (positions.shape[1] == 1), width, base)
    patch.setattr(minivlm.language.decoder, "rotary_turn", anew)


# --- attention


def with_attention(patch, repeat=None, values=False, scale=None, out="b nh t hd -> b t (nh hd)"):
    def forward(self, x, turn, mask=None, cache=None):
        qkv = rearrange(self.qkv(x), "b t (nh hd) -> b nh t hd", hd=self.head_width)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k, v = rotate(q, turn), rotate(k, turn), rotate(v, turn) if values else v
        if cache is not None:
            k, v = cache.append(k, v)
        group = self.heads // self.kv_heads
        k, v = (repeat(y, group) if repeat else y.repeat_interleave(group, dim=1) for y in (k, v))
        mask = None if mask is None else mask[:, None]
        causal = mask is None and x.shape[1] > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
        return self.out(rearrange(y, out))

    patch.setattr(GroupedQueryAttention, "forward", forward)


def test_the_copy_above_is_right(tmp_path, monkeypatch):
    """Otherwise the mistakes made with it would be caught for another reason."""
    for number, case in enumerate(CASES):
        check(case, tmp_path / str(number), lambda _: with_attention(monkeypatch))


@mistake("repeat for repeat_interleave", (*BLOCKS, *ALL), cases=(GROUPED, TIED))
def _(patch, loaded):
    with_attention(patch, repeat=lambda y, group: y.repeat(1, group, 1, 1))


@mistake("scores divided by the root of the model's width", (*BLOCKS, *ALL))
def _(patch, loaded):
    with_attention(patch, scale=loaded.config.width**-0.5)


@mistake("head width is width / heads", (*BLOCKS, *ALL), cases=(TIED,))
def _(patch, loaded):
    with_attention(patch, scale=(loaded.config.width / loaded.config.heads) ** -0.5)


@mistake("heads joined as (width, heads)", (*BLOCKS, *ALL))
def _(patch, loaded):
    with_attention(patch, out="b nh t hd -> b t (hd nh)")


@mistake("queries and keys change places", (*BLOCKS, *ALL), cases=(QWEN2,))
def _(patch, loaded):
    for block in loaded.model.blocks:
        q, k, v = block.attention.qkv.weight.detach().split([36, 12, 12])
        set_tensor(block.attention.qkv.weight, torch.cat([k, q, v]))


@mistake("query bias missing", (*BLOCKS, *ALL), cases=(QWEN2,))
def _(patch, loaded):
    set_tensor(loaded.model.blocks[0].attention.qkv.bias[:36], 0.0)


@mistake("key bias missing: with rope it counts", (*BLOCKS, *ALL), cases=(QWEN2,))
def _(patch, loaded):
    set_tensor(loaded.model.blocks[0].attention.qkv.bias[36:48], 0.0)


# --- masks and cache


@mistake("not causal", ("lesson: logits", "lesson: loss"), ("left: logits", "right: logits"))
def _(patch, loaded):
    attend = F.scaled_dot_product_attention
    wrong = lambda *a, is_causal=False, **k: attend(*a, is_causal=False, **k)
    patch.setattr(F, "scaled_dot_product_attention", wrong)


@mistake("padding mask missing", ("left: logits", "left: loss", "generated"), ("right: logits", "lesson: logits"))
def _(patch, loaded):
    mask = minivlm.language.decoder.causal_mask
    patch.setattr(minivlm.language.decoder, "causal_mask", lambda keep: mask(torch.ones_like(keep)))


@mistake("padding is what is kept", ("left: logits", "right: logits"), ("lesson: logits",))
def _(patch, loaded):
    mask = minivlm.language.decoder.causal_mask
    patch.setattr(minivlm.language.decoder, "causal_mask", lambda keep: mask(~keep))


@mistake("a token does not see itself", ("left: logits", "right: logits"), ("lesson: logits",))
def _(patch, loaded):
    def strictly(keep):
        columns = torch.arange(keep.shape[1])
        mask = (columns < columns[:, None]) & keep[:, None, :]
        mask[..., 0] |= ~mask.any(-1)
        return mask

    patch.setattr(minivlm.language.decoder, "causal_mask", strictly)


@mistake("new keys overwrite the first ones in the cache", WRITTEN, ALL)
def _(patch, loaded):
    append = KVCache.append

    def wrong(self, k, v):
        keys, values = append(self, k, v)
        if k.shape[2] == 1:
            keys[:, :, :1], values[:, :, :1] = k, v
        return keys, values

    patch.setattr(KVCache, "append", wrong)


@mistake("the cache holds keys that are not turned", WRITTEN, ALL)
def _(patch, loaded):
    def forward(self, x, turn, mask=None, cache=None):
        qkv = rearrange(self.qkv(x), "b t (nh hd) -> b nh t hd", hd=self.head_width)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if cache is None:
            k = rotate(k, turn)
        else:
            k, v = cache.append(k, v)
        mask = None if mask is None else mask[:, None]
        causal = mask is None and x.shape[1] > 1
        y = F.scaled_dot_product_attention(rotate(q, turn), k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
        return self.out(rearrange(y, "b nh t hd -> b t (nh hd)"))

    patch.setattr(GroupedQueryAttention, "forward", forward)


# --- MLP, head, loss


@mistake("gate and up change places", (*BLOCKS, *ALL))
def _(patch, loaded):
    def forward(self, x):
        up, gate = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)

    patch.setattr(SwiGLU, "forward", forward)


@mistake("gelu for silu", (*BLOCKS, *ALL))
def _(patch, loaded):
    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.gelu(gate) * up)

    patch.setattr(SwiGLU, "forward", forward)


@mistake("tied although the config says not", (*ALL, *WRITTEN), ("right: hidden", "left: hidden"))
def _(patch, loaded):
    object.__setattr__(loaded.model, "config", dataclasses.replace(loaded.config, tied=True))


@mistake("last layer left out", ALL)
def _(patch, loaded):
    loaded.model.blocks[-1].forward = lambda x, turn, mask=None, cache=None: x


@mistake("loss not shifted", LOSSES, LOGITS)
def _(patch, loaded):
    def loss(self, features, labels):
        return F.cross_entropy(self.logits(features).flatten(0, 1), labels.flatten())

    patch.setattr(Decoder, "next_token_loss", loss)


@mistake("loss is a mean over rows of means", ("right: loss", "left: loss"), (*LOGITS, "lesson: loss"))
def _(patch, loaded):
    right = Decoder.next_token_loss
    rows = lambda self, x, y: torch.stack(
        [right(self, a[None, 2:], b[None, 2:]) for a, b in zip(x, y, strict=True)]
    ).mean()
    patch.setattr(Decoder, "next_token_loss", lambda self, x, y: right(self, x, y) if len(x) == 1 else rows(self, x, y))


# --- writing


@mistake("rows go on after eos", ("generated to eos",), ("generated", *ALL))
def _(patch, loaded):
    ignoring = lambda *given, eos, **how: WRITE(*given, eos=None, **how)
    patch.setattr(minivlm.checkpoints.llama, "generate", ignoring)


WRITE = minivlm.language.generate.generate


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda m: m.name)
def test_it_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_generated_can_be_wrong(case):
    """Rows differ, change, and end at different times: or nothing would be compared."""
    written = case.theirs(case.build(), case.inputs())
    rows, ended = written["generated"], written["generated to eos"]
    assert all(len(set(row.tolist())) >= 4 for row in rows)
    assert len({tuple(row.tolist()) for row in rows}) == 3
    zeros = (ended == 0).sum(dim=1)
    assert zeros.max() > 0, "no row ends early"
    assert zeros.min() == 0, "all rows end early"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table."""
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model = checkpoints.load(tmp_path).model
    pairs = [
        (model.embedding.weight, reference.model.embed_tokens.weight),
        (model.norm.weight, reference.model.norm.weight),
    ]
    if not model.config.tied:
        pairs.append((model.head.weight, reference.lm_head.weight))
    for block, layer in zip(model.blocks, reference.model.layers, strict=True):
        there = layer.self_attn
        q, k, v = there.q_proj, there.k_proj, there.v_proj
        for kind in ("weight", "bias") if model.config.qkv_bias else ("weight",):
            turned = [side_by_side(getattr(x, kind), model.config.hd) for x in (q, k)]
            pairs.append((getattr(block.attention.qkv, kind), torch.cat([*turned, getattr(v, kind)])))
        pairs += [
            (block.attention.out.weight, there.o_proj.weight),
            (block.norm_1.weight, layer.input_layernorm.weight),
            (block.norm_2.weight, layer.post_attention_layernorm.weight),
            (block.mlp.gate_up.weight, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])),
            (block.mlp.down.weight, layer.mlp.down_proj.weight),
        ]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in reference.parameters())
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
