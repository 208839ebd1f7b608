"""Llama's and Qwen2's format: config.json both ways, released sizes, folders, and the class with the reference's arguments."""

import dataclasses
import inspect
import json

import pytest
import torch
import transformers

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, llama
from minivlm.checkpoints.llama import CausalLM
from minivlm.checkpoints.settings import Settings
from minivlm.language.decoder import Decoder, DecoderConfig
from tests.checkpoints.helpers import edit_config, edit_tensors
from tests.parity.cases import decoder as cases

CONFIG = DecoderConfig(
    vocab_size=30, context=20, width=12, layers=2, heads=6, kv_heads=2, hidden=20, rope_base=300.0, eps=1e-4
)
SORTS = {
    "untied": CONFIG,
    "tied": dataclasses.replace(CONFIG, tied=True),
    "wide heads": dataclasses.replace(CONFIG, head_width=6),
    "one to one": dataclasses.replace(CONFIG, kv_heads=6),
    "biases": dataclasses.replace(CONFIG, qkv_bias=True),
}
IDS = torch.tensor([[1, 9, 8, 5], [1, 9, 5, 0]])

# As published with the weights.
LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-06,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
LLAMA_2_7B = {
    **LLAMA_7B,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
}
RELEASED = {
    "LLaMA 7B": (DecoderConfig.llama_7b(), LLAMA_7B, 6_738_415_616),
    "Llama 2 7B": (DecoderConfig.llama_2_7b(), LLAMA_2_7B, 6_738_415_616),
}


def small(config: DecoderConfig = CONFIG, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes(name):
    """On the meta device: as many parameters as the reference, each of the same shape; and the published config is ours."""
    ours, published, parameters = RELEASED[name]
    with torch.device("meta"):
        model = Decoder(ours)
        reference = transformers.LlamaForCausalLM(transformers.LlamaConfig(**json.loads(json.dumps(published))))
    assert sum(p.numel() for p in model.parameters()) == parameters
    translated = llama.table(ours).to_theirs(model.state_dict())
    assert {n: t.shape for n, t in translated.items()} == {n: t.shape for n, t in reference.state_dict().items()}
    assert llama.read_config(Settings(published, "config.json")) == ours


@pytest.mark.parametrize("qwen2", [False, True])
def test_defaults_are_the_references(qwen2):
    theirs = (transformers.Qwen2Config if qwen2 else transformers.LlamaConfig)().to_dict()
    read = lambda settings: llama.read_config(Settings(settings, "x"), qwen2)
    assert read({}) == read(theirs)
    fields = llama.QWEN2_FIELDS if qwen2 else llama.FIELDS
    assert {field.theirs: field.default for field in fields}.items() <= theirs.items()
    assert (llama.QWEN2_FIXED if qwen2 else llama.LLAMA_FIXED).items() <= theirs.items()
    assert read({"num_key_value_heads": None}) == read({})
    assert read({"hidden_size": 64, "num_attention_heads": 64 // 2, "head_dim": None}).hd == 2


@torch.no_grad()
@pytest.mark.parametrize("name", SORTS)
def test_round_trip_and_the_reference_computes_the_same(name, tmp_path):
    """Ours first: a model that a notebook trained, in the reference's hands."""
    lesson = small(SORTS[name])
    checkpoints.save(lesson, tmp_path / "lm")
    sizes, state = checkpoints.read(tmp_path / "lm")
    config = DecoderConfig(**sizes)
    assert config == SORTS[name]
    assert state.keys() == lesson.state_dict().keys()
    assert all(torch.equal(tensor, lesson.state_dict()[key]) for key, tensor in state.items())
    loaded = checkpoints.load(tmp_path / "lm")
    assert type(loaded.model) is Decoder
    assert not loaded.training
    reference, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lm", output_loading_info=True)
    assert type(reference).__name__ == ("Qwen2ForCausalLM" if config.qkv_bias else "LlamaForCausalLM")
    assert not any(info.values()), info
    torch.testing.assert_close(lesson(IDS), reference(IDS).logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded(IDS).logits, lesson(IDS))
    assert reference.generation_config.eos_token_id is None, "it would stop at a token of its own"


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_theirs_ours_theirs_bit_by_bit(case, tmp_path):
    reference = case.build()
    reference.save_pretrained(tmp_path / "theirs")
    checkpoints.save(checkpoints.load(tmp_path / "theirs"), tmp_path / "ours", max_shard_size=9000)
    again = type(reference).from_pretrained(tmp_path / "ours")
    theirs, ours = reference.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    a, b = reference.config.to_dict(), again.config.to_dict()
    for field in {*cases.GROUPED, *cases.TIED, "rope_parameters", "head_dim"} & a.keys() - {"pad_token_id"}:
        assert a[field] == b[field] or field == "head_dim", field


# --- rotary settings


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_theta": 500.0, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
        {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 500.0}},
    ],
)
def test_the_rotary_base_is_found_where_the_reference_finds_it(settings):
    read = llama.read_config(Settings(settings, "x"))
    assert read.rope_base == 500.0
    assert transformers.LlamaConfig(**json.loads(json.dumps(settings))).rope_parameters["rope_theta"] == 500.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: rope_type is 'linear'; .*'default' only"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters: rope_type is 'llama3'"),
        ({"rope_scaling": {"factor": 2.0}}, "factor is not a setting of rope_type 'default'"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": [1]}, r"rope settings are \[1\]; expected an object"),
        ({"rope_theta": -1}, "rope_theta is -1; expected a number above 0"),
        ({"rope_parameters": {"rope_theta": "1"}}, "rope_theta is '1'"),
        ({"rope_theta": 7.0, "rope_parameters": {"rope_theta": 8.0}}, "rope_theta is 7.0 and 8.0; expected one value"),
        ({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 8.0}}, "differ; expected one of them"),
    ],
)
def test_other_rotary_settings_are_refused(settings, words):
    with pytest.raises(CheckpointError, match=words):
        llama.read_config(Settings(settings, "x"))


