"""Would the parity tests notice? Mistakes that people make with an InstructBLIP, each planted, each seen: only those of the
instruction. The others are planted in `test_planted_blip2.py`.
"""

import pytest
import torch
from torch import nn

import minivlm.models.instructblip
from minivlm import checkpoints
from minivlm.connectors.qformer import QFormer, QFormerBlock, itc_mask, itg_mask
from minivlm.models.blip2 import BLIP2
from minivlm.models.instructblip import InstructBLIP
from tests.parity.cases.instructblip import CASES
from tests.parity.harness import check
from tests.parity.planting import Mistake, assert_seen, registry, set_tensor

LLAMA, OPT = CASES
LAYERS = ("qformer: layer 0", "qformer: layer 1", "qformer: layer 2")
LOGITS = ("right: logits", "left: logits", "lesson: logits")
LOSSES = ("right: loss", "left: loss", "lesson: loss")
ALL = (*LAYERS, "connector", *LOGITS, *LOSSES)

MISTAKES: list[Mistake] = []
mistake = registry(MISTAKES, LLAMA)


def with_asked(patch, change):
    """Another instruction, given ids and mask."""
    right = InstructBLIP.embed_image

    def embed_image(self, pixel_values, asked=None, asked_keep=None):
        asked_keep = torch.ones_like(asked, dtype=torch.bool) if asked_keep is None else asked_keep
        return right(self, pixel_values, *change(asked, asked_keep))

    patch.setattr(InstructBLIP, "embed_image", embed_image)


def with_mask(patch, mask):
    patch.setattr(minivlm.models.instructblip, "itm_mask", mask)


@mistake("the instruction is given to the language model alone", ALL, ("vision",), CASES)
def _(patch, loaded):
    patch.setattr(InstructBLIP, "embed_image", lambda self, x, asked=None, asked_keep=None: BLIP2.embed_image(self, x))


@mistake("queries do not see the instruction", ALL, ("vision",), CASES)
def _(patch, loaded):
    with_mask(patch, itc_mask)


@mistake("the instruction is read causally, and not seen", ALL, ("vision",), CASES)
def _(patch, loaded):
    with_mask(patch, itg_mask)


@mistake("the instruction does not see the queries", ("qformer: layer 1", "connector", *LOGITS), ("vision", LAYERS[0]), CASES)
def _(patch, loaded):
    right = minivlm.models.instructblip.itm_mask

    def mask(queries, keep):
        sees = right(queries, keep)
        sees[:, queries:, :queries] = False
        return sees

    with_mask(patch, mask)


@mistake("padding of instructions is seen", (*LAYERS, "connector", "right: logits"), ("vision", "lesson: logits"), CASES)
def _(patch, loaded):
    with_asked(patch, lambda asked, keep: (asked, torch.ones_like(keep)))


@mistake("padding is what is kept", ALL, ("vision",), CASES)
def _(patch, loaded):
    with_asked(patch, lambda asked, keep: (asked, ~keep))


@mistake("the first instruction for all images", (*LAYERS, "connector", *LOGITS), ("vision",), CASES)
def _(patch, loaded):
    with_asked(patch, lambda asked, keep: (asked[:1].expand_as(asked), keep[:1].expand_as(keep)))


@mistake("instructions in reverse", (*LAYERS, "connector", *LOGITS), ("vision",), CASES)
def _(patch, loaded):
    with_asked(patch, lambda asked, keep: (asked.flip(0), keep.flip(0)))


@mistake("the text's outputs for the queries'", ("connector", *LOGITS, *LOSSES), ("vision", *LAYERS), CASES)
def _(patch, loaded):
    right = QFormer.forward

    def forward(self, image=None, ids=None, mask=None):
        queries, text = right(self, image, ids, mask)
        return torch.cat([queries, text], dim=1)[:, -queries.shape[1] :], text

    patch.setattr(QFormer, "forward", forward)


@mistake("instruction first, queries after it", ("connector", *LOGITS), ("vision", *LAYERS), CASES)
def _(patch, loaded):
    """As if the first outputs were taken of a sequence that begins with the text."""
    right = QFormer.forward

    def forward(self, image=None, ids=None, mask=None):
        queries, text = right(self, image, ids, mask)
        return torch.cat([text, queries], dim=1)[:, : queries.shape[1]], text

    patch.setattr(QFormer, "forward", forward)


@mistake("instructions without positions", ALL, ("vision",), CASES)
def _(patch, loaded):
    set_tensor(loaded.model.qformer.positions, 0.0)


