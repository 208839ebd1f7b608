"""CLIP's config.json, both ways, and the released sizes."""

import dataclasses
import json
import math

import pytest
import torch
import transformers

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, clip
from minivlm.checkpoints.settings import Settings
from minivlm.models.clip import CLIP, CLIPConfig
from tests.checkpoints.helpers import CONFIG, clip_config, edit_config, small_clip

# As published with the weights (what the reference's own defaults do not already say, and what they do).
B = {
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "image_size": 224,
    },
    "projection_dim": 512,
}
L = {
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
    "projection_dim": 768,
}


def with_vision(config: dict, **changes) -> dict:
    return {**config, "vision_config": {**config["vision_config"], **changes}}


RELEASED = {
    "ViT-B/32": (CLIPConfig.vit_b_32(), with_vision(B, patch_size=32), 151_277_313),
    "ViT-B/16": (CLIPConfig.vit_b_16(), with_vision(B, patch_size=16), 149_620_737),
    "ViT-L/14": (CLIPConfig.vit_l_14(), L, 427_616_513),
    "ViT-L/14@336px": (CLIPConfig.vit_l_14(336), with_vision(L, image_size=336), 427_944_193),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name):
    """Built on the meta device: as many parameters as the reference, each of the same shape, and as published."""
    ours, published, parameters = RELEASED[name]
    with torch.device("meta"):
        model, reference = CLIP(ours), transformers.CLIPModel(transformers.CLIPConfig(**published))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in reference.parameters()) == parameters
    translated = clip.table(ours).to_theirs(model.state_dict())
    assert {n: t.shape for n, t in translated.items()} == {n: t.shape for n, t in reference.state_dict().items()}


@pytest.mark.parametrize("name", RELEASED)
def test_published_configs_are_read_as_our_presets(name):
    ours, published, _ = RELEASED[name]
    read = clip.read_config(Settings({"model_type": "clip", **published}, "config.json"))
    assert dataclasses.replace(read, temperature=ours.temperature) == ours
    assert math.isclose(read.temperature, ours.temperature, rel_tol=1e-4)


@pytest.mark.parametrize("name", RELEASED)
def test_our_presets_are_written_as_the_published_configs(name):
    ours, published, _ = RELEASED[name]
    written = transformers.CLIPConfig(**clip.write_config(ours)).to_dict()
    wanted = transformers.CLIPConfig(**published).to_dict()
    for tower in ("vision_config", "text_config"):
        for field in (*published[tower], "layer_norm_eps", "hidden_act", "attention_dropout"):
            assert written[tower][field] == wanted[tower][field], (tower, field)
    assert written["projection_dim"] == wanted["projection_dim"]
    assert math.isclose(written["logit_scale_init_value"], wanted["logit_scale_init_value"], rel_tol=1e-4)


def read_with(tmp_path, *path, **changes):
    checkpoints.save(small_clip(), tmp_path / "clip")
    edit_config(tmp_path / "clip", *path, **changes)
    return clip_config(checkpoints.read(tmp_path / "clip")[0])


def test_round_trip(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        temperature=0.2,
        vision=dataclasses.replace(CONFIG.vision, eps=1e-4, channels=1),
        text=dataclasses.replace(CONFIG.text, eps=1e-6, eot_id=None),
    )
    checkpoints.save(small_clip(config=config), tmp_path / "clip")
    read = clip_config(checkpoints.read(tmp_path / "clip")[0])
    assert math.isclose(read.temperature, 0.2)
    assert dataclasses.replace(read, temperature=0.2) == config


def test_defaults_are_the_references():
    """What a config.json leaves out is what the reference takes it to be."""
    theirs = transformers.CLIPConfig().to_dict()
    assert clip.read_config(Settings({}, "x")) == clip.read_config(Settings(theirs, "x"))
    for fields, tower in ((clip.VISION, "vision_config"), (clip.TEXT, "text_config")):
        assert {field.theirs: field.default for field in fields}.items() <= theirs[tower].items()
        assert clip.FIXED.items() <= theirs[tower].items()
    assert theirs["text_config"]["eos_token_id"] == clip.EOS
    nulls = clip.read_config(Settings({"vision_config": None, "text_config": None, "text_config_dict": None}, "x"))
    assert nulls == clip.read_config(Settings({}, "x"))


