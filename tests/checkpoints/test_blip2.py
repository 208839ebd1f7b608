"""The formats of BLIP-2, InstructBLIP and OPT: config.json both ways, released sizes, folders, and the classes that take the
reference's arguments.
"""

import dataclasses
import inspect
import json

import pytest
import torch
import transformers

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, blip2, instructblip, opt
from minivlm.checkpoints.settings import Settings
from minivlm.connectors.qformer import QFormerConfig
from minivlm.language.decoder import Decoder
from minivlm.language.opt import OPT, OPTConfig
from minivlm.models.blip2 import BLIP2, BLIP2Config
from minivlm.models.blip2_stage1 import Matcher, MatcherConfig, Stage1
from minivlm.models.instructblip import InstructBLIP, InstructBLIPConfig
from minivlm.vision.vit import ViTConfig
from tests.checkpoints.helpers import edit_config, edit_tensors
from tests.models.test_blip2 import IMAGE, LLAMA_SIZES, MUTE, OPT_SIZES, READS, STAGE_1, VISION, captions, shaken
from tests.models.test_blip2_stage1 import pairs
from tests.models.test_instructblip import batch

LANGUAGES = {
    "opt": OPT_SIZES,
    "untied opt": dataclasses.replace(OPT_SIZES, tied=False),
    "llama": LLAMA_SIZES,
    "tied llama": dataclasses.replace(LLAMA_SIZES, tied=True, kv_heads=1, eps=1e-5),
    "qwen2": dataclasses.replace(LLAMA_SIZES, qkv_bias=True),
}
SPEAKING = {
    **{f"blip2, {name}": BLIP2Config(VISION, MUTE, sizes, IMAGE) for name, sizes in LANGUAGES.items()},
    **{f"instructblip, {name}": InstructBLIPConfig(VISION, READS, sizes, IMAGE) for name, sizes in LANGUAGES.items()},
    "blip2, another": BLIP2Config(
        dataclasses.replace(VISION, eps=1e-4), dataclasses.replace(MUTE, cross_every=3, eps=1e-5), OPT_SIZES, 0
    ),
}
MATCHER = MatcherConfig(VISION, READS, embedding=10, pad_id=3)
REFERENCES = {
    BLIP2Config: transformers.Blip2ForConditionalGeneration,
    InstructBLIPConfig: transformers.InstructBlipForConditionalGeneration,
    MatcherConfig: transformers.Blip2ForImageTextRetrieval,
}
MODELS = {BLIP2Config: BLIP2, InstructBLIPConfig: InstructBLIP, MatcherConfig: Matcher}


def small(config) -> torch.nn.Module:
    torch.manual_seed(0)
    return shaken(MODELS[type(config)](config))


def rebuilt(sizes: dict, like):
    """The config of what `checkpoints.read` gives, as a notebook makes it."""
    parts = {"vision": ViTConfig(**sizes["vision"]), "qformer": QFormerConfig(**sizes["qformer"])}
    if "language" in sizes:
        parts["language"] = type(like.language)(**sizes["language"])
    return type(like)(**sizes | parts)


def assert_same(ours: dict, other: dict) -> None:
    assert ours.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())


def from_pretrained(kind: type, path) -> torch.nn.Module:
    reference, info = kind.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), info
    return reference.eval()


# --- folders


@torch.no_grad()
@pytest.mark.parametrize("name", SPEAKING)
def test_round_trip_and_the_reference_computes_the_same(name, tmp_path):
    """Ours first: a model that a notebook trained, in the reference's hands."""
    config, path = SPEAKING[name], tmp_path / "model"
    lesson = small(config)
    checkpoints.save(lesson, path)
    sizes, state = checkpoints.read(path)
    assert rebuilt(sizes, config) == config
    assert_same(lesson.state_dict(), state)
    loaded = checkpoints.load(path)
    assert type(loaded.model) is MODELS[type(config)]
    assert type(loaded.config) is type(config)
    reference = from_pretrained(REFERENCES[type(config)], path)
    given = batch()
    ids, pixels = torch.where(given.ids == IMAGE, config.image_id, given.ids)[-1:], given.pixel_values[3:]
    if isinstance(config, InstructBLIPConfig):
        asked, keep = given.asked[3:], given.asked_keep[3:]
        theirs = reference(pixels, asked, keep.long(), ids).logits
        ours = lesson(ids, pixels, None, asked, keep)
        assert torch.equal(loaded(pixels, asked, keep.long(), ids).logits, ours)
    else:
        theirs, ours = reference(pixels, ids).logits, lesson(ids, pixels)
        assert torch.equal(loaded(pixels, ids).logits, ours)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert reference.generation_config.eos_token_id is None, "it would stop at a token of its own"


