"""Flamingo's format, IDEFICS: config.json both ways, released sizes and names, folders."""

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, flamingo
from minivlm.checkpoints.settings import Settings
from minivlm.connectors.perceiver import PerceiverConfig
from minivlm.language.decoder import DecoderConfig
from minivlm.models.flamingo import Flamingo, FlamingoConfig
from minivlm.vision.vit import ViTConfig
from tests.checkpoints.helpers import edit_config, edit_tensors

CONFIG = FlamingoConfig(
    ViTConfig(image_size=12, patch_size=4, width=12, layers=2, heads=3, hidden=20, eps=1e-4, activation="gelu"),
    DecoderConfig(vocab_size=30, context=40, width=16, layers=4, heads=4, kv_heads=4, hidden=20, rope_base=300.0),
    PerceiverConfig(12, latents=3, layers=2, heads=2, head_width=5, frames=0, longest=1, activation="relu"),
    image_id=7,
    every=2,
    class_token=True,
    hidden=20,
    swiglu=True,
)
SORTS = {
    "plain": CONFIG,
    "new words": dataclasses.replace(CONFIG, new_words=2, image_id=29),
    "norms on queries and keys": dataclasses.replace(
        CONFIG, qk_norm=True, resampler=dataclasses.replace(CONFIG.resampler, qk_norm=True)
    ),
    "each block": dataclasses.replace(CONFIG, every=1, image_id=0),
    "tied": dataclasses.replace(CONFIG, language=dataclasses.replace(CONFIG.language, tied=True)),
    "CLIP's activation": dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, activation="quick_gelu")),
}

# As published with the weights, as far as it says how they are used.
IDEFICS_9B = {
    "additional_vocab_size": 2,
    "alpha_initializer": "zeros",
    "alpha_type": "float",
    "alphas_initializer_range": 0.0,
    "architectures": ["IdeficsForVisionText2Text"],
    "cross_layer_activation_function": "swiglu",
    "cross_layer_interval": 4,
    "dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "model_type": "idefics",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": 0,
    "perceiver_config": {
        "model_type": "idefics",
        "qk_layer_norms_perceiver": True,
        "resampler_depth": 6,
        "resampler_head_dim": 96,
        "resampler_n_heads": 16,
        "resampler_n_latents": 64,
        "use_resampler": True,
    },
    "qk_layer_norms": True,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_resampler": True,
    "vision_config": {
        "embed_dim": 1280,
        "hidden_act": "gelu",
        "image_size": 224,
        "intermediate_size": 5120,
        "layer_norm_eps": 1e-05,
        "model_type": "idefics",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 32,
        "patch_size": 14,
    },
    "vocab_size": 32000,
}


def reference(settings: dict) -> transformers.IdeficsForVisionText2Text:
    return transformers.IdeficsForVisionText2Text(transformers.IdeficsConfig(**json.loads(json.dumps(settings))))


def small(config: FlamingoConfig = CONFIG, seed: int = 0) -> Flamingo:
    """A random Flamingo in which no two parameters are alike, with open gates."""
    torch.manual_seed(seed)
    model = Flamingo(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def prompt(config: FlamingoConfig = CONFIG) -> tuple[torch.Tensor, torch.Tensor]:
    """One text with two images in it: ids and pixel values."""
    generator = torch.Generator().manual_seed(5)
    side = config.vision.image_size
    return torch.tensor([[1, 9, config.image_id, 20, 5, config.image_id, 8, 3]]), torch.randn(
        2, 3, side, side, generator=generator
    )


def rebuilt(sizes: dict) -> FlamingoConfig:
    """The config of what `checkpoints.read` gives, as a notebook makes it."""
    parts = {
        "vision": ViTConfig(**sizes["vision"]),
        "language": DecoderConfig(**sizes["language"]),
        "resampler": PerceiverConfig(**sizes["resampler"]),
    }
    return FlamingoConfig(**sizes | parts)


def assert_same(ours: dict, other: dict) -> None:
    assert ours.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())


# --- sizes and settings


def test_the_released_size():
    """On the meta device: as many parameters as the reference, each of the same shape; and the published config is ours."""
    ours = FlamingoConfig.idefics_9b()
    with torch.device("meta"):
        model, there = Flamingo(ours), reference(IDEFICS_9B)
        translated = flamingo.table(ours).to_theirs(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in there.parameters()) == 8_929_679_632
    assert {n: t.shape for n, t in translated.items()} == {n: t.shape for n, t in there.state_dict().items()}
    assert flamingo.read_config(Settings(IDEFICS_9B, "config.json")) == ours
    assert flamingo.read_config(Settings(flamingo.write_config(ours), "config.json")) == ours


