"""CLIP against transformers' `CLIPModel`.

Towers of different widths, depths and heads, so that a mix-up fails; grids of 5 x 5 and 7 x 7 patches; captions of different
lengths, padded on the right and on the left.
"""

from functools import partial

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from minivlm.models.clip import Pairs
from tests.parity.harness import Case, Outputs, randomise, record

ODD_GRID = {
    "projection_dim": 28,
    "vision_config": {
        "image_size": 30,
        "patch_size": 6,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
    },
    "text_config": {
        "vocab_size": 50,
        "max_position_embeddings": 13,
        "hidden_size": 20,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "eos_token_id": 7,  # not the highest
        "bos_token_id": 1,
    },
}
DEEP_TEXT = {
    "projection_dim": 16,
    "logit_scale_init_value": 1.5,
    "vision_config": {
        "image_size": 28,
        "patch_size": 4,
        "num_channels": 1,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "layer_norm_eps": 1e-4,
    },
    "text_config": {
        "vocab_size": 33,
        "max_position_embeddings": 13,
        "hidden_size": 48,
        "intermediate_size": 56,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "layer_norm_eps": 1e-6,
        "eos_token_id": 32,
        "bos_token_id": 1,
    },
}
LEGACY = {**ODD_GRID, "text_config": {**ODD_GRID["text_config"], "eos_token_id": 2}}  # 2: the highest id ends a text


def build(config: dict, seed: int) -> CLIPModel:
    """The reference with random weights."""
    return randomise(CLIPModel(CLIPConfig(**config)), seed)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """Three images and three captions of 13, 9 and 6 tokens, padded on either side with id 0.

    The second holds a second end-of-text token: the first one counts.
    """
    generator = torch.Generator().manual_seed(seed)
    vision, text = config["vision_config"], config["text_config"]
    eos = text["eos_token_id"] if text["eos_token_id"] != 2 else text["vocab_size"] - 1
    length = text["max_position_embeddings"]
    right, left = torch.zeros(2, 3, length, dtype=torch.long)
    right_mask, left_mask = torch.zeros(2, 3, length, dtype=torch.long)
    for row, tokens in enumerate((length, length - 4, length - 7)):
        words = torch.randint(8, text["vocab_size"] - 1, (tokens,), generator=generator)
        words[0], words[-1] = 1, eos
        if row == 1:
            words[-3] = eos
        right[row, :tokens], left[row, length - tokens :] = words, words
        right_mask[row, :tokens], left_mask[row, length - tokens :] = 1, 1
    shape = (3, vision.get("num_channels", 3), vision["image_size"], vision["image_size"])
    pixel_values = torch.randn(shape, generator=generator)
    return {
        "pixel_values": pixel_values,
        "right": right,
        "right_mask": right_mask,
        "left": left,
        "left_mask": left_mask,
    }


def theirs(reference: CLIPModel, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    vision = reference.vision_model
    layers = record(vision.encoder.layers, lambda: vision(given["pixel_values"]))
    out |= {f"vision block {i}": layer for i, layer in enumerate(layers)}
    out["vision pooled"] = vision(given["pixel_values"]).pooler_output
    out["image features"] = reference.get_image_features(given["pixel_values"]).pooler_output
    for side in ("right", "left"):
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(reference.text_model, input_ids=ids, attention_mask=mask)
        layers = record(reference.text_model.encoder.layers, run)
        out |= {f"{side}: text block {i}": layer[mask.bool()] for i, layer in enumerate(layers)}
        out[f"{side}: text hidden"] = run().last_hidden_state[mask.bool()]
        out[f"{side}: text pooled"] = run().pooler_output
        out[f"{side}: text features"] = reference.get_text_features(ids, mask).pooler_output
        out |= _whole(reference, given, side)
    whole = reference(given["right"], given["pixel_values"])  # no mask
    out["lesson: image_embeds"], out["lesson: text_embeds"] = whole.image_embeds, whole.text_embeds
    out["lesson: logits"] = whole.logits_per_image
    out["lesson: loss"] = reference(given["right"], given["pixel_values"], return_loss=True).loss
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; the last four from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, pixels = loaded.model, given["pixel_values"]
    out |= {f"vision block {i}": x for i, x in enumerate(record(model.vision.blocks, lambda: model.vision(pixels)))}
    out["vision pooled"] = model.vision.norm_after(model.vision(pixels)[:, 0])
    out["image features"] = loaded.get_image_features(pixels).pooler_output
    for side in ("right", "left"):
        ids, keep = given[side], given[f"{side}_mask"].bool()
        run = partial(model.text, ids, keep)
        out |= {f"{side}: text block {i}": x[keep] for i, x in enumerate(record(model.text.blocks, run))}
        out[f"{side}: text hidden"] = run()[keep]
        out[f"{side}: text pooled"] = model.text.pool(run(), ids)
        out[f"{side}: text features"] = loaded.get_text_features(ids, given[f"{side}_mask"]).pooler_output
        out |= _whole(loaded, given, side)
    out["lesson: image_embeds"], out["lesson: text_embeds"] = (
        model.embed_image(pixels),
        model.embed_text(given["right"]),
    )
    out["lesson: logits"] = model(pixels, given["right"])
    out["lesson: loss"] = model.loss(Pairs(pixels, given["right"]))
    return out


def _whole(model: nn.Module, given: Outputs, side: str) -> dict[str, Tensor]:
    """Called in the same way, the reference and ours answer under the same names."""
    names = ("loss", "logits_per_image", "logits_per_text", "image_embeds", "text_embeds")
    result = model(
        input_ids=given[side],
        pixel_values=given["pixel_values"],
        attention_mask=given[f"{side}_mask"],
        return_loss=True,
    )
    return {f"{side}: {name}": getattr(result, name) for name in names}


def case(name: str, config: dict, seed: int) -> Case:
    """One configuration."""
    return Case("clip", name, partial(build, config, seed), partial(inputs, config), theirs, ours)


CASES = [
    case("odd grid, the end is not the highest id", ODD_GRID, 1),
    case("deep text tower, one channel, other epsilons", DEEP_TEXT, 2),
    case("legacy: the highest id ends a text", LEGACY, 3),
]