@mistake("one MLP for queries and text", ("qformer: layer 1", "connector", *LOGITS), ("vision", LAYERS[0]), CASES)
def _(patch, loaded):
    for block in loaded.model.qformer.blocks:
        block.text_mlp, block.text_norm = block.mlp, block.norm_3


@mistake("the instruction looks at the image too", ("qformer: layer 1", "connector", *LOGITS), ("vision", LAYERS[0]), CASES)
def _(patch, loaded):
    right = QFormerBlock.forward

    def forward(self, queries, text, image, mask):
        if not self.looks:
            return right(self, queries, text, image, mask)
        many = queries.shape[1]
        x = torch.cat([queries, text], dim=1)
        x = self.norm_1(x + self.attention(x, mask=mask))
        x = self.norm_2(x + self.cross(x, self.cross.keys_values(image)))
        queries, text = x[:, :many], x[:, many:]
        return self.norm_3(queries + self.mlp(queries)), self.text_norm(text + self.text_mlp(text))

    patch.setattr(QFormerBlock, "forward", forward)


@mistake("instructions without a norm before layer 0", ALL, ("vision",), CASES)
def _(patch, loaded):
    right, norm = QFormer.embed, loaded.model.qformer.norm_before
    patch.setattr(QFormer, "embed", lambda self, ids: (right(self, ids) - norm.bias) / norm.weight)


@mistake("another word embedding", ALL, ("vision",), CASES)
def _(patch, loaded):
    set_tensor(loaded.model.qformer.embedding.weight, loaded.model.qformer.embedding.weight.roll(1, 0))


@mistake("asked is forgotten when writing", ("generated", "generated to eos"), ALL)
def _(patch, loaded):
    right = BLIP2.generate
    forgets = lambda self, ids, x=None, keep=None, asked=None, asked_keep=None, **how: right(self, ids, x, keep, **how)
    patch.setattr(InstructBLIP, "generate", forgets)


def test_names_are_not_used_twice():
    assert len({planted.name for planted in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize("planted", MISTAKES, ids=lambda m: m.name)
def test_it_is_seen(planted, tmp_path, monkeypatch):
    assert_seen(planted, tmp_path, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_compared_can_be_wrong(case):
    """Rows differ and end at different times; other images and other instructions give other texts."""
    reference, given = case.build(), case.inputs()
    written = case.theirs(reference, given)
    rows, ended = written["generated"], written["generated to eos"]
    assert all(len(set(row.tolist())) >= 4 for row in rows)
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)
    zeros = (ended == 0).sum(dim=1)
    assert zeros.max() > 0, "no row ends early"
    assert zeros.min() == 0, "all rows end early"
    for names in (["pixel_values"], ["asked", "asked_mask"]):
        others = case.theirs(reference, given | {name: given[name].roll(2, 0) for name in names})
        assert (others["generated"] != rows).any(), names
        assert (others["left: logits"] - written["left: logits"]).abs().max() > 0.05, names


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tensor_arrives_where_it_belongs(case, tmp_path):
    """Written out by hand, without the table, as far as names are others than BLIP-2's. No output tells of the last layer's
    MLP for text: only what the queries have found goes on.
    """
    reference = case.build()
    reference.save_pretrained(tmp_path)
    model, there = checkpoints.load(tmp_path).model.qformer, reference.qformer
    assert torch.equal(model.queries, reference.query_tokens[0])
    assert torch.equal(model.embedding.weight, there.embeddings.word_embeddings.weight)
    assert torch.equal(model.positions, there.embeddings.position_embeddings.weight)
    pairs: list[tuple[nn.Module, nn.Module]] = [(model.norm_before, there.embeddings.layernorm)]
    for block, layer in zip(model.blocks, there.encoder.layer, strict=True):
        pairs += [
            (block.mlp[0], layer.intermediate_query.dense),
            (block.mlp[2], layer.output_query.dense),
            (block.norm_3, layer.output_query.LayerNorm),
            (block.text_mlp[0], layer.intermediate.dense),
            (block.text_mlp[2], layer.output.dense),
            (block.text_norm, layer.output.LayerNorm),
        ]
    for a, b in pairs:
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)


def test_the_last_mlp_for_text_cannot_be_seen(tmp_path):
    def without(loaded):
        for part in (loaded.model.qformer.blocks[-1].text_mlp, loaded.model.qformer.blocks[-1].text_norm):
            for p in part.parameters():
                set_tensor(p, 0.0)

    check(LLAMA, tmp_path / "c", without)
