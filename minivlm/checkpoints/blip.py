"""BLIP's released formats: transformers' `BlipForConditionalGeneration` (the captioner), `BlipForImageTextRetrieval` (the
filter) and `BlipForQuestionAnswering`, as `Salesforce/blip-image-captioning-base`, `blip-itm-base-coco` and `blip-vqa-base`.

Each is a `BLIP` for some of its tasks, without a slow copy. What is not what it seems (transformers, `models/blip/`):

- `num_attention_heads` of the text is 8 where the file does not say; every BLIP has 12, and the released files say so since
  an error in them was mended.
- `bos_token_id` is [DEC], and what ends a text is `sep_token_id`; `eos_token_id` is not used. [ENC] is not in the config at
  all: it is the last of the released vocabulary, and written as `enc_token_id`, which the reference does not know.
- `encoder_hidden_size` is overwritten with the width of the vision encoder, even where the decoder looks at a question.
- `label_smoothing` counts where it stands in `text_config`; it is 0 there in the released files, 0.1 in the original code.
- the vision encoder's epsilon is 1e-5, and 1e-6 in the original code.
- older files hold the matrix that writes words, which is the one that reads them, once more.
"""

from functools import partial
from typing import Any

from minivlm.checkpoints.blip_models import Captioner, Matcher, Respondent
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.llava import whole
from minivlm.checkpoints.names import Flat, Ones, Row, Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.language.bert import BertConfig
from minivlm.models.blip import BLIP, BLIPConfig, blip_vit
from minivlm.vision.vit import ViTConfig

# config.json: their name, our name, their default.
VISION = (
    Field("image_size", "image_size", 384),
    Field("patch_size", "patch_size", 16),
    Field("hidden_size", "width", 768),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 12),
    Field("intermediate_size", "hidden", 3072),
    Field("layer_norm_eps", "eps", 1e-5),
)
TEXT = (
    Field("vocab_size", "vocab_size", 30524),
    Field("max_position_embeddings", "context", 512),
    Field("hidden_size", "width", 768),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 8),
    Field("intermediate_size", "hidden", 3072),
    Field("layer_norm_eps", "eps", 1e-12),
)
IDS = {"bos_token_id": ("dec_id", 30522), "sep_token_id": ("sep_id", 102), "pad_token_id": ("pad_id", 0)}

# What our class has built in.
FIXED = {"tie_word_embeddings": True}
VISION_FIXED = {"hidden_act": "gelu", "attention_dropout": 0.0}
TEXT_FIXED = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "is_decoder": True,  # it means that there is cross-attention
    **FIXED,
}


def vision_table(config: ViTConfig) -> Table:
    """Our tensor names and theirs, of the vision encoder."""
    patch = (config.channels, config.patch_size, config.patch_size)
    block, layer = "vision.blocks.*.", "vision_model.encoder.layers.*."
    rows = (
        Ones("vision.class_token", "vision_model.embeddings.class_embedding", 2),
        Flat("vision.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight", patch),
        Same("vision.patch_embedding.bias", "vision_model.embeddings.patch_embedding.bias"),
        Ones("vision.positions", "vision_model.embeddings.position_embedding"),
        Same(block + "norm_1.*", layer + "layer_norm1.*"),
        Same(block + "attention.qkv.*", layer + "self_attn.qkv.*"),
        Same(block + "attention.out.*", layer + "self_attn.projection.*"),
        Same(block + "norm_2.*", layer + "layer_norm2.*"),
        Same(block + "mlp.0.*", layer + "mlp.fc1.*"),
        Same(block + "mlp.2.*", layer + "mlp.fc2.*"),
        Same("vision.norm_after.*", "vision_model.post_layernorm.*"),
    )
    return Table(rows)


def text_table(ours: str, theirs: str) -> Table:
    """Our tensor names and theirs, of a Bert without its head."""
    block, layer = "blocks.*.", "encoder.layer.*."
    rows: list[Row] = [
        Same("embedding.weight", "embeddings.word_embeddings.weight"),
        Same("positions", "embeddings.position_embeddings.weight"),
        Same("norm_before.*", "embeddings.LayerNorm.*"),
    ]
    for part, norm, there in (("attention", "norm_1", "attention"), ("cross", "norm_2", "crossattention")):
        key, value = (f"{layer}{there}.self.{x}.*" for x in ("key", "value"))
        rows += [
            Same(f"{block}{part}.q.*", f"{layer}{there}.self.query.*"),
            Stacked(f"{block}{part}.kv.*", (key, value)),
            Same(f"{block}{part}.out.*", f"{layer}{there}.output.dense.*"),
            Same(f"{block}{norm}.*", f"{layer}{there}.output.LayerNorm.*"),
        ]
    rows += [
        Same(block + "mlp.0.*", layer + "intermediate.dense.*"),
        Same(block + "mlp.2.*", layer + "output.dense.*"),
        Same(block + "norm_3.*", layer + "output.LayerNorm.*"),
    ]
    return Table(tuple(rows), ("embeddings.position_ids",)).prefixed(ours, theirs)


