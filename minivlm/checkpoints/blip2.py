"""BLIP-2's released formats: transformers' `Blip2ForConditionalGeneration` (`Salesforce/blip2-opt-2.7b`) and
`Blip2ForImageTextRetrieval` (`Salesforce/blip2-itm-vit-g`).

What is not what it seems (transformers, `models/blip_2/modeling_blip_2.py`):

- both have the same `model_type`; `architectures` says which it is, and where it does not, it is the first.
- `vocab_size` and the like of the Q-Former mean nothing in the first, whose Q-Former reads no text.
- `encoder_hidden_size` is overwritten with the width of the vision encoder.
- the retrieval model has a language model in its config and none in its files; neither are the temperature of its
  contrast and the head that writes there, so a `Stage1` cannot be saved: its `.matcher()` can.
- dropout is read over, because it acts in training alone; the course's classes have none, so 0 is written.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from minivlm.checkpoints import blip, llama, opt
from minivlm.checkpoints.blip2_models import ConditionalGeneration, Retrieval
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.llava import whole
from minivlm.checkpoints.names import Ones, Row, Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.connectors.qformer import QFormerConfig
from minivlm.language.decoder import DecoderConfig
from minivlm.language.opt import OPTConfig
from minivlm.models.blip import blip_vit
from minivlm.models.blip2 import BLIP2, BLIP2Config
from minivlm.models.blip2_stage1 import Matcher, MatcherConfig
from minivlm.vision.vit import ViTConfig

# config.json: their name, our name, their default.
VISION = (
    Field("image_size", "image_size", 224),
    Field("patch_size", "patch_size", 14),
    Field("hidden_size", "width", 1408),
    Field("num_hidden_layers", "layers", 39),
    Field("num_attention_heads", "heads", 16),
    Field("intermediate_size", "hidden", 6144),
    Field("layer_norm_eps", "eps", 1e-6),
)
QFORMER = (
    Field("hidden_size", "width", 768),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 12),
    Field("intermediate_size", "hidden", 3072),
    Field("layer_norm_eps", "eps", 1e-12),
    Field("cross_attention_frequency", "cross_every", 2),
)
QFORMER_TEXT = (
    Field("vocab_size", "vocab_size", 30522),
    Field("max_position_embeddings", "context", 512),
)

# What our classes have built in.
VISION_FIXED = {"hidden_act": "gelu", "attention_dropout": 0.0, "qkv_bias": True}
QFORMER_FIXED = {"hidden_act": "gelu"}

#: Language models that may stand behind the Q-Former: how their part of a config is read.
LANGUAGES = {"opt": opt.read_config, "llama": llama.read_config, "qwen2": partial(llama.read_config, qwen2=True)}


def qformer_table(config: QFormerConfig, norm: str, embeddings: str) -> Table:
    """Our tensor names and theirs, of the Q-Former; the names of `norm` and `embeddings` differ from class to class."""
    block, layer = "qformer.blocks.*.", "qformer.encoder.layer.*."
    inside = f"{layer}attention.attention."
    rows: list[Row] = [
        Ones("qformer.queries", "query_tokens"),
        Same("qformer.norm_before.*", norm + ".*"),
        Same("qformer.embedding.weight", embeddings + "word_embeddings.weight"),
        Same("qformer.positions", embeddings + "position_embeddings.weight"),
        Stacked(block + "attention.qkv.*", tuple(f"{inside}{x}.*" for x in ("query", "key", "value"))),
        Same(block + "attention.out.*", layer + "attention.output.dense.*"),
        Same(block + "norm_1.*", layer + "attention.output.LayerNorm.*"),
        Same(block + "cross.q.*", layer + "crossattention.attention.query.*"),
        Stacked(block + "cross.kv.*", tuple(f"{layer}crossattention.attention.{x}.*" for x in ("key", "value"))),
        Same(block + "cross.out.*", layer + "crossattention.output.dense.*"),
        Same(block + "norm_2.*", layer + "crossattention.output.LayerNorm.*"),
    ]
    for ours, norm_after, theirs in (("mlp", "norm_3", "_query"), ("text_mlp", "text_norm", "")):
        rows += [
            Same(f"{block}{ours}.0.*", f"{layer}intermediate{theirs}.dense.*"),
            Same(f"{block}{ours}.2.*", f"{layer}output{theirs}.dense.*"),
            Same(f"{block}{norm_after}.*", f"{layer}output{theirs}.LayerNorm.*"),
        ]
    return Table(tuple(rows), (embeddings + "position_ids",))


def language_table(config: DecoderConfig | OPTConfig) -> Table:
    """Our tensor names and theirs, of the language model."""
    inside = opt.table(config) if isinstance(config, OPTConfig) else llama.table(config)
    return inside.prefixed("language.", "language_model.")


def table(config: BLIP2Config) -> Table:
    """Our tensor names and theirs."""
    connector = Table((Same("connector.*", "language_projection.*"),))
    qformer = qformer_table(config.qformer, "qformer.layernorm", "embeddings.")
    return blip.vision_table(config.vision) + qformer + connector + language_table(config.language)


def matcher_table(config: MatcherConfig) -> Table:
    """Our tensor names and theirs, of the retrieval model."""
    rows = (
        Same("image_projection.*", "vision_projection.*"),
        Same("text_projection.*", "text_projection.*"),
        Same("match_head.*", "itm_head.*"),
    )
    return blip.vision_table(config.vision) + qformer_table(config.qformer, "qformer.layernorm", "embeddings.") + Table(rows)


def read_eye(settings: Settings, reads: bool) -> tuple[ViTConfig, QFormerConfig]:
    """Vision encoder and Q-Former from a config.json. `reads`: the Q-Former reads text.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect({"quantization_config": None})
    vision, qformer = settings.part("vision_config"), settings.part("qformer_config")
    vision.expect(VISION_FIXED)
    qformer.expect(QFORMER_FIXED)
    seen, sizes = vision.numbers(VISION), qformer.numbers(QFORMER)
    if reads:
        sizes |= qformer.numbers(QFORMER_TEXT)
    try:
        return blip_vit(**seen), QFormerConfig(settings.number("num_query_tokens", 32), seen=seen["width"], **sizes)
    except CheckpointError:
        raise
    except ValueError as error:  # our configs' own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's BLIP-2 can be. {error}") from error


