"""Would the parity tests notice? Mistakes that people make with a LLaVA, each planted, each seen.

Those inside its two parts are planted in `test_planted_mistakes.py` (the vision encoder) and `test_planted_decoder.py`; here
are the ones of joining them, and of the others the dearest, once more, seen from outside.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minivlm.language.decoder
import minivlm.models.llava
import minivlm.vision.vit
from minivlm import checkpoints
from minivlm.language.decoder import Decoder
from minivlm.language.generate import generate
from minivlm.models.llava import LLaVA
from minivlm.nn.grouped_query import GroupedQueryAttention
from minivlm.nn.norm import RMSNorm
from minivlm.nn.rotary import rotary_turn
from minivlm.nn.transformer import QuickGELU
from minivlm.vision.vit import VisionTransformer
from tests.parity.cases.llava import CASES, SIDES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor, side_by_side

ONE, TWO, LAST = CASES
BLOCKS = ("right: block 0", "left: block 0")
LOGITS = ("right: logits", "left: logits", "lesson: logits")
LOSSES = ("right: loss", "left: loss", "lesson: loss")
ALL = (*BLOCKS, *LOGITS, *LOSSES)
SEEN = ("vision", "connector")
WORDS = ("lesson: words alone",)
WRITTEN = ("generated", "generated to eos")

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, TWO)


def with_vision(patch, forward):
    """Another `VisionTransformer.forward`, given the right one as its first argument."""
    right = VisionTransformer.forward
    patch.setattr(VisionTransformer, "forward", lambda self, *a, **k: forward(right, self, *a, **k))


def with_features(patch, change):
    """Other image features, after the connector."""
    right = LLaVA.embed_image
    patch.setattr(LLaVA, "embed_image", lambda self, pixel_values: change(right(self, pixel_values)))


def with_places(patch, change):
    """The image features at other places."""
    right = minivlm.models.llava.splice
    patch.setattr(
        minivlm.models.llava,
        "splice",
        lambda embeddings, places, features: right(embeddings, change(places), features),
    )


# --- which features of the vision encoder


@mistake("the last layer for the one before it", (*SEEN, *ALL), WORDS, (ONE, TWO))
def _(patch, loaded):
    with_vision(patch, lambda right, self, x, skip_layers=0: right(self, x, skip_layers - 1))


@mistake("a layer too few", (*SEEN, *ALL), WORDS, (ONE, LAST))
def _(patch, loaded):
    with_vision(patch, lambda right, self, x, skip_layers=0: right(self, x, skip_layers + 1))


@mistake("the norm of CLIP's output on top", (*SEEN, *ALL), WORDS, CASES)
def _(patch, loaded):
    with_vision(patch, lambda right, self, x, skip_layers=0: self.norm_after(right(self, x, skip_layers)))


@mistake("no norm before the layers", (*SEEN, *ALL), WORDS)
def _(patch, loaded):
    loaded.model.vision.norm_before = nn.Identity()


@mistake("the class token kept, the last patch dropped", ("connector", *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    def embed_image(self, pixel_values):
        return self.connector(self.vision(pixel_values, self.config.skip_layers)[:, :-1])

    patch.setattr(LLaVA, "embed_image", embed_image)


@mistake("the class token dropped before the layers", (*SEEN, *ALL), WORDS)
def _(patch, loaded):
    def forward(right, self, x, skip_layers=0):
        x = self.patch_embedding(minivlm.vision.vit.patchify(x, self.config.patch_size)) + self.positions[1:]
        x = self.norm_before(x)
        for block in self.blocks[: len(self.blocks) - skip_layers]:
            x = block(x)
        return torch.cat([x[:, :1], x], dim=1)

    with_vision(patch, forward)


@mistake("patches column by column", (*SEEN, *ALL), WORDS, CASES)
def _(patch, loaded):
    right = minivlm.vision.vit.patchify

    def columns(x, size):
        side = x.shape[-1] // size
        return right(x, size).unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)

    patch.setattr(minivlm.vision.vit, "patchify", columns)


@mistake("LayerNorm eps 1e-6 for 1e-5", (*SEEN, *LOGITS), WORDS)
def _(patch, loaded):
    for module in loaded.model.vision.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


@mistake("gelu for quick_gelu", (*SEEN, *ALL), WORDS, (ONE, TWO))
def _(patch, loaded):
    patch.setattr(QuickGELU, "forward", lambda self, x: F.gelu(x))


# --- connector


def with_activation(patch, activation):
    patch.setattr(nn.GELU, "forward", lambda self, x: activation(x))


@mistake("tanh gelu in the connector", ("connector", *LOGITS), ("vision", *WORDS), (TWO, LAST))
def _(patch, loaded):
    with_activation(patch, lambda x: F.gelu(x, approximate="tanh"))


@mistake("quick_gelu in the connector", ("connector", *ALL), ("vision", *WORDS))
def _(patch, loaded):
    with_activation(patch, QuickGELU())


@mistake("relu in the connector", ("connector", *ALL), ("vision", *WORDS))
def _(patch, loaded):
    with_activation(patch, F.relu)


@mistake("nothing between the connector's layers", ("connector", *ALL), ("vision", *WORDS))
def _(patch, loaded):
    with_activation(patch, lambda x: x)


@mistake("an activation after the one matrix", ("connector", *ALL), ("vision", *WORDS), (ONE,))
def _(patch, loaded):
    loaded.model.connector.append(nn.GELU())


@mistake("no bias in the connector", ("connector", *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    set_tensor(loaded.model.connector[0].bias, 0.0)


@mistake("no bias in the connector's second layer", ("connector", *ALL), ("vision", *WORDS), (TWO, LAST))
def _(patch, loaded):
    set_tensor(loaded.model.connector[2].bias, 0.0)


@mistake("the connector's second matrix transposed", ("connector", *ALL), ("vision", *WORDS))
def _(patch, loaded):
    set_tensor(loaded.model.connector[2].weight, loaded.model.connector[2].weight.detach().T.clone())


@mistake("a norm after the connector", ("connector", *ALL), ("vision", *WORDS), (ONE, TWO))
def _(patch, loaded):
    with_features(patch, lambda x: F.layer_norm(x, x.shape[-1:]))


# --- images among words


@mistake("patches in reverse", ("connector", *LOGITS), ("vision", *WORDS), CASES)
def _(patch, loaded):
    with_features(patch, lambda x: x.flip(1))


@mistake("the images in reverse", ("connector", *LOGITS), ("vision", *WORDS), CASES)
def _(patch, loaded):
    with_features(patch, lambda x: x.flip(0))


@mistake("the first image for all of them", ("connector", *LOGITS), ("vision", *WORDS))
def _(patch, loaded):
    with_features(patch, lambda x: x[:1].expand_as(x))


@mistake("one place too late", LOGITS, (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    with_places(patch, lambda places: places.roll(1, dims=1))


@mistake("one place too early", ("left: logits", "lesson: logits"), (*SEEN, *WORDS))
def _(patch, loaded):
    with_places(patch, lambda places: places.flatten().roll(-1).unflatten(0, places.shape))


@mistake("features added to the placeholder's embedding", ALL, (*SEEN, *WORDS), (ONE, TWO))
def _(patch, loaded):
    right = minivlm.models.llava.splice
    added = lambda e, places, features: torch.where(places[..., None], e, 0.0) + right(e, places, features)
    patch.setattr(minivlm.models.llava, "splice", added)


@mistake("no image at all", ALL, (*SEEN, *WORDS))
def _(patch, loaded):
    patch.setattr(minivlm.models.llava, "splice", lambda embeddings, places, features: embeddings)


@mistake("images in reading order of the columns", ("right: logits", "left: logits"), (*SEEN, *WORDS))
def _(patch, loaded):
    right = minivlm.models.llava.splice

    def wrong(embeddings, places, features):
        return right(embeddings.transpose(0, 1), places.T, features).transpose(0, 1)

    patch.setattr(minivlm.models.llava, "splice", wrong)


@mistake("all places of an image share one position", LOGITS, (*SEEN, *WORDS))
def _(patch, loaded):
    right, places = LLaVA.embed, []

    def embed(self, ids, pixel_values=None):
        places[:] = [ids == self.config.image_id]
        return right(self, ids, pixel_values)

    def turn(positions, width, base):
        inside = places[0] & places[0].roll(1, dims=1)
        if positions.shape == inside.shape:
            positions = positions - inside.cumsum(dim=1)
        return rotary_turn(positions, width, base)

    patch.setattr(LLaVA, "embed", embed)
    patch.setattr(minivlm.language.decoder, "rotary_turn", turn)


# --- masks


def with_keep(patch, change):
    """Another mask, given the right one and where images stand."""
    right, embed, places = Decoder.features, LLaVA.embed, []

    def remember(self, ids, pixel_values=None):
        places[:] = [ids == self.config.image_id]
        return embed(self, ids, pixel_values)

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if keep is not None and cache is None:
            keep = change(keep, places[0])
        return right(self, ids, embeddings, keep, positions, cache)

    patch.setattr(LLaVA, "embed", remember)
    patch.setattr(Decoder, "features", features)


@mistake("padding mask missing", ("left: logits", "left: loss"), ("right: logits", "lesson: logits"), CASES)
def _(patch, loaded):
    with_keep(patch, lambda keep, places: None)


@mistake("padding mask missing when writing", WRITTEN, ALL)
def _(patch, loaded):
    right = minivlm.models.llava.generate
    patch.setattr(minivlm.models.llava, "generate", lambda model, keep=None, **how: right(model, **how))


@mistake("images hidden by the mask", ("right: logits", "left: logits"), (*SEEN, "lesson: logits", *WORDS))
def _(patch, loaded):
    with_keep(patch, lambda keep, places: keep & ~places)


@mistake("padding is what is kept", ("right: logits", "left: logits"), (*SEEN, "lesson: logits", *WORDS))
def _(patch, loaded):
    with_keep(patch, lambda keep, places: ~keep)


@mistake("an image sees the whole of itself", LOGITS, (*SEEN, *WORDS))
def _(patch, loaded):
    """Bidirectional attention inside of the image, as PaliGemma has it, and LLaVA has not."""
    right = GroupedQueryAttention.forward
    places, embed = [], LLaVA.embed

    def remember(self, ids, pixel_values=None):
        places[:] = [ids == self.config.image_id]
        return embed(self, ids, pixel_values)

    def forward(self, x, turn, mask=None, cache=None):
        if x.shape[1] == places[0].shape[1]:
            mask = torch.ones(len(x), x.shape[1], x.shape[1]).tril().bool() if mask is None else mask
            mask = mask | (places[0][:, :, None] & places[0][:, None, :])
        return right(self, x, turn, mask, cache)

    patch.setattr(LLaVA, "embed", remember)
    patch.setattr(GroupedQueryAttention, "forward", forward)


# --- the language model, seen from outside


@mistake("RMSNorm eps 1e-6 for 1e-5", (*LOGITS, *WORDS), SEEN)
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, RMSNorm):
            module.eps = 1e-6


@mistake("rope base 10000 for the config's", (*ALL, *WORDS), SEEN)
def _(patch, loaded):
    turn = rotary_turn
    patch.setattr(minivlm.language.decoder, "rotary_turn", lambda p, width, base: turn(p, width, 10000.0))


@mistake("repeat for repeat_interleave", (*ALL, *WORDS), SEEN, (ONE, TWO))
def _(patch, loaded):
    attend = F.scaled_dot_product_attention

    def wrong(q, k, v, attn_mask=None, is_causal=False, enable_gqa=False, **how):
        group = q.shape[1] // k.shape[1]
        k, v = (x.repeat(1, group, 1, 1) for x in (k, v))
        return attend(q, k, v, attn_mask=attn_mask, is_causal=is_causal, **how)

    patch.setattr(F, "scaled_dot_product_attention", wrong)


@mistake("untied although the config says tied", ("right: logits", "left: logits"), (*SEEN, *BLOCKS), (LAST,))
def _(patch, loaded):
    language = loaded.model.language
    language.head = nn.Linear(language.config.width, language.config.vocab_size, bias=False)
    object.__setattr__(language, "config", dataclasses.replace(language.config, tied=False))


# --- loss and writing


@mistake("loss on the questions as well", ("lesson: loss",), LOGITS)
def _(patch, loaded):
    right = LLaVA.loss
    patch.setattr(LLaVA, "loss", lambda self, batch: right(self, batch._replace(labels=batch.ids)))


@mistake("labels one place off after splicing", LOSSES, LOGITS)
def _(patch, loaded):
    right = Decoder.next_token_loss
    off = lambda self, features, labels: right(self, features, labels.roll(1, dims=1))
    patch.setattr(Decoder, "next_token_loss", off)


@mistake("rows go on after eos", ("generated to eos",), ("generated", *ALL))
def _(patch, loaded):
    ignoring = lambda model, eos=None, **how: generate(model, **how)
    patch.setattr(minivlm.models.llava, "generate", ignoring)


@mistake("the image is forgotten when writing", WRITTEN, ALL)
def _(patch, loaded):
    ids_alone = lambda self, ids, pixel_values=None, keep=None, **how: generate(self.language, ids, keep, **how)
    patch.setattr(LLaVA, "generate", ids_alone)


def test_names_are_not_used_twice():
    assert len({planted.name for planted in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda m: m.name)
def test_it_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_compared_can_be_wrong(case):
    """Rows differ, change, end at different times, and say something else of other images: or nothing would be compared."""
    reference, given = case.build(), case.inputs()
    written = case.theirs(reference, given)
    rows, ended = written["generated"], written["generated to eos"]
    assert all(len(set(row.tolist())) >= 4 for row in rows)
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    zeros = (ended == 0).sum(dim=1)
    assert zeros.max() > 0, "no row ends early"
    assert zeros.min() == 0, "all rows end early"
    others = case.theirs(reference, {**given, "pixel_values": given["pixel_values"].flip(0)})
    assert (others["generated"] != rows).any(dim=1).tolist() == [True, True, True, False]
    for side in SIDES:
        assert (others[f"{side}: logits"] - written[f"{side}: logits"]).abs().max() > 0.1
    assert torch.equal(others["lesson: words alone"], written["lesson: words alone"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table. Of these, no output tells of the key biases of the vision encoder (a softmax
    does not see what is added to all its scores), of the layers left out at its end, nor of its last norm.
    """
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model, there = checkpoints.load(tmp_path).model, reference.model
    tower, language, projector = there.vision_tower, there.language_model, there.multi_modal_projector
    pairs = [
        (model.vision.class_token, tower.embeddings.class_embedding),
        (model.vision.patch_embedding.weight, tower.embeddings.patch_embedding.weight.flatten(1)),
        (model.vision.positions, tower.embeddings.position_embedding.weight),
        (model.connector[0].weight, projector.linear_1.weight),
        (model.connector[0].bias, projector.linear_1.bias),
        (model.language.embedding.weight, language.embed_tokens.weight),
        (model.language.norm.weight, language.norm.weight),
    ]
    norms = [(model.vision.norm_before, tower.pre_layrnorm), (model.vision.norm_after, tower.post_layernorm)]
    for block, layer in zip(model.vision.blocks, tower.encoder.layers, strict=True):
        q, k, v = (getattr(layer.self_attn, f"{name}_proj") for name in "qkv")
        pairs += [
            (getattr(block.attention.qkv, kind), torch.cat([getattr(x, kind) for x in (q, k, v)]))
            for kind in ("weight", "bias")
        ]
        norms += [
            (block.attention.out, layer.self_attn.out_proj),
            (block.norm_1, layer.layer_norm1),
            (block.norm_2, layer.layer_norm2),
            (block.mlp[0], layer.mlp.fc1),
            (block.mlp[2], layer.mlp.fc2),
        ]
    if model.config.connector_layers == 2:
        norms.append((model.connector[2], projector.linear_2))
    pairs += [(getattr(a, kind), getattr(b, kind)) for a, b in norms for kind in ("weight", "bias")]
    if not model.config.language.tied:
        pairs.append((model.language.head.weight, reference.lm_head.weight))
    for block, layer in zip(model.language.blocks, language.layers, strict=True):
        q, k, v = (getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv")
        pairs += [
            (block.attention.qkv.weight, torch.cat([*(side_by_side(x, model.config.language.hd) for x in (q, k)), v])),
            (block.attention.out.weight, layer.self_attn.o_proj.weight),
            (block.norm_1.weight, layer.input_layernorm.weight),
            (block.norm_2.weight, layer.post_attention_layernorm.weight),
            (block.mlp.gate_up.weight, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])),
            (block.mlp.down.weight, layer.mlp.down_proj.weight),
        ]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in reference.parameters())
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in model.parameters())
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)


def test_a_key_bias_of_the_vision_encoder_cannot_be_seen(tmp_path):
    """Which is why the test above looks at tensors: without it, everything computed is the same."""

    def without_key_biases(loaded):
        for block in loaded.model.vision.blocks:
            width = block.attention.out.out_features
            set_tensor(block.attention.qkv.bias[width : 2 * width], 0.0)

    check(ONE, tmp_path / "c", without_key_biases)
