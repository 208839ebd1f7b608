"""BLIPs that take the reference's arguments, check them, and answer under its names (transformers, `modeling_blip.py`).

What the reference does and a lesson's `BLIP` does not:

- the first token is what the caller says, even in front of the image, where BLIP was trained with [ENC]; only what is to be
  continued begins with [DEC]. Its last token is dropped: a tokenizer has put [SEP] there.
- `forward` counts positions from the first column, padding included: a text padded on the left is read with others than
  alone. `generate` does not count it.
- questions are answered with their padding in sight (in the original code too). In `forward` it is hidden, as in the
  original code; the reference means to and does not (transformers 5.23 loses the mask on its way to the cross-attention).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.checkpoints.inputs import check_ids, check_images, check_labels, check_mask, check_place, check_words
from minivlm.models.blip import BLIP, begin, feature


@dataclass(frozen=True)
class CaptionOutput:
    """What `BlipForConditionalGeneration` gives."""

    loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "b t v"]
    image_embeds: Float[Tensor, "b n d"]
    last_hidden_state: Float[Tensor, "b n d"]


@dataclass(frozen=True)
class MatchOutput:
    """What `BlipForImageTextRetrieval` gives. `itm_score`: scores for no and yes of each pair, or the cosine of every image
    with every text."""

    itm_score: Float[Tensor, "b k"]
    last_hidden_state: Float[Tensor, "b n d"]
    question_embeds: Float[Tensor, "texts t e"]


@dataclass(frozen=True)
class AnswerOutput:
    """What `BlipForQuestionAnswering` gives."""

    loss: Float[Tensor, ""] | None
    image_embeds: Float[Tensor, "b n d"]
    last_hidden_state: Float[Tensor, "b n d"]


class Wrapper(nn.Module):
    """What the three have in common: a lesson's `BLIP` (`.model`) and checks."""

    def __init__(self, model: BLIP) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def _see(self, pixel_values: Tensor) -> Float[Tensor, "b n d"]:
        self._check_place(pixel_values=pixel_values)
        check_images(self.config.vision, pixel_values)
        return self.model.see(pixel_values.to(self.model.vision.positions.dtype))

    def _read(self, ids: Tensor, mask: Tensor | None, name: str = "input_ids") -> Tensor | None:
        """`keep`, if ids and mask are what this model takes."""
        self._check_place(**{name: ids, "attention_mask": mask})
        ids = check_ids(ids, self.config.text.vocab_size, self.config.text.context, name)
        return check_words(check_mask(mask, ids))

    def _check_place(self, **given: Tensor | None) -> None:
        check_place(self.model.vision.positions.device, **given)

    def _one_each(self, images: Tensor, ids: Tensor) -> None:
        if len(images) != len(ids):
            raise ValueError(f"expected one text for each image; got {len(images)} images and {len(ids)} texts.")

    def _loss(self, features: Tensor, labels: Tensor, ids: Tensor) -> Float[Tensor, ""]:
        labels = check_labels(labels, ids.shape, self.config.text.vocab_size)
        return self.model.decoder.next_token_loss(features, labels, self.config.smoothing)


class Captioner(Wrapper):
    """`BlipForConditionalGeneration`: writes captions."""

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CaptionOutput:
        """Scores for each next token, and the loss if labels are given.

        Args:
            pixel_values: (B, 3, H, W), normalised.
            input_ids: (B, T), [DEC] first.
            attention_mask: (B, T), 1 for tokens and 0 for padding.
            labels: (B, T), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        image, keep = self._see(pixel_values), self._read(input_ids, attention_mask)
        self._one_each(image, input_ids)
        features = self.model.decoder(input_ids, image, True, keep)
        loss = None if labels is None else self._loss(features, labels, input_ids)
        return CaptionOutput(loss, self.model.decoder.logits(features), image, image)

    def generate(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
    ) -> Int[Tensor, "b t"]:
        """[DEC], what `input_ids` says between its first and its last token, and the greedy continuation.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        image, keep, c = self._see(pixel_values), None, self.config
        prompt = torch.full((len(image), 1), c.dec_id, device=image.device)
        if input_ids is not None:
            keep = self._read(input_ids, attention_mask)
            self._one_each(image, input_ids)
            if input_ids.shape[1] < 2:
                raise ValueError("input_ids needs two columns or more: its first and its last token are not used.")
            prompt = begin(input_ids, c.dec_id)[:, :-1]
            keep = None if keep is None else keep[:, :-1]
        how = {"max_new_tokens": max_new_tokens, "eos": c.sep_id, "pad": c.pad_id}
        return torch.cat([prompt, self.model.decoder.generate(prompt, image, keep, **how)], dim=1)


class Matcher(Wrapper):
    """`BlipForImageTextRetrieval`: says whether a text belongs to an image."""

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        use_itm_head: bool = True,
        attention_mask: Tensor | None = None,
    ) -> MatchOutput:
        """Judge pairs in sight of the image, or compare every image with every text.

        Args:
            input_ids: (B, T), [CLS] or [ENC] first.
            pixel_values: (B, 3, H, W), normalised.
            use_itm_head: whether to judge (ITM) or to compare (ITC).
            attention_mask: (B, T), 1 for tokens and 0 for padding.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        image, keep, model = self._see(pixel_values), self._read(input_ids, attention_mask), self.model
        if use_itm_head:
            self._one_each(image, input_ids)
            text = model.encoder(input_ids, image, keep=keep)
            return MatchOutput(model.match_head(text[:, 0]), image, text)
        text = model.encoder(input_ids, keep=keep)
        cosine = feature(model.image_projection, image) @ feature(model.text_projection, text).T
        return MatchOutput(cosine, image, text)


class Respondent(Wrapper):
    """`BlipForQuestionAnswering`: answers questions."""

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> AnswerOutput:
        """The loss of answers. (The reference gives no scores.)

        Args:
            input_ids: (B, T) questions.
            pixel_values: (B, 3, H, W), normalised.
            decoder_input_ids: (B, A) answers, [DEC] first; None: the labels.
            decoder_attention_mask, attention_mask: of answers and questions, 1 for tokens and 0 for padding.
            labels: (B, A), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        image, keep = self._see(pixel_values), self._read(input_ids, attention_mask)
        self._one_each(image, input_ids)
        answers = labels if decoder_input_ids is None else decoder_input_ids
        if answers is None:
            raise ValueError("give decoder_input_ids or labels, or call generate.")
        name = "labels (without decoder_input_ids)" if decoder_input_ids is None else "decoder_input_ids"
        kept = self._read(answers, decoder_attention_mask, name)
        self._one_each(image, answers)
        asked = self.model.encoder(input_ids, image, keep=keep)
        features = self.model.decoder(answers, asked, True, kept, keep)
        loss = None if labels is None else self._loss(features, labels, answers)
        return AnswerOutput(loss, image, image)

    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 20,
    ) -> Int[Tensor, "b t"]:
        """[DEC] and the greedy answer.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        image, keep, c = self._see(pixel_values), self._read(input_ids, attention_mask), self.config
        self._one_each(image, input_ids)
        asked = self.model.encoder(input_ids, image, keep=keep)
        prompt = torch.full((len(image), 1), c.dec_id, device=image.device)
        how = {"max_new_tokens": max_new_tokens, "eos": c.sep_id, "pad": c.pad_id}
        return torch.cat([prompt, self.model.decoder.generate(prompt, asked, **how)], dim=1)
