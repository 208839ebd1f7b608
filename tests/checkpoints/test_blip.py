"""BLIP's three formats: config.json both ways, released sizes and names, folders."""

import dataclasses

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, blip
from minivlm.checkpoints.settings import Settings
from minivlm.language.bert import BertConfig
from minivlm.models.blip import BLIP, BLIPConfig, Momentum, blip_vit
from minivlm.vision.vit import ViTConfig
from tests.checkpoints.helpers import edit_config, edit_tensors
from tests.parity.cases import blip as cases

CONFIG = BLIPConfig(
    blip_vit(image_size=12, patch_size=4, width=12, layers=2, heads=3, hidden=20, eps=1e-4),
    BertConfig(vocab_size=30, context=16, width=12, layers=2, heads=2, hidden=18, seen=12, eps=1e-6),
    enc_id=8,
    dec_id=7,
    sep_id=5,
    pad_id=1,
    tasks=("lm",),
    embedding=10,
    smoothing=0.2,
)
SORTS = {
    "captioner": CONFIG,
    "filter": dataclasses.replace(CONFIG, tasks=("itc", "itm")),
    "answers": dataclasses.replace(CONFIG, tasks=("vqa",)),
}
CLASSES = {
    "captioner": transformers.BlipForConditionalGeneration,
    "filter": transformers.BlipForImageTextRetrieval,
    "answers": transformers.BlipForQuestionAnswering,
}
FORMATS = dict(zip(CLASSES, blip.FORMATS, strict=True))

