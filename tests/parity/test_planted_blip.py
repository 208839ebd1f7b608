"""Would the parity tests notice? Mistakes that people make with a BLIP, each planted, each seen."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

import minivlm.checkpoints.blip
import minivlm.checkpoints.blip_models
import minivlm.language.bert
import minivlm.models.blip
import minivlm.vision.vit
from minivlm import checkpoints
from minivlm.checkpoints.blip_models import Captioner
from minivlm.language.bert import Bert, BertBlock
from minivlm.models.blip import BLIP
from minivlm.nn.attention import Attention
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.transformer import QuickGELU
from tests.parity.cases.blip import CASES, SEP, SIDES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor

CAPTIONER, FILTER, ANSWERS, _, OTHER_FILTER = CASES
SEEN = ("vision block 0", "vision")
CAPTIONS = (*(f"{side}: {what}" for side in SIDES for what in ("block 0", "block 1", "logits", "loss")), "lesson: loss")
ITC = (*(f"{side}: itc{what}" for side in SIDES for what in ("", " text")), "lesson: itc")
ITM = (*(f"{side}: itm{what}" for side in SIDES for what in ("", " text")), "lesson: itm", "lesson: match")
ITC_TEXT, ITM_TEXT = tuple(f"{side}: itc text" for side in SIDES), tuple(f"{side}: itm text" for side in SIDES)
QUESTIONS = tuple(f"{side}: question block {i}" for side in SIDES for i in range(2))
READ = ("answer block 0", "answer block 1", "logits", "loss", "loss of labels alone", "lesson: loss")

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, CAPTIONER)


# --- the vision encoder


@mistake("LayerNorm eps 1e-6 for 1e-5 in the vision encoder", ("vision block 0", "vision"))
def _(patch, loaded):
    for module in loaded.model.vision.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


@mistake("CLIP's quick_gelu in the vision encoder", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    for block in loaded.model.vision.blocks:
        block.mlp[1] = QuickGELU()


@mistake("patches without their bias", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    set_tensor(loaded.model.vision.patch_embedding.bias, 0.0)


@mistake("CLIP's norm before the blocks", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    loaded.model.vision.norm_before = nn.LayerNorm(24)


@mistake("no norm after the blocks", ("vision", *CAPTIONS), ("vision block 2",))
def _(patch, loaded):
    loaded.model.vision.norm_after = nn.Identity()


@mistake("the norm after the blocks twice, as in the reference's pooled output", ("vision", *CAPTIONS), ("vision block 2",))
def _(patch, loaded):
    norm = loaded.model.vision.norm_after
    loaded.model.vision.norm_after = nn.Sequential(norm, norm)


@mistake("no positions", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    set_tensor(loaded.model.vision.positions, 0.0)


@mistake("the class token's position at the end", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    set_tensor(loaded.model.vision.positions, loaded.model.vision.positions.roll(-1, 0))


@mistake("patches column by column", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    right = minivlm.vision.vit.patchify

    def columns(x, size):
        side = x.shape[-1] // size
        return right(x, size).unflatten(1, (side, side)).transpose(1, 2).flatten(1, 2)

    patch.setattr(minivlm.vision.vit, "patchify", columns)


@mistake("fused projection of the vision encoder read as (heads, 3, width)", (*SEEN, *CAPTIONS))
def _(patch, loaded):
    def forward(self, x, causal=False, mask=None):
        q, k, v = rearrange(self.qkv(x), "b t (nh three hd) -> three b nh t hd", three=3, nh=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b nh t hd -> b t (nh hd)"))

    patch.setattr(Attention, "forward", forward)


@mistake("the image's class token is not looked at", CAPTIONS, SEEN)
def _(patch, loaded):
    right = Bert.look
    patch.setattr(Bert, "look", lambda self, seen: right(self, seen[:, 1:]))


# --- the text model's blocks


def words(attention, x, cache):
    """Keys and values of the words so far."""
    return attention.keys_values(x) if cache is None else cache.append(*attention.keys_values(x))


def block_with(patch, forward):
    patch.setattr(BertBlock, "forward", forward)


@mistake("pre-norm for post-norm", CAPTIONS, SEEN)
def _(patch, loaded):
    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        y = self.norm_1(x)
        x = x + self.attention(y, words(self.attention, y, cache), mask)
        x = x + self.cross(self.norm_2(x), seen, seen_mask)
        return x + self.mlp(self.norm_3(x))

    block_with(patch, forward)


@mistake("the sum is not normalised, only what is added", CAPTIONS, SEEN)
def _(patch, loaded):
    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        x = x + self.norm_1(self.attention(x, words(self.attention, x, cache), mask))
        x = x + self.norm_2(self.cross(x, seen, seen_mask))
        return x + self.norm_3(self.mlp(x))

    block_with(patch, forward)


@mistake("cross-attention before self-attention", CAPTIONS, SEEN)
def _(patch, loaded):
    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        x = self.norm_2(x + self.cross(x, seen, seen_mask))
        x = self.norm_1(x + self.attention(x, words(self.attention, x, cache), mask))
        return self.norm_3(x + self.mlp(x))

    block_with(patch, forward)


@mistake("cross-attention beside the MLP, not before it", CAPTIONS, SEEN)
def _(patch, loaded):
    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        x = self.norm_1(x + self.attention(x, words(self.attention, x, cache), mask))
        return self.norm_3(x + self.mlp(x) + self.norm_2(x + self.cross(x, seen, seen_mask)))

    block_with(patch, forward)


@mistake("cross-attention in every second block", CAPTIONS[1:3], (*SEEN, "right: block 0", "left: block 0"))
def _(patch, loaded):
    right = BertBlock.forward
    last = loaded.model.decoder.blocks[1]

    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        return right(self, x, mask, None if self is last else seen, seen_mask, cache)

    block_with(patch, forward)


@mistake("the norms of self- and cross-attention change places", CAPTIONS, SEEN)
def _(patch, loaded):
    for block in loaded.model.decoder.blocks:
        block.norm_1, block.norm_2 = block.norm_2, block.norm_1


@mistake("LayerNorm eps 1e-5 for the config's in the text model", (*ITC_TEXT, *ITM_TEXT), SEEN, (OTHER_FILTER,))
def _(patch, loaded):
    for module in loaded.model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@mistake("LayerNorm eps 1e-5 for 1e-12 in the text model", ("right: block 0", "left: block 0"), SEEN)
def _(patch, loaded):
    for module in loaded.model.decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


@mistake("tanh gelu in the text model", (*CAPTIONS[:3], *CAPTIONS[4:7]), SEEN)
def _(patch, loaded):
    for block in loaded.model.decoder.blocks:
        block.mlp[1] = nn.GELU(approximate="tanh")


@mistake("no norm of the embeddings", CAPTIONS, SEEN)
def _(patch, loaded):
    loaded.model.decoder.norm_before = nn.Identity()


@mistake("positions not added", CAPTIONS, SEEN)
def _(patch, loaded):
    set_tensor(loaded.model.decoder.positions, 0.0)


@mistake("positions begin at 2, as RoBERTa's", CAPTIONS, SEEN)
def _(patch, loaded):
    set_tensor(loaded.model.decoder.positions, loaded.model.decoder.positions.roll(-2, 0))


# --- attention


def attention_with(patch, pattern="b n (two nh hd) -> two b nh n hd", out="b nh t hd -> b t (nh hd)", **options):
    def keys_values(self, seen):
        return tuple(rearrange(self.kv(seen), pattern, two=2, nh=self.heads))

    def forward(self, x, keys_values, mask=None):
        q = rearrange(self.q(x), "b t (nh hd) -> b nh t hd", nh=self.heads)
        mask = None if mask is None else mask[:, None]
        return self.out(rearrange(F.scaled_dot_product_attention(q, *keys_values, attn_mask=mask, **options), out))

    patch.setattr(CrossAttention, "keys_values", keys_values)
    patch.setattr(CrossAttention, "forward", forward)


@mistake("keys and values change places", CAPTIONS, SEEN)
def _(patch, loaded):
    right = CrossAttention.keys_values
    patch.setattr(CrossAttention, "keys_values", lambda self, seen: right(self, seen)[::-1])


@mistake("fused keys and values read as (heads, 2, width)", CAPTIONS, SEEN)
def _(patch, loaded):
    attention_with(patch, "b n (nh two hd) -> two b nh n hd")


@mistake("heads joined as (width, heads)", CAPTIONS, SEEN)
def _(patch, loaded):
    attention_with(patch, out="b nh t hd -> b t (hd nh)")


@mistake("scores not divided by the root of the head's width", CAPTIONS, SEEN)
def _(patch, loaded):
    attention_with(patch, scale=1.0)


@mistake("one head for four", CAPTIONS, SEEN)
def _(patch, loaded):
    for block in loaded.model.decoder.blocks:
        block.attention.heads = block.cross.heads = 1


@mistake("query bias of the cross-attention missing", CAPTIONS[:3], SEEN)
def _(patch, loaded):
    set_tensor(loaded.model.decoder.blocks[0].cross.q.bias, 0.0)


@mistake("value bias of the cross-attention missing", CAPTIONS[:3], SEEN)
def _(patch, loaded):
    set_tensor(loaded.model.decoder.blocks[0].cross.kv.bias[20:], 0.0)


# --- the three modes and their masks


@mistake("the decoder is bidirectional", CAPTIONS, SEEN)
def _(patch, loaded):
    patch.setattr(minivlm.language.bert, "reading_mask", lambda keep, causal: keep[:, None].expand(-1, keep.shape[1], -1))


@mistake("the encoder is causal", (*ITC, *ITM), SEEN, (FILTER,))
def _(patch, loaded):
    right = minivlm.language.bert.reading_mask
    patch.setattr(minivlm.language.bert, "reading_mask", lambda keep, causal: right(keep, True))


@mistake("padding is read", ("right: itc", "left: itc", "lesson: itc", "lesson: itm"), SEEN, (FILTER,))
def _(patch, loaded):
    patch.setattr(minivlm.language.bert, "reading_mask", lambda keep, causal: torch.ones_like(keep)[:, None])


@mistake("padding on the left is read by the decoder", ("left: block 0", "left: logits"), ("right: logits", *SEEN))
def _(patch, loaded):
    right = minivlm.language.bert.reading_mask
    patch.setattr(minivlm.language.bert, "reading_mask", lambda keep, causal: right(torch.ones_like(keep), causal))


@mistake("ITC looks at the image", ITC, (*SEEN, *ITM), (FILTER,))
def _(patch, loaded):
    right = Bert.forward
    image = []

    def see(self, pixel_values):
        image[:] = [self.vision.norm_after(self.vision(pixel_values))]
        return image[0]

    patch.setattr(BLIP, "see", see)

    def forward(self, ids, seen=None, **how):
        return right(self, ids, image[0] if seen is None else seen, **how)

    patch.setattr(Bert, "forward", forward)


@mistake("ITM does not look at the image", ITM, (*SEEN, *ITC), (FILTER,))
def _(patch, loaded):
    right = Bert.forward
    patch.setattr(Bert, "forward", lambda self, ids, seen=None, **how: right(self, ids, **how))


@mistake("every text is judged with the image of another", ITM, (*SEEN, *ITC), (FILTER,))
def _(patch, loaded):
    right = Bert.look
    patch.setattr(Bert, "look", lambda self, seen: right(self, seen.roll(1, 0)))


@mistake("the decoder looks at the image, not at the question", READ, (*SEEN, *QUESTIONS), (ANSWERS,))
def _(patch, loaded):
    image, right = [], Bert.look

    def look(self, seen):
        image.append(seen)
        return right(self, image[-2] if self is loaded.model.decoder else seen)

    patch.setattr(Bert, "look", look)
    read = Bert.forward

    def forward(self, ids, seen=None, causal=False, keep=None, seen_keep=None, cache=None, positions=None):
        return read(self, ids, seen, causal, keep, None, cache, positions)

    patch.setattr(Bert, "forward", forward)


@mistake("the padding of questions is looked at", READ[:4], (*SEEN, *QUESTIONS, "loss of labels alone"), (ANSWERS,))
def _(patch, loaded):
    right = BertBlock.forward
    block_with(patch, lambda self, x, mask, seen, seen_mask, cache: right(self, x, mask, seen, None, cache))


# --- first tokens


@mistake("[ENC] is not put in front", ("lesson: itm", "lesson: match"), ("lesson: itc", "right: itm"), (FILTER,))
def _(patch, loaded):
    patch.setattr(minivlm.models.blip, "begin", lambda ids, first: ids)


@mistake("[ENC] is appended in front, nothing overwritten", ("lesson: itm",), ("lesson: itc", "right: itm"), (FILTER,))
def _(patch, loaded):
    right = BLIP.ground
    patch.setattr(BLIP, "ground", lambda self, tokens, ids: right(self, tokens, torch.cat([ids[:, :1], ids], dim=1)))


@mistake("captions begin with [CLS]", ("lesson: loss",), ("right: loss", "right: logits"))
def _(patch, loaded):
    patch.setattr(minivlm.models.blip, "begin", lambda ids, first: ids)


@mistake("the last token of a prompt is kept", ("generated from a prompt",), ("generated", "right: logits"))
def _(patch, loaded):
    right = Captioner.generate

    def generate(self, pixels, ids=None, mask=None, max_new_tokens=20):
        longer = [None if x is None else torch.cat([x, x[:, -1:]], dim=1) for x in (ids, mask)]
        return right(self, pixels, *longer, max_new_tokens)

    patch.setattr(Captioner, "generate", generate)


@mistake("the feature is the last token's, as CLIP's", ("right: itc", "left: itc", "lesson: itc"), ITC_TEXT, (FILTER,))
def _(patch, loaded):
    last = lambda projection, tokens: F.normalize(projection(tokens[:, -1]), dim=-1)
    for module in (minivlm.models.blip, minivlm.checkpoints.blip_models):
        patch.setattr(module, "feature", last)


@mistake("features are not of length one", ("right: itc", "lesson: itc"), (*ITC_TEXT, *ITM), (FILTER,))
def _(patch, loaded):
    long = lambda projection, tokens: projection(tokens[:, 0])
    for module in (minivlm.models.blip, minivlm.checkpoints.blip_models):
        patch.setattr(module, "feature", long)


@mistake("image and text projections change places", ("right: itc", "lesson: itc"), (*ITC_TEXT, *ITM), (FILTER,))
def _(patch, loaded):
    model = loaded.model
    for kind in ("weight", "bias"):
        a, b = getattr(model.image_projection, kind), getattr(model.text_projection, kind)
        least = min(a.shape[-1], b.shape[-1])
        kept = a.detach().clone()
        set_tensor(a[..., :least], b[..., :least].detach().clone())
        set_tensor(b[..., :least], kept[..., :least])


@mistake("no and yes change places", ("right: itm", "lesson: itm", "lesson: match"), (*ITM_TEXT, *ITC), (FILTER,))
def _(patch, loaded):
    head = loaded.model.match_head
    for p in (head.weight, head.bias):
        set_tensor(p, p.detach().flip(0))


# --- words and loss


@mistake("scores without the bias of each word", ("right: logits", "right: loss"), ("right: block 1", *SEEN))
def _(patch, loaded):
    set_tensor(loaded.model.decoder.head_bias, 0.0)


@mistake("scores without the layer before them", ("right: logits", "right: loss"), ("right: block 1", *SEEN))
def _(patch, loaded):
    loaded.model.decoder.head = nn.Identity()


@mistake("no norm in the head", ("right: logits", "right: loss"), ("right: block 1", *SEEN))
def _(patch, loaded):
    loaded.model.decoder.head[2] = nn.Identity()


@mistake("no smoothing", ("right: loss", "left: loss", "lesson: loss"), ("right: logits",))
def _(patch, loaded):
    right = Bert.next_token_loss
    patch.setattr(Bert, "next_token_loss", lambda self, features, labels, smoothing=0.0: right(self, features, labels))


@mistake("smoothing over all words but the right one", ("right: loss", "lesson: loss"), ("right: logits",))
def _(patch, loaded):
    right = Bert.next_token_loss
    share = 53 / 52  # the right word's part goes to the others as well

    def loss(self, features, labels, smoothing):
        return right(self, features, labels, smoothing * share)

    patch.setattr(Bert, "next_token_loss", loss)


@mistake("labels not shifted", ("right: loss", "lesson: loss"), ("right: logits",))
def _(patch, loaded):
    def loss(self, features, labels, smoothing=0.0):
        wanted = labels != -100
        return F.cross_entropy(self.logits(features[wanted]), labels[wanted], label_smoothing=smoothing)

    patch.setattr(Bert, "next_token_loss", loss)


@mistake("padding is learned", ("lesson: loss",), ("right: loss",))
def _(patch, loaded):
    def writing(self, seen, ids, seen_keep=None):
        ids = minivlm.models.blip.begin(ids, self.config.dec_id)
        features = self.decoder(ids, seen, True, self.keep(ids), seen_keep)
        return self.decoder.next_token_loss(features, ids, self.config.smoothing)

    patch.setattr(BLIP, "_writing", writing)


@mistake("what is cached is forgotten", ("generated", "lesson: generated"), ("right: logits",))
def _(patch, loaded):
    right = BertBlock.forward

    def forward(self, x, mask=None, seen=None, seen_mask=None, cache=None):
        if cache is not None:
            cache.length += x.shape[1]  # positions go on, keys and values do not
            mask = None if x.shape[1] == 1 else mask
        return right(self, x, mask, seen, seen_mask)

    block_with(patch, forward)


@mistake("positions stay where they are while writing", ("generated", "lesson: generated"), ("right: logits",))
def _(patch, loaded):
    right = Bert.forward

    def forward(self, ids, seen=None, causal=False, keep=None, seen_keep=None, cache=None, positions=None):
        if positions is not None and ids.shape[1] == 1:
            positions = torch.zeros_like(positions)
        return right(self, ids, seen, causal, keep, seen_keep, cache, positions)

    patch.setattr(Bert, "forward", forward)


@mistake("padding is counted while writing", ("generated from padded prompts",), ("generated", "left: logits"))
def _(patch, loaded):
    right = Bert.forward
    patch.setattr(Bert, "forward", lambda self, *given: right(self, *given[:6]))


@mistake("padding is read while writing", ("generated from padded prompts",), ("generated", "left: logits"))
def _(patch, loaded):
    right = Bert.generate
    patch.setattr(Bert, "generate", lambda self, ids, seen, keep=None, **how: right(self, ids, seen, None, **how))


# --- loading


@mistake("the encoder's tensors in the decoder", READ, (*SEEN, *QUESTIONS), (ANSWERS,))
def _(patch, loaded):
    loaded.model.decoder.blocks.load_state_dict(loaded.model.encoder.blocks.state_dict())


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda planted: planted.name)
def test_each_planted_mistake_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("case", [CAPTIONER, ANSWERS], ids=str)
def test_what_is_written_could_show_a_mistake(case):
    """Different tokens for each image; and of the captions some end early, others do not."""
    written = case.theirs(case.build(), case.inputs())["generated" if case is CAPTIONER else "right: generated"].long()
    assert len({tuple(row) for row in written.tolist()}) == len(written)
    assert all(len(set(row)) > 2 for row in written.tolist())
    if case is CAPTIONER:
        ended = (written == SEP).any(dim=1)
        assert ended.any()
        assert not ended.all()


def test_planting_nothing_changes_nothing(tmp_path):
    check(CAPTIONER, tmp_path / "c", lambda loaded: None)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table. Of these, no output tells of the key biases (a softmax does not see what is
    added to all its scores).
    """
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model, tower = checkpoints.load(tmp_path).model, reference.vision_model
    pairs = [
        (model.vision.class_token, tower.embeddings.class_embedding[0, 0]),
        (model.vision.patch_embedding.weight, tower.embeddings.patch_embedding.weight.flatten(1)),
        (model.vision.patch_embedding.bias, tower.embeddings.patch_embedding.bias),
        (model.vision.positions, tower.embeddings.position_embedding[0]),
    ]
    both = [(model.vision.norm_after, tower.post_layernorm)]
    for block, layer in zip(model.vision.blocks, tower.encoder.layers, strict=True):
        both += [
            (block.norm_1, layer.layer_norm1),
            (block.attention.qkv, layer.self_attn.qkv),
            (block.attention.out, layer.self_attn.projection),
            (block.norm_2, layer.layer_norm2),
            (block.mlp[0], layer.mlp.fc1),
            (block.mlp[2], layer.mlp.fc2),
        ]
    berts = []
    if hasattr(reference, "text_encoder"):
        berts.append((model.encoder, reference.text_encoder))
    if hasattr(reference, "text_decoder"):
        berts.append((model.decoder, reference.text_decoder.bert))
        head = reference.text_decoder.cls.predictions
        both += [(model.decoder.head[0], head.transform.dense), (model.decoder.head[2], head.transform.LayerNorm)]
        pairs.append((model.decoder.head_bias, head.bias))
    for bert, there in berts:
        pairs += [
            (bert.embedding.weight, there.embeddings.word_embeddings.weight),
            (bert.positions, there.embeddings.position_embeddings.weight),
        ]
        both.append((bert.norm_before, there.embeddings.LayerNorm))
        for block, layer in zip(bert.blocks, there.encoder.layer, strict=True):
            for ours, norm, theirs in (
                (block.attention, block.norm_1, layer.attention),
                (block.cross, block.norm_2, layer.crossattention),
            ):
                key, value = theirs.self.key, theirs.self.value
                pairs += [
                    (getattr(ours.kv, kind), torch.cat([getattr(key, kind), getattr(value, kind)]))
                    for kind in ("weight", "bias")
                ]
                both += [(ours.q, theirs.self.query), (ours.out, theirs.output.dense), (norm, theirs.output.LayerNorm)]
            both += [
                (block.mlp[0], layer.intermediate.dense),
                (block.mlp[2], layer.output.dense),
                (block.norm_3, layer.output.LayerNorm),
            ]
    if hasattr(reference, "itm_head"):
        both += [
            (model.image_projection, reference.vision_proj),
            (model.text_projection, reference.text_proj),
            (model.match_head, reference.itm_head),
        ]
    pairs += [(getattr(a, kind), getattr(b, kind)) for a, b in both for kind in ("weight", "bias")]
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in reference.parameters())
    assert sum(a.numel() for a, _ in pairs) == sum(p.numel() for p in model.parameters())
    for ours, theirs in pairs:
        assert torch.equal(ours, theirs)


def test_a_key_bias_cannot_be_seen(tmp_path):
    """Which is why the test above looks at tensors: without any, everything computed is the same."""

    def without_key_biases(loaded):
        for block in loaded.model.vision.blocks:
            set_tensor(block.attention.qkv.bias[24:48], 0.0)
        for block in loaded.model.decoder.blocks:
            for part in (block.attention, block.cross):
                set_tensor(part.kv.bias[:20], 0.0)

    check(CAPTIONER, tmp_path / "c", without_key_biases)
