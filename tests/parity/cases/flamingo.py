"""Flamingo against transformers' `IdeficsForVisionText2Text`.

Vision encoder, heads of the resampler and language model of different widths; grids of 3 x 3 and 5 x 5 patches; a new layer
before each block, each second, each third. A batch with all that one may have: a text with words before its first image and two
images, one with two images side by side, one that begins with its only one, one without; padded on the right and on the left.
"""

import dataclasses
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import IdeficsConfig, IdeficsForVisionText2Text

from minivlm.models.flamingo import Documents
from tests.parity.cases.decoder import NEW, NO_TOKENS, eos_of, fill
from tests.parity.harness import Case, Outputs, randomise, record

IMAGE = 7
EACH = {
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    "cross_layer_interval": 1,
    "use_resampler": True,
    "image_token_index": IMAGE,
    "vision_config": {
        "image_size": 15,
        "patch_size": 5,
        "embed_dim": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-5,
    },
    "perceiver_config": {
        "resampler_n_latents": 5,
        "resampler_depth": 2,
        "resampler_n_heads": 2,
        "resampler_head_dim": 10,
    },
    **NO_TOKENS,
}
RELEASED = {  # in kind: norms on queries and keys, two new words, a new layer before each second block
    **EACH,
    "vocab_size": 60,
    "additional_vocab_size": 2,
    "image_token_index": 61,
    "num_hidden_layers": 4,
    "cross_layer_interval": 2,
    "qk_layer_norms": True,
    "vision_config": {
        "image_size": 20,
        "patch_size": 4,
        "embed_dim": 40,
        "intermediate_size": 28,
        "num_hidden_layers": 1,
        "num_attention_heads": 5,
        "layer_norm_eps": 1e-4,
    },
    "perceiver_config": {
        "resampler_n_latents": 3,
        "resampler_depth": 3,
        "resampler_n_heads": 3,
        "resampler_head_dim": 8,
        "qk_layer_norms_perceiver": True,
    },
}
TIED = {
    **EACH,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "tie_word_embeddings": True,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 6,
    "cross_layer_interval": 3,
    "vision_config": {
        **EACH["vision_config"],
        "embed_dim": 32,
        "num_attention_heads": 4,
        "num_channels": 1,
        "hidden_act": "quick_gelu",
    },
}
# What each row says: words, and None for an image.
ROWS: tuple[tuple[int | None, ...], ...] = ((4, None, 3, None, 5), (2, None, None, 4), (None, 6), (8,))
MOST = 2  # images of a row
SIDES = ("right", "left")


def build(config: dict, seed: int) -> IdeficsForVisionText2Text:
    """The reference with random weights."""
    return randomise(IdeficsForVisionText2Text(IdeficsConfig(**config)), seed)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """The batch of `ROWS`, padded on either side with id 0; labels for the last words of each row and one word before."""
    generator = torch.Generator().manual_seed(seed)
    vision, image = config["vision_config"], config["image_token_index"]
    words = [i for i in range(1, config["vocab_size"] + config.get("additional_vocab_size", 0)) if i != image]
    rows, looks = [], []
    for row in ROWS:
        ids, sees = [1], [0]
        for part in row:
            new = [image]
            if part is not None:
                new = [words[i] for i in torch.randint(len(words), (part,), generator=generator).tolist()]
            ids += new
            sees += [sees[-1] + (part is None)] * len(new)
        rows.append(torch.tensor(ids))
        looks.append(torch.tensor(sees))
    longest = max(map(len, rows))
    side = vision["image_size"]
    shape = (len(ROWS), MOST, vision.get("num_channels", 3), side, side)
    out: Outputs = {"pixel_values": torch.randn(shape, generator=generator)}
    for name in SIDES:
        for what, filler in (("", 0), ("_mask", 0), ("_labels", -100)):
            out[name + what] = torch.full((len(rows), longest), filler)
        out[f"{name}_looks"] = torch.zeros(len(rows), longest, MOST, dtype=torch.long)
        for i, (row, sees) in enumerate(zip(rows, looks, strict=True)):
            start = 0 if name == "right" else longest - len(row)
            real = slice(start, start + len(row))
            out[name][i, real] = row
            out[f"{name}_mask"][i, real] = 1
            out[f"{name}_labels"][i, start + len(row) - 3 : start + len(row)] = row[-3:]
            out[f"{name}_looks"][i, real] = (sees[:, None] == torch.arange(1, MOST + 1)).long()
    return out


def packed(given: Outputs) -> Tensor:
    """The images that there are, in reading order."""
    counts = torch.tensor([sum(part is None for part in row) for row in ROWS])
    return given["pixel_values"][torch.arange(MOST) < counts[:, None]]


