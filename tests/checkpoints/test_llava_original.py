"""The original repository's LLaVA: a language model's folder with a connector, and a CLIP folder beside it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, llava_original
from minivlm.checkpoints.settings import Settings
from minivlm.models.llava import LLaVA, LLaVAConfig
from tests.checkpoints.helpers import edit_config, edit_tensors
from tests.checkpoints.test_llava import CONFIG, assert_same, prompt, rebuilt

VISION = {
    "image_size": 12,
    "patch_size": 4,
    "hidden_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "layer_norm_eps": 1e-4,
}
LANGUAGE = {
    "vocab_size": 30,
    "max_position_embeddings": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
# What the repository writes beside the language model's own settings (as published with LLaVA-1.5, its sizes changed).
LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaLlamaForCausalLM"],
    "rope_theta": 300.0,
    "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False,
    "image_aspect_ratio": "pad",
    "image_grid_pinpoints": None,
    "mm_hidden_size": 12,
    "mm_projector_type": "linear",
    "mm_resampler_type": None,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14",
    "tune_mm_mlp_adapter": False,
    "unfreeze_mm_vision_tower": False,
    "use_mm_proj": True,
}
FIRST = {"mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-large-patch14", "mm_hidden_size": 12}
IDS, PIXELS = prompt(dataclasses.replace(CONFIG, image_id=0))


def tower(seed: int = 0) -> transformers.CLIPVisionModel:
    torch.manual_seed(seed)
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)).eval()


def write_clip(folder: Path) -> dict[str, torch.Tensor]:
    """A whole CLIP; the tensors of its vision tower."""
    torch.manual_seed(1)
    text = {
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = transformers.CLIPConfig(projection_dim=6, vision_config=VISION, text_config={**text, "eos_token_id": 5})
    clip = transformers.CLIPModel(config)
    clip.save_pretrained(folder)
    return clip.vision_model.state_dict()


def write_llava(folder: Path, layers: int = 1, settings: dict = LLAVA) -> dict[str, torch.Tensor]:
    """The language model with the connector's tensors among its own, as the repository writes them; all of them."""
    torch.manual_seed(2)
    base = {**LANGUAGE, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
    language = transformers.LlamaForCausalLM(transformers.LlamaConfig(**base))
    tensors = dict(language.state_dict())
    if layers == 1:
        tensors |= {"model.mm_projector.weight": torch.randn(16, 12), "model.mm_projector.bias": torch.randn(16)}
    for i in range(layers if layers > 1 else 0):
        name = f"model.mm_projector.{2 * i}"
        tensors |= {f"{name}.weight": torch.randn(16, 16 if i else 12), f"{name}.bias": torch.randn(16)}
    folder.mkdir()
    kind = {} if layers == 1 else {"mm_projector_type": f"mlp{layers}x_gelu"}
    (folder / "config.json").write_text(json.dumps({**LANGUAGE, "rope_theta": 300.0, **settings, **kind}))
    save_file({n: t.clone().contiguous() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return tensors


@torch.no_grad()
def by_hand(vision: transformers.CLIPVisionModel, llm: dict, layers: int) -> torch.Tensor:
    """What the repository computes, from the parts of transformers: the patches of the last layer's input, through the
    connector, at the places of the image.
    """
    base = {**LANGUAGE, "rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}
    language = transformers.LlamaForCausalLM(transformers.LlamaConfig(**base)).eval()
    language.load_state_dict({name: t for name, t in llm.items() if "mm_projector" not in name})
    x = vision(PIXELS, output_hidden_states=True).hidden_states[-2][:, 1:]
    if layers == 1:
        x = torch.nn.functional.linear(x, llm["model.mm_projector.weight"], llm["model.mm_projector.bias"])
    for i in range(layers if layers > 1 else 0):
        x = torch.nn.functional.gelu(x) if i else x
        name = f"model.mm_projector.{2 * i}"
        x = torch.nn.functional.linear(x, llm[f"{name}.weight"], llm[f"{name}.bias"])
    words = language.get_input_embeddings()(IDS)[0]
    n = CONFIG.image_tokens
    pieces = [words[:1], x[0], words[1 + n : 3 + n], x[1], words[3 + 2 * n :]]
    return language(inputs_embeds=torch.cat(pieces)[None]).logits


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("model_type", ["llava", "llava_llama"])
def test_it_computes_what_the_repository_does(tmp_path, layers, model_type):
    tower().save_pretrained(tmp_path / "vision")
    llm = write_llava(tmp_path / "llava", layers, {**LLAVA, "model_type": model_type})
    loaded = checkpoints.load(tmp_path / "llava", vision=tmp_path / "vision")
    assert type(loaded.model) is LLaVA
    assert loaded.config == dataclasses.replace(CONFIG, connector_layers=layers, image_id=0)
    wanted = by_hand(tower(), llm, layers)
    torch.testing.assert_close(loaded(IDS, PIXELS).logits, wanted, atol=1e-5, rtol=0)
    assert wanted.std() > 0.05


def test_all_kinds_of_vision_folders(tmp_path):
    """A whole CLIP; its vision tower alone, as released, as newer versions write it, and with a projection."""
    write_llava(tmp_path / "llava")
    wanted = write_clip(tmp_path / "clip")
    config = transformers.CLIPVisionConfig(**VISION, projection_dim=6)
    alone, projecting = transformers.CLIPVisionModel(config), transformers.CLIPVisionModelWithProjection(config)
    alone.load_state_dict(wanted)
    projecting.vision_model.load_state_dict(wanted)
    alone.save_pretrained(tmp_path / "alone")
    projecting.save_pretrained(tmp_path / "projecting")
    alone.save_pretrained(tmp_path / "released")

    def rename(tensors):
        for name in [name for name in tensors if not name.startswith("vision_model.")]:
            tensors[f"vision_model.{name}"] = tensors.pop(name)

    edit_tensors(tmp_path / "released", rename)
    alone.save_pretrained(tmp_path / "sharded", max_shard_size=4000)
    states = [
        checkpoints.read(tmp_path / "llava", vision=str(tmp_path / name))[1]
        for name in ("clip", "alone", "projecting", "released", "sharded")
    ]
    for state in states:
        assert_same(states[0], state)
    state = states[0]
    assert torch.equal(state["vision.positions"], wanted["embeddings.position_embedding.weight"])
    last = [wanted[f"encoder.layers.2.self_attn.{x}_proj.bias"] for x in "qkv"]
    assert torch.equal(state["vision.blocks.2.attention.qkv.bias"], torch.cat(last))


def test_the_double_config_of_a_clip_folder(tmp_path):
    write_llava(tmp_path / "llava")
    write_clip(tmp_path / "clip")
    edit_config(tmp_path / "clip", vision_config_dict=VISION)
    edit_config(tmp_path / "clip", "vision_config", hidden_size=99)
    assert checkpoints.read(tmp_path / "llava", vision=tmp_path / "clip")[0]["vision"]["width"] == 12


def test_the_first_versions_config(tmp_path):
    """It says little: a linear connector, and patches, are what is not said."""
    write_clip(tmp_path / "clip")
    write_llava(tmp_path / "llava", settings={"model_type": "llava", "architectures": LLAVA["architectures"], **FIRST})
    sizes, state = checkpoints.read(tmp_path / "llava", vision=tmp_path / "clip")
    config = rebuilt(sizes)
    assert config == dataclasses.replace(CONFIG, connector_layers=1, image_id=0)
    LLaVA(config).load_state_dict(state)


def test_published_configs_are_read_as_our_presets():
    """LLaVA 1 7B and 13B, as they follow from the published settings."""
    vision = {"image_size": 224, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096}
    vision |= {"num_hidden_layers": 24, "num_attention_heads": 16}
    for preset, language in (
        (LLaVAConfig.llava_7b(), {}),
        (
            LLaVAConfig.llava_13b(),
            {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
        ),
    ):
        settings = Settings({**LLAVA, "rope_theta": 10000.0, "mm_hidden_size": 1024, **language}, "x")
        joined = Settings({**settings.values, "vision_config": vision}, "x")
        assert llava_original.read_config(joined) == preset


def test_it_is_saved_in_the_other_layout(tmp_path):
    """Which makes `load` and `save` a converter; the reference reads what comes out."""
    tower().save_pretrained(tmp_path / "vision")
    llm = write_llava(tmp_path / "llava", 2)
    loaded = checkpoints.load(tmp_path / "llava", vision=tmp_path / "vision")
    checkpoints.save(loaded, tmp_path / "new")
    reference = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "new").eval()
    with torch.no_grad():
        theirs = reference(input_ids=IDS, pixel_values=PIXELS).logits
    torch.testing.assert_close(theirs, by_hand(tower(), llm, 2), atol=1e-5, rtol=0)


# --- what is refused


@pytest.fixture
def written(tmp_path):
    write_clip(tmp_path / "clip")
    write_llava(tmp_path / "llava")
    return tmp_path


def refuses(written: Path, words: str, vision: str | None = "clip") -> None:
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match=words):
            door(written / "llava", vision=None if vision is None else written / vision)


def test_no_vision_folder(written):
    refuses(
        written, r"no vision encoder; it only names one, 'openai/clip-vit.*Give that one's folder as well: load", None
    )
    refuses(written, "nowhere does not exist; expected a folder", "nowhere")
    refuses(written, "model_type is 'llava'; expected 'clip' or 'clip_vision_model', .*'openai/clip-vit", "llava")
    (written / "clip" / "model.safetensors").unlink()
    refuses(written, "clip has no weights")


def test_in_several_files(tmp_path):
    """As large ones are, with the language model's old buffers among them."""
    write_clip(tmp_path / "clip")
    tensors = write_llava(tmp_path / "llava", 2)
    whole = checkpoints.read(tmp_path / "llava", vision=tmp_path / "clip")[1]
    (tmp_path / "llava" / "model.safetensors").unlink()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = 300.0 ** -torch.tensor([0.0, 0.5])
    index = {name: f"model-{1 + i % 2:05d}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(index.values()):
        part = {name: tensors[name].clone().contiguous() for name in tensors if index[name] == file}
        save_file(part, tmp_path / "llava" / file, {"format": "pt"})
    (tmp_path / "llava" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert_same(checkpoints.read(tmp_path / "llava", vision=tmp_path / "clip")[1], whole)


def test_pickled_weights(written):
    """How they are published: whole, and of the first stage the connector alone. Neither is opened."""
    (written / "llava" / "model.safetensors").unlink()
    for name in ("mm_projector.bin", "pytorch_model-00001-of-00002.bin"):
        (written / "llava" / name).write_bytes(b"not even a pickle")
        refuses(written, f"llava has its weights as .*{name}.*, which is Python's pickle.*so it is never read here")
    (written / "llava" / "model.safetensors").write_bytes(b"")
    refuses(written, r"model.safetensors \(0 bytes\) cannot be read as safetensors")


def test_another_vision_encoder(written):
    edit_config(written / "llava", mm_hidden_size=1024)
    refuses(written, "mm_hidden_size is 1024, and the vision encoder given is 12 wide; expected the folder of 'openai/")


def test_a_vision_encoder_in_both_places(written):
    """Written when it was trained as well. Which one counts cannot be known."""
    name = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias"
    edit_tensors(written / "llava", lambda tensors: tensors.update({name: torch.ones(12)}))
    refuses(written, f"1 unexpected.*'{name}' in .*llava.model.safetensors")


def test_missing_connector(written):
    edit_tensors(written / "llava", lambda tensors: tensors.pop("model.mm_projector.bias"))
    refuses(written, r"1 tensors missing and 0 unexpected.*'model.mm_projector.bias' \(16,\)")


def test_damaged_vision_tensors(written):
    name = "vision_model.pre_layrnorm.bias"
    edit_tensors(written / "clip", lambda tensors: tensors.update({name: torch.ones(7)}))
    refuses(written, rf"clip.model.safetensors: tensor 'vision_tower.{name}' has shape \(7,\); expected \(12,\)")
    edit_tensors(written / "clip", lambda tensors: tensors.pop(name))
    refuses(written, f"1 tensors missing.*'vision_tower.{name}'")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mm_projector_type": "identity"}, "mm_projector_type is 'identity'; expected 'linear' or 'mlp2x_gelu'"),
        ({"mm_projector_type": "mlp0x_gelu"}, "mm_projector_type is 'mlp0x_gelu'"),
        ({"mm_projector_type": None}, "mm_projector_type is None"),
        ({"mm_projector_type": "mlp2x_gelu"}, "2 unexpected.*'model.mm_projector.weight'"),
        ({"mm_vision_select_layer": None}, "mm_vision_select_layer is None; expected one whole number"),
        ({"mm_vision_select_layer": -4}, "the vision layer read is -4; expected -3 to -1"),
        ({"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature is 'cls_patch'"),
        ({"mm_hidden_size": "12"}, "mm_hidden_size is '12'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio is 'anyres': images in several tiles"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type is 'spatial_unpad'"),
        ({"s2": True}, "s2 is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt' .* not supported"),
        ({"architectures": ["LlavaMistralForCausalLM"]}, r"\['LlavaMistralForCausalLM'\] is not supported"),
    ],
)
def test_bad_settings(written, changes, words):
    edit_config(written / "llava", **changes)
    refuses(written, words)


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        (("vision_config",), {"hidden_act": "gelu"}, "vision_config: hidden_act is 'gelu'"),
        ((), {"model_type": "siglip"}, "model_type is 'siglip'; expected 'clip'"),
        ((), {"vision_config": 3}, "vision_config is 3; expected an object"),
        (("vision_config",), {"patch_size": 5}, "image_size 12 is no multiple of patch_size 5"),
        (("vision_config",), {"num_hidden_layers": 2}, "16 unexpected.*'vision_tower.vision_model.encoder.layers.2"),
    ],
)
def test_bad_settings_of_the_vision_folder(written, path, changes, words):
    edit_config(written / "clip", *path, **changes)
    refuses(written, words)
