"""Would the parity tests notice? Mistakes that people make with a Flamingo, each planted, each seen.

Those inside its two towers are planted in `test_planted_mistakes.py` and `test_planted_decoder.py`; here are the ones of what
is new, and of the others the dearest, once more, seen from outside.
"""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minivlm.language.decoder
import minivlm.models.flamingo
from minivlm import checkpoints
from minivlm.connectors import gated
from minivlm.connectors.gated import GatedCrossAttention
from minivlm.connectors.perceiver import PerceiverLayer, PerceiverResampler
from minivlm.language.decoder import Decoder
from minivlm.language.generate import generate
from minivlm.models.flamingo import Flamingo
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.norm import RMSNorm
from minivlm.nn.rotary import rotary_turn, rotate
from minivlm.nn.transformer import QuickGELU
from minivlm.vision.vit import VisionTransformer
from tests.parity.cases.flamingo import CASES, SIDES
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor, side_by_side

EACH, RELEASED, TIED = CASES
NEW = ("right: new layer 0", "left: new layer 0")
LOGITS = ("right: logits", "left: logits")
LESSON = ("lesson: logits", "lesson: all images")
LOSSES = ("right: loss", "left: loss", "lesson: loss")
ALL = (*NEW, *LOGITS, *LESSON, *LOSSES)
SEEN = ("vision", "resampler")
ASKED = ("latents after the first attention",)
WORDS = ("lesson: words alone",)
WRITTEN = ("generated", "generated to eos")

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, EACH)


def with_vision(patch, forward):
    """Another `VisionTransformer.forward`, given the right one as its first argument."""
    right = VisionTransformer.forward
    patch.setattr(VisionTransformer, "forward", lambda self, *a, **k: forward(right, self, *a, **k))


def with_latents(patch, forward):
    """Another `PerceiverLayer.forward`."""
    patch.setattr(PerceiverLayer, "forward", forward)


def with_layer(patch, forward):
    """Another `GatedCrossAttention.forward`."""
    patch.setattr(GatedCrossAttention, "forward", forward)


def with_looking(patch, change):
    """Other images, or another mask, given the model and the right ones."""
    right = Flamingo.looking

    @contextmanager
    def looking(self, images, mask):
        with right(self, *change(self, images, mask)):
            yield

    patch.setattr(Flamingo, "looking", looking)



# --- which features of the vision encoder


@mistake("the norm of CLIP's output on top", (*SEEN, *ASKED, *ALL), WORDS, CASES)
def _(patch, loaded):
    with_vision(patch, lambda right, self, x, skip_layers=0: self.norm_after(right(self, x, skip_layers)))


@mistake("the last layer left out", (*SEEN, *ASKED, *ALL), WORDS, CASES)
def _(patch, loaded):
    with_vision(patch, lambda right, self, x, skip_layers=0: right(self, x, 1))


@mistake("no norm before the layers", (*SEEN, *ALL), WORDS)
def _(patch, loaded):
    loaded.model.vision.norm_before = nn.Identity()


@mistake("quick_gelu for gelu", (*SEEN, *ALL), WORDS, (EACH, RELEASED))
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        block.mlp[1] = QuickGELU()


@mistake("gelu for quick_gelu", (*SEEN, *ALL), WORDS, (TIED,))
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        block.mlp[1] = nn.GELU()