# What the published files say beyond the reference's own defaults.
BASE = {"text_config": {"num_attention_heads": 12}, "vision_config": {}}
LARGE = {
    "text_config": {"num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    },
}
ALONE = {"momentum": None, "smoothing": 0.0}
RELEASED = {
    "captioner, base": ("captioner", BLIPConfig.base(384, tasks=("lm",), **ALONE), BASE),
    "captioner, large": ("captioner", BLIPConfig.large(384, tasks=("lm",), **ALONE), LARGE),
    "filter, base": ("filter", BLIPConfig.base(384, tasks=("itc", "itm"), **ALONE), BASE),
    "filter, large": ("filter", BLIPConfig.large(384, tasks=("itc", "itm"), **ALONE), LARGE),
    "answers, base": ("answers", BLIPConfig.base(384, tasks=("vqa",), shared="nothing", **ALONE), BASE),
}


def small(config: BLIPConfig, seed: int = 0) -> BLIP:
    """A random BLIP in which no two parameters are alike."""
    torch.manual_seed(seed)
    model = BLIP(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def rebuilt(sizes: dict) -> BLIPConfig:
    """The config of what `checkpoints.read` gives, as a notebook makes it."""
    parts = {"vision": ViTConfig(**sizes["vision"]), "text": BertConfig(**sizes["text"])}
    return BLIPConfig(**sizes | parts)


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name):
    """Built on the meta device: the reference's parameters, each of the same shape."""
    kind, ours, published = RELEASED[name]
    with torch.device("meta"):
        model, reference = BLIP(ours), CLASSES[kind](transformers.BlipConfig(**published))
    translated = blip.table(ours).to_theirs(model.state_dict())
    twice = set(blip.table(ours).copies)
    theirs = {n: t.shape for n, t in reference.state_dict().items() if n not in twice}
    assert {n: t.shape for n, t in translated.items()} == theirs
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("name", RELEASED)
def test_published_configs_are_read_as_our_presets_and_written_as_they_are(name):
    kind, ours, published = RELEASED[name]
    assert FORMATS[kind].read_config(Settings({"model_type": "blip", **published}, "config.json")) == ours
    written = transformers.BlipConfig(**FORMATS[kind].write_config(ours)).to_dict()
    wanted = transformers.BlipConfig(**published).to_dict()
    for part, fields in (("vision_config", blip.VISION), ("text_config", blip.TEXT)):
        for field in fields:
            assert written[part][field.theirs] == wanted[part][field.theirs], (part, field)
    for theirs in (*blip.IDS, *blip.TEXT_FIXED, "label_smoothing", "encoder_hidden_size"):
        assert written["text_config"][theirs] == wanted["text_config"][theirs], theirs
    assert written["image_text_hidden_size"] == wanted["image_text_hidden_size"]


def test_defaults_are_the_references():
    """What a config.json leaves out is what the reference takes it to be."""
    theirs = transformers.BlipConfig().to_dict()
    for form in blip.FORMATS:
        assert form.read_config(Settings({}, "x")) == form.read_config(Settings(theirs, "x"))
    for fields, fixed, part in (
        (blip.VISION, blip.VISION_FIXED, "vision_config"),
        (blip.TEXT, blip.TEXT_FIXED, "text_config"),
    ):
        assert {field.theirs: field.default for field in fields}.items() <= theirs[part].items()
        assert fixed.items() <= theirs[part].items()
    assert {name: default for name, (_, default) in blip.IDS.items()}.items() <= theirs["text_config"].items()


@pytest.mark.parametrize("kind", SORTS)
def test_round_trip(kind, tmp_path):
    config = SORTS[kind]
    model = small(config)
    checkpoints.save(model, tmp_path / "blip")
    sizes, state = checkpoints.read(tmp_path / "blip")
    assert rebuilt(sizes) == dataclasses.replace(config, shared="nothing")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_theirs_ours_theirs_bit_by_bit(case, tmp_path):
    reference = case.build()
    reference.save_pretrained(tmp_path / "theirs")
    checkpoints.save(checkpoints.load(tmp_path / "theirs"), tmp_path / "ours", max_shard_size=20_000)
    again, info = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    theirs, ours = reference.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    a, b = reference.config.to_dict(), again.config.to_dict()
    for part in ("vision_config", "text_config"):
        for field in {*cases.SIZES[part], "hidden_act"} - {"eos_token_id"}:
            assert a[part][field] == b[part][field], field


@torch.no_grad()
@pytest.mark.parametrize("kind", SORTS)
def test_a_lesson_model_is_loaded_by_the_reference(kind, tmp_path):
    """Ours first: a part of what a notebook trained, in the reference's hands."""
    tasks, sharing = SORTS[kind].tasks, {"shared": "nothing"} if kind == "answers" else {}
    whole = dataclasses.replace(
        CONFIG, tasks=("itc", "itm", "lm"), shared="all but self-attention", momentum=Momentum(queue=8)
    )
    part = small(whole).only(*tasks, **sharing)
    checkpoints.save(part, tmp_path / "blip")
    reference = CLASSES[kind].from_pretrained(tmp_path / "blip").eval()
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[7, 9, 20, 5], [7, 11, 12, 5]])
    if kind == "captioner":
        theirs, ours = reference(pixels, ids).logits, part.decoder.logits(part.decoder(ids, part.see(pixels), True))
    elif kind == "filter":
        enc = torch.where(ids == 7, 8, ids)
        theirs, ours = reference(enc, pixels).itm_score, part.judge(part.see(pixels), ids)
    else:
        theirs = reference.generate(torch.where(ids == 7, 8, ids), pixels, max_new_tokens=4)[:, 1:]
        ours = part.generate(pixels, ids, max_new_tokens=theirs.shape[1])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_older_files(tmp_path):
    """With counted positions, and the matrix that writes words once more."""
    checkpoints.save(small(CONFIG), tmp_path / "blip")
    wanted = checkpoints.read(tmp_path / "blip")[1]

    def add(tensors):
        head = "text_decoder.cls.predictions."
        tensors[head + "decoder.weight"] = tensors["text_decoder.bert.embeddings.word_embeddings.weight"].clone()
        tensors[head + "decoder.bias"] = tensors[head + "bias"].clone()
        tensors["text_decoder.bert.embeddings.position_ids"] = torch.arange(16)[None]

    edit_tensors(tmp_path / "blip", add)
    read = checkpoints.read(tmp_path / "blip")[1]
    assert all(torch.equal(read[name], tensor) for name, tensor in wanted.items())
    edit_tensors(tmp_path / "blip", lambda tensors: tensors["text_decoder.cls.predictions.decoder.weight"].add_(1))
    words = r"'text_decoder.cls.predictions.decoder.weight' should be '.*word_embeddings.weight' once more, and differs"
    with pytest.raises(CheckpointError, match=words):
        checkpoints.read(tmp_path / "blip")