def first_row(given: Outputs) -> tuple[Tensor, Tensor, Tensor]:
    """The longest row, which needs no mask: ids, its two images, labels."""
    assert given["right_mask"][0].all()
    return given["right"][:1], given["pixel_values"][0], given["right_labels"][:1]


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The reference's own loss cannot be computed where there are new words."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    inside, pixels = reference.model, given["pixel_values"]
    more = reference.config.additional_vocab_size > 0
    out["vision"] = inside.vision_model(pixels.flatten(0, 1)).last_hidden_state
    out["resampler"] = inside.perceiver_resampler(out["vision"])
    asked = [attention for attention, _ in inside.perceiver_resampler.blocks]
    out["latents after the first attention"] = record(asked, lambda: inside.perceiver_resampler(out["vision"]))[0]
    for side in SIDES:
        ids, mask, labels = given[side], given[f"{side}_mask"], given[f"{side}_labels"]
        looks = {"pixel_values": pixels, "image_attention_mask": given[f"{side}_looks"]}
        run = partial(reference, ids, mask, **looks, labels=None if more else labels)
        result = run()
        blocks, new = record(inside.layers, run), record(inside.gated_cross_attn_layers, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(blocks)}
        out |= {f"{side}: new layer {i}": x[mask.bool()] for i, x in enumerate(new)}
        out[f"{side}: logits"] = result.logits[mask.bool()]
        out[f"{side}: loss"] = loss_of(result.logits, labels) if more else result.loss
    ids, images, labels = first_row(given)
    looks = {"pixel_values": images[None], "image_attention_mask": given["right_looks"][:1]}
    out["lesson: logits"] = reference(ids, **looks).logits
    out["lesson: loss"] = loss_of(out["lesson: logits"], labels)
    before = torch.ones(1, ids.shape[1], MOST).cumsum(2) <= given["right_looks"][0].matmul(torch.tensor([1, 2]))[:, None]
    out["lesson: all images"] = reference(ids, pixel_values=images[None], image_attention_mask=before.long()).logits
    words = given["left"][-1:, -1 - ROWS[-1][0] :]
    nobody = {"pixel_values": images[None], "image_attention_mask": torch.zeros(1, words.shape[1], MOST)}
    out["lesson: words alone"] = reference(words, **nobody).logits
    left, mask = given["left"], given["left_mask"]
    how = {
        "attention_mask": mask,
        "pixel_values": pixels,
        "image_attention_mask": given["left_looks"],
        "max_new_tokens": NEW,
        "do_sample": False,
        "pad_token_id": 0,
    }
    write = partial(reference.generate, left, **how)
    out["generated"] = write()[:, left.shape[1] :].float()
    out["generated to eos"] = fill(write(eos_token_id=eos_of(out["generated"]))[:, left.shape[1] :])
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, pixels, own = loaded.model, given["pixel_values"], packed(given)
    out["vision"] = model.vision(pixels.flatten(0, 1))
    out["resampler"] = model.embed_image(pixels.flatten(0, 1))
    asked = [layer.attention for layer in model.resampler.layers]
    run = partial(model.embed_image, pixels.flatten(0, 1))
    out["latents after the first attention"] = record(asked, run)[0]
    for side in SIDES:
        ids, mask, labels = given[side], given[f"{side}_mask"], given[f"{side}_labels"]
        run = partial(loaded, ids, mask, pixels, given[f"{side}_looks"], labels)
        result = run()
        blocks, new = record(model.language.blocks, run), record(model.layers, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(blocks)}
        out |= {f"{side}: new layer {i}": x[mask.bool()] for i, x in enumerate(new)}
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    ids, images, labels = first_row(given)
    out["lesson: logits"] = model(ids, images)
    out["lesson: loss"] = model.loss(Documents(images, ids, labels))
    out["lesson: all images"] = all_images(model, ids, images)
    out["lesson: words alone"] = model(given["left"][-1:, -1 - ROWS[-1][0] :])
    left, mask = given["left"], given["left_mask"]
    out["generated"] = model.generate(left, own, mask.bool(), max_new_tokens=NEW).float()
    how = {"max_new_tokens": NEW, "eos_token_id": eos_of(out["generated"])}
    stopped = loaded.generate(left, mask, pixels, given["left_looks"], **how)
    out["generated to eos"] = fill(stopped[:, left.shape[1] :])
    return out


def all_images(model: nn.Module, ids: Tensor, images: Tensor) -> Tensor:
    """Its scores if a word saw all images before it."""
    config = model.config
    model.config = dataclasses.replace(config, all_images=True)
    scores = model(ids, images)
    model.config = config
    return scores


def case(name: str, config: dict, seed: int) -> Case:
    """One configuration."""
    return Case("flamingo", name, partial(build, config, seed), partial(inputs, config), theirs, ours)


CASES = [
    case("a new layer before each block", EACH, 149),
    case("as released: norms on queries and keys, new words, each second block", RELEASED, 64),
    case("tied words, one channel, each third block", TIED, 178),
]
