"""InstructBLIP's released format, transformers' `InstructBlipForConditionalGeneration` (`Salesforce/instructblip-vicuna-7b`).

BLIP-2's (`blip2.py`) but for a few names, and a Q-Former that always reads. Its words are those of its own tokenizer:
`qformer_input_ids`, one row for each image.
"""

from functools import partial
from typing import Any

from jaxtyping import Int
from torch import Tensor

from minivlm.checkpoints import blip, llama
from minivlm.checkpoints.blip2 import language_table, qformer_table, read_config, write_eye, write_language
from minivlm.checkpoints.blip2_models import ConditionalGeneration, ImageFeatures, check_text
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.inputs import check_writing
from minivlm.checkpoints.names import Same, Table
from minivlm.models.instructblip import InstructBLIP, InstructBLIPConfig


def table(config: InstructBLIPConfig) -> Table:
    """Our tensor names and theirs."""
    connector = Table((Same("connector.*", "language_projection.*"),))
    qformer = qformer_table(config.qformer, "qformer.embeddings.layernorm", "qformer.embeddings.")
    return blip.vision_table(config.vision) + qformer + connector + language_table(config.language)


def write_config(config: InstructBLIPConfig) -> dict[str, Any]:
    """A config.json from our config."""
    return {
        "model_type": "instructblip",
        "architectures": ["InstructBlipForConditionalGeneration"],
        **write_eye(config.vision, config.qformer, "instructblip"),
        "image_token_index": config.image_id,
        "text_config": write_language(config.language),
    }


class InstructedGeneration(ConditionalGeneration):
    """A lesson's `InstructBLIP` (`.model`) that takes the reference's arguments, checks them, and answers under its names.

    Wherever they are: `qformer_input_ids` (images, A) is what is asked of each image, in the Q-Former's words, and
    `qformer_attention_mask` (images, A) is 1 for tokens and 0 for padding.
    """

    def get_image_features(
        self, pixel_values: Tensor, qformer_input_ids: Tensor, qformer_attention_mask: Tensor | None = None
    ) -> ImageFeatures:
        """Images as tokens.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        return self._features(pixel_values, **self._asked(pixel_values, qformer_input_ids, qformer_attention_mask))

    def forward(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> llama.CausalLMOutput:
        """Scores for each next token, and the loss if labels are given; arguments as in BLIP-2.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        asked = self._asked(pixel_values, qformer_input_ids, qformer_attention_mask)
        return self._answer(pixel_values, self._needed(input_ids), attention_mask, labels, **asked)

    def generate(
        self,
        pixel_values: Tensor,
        qformer_input_ids: Tensor,
        qformer_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
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
        asked = self._asked(pixel_values, qformer_input_ids, qformer_attention_mask)
        return self._write(pixel_values, self._needed(input_ids), attention_mask, how, **asked)

    def _needed(self, ids: Tensor | None) -> Tensor:
        if ids is None:
            raise ValueError("input_ids is missing: the text for the language model, with places for the images.")
        return ids

    def _asked(self, images: Tensor, ids: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        self._check_place(qformer_input_ids=ids, qformer_attention_mask=mask)
        keep = check_text(self.config.qformer, ids, mask, "qformer_")
        if len(images) != len(ids):
            raise ValueError(
                f"qformer_input_ids has {len(ids)} rows, and there are {len(images)} images; each image needs what is asked"
                " of it, once more where the question is the same."
            )
        return {"asked": ids, "asked_keep": keep}


FORMAT = Format(
    "instructblip",
    "InstructBlipForConditionalGeneration",
    InstructBLIP,
    InstructedGeneration,
    partial(read_config, reads=True, make=InstructBLIPConfig),
    write_config,
    table,
)