def test_the_filter_has_no_words_to_write(tmp_path):
    checkpoints.save(small(SORTS["filter"]), tmp_path / "blip")
    name = "text_decoder.cls.predictions.decoder.bias"
    edit_tensors(tmp_path / "blip", lambda tensors: tensors.update({name: torch.zeros(30)}))
    with pytest.raises(CheckpointError, match=f"1 unexpected.*'{name}'"):
        checkpoints.read(tmp_path / "blip")


def test_names_in_the_file_are_the_references(tmp_path):
    for kind, config in SORTS.items():
        checkpoints.save(small(config), tmp_path / "ours")
        CLASSES[kind].from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / kind)
        ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", kind))
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


# --- what is refused


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        (("vision_config",), {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'; this course's class is written for"),
        (("vision_config",), {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        (("vision_config",), {"image_size": [12, 12]}, r"image_size is \[12, 12\]; expected a whole number"),
        (("vision_config",), {"patch_size": 5}, "image_size 12 is no multiple of patch_size 5"),
        (("vision_config",), {"layer_norm_eps": 0}, "layer_norm_eps is 0; expected a number above 0"),
        (("text_config",), {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        (("text_config",), {"is_decoder": False}, "is_decoder is False"),
        (("text_config",), {"hidden_dropout_prob": 0.1}, "hidden_dropout_prob is 0.1"),
        (("text_config",), {"num_attention_heads": 5}, "width 12 is no multiple of heads 5"),
        (("text_config",), {"num_hidden_layers": "2"}, "num_hidden_layers is '2'; expected a whole number above 0"),
        (("text_config",), {"bos_token_id": None}, "bos_token_id is None; expected one whole number"),
        (("text_config",), {"bos_token_id": 30}, "dec_id is 30; the vocabulary has ids 0 to 29"),
        (("text_config",), {"enc_token_id": -1}, "enc_id is -1; the vocabulary has ids 0 to 29"),
        (("text_config",), {"label_smoothing": 1.0}, "label_smoothing is 1.0; expected a number from 0 to below 1"),
        (("text_config",), {"label_smoothing": True}, "label_smoothing is True"),
        ((), {"image_text_hidden_size": 0}, "image_text_hidden_size is 0; expected a whole number above 0"),
        ((), {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ((), {"text_config": 3}, "text_config is 3; expected an object"),
        ((), {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ((), {"architectures": ["BlipModel"]}, r"\['BlipModel'\] is not supported"),
        (("text_config",), {"hidden_size": 18}, "tensor 'text_decoder.*' has shape .*; expected"),
    ],
)
def test_bad_settings(tmp_path, path, changes, words):
    checkpoints.save(small(CONFIG), tmp_path / "blip")
    edit_config(tmp_path / "blip", *path, **changes)
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.load(tmp_path / "blip")
    assert "blip" in str(caught.value)


def test_answers_need_one_width():
    settings = {"text_config": {"hidden_size": 96}, "vision_config": {"hidden_size": 144}}
    with pytest.raises(CheckpointError, match="hidden_size is 144 in vision_config and 96 in text_config"):
        FORMATS["answers"].read_config(Settings(settings, "config.json"))
    assert FORMATS["captioner"].read_config(Settings(settings, "config.json")).text.seen == 144


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ("itc", "itm"), "momentum": Momentum(queue=8)}, r"has a slow copy .* Save model.only\('itc', 'itm'\)"),
        ({"temperature": 0.1}, "config.temperature is 0.1, and the released format has no place for it"),
        ({"tasks": ("vqa",), "shared": "all"}, "config.shared is 'all', and the released format has no place for it"),
        (
            {"vision": dataclasses.replace(CONFIG.vision, activation="quick_gelu")},
            "config.vision.activation is 'quick_gelu'",
        ),
        ({"vision": dataclasses.replace(CONFIG.vision, channels=1)}, "config.vision.channels is 1"),
        ({"tasks": ("itc", "itm", "lm")}, "a BLIP with this config cannot be saved in a released format; its formats, BlipFor"),
        ({"tasks": ("itc",)}, r"a BLIP with this config .* tasks=\('itc',\)"),
    ],
)
def test_what_the_formats_cannot_say_is_not_written(tmp_path, change, words):
    model = small(dataclasses.replace(CONFIG, **change))
    with pytest.raises(CheckpointError, match=words):
        checkpoints.save(model, tmp_path / "blip")
    assert not list(tmp_path.iterdir())