def test_flamingos_sizes_are_as_large_as_the_references_of_the_same_numbers():
    """The paper's sizes in IDEFICS' kind of layers: as many parameters as the reference, tensor by tensor."""
    for paper in (FlamingoConfig.flamingo_3b(), FlamingoConfig.flamingo_9b()):
        resampler = dataclasses.replace(paper.resampler, frames=0, longest=1, activation="relu")
        hidden = paper.language.hidden
        ours = dataclasses.replace(paper, resampler=resampler, class_token=True, swiglu=True, hidden=hidden)
        with torch.device("meta"):
            there = reference(flamingo.write_config(ours))
            translated = flamingo.table(ours).to_theirs(Flamingo(ours).state_dict())
            own = Flamingo(paper)
        assert {n: t.shape for n, t in translated.items()} == {n: t.shape for n, t in there.state_dict().items()}
        new, old = own.layers[0], paper.language
        gated = 2 * old.width * (old.width + paper.vision.width) + 2 * 4 * old.width**2
        assert sum(p.numel() for p in new.parameters() if p.ndim == 2) == gated


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vision_config": None, "perceiver_config": None},
        {"vision_config": {"image_size": 56}, "perceiver_config": {"resampler_n_latents": 8}, "hidden_size": 64},
        {"additional_vocab_size": 3},
        {"tie_word_embeddings": True},
    ],
)
def test_defaults_are_the_references(settings):
    """What a config.json leaves out is what the reference takes it to be."""
    whole = {"use_resampler": True, **settings}
    theirs = transformers.IdeficsConfig(**json.loads(json.dumps(whole))).to_dict()
    assert flamingo.read_config(Settings(whole, "x")) == flamingo.read_config(Settings(theirs, "x"))


def test_which_word_stands_for_an_image():
    """The reference does not say; the released files' is the last one."""
    settings = flamingo.write_config(SORTS["new words"])
    assert not [name for name, value in settings.items() if name.endswith("_token_id") and value is not None]  # it would warn
    del settings["image_token_index"]
    assert flamingo.read_config(Settings(settings, "x")).image_id == 29
    assert flamingo.read_config(Settings({**settings, "image_token_index": 3}, "x")).image_id == 3


