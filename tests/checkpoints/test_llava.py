"""LLaVA's format: config.json both ways, released sizes and names, folders, and the original repository's layout."""

import dataclasses
import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, llava
from minivlm.checkpoints.settings import Settings
from minivlm.language.decoder import DecoderConfig
from minivlm.models.llava import LLaVA, LLaVAConfig
from minivlm.vision.vit import ViTConfig
from tests.checkpoints.helpers import edit_config, edit_tensors, small_clip
from tests.parity.cases import llava as cases

CONFIG = LLaVAConfig(
    ViTConfig(image_size=12, patch_size=4, width=12, layers=3, heads=3, hidden=20, eps=1e-4),
    DecoderConfig(vocab_size=30, context=40, width=16, layers=2, heads=4, kv_heads=2, hidden=20, rope_base=300.0),
    image_id=7,
    connector_layers=2,
)
SORTS = {
    "two layers": CONFIG,
    "one matrix": dataclasses.replace(CONFIG, connector_layers=1),
    "all layers": dataclasses.replace(CONFIG, skip_layers=0),
    "one layer": dataclasses.replace(CONFIG, skip_layers=2, image_id=0),
    "tied": dataclasses.replace(CONFIG, language=dataclasses.replace(CONFIG.language, tied=True)),
}

# As published with the weights.
LLAVA_15_7B = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
LLAVA_15_13B = {
    **LLAVA_15_7B,
    "text_config": {
        **LLAVA_15_7B["text_config"],
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
        "num_key_value_heads": 40,
    },
}


def first(published: dict) -> dict:
    """LLaVA's first version said in the newer class: 224 pixels, Vicuna 1, one matrix."""
    text = {**published["text_config"], "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6}
    vision = {**published["vision_config"], "image_size": 224}
    new = {"projector_hidden_act": "linear", "image_token_index": 0}
    return {**published, **new, "vision_config": vision, "text_config": text}


def as_15(config: LLaVAConfig) -> LLaVAConfig:
    """LLaVA-1.5: 336 pixels, Vicuna 1.5 with a token for images, two layers."""
    words = {"vocab_size": 32064, "context": 4096, "eps": 1e-5}
    return LLaVAConfig(
        dataclasses.replace(config.vision, image_size=336),
        dataclasses.replace(config.language, **words),
        image_id=32000,
        connector_layers=2,
    )


# The numbers of parameters, of which the first two are the reference's less its idle matrix.
RELEASED = {
    "LLaVA 7B": (LLaVAConfig.llava_7b(), first(LLAVA_15_7B), 7_045_793_792),
    "LLaVA 13B": (LLaVAConfig.llava_13b(), first(LLAVA_15_13B), 13_324_292_096),
    "LLaVA-1.5 7B": (as_15(LLaVAConfig.llava_7b()), LLAVA_15_7B, 7_063_427_072),
    "LLaVA-1.5 13B": (as_15(LLaVAConfig.llava_13b()), LLAVA_15_13B, 13_351_494_656),
}


def small(config: LLaVAConfig = CONFIG, seed: int = 0) -> LLaVA:
    """A random LLaVA in which no two parameters are alike."""
    torch.manual_seed(seed)
    model = LLaVA(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def prompt(config: LLaVAConfig = CONFIG, images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """One text with images in it: ids and pixel values."""
    generator = torch.Generator().manual_seed(5)
    row = [1]
    for _ in range(images):
        row += [config.image_id] * config.image_tokens + [9, 20]
    side = config.vision.image_size
    return torch.tensor([row]), torch.randn(images, 3, side, side, generator=generator)


def rebuilt(sizes: dict) -> LLaVAConfig:
    """The config of what `checkpoints.read` gives, as a notebook makes it."""
    parts = {"vision": ViTConfig(**sizes["vision"]), "language": DecoderConfig(**sizes["language"])}
    return LLaVAConfig(**sizes | parts)


def assert_same(ours: dict, other: dict) -> None:
    assert ours.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())


def in_files(name: str) -> str:
    """The name in a file of a tensor of the reference's class, by hand."""
    for inside, file in (
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ):
        if name.startswith(inside):
            return file + name.removeprefix(inside)
    raise AssertionError(name)


# --- sizes and settings


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name):
    """On the meta device: as many parameters as the reference, each of the same shape; and the published config is ours."""
    ours, published, parameters = RELEASED[name]
    with torch.device("meta"):
        model = LLaVA(ours)
        config = transformers.LlavaConfig(**json.loads(json.dumps(published)))
        reference = transformers.LlavaForConditionalGeneration(config)
        translated = llava.table(ours).to_theirs(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == parameters
    width = ours.language.width
    idle = width * width + width if ours.connector_layers == 1 else 0
    assert sum(p.numel() for p in reference.parameters()) == parameters + idle
    theirs = {in_files(n): t.shape for n, t in reference.state_dict().items()}
    assert {n: t.shape for n, t in translated.items()} == theirs
    assert llava.read_config(Settings(published, "config.json")) == ours
    assert llava.read_config(Settings(llava.write_config(ours), "config.json")) == ours


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"vision_config": None, "text_config": None},
        {"vision_config": {"image_size": 64}, "text_config": {"hidden_size": 64}},
        {"vision_config": {"model_type": "clip_vision_model"}, "text_config": {"model_type": "llama"}},
        {"image_token_id": 5},
        {"text_config": {"tie_word_embeddings": True}},
    ],
)
def test_defaults_are_the_references(settings):
    """What a config.json leaves out is what the reference takes it to be."""
    whole = {"image_token_index": 31999, **settings} if "image_token_id" not in settings else settings
    theirs = transformers.LlavaConfig(**json.loads(json.dumps(whole))).to_dict()
    assert llava.read_config(Settings(whole, "x")) == llava.read_config(Settings(theirs, "x"))


