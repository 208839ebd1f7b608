"""CLIP's released format: the folders of `openai/clip-vit-base-patch32` and its sisters, and transformers' `CLIPModel`.

Three things in it are not what they seem (transformers, `models/clip/modeling_clip.py` and `configuration_clip.py`):

- `eos_token_id` 2 does not mean token 2. OpenAI's first files said 2 by mistake, and so 2 means: the highest id in a row ends
  the text. Any other number means itself.
- `text_config_dict` and `vision_config_dict`, where they are not null, win over `text_config` and `vision_config`, and so do
  the defaults of whatever they leave out.
- `pre_layrnorm` is spelled like this.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.inputs import check_ids, check_images, check_mask
from minivlm.checkpoints.names import Flat, Row, Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.language.text_encoder import TextConfig
from minivlm.models.clip import CLIP, CLIPConfig, contrastive_loss
from minivlm.vision.vit import ViTConfig

# config.json: their name, our name, their default.
VISION = (
    Field("image_size", "image_size", 224),
    Field("patch_size", "patch_size", 32),
    Field("num_channels", "channels", 3),
    Field("hidden_size", "width", 768),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 12),
    Field("intermediate_size", "hidden", 3072),
    Field("layer_norm_eps", "eps", 1e-5),
)
TEXT = (
    Field("vocab_size", "vocab_size", 49408),
    Field("max_position_embeddings", "context", 77),
    Field("hidden_size", "width", 512),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 8),
    Field("intermediate_size", "hidden", 2048),
    Field("layer_norm_eps", "eps", 1e-5),
)
EOS, HIGHEST_ID = 49407, 2  # `eos_token_id`: the default, and the number that means "the highest id in a row"
MOST_LOG_SCALE = 80  # e to the power of more is no float32

# What our class has built in.
FIXED = {"hidden_act": "quick_gelu", "attention_dropout": 0.0}


def _tower(ours: str, theirs: str) -> tuple[Row, ...]:
    """The blocks of either tower."""
    block, layer = f"{ours}.blocks.*.", f"{theirs}.encoder.layers.*."
    return (
        Same(block + "norm_1.*", layer + "layer_norm1.*"),
        Stacked(block + "attention.qkv.*", tuple(f"{layer}self_attn.{x}_proj.*" for x in "qkv")),
        Same(block + "attention.out.*", layer + "self_attn.out_proj.*"),
        Same(block + "norm_2.*", layer + "layer_norm2.*"),
        Same(block + "mlp.0.*", layer + "mlp.fc1.*"),
        Same(block + "mlp.2.*", layer + "mlp.fc2.*"),
    )


def vision_table(config: ViTConfig) -> Table:
    """Our tensor names and theirs, of the vision tower alone, which other models have inside."""
    patch = (config.channels, config.patch_size, config.patch_size)
    rows = (
        Same("vision.class_token", "vision_model.embeddings.class_embedding"),
        Flat("vision.patch_embedding.weight", "vision_model.embeddings.patch_embedding.weight", patch),
        Same("vision.positions", "vision_model.embeddings.position_embedding.weight"),
        Same("vision.norm_before.*", "vision_model.pre_layrnorm.*"),
        *_tower("vision", "vision_model"),
        Same("vision.norm_after.*", "vision_model.post_layernorm.*"),
    )
    return Table(rows, ("vision_model.embeddings.position_ids",))


def table(config: CLIPConfig) -> Table:
    """Our tensor names and theirs."""
    rows = (
        Same("log_scale", "logit_scale"),
        Same("image_projection.weight", "visual_projection.weight"),
        Same("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
        Same("text.positions", "text_model.embeddings.position_embedding.weight"),
        *_tower("text", "text_model"),
        Same("text.norm_after.*", "text_model.final_layer_norm.*"),
        Same("text_projection.weight", "text_projection.weight"),
    )
    return vision_table(config.vision) + Table(rows, ("text_model.embeddings.position_ids",))


def read_config(settings: Settings) -> CLIPConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    vision = part(settings, "vision_config", VISION)
    text = part(settings, "text_config", TEXT)
    settings.expect({"quantization_config": None})
    eos = text.values.get("eos_token_id", EOS)
    if isinstance(eos, bool) or not isinstance(eos, int):
        raise CheckpointError(
            f"{text.where}: eos_token_id is {eos!r}; expected one whole number, the id that ends a text."
        )
    scale = settings.values.get("logit_scale_init_value", 2.6592)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) <= MOST_LOG_SCALE:
        raise CheckpointError(
            f"{settings.where}: logit_scale_init_value is {scale!r}; expected a number, a logarithm of at most"
            f" {MOST_LOG_SCALE} either way."
        )
    try:
        return CLIPConfig(
            ViTConfig(**vision.numbers(VISION)),
            TextConfig(**text.numbers(TEXT), eot_id=None if eos == HIGHEST_ID else eos),
            embedding=settings.number("projection_dim", 512),
            temperature=math.exp(-scale),
        )
    except CheckpointError:
        raise
    except ValueError as error:  # our configs' own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's CLIP can be. {error}") from error


def part(settings: Settings, name: str, fields: tuple[Field, ...]) -> Settings:
    """One tower's settings; `text_config_dict` wins over `text_config`, with its defaults, as in the reference."""
    found, winner = settings.part(name), settings.part(f"{name}_dict")
    if settings.values.get(f"{name}_dict") is not None:
        defaults = {field.theirs: field.default for field in fields} | FIXED | {"eos_token_id": EOS}
        found = Settings({**found.values, **defaults, **winner.values}, winner.where)
    found.expect(FIXED)
    return found