# --- other settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; this course's class is written for 'silu' only"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"hidden_size": "12"}, "hidden_size is '12'; expected a whole number above 0"),
        ({"num_key_value_heads": 4}, "heads 6 is no multiple of kv_heads 4"),
        ({"num_key_value_heads": 2.0}, "num_key_value_heads is 2.0"),
        ({"head_dim": 3}, "a head is 3 features wide"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*only full_attention"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not supported; supported: .*LlamaForCausalLM"),
        ({"tie_word_embeddings": True}, "0 tensors missing and 1 unexpected.*'lm_head.weight'"),
        ({"model_type": "mistral", "architectures": None}, "model_type 'mistral' .* not supported"),
    ],
)
def test_bad_settings(tmp_path, changes, words):
    checkpoints.save(small(), tmp_path / "lm")
    edit_config(tmp_path / "lm", **changes)
    for door in (checkpoints.read, checkpoints.load):
        with pytest.raises(CheckpointError, match=words):
            door(tmp_path / "lm")


def test_sliding_windows_of_qwen2(tmp_path):
    checkpoints.save(small(SORTS["biases"]), tmp_path / "lm")
    edit_config(tmp_path / "lm", sliding_window=4096, max_window_layers=1)  # as released: named, and not in use
    assert checkpoints.read(tmp_path / "lm")[0]["qkv_bias"]
    edit_config(tmp_path / "lm", use_sliding_window=True)
    with pytest.raises(CheckpointError, match="use_sliding_window is True"):
        checkpoints.read(tmp_path / "lm")


def test_a_width_that_the_reference_refuses_is_not_written(tmp_path):
    odd = dataclasses.replace(CONFIG, heads=5, kv_heads=5, head_width=4)
    with pytest.raises(CheckpointError, match="width 12 is no multiple of config.heads 5"):
        checkpoints.save(small(odd), tmp_path / "lm")


