"""What people hand to the classes with the reference's arguments, checked before anything is computed."""

from typing import Any

import torch
from torch import Tensor

from minivlm.vision.vit import ViTConfig


def check_place(device: torch.device, **given: Any) -> None:
    """Whether they are tensors where the model is; None is one that was not given.

    Raises:
        TypeError, ValueError: one is not.
    """
    for name, tensor in given.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor; got {type(tensor).__name__}.")
        if tensor is not None and tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device}, and the model on {device}; move one to the other.")


def check_images(config: ViTConfig, pixel_values: Any) -> None:
    """Whether this vision encoder can look at them.

    Raises:
        TypeError, ValueError: it cannot.
    """
    if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
        raise TypeError(f"pixel_values must be a float tensor; got {_kind(pixel_values)}.")
    shape = (config.channels, config.image_size, config.image_size)
    if pixel_values.ndim != 4 or pixel_values.shape[1:] != shape or not len(pixel_values):
        raise ValueError(
            f"pixel_values must have shape {('B', *shape)}; got {tuple(pixel_values.shape)}."
            f" minivlm.vision.processor.ImageProcessor({config.image_size}) resizes and crops."
        )


def check_ids(ids: Any, vocab_size: int, context: int, name: str = "input_ids", whose: str = "") -> Tensor:
    """Ids as int64, if they are texts of this vocabulary that the context holds.

    Args:
        whose: "the Q-Former's ", where a model has a tokenizer beside the usual one.

    Raises:
        TypeError, ValueError: they are not.
    """
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must be a tensor of whole numbers; got {_kind(ids)}.")
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"{name} must have shape (B, T); got {tuple(ids.shape)}.")
    if ids.shape[1] > context:
        raise ValueError(
            f"{name} has {ids.shape[1]} columns, but {whose or 'the '}context holds {context}; shorten the texts."
        )
    low, high = (int(x) for x in ids.aminmax())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"{name} runs from {low} to {high}; {whose or 'the '}vocabulary has ids 0 to {vocab_size - 1}."
            " Use the tokenizer that belongs to this checkpoint."
        )
    return ids.long()


def check_embeddings(given: Any, width: int, context: int) -> Tensor:
    """Vectors in the place of words.

    Raises:
        TypeError, ValueError: they are something else.
    """
    if not isinstance(given, Tensor) or not given.is_floating_point():
        raise TypeError(f"inputs_embeds must be a float tensor; got {_kind(given)}.")
    if given.ndim != 3 or given.shape[2] != width or 0 in given.shape:
        raise ValueError(f"inputs_embeds must have shape (B, T, {width}); got {tuple(given.shape)}.")
    if given.shape[1] > context:
        raise ValueError(f"inputs_embeds has {given.shape[1]} columns, but the context holds {context}; shorten the texts.")
    return given


def check_mask(mask: Any, given: Tensor, name: str = "attention_mask") -> Tensor | None:
    """`keep` from a mask for ids or embeddings, if it is one; None stays None.

    Raises:
        ValueError: it has another shape, or other numbers than 1 and 0.
    """
    if mask is None:
        return None
    shape = tuple(given.shape[:2])
    if not isinstance(mask, Tensor) or mask.shape != shape:
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"{name} must have shape {shape}; got {found}.")
    keep = mask.bool()
    if not torch.equal(keep.to(mask.dtype), mask):
        raise ValueError(f"{name} must hold 1 for tokens and 0 for padding, and nothing else.")
    return keep


def check_words(keep: Tensor | None, name: str = "attention_mask") -> Tensor | None:
    """`keep`, if it leaves something of each text.

    Raises:
        ValueError: it hides a text.
    """
    if keep is not None and not (some := keep.any(dim=1)).all():
        raise ValueError(f"row {int(some.int().argmin())}: {name} hides the whole text.")
    return keep


def check_labels(labels: Any, shape: torch.Size, vocab_size: int) -> Tensor:
    """Labels as int64, if they say what is to be learned; `shape`: that of the ids, (B, T).

    Raises:
        TypeError, ValueError: they do not.
    """
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be a tensor of whole numbers; got {_kind(labels)}.")
    if labels.shape != shape:
        raise ValueError(f"labels must have shape {tuple(shape)}; got {tuple(labels.shape)}.")
    learned = labels[:, 1:][labels[:, 1:] != -100]
    low, high = (int(x) for x in learned.aminmax()) if len(learned) else (-1, -1)
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"labels must be ids from 0 to {vocab_size - 1}, or -100 where there is no loss, and some of them ids after"
            f" the first column; got {f'numbers from {low} to {high}' if len(learned) else 'none there'}."
        )
    return labels.long()


def check_writing(vocab_size: int, max_new_tokens: Any, eos_token_id: Any, pad_token_id: Any) -> dict[str, int | None]:
    """What `generate` takes, under our names.

    Raises:
        TypeError, ValueError: not numbers, or ids that do not exist.
    """
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise TypeError(f"max_new_tokens must be a whole number; got {max_new_tokens!r}.")
    for name, token in (("eos_token_id", eos_token_id), ("pad_token_id", pad_token_id)):
        one = isinstance(token, int) and not isinstance(token, bool)
        if not (one and 0 <= token < vocab_size) and not (token is None and name == "eos_token_id"):
            raise ValueError(f"{name} is {token!r}; expected one id from 0 to {vocab_size - 1}.")
    return {"max_new_tokens": max_new_tokens, "eos": eos_token_id, "pad": pad_token_id}


def check_places(ids: Tensor, keep: Tensor | None, image_id: int, each: int, images: int) -> None:
    """Whether texts have a place for each of so many images, `each` tokens of `image_id` long.

    Raises:
        ValueError: places are hidden, or there are more or fewer of them.
    """
    places = ids == image_id
    if keep is not None and (hidden := (places & ~keep).any(dim=1)).any():
        raise ValueError(
            f"row {int(hidden.int().argmax())}: attention_mask hides places of an image (id {image_id}). If they are"
            " padding, pad with another id."
        )
    per_row = places.sum(dim=1)
    if (odd := per_row % each != 0).any():
        row = int(odd.int().argmax())
        raise ValueError(
            f"row {row} of input_ids has {int(per_row[row])} places for images (id {image_id}); an image takes"
            f" {each} of them, so a row needs a multiple of that."
        )
    if (wanted := int(per_row.sum()) // each) != images:
        raise ValueError(
            f"input_ids has places for {wanted} images (id {image_id}, {each} times each), and pixel_values has"
            f" {images}; expected each image of the batch once, in reading order."
        )


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
