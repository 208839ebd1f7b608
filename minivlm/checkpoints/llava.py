"""LLaVA's released format, transformers' `LlavaForConditionalGeneration` (`llava-hf/llava-1.5-7b-hf`).

What is not what it seems (transformers, `models/llava/modeling_llava.py`):

- `vision_feature_layer` counts states, not layers: 0 enters the first layer, -1 leaves the last, -2 enters it.
- the class always has two matrices. LLaVA's one is said with `projector_hidden_act` "linear", which does nothing, and an
  identity as the second matrix. So it is written, and so alone is "linear" read.
- names come and go with versions: `vision_model.` in those of the vision encoder, and all of them as the class has them in
  memory (`model.language_model.layers`, `lm_head`; `save_pretrained(save_original_format=False)`). All are read, the released
  ones are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.checkpoints import clip, llama
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.inputs import (
    check_ids,
    check_images,
    check_labels,
    check_mask,
    check_place,
    check_places,
    check_writing,
)
from minivlm.checkpoints.names import Idle, Row, Same, Table
from minivlm.checkpoints.settings import Settings, written
from minivlm.models.llava import LLaVA, LLaVAConfig
from minivlm.vision.vit import ViTConfig

# What a vision_config that is not there at all means; one that leaves something out means CLIP's defaults.
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
ACTIVATION = {1: "linear", 2: "gelu"}  # `projector_hidden_act`, by our connector's layers
IMAGE_ID, LAYER = 32000, -2  # `image_token_index` and `vision_feature_layer`, where the file does not say

# The names of the class in memory, and those in released files.
IN_MEMORY = (
    (r"lm_head\.", "language_model.lm_head."),
    (r"model\.language_model\.", "language_model.model."),
    (r"model\.vision_tower\.", "vision_tower."),
    (r"model\.multi_modal_projector\.", "multi_modal_projector."),
)

# What our class has built in.
FIXED = {"vision_feature_select_strategy": "default", "multimodal_projector_bias": True}


def tower_table(config: LLaVAConfig) -> Table:
    """The vision encoder's names, with and without `vision_model.`"""
    table = clip.vision_table(config.vision).prefixed(theirs="vision_tower.")
    return table + Table((), aliases=((r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),))


def table(config: LLaVAConfig) -> Table:
    """Our tensor names and theirs."""
    first, second = (f"multi_modal_projector.linear_{i}.*" for i in (1, 2))
    rows: tuple[Row, ...] = (Same("connector.0.*", first), Same("connector.2.*", second))
    if config.connector_layers == 1:
        rows = (Idle("connector.0.*", (first, second)),)
    language = llama.table(config.language).prefixed("language.", "language_model.")
    return Table(rows, aliases=IN_MEMORY) + tower_table(config) + language


def read_config(settings: Settings) -> LLaVAConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect({**FIXED, "quantization_config": None})
    if settings.values.get("vision_config") is None:
        settings = Settings({**settings.values, "vision_config": VISION}, settings.where)
    vision, text = settings.part("vision_config"), settings.part("text_config")
    vision.expect({"model_type": "clip_vision_model", **clip.FIXED})
    text.expect({"model_type": "llama"})
    if settings.values.get("tie_word_embeddings"):  # either place will do
        text = Settings({**text.values, "tie_word_embeddings": settings.values["tie_word_embeddings"]}, text.where)
    activation = settings.values.get("projector_hidden_act", ACTIVATION[2])
    layers = next((number for number, name in ACTIVATION.items() if name == activation), None)
    if layers is None:
        raise CheckpointError(
            f"{settings.where}: projector_hidden_act is {activation!r}; supported: 'gelu' (LLaVA-1.5's two matrices), and"
            " 'linear' with an identity as the second one (LLaVA's one matrix)."
        )
    sizes = vision.numbers(clip.VISION)
    image_id = whole(settings, "image_token_index", whole(settings, "image_token_id", IMAGE_ID))
    settings.expect({"image_token_id": image_id})  # the newer name, where both are there
    layer = whole(settings, "vision_feature_layer", LAYER)
    return joined(settings, sizes, text, image_id, layers, layer)


def whole(settings: Settings, name: str, default: int | None) -> int:
    """A whole number of any sign; default None: it must be there.

    Raises:
        CheckpointError: it is something else.
    """
    value = settings.values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{settings.where}: {name} is {value!r}; expected one whole number.")
    return value


