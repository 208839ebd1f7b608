"""Would the parity tests notice? Each mistake that people make with CLIP is planted, and the comparison must fail where it
shows.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import minivlm.checkpoints.clip
import minivlm.language.text_encoder
import minivlm.models.clip
import minivlm.vision.vit
from minivlm import checkpoints
from minivlm.language.text_encoder import TextEncoder
from minivlm.models.clip import CLIP
from minivlm.nn.attention import Attention
from minivlm.nn.transformer import Block, QuickGELU
from minivlm.vision.vit import VisionTransformer
from tests.parity.cases.clip import CASES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor

ODD_GRID, DEEP_TEXT, LEGACY = CASES
VISION = ("vision pooled", "image features", "right: image_embeds", "lesson: image_embeds")
TEXT = ("right: text pooled", "left: text pooled", "right: text features", "lesson: text_embeds")
LOGITS = ("right: logits_per_image", "left: logits_per_image", "lesson: logits", "lesson: loss")
ALL = (*VISION, *TEXT, *LOGITS)


MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, ODD_GRID)


# --- norms and activations


@mistake("LayerNorm eps 1e-6 for 1e-5", ("vision block 0", *VISION, *TEXT))
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


@mistake("eps of the config ignored", ("vision block 0", *VISION, *TEXT), cases=(DEEP_TEXT,))
def _(patch, loaded):
    for module in loaded.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@mistake("gelu for quick_gelu", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(QuickGELU, "forward", lambda self, x: F.gelu(x))


@mistake("tanh gelu for quick_gelu", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(QuickGELU, "forward", lambda self, x: F.gelu(x, approximate="tanh"))


@mistake("the norm before the blocks is skipped", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    loaded.model.vision.norm_before = nn.Identity()


@mistake("no norm after the vision blocks", (*VISION, *LOGITS), ("vision block 2", *TEXT))
def _(patch, loaded):
    loaded.model.vision.norm_after = nn.Identity()


@mistake("no norm after the text blocks", (*TEXT, *LOGITS), ("right: text block 1", *VISION))
def _(patch, loaded):
    loaded.model.text.norm_after = nn.Identity()


@mistake("post-norm for pre-norm", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    def forward(self, x, causal=False, mask=None):
        x = self.norm_1(x + self.attention(x, causal, mask))
        return self.norm_2(x + self.mlp(x))

    patch.setattr(Block, "forward", forward)


@mistake("the two norms of a block change places", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    for block in (*loaded.model.vision.blocks, *loaded.model.text.blocks):
        block.norm_1, block.norm_2 = block.norm_2, block.norm_1


@mistake("the second residual starts from the normalised stream", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    def forward(self, x, causal=False, mask=None):
        x = self.norm_2(x + self.attention(self.norm_1(x), causal, mask))
        return x + self.mlp(x)

    patch.setattr(Block, "forward", forward)


@mistake("last layer left out", (*VISION, *LOGITS), TEXT)
def _(patch, loaded):
    loaded.model.vision.blocks[-1].forward = lambda x, causal=False, mask=None: x


# --- attention


def attention_with(
    pattern: str = "b t (three nh hd) -> three b nh t hd", out: str = "b nh t hd -> b t (nh hd)", **options
):
    def forward(self, x, causal=False, mask=None):
        q, k, v = rearrange(self.qkv(x), pattern, three=3, nh=self.heads)
        mask = None if mask is None else mask[:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None, **options)
        return self.out(rearrange(y, out))

    return forward


@mistake("heads split as (width, heads)", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(Attention, "forward", attention_with("b t (three hd nh) -> three b nh t hd"))


@mistake("fused projection read as (heads, 3, width)", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(Attention, "forward", attention_with("b t (nh three hd) -> three b nh t hd"))


@mistake("heads joined as (width, heads)", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(Attention, "forward", attention_with(out="b nh t hd -> b t (hd nh)"))


@mistake("scores not divided by the root of the head's width", ("vision block 0", "right: text block 0", *ALL))
def _(patch, loaded):
    patch.setattr(Attention, "forward", attention_with(scale=1.0))


@mistake("scores divided by the root of the model's width", ("vision block 0", *VISION, *LOGITS))
def _(patch, loaded):
    patch.setattr(Attention, "forward", attention_with(scale=24**-0.5))


@mistake("one head for three", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        block.attention.heads = 1


@mistake("queries and keys change places", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        for p in (block.attention.qkv.weight, block.attention.qkv.bias):
            q, k, v = p.detach().chunk(3)
            set_tensor(p, torch.cat([k, q, v]))


@mistake("query bias missing", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    set_tensor(loaded.model.vision.blocks[0].attention.qkv.bias[:24], 0.0)


@mistake("value bias missing", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    set_tensor(loaded.model.vision.blocks[0].attention.qkv.bias[48:], 0.0)


@mistake("output bias missing", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    set_tensor(loaded.model.vision.blocks[0].attention.out.bias, 0.0)


@mistake("vision tower is causal", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    def forward(self, x, causal=False, mask=None):
        x = x + self.attention(self.norm_1(x), True, mask)
        return x + self.mlp(self.norm_2(x))

    for block in loaded.model.vision.blocks:
        block.forward = partial(forward, block)


# --- masks


@mistake(
    "bidirectional text", ("lesson: text_embeds", "lesson: logits", "lesson: loss"), ("left: text pooled", *VISION)
)
def _(patch, loaded):
    forward = Attention.forward
    patch.setattr(Attention, "forward", lambda self, x, causal=False, mask=None: forward(self, x, False, mask))


@mistake("bidirectional text where there is padding", ("right: text block 0", "left: text pooled"), VISION)
def _(patch, loaded):
    patch.setattr(
        minivlm.language.text_encoder, "causal_mask", lambda keep: keep[:, None, :].expand(-1, keep.shape[1], -1)
    )


@mistake(
    "padding mask missing", ("left: text block 0", "left: text pooled", "left: logits_per_image"), TEXT[:1] + VISION
)
def _(patch, loaded):
    patch.setattr(
        minivlm.language.text_encoder,
        "causal_mask",
        lambda keep: torch.ones(*keep.shape, keep.shape[1], dtype=torch.bool).tril(),
    )


@mistake("padding is what is kept", ("right: text pooled", "left: text pooled"), VISION)
def _(patch, loaded):
    mask = minivlm.language.text_encoder.causal_mask
    patch.setattr(minivlm.language.text_encoder, "causal_mask", lambda keep: mask(~keep))


@mistake("strictly causal: a token does not see itself", ("right: text block 0", "left: text pooled"), VISION)
def _(patch, loaded):
    def mask(keep):
        past = torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).tril(-1)
        past[0, 0] = True
        return past & keep[:, None, :] | torch.eye(keep.shape[1], dtype=torch.bool) & ~keep[:, None, :]

    patch.setattr(minivlm.language.text_encoder, "causal_mask", mask)


# --- tokens and positions


@mistake("class token forgotten", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    set_tensor(loaded.model.vision.class_token, 0.0)


def vision_with(embed: Callable) -> Callable:
    def forward(self, pixel_values):
        patches = self.patch_embedding(minivlm.vision.vit.patchify(pixel_values, self.config.patch_size))
        x = self.norm_before(embed(self, patches, self.class_token.expand(len(patches), 1, -1)))
        for block in self.blocks:
            x = block(x)
        return x

    return forward


@mistake("class token at the end", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    embed = lambda self, patches, token: torch.cat([patches, token], dim=1) + self.positions
    patch.setattr(VisionTransformer, "forward", vision_with(embed))


@mistake("class token has no position", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    embed = lambda self, patches, token: torch.cat([token, patches + self.positions[1:]], dim=1)
    patch.setattr(VisionTransformer, "forward", vision_with(embed))


@mistake("vision positions shifted by one", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    set_tensor(loaded.model.vision.positions, loaded.model.vision.positions.detach().roll(1, 0))


@mistake("text positions shifted by one", ("right: text block 0", *TEXT, *LOGITS), VISION)
def _(patch, loaded):
    set_tensor(loaded.model.text.positions, loaded.model.text.positions.detach().roll(1, 0))


@mistake("text positions forgotten", ("right: text block 0", *TEXT, *LOGITS), VISION)
def _(patch, loaded):
    set_tensor(loaded.model.text.positions, 0.0)


@mistake("positions counted from the first token that is kept", ("left: text block 0", "left: text pooled"), TEXT[:1])
def _(patch, loaded):
    def forward(self, ids, keep=None):
        where = torch.arange(ids.shape[1]) if keep is None else (keep.int().cumsum(1) - 1).clamp(min=0)
        x = self.token_embedding(ids) + self.positions[where]
        mask = None if keep is None else minivlm.language.text_encoder.causal_mask(keep)
        for block in self.blocks:
            x = block(x, causal=True, mask=mask)
        return self.norm_after(x)

    patch.setattr(TextEncoder, "forward", forward)


def patchify_with(pattern: str) -> Callable:
    return lambda pixel_values, patch_size: rearrange(pixel_values, pattern, p=patch_size, q=patch_size)


@mistake("patches column by column", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    patch.setattr(minivlm.vision.vit, "patchify", patchify_with("b c (h p) (w q) -> b (w h) (c p q)"))


@mistake("patches transposed inside", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    patch.setattr(minivlm.vision.vit, "patchify", patchify_with("b c (h p) (w q) -> b (h w) (c q p)"))


@mistake("channels last inside a patch", ("vision block 0", *VISION, *LOGITS), TEXT)
def _(patch, loaded):
    patch.setattr(minivlm.vision.vit, "patchify", patchify_with("b c (h p) (w q) -> b (h w) (p q c)"))


# --- pooling, projection, logits


@mistake("text pooled at the last position", ("right: text pooled", "right: text features", "lesson: logits"), VISION)
def _(patch, loaded):
    patch.setattr(TextEncoder, "pool", lambda self, features, ids: features[:, -1])


@mistake("text pooled at its start", (*TEXT, *LOGITS), VISION)
def _(patch, loaded):
    patch.setattr(TextEncoder, "pool", lambda self, features, ids: features[:, 0])


@mistake("text pooled at the last end-of-text token", ("right: text pooled",), VISION, (ODD_GRID, LEGACY))
def _(patch, loaded):
    def pool(self, features, ids):
        eot = ids.max() if self.config.eot_id is None else self.config.eot_id
        end = ids.shape[1] - 1 - (ids == eot).int().flip(1).argmax(1)
        return features[torch.arange(len(ids)), end]

    patch.setattr(TextEncoder, "pool", pool)


@mistake("the highest id ends a text although the config names one", TEXT, VISION)
def _(patch, loaded):
    loaded.model.text.config = dataclasses.replace(loaded.model.text.config, eot_id=None)


@mistake("token 2 ends a text, as a literal reader of the config thinks", TEXT, VISION, (LEGACY,))
def _(patch, loaded):
    loaded.model.text.config = dataclasses.replace(loaded.model.text.config, eot_id=2)


@mistake("mean over patches for the class token", ("lesson: image_embeds", "lesson: logits"), TEXT)
def _(patch, loaded):
    def embed_image(self, pixel_values):
        return F.normalize(
            self.image_projection(self.vision.norm_after(self.vision(pixel_values)[:, 1:].mean(1))), dim=-1
        )

    patch.setattr(CLIP, "embed_image", embed_image)


@mistake("features not normalised", ("lesson: image_embeds", "right: image_embeds", *LOGITS), ("image features",))
def _(patch, loaded):
    patch.setattr(F, "normalize", lambda x, dim=-1: x)


@mistake("normalised before the projection, not after", ("lesson: image_embeds", "lesson: logits"), ("image features",))
def _(patch, loaded):
    def embed_image(self, pixel_values):
        return self.image_projection(F.normalize(self.vision.norm_after(self.vision(pixel_values)[:, 0]), dim=-1))

    patch.setattr(CLIP, "embed_image", embed_image)


@mistake("image projection read the other way round", ("image features", *LOGITS), TEXT)
def _(patch, loaded):
    weight = loaded.model.image_projection.weight
    set_tensor(weight, weight.detach().reshape(weight.shape[1], weight.shape[0]).T.clone())


@mistake("log-scale not exponentiated", LOGITS, (*VISION, *TEXT))
def _(patch, loaded):
    set_tensor(loaded.model.log_scale, math.log(loaded.model.log_scale.item()))


@mistake("no scale", LOGITS, (*VISION, *TEXT))
def _(patch, loaded):
    set_tensor(loaded.model.log_scale, 0.0)


@mistake("scale divides", LOGITS, (*VISION, *TEXT))
def _(patch, loaded):
    set_tensor(loaded.model.log_scale, -loaded.model.log_scale.item())


@mistake("logits transposed", ("lesson: logits",), (*VISION, *TEXT))
def _(patch, loaded):
    forward = CLIP.forward
    patch.setattr(CLIP, "forward", lambda self, pixels, ids: forward(self, pixels, ids).T)


def loss_with(patch: pytest.MonkeyPatch, loss: Callable) -> None:
    for module in (minivlm.models.clip, minivlm.checkpoints.clip):
        patch.setattr(module, "contrastive_loss", loss)


@mistake(
    "loss in one direction only", ("lesson: loss", "right: loss", "left: loss"), ("lesson: logits", *VISION, *TEXT)
)
def _(patch, loaded):
    loss_with(patch, lambda logits: F.cross_entropy(logits, torch.arange(len(logits))))


@mistake("loss of both directions not halved", ("lesson: loss", "right: loss", "left: loss"), ("lesson: logits", *TEXT))
def _(patch, loaded):
    target = torch.arange(3)
    loss_with(patch, lambda logits: F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda m: m.name)
def test_it_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


def test_a_missing_key_bias_cannot_be_seen_in_outputs(tmp_path):
    """Softmax ignores a shift: the reason for the test below."""

    def plant(loaded):
        for block in (*loaded.model.vision.blocks, *loaded.model.text.blocks):
            width = block.attention.out.in_features
            set_tensor(block.attention.qkv.bias[width : 2 * width], 0.0)

    check(ODD_GRID, tmp_path, plant)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table: also what no output shows."""
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model = checkpoints.load(tmp_path).model
    vision, text = reference.vision_model, reference.text_model
    pairs = [
        (model.log_scale, reference.logit_scale),
        (model.image_projection.weight, reference.visual_projection.weight),
        (model.text_projection.weight, reference.text_projection.weight),
        (model.vision.class_token, vision.embeddings.class_embedding),
        (model.vision.patch_embedding.weight, vision.embeddings.patch_embedding.weight.flatten(1)),
        (model.vision.positions, vision.embeddings.position_embedding.weight),
        (model.text.positions, text.embeddings.position_embedding.weight),
        (model.text.token_embedding.weight, text.embeddings.token_embedding.weight),
    ]
    layers = [(model.vision.norm_before, vision.pre_layrnorm), (model.vision.norm_after, vision.post_layernorm)]
    layers += [(model.text.norm_after, text.final_layer_norm)]
    for ours, theirs in ((model.vision, vision), (model.text, text)):
        for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=True):
            layers += [(block.norm_1, layer.layer_norm1), (block.norm_2, layer.layer_norm2)]
            layers += [(block.attention.out, layer.self_attn.out_proj)]
            layers += [(block.mlp[0], layer.mlp.fc1), (block.mlp[2], layer.mlp.fc2)]
            q, k, v = layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj
            pairs += zip(block.attention.qkv.weight.chunk(3), (q.weight, k.weight, v.weight), strict=True)
            pairs += zip(block.attention.qkv.bias.chunk(3), (q.bias, k.bias, v.bias), strict=True)
    pairs += [pair for a, b in layers for pair in ((a.weight, b.weight), (a.bias, b.bias))]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in reference.parameters())
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)
