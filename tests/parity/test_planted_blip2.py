"""Would the parity tests notice? Mistakes that people make with a BLIP-2, each planted, each seen.

Those inside a LLaMA and in placing images among words are planted in `test_planted_decoder.py` and `test_planted_llava.py`.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import minivlm.checkpoints.blip2_models
import minivlm.language.opt
import minivlm.models.blip2
import minivlm.models.blip2_stage1
import minivlm.vision.vit
from minivlm import checkpoints
from minivlm.connectors.qformer import QFormer, QFormerBlock, itc_mask, itg_mask
from minivlm.language.generate import generate
from minivlm.language.opt import OPT, OPTBlock
from minivlm.models.blip2 import BLIP2
from minivlm.models.blip2_stage1 import Matcher
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.transformer import QuickGELU
from minivlm.vision.vit import VisionTransformer
from tests.parity.cases.blip2 import CASES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor

STAGE2, WITH_LLAMA, MATCHER, PLACES = CASES
SPEAKING, MATCHING = (STAGE2, WITH_LLAMA), (MATCHER, PLACES)
LAYERS = ("qformer: layer 0", "qformer: layer 2")
LOGITS = ("right: logits", "left: logits", "lesson: logits")
LOSSES = ("right: loss", "left: loss", "lesson: loss")
ALL = (*LOGITS, *LOSSES)
FOUND = (*LAYERS, "connector", *ALL)
WRITTEN = ("generated", "generated to eos")
ITM = ("itm: logits", "itm: texts'", "itm: text", "lesson: match")
ITC = ("itc: logits", "itc: texts'", "lesson: cosine", "lesson: similarity")

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, STAGE2)


# --- vision encoder


@mistake("LayerNorm eps 1e-5 for the config's", ("vision", "connector"), (), (STAGE2,))
def _(patch, loaded):
    for module in loaded.model.vision.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@mistake("quick_gelu for gelu", ("vision", *FOUND), (), SPEAKING)
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        block.mlp[1] = QuickGELU()


@mistake("a norm before the layers, as in CLIP", ("vision", *FOUND))
def _(patch, loaded):
    loaded.model.vision.norm_before = nn.LayerNorm(loaded.config.vision.width, 1e-6)


@mistake("patches without a bias, as in CLIP", ("vision", *FOUND), (), SPEAKING)
def _(patch, loaded):
    set_tensor(loaded.model.vision.patch_embedding.bias, 0.0)


@mistake("no norm after the last layer", ("vision", *FOUND), (), SPEAKING)
def _(patch, loaded):
    loaded.model.vision.norm_after = nn.Identity()


@mistake("that norm twice", ("vision", *FOUND))
def _(patch, loaded):
    right = BLIP2.see
    patch.setattr(BLIP2, "see", lambda self, x: self.vision.norm_after(right(self, x)))


@mistake("the last layer but one", ("vision", *FOUND), (), SPEAKING)
def _(patch, loaded):
    right = VisionTransformer.forward
    patch.setattr(VisionTransformer, "forward", lambda self, x, skip_layers=0: right(self, x, 1))


@mistake("no class token", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    right = QFormer.forward
    patch.setattr(QFormer, "forward", lambda self, image=None, *more: right(self, image[:, 1:], *more))


# --- Q-Former


def with_block(patch, forward):
    """Another `QFormerBlock.forward`."""
    patch.setattr(QFormerBlock, "forward", forward)


@mistake("queries without a norm before layer 0", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    loaded.model.qformer.norm_before = nn.Identity()


@mistake("LayerNorm eps 1e-5 for 1e-12", (*LAYERS, "connector"), ("vision",))
def _(patch, loaded):
    for module in loaded.model.qformer.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@mistake("relu for gelu", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.mlp[1] = nn.ReLU()


@mistake("tanh gelu for gelu", (*LAYERS, "connector"), ("vision",), SPEAKING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.mlp[1] = nn.GELU(approximate="tanh")


@mistake("pre-norm for post-norm", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    def forward(self, queries, text, image, mask):
        x = queries + self.attention(self.norm_1(queries))
        if self.looks:
            x = x + self.cross(self.norm_2(x), self.cross.keys_values(image))
        return x + self.mlp(self.norm_3(x)), text

    with_block(patch, forward)


@mistake("the image is looked at before the queries talk", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    def forward(self, queries, text, image, mask):
        if self.looks:
            queries = self.norm_2(queries + self.cross(queries, self.cross.keys_values(image)))
        queries = self.norm_1(queries + self.attention(queries))
        return self.norm_3(queries + self.mlp(queries)), text

    with_block(patch, forward)


@mistake("every layer that can look does not", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.looks = False


@mistake("only layer 0 looks", ("connector", *ALL), ("vision", "qformer: layer 0"), SPEAKING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks[1:]:
        block.looks = False


@mistake("odd layers look", FOUND, ("vision",))
def _(patch, loaded):
    blocks = loaded.model.qformer.blocks
    blocks[1].cross, blocks[1].norm_2, blocks[1].looks = blocks[0].cross, blocks[0].norm_2, True
    blocks[0].looks = False


@mistake("keys and values change places", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    right = CrossAttention.keys_values
    seen = loaded.config.vision.width

    def wrong(self, x):
        k, v = right(self, x)
        return (v, k) if x.shape[-1] == seen else (k, v)

    patch.setattr(CrossAttention, "keys_values", wrong)


@mistake("queries have positions", FOUND, ("vision",))
def _(patch, loaded):
    positions = 0.1 * torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    set_tensor(loaded.model.qformer.queries, loaded.model.qformer.queries + positions)


@mistake("queries see only those before them", FOUND, ("vision",), SPEAKING)
def _(patch, loaded):
    right = QFormer.forward

    def causal(self, image=None, ids=None, mask=None):
        many = self.config.queries
        return right(self, image, ids, torch.ones(len(image), many, many).tril().bool())

    patch.setattr(QFormer, "forward", causal)


@mistake("the queries in reverse", ("connector", *LOGITS), ("vision",), SPEAKING)
def _(patch, loaded):
    right = BLIP2.embed_image
    patch.setattr(BLIP2, "embed_image", lambda self, x: right(self, x).flip(1))


@mistake("one token, the mean of the queries", ("connector", *ALL), ("vision", *LAYERS), SPEAKING)
def _(patch, loaded):
    right = BLIP2.embed_image


    def mean(self, x):
        found = right(self, x)
        return found.mean(dim=1, keepdim=True).expand_as(found)

    patch.setattr(BLIP2, "embed_image", mean)


@mistake("no bias in the linear layer", ("connector", *ALL), ("vision", *LAYERS), SPEAKING)
def _(patch, loaded):
    set_tensor(loaded.model.connector.bias, 0.0)


@mistake("gelu after the linear layer", ("connector", *ALL), ("vision", *LAYERS), SPEAKING)
def _(patch, loaded):
    loaded.model.connector = nn.Sequential(loaded.model.connector, nn.GELU())


@mistake("the images in reverse", ("connector", *LOGITS), ("vision",), SPEAKING)
def _(patch, loaded):
    right = BLIP2.embed_image
    patch.setattr(BLIP2, "embed_image", lambda self, x: right(self, x).flip(0))


@mistake("queries after the text's first word", LOGITS, ("vision", "connector"), SPEAKING)
def _(patch, loaded):
    right = minivlm.models.blip2.splice
    later = lambda embeddings, places, features: right(embeddings, places.roll(1, dims=1), features)
    patch.setattr(minivlm.models.blip2, "splice", later)


# --- OPT


@mistake("positions without their offset", ALL, ("vision", "connector"))
def _(patch, loaded):
    patch.setattr(minivlm.language.opt, "OFFSET", 0)


@mistake("positions count padding", ("left: logits", "left: loss"), ("connector", "right: logits", "lesson: logits"))
def _(patch, loaded):
    right = OPT.features

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if embeddings is not None and positions is None and cache is None:
            positions = torch.arange(embeddings.shape[1]).expand(embeddings.shape[:2])
        return right(self, ids, embeddings, keep, positions, cache)

    patch.setattr(OPT, "features", features)


@mistake("positions start anew after the prompt", WRITTEN, ALL)
def _(patch, loaded):
    right = OPT.features

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if cache and cache[0].length:
            positions = torch.zeros(ids.shape, dtype=torch.long)
        return right(self, ids, embeddings, keep, positions, cache)

    patch.setattr(OPT, "features", features)


@mistake("positions added to words alone", ALL, ("vision", "connector"))
def _(patch, loaded):
    right, image = OPT.features, []

    def embed(self, ids, pixel_values=None):
        image[:] = [ids == self.config.image_id]
        return right_embed(self, ids, pixel_values)

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if embeddings is not None and cache is None:
            kept = torch.ones(embeddings.shape[:2], dtype=torch.bool) if keep is None else keep
            at = (kept.cumsum(1) - 1).clamp(min=0)
            embeddings = embeddings - self.positions(at + 2) * image[0][..., None]
        return right(self, ids, embeddings, keep, positions, cache)

    right_embed = BLIP2.embed
    patch.setattr(BLIP2, "embed", embed)
    patch.setattr(OPT, "features", features)


@mistake("gelu for relu", ALL, ("vision", "connector"))
def _(patch, loaded):
    for block in loaded.model.language.blocks:
        block.mlp[1] = nn.GELU()


@mistake("OPT's LayerNorm eps 1e-6 for 1e-5", LOGITS, ("vision", "connector"))
def _(patch, loaded):
    for module in loaded.model.language.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


@mistake("no norm after OPT's last layer", ALL, ("vision", "connector", "right: block 1"))
def _(patch, loaded):
    loaded.model.language.norm = nn.Identity()


@mistake("post-norm in OPT, as its 350M has it", ALL, ("vision", "connector"))
def _(patch, loaded):
    def forward(self, x, mask, cache=None):
        answers = self.attention.keys_values(x)
        answers = answers if cache is None else cache.append(*answers)
        x = self.norm_1(x + self.attention(x, answers, mask))
        return self.norm_2(x + self.mlp(x))

    patch.setattr(OPTBlock, "forward", forward)


@mistake("words written by another matrix", LOGITS, ("vision", "connector", "right: block 1"))
def _(patch, loaded):
    patch.setattr(OPT, "logits", lambda self, x: F.linear(x, self.embedding.weight.roll(1, 0)))


# --- masks, loss, writing


@mistake("padding mask missing", ("left: logits", "left: loss"), ("right: logits", "lesson: logits"), SPEAKING)
def _(patch, loaded):
    for kind in (type(loaded.model.language),):
        right = kind.features

        def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None, right=right):
            return right(self, ids, embeddings, keep if cache else None, positions, cache)

        patch.setattr(kind, "features", features)


@mistake("loss on all words", ("lesson: loss",), LOGITS, SPEAKING)
def _(patch, loaded):
    right = BLIP2.loss
    patch.setattr(BLIP2, "loss", lambda self, batch: right(self, batch._replace(labels=batch.ids)))


@mistake("labels shifted by the number of queries", ("lesson: loss",), LOGITS, SPEAKING)
def _(patch, loaded):
    right, many = BLIP2.loss, loaded.config.image_tokens
    moved = lambda self, batch: right(self, batch._replace(labels=batch.labels.roll(-many, 1)))
    patch.setattr(BLIP2, "loss", moved)


@mistake("rows go on after eos", ("generated to eos",), ("generated", *ALL), SPEAKING)
def _(patch, loaded):
    ignoring = lambda model, eos=None, **how: generate(model, **how)
    patch.setattr(minivlm.models.blip2, "generate", ignoring)


@mistake("the image is forgotten when writing", WRITTEN, ALL, SPEAKING)
def _(patch, loaded):
    ids_alone = lambda self, ids, pixel_values=None, keep=None, **how: generate(self.language, ids, keep, **how)
    patch.setattr(BLIP2, "generate", ids_alone)


# --- retrieval


@mistake("ITM: queries and text do not see each other", ITM, ITC, MATCHING)
def _(patch, loaded):
    for module in (minivlm.models.blip2_stage1, minivlm.checkpoints.blip2_models):
        patch.setattr(module, "itm_mask", itc_mask)


@mistake("ITM: the text does not see ahead", ITM, ITC, MATCHING)
def _(patch, loaded):
    for module in (minivlm.models.blip2_stage1, minivlm.checkpoints.blip2_models):
        patch.setattr(module, "itm_mask", itg_mask)


@mistake("ITM: padding is seen", ITM, ITC, MATCHING)
def _(patch, loaded):
    right = minivlm.models.blip2_stage1.itm_mask
    for module in (minivlm.models.blip2_stage1, minivlm.checkpoints.blip2_models):
        patch.setattr(module, "itm_mask", lambda queries, keep: right(queries, torch.ones_like(keep)))


@mistake("ITM: the first query alone is asked", ("lesson: match",), (*ITC, "itm: logits"), MATCHING)
def _(patch, loaded):
    judge = lambda self, image, ids, keep=None: self.match_head(
        self.qformer(image, ids, minivlm.models.blip2_stage1.itm_mask(self.config.qformer.queries, self.keep(ids)))[0][:, 0]
    )
    patch.setattr(Matcher, "judge", judge)


@mistake("ITM: no for yes", ("lesson: match",), (*ITC, "itm: logits"), MATCHING)
def _(patch, loaded):
    wrong = lambda self, x, ids: self.judge(self.see(x), ids).softmax(dim=-1)[:, 0]
    patch.setattr(Matcher, "match", wrong)


@mistake("ITC: the mean over queries", ITC, (*ITM, "itc: image", "itc: text"), MATCHING)
def _(patch, loaded):
    mean = lambda image, text: torch.einsum("b q e, k e -> b k q", image, text).mean(-1)
    for module in (minivlm.models.blip2_stage1, minivlm.checkpoints.blip2_models):
        patch.setattr(module, "similarity", mean)
    patch.setattr("tests.parity.cases.blip2.similarity", mean)


@mistake("ITC: the first query alone", ITC, (*ITM, "itc: image", "itc: text"), MATCHING)
def _(patch, loaded):
    first = lambda image, text: image[:, 0] @ text.T
    for module in (minivlm.models.blip2_stage1, minivlm.checkpoints.blip2_models):
        patch.setattr(module, "similarity", first)
    patch.setattr("tests.parity.cases.blip2.similarity", first)


@mistake("ITC: scaled by a temperature", ("itc: logits",), (*ITM, "itc: image", "lesson: cosine"), MATCHING)
def _(patch, loaded):
    right = minivlm.models.blip2_stage1.similarity
    patch.setattr(minivlm.checkpoints.blip2_models, "similarity", lambda image, text: right(image, text) / 0.07)


@mistake("ITC: no unit vectors", ("itc: image", "itc: text", *ITC), ITM, MATCHING)
def _(patch, loaded):
    patch.setattr(F, "normalize", lambda x, dim: x)


@mistake("ITC: padding is seen", ("itc: text", *ITC), (*ITM, "itc: image"), MATCHING)
def _(patch, loaded):
    right = QFormer.forward

    def seen(self, image=None, ids=None, mask=None):
        return right(self, image, ids, None if image is None else mask)

    patch.setattr(QFormer, "forward", seen)


@mistake("ITC: the text sees the queries", ("itc: text", *ITC), (*ITM, "itc: image"), MATCHING)
def _(patch, loaded):
    def embed_text(self, ids, keep=None):
        images = torch.zeros(len(ids), 3, 15, 15)
        mask = minivlm.models.blip2_stage1.itm_mask(self.config.qformer.queries, self.keep(ids))
        return F.normalize(self.text_projection(self.qformer(self.see(images), ids, mask)[1][:, 0]), dim=-1)

    patch.setattr(Matcher, "embed_text", embed_text)


@mistake("ITC: the last token for [CLS]", ("itc: text", *ITC), (*ITM, "itc: image"), MATCHING)
def _(patch, loaded):
    def embed_text(self, ids, keep=None):
        _, text = self.qformer(ids=ids, mask=self.keep(ids)[:, None])
        last = self.keep(ids).sum(1) - 1
        return F.normalize(self.text_projection(text[torch.arange(len(ids)), last]), dim=-1)

    patch.setattr(Matcher, "embed_text", embed_text)


@mistake("text without positions", (*ITM, "itc: text", *ITC), ("itc: image",), MATCHING)
def _(patch, loaded):
    set_tensor(loaded.model.qformer.positions, 0.0)


@mistake("positions counted after the queries", (*ITM, "itc: text", *ITC), ("itc: image",), MATCHING)
def _(patch, loaded):
    set_tensor(loaded.model.qformer.positions, loaded.model.qformer.positions.roll(-2, 0))


@mistake("text without a norm before layer 0", (*ITM, "itc: text", *ITC), ("itc: image",), MATCHING)
def _(patch, loaded):
    right = QFormer.embed
    norm = loaded.model.qformer.norm_before
    backwards = lambda self, ids: (right(self, ids) - norm.bias) / norm.weight
    patch.setattr(QFormer, "embed", backwards)


@mistake("one MLP for queries and text: the queries'", (*ITM, "itc: text", *ITC), ("itc: image",), MATCHING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.text_mlp, block.text_norm = block.mlp, block.norm_3


@mistake("one MLP for queries and text: the text's", (*ITM, "itc: image", *ITC), ("itc: text",), MATCHING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.mlp, block.norm_3 = block.text_mlp, block.text_norm


@mistake("the text's MLP with the queries' norm", (*ITM, "itc: text", *ITC), ("itc: image",), MATCHING)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.text_norm = block.norm_3


@mistake("the text looks at the image too", ITM, ITC, MATCHING)
def _(patch, loaded):
    right = QFormerBlock.forward

    def forward(self, queries, text, image, mask):
        if not (self.looks and image is not None and text.shape[1]):
            return right(self, queries, text, image, mask)
        many = queries.shape[1]
        x = torch.cat([queries, text], dim=1)
        x = self.norm_1(x + self.attention(x, mask=mask))
        x = self.norm_2(x + self.cross(x, self.cross.keys_values(image)))
        queries, text = x[:, :many], x[:, many:]
        return self.norm_3(queries + self.mlp(queries)), self.text_norm(text + self.text_mlp(text))

    patch.setattr(QFormerBlock, "forward", forward)


def test_names_are_not_used_twice():
    assert len({planted.name for planted in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda m: m.name)
def test_it_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("case", SPEAKING, ids=str)
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
    assert (others["generated"] != rows).any(dim=1).sum() >= 2
    for side in ("right", "left"):
        assert (others[f"{side}: logits"] - written[f"{side}: logits"]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("case", MATCHING, ids=str)
def test_which_query_fits_best_differs(case):
    """A maximum over queries in which one always wins would say little."""
    found = case.theirs(case.build(), case.inputs())
    best = torch.einsum("bqe,ke->bkq", found["itc: image"], found["itc: text"]).argmax(-1)
    assert len(best.unique()) >= 2
    assert (found["itm: logits"][:1] - found["itm: logits"][1:]).abs().min() > 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table. Of these, no output tells of the key biases (a softmax does not see what is
    added to all its scores) and of the rows of OPT's positions that padding has.
    """
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model = checkpoints.load(tmp_path).model
    tower, qformer = reference.vision_model, reference.qformer
    pairs = [
        (model.vision.class_token, tower.embeddings.class_embedding[0, 0]),
        (model.vision.patch_embedding.weight, tower.embeddings.patch_embedding.weight.flatten(1)),
        (model.vision.patch_embedding.bias, tower.embeddings.patch_embedding.bias),
        (model.vision.positions, tower.embeddings.position_embedding[0]),
        (model.qformer.queries, reference.query_tokens[0]),
    ]
    both = [(model.vision.norm_after, tower.post_layernorm), (model.qformer.norm_before, qformer.layernorm)]
    for block, layer in zip(model.vision.blocks, tower.encoder.layers, strict=True):
        both += [
            (block.norm_1, layer.layer_norm1),
            (block.attention.qkv, layer.self_attn.qkv),
            (block.attention.out, layer.self_attn.projection),
            (block.norm_2, layer.layer_norm2),
            (block.mlp[0], layer.mlp.fc1),
            (block.mlp[2], layer.mlp.fc2),
        ]
    for block, layer in zip(model.qformer.blocks, qformer.encoder.layer, strict=True):
        inside = layer.attention.attention
        pairs += stacked(block.attention.qkv, inside.query, inside.key, inside.value)
        both += [
            (block.attention.out, layer.attention.output.dense),
            (block.norm_1, layer.attention.output.LayerNorm),
            (block.mlp[0], layer.intermediate_query.dense),
            (block.mlp[2], layer.output_query.dense),
            (block.norm_3, layer.output_query.LayerNorm),
        ]
        if block.looks:
            inside = layer.crossattention.attention
            pairs += stacked(block.cross.kv, inside.key, inside.value)
            both += [
                (block.cross.q, inside.query),
                (block.cross.out, layer.crossattention.output.dense),
                (block.norm_2, layer.crossattention.output.LayerNorm),
            ]
        if case in MATCHING:
            both += [
                (block.text_mlp[0], layer.intermediate.dense),
                (block.text_mlp[2], layer.output.dense),
                (block.text_norm, layer.output.LayerNorm),
            ]
    if case in MATCHING:
        pairs += [
            (model.qformer.embedding.weight, reference.embeddings.word_embeddings.weight),
            (model.qformer.positions, reference.embeddings.position_embeddings.weight),
        ]
        both += [
            (model.image_projection, reference.vision_projection),
            (model.text_projection, reference.text_projection),
            (model.match_head, reference.itm_head),
        ]
    else:
        both += [(model.connector, reference.language_projection)]
    if case is STAGE2:
        decoder = reference.language_model.model.decoder
        pairs += [
            (model.language.embedding.weight, decoder.embed_tokens.weight),
            (model.language.positions.weight, decoder.embed_positions.weight),
        ]
        both += [(model.language.norm, decoder.final_layer_norm)]
        for block, layer in zip(model.language.blocks, decoder.layers, strict=True):
            inside = layer.self_attn
            pairs += stacked(block.attention.kv, inside.k_proj, inside.v_proj)
            both += [
                (block.attention.q, inside.q_proj),
                (block.attention.out, inside.out_proj),
                (block.norm_1, layer.self_attn_layer_norm),
                (block.norm_2, layer.final_layer_norm),
                (block.mlp[0], layer.fc1),
                (block.mlp[2], layer.fc2),
            ]
    pairs += [(getattr(a, kind), getattr(b, kind)) for a, b in both for kind in ("weight", "bias")]
    parts = [model.language, reference.language_model] if case is WITH_LLAMA else []  # as in test_planted_decoder
    left_out = [sum(p.numel() for p in part.parameters()) for part in parts] or [0, 0]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in model.parameters()) - left_out[0]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in reference.parameters()) - left_out[1]
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)


def stacked(ours: nn.Module, *theirs: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (getattr(ours, kind), torch.cat([getattr(part, kind) for part in theirs])) for kind in ("weight", "bias")
    ]


def test_a_key_bias_cannot_be_seen(tmp_path):
    """Which is why the test above looks at tensors: without it, everything computed is the same."""

    def without_key_biases(loaded):
        for module in loaded.model.modules():
            if isinstance(module, CrossAttention):
                set_tensor(module.kv.bias[: len(module.kv.bias) // 2], 0.0)
        for block in [*loaded.model.vision.blocks, *loaded.model.qformer.blocks]:
            width = block.attention.out.out_features
            set_tensor(block.attention.qkv.bias[width : 2 * width], 0.0)

    check(STAGE2, tmp_path / "c", without_key_biases)