def read_language(settings: Settings) -> DecoderConfig | OPTConfig:
    """The language model from a config.json.

    Raises:
        CheckpointError: it is of another kind (T5, say), or a setting is not supported.
    """
    text = settings.part("text_config")
    kind = text.values.get("model_type", "opt")
    if kind not in LANGUAGES:
        raise CheckpointError(
            f"{text.where}: model_type is {kind!r}; this course's language models are decoders: {', '.join(LANGUAGES)}."
        )
    return LANGUAGES[kind](text)


def read_config(settings: Settings, reads: bool = False, make: type[BLIP2Config] = BLIP2Config) -> BLIP2Config:
    """Our config from a config.json; `make` is its class.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    if not reads:
        settings.part("qformer_config").expect({"use_qformer_text_input": False})
    vision, qformer = read_eye(settings, reads)
    language = read_language(settings)
    image_id = whole(settings, "image_token_index", settings.values.get("image_token_id"))
    try:
        return make(vision, qformer, language, image_id)
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: not a model that this course's BLIP-2 can be. {error}") from error


def read_matcher(settings: Settings) -> MatcherConfig:
    """The retrieval model's config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    inside = settings.part("qformer_config")
    if inside.values.get("use_qformer_text_input", False) is not True:
        raise CheckpointError(
            f"{inside.where}: use_qformer_text_input is not true; a Q-Former that reads no text finds none."
        )
    vision, qformer = read_eye(settings, reads=True)
    embedding, pad = settings.number("image_text_hidden_size", 256), whole(inside, "pad_token_id", 0)
    try:
        return MatcherConfig(vision, qformer, embedding, pad)
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: not a model that this course's Matcher can be. {error}") from error


def write_eye(vision: ViTConfig, qformer: QFormerConfig, family: str) -> dict[str, Any]:
    """What a config.json says of vision encoder and Q-Former."""
    text: Mapping[str, Any] = {} if qformer.vocab_size is None else written(qformer, QFORMER_TEXT)
    return {
        "num_query_tokens": qformer.queries,
        "vision_config": {"model_type": f"{family}_vision_model", **written(vision, VISION), **VISION_FIXED},
        "qformer_config": {
            "model_type": f"{family}_qformer",
            **written(qformer, QFORMER),
            **text,
            **QFORMER_FIXED,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "encoder_hidden_size": vision.width,
            "pad_token_id": 0,
        },
    }


def write_language(config: DecoderConfig | OPTConfig) -> dict[str, Any]:
    """What a config.json says of the language model."""
    if isinstance(config, OPTConfig):
        return opt.write_config(config)
    return llama.write_config(config, qwen2=config.qkv_bias)


def write_config(config: BLIP2Config) -> dict[str, Any]:
    """A config.json from our config.

    Raises:
        CheckpointError: the format has no place for a Q-Former that could read.
    """
    if config.qformer.vocab_size is not None:
        raise CheckpointError(
            f"config.qformer.vocab_size is {config.qformer.vocab_size}, and in the released BLIP-2 with a language model the"
            " Q-Former reads no text. Make the config with None: BLIP2.start_from leaves these parts behind."
        )
    eye = write_eye(config.vision, config.qformer, "blip_2")
    eye["qformer_config"]["use_qformer_text_input"] = False
    return {
        "model_type": "blip-2",
        "architectures": ["Blip2ForConditionalGeneration"],
        **eye,
        "image_token_index": config.image_id,
        "text_config": write_language(config.language),
    }


def write_matcher(config: MatcherConfig) -> dict[str, Any]:
    """The retrieval model's config.json."""
    eye = write_eye(config.vision, config.qformer, "blip_2")
    eye["qformer_config"] |= {"use_qformer_text_input": True, "pad_token_id": config.pad_id}
    return {
        "model_type": "blip-2",
        "architectures": ["Blip2ForImageTextRetrieval"],
        **eye,
        "image_text_hidden_size": config.embedding,
        "image_token_index": None,
    }


FORMATS = (
    Format("blip-2", "Blip2ForConditionalGeneration", BLIP2, ConditionalGeneration, read_config, write_config, table),
    Format("blip-2", "Blip2ForImageTextRetrieval", Matcher, Retrieval, read_matcher, write_matcher, matcher_table),
)
