"""A Flamingo that takes the reference's arguments, checks them, and answers under its names (transformers,
`modeling_idefics.py`).

What the reference does and a lesson's `Flamingo` does not: images come as (B, images, ...), each text with as many, and a mask
says who looks at which of them; where an image stands in a text has no say in it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.checkpoints.inputs import check_ids, check_images, check_labels, check_mask, check_place, check_writing
from minivlm.language.generate import generate
from minivlm.models.flamingo import Flamingo


@dataclass(frozen=True)
class VisionText2TextOutput:
    """What `IdeficsForVisionText2Text` gives; `image_hidden_states` are the resampler's tokens."""

    loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "b t v"]
    image_hidden_states: Float[Tensor, "b most m d"]


class VisionText2Text(nn.Module):
    """A lesson's `Flamingo` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: Flamingo) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> VisionText2TextOutput:
        """Scores for each next token, and the loss if labels are given.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 1 for tokens and 0 for padding, on either side.
            pixel_values: (B, images, C, H, W), normalised; a text with fewer images than others has any in their places.
            image_attention_mask: (B, T, images), 1 where a token looks at an image.
            labels: (B, T), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        ids, images, looks, keep = self._check(input_ids, attention_mask, pixel_values, image_attention_mask)
        if labels is not None:
            labels = self._check_labels(labels, ids)
        language = self.model.language
        with self.model.looking(images, looks):
            features = language.features(ids, keep=keep)
        loss = None if labels is None else language.next_token_loss(features, labels)
        return VisionText2TextOutput(loss, language.logits(features), images)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
        eos_token_id: int | None = None,
        pad_token_id: int = 0,
    ) -> Int[Tensor, "b t"]:
        """Prompts, padded on the left, with their greedy continuations, which look at what the last token looks at.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        ids, images, looks, keep = self._check(input_ids, attention_mask, pixel_values, image_attention_mask)
        how = check_writing(self.config.language.vocab_size, max_new_tokens, eos_token_id, pad_token_id)
        with self.model.looking(images, looks):
            return torch.cat([ids, generate(self.model.language, ids, keep, **how)], dim=1)

    def _check(
        self, ids: Any, mask: Any, pixels: Any, looks: Any
    ) -> tuple[Tensor, Float[Tensor, "b most m d"], Bool[Tensor, "b t most"], Tensor | None]:
        """Ids, the resampler's tokens of all images, who looks at which, and `keep`, if all fits together."""
        if pixels is None or looks is None:
            raise TypeError(
                "pixel_values and image_attention_mask must be tensors; got None. For a text without images give any image,"
                " and a mask of zeros: nobody looks at it."
            )
        self._check_place(input_ids=ids, attention_mask=mask, pixel_values=pixels, image_attention_mask=looks)
        ids = check_ids(ids, self.config.language.vocab_size, self.config.language.context)
        keep = check_mask(mask, ids)
        if pixels.ndim != 5 or len(pixels) != len(ids) or not pixels.shape[1]:
            vision = self.config.vision
            shape = f"({len(ids)}, images, {vision.channels}, {vision.image_size}, {vision.image_size})"
            raise ValueError(f"pixel_values must have shape {shape}; got {tuple(pixels.shape)}.")
        check_images(self.config.vision, pixels.flatten(0, 1))
        wanted = (*ids.shape, pixels.shape[1])
        if looks.shape != wanted:
            raise ValueError(f"image_attention_mask must have shape {wanted}; got {tuple(looks.shape)}.")
        if not torch.equal(looks.bool().to(looks.dtype), looks):
            raise ValueError("image_attention_mask must hold 1 where a token looks at an image, else 0, and nothing else.")
        flat = pixels.flatten(0, 1).to(self.model.vision.positions.dtype)
        return ids, self.model.embed_image(flat).unflatten(0, pixels.shape[:2]), looks.bool(), keep

    def _check_place(self, **given: Any) -> None:
        check_place(self.model.language.embedding.weight.device, **given)

    def _check_labels(self, labels: Any, ids: Tensor) -> Tensor:
        self._check_place(labels=labels)
        return check_labels(labels, ids.shape, self.config.language.vocab_size)