def test_the_default_place_of_images_is_the_references():
    theirs = transformers.LlavaConfig()
    assert (llava.IMAGE_ID, llava.LAYER) == (theirs.image_token_index, theirs.vision_feature_layer)
    assert llava.FIXED.items() <= theirs.to_dict().items()
    text = {"vocab_size": 32064}
    assert llava.read_config(Settings({"text_config": text}, "x")).image_id == 32000


@pytest.mark.parametrize(("layer", "skip"), [(-1, 0), (-2, 1), (-3, 2), (3, 0), (2, 1), (1, 2)])
def test_the_vision_layer(layer, skip):
    settings = llava.write_config(CONFIG) | {"vision_feature_layer": layer}
    assert llava.read_config(Settings(settings, "x")).skip_layers == skip
    with torch.no_grad():  # and it is that state of the reference's
        tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**settings["vision_config"])).eval()
        pixels = prompt()[1]
        states = tower(pixels, output_hidden_states=True).hidden_states
        assert torch.equal(states[layer], states[len(states) - 1 - skip])


@pytest.mark.parametrize(("outside", "inside"), [(False, False), (False, True), (True, False), (True, True)])
def test_either_place_ties_the_words(outside, inside):
    settings = llava.write_config(CONFIG) | {"tie_word_embeddings": outside}
    settings["text_config"]["tie_word_embeddings"] = inside
    with torch.device("meta"):
        reference = transformers.LlavaForConditionalGeneration(
            transformers.LlavaConfig(**json.loads(json.dumps(settings)))
        )
    tied = reference.lm_head.weight is reference.get_input_embeddings().weight
    assert llava.read_config(Settings(settings, "x")).language.tied == tied == (outside or inside)


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ((), {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'; .*'default' only"),
        ((), {"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        ((), {"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu'; supported: 'gelu'"),
        ((), {"projector_hidden_act": ["gelu"]}, r"projector_hidden_act is \['gelu'\]"),
        ((), {"vision_feature_layer": [-2, -5]}, r"vision_feature_layer is \[-2, -5\]; expected one whole number"),
        ((), {"vision_feature_layer": 0}, "the vision layer read is 0; expected -3 to -1, or 1 to 3"),
        ((), {"vision_feature_layer": -4}, "the vision layer read is -4"),
        ((), {"vision_feature_layer": 4}, "the vision layer read is 4"),
        ((), {"image_token_index": "7"}, "image_token_index is '7'; expected one whole number"),
        ((), {"image_token_index": 7.0}, "image_token_index is 7.0"),
        ((), {"image_token_index": 30}, "image_id is 30; the vocabulary has ids 0 to 29"),
        ((), {"image_token_index": -200}, "image_id is -200"),
        ((), {"image_token_id": 8}, "image_token_id is 8"),
        ((), {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ((), {"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
        ((), {"vision_config": "clip"}, "vision_config is 'clip'; expected an object"),
        ((), {"architectures": ["LlavaNextForConditionalGeneration"]}, "not supported; supported: .*LlavaForCond"),
        ((), {"model_type": "llava_next", "architectures": None}, "model_type 'llava_next' .* not supported"),
        (
            ("vision_config",),
            {"model_type": "siglip_vision_model"},
            "vision_config: model_type is 'siglip_vision_model'",
        ),
        (("vision_config",), {"hidden_act": "gelu"}, "vision_config: hidden_act is 'gelu'"),
        (("vision_config",), {"patch_size": 5}, "image_size 12 is no multiple of patch_size 5"),
        (("vision_config",), {"hidden_size": "12"}, "vision_config: hidden_size is '12'"),
        (("text_config",), {"model_type": "mistral"}, "text_config: model_type is 'mistral'; .*'llama' only"),
        (("text_config",), {"hidden_act": "gelu"}, "text_config: hidden_act is 'gelu'"),
        (("text_config",), {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        (("text_config",), {"num_key_value_heads": 3}, "heads 4 is no multiple of kv_heads 3"),
        (("text_config",), {"tie_word_embeddings": True}, "1 unexpected.*'language_model.lm_head.weight'"),
    ],
)
def test_bad_settings(tmp_path, path, changes, words):
    checkpoints.save(small(), tmp_path / "llava")
    edit_config(tmp_path / "llava", *path, **changes)
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match=words) as caught:
            door(tmp_path / "llava")
    assert "llava" in str(caught.value)


# --- folders


@torch.no_grad()
@pytest.mark.parametrize("name", SORTS)
def test_round_trip_and_the_reference_computes_the_same(name, tmp_path):
    """Ours first: a model that a notebook trained, in the reference's hands."""
    config = SORTS[name]
    lesson = small(config)
    checkpoints.save(lesson, tmp_path / "llava")
    sizes, state = checkpoints.read(tmp_path / "llava")
    assert rebuilt(sizes) == config
    assert_same(lesson.state_dict(), state)
    loaded = checkpoints.load(tmp_path / "llava")
    assert type(loaded.model) is LLaVA
    assert loaded.config is loaded.model.config
    assert not any(module.training for module in loaded.modules())
    reference, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "llava", output_loading_info=True
    )
    assert not any(info.values()), info
    ids, pixels = prompt(config)
    theirs = reference(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(lesson(ids, pixels), theirs, atol=1e-5, rtol=0)
    assert torch.equal(loaded(ids, pixels).logits, lesson(ids, pixels))
    assert reference.generation_config.eos_token_id is None, "it would stop at a token of its own"


def test_loading_touches_no_seed(tmp_path):
    checkpoints.save(small(), tmp_path / "llava")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    checkpoints.load(tmp_path / "llava")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("size", [None, 20_000])
@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_theirs_ours_theirs_bit_by_bit(case, tmp_path, size):
    reference = case.build()
    reference.save_pretrained(tmp_path / "theirs", **({} if size is None else {"max_shard_size": size}))
    assert (size is None) == (tmp_path / "theirs" / "model.safetensors").exists()
    checkpoints.save(checkpoints.load(tmp_path / "theirs"), tmp_path / "ours", max_shard_size=size)
    again, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    assert_same(reference.state_dict(), again.state_dict())
    a, b = reference.config.to_dict(), again.config.to_dict()
    for name in cases.ONE_MATRIX.keys() - {"vision_config", "text_config", "image_seq_length"}:
        assert a[name] == b[name], name
    for part in ("vision_config", "text_config"):
        for name in cases.ONE_MATRIX[part].keys() - {"pad_token_id"}:
            assert a[part][name] == b[part][name], name
    assert b["image_seq_length"] == (a["vision_config"]["image_size"] // a["vision_config"]["patch_size"]) ** 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", cases.CASES[:2], ids=str)
def test_half_precision_checkpoints(tmp_path, dtype, case):
    """Stored in half, read as stored, computed with in float32."""
    reference = case.build().to(dtype)
    reference.save_pretrained(tmp_path / "half")
    _, state = checkpoints.read(tmp_path / "half")
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    loaded = checkpoints.load(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    checkpoints.save(loaded.to(dtype), tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert {tensor.dtype for tensor in again.values()} == {dtype}
    _, state_again = checkpoints.read(tmp_path / "again")
    assert_same(state, state_again)


def test_names_in_released_files(tmp_path):
    """`vision_model.` in the vision encoder's names, as released; without, as newer versions write; never both."""
    checkpoints.save(small(), tmp_path / "llava")
    released = load_file(tmp_path / "llava" / "model.safetensors")
    for name in (
        "vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.pre_layrnorm.bias",
        "multi_modal_projector.linear_1.weight",
        "multi_modal_projector.linear_2.bias",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.1.mlp.gate_proj.weight",
        "language_model.model.norm.weight",
        "language_model.lm_head.weight",
    ):
        assert name in released
    old, new = "vision_tower.vision_model.", "vision_tower."

    def rename(tensors):
        for name in [name for name in tensors if name.startswith(old)]:
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    edit_tensors(tmp_path / "llava", rename)
    assert_same(checkpoints.read(tmp_path / "llava")[1], small().state_dict())
    name = "pre_layrnorm.bias"
    edit_tensors(tmp_path / "llava", lambda tensors: tensors.update({old + name: tensors[new + name] + 1}))
    with pytest.raises(CheckpointError, match=rf"'vision_tower\.(vision_model\.)?{name}' is there twice"):
        checkpoints.read(tmp_path / "llava")


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_names_as_the_class_has_them_in_memory(case, tmp_path):
    """`save_original_format=False`, or a state dict that someone wrote by hand: it is the same model."""
    reference = case.build()
    reference.save_pretrained(tmp_path / "released")
    reference.save_pretrained(tmp_path / "memory", save_original_format=False)
    names = set(load_file(tmp_path / "memory" / "model.safetensors"))
    assert names <= set(reference.state_dict()), "written as they are in memory"
    assert not any(name.startswith("language_model.") for name in names)
    assert_same(*(checkpoints.read(tmp_path / name)[1] for name in ("released", "memory")))
    there, also = "model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"
    edit_tensors(tmp_path / "memory", lambda tensors: tensors.update({also: tensors[there] + 1}))
    with pytest.raises(CheckpointError, match=f"'(model.)?{also}' is there twice"):
        checkpoints.read(tmp_path / "memory")


def test_stray_buffers_of_old_files(tmp_path):
    checkpoints.save(small(), tmp_path / "llava")
    counter, frequencies = (
        "vision_tower.vision_model.embeddings.position_ids",
        "language_model.model.layers.1.self_attn.rotary_emb.inv_freq",
    )
    right = {counter: torch.arange(10)[None], frequencies: 300.0 ** -torch.tensor([0.0, 0.5])}
    edit_tensors(tmp_path / "llava", lambda tensors: tensors.update(right))
    assert_same(checkpoints.read(tmp_path / "llava")[1], small().state_dict())
    for name, words in ((counter, "should count 0, 1, 2"), (frequencies, "differs from what config.json says")):
        edit_tensors(tmp_path / "llava", lambda tensors, name=name: tensors.update({**right, name: right[name] + 1}))
        with pytest.raises(CheckpointError, match=words):
            checkpoints.read(tmp_path / "llava")


def test_damaged_tensors(tmp_path):
    path = tmp_path / "llava"
    checkpoints.save(small(), path)

    def refused(words, **changes):
        checkpoints.save(small(), path)
        edit_tensors(path, lambda t: [t.pop(n) if x is None else t.update({n: x}) for n, x in changes.items()])
        with pytest.raises(CheckpointError, match=words):
            checkpoints.read(path)

    name = "multi_modal_projector.linear_2.bias"
    refused(rf"1 tensors missing and 0 unexpected .*'{name}' \(16,\)", **{name: None})
    refused(rf"'{name}' has shape \(12,\); expected \(16,\)", **{name: torch.ones(12)})
    refused(r"unexpected.*'image_newline'", image_newline=torch.ones(16))
    name = "language_model.model.layers.0.self_attn.k_proj.weight"
    refused(rf"'{name}' has shape \(16, 16\); expected \(8, 16\)", **{name: torch.ones(16, 16)})
    name = "vision_tower.vision_model.pre_layrnorm.bias"
    refused(f"1 tensors missing.*'{name}'", **{name: None})


# --- one matrix, said in two


def test_the_idle_matrix_is_written_and_checked(tmp_path):
    path = tmp_path / "llava"
    checkpoints.save(small(SORTS["one matrix"]), path)
    tensors = load_file(path / "model.safetensors")
    weight, bias = (f"multi_modal_projector.linear_2.{kind}" for kind in ("weight", "bias"))
    assert torch.equal(tensors[weight], torch.eye(16))
    assert torch.equal(tensors[bias], torch.zeros(16))
    for name, words in ((weight, "not an identity"), (bias, "not zeros")):
        checkpoints.save(small(SORTS["one matrix"]), path)
        edit_tensors(path, lambda t, name=name: t[name].view(-1)[3:4].add_(0.01))
        with pytest.raises(CheckpointError, match=f"'{name}' does something: it is {words}"):
            checkpoints.read(path)
    checkpoints.save(small(SORTS["one matrix"]), path)
    edit_config(path, projector_hidden_act="gelu")  # then it is a second layer as any other
    assert checkpoints.read(path)[0]["connector_layers"] == 2


@pytest.mark.parametrize("layers", [3, 5])
def test_more_layers_than_the_format_has(tmp_path, layers):
    model = small(dataclasses.replace(CONFIG, connector_layers=layers))
    with pytest.raises(CheckpointError, match=f"connector_layers is {layers}, and the released format has one or two"):
        checkpoints.save(model, tmp_path / "llava")
    assert not list(tmp_path.iterdir())


def test_a_language_model_that_the_format_has_not(tmp_path):
    model = small(dataclasses.replace(CONFIG, language=dataclasses.replace(CONFIG.language, qkv_bias=True)))
    with pytest.raises(CheckpointError, match="config.language.qkv_bias is True, and the released format has no place"):
        checkpoints.save(model, tmp_path / "llava")
    assert not list(tmp_path.iterdir())


def test_changed_classes_are_refused(tmp_path):
    model = small()
    model.extra = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(CheckpointError, match="tensor 'extra' has no place in this file format"):
        checkpoints.save(model, tmp_path / "llava")
    model = small()
    model.connector = torch.nn.Sequential(torch.nn.Linear(12, 16))
    with pytest.raises(CheckpointError, match="missing.*'multi_modal_projector.linear_2"):
        checkpoints.save(model, tmp_path / "llava")
    assert not list(tmp_path.iterdir())


def test_vision_is_for_folders_without_it(tmp_path):
    checkpoints.save(small(), tmp_path / "llava")
    checkpoints.save(small_clip(), tmp_path / "clip")
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match="holds its model whole, so there is no use for vision='.*clip'"):
            door(tmp_path / "llava", vision=tmp_path / "clip")
        with pytest.raises(CheckpointError, match="holds its model whole"):
            door(tmp_path / "clip", vision=tmp_path / "clip")


def test_a_prefix_reaches_all_parts_of_a_table():
    """`Table.prefixed`, alone: rows of all kinds, counters, constants and aliases."""
    from minivlm.checkpoints.names import Flat, Same, Stacked, Table

    rows = (Same("a.*", "x.*"), Stacked("b", ("y", "z")), Flat("c", "w", (1, 2, 2)))
    known = {"f": torch.ones(2)}
    table = Table(rows, ("n",), known, ((r"old\.", "x."),)).prefixed("in.", "there.") + Table((Same("d", "v"),))
    ours = {"in.a.k": torch.ones(2), "in.b": torch.arange(4.0), "in.c": torch.ones(3, 4), "d": torch.zeros(1)}
    theirs = table.to_theirs(ours)
    assert set(theirs) == {"there.x.k", "there.y", "there.z", "there.w", "v"}
    theirs["there.old.k"] = theirs.pop("there.x.k")
    theirs |= {"there.n": torch.arange(3), "there.f": torch.ones(2)}
    assert_same(table.to_ours(theirs, ours, dict.fromkeys(theirs, "file")), ours)