@torch.no_grad()
def test_the_matcher_in_the_references_hands(tmp_path):
    lesson, given = small(MATCHER), pairs()
    ids = torch.where(given.ids == 0, 3, given.ids)
    checkpoints.save(lesson, tmp_path / "model")
    sizes, state = checkpoints.read(tmp_path / "model")
    assert rebuilt(sizes, MATCHER) == MATCHER
    assert_same(lesson.state_dict(), state)
    reference = from_pretrained(transformers.Blip2ForImageTextRetrieval, tmp_path / "model")
    mask = (ids != 3).long()
    theirs = reference(given.pixel_values, ids, mask, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(lesson.judge(lesson.see(given.pixel_values), ids), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(lesson(given.pixel_values, ids), reference(given.pixel_values, ids, mask).logits_per_image)


@pytest.mark.parametrize("name", ["opt", "untied opt"])
def test_an_opt_alone(name, tmp_path):
    torch.manual_seed(0)
    lesson, ids = shaken(OPT(LANGUAGES[name])), torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(0))
    checkpoints.save(lesson, tmp_path / "opt")
    sizes, state = checkpoints.read(tmp_path / "opt")
    assert OPTConfig(**sizes) == lesson.config
    assert_same(lesson.state_dict(), state)
    loaded, mask = checkpoints.load(tmp_path / "opt"), torch.ones_like(ids)
    mask[1, :3] = 0
    reference = from_pretrained(transformers.OPTForCausalLM, tmp_path / "opt")
    with torch.no_grad():
        ours, theirs = (model(ids, attention_mask=mask, labels=ids) for model in (loaded, reference))
        keep = mask.bool()
        torch.testing.assert_close(ours.logits[keep], theirs.logits[keep], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.loss, theirs.loss, atol=0.5, rtol=0)  # what padding predicts differs
        ours, theirs = (model(ids, labels=ids) for model in (loaded, reference))
        torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-5, rtol=0)
        written = loaded.generate(ids, mask, 5)
        assert torch.equal(written, reference.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False))


def test_a_decoder_is_no_opt(tmp_path):
    checkpoints.save(Decoder(LLAMA_SIZES), tmp_path / "llama")
    assert type(checkpoints.load(tmp_path / "llama").model) is Decoder


def test_a_copy_of_the_words_in_old_files(tmp_path):
    checkpoints.save(small(SPEAKING["blip2, opt"]), tmp_path / "model")
    words = "language_model.model.decoder.embed_tokens.weight"
    edit_tensors(tmp_path / "model", lambda t: t.update({"language_model.lm_head.weight": t[words].clone()}))
    assert_same(checkpoints.read(tmp_path / "model")[1], small(SPEAKING["blip2, opt"]).state_dict())
    edit_tensors(tmp_path / "model", lambda t: t["language_model.lm_head.weight"].add_(1))
    with pytest.raises(CheckpointError, match="lm_head.weight' should be .* once more, and differs"):
        checkpoints.read(tmp_path / "model")


@pytest.mark.parametrize("name", ["blip2, opt", "instructblip, llama"])
def test_damaged_tensors(tmp_path, name):
    path = tmp_path / "model"

    def refused(words, **changes):
        checkpoints.save(small(SPEAKING[name]), path)
        edit_tensors(path, lambda t: [t.pop(n) if x is None else t.update({n: x}) for n, x in changes.items()])
        with pytest.raises(CheckpointError, match=words):
            checkpoints.read(path)

    refused(r"1 tensors missing and 0 unexpected .*'query_tokens' \(1, 3, 16\)", query_tokens=None)
    refused(r"'query_tokens' has shape \(1, 4, 16\); expected \(1, 3, 16\)", query_tokens=torch.ones(1, 4, 16))
    key = "qformer.encoder.layer.1.crossattention.attention.key.weight"
    refused(f"0 tensors missing and 1 unexpected.*'{key}'", **{key: torch.ones(16, 12)})