@mistake("the class token dropped", ("resampler", *ASKED, *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    object.__setattr__(loaded.model.config, "class_token", False)


# --- resampler


@mistake("latents that do not look at each other", ("resampler", *ASKED, *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    def forward(self, latents, seen, mask=None):
        q = self.norm(latents)
        latents = latents + self.attention(q, self.attention.keys_values(self.norm_seen(seen)), mask)
        return latents + self.mlp(latents)

    with_latents(patch, forward)


@mistake("latents that look at each other alone", ("resampler", *ASKED, *ALL), ("vision", *WORDS))
def _(patch, loaded):
    def forward(self, latents, seen, mask=None):
        q = self.norm(latents)
        latents = latents + self.attention(q, self.attention.keys_values(q), mask)
        return latents + self.mlp(latents)

    with_latents(patch, forward)


@mistake("latents among the keys as they are, without their norm", ("resampler", *ASKED, *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    def forward(self, latents, seen, mask=None):
        both = torch.cat([self.norm_seen(seen), latents], dim=1)
        latents = latents + self.attention(self.norm(latents), self.attention.keys_values(both), mask)
        return latents + self.mlp(latents)

    with_latents(patch, forward)


@mistake("one norm for features and latents", ("resampler", *ASKED, *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    for layer in loaded.model.resampler.layers:
        layer.norm_seen = layer.norm


@mistake("features not normalised", ("resampler", *ASKED, *ALL), ("vision", *WORDS))
def _(patch, loaded):
    for layer in loaded.model.resampler.layers:
        layer.norm_seen = nn.Identity()


@mistake("the attention's answer for the latents, not added to them", ("resampler", *ALL), ("vision", *ASKED, *WORDS))
def _(patch, loaded):
    def forward(self, latents, seen, mask=None):
        q = self.norm(latents)
        both = torch.cat([self.norm_seen(seen), q], dim=1)
        latents = self.attention(q, self.attention.keys_values(both), mask)
        return latents + self.mlp(latents)

    with_latents(patch, forward)


@mistake("no norm at the resampler's end", ("resampler", *ALL), ("vision", *ASKED, *WORDS), CASES)
def _(patch, loaded):
    loaded.model.resampler.norm = nn.Identity()


@mistake("squared ReLU, Flamingo's, where IDEFICS has ReLU", ("resampler", *ALL), ("vision", *ASKED, *WORDS), CASES)
def _(patch, loaded):
    patch.setattr(nn.ReLU, "forward", lambda self, x: F.relu(x) ** 2)


@mistake("gelu in the resampler", ("resampler", *ALL), ("vision", *ASKED, *WORDS))
def _(patch, loaded):
    patch.setattr(nn.ReLU, "forward", lambda self, x: F.gelu(x))


@mistake("no norm before the resampler's feed-forward layer", ("resampler", *ALL), ("vision", *ASKED, *WORDS))
def _(patch, loaded):
    for layer in loaded.model.resampler.layers:
        layer.mlp[0] = nn.Identity()


@mistake("a layer of the resampler too few", ("resampler", *ALL), ("vision", *ASKED, *WORDS), CASES)
def _(patch, loaded):
    loaded.model.resampler.layers = loaded.model.resampler.layers[:-1]


@mistake("latents of another image's order", ("resampler", *LOGITS), ("vision", *WORDS))
def _(patch, loaded):
    right = PerceiverResampler.forward
    patch.setattr(PerceiverResampler, "forward", lambda self, x, keep=None: right(self, x, keep).roll(1, dims=0))


@mistake("no norm on queries and keys", (*ASKED, "resampler", *ALL), ("vision", *WORDS), (RELEASED,))
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, CrossAttention):
            module.q_norm = module.k_norm = nn.Identity()


@mistake("the norm of queries for keys too", (*ASKED, "resampler", *ALL), ("vision", *WORDS), (RELEASED,))
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, CrossAttention):
            module.k_norm = module.q_norm


@mistake("scores divided by the width of all heads", (*ASKED, "resampler", *ALL), ("vision", *WORDS), (EACH, RELEASED))
def _(patch, loaded):
    right = CrossAttention.forward

    def forward(self, x, keys_values, mask=None):
        k, v = keys_values
        return right(self, x, (k / self.heads**0.5, v), mask)

    patch.setattr(CrossAttention, "forward", forward)


@mistake("keys and values swapped", (*ASKED, "resampler", *ALL), ("vision", *WORDS), CASES)
def _(patch, loaded):
    right = CrossAttention.keys_values
    patch.setattr(CrossAttention, "keys_values", lambda self, seen: right(self, seen)[::-1])


# --- gates


def sigmoid(self, y, image, mask):
    sees = mask.any(dim=-1, keepdim=True)
    seen = self.attention(self.norm_1(y), image, mask | ~sees)
    y = y + self.alpha.sigmoid() * seen.masked_fill(~sees, 0.0)
    return y + self.beta.sigmoid() * self.mlp(self.norm_2(y))


@mistake("sigmoid gates", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    with_layer(patch, sigmoid)


@mistake("gates without their tanh", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    patch.setattr(torch.Tensor, "tanh", lambda self: self)


@mistake("gates shut", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    for layer in loaded.model.layers:
        set_tensor(layer.alpha, 0.0)
        set_tensor(layer.beta, 0.0)


@mistake("no gate on the feed-forward layer", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    for layer in loaded.model.layers:
        set_tensor(layer.beta, 100.0)


@mistake("the two gates swapped", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    for layer in loaded.model.layers:
        layer.alpha, layer.beta = layer.beta, layer.alpha


# --- the new layers


@mistake("who sees no image sees them all", (*LOGITS, "lesson: logits"), (*SEEN,), CASES)
def _(patch, loaded):
    def forward(self, y, image, mask):
        sees = mask.any(dim=-1, keepdim=True)
        y = y + self.alpha.tanh() * self.attention(self.norm_1(y), image, mask | ~sees)
        return y + self.beta.tanh() * self.mlp(self.norm_2(y))

    with_layer(patch, forward)


@mistake("who sees no image skips the feed-forward layer too, as in Llama 3.2", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    right = GatedCrossAttention.forward
    with_layer(patch, lambda self, y, image, mask: torch.where(mask.any(-1, True), right(self, y, image, mask), y))


@mistake("no norm before looking", ALL, (*SEEN, *WORDS))
def _(patch, loaded):
    for layer in loaded.model.layers:
        layer.norm_1 = nn.Identity()


@mistake("no norm before the feed-forward layer", (*ALL, *WORDS), SEEN)
def _(patch, loaded):
    for layer in loaded.model.layers:
        layer.norm_2 = nn.Identity()


@mistake("LayerNorm, Flamingo's, where IDEFICS has RMSNorm", (*ALL, *WORDS), SEEN, CASES)
def _(patch, loaded):
    for layer in loaded.model.layers:
        for norm in (layer.norm_1, layer.norm_2):
            norm.forward = lambda x, norm=norm: F.layer_norm(x, norm.weight.shape, norm.weight, None, norm.eps)


@mistake("gate and up swapped", (*ALL, *WORDS), SEEN)
def _(patch, loaded):
    for layer in loaded.model.layers:
        set_tensor(layer.mlp.gate_up.weight, torch.cat(layer.mlp.gate_up.weight.detach().chunk(2)[::-1]))


@mistake("looking and thinking at the same time", (*NEW, *LOGITS, *LESSON), (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    def forward(self, y, image, mask):
        sees = mask.any(dim=-1, keepdim=True)
        seen = self.attention(self.norm_1(y), image, mask | ~sees).masked_fill(~sees, 0.0)
        return y + self.alpha.tanh() * seen + self.beta.tanh() * self.mlp(self.norm_2(y))

    with_layer(patch, forward)


@mistake("queries turned by their positions", (*NEW, *LOGITS, *LESSON), (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    right = GatedCrossAttention.forward

    def forward(self, y, image, mask):
        turn = rotary_turn(torch.arange(y.shape[1]).expand(len(y), -1), image[0].shape[-1])
        norm, self.attention.q_norm = self.attention.q_norm, nn.Identity()
        self.attention.q_norm.forward = lambda q: rotate(norm(q), turn)
        out = right(self, y, image, mask)
        self.attention.q_norm = norm
        return out

    with_layer(patch, forward)


@mistake("before the last block of each group, as OpenFlamingo has it", LOGITS, SEEN, (RELEASED, TIED))
def _(patch, loaded):
    right = Flamingo.looking

    @contextmanager
    def looking(self, images, mask):
        blocks, every = self.language.blocks, self.config.every
        self.language.blocks = nn.ModuleList([*blocks[every - 1 :], *blocks[: every - 1]])
        with right(self, images, mask):
            self.language.blocks = blocks
            yield

    patch.setattr(Flamingo, "looking", looking)


@mistake("the new layers in reverse", LOGITS, SEEN, (EACH, RELEASED))
def _(patch, loaded):
    loaded.model.layers = loaded.model.layers[::-1]


@mistake("after the block instead of before it", (*NEW, *LOGITS, *WORDS), SEEN, CASES)
def _(patch, loaded):
    right = minivlm.models.flamingo.look

    def later(layer, image, mask, block, given):
        if not hasattr(block, "waiting"):
            block.waiting = []
            block.register_forward_hook(lambda b, args, out: b.waiting.pop()(out) if b.waiting else out)
        block.waiting.append(lambda out: right(layer, image, mask, block, (out, *given[1:3], None))[0])
        return given

    patch.setattr(minivlm.models.flamingo, "look", later)


# --- who looks at what


@mistake("all images before a word, not the last alone", ("lesson: logits", "lesson: loss"), (*SEEN, *LOGITS, *WORDS), CASES)
def _(patch, loaded):
    right = gated.image_mask
    patch.setattr(minivlm.models.flamingo, "image_mask", lambda looks, images, all_before=False: right(looks, images, True))


@mistake("the last image alone where all were meant", ("lesson: all images",), ("lesson: logits", *SEEN, *LOGITS))
def _(patch, loaded):
    right = gated.image_mask
    patch.setattr(minivlm.models.flamingo, "image_mask", lambda looks, images, all_before=False: right(looks, images))


@mistake("an image's own place still sees the one before", ("lesson: logits", "generated"), (*SEEN, *LOGITS, *WORDS), CASES)
def _(patch, loaded):
    patch.setattr(minivlm.models.flamingo, "last_image", lambda places: places.cumsum(1) - places.long())


@mistake("the next image for the last", ("lesson: logits", "lesson: loss"), (*SEEN, *LOGITS, *WORDS), CASES)
def _(patch, loaded):
    patch.setattr(minivlm.models.flamingo, "last_image", gated.next_image)


@mistake("images counted from 0", ("lesson: logits", "lesson: loss"), (*SEEN, *LOGITS, *WORDS), CASES)
def _(patch, loaded):
    right = gated.image_mask

    def wrong(looks_at, images, all_before=False):
        return right(looks_at + 1, images, all_before)

    patch.setattr(minivlm.models.flamingo, "image_mask", wrong)


@mistake("a text's images in reverse", (*LOGITS, "lesson: logits"), (*SEEN, *WORDS))
def _(patch, loaded):
    with_looking(patch, lambda model, images, mask: (images.flip(1), mask))


@mistake("the images of the text before", LOGITS, (*SEEN, *WORDS))
def _(patch, loaded):
    with_looking(patch, lambda model, images, mask: (images.roll(1, dims=0), mask))


@mistake("one token of an image for all of them", (*LOGITS, "lesson: logits"), (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    with_looking(patch, lambda model, images, mask: (images[:, :, :1].expand_as(images), mask))


@mistake("the mask repeated image by image, not token by token", (*LOGITS, "lesson: logits"), (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    def repeat_interleave(self, count, dim):
        return self.repeat(1, 1, count) if dim == 2 else right(self, count, dim)

    right = torch.Tensor.repeat_interleave
    patch.setattr(torch.Tensor, "repeat_interleave", repeat_interleave)


@mistake("nobody looks", ALL, (*SEEN, *WORDS), CASES)
def _(patch, loaded):
    with_looking(patch, lambda model, images, mask: (images, torch.zeros_like(mask)))


@mistake("a word before the first image sees it", (*LOGITS, "lesson: logits"), SEEN, CASES)
def _(patch, loaded):
    def change(model, images, mask):
        first = ~mask.any(-1, keepdim=True) & (torch.arange(mask.shape[2]) == 0)
        return images, mask | first

    with_looking(patch, change)


# --- padding, words, loss, writing


def with_keep(patch, change):
    right = Decoder.features

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if keep is not None and cache is None:
            keep = change(keep)
        return right(self, ids, embeddings, keep, positions, cache)

    patch.setattr(Decoder, "features", features)


@mistake("padding mask missing", ("left: logits", "left: loss"), ("right: logits", *LESSON, *NEW), CASES)
def _(patch, loaded):
    with_keep(patch, lambda keep: None)


@mistake("padding mask missing when writing", ("generated",), ALL)
def _(patch, loaded):
    patch.setattr(minivlm.models.flamingo, "generate", lambda model, ids, keep=None, **how: generate(model, ids, **how))


@mistake("RMSNorm eps 1e-6 for 1e-5", (*LOGITS, *LESSON, *WORDS), SEEN, (EACH, RELEASED))
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, RMSNorm):
            module.eps = 1e-6


@mistake("rope base 10000 for the config's", (*LOGITS, *LESSON, *WORDS), (*SEEN, *NEW), CASES)
def _(patch, loaded):
    turn = rotary_turn
    patch.setattr(minivlm.language.decoder, "rotary_turn", lambda p, width, base: turn(p, width, 10000.0))


@mistake("new words before the old ones", LOGITS, SEEN, (RELEASED,))
def _(patch, loaded):
    for matrix in (loaded.model.language.embedding.weight, loaded.model.language.head.weight):
        set_tensor(matrix, matrix.detach().roll(2, dims=0))


@mistake("the new words' rows swapped", ("lesson: logits",), SEEN, (RELEASED,))
def _(patch, loaded):
    matrix = loaded.model.language.embedding.weight
    set_tensor(matrix, torch.cat([matrix.detach()[:-2], matrix.detach()[[-1, -2]]]))


@mistake("loss on all words", ("lesson: loss",), LOGITS)
def _(patch, loaded):
    right = Flamingo.loss
    patch.setattr(Flamingo, "loss", lambda self, batch: right(self, batch._replace(labels=batch.ids)))


@mistake("labels one place off", LOSSES, LOGITS)
def _(patch, loaded):
    right = Decoder.next_token_loss
    off = lambda self, features, labels: right(self, features, labels.roll(1, dims=1))
    patch.setattr(Decoder, "next_token_loss", off)


@mistake("rows go on after eos", ("generated to eos",), ("generated", *ALL))
def _(patch, loaded):
    ignoring = lambda model, ids, keep=None, eos=None, **how: generate(model, ids, keep, **how)
    patch.setattr(minivlm.checkpoints.flamingo_model, "generate", ignoring)


def with_look(patch, change):
    """Another mask for what is being written: `change(mask)` of its last row."""
    right = minivlm.models.flamingo.look

    def look(layer, image, mask, block, given):
        y, *_, cache = given
        if cache is not None and cache.length and y.shape[1] == 1:
            mask = change(mask[:, -1:])
        return right(layer, image, mask, block, given)

    patch.setattr(minivlm.models.flamingo, "look", look)


@mistake("what is written sees no image", WRITTEN, ALL, CASES)
def _(patch, loaded):
    with_look(patch, torch.zeros_like)


@mistake("what is written sees all images", WRITTEN, ALL, CASES)
def _(patch, loaded):
    with_look(patch, torch.ones_like)


@mistake("what is written sees what the first words saw", WRITTEN, ALL, CASES)
def _(patch, loaded):
    right = minivlm.models.flamingo.look

    def look(layer, image, mask, block, given):
        return right(layer, image, mask[:, : given[0].shape[1]], block, given)

    patch.setattr(minivlm.models.flamingo, "look", look)


@mistake("the images are forgotten when writing", ("generated",), ALL, CASES)
def _(patch, loaded):
    def blind(self, ids, pixel_values=None, keep=None, frames=None, **how):
        return generate(self.language, ids, keep, **how)

    patch.setattr(Flamingo, "generate", blind)


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
    early = (ended != rows).any(dim=1)
    assert early.any(), "no row ends early"
    assert not early.all(), "all rows end early"
    assert not (rows == given["left"].new_tensor(reference.config.image_token_index)).any(), "an image is written"
    others = case.theirs(reference, {**given, "pixel_values": given["pixel_values"].flip(0)})
    assert (others["generated"] != rows).any(dim=1).tolist() == [True, True, True, False]
    for side in SIDES:
        assert (others[f"{side}: logits"] - written[f"{side}: logits"]).abs().max() > 0.1
    assert torch.equal(others["lesson: words alone"], written["lesson: words alone"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table. Of these, no output tells of the key biases of the vision encoder (a softmax
    does not see what is added to all its scores), nor of its last norm.
    """
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model, there = checkpoints.load(tmp_path).model, reference.model
    tower, resampler, language = there.vision_model, there.perceiver_resampler, model.language
    words, out = there.embed_tokens, reference.lm_head
    pairs = [
        (model.vision.class_token, tower.embeddings.class_embedding),
        (model.vision.patch_embedding.weight, tower.embeddings.patch_embedding.weight.flatten(1)),
        (model.vision.positions, tower.embeddings.position_embedding.weight),
        (model.resampler.latents, resampler.latents),
        (language.norm.weight, there.norm.weight),
    ]
    if model.config.new_words:
        pairs += [
            (language.embedding.weight, torch.cat([words.weight, words.additional_embedding.weight])),
            (language.head.weight, torch.cat([out.weight, out.additional_fc.weight])),
        ]
    else:
        pairs.append((language.embedding.weight, words.weight))
        if not model.config.language.tied:
            pairs.append((language.head.weight, out.weight))
    both = [
        (model.vision.norm_before, tower.pre_layrnorm),
        (model.vision.norm_after, tower.post_layernorm),
        (model.resampler.norm, resampler.layer_norm),
    ]
    for block, layer in zip(model.vision.blocks, tower.encoder.layers, strict=True):
        q, k, v = (getattr(layer.self_attn, f"{name}_proj") for name in "qkv")
        pairs += [
            (getattr(block.attention.qkv, kind), torch.cat([getattr(x, kind) for x in (q, k, v)]))
            for kind in ("weight", "bias")
        ]
        both += [
            (block.attention.out, layer.self_attn.out_proj),
            (block.norm_1, layer.layer_norm1),
            (block.norm_2, layer.layer_norm2),
            (block.mlp[0], layer.mlp.fc1),
            (block.mlp[2], layer.mlp.fc2),
        ]
    for layer, (attention, mlp) in zip(model.resampler.layers, resampler.blocks, strict=True):
        pairs += [
            (layer.attention.q.weight, attention.q_proj.weight),
            (layer.attention.kv.weight, torch.cat([attention.k_proj.weight, attention.v_proj.weight])),
            (layer.attention.out.weight, attention.output_proj.weight),
            (layer.mlp[1].weight, mlp.fc.weight),
            (layer.mlp[3].weight, mlp.c_proj.weight),
        ]
        both += [(layer.norm_seen, attention.context_layer_norm), (layer.norm, attention.latents_layer_norm)]
        both.append((layer.mlp[0], mlp.ln))
        if model.config.resampler.qk_norm:
            both += [(layer.attention.q_norm, attention.q_layer_norm), (layer.attention.k_norm, attention.k_layer_norm)]
    pairs += [(getattr(a, kind), getattr(b, kind)) for a, b in both for kind in ("weight", "bias")]
    for layer, one in zip(model.layers, there.gated_cross_attn_layers, strict=True):
        looks = one.cross_attn
        pairs += [
            (layer.norm_1.weight, one.input_layernorm.weight),
            (layer.norm_2.weight, one.post_attention_layernorm.weight),
            (layer.attention.q.weight, looks.q_proj.weight),
            (layer.attention.kv.weight, torch.cat([looks.k_proj.weight, looks.v_proj.weight])),
            (layer.attention.out.weight, looks.o_proj.weight),
            (layer.mlp.gate_up.weight, torch.cat([one.mlp.gate_proj.weight, one.mlp.up_proj.weight])),
            (layer.mlp.down.weight, one.mlp.down_proj.weight),
            (layer.alpha, one.alpha_cross_attn),
            (layer.beta, one.alpha_dense),
        ]
        if model.config.qk_norm:
            pairs += [
                (layer.attention.q_norm.weight, looks.q_layer_norm.weight),
                (layer.attention.k_norm.weight, looks.k_layer_norm.weight),
            ]
    for block, layer in zip(language.blocks, there.layers, strict=True):
        q, k, v = (getattr(layer.self_attn, f"{name}_proj").weight for name in "qkv")
        q, k = (side_by_side(x, model.config.language.hd) for x in (q, k))
        pairs += [
            (block.attention.qkv.weight, torch.cat([q, k, v])),
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


@torch.no_grad()
def test_a_key_bias_of_the_vision_encoder_cannot_be_seen(tmp_path):
    """Which is why the test above looks at tensors: without it, everything computed is the same (in double precision, so that
    rounding, which is another without the biases, does not hide it).
    """
    EACH.build().save_pretrained(tmp_path)
    mine = checkpoints.load(tmp_path).double()
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in EACH.inputs().items()}
    before = EACH.ours(mine, inputs)
    for block in mine.model.vision.blocks:
        width = block.attention.out.out_features
        assert block.attention.qkv.bias[width : 2 * width].abs().max() > 0.1, "there is nothing to be seen"
        set_tensor(block.attention.qkv.bias[width : 2 * width], 0.0)
    after = EACH.ours(mine, inputs)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.allclose(after[name].double(), value.double(), rtol=0, atol=1e-10), name