def write_config(config: CLIPConfig) -> dict[str, Any]:
    """A config.json from our config.

    Raises:
        CheckpointError: `eot_id` is 2, which the format reads as something else.
    """
    if config.text.eot_id == HIGHEST_ID:
        raise CheckpointError(
            f"config.text.eot_id is {HIGHEST_ID}, and the released format reads this number as 'the highest id in a row ends"
            " the text': the reference would look at another token. Give the end-of-text token another id."
        )
    eos = HIGHEST_ID if config.text.eot_id is None else config.text.eot_id
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": config.embedding,
        "logit_scale_init_value": -math.log(config.temperature),
        "vision_config": {"model_type": "clip_vision_model", **written(config.vision, VISION), **FIXED},
        "text_config": {
            "model_type": "clip_text_model",
            **written(config.text, TEXT),
            **FIXED,
            "eos_token_id": eos,
            "bos_token_id": None,  # these two are the tokenizer's business; the defaults may lie outside the vocabulary
            "pad_token_id": None,
        },
    }


@dataclass(frozen=True)
class Tower:
    """What `get_image_features` and `get_text_features` give: every position, and the projected feature (of any length)."""

    last_hidden_state: Float[Tensor, "b t d"]
    pooler_output: Float[Tensor, "b e"]


@dataclass(frozen=True)
class CLIPOutput:
    """What `CLIPModel` gives. The embeddings are unit vectors."""

    loss: Float[Tensor, ""] | None
    logits_per_image: Float[Tensor, "b k"]
    logits_per_text: Float[Tensor, "k b"]
    text_embeds: Float[Tensor, "k e"]
    image_embeds: Float[Tensor, "b e"]
    text_model_output: Tower
    vision_model_output: Tower


class CLIPModel(nn.Module):
    """A lesson's `CLIP` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> Tower:
        """`pooler_output` is the projected class token; `last_hidden_state` is what comes out of the last block.

        Args:
            pixel_values: (B, C, H, W), normalised.

        Raises:
            TypeError, ValueError: not the images that this model takes.
        """
        check_images(self.config.vision, pixel_values)
        features = self.model.vision(pixel_values.to(self.model.log_scale.dtype))
        pooled = self.model.vision.norm_after(features[:, 0])
        return Tower(features, self.model.image_projection(pooled))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tower:
        """`pooler_output` is the projected end-of-text token; `last_hidden_state` comes after the final norm.

        Args:
            input_ids: (B, T) with an end-of-text token in each row.
            attention_mask: (B, T), 1 for tokens and 0 for padding, on either side. Positions are counted from the row's
                first column, padding included, as in the reference.

        Raises:
            TypeError, ValueError: not the ids or mask that this model takes.
        """
        ids = self._check_ids(input_ids)
        keep = None if attention_mask is None else self._check_mask(attention_mask, ids)
        features = self.model.text(ids, keep)
        return Tower(features, self.model.text_projection(self.model.text.pool(features, ids)))

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
    ) -> CLIPOutput:
        """Both towers, the scaled cosine of every image with every text, and the contrastive loss if asked for.

        Raises:
            TypeError, ValueError: as in the two methods above; or a loss is asked for and there are not as many images as
                texts.
        """
        vision = self.get_image_features(pixel_values)
        text = self.get_text_features(input_ids, attention_mask)
        image_embeds, text_embeds = (F.normalize(tower.pooler_output, dim=-1) for tower in (vision, text))
        logits = self.model.log_scale.exp() * image_embeds @ text_embeds.T
        if return_loss and logits.shape[0] != logits.shape[1]:
            raise ValueError(
                "the contrastive loss needs one text for each image, in the same order;"
                f" got {logits.shape[0]} images and {logits.shape[1]} texts."
            )
        loss = contrastive_loss(logits) if return_loss else None
        return CLIPOutput(loss, logits, logits.T, text_embeds, image_embeds, text, vision)

    def _check_ids(self, ids: Tensor) -> Int[Tensor, "b t"]:
        text = self.config.text
        ids = check_ids(ids, text.vocab_size, text.context)
        if text.eot_id is not None and not (has := (ids == text.eot_id).any(dim=1)).all():
            raise ValueError(
                f"row {int(has.int().argmin())} of input_ids has no end-of-text token (id {text.eot_id}), which is where its"
                " feature is read. Was the text cut off? Keep the last token when truncating."
            )
        return ids

    def _check_mask(self, mask: Tensor, ids: Int[Tensor, "b t"]) -> Tensor:
        keep = check_mask(mask, ids)
        eot = self.config.text.eot_id
        end = (ids if eot is None else (ids == eot).int()).argmax(dim=1)
        hidden = ~keep[torch.arange(len(ids), device=ids.device), end]
        if hidden.any():
            raise ValueError(
                f"row {int(hidden.int().argmax())}: attention_mask hides its first end-of-text token, where the feature is"
                " read. If padding is on the left, pad with another id than the one that ends a text."
            )
        return keep


FORMAT = Format("clip", "CLIPModel", CLIP, CLIPModel, read_config, write_config, table)