def test_frequencies_in_llama_2s_files(tmp_path):
    checkpoints.save(small(), tmp_path / "lm")
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    right = torch.tensor([1.0])
    edit_tensors(tmp_path / "lm", lambda tensors: tensors.update({name: right}))
    assert checkpoints.read(tmp_path / "lm")[1].keys() == small().state_dict().keys()
    edit_tensors(tmp_path / "lm", lambda tensors: tensors.update({name: right * 0.5}))
    with pytest.raises(CheckpointError, match="inv_freq' differs from what config.json says"):
        checkpoints.read(tmp_path / "lm")


def test_heads_of_different_sizes_are_checked(tmp_path):
    checkpoints.save(small(), tmp_path / "lm")
    name = "model.layers.0.self_attn.k_proj.weight"
    edit_tensors(tmp_path / "lm", lambda tensors: tensors.update({name: torch.ones(12, 12)}))
    with pytest.raises(CheckpointError, match=rf"'{name}' has shape \(12, 12\); expected \(4, 12\)"):
        checkpoints.read(tmp_path / "lm")


# --- the class with the reference's arguments


@torch.no_grad()
def test_generate_gives_prompt_and_continuation():
    written = CausalLM(small()).generate(IDS, max_new_tokens=5)
    assert written.shape == (2, 9)
    assert torch.equal(written[:, :4], IDS)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ValueError, "either input_ids or inputs_embeds"),
        ({"input_ids": IDS, "inputs_embeds": torch.zeros(2, 4, 12)}, ValueError, "either input_ids or"),
        ({"input_ids": IDS.float()}, TypeError, "whole numbers; got torch.float32"),
        ({"input_ids": IDS[0]}, ValueError, r"shape \(B, T\); got \(4,\)"),
        ({"input_ids": IDS + 25}, ValueError, "runs from 25 to 34; the vocabulary has ids 0 to 29"),
        ({"input_ids": IDS.repeat(1, 6)}, ValueError, "24 columns, but the context holds 20"),
        ({"inputs_embeds": torch.zeros(2, 4, 11)}, ValueError, r"shape \(B, T, 12\); got \(2, 4, 11\)"),
        ({"input_ids": IDS, "attention_mask": IDS[:, :3]}, ValueError, r"attention_mask must have shape \(2, 4\)"),
        ({"input_ids": IDS, "attention_mask": IDS}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"input_ids": IDS, "labels": IDS[:1]}, ValueError, r"labels must have shape \(2, 4\)"),
        ({"input_ids": IDS, "labels": IDS + 25}, ValueError, "labels must be ids from 0 to 29, or -100"),
        ({"input_ids": IDS, "labels": IDS * 0 - 100}, ValueError, "some of them ids after the first column; got none"),
        ({"input_ids": IDS, "labels": IDS.float()}, TypeError, "labels must be a tensor of whole numbers"),
        ({"input_ids": IDS, "labels": IDS.to("meta")}, ValueError, "labels is on meta, and the model on cpu"),
        ({"input_ids": IDS.to("meta")}, ValueError, "input_ids is on meta, and the model on cpu"),
        ({"inputs_embeds": torch.zeros(2, 4, 12).long()}, TypeError, "inputs_embeds must be a float tensor"),
        ({"inputs_embeds": torch.zeros(2, 24, 12)}, ValueError, "24 columns, but the context holds 20"),
    ],
)
def test_what_it_refuses(given, error, words):
    with pytest.raises(error, match=words):
        CausalLM(small())(**given)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be a whole number; got 2.5"),
        ({"eos_token_id": 30}, ValueError, "eos_token_id is 30; expected one id from 0 to 29"),
        ({"pad_token_id": -1}, ValueError, "pad_token_id is -1; expected one id"),
        ({"attention_mask": IDS}, ValueError, "must hold 1 for tokens and 0 for padding"),
        ({"input_ids": IDS[0]}, ValueError, r"shape \(B, T\); got \(4,\)"),
    ],
)
def test_generate_refuses(how, error, words):
    with pytest.raises(error, match=words):
        inspect.unwrap(CausalLM.generate)(CausalLM(small()), **{"input_ids": IDS, **how})
