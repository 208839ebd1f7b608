"""Flamingo's released format: IDEFICS, transformers' `IdeficsForVisionText2Text` (`HuggingFaceM4/idefics-9b`). Flamingo itself
was never released.

What is not what it seems (transformers, `models/idefics/modeling_idefics.py`, `perceiver.py` and `vision.py`):

- the vision encoder is CLIP's, and its class token goes into the resampler with the patches, before the last norm.
- the resampler's feed-forward layers have a ReLU, where Flamingo has its square. The gated layers are LLaMA's blocks.
- `vocab_size` is that of LLaMA. The `additional_vocab_size` words after it are tensors of their own. With both, the reference
  cannot compute its loss.
- which word stands for an image is the tokenizer's business, and the reference is told by a mask who looks at what. So it is
  written as `image_token_index`, which the reference ignores (it would warn of an `image_token_id` among the additional
  words); where it is missing, the last word is meant, as released.
- queries and keys of a resampler are normalised by a LayerNorm, those of a gated layer by an RMSNorm.
"""

from dataclasses import replace
from typing import Any

from minivlm.checkpoints import clip, llama, llava
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.flamingo_model import VisionText2Text
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.names import Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.connectors.perceiver import PerceiverConfig
from minivlm.models.flamingo import Flamingo, FlamingoConfig
from minivlm.vision.vit import ViTConfig

# config.json: their name, our name, their default.
VISION = (
    Field("image_size", "image_size", 224),
    Field("patch_size", "patch_size", 14),
    Field("num_channels", "channels", 3),
    Field("embed_dim", "width", 768),
    Field("num_hidden_layers", "layers", 32),
    Field("num_attention_heads", "heads", 16),
    Field("intermediate_size", "hidden", 5120),
    Field("layer_norm_eps", "eps", 1e-5),
)
RESAMPLER = (
    Field("resampler_n_latents", "latents", 64),
    Field("resampler_depth", "layers", 6),
    Field("resampler_n_heads", "heads", 16),
    Field("resampler_head_dim", "head_width", 96),
)
ACTIVATIONS = ("gelu", "quick_gelu")  # of the vision encoder

# What our class has built in.
FIXED = {"alpha_type": "float", "dropout": 0.0}
VISION_FIXED = {"attention_dropout": 0.0}
IMAGES_ONLY = {"frames": 0, "longest": 1, "activation": "relu"}