def table(config: BLIPConfig) -> Table:
    """Our tensor names and theirs."""
    head = "text_decoder.cls.predictions."
    rows = (
        Same("decoder.head.0.*", head + "transform.dense.*"),
        Same("decoder.head.2.*", head + "transform.LayerNorm.*"),
        Same("decoder.head_bias", head + "bias"),
        Same("image_projection.*", "vision_proj.*"),
        Same("text_projection.*", "text_proj.*"),
        Same("match_head.*", "itm_head.*"),
    )
    words = "text_decoder.bert.embeddings.word_embeddings.weight"
    copies = {head + "decoder.weight": words, head + "decoder.bias": head + "bias"}
    encoder, decoder = text_table("encoder.", "text_encoder."), text_table("decoder.", "text_decoder.bert.")
    return vision_table(config.vision) + encoder + decoder + Table(rows, copies=copies if config.decodes else {})


def read_config(settings: Settings, tasks: tuple[str, ...]) -> BLIPConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect({**FIXED, "quantization_config": None})
    vision, text = settings.part("vision_config"), settings.part("text_config")
    vision.expect(VISION_FIXED)
    text.expect(TEXT_FIXED)
    seen, read = vision.numbers(VISION), text.numbers(TEXT)
    if "vqa" in tasks and seen["width"] != read["width"]:
        raise CheckpointError(
            f"{settings.where}: hidden_size is {seen['width']} in vision_config and {read['width']} in text_config; the format"
            " for answers has one width for both, because its decoder looks at the question with that of the image."
        )
    ids = {ours: whole(text, theirs, default) for theirs, (ours, default) in IDS.items()}
    ids["enc_id"] = whole(text, "enc_token_id", read["vocab_size"] - 1)
    smoothing = text.values.get("label_smoothing", 0.0)
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float)) or not 0 <= smoothing < 1:
        raise CheckpointError(f"{text.where}: label_smoothing is {smoothing!r}; expected a number from 0 to below 1.")
    try:
        return BLIPConfig(
            blip_vit(**seen),
            BertConfig(**read, seen=seen["width"]),
            **ids,
            tasks=tasks,
            shared="nothing",
            embedding=settings.number("image_text_hidden_size", 256),
            smoothing=float(smoothing),
        )
    except CheckpointError:
        raise
    except ValueError as error:  # our configs' own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's BLIP can be. {error}") from error


def write_config(config: BLIPConfig, architecture: str) -> dict[str, Any]:
    """A config.json from our config.

    Raises:
        CheckpointError: there is a slow copy.
    """
    if config.momentum is not None:
        raise CheckpointError(
            "this BLIP has a slow copy and queues, which are for training only and have no place in the released format."
            f" Save model.only{config.tasks!r}."
        )
    text = written(config.text, TEXT) | {theirs: getattr(config, ours) for theirs, (ours, _) in IDS.items()}
    return {
        "model_type": "blip",
        "architectures": [architecture],
        "image_text_hidden_size": config.embedding,
        **FIXED,
        "vision_config": {"model_type": "blip_vision_model", **written(config.vision, VISION), **VISION_FIXED},
        "text_config": {
            "model_type": "blip_text_model",
            **text,
            **TEXT_FIXED,
            "encoder_hidden_size": config.vision.width,
            "enc_token_id": config.enc_id,
            "eos_token_id": config.sep_id,
            "label_smoothing": config.smoothing,
        },
    }


def _format(architecture: str, wrapper: type, *tasks: str) -> Format:
    read, write = partial(read_config, tasks=tasks), partial(write_config, architecture=architecture)
    return Format("blip", architecture, BLIP, wrapper, read, write, table, lambda c: c.tasks == tasks)


FORMATS = (
    _format("BlipForConditionalGeneration", Captioner, "lm"),
    _format("BlipForImageTextRetrieval", Matcher, "itc", "itm"),
    _format("BlipForQuestionAnswering", Respondent, "vqa"),
)
