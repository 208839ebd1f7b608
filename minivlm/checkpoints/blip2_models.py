"""BLIP-2s that take the reference's arguments, check them, and answer under its names (transformers, `modeling_blip_2.py`).

Where the retrieval model's config has an `image_token_index`, the reference wants as many such tokens in front of each text as
there are queries, and takes them off again. Here a text is the text alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.checkpoints import llama, llava
from minivlm.checkpoints.inputs import check_ids, check_images, check_mask, check_place, check_words, check_writing
from minivlm.connectors.qformer import QFormerConfig, itm_mask
from minivlm.models.blip2 import BLIP2
from minivlm.models.blip2_stage1 import Matcher, similarity


@dataclass(frozen=True)
class ImageFeatures:
    """What `get_image_features` gives: what the vision encoder has seen, and each query as a token of the language model."""

    last_hidden_state: Float[Tensor, "images n s"]
    pooler_output: Float[Tensor, "images q d"]


@dataclass(frozen=True)
class RetrievalOutput:
    """What `Blip2ForImageTextRetrieval` gives. With the matching head: scores for no and yes of each pair, what queries and
    text have become, and the vision encoder's tokens. Without: the cosine of every image with every text, and unit vectors."""

    logits_per_image: Float[Tensor, "b k"]
    logits_per_text: Float[Tensor, "k b"]
    text_embeds: Float[Tensor, "..."]
    image_embeds: Float[Tensor, "b m e"]


def check_text(config: QFormerConfig, ids: Any, mask: Any, prefix: str = "") -> Tensor:
    """`keep`, if ids and mask are what this Q-Former reads. `prefix`: of the arguments' names.

    Raises:
        TypeError, ValueError: they are not.
    """
    ids = check_ids(ids, config.vocab_size, config.context, f"{prefix}input_ids", "the Q-Former's ")
    keep = check_words(check_mask(mask, ids, f"{prefix}attention_mask"), f"{prefix}attention_mask")
    return torch.ones_like(ids, dtype=torch.bool) if keep is None else keep


class ConditionalGeneration(llava.ConditionalGeneration):
    """A lesson's `BLIP2` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: BLIP2) -> None:
        nn.Module.__init__(self)
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> ImageFeatures:
        """Images as tokens.

        Args:
            pixel_values: (images, C, H, W), normalised.

        Raises:
            TypeError, ValueError: not the images that this model takes.
        """
        return self._features(pixel_values)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> llama.CausalLMOutput:
        """Scores for each next token, and the loss if labels are given.

        Args:
            pixel_values: (images, C, H, W), normalised, all images of the batch in reading order.
            input_ids: (B, T), with `config.image_tokens` places of `config.image_id` for each image.
            attention_mask: (B, T), 1 for tokens and 0 for padding, on either side.
            labels: (B, T), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        return self._answer(pixel_values, input_ids, attention_mask, labels)

    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
        eos_token_id: int | None = None,
        pad_token_id: int = 0,
    ) -> Int[Tensor, "b t"]:
        """Prompts, padded on the left, with their greedy continuations.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        how = check_writing(self.config.language.vocab_size, max_new_tokens, eos_token_id, pad_token_id)
        return self._write(pixel_values, input_ids, attention_mask, how)

    def _features(self, pixel_values: Tensor, **asked: Tensor) -> ImageFeatures:
        images = self._check_images(pixel_values)
        return ImageFeatures(self.model.see(images), self.model.embed_image(images, **asked))

    def _answer(
        self, pixel_values: Tensor, ids: Tensor, mask: Tensor | None, labels: Tensor | None, **asked: Tensor
    ) -> llama.CausalLMOutput:
        ids, images, keep = self._check(ids, pixel_values, mask)
        if labels is not None:
            labels = self._check_labels(labels, ids)
        language = self.model.language
        features = language.features(embeddings=self.model.embed(ids, images, **asked), keep=keep)
        loss = None if labels is None else language.next_token_loss(features, labels)
        return llama.CausalLMOutput(loss, language.logits(features))

    def _write(
        self, pixel_values: Tensor, ids: Tensor, mask: Tensor | None, how: dict, **asked: Tensor
    ) -> Int[Tensor, "b t"]:
        ids, images, keep = self._check(ids, pixel_values, mask)
        return torch.cat([ids, self.model.generate(ids, images, keep, **asked, **how)], dim=1)


class Retrieval(nn.Module):
    """A lesson's `Matcher` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: Matcher) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_image_text_matching_head: bool = False,
    ) -> RetrievalOutput:
        """How well images and texts go together.

        Args:
            pixel_values: (B, C, H, W), normalised.
            input_ids: (K, T), [CLS] first; with the matching head one text for each image.
            attention_mask: (K, T), 1 for tokens and 0 for padding.
            use_image_text_matching_head: look at each pair (True), or compare all (False).

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        model, config = self.model, self.config
        place = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
        check_place(model.vision.positions.device, **place)
        check_images(config.vision, pixel_values)
        keep = check_text(config.qformer, input_ids, attention_mask)
        images = pixel_values.to(model.vision.positions.dtype)
        if not use_image_text_matching_head:
            looked, read = model.embed_image(images), model.embed_text(input_ids, keep)
            logits = similarity(looked, read)
            return RetrievalOutput(logits, logits.T, read, looked)
        if len(images) != len(input_ids):
            raise ValueError(
                f"the matching head takes one text for each image; got {len(images)} images and {len(input_ids)} texts."
            )
        seen = model.see(images)
        queries, text = model.qformer(seen, input_ids, itm_mask(config.qformer.queries, keep))
        logits = model.match_head(queries).mean(dim=1)
        return RetrievalOutput(logits, logits.T, torch.cat([queries, text], dim=1), seen)