def joined(
    settings: Settings, vision: Mapping[str, Any], text: Settings, image_id: int, layers: int, layer: int
) -> LLaVAConfig:
    """A config from its parts. `layer`: which state of the vision encoder is read, as `vision_feature_layer` counts.

    Raises:
        CheckpointError: they do not go together.
    """
    depth = vision["layers"]
    skip = -1 - layer if layer < 0 else depth - layer
    if not 0 <= skip < depth:
        raise CheckpointError(
            f"{settings.where}: the vision layer read is {layer}; expected -{depth} to -1, or 1 to {depth}: one of the"
            f" {depth} states that leave a layer."
        )
    language = llama.read_config(text)
    try:
        return LLaVAConfig(ViTConfig(**vision), language, image_id, layers, skip)
    except ValueError as error:  # our configs' own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's LLaVA can be. {error}") from error


def write_config(config: LLaVAConfig) -> dict[str, Any]:
    """A config.json from our config.

    Raises:
        CheckpointError: the format has no place for so many layers in the connector.
    """
    if config.connector_layers not in ACTIVATION:
        raise CheckpointError(
            f"config.connector_layers is {config.connector_layers}, and the released format has one or two. Keep these"
            " weights with safetensors instead."
        )
    text = llama.write_config(config.language)
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        **FIXED,
        "projector_hidden_act": ACTIVATION[config.connector_layers],
        "vision_feature_layer": -1 - config.skip_layers,
        "image_token_index": config.image_id,
        "image_seq_length": config.image_tokens,
        "tie_word_embeddings": config.language.tied,
        "vision_config": {
            "model_type": "clip_vision_model",
            **written(config.vision, clip.VISION),
            **clip.FIXED,
        },
        "text_config": text,
    }


@dataclass(frozen=True)
class ImageFeatures:
    """What `get_image_features` gives: each patch as a token of the language model."""

    pooler_output: Float[Tensor, "images n d"]


class ConditionalGeneration(nn.Module):
    """A lesson's `LLaVA` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: LLaVA) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> ImageFeatures:
        """Images as tokens.

        Args:
            pixel_values: (images, C, H, W), normalised.

        Raises:
            TypeError, ValueError: not the images that this model takes.
        """
        return ImageFeatures(self.model.embed_image(self._check_images(pixel_values)))

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> llama.CausalLMOutput:
        """Scores for each next token, and the loss if labels are given.

        Args:
            input_ids: (B, T), with `config.image_tokens` places of `config.image_id` for each image.
            pixel_values: (images, C, H, W), normalised, all images of the batch in reading order; None: there are none.
            attention_mask: (B, T), 1 for tokens and 0 for padding, on either side.
            labels: (B, T), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        input_ids, pixel_values, keep = self._check(input_ids, pixel_values, attention_mask)
        if labels is not None:
            labels = self._check_labels(labels, input_ids)
        embeddings = self.model.embed(input_ids, pixel_values)
        features = self.model.language.features(embeddings=embeddings, keep=keep)
        loss = None if labels is None else self.model.language.next_token_loss(features, labels)
        return llama.CausalLMOutput(loss, self.model.language.logits(features))

    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
        eos_token_id: int | None = None,
        pad_token_id: int = 0,
    ) -> Int[Tensor, "b t"]:
        """Prompts, padded on the left, with their greedy continuations.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        ids, pixel_values, keep = self._check(input_ids, pixel_values, attention_mask)
        how = check_writing(self.config.language.vocab_size, max_new_tokens, eos_token_id, pad_token_id)
        return torch.cat([ids, self.model.generate(ids, pixel_values, keep, **how)], dim=1)

    def _check(self, ids: Any, images: Any, mask: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Ids, `pixel_values` and `keep`, if all fits together."""
        self._check_place(input_ids=ids, attention_mask=mask)
        ids = check_ids(ids, self.config.language.vocab_size, self.config.language.context)
        images = None if images is None else self._check_images(images)
        keep = check_mask(mask, ids)
        given = 0 if images is None else len(images)
        check_places(ids, keep, self.config.image_id, self.config.image_tokens, given)
        return ids, images, keep

    def _check_place(self, **given: Any) -> None:
        check_place(self.model.language.embedding.weight.device, **given)

    def _check_images(self, images: Any) -> Tensor:
        self._check_place(pixel_values=images)
        check_images(self.config.vision, images)
        return images.to(self.model.vision.positions.dtype)

    def _check_labels(self, labels: Any, ids: Tensor) -> Tensor:
        self._check_place(labels=labels)
        return check_labels(labels, ids.shape, self.config.language.vocab_size)


FORMAT = Format(
    "llava", "LlavaForConditionalGeneration", LLaVA, ConditionalGeneration, read_config, write_config, table
)