def test_a_stage_1_is_not_released_whole(tmp_path):
    first = shaken(Stage1(STAGE_1))
    with pytest.raises(CheckpointError, match="no place"):
        checkpoints.save(first, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    checkpoints.save(first.matcher(), tmp_path / "model")
    assert_same(checkpoints.load(tmp_path / "model").model.state_dict(), first.matcher().state_dict())


def test_what_the_formats_have_no_place_for(tmp_path):
    reads = BLIP2(BLIP2Config(VISION, READS, OPT_SIZES, IMAGE))
    with pytest.raises(CheckpointError, match="qformer.vocab_size is 30, and in the released BLIP-2"):
        checkpoints.save(reads, tmp_path / "model")
    vision = dataclasses.replace(VISION, norm_before=True)
    with pytest.raises(CheckpointError, match="config.vision.norm_before is True, and the released format has no place"):
        checkpoints.save(BLIP2(BLIP2Config(vision, MUTE, OPT_SIZES, IMAGE)), tmp_path / "model")
    eps = dataclasses.replace(OPT_SIZES, eps=1e-6)
    with pytest.raises(CheckpointError, match="config.language.eps is 1e-06, and the released format has no place"):
        checkpoints.save(BLIP2(BLIP2Config(VISION, MUTE, eps, IMAGE)), tmp_path / "model")
    assert not list(tmp_path.iterdir())


# --- settings


@pytest.mark.parametrize("name", SPEAKING)
def test_settings_both_ways(name):
    config = SPEAKING[name]
    form = instructblip.FORMAT if isinstance(config, InstructBLIPConfig) else blip2.FORMATS[0]
    assert form.read_config(Settings(json.loads(json.dumps(form.write_config(config))), "x")) == config


@pytest.mark.parametrize(
    ("settings", "kind", "form"),
    [
        ({}, transformers.Blip2Config, blip2.FORMATS[0]),
        ({"text_config": {"model_type": "opt", "hidden_size": 64, "num_attention_heads": 4}}, transformers.Blip2Config, None),
        ({"qformer_config": {"hidden_size": 24}}, transformers.Blip2Config, None),
        ({"vision_config": {"image_size": 28}}, transformers.Blip2Config, None),
        ({"text_config": {"model_type": "llama"}}, transformers.Blip2Config, None),
        ({}, transformers.InstructBlipConfig, instructblip.FORMAT),
        ({"text_config": {"model_type": "llama"}}, transformers.InstructBlipConfig, instructblip.FORMAT),
        ({"qformer_config": {"vocab_size": 9}}, transformers.InstructBlipConfig, instructblip.FORMAT),
        ({"qformer_config": {"use_qformer_text_input": True}}, transformers.Blip2Config, blip2.FORMATS[1]),
    ],
)
def test_defaults_are_the_references(settings, kind, form):
    """What a config.json leaves out is what the reference takes it to be."""
    form, whole = form or blip2.FORMATS[0], {"image_token_index": 5, **settings}
    theirs = kind(**json.loads(json.dumps(whole))).to_dict()
    assert form.read_config(Settings(whole, "x")) == form.read_config(Settings(theirs, "x"))


def test_opt_defaults_are_the_references():
    assert opt.read_config(Settings({}, "x")) == opt.read_config(Settings(transformers.OPTConfig().to_dict(), "x"))
    assert opt.FIXED.items() <= transformers.OPTConfig().to_dict().items()


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ((), {"image_token_index": None}, "image_token_index is None; expected one whole number"),
        ((), {"image_token_index": 30}, "image_id is 30; the vocabulary has ids 0 to 29"),
        ((), {"num_query_tokens": 0}, "num_query_tokens is 0; expected a whole number above 0"),
        ((), {"num_query_tokens": 3.0}, "num_query_tokens is 3.0"),
        ((), {"quantization_config": {"bits": 8}}, "quantization_config is"),
        ((), {"architectures": ["Blip2Model"]}, "not supported; supported: .*Blip2ForConditionalGeneration"),
        (("vision_config",), {"hidden_act": "quick_gelu"}, "vision_config: hidden_act is 'quick_gelu'"),
        (("vision_config",), {"qkv_bias": False}, "vision_config: qkv_bias is False"),
        (("vision_config",), {"patch_size": 5}, "image_size 12 is no multiple of patch_size 5"),
        (("qformer_config",), {"hidden_act": "relu"}, "qformer_config: hidden_act is 'relu'"),
        (("qformer_config",), {"num_attention_heads": 3}, "width 16 is no multiple of heads 3"),
        (("qformer_config",), {"use_qformer_text_input": True}, "use_qformer_text_input is True"),
        (("text_config",), {"model_type": "t5"}, "text_config: model_type is 't5'; .* decoders: opt, llama, qwen2"),
        (("text_config",), {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        (("text_config",), {"do_layer_norm_before": False}, "do_layer_norm_before is False"),
        (("text_config",), {"word_embed_proj_dim": 10}, "word_embed_proj_dim is 10"),
        (("text_config",), {"enable_bias": False}, "enable_bias is False"),
        (("text_config",), {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; expected true or false"),
        (("text_config",), {"num_attention_heads": 3}, "not a model that this course's OPT can be. width 20"),
    ],
)
def test_bad_settings(tmp_path, path, changes, words):
    checkpoints.save(small(SPEAKING["blip2, opt"]), tmp_path / "model")
    edit_config(tmp_path / "model", *path, **changes)
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match=words) as caught:
            door(tmp_path / "model")
    assert "model" in str(caught.value)


def test_bad_settings_of_a_matcher(tmp_path):
    checkpoints.save(small(MATCHER), tmp_path / "model")
    edit_config(tmp_path / "model", "qformer_config", use_qformer_text_input=False)
    with pytest.raises(CheckpointError, match="use_qformer_text_input is not true; a Q-Former that reads no text finds none"):
        checkpoints.read(tmp_path / "model")
    edit_config(tmp_path / "model", "qformer_config", use_qformer_text_input=True, pad_token_id=30)
    with pytest.raises(CheckpointError, match="pad_id is 30; the vocabulary has ids 0 to 29"):
        checkpoints.read(tmp_path / "model")


@pytest.mark.parametrize(
    ("config", "form"),
    [
        (BLIP2Config.opt_2_7b(), blip2.FORMATS[0]),
        (InstructBLIPConfig.vicuna_7b(), instructblip.FORMAT),
        (MatcherConfig(BLIP2Config.opt_2_7b().vision, QFormerConfig.bert_base(1408, 30523)), blip2.FORMATS[1]),
    ],
    ids=["opt 2.7b", "vicuna 7b", "matcher"],
)
def test_released_sizes(config, form):
    """On the meta device: every tensor of the reference, of the same shape, and no other."""
    settings = form.write_config(config)
    kind = REFERENCES[type(config)]
    with torch.device("meta"):
        reference = kind(kind.config_class(**json.loads(json.dumps(settings))))
        translated = form.table(config).to_theirs(form.model(config).state_dict())
    theirs = {name: tensor.shape for name, tensor in reference.state_dict().items()}
    if getattr(getattr(config, "language", None), "tied", False):
        del theirs["language_model.lm_head.weight"]
    assert {name: tensor.shape for name, tensor in translated.items()} == theirs


# --- the classes that take the reference's arguments


@pytest.mark.parametrize(
    ("config", "method"),
    [(config, method) for config in (SPEAKING["blip2, opt"], SPEAKING["instructblip, llama"]) for method in ("forward",)]
    + [(MATCHER, "forward"), (SPEAKING["instructblip, llama"], "get_image_features")],
)
def test_arguments_are_the_references(config, method):
    """In the same order, as far as they go."""
    form = next(form for form in checkpoints.FORMATS if form.model is MODELS[type(config)])
    ours = list(inspect.signature(getattr(form.wrapper, method)).parameters)
    theirs = list(inspect.signature(getattr(REFERENCES[type(config)], method)).parameters)
    assert [name for name in theirs if name in ours] == ours


IDS, PIXELS = captions().ids, captions().pixel_values
MASK = (IDS != 0).long()
ASKED = batch().asked


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"pixel_values": PIXELS[:4]}, ValueError, "places for 5 images .* and pixel_values has 4"),
        ({"pixel_values": torch.zeros(5, 3, 16, 16)}, ValueError, "pixel_values must have shape"),
        ({"pixel_values": PIXELS.to(torch.uint8)}, TypeError, "float tensor; got torch.uint8"),
        ({"input_ids": IDS.float()}, TypeError, "whole numbers; got torch.float32"),
        ({"input_ids": IDS.repeat(1, 3)}, ValueError, "33 columns, but the context holds 24"),
        ({"input_ids": torch.where(IDS == 9, 30, IDS)}, ValueError, "runs from 0 to 30"),
        ({"attention_mask": MASK[:, :3]}, ValueError, "attention_mask must have shape"),
        ({"attention_mask": MASK * 2}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"attention_mask": MASK.roll(5, 1)}, ValueError, r"attention_mask hides places of an image \(id 7\)"),
        ({"labels": IDS[:2]}, ValueError, "labels must have shape"),
    ],
)
@pytest.mark.parametrize("name", ["blip2, opt", "instructblip, llama"])
def test_what_they_refuse(name, given, error, words):
    config = SPEAKING[name]
    form = instructblip.FORMAT if isinstance(config, InstructBLIPConfig) else blip2.FORMATS[0]
    model = form.wrapper(small(config))
    arguments = {"pixel_values": PIXELS, "input_ids": IDS, "attention_mask": MASK, **given}
    if isinstance(config, InstructBLIPConfig):
        arguments["qformer_input_ids"] = ASKED[: len(arguments["pixel_values"])]
    with pytest.raises(error, match=words) as caught:
        model(**arguments)
    assert "jaxtyping" not in type(caught.value).__module__


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"qformer_input_ids": ASKED[:4]}, ValueError, "qformer_input_ids has 4 rows, and there are 5 images"),
        ({"qformer_input_ids": ASKED.float()}, TypeError, "qformer_input_ids must be a tensor of whole numbers"),
        ({"qformer_input_ids": ASKED + 29}, ValueError, "the Q-Former's vocabulary has ids 0 to 29"),
        ({"qformer_input_ids": ASKED.repeat(1, 3)}, ValueError, "12 columns, but the Q-Former's context holds 8"),
        ({"qformer_attention_mask": ASKED}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"input_ids": None}, ValueError, "input_ids is missing"),
    ],
)
def test_instructions_that_are_refused(given, error, words):
    model = instructblip.FORMAT.wrapper(small(SPEAKING["instructblip, llama"]))
    arguments = {"pixel_values": PIXELS, "input_ids": IDS, "qformer_input_ids": ASKED, **given}
    for call in (model, model.generate):
        with pytest.raises(error, match=words):
            call(**arguments)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"input_ids": pairs().ids[0]}, ValueError, r"input_ids must have shape \(B, T\)"),
        ({"input_ids": pairs().ids + 29}, ValueError, "the Q-Former's vocabulary has ids 0 to 29"),
        ({"attention_mask": torch.zeros(5, 6, dtype=torch.long)}, ValueError, "row 0: attention_mask hides the whole text"),
        ({"pixel_values": torch.zeros(5, 1, 12, 12)}, ValueError, "pixel_values must have shape"),
        (
            {"pixel_values": pairs().pixel_values[:3], "use_image_text_matching_head": True},
            ValueError,
            "one text for each image; got 3 images and 5 texts",
        ),
    ],
)
def test_what_the_matcher_refuses(given, error, words):
    model = blip2.FORMATS[1].wrapper(small(MATCHER))
    with pytest.raises(error, match=words):
        model(**{"pixel_values": pairs().pixel_values, "input_ids": pairs().ids, **given})


@torch.no_grad()
def test_the_matcher_compares_all_with_all():
    model = blip2.FORMATS[1].wrapper(small(MATCHER))
    found = model(pairs().pixel_values[:2], pairs().ids)
    assert (found.logits_per_image.shape, found.logits_per_text.shape) == ((2, 5), (5, 2))
    assert (found.image_embeds.shape, found.text_embeds.shape) == ((2, 3, 10), (5, 10))
