"""LLaVA and LLaVA-1.5's connector against transformers' `LlavaForConditionalGeneration`.

Vision encoders and language models of different widths, grids of 3 x 3 and 5 x 5 patches, grouped-query heads, and a batch
with all that one may have: a text with two images, one that begins with one, one with one in its middle, one without; padded on
the right and on the left.

The reference has two matrices. LLaVA's one is compared with a first matrix, no activation, and an identity as the second.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from minivlm.models.llava import Chats
from tests.parity.cases.decoder import NEW, NO_TOKENS, eos_of, fill
from tests.parity.harness import Case, Outputs, randomise, record

IMAGE = 7
ONE_MATRIX = {
    "projector_hidden_act": "linear",
    "image_token_index": IMAGE,
    "vision_feature_layer": -2,
    "image_seq_length": 9,
    "vision_config": {
        "model_type": "clip_vision_model",
        "image_size": 15,
        "patch_size": 5,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-5,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 61,
        "max_position_embeddings": 64,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        **NO_TOKENS,
    },
}
MLP = {
    **ONE_MATRIX,
    "projector_hidden_act": "gelu",
    "image_seq_length": 25,
    "vision_config": {
        "model_type": "clip_vision_model",
        "image_size": 20,
        "patch_size": 4,
        "hidden_size": 40,
        "intermediate_size": 28,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "layer_norm_eps": 1e-5,
    },
    "text_config": {
        **ONE_MATRIX["text_config"],
        "max_position_embeddings": 90,
        "hidden_size": 24,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "num_hidden_layers": 3,
    },
}
LAST_STATE = {
    **ONE_MATRIX,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "tie_word_embeddings": True,
    "vision_config": {**ONE_MATRIX["vision_config"], "num_channels": 1, "layer_norm_eps": 1e-4},
    "text_config": {**ONE_MATRIX["text_config"], "num_key_value_heads": 1, "tie_word_embeddings": True},
}
# What each row says: words, and None for an image.
ROWS: tuple[tuple[int | None, ...], ...] = ((3, None, 2, None, 4), (None, 5), (6, None, 3), (8,))
IMAGES = sum(part is None for row in ROWS for part in row)
SIDES = ("right", "left")


class Nothing(nn.Module):
    """A linear layer that does nothing. Its numbers are not random, so they are no parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(width))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def build(config: dict, seed: int) -> LlavaForConditionalGeneration:
    """The reference with random weights."""
    model = LlavaForConditionalGeneration(LlavaConfig(**config))
    if config["projector_hidden_act"] == "linear":
        model.model.multi_modal_projector.linear_2 = Nothing(config["text_config"]["hidden_size"])
    return randomise(model, seed)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """The batch of `ROWS`, padded on either side with id 0; labels for the last words of each row and one word before."""
    generator = torch.Generator().manual_seed(seed)
    vision, vocabulary = config["vision_config"], config["text_config"]["vocab_size"]
    side = vision["image_size"]
    tokens = (side // vision["patch_size"]) ** 2
    rows = [
        torch.cat(
            [
                torch.full((tokens,), IMAGE)
                if words is None
                else torch.randint(IMAGE + 1, vocabulary, (words,), generator=generator)
                for words in row
            ]
        )
        for row in ROWS
    ]
    longest = max(map(len, rows))
    shape = (IMAGES, vision.get("num_channels", 3), side, side)
    out: Outputs = {"pixel_values": torch.randn(shape, generator=generator)}
    for name in SIDES:
        for what, filler in (("", 0), ("_mask", 0), ("_labels", -100)):
            out[name + what] = torch.full((len(rows), longest), filler)
        for i, row in enumerate(rows):
            start = 0 if name == "right" else longest - len(row)
            out[name][i, start : start + len(row)] = row
            out[f"{name}_mask"][i, start : start + len(row)] = 1
            out[f"{name}_labels"][i, start + len(row) - 2 : start + len(row)] = row[-2:]
    return out


def first_row(given: Outputs) -> tuple[Tensor, Tensor, Tensor]:
    """The longest row, which needs no mask: ids, its two images, labels."""
    assert given["right_mask"][0].all()
    return given["right"][:1], given["pixel_values"][:2], given["right_labels"][:1]


def theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    pixels, tower = given["pixel_values"], reference.model.vision_tower
    states = tower(pixels, output_hidden_states=True).hidden_states
    out["vision"] = states[reference.config.vision_feature_layer][:, 1:]
    out["connector"] = torch.stack(list(reference.get_image_features(pixels).pooler_output))
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(
            reference, input_ids=ids, pixel_values=pixels, attention_mask=mask, labels=given[f"{side}_labels"]
        )
        result = run()
        layers = record(reference.model.language_model.layers, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    ids, images, labels = first_row(given)
    out["lesson: logits"] = reference(input_ids=ids, pixel_values=images).logits
    out["lesson: loss"] = reference(input_ids=ids, pixel_values=images, labels=labels).loss
    words = given["left"][-1:, -ROWS[-1][0] :]
    out["lesson: words alone"] = reference(input_ids=words).logits
    left, mask = given["left"], given["left_mask"]
    how = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    write = partial(reference.generate, left, pixel_values=pixels, **how)
    out["generated"] = write()[:, left.shape[1] :].float()
    out["generated to eos"] = fill(write(eos_token_id=eos_of(out["generated"]))[:, left.shape[1] :])
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, pixels = loaded.model, given["pixel_values"]
    out["vision"] = model.vision(pixels, model.config.skip_layers)[:, 1:]
    out["connector"] = loaded.get_image_features(pixels).pooler_output
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(loaded, input_ids=ids, pixel_values=pixels, attention_mask=mask, labels=given[f"{side}_labels"])
        result = run()
        layers = record(model.language.blocks, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    ids, images, labels = first_row(given)
    out["lesson: logits"] = model(ids, images)
    out["lesson: loss"] = model.loss(Chats(images, ids, labels))
    out["lesson: words alone"] = model(given["left"][-1:, -ROWS[-1][0] :])
    left, mask = given["left"], given["left_mask"]
    out["generated"] = model.generate(left, pixels, mask.bool(), max_new_tokens=NEW).float()
    stopped = loaded.generate(left, pixels, mask, NEW, eos_token_id=eos_of(out["generated"]))
    out["generated to eos"] = fill(stopped[:, left.shape[1] :])
    return out


def case(name: str, config: dict, seed: int) -> Case:
    """One configuration."""
    return Case("llava", name, partial(build, config, seed), partial(inputs, config), theirs, ours)


CASES = [
    case("one matrix", ONE_MATRIX, 4),
    case("two layers", MLP, 11),
    case("the last state, tied words, one channel", LAST_STATE, 13),
]