@pytest.mark.parametrize(
    "settings",
    [
        {"text_config": {"hidden_size": 64, "eos_token_id": 2}, "text_config_dict": {"hidden_size": 128}},
        {"text_config": {"num_hidden_layers": 3, "eos_token_id": 5}, "text_config_dict": {}},
        {"vision_config": {"hidden_size": 96, "patch_size": 14}, "vision_config_dict": {"hidden_size": 120}},
        {"text_config": {"eos_token_id": 2}, "text_config_dict": None, "vision_config_dict": None},
    ],
)
def test_the_double_configs_of_released_files(settings):
    """`text_config_dict` wins, with its defaults; ViT-L/14 was released with both."""
    seen = transformers.CLIPConfig(**json.loads(json.dumps(settings))).to_dict()
    assert clip.read_config(Settings(settings, "x")) == clip.read_config(Settings(seen, "x"))


@pytest.mark.parametrize("tower", ["vision_config", "text_config"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; this course's class is written for 'quick_gelu' only"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"hidden_size": "12"}, "hidden_size is '12'; expected a whole number above 0"),
        ({"hidden_size": 12.0}, "hidden_size is 12.0; expected a whole number above 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; expected a whole number above 0"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
        ({"num_attention_heads": None}, "num_attention_heads is None"),
        ({"num_attention_heads": 7}, "width .* is no multiple of heads 7"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps is -1e-05; expected a number above 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
    ],
)
def test_bad_settings_of_either_tower(tmp_path, tower, changes, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        read_with(tmp_path, tower, **changes)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ((), {"vision_config": [1]}, r"vision_config is \[1\]; expected an object"),
        ((), {"projection_dim": None}, "projection_dim is None"),
        ((), {"logit_scale_init_value": "2"}, "logit_scale_init_value is '2'"),
        ((), {"quantization_config": {"bits": 4}}, "quantization_config is"),
        (("vision_config",), {"patch_size": 5}, "image_size 12 is no multiple of patch_size 5"),
        (("vision_config",), {"image_size": [12, 12]}, r"image_size is \[12, 12\]; expected a whole number"),
        (("text_config",), {"eos_token_id": None}, "eos_token_id is None; expected one whole number"),
        (("text_config",), {"eos_token_id": [5, 6]}, r"eos_token_id is \[5, 6\]"),
        (("text_config",), {"eos_token_id": 49407}, "eot_id 49407 .*30"),
    ],
)
def test_bad_settings(tmp_path, path, changes, words):
    with pytest.raises(CheckpointError, match=words):
        read_with(tmp_path, *path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "siglip", "architectures": ["SiglipModel"]},
        {"model_type": None},
        {"architectures": ["CLIPForImageClassification"]},
        {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"]},
    ],
)
def test_unsupported_architecture(tmp_path, changes):
    with pytest.raises(
        CheckpointError, match=r"not supported; supported: model_type 'clip' with .*'CLIPModel'"
    ) as caught:
        read_with(tmp_path, **changes)
    assert str(next(iter(changes.values()))) in str(caught.value)


def test_architectures_may_be_left_out(tmp_path):
    assert read_with(tmp_path, architectures=None).vision == CONFIG.vision


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"text": dataclasses.replace(CONFIG.text, eot_id=2)},
            "eot_id is 2, and the released format reads this number as",
        ),
        ({"max_scale": 50.0}, "config.max_scale is 50.0, and the released format has no place for it"),
    ],
)
def test_what_the_format_cannot_say_is_not_written(tmp_path, change, words):
    model = small_clip(config=dataclasses.replace(CONFIG, **change))
    with pytest.raises(CheckpointError, match=words):
        checkpoints.save(model, tmp_path / "clip")
    assert not list(tmp_path.iterdir())


def test_the_worlds_tokenizer_can_be_released():
    from minivlm.language.tokenizer import Tokenizer

    assert Tokenizer([]).eos != clip.HIGHEST_ID