def test_either_name_of_the_vision_width():
    settings = flamingo.write_config(CONFIG)
    settings["vision_config"]["hidden_size"] = settings["vision_config"].pop("embed_dim")
    assert flamingo.read_config(Settings(settings, "x")) == CONFIG


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ((), {"use_resampler": False}, "use_resampler is False; expected true"),
        ((), {"use_resampler": None}, "use_resampler is None"),
        ((), {"alpha_type": "vector"}, "alpha_type is 'vector'; .*'float' only"),
        ((), {"dropout": 0.1}, "dropout is 0.1"),
        ((), {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ((), {"additional_vocab_size": -1}, "additional_vocab_size is -1; expected a whole number, at least 0"),
        ((), {"additional_vocab_size": "2"}, "additional_vocab_size is '2'"),
        ((), {"additional_vocab_size": 1}, "missing and .* unexpected|has shape"),
        ((), {"cross_layer_interval": 3}, "num_hidden_layers 4 is no multiple of cross_layer_interval 3"),
        ((), {"cross_layer_interval": 0}, "cross_layer_interval is 0"),
        ((), {"cross_layer_interval": 1}, "expected and not there: .*gated_cross_attn_layers.2"),
        ((), {"qk_layer_norms": 1}, "qk_layer_norms is 1; expected true or false"),
        ((), {"qk_layer_norms": True}, "expected and not there: .*cross_attn.q_layer_norm.weight"),
        ((), {"image_token_index": 30}, "image_id is 30; the vocabulary has ids 0 to 29"),
        ((), {"image_token_index": "7"}, "image_token_index is '7'"),
        ((), {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ((), {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ((), {"vision_config": "clip"}, "vision_config is 'clip'; expected an object"),
        ((), {"architectures": ["IdeficsModel"]}, "not supported; supported: .*IdeficsForVisionText2Text"),
        ((), {"model_type": "idefics2", "architectures": None}, "model_type 'idefics2' .* not supported"),
        (("vision_config",), {"hidden_act": "relu"}, "vision_config: hidden_act is 'relu'; supported: gelu, quick_gelu"),
        (("vision_config",), {"hidden_size": 24}, "embed_dim is 12 and hidden_size 24; they mean the same"),
        (("vision_config",), {"patch_size": 5}, "vision_config: .* image_size 12 is no multiple of patch_size 5"),
        (("vision_config",), {"image_size": [12, 12]}, "image_size is .*expected a whole number"),
        (("vision_config",), {"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        (("perceiver_config",), {"qk_layer_norms_perceiver": "no"}, "perceiver_config: qk_layer_norms_perceiver is 'no'"),
        (("perceiver_config",), {"resampler_depth": 0}, "resampler_depth is 0"),
        (("perceiver_config",), {"resampler_n_latents": 4}, "perceiver_resampler.latents' has shape"),
    ],
)
def test_bad_settings(tmp_path, path, changes, words):
    checkpoints.save(small(), tmp_path / "flamingo")
    edit_config(tmp_path / "flamingo", *path, **changes)
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match=words) as caught:
            door(tmp_path / "flamingo")
    assert "flamingo" in str(caught.value)


# --- folders


@torch.no_grad()
@pytest.mark.parametrize("sort", SORTS)
def test_there_and_back(tmp_path, sort):
    """Saved, it is read by the reference and by us, and saved again it is the same file."""
    model = small(SORTS[sort])
    checkpoints.save(model, tmp_path / "a")
    loaded = checkpoints.load(tmp_path / "a")
    assert loaded.config == model.config
    assert_same(loaded.model.state_dict(), model.state_dict())
    sizes, tensors = checkpoints.read(tmp_path / "a")
    assert rebuilt(sizes) == model.config
    assert_same(tensors, model.state_dict())
    checkpoints.save(loaded, tmp_path / "b")
    assert_same(load_file(tmp_path / "a" / "model.safetensors"), load_file(tmp_path / "b" / "model.safetensors"))
    assert (tmp_path / "a" / "config.json").read_text() == (tmp_path / "b" / "config.json").read_text()
    there = transformers.IdeficsForVisionText2Text.from_pretrained(tmp_path / "a").eval()
    ids, images = prompt(model.config)
    looks = (ids == model.config.image_id).cumsum(1)[..., None] == torch.tensor([1, 2])
    theirs = there(ids, pixel_values=images[None], image_attention_mask=looks.long()).logits
    torch.testing.assert_close(model(ids, images), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sort", SORTS)
def test_the_references_folder_is_written_alike(tmp_path, sort):
    """Both classes write the same names and shapes."""
    config = SORTS[sort]
    checkpoints.save(small(config), tmp_path / "ours")
    reference(flamingo.write_config(config)).save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}
    assert checkpoints.load(tmp_path / "theirs").config == config


def test_old_files_hold_what_follows_from_the_config(tmp_path):
    """Rotary frequencies of each attention, gated ones too, and numbers of places."""
    checkpoints.save(small(), tmp_path)
    frequencies = 300.0 ** (-torch.arange(0, 4, 2).float() / 4)

    def add(tensors):
        for i in range(4):
            tensors[f"model.layers.{i}.self_attn.rotary_emb.inv_freq"] = frequencies.clone()
        for i in range(2):
            tensors[f"model.gated_cross_attn_layers.{i}.cross_attn.rotary_emb.inv_freq"] = frequencies.clone()
        tensors["model.vision_model.embeddings.position_ids"] = torch.arange(10)[None]

    edit_tensors(tmp_path, add)
    assert_same(checkpoints.load(tmp_path).model.state_dict(), small().state_dict())
    edit_tensors(tmp_path, lambda t: t["model.gated_cross_attn_layers.1.cross_attn.rotary_emb.inv_freq"].mul_(2))
    with pytest.raises(CheckpointError, match="inv_freq' differs from what config.json says"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.perceiver_resampler.latents"), "1 tensors missing.*perceiver_resampler.latents"),
        (lambda t: t.pop("model.gated_cross_attn_layers.1.alpha_dense"), "alpha_dense"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected.*'extra'"),
        (
            lambda t: t.update({"model.gated_cross_attn_layers.0.alpha_cross_attn": torch.zeros(1, 1, 16)}),
            r"alpha_cross_attn' has shape \(1, 1, 16\); expected \(1,\)",
        ),
    ],
)
def test_damaged_folders(tmp_path, change, words):
    checkpoints.save(small(), tmp_path)
    edit_tensors(tmp_path, change)
    with pytest.raises(CheckpointError, match=words):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"all_images": True}, "config.all_images is True, and the released format has no place for it"),
        ({"class_token": False}, "config.class_token is False"),
        ({"swiglu": False}, "config.swiglu is False"),
        ({"hidden": 24}, "config.hidden is 24"),
        ({"every": 3}, "num_hidden_layers 4 is no multiple of cross_layer_interval 3"),
        ({"resampler": dataclasses.replace(CONFIG.resampler, activation="squared_relu")}, "config.resampler.activation"),
        ({"resampler": dataclasses.replace(CONFIG.resampler, frames=2, longest=3)}, "config.resampler.frames is 2"),
        ({"language": dataclasses.replace(CONFIG.language, kv_heads=2)}, "config.language must be LLaMA's first version"),
        ({"language": dataclasses.replace(CONFIG.language, qkv_bias=True)}, "config.language must be LLaMA's first"),
        ({"language": dataclasses.replace(CONFIG.language, head_width=6)}, "config.language must be LLaMA's first"),
        ({"vision": dataclasses.replace(CONFIG.vision, norm_before=False)}, "config.vision.norm_before is False"),
    ],
)
def test_what_the_format_has_no_place_for(tmp_path, change, words):
    with pytest.raises(CheckpointError, match=words):
        checkpoints.save(small(dataclasses.replace(CONFIG, **change)), tmp_path / "new")
    assert not (tmp_path / "new").exists()