def table(config: FlamingoConfig) -> Table:
    """Our tensor names and theirs."""
    language = llama.table(config.language).prefixed("language.")
    frequencies = next(iter(language.constants.values()))
    if config.new_words:
        sizes = (config.language.vocab_size - config.new_words, config.new_words)
        words = (
            ("language.embedding.weight", ("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight")),
            ("language.head.weight", ("lm_head.weight", "lm_head.additional_fc.weight")),
        )
        others = tuple(row for row in language.rows if row.ours not in dict(words))
        language = replace(language, rows=others + tuple(Stacked(ours, theirs, sizes) for ours, theirs in words))
    gated = range(config.language.layers // config.every)
    buffers = {f"model.gated_cross_attn_layers.{i}.cross_attn.rotary_emb.inv_freq": frequencies for i in gated}
    vision = clip.vision_table(config.vision).prefixed(theirs="model.")
    return vision + Table(_resampler() + _gated(), constants=buffers) + language


def _resampler() -> tuple[Same | Stacked, ...]:
    ours, theirs = "resampler.layers.*.", "model.perceiver_resampler.blocks.*."
    return (
        Same("resampler.latents", "model.perceiver_resampler.latents"),
        Same("resampler.norm.*", "model.perceiver_resampler.layer_norm.*"),
        Same(ours + "norm_seen.*", theirs + "0.context_layer_norm.*"),
        Same(ours + "norm.*", theirs + "0.latents_layer_norm.*"),
        Same(ours + "attention.q_norm.*", theirs + "0.q_layer_norm.*"),
        Same(ours + "attention.k_norm.*", theirs + "0.k_layer_norm.*"),
        Same(ours + "attention.q.weight", theirs + "0.q_proj.weight"),
        Stacked(ours + "attention.kv.weight", (theirs + "0.k_proj.weight", theirs + "0.v_proj.weight")),
        Same(ours + "attention.out.weight", theirs + "0.output_proj.weight"),
        Same(ours + "mlp.0.*", theirs + "1.ln.*"),
        Same(ours + "mlp.1.weight", theirs + "1.fc.weight"),
        Same(ours + "mlp.3.weight", theirs + "1.c_proj.weight"),
    )


def _gated() -> tuple[Same | Stacked, ...]:
    ours, theirs = "layers.*.", "model.gated_cross_attn_layers.*."
    return (
        Same(ours + "norm_1.weight", theirs + "input_layernorm.weight"),
        Same(ours + "attention.q_norm.weight", theirs + "cross_attn.q_layer_norm.weight"),
        Same(ours + "attention.k_norm.weight", theirs + "cross_attn.k_layer_norm.weight"),
        Same(ours + "attention.q.weight", theirs + "cross_attn.q_proj.weight"),
        Stacked(ours + "attention.kv.weight", (theirs + "cross_attn.k_proj.weight", theirs + "cross_attn.v_proj.weight")),
        Same(ours + "attention.out.weight", theirs + "cross_attn.o_proj.weight"),
        Same(ours + "alpha", theirs + "alpha_cross_attn"),
        Same(ours + "norm_2.weight", theirs + "post_attention_layernorm.weight"),
        Stacked(ours + "mlp.gate_up.weight", (theirs + "mlp.gate_proj.weight", theirs + "mlp.up_proj.weight")),
        Same(ours + "mlp.down.weight", theirs + "mlp.down_proj.weight"),
        Same(ours + "beta", theirs + "alpha_dense"),
    )


def read_config(settings: Settings) -> FlamingoConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect({**FIXED, "quantization_config": None})
    if settings.values.get("use_resampler", False) is not True:
        raise CheckpointError(
            f"{settings.where}: use_resampler is {settings.values.get('use_resampler', False)!r}; expected true: this course's"
            " Flamingo always has its resampler."
        )
    language = llama.read_config(settings)
    more = llava.whole(settings, "additional_vocab_size", 0)
    if more < 0:
        raise CheckpointError(f"{settings.where}: additional_vocab_size is {more}; expected a whole number, at least 0.")
    language = replace(language, vocab_size=language.vocab_size + more)
    every = settings.number("cross_layer_interval", 1)
    if language.layers % every:
        raise CheckpointError(
            f"{settings.where}: num_hidden_layers {language.layers} is no multiple of cross_layer_interval {every}; the"
            " reference has no layer for the rest, and fails."
        )
    vision = _vision(settings.part("vision_config"))
    part = settings.part("perceiver_config")
    try:
        resampler = PerceiverConfig(
            vision.width, **part.numbers(RESAMPLER), qk_norm=_bool(part, "qk_layer_norms_perceiver"), **IMAGES_ONLY
        )
        return FlamingoConfig(
            vision,
            language,
            resampler,
            image_id=llava.whole(settings, "image_token_index", language.vocab_size - 1),
            every=every,
            new_words=more,
            class_token=True,
            hidden=language.hidden,
            swiglu=True,
            qk_norm=_bool(settings, "qk_layer_norms"),
        )
    except CheckpointError:
        raise
    except ValueError as error:  # our configs' own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's Flamingo can be. {error}") from error


def _vision(settings: Settings) -> ViTConfig:
    settings.expect(VISION_FIXED)
    values = settings.values
    if "hidden_size" in values:  # the other name for it
        if values.get("embed_dim", values["hidden_size"]) != values["hidden_size"]:
            raise CheckpointError(
                f"{settings.where}: embed_dim is {values['embed_dim']!r} and hidden_size {values['hidden_size']!r}; they mean"
                " the same."
            )
        settings = Settings({**values, "embed_dim": values["hidden_size"]}, settings.where)
    activation = values.get("hidden_act", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"{settings.where}: hidden_act is {activation!r}; supported: {', '.join(ACTIVATIONS)}.")
    try:
        return ViTConfig(**settings.numbers(VISION), activation=activation)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: not a vision encoder that this course has. {error}") from error


def _bool(settings: Settings, name: str) -> bool:
    value = settings.values.get(name, False)
    if not isinstance(value, bool):
        raise CheckpointError(f"{settings.where}: {name} is {value!r}; expected true or false.")
    return value


def write_config(config: FlamingoConfig) -> dict[str, Any]:
    """A config.json from our config. What the format cannot say is noticed by `save`, which reads it again.

    Raises:
        CheckpointError: the reference cannot be such a model.
    """
    language = config.language
    if language.qkv_bias or language.kv_heads != language.heads or language.head_width is not None:
        raise CheckpointError(
            "config.language must be LLaMA's first version: no biases, as many key heads as heads, heads of width // heads;"
            f" got {language}. Keep these weights with safetensors instead."
        )
    text = llama.write_config(replace(language, vocab_size=language.vocab_size - config.new_words))
    for name in ("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias", "attention_dropout"):
        del text[name]
    return {
        **text,
        **FIXED,
        "model_type": "idefics",
        "architectures": ["IdeficsForVisionText2Text"],
        "additional_vocab_size": config.new_words,
        "image_token_index": config.image_id,
        "cross_layer_interval": config.every,
        "qk_layer_norms": config.qk_norm,
        "use_resampler": True,
        "vision_config": {
            "model_type": "idefics_vision",
            **written(config.vision, VISION),
            **VISION_FIXED,
            "hidden_act": config.vision.activation,
        },
        "perceiver_config": {
            "model_type": "idefics_perciever",  # sic
            **written(config.resampler, RESAMPLER),
            "use_resampler": True,
            "qk_layer_norms_perceiver": config.resampler.qk_norm,
        },
    }


FORMAT = Format("idefics", "IdeficsForVisionText2Text", Flamingo, VisionText2Text, read_config, write_config, table)
