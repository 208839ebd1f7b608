"""BLIP-2 against transformers' `Blip2ForConditionalGeneration` and `Blip2ForImageTextRetrieval`.

Vision encoder, Q-Former and language model of different widths, a grid of 3 x 3 patches, five and three queries that look in
every second and every third layer; OPT, and a decoder of LLaMA's kind. Texts with two images, one that begins with one, one
with one in its middle, padded on the right and on the left. In the retrieval model, texts of different lengths.
"""

from functools import partial

import torch
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval

from minivlm.models.blip2 import Captions
from minivlm.models.blip2_stage1 import similarity
from tests.parity.cases.decoder import NEW, NO_TOKENS, eos_of, fill
from tests.parity.harness import Case, Outputs, randomise, record

IMAGE = 7
VISION = {
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 15,
    "patch_size": 5,
    "layer_norm_eps": 1e-6,
}
QFORMER = {
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "max_position_embeddings": 12,
}
OPT = {
    "num_query_tokens": 5,
    "image_token_index": IMAGE,
    "vision_config": VISION,
    "qformer_config": QFORMER,
    "text_config": {
        "model_type": "opt",
        "vocab_size": 61,
        "max_position_embeddings": 48,
        "hidden_size": 40,
        "word_embed_proj_dim": 40,
        "ffn_dim": 52,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        **NO_TOKENS,
    },
}
LLAMA = {
    "num_query_tokens": 3,
    "image_token_index": IMAGE,
    "vision_config": {**VISION, "hidden_size": 36, "layer_norm_eps": 1e-4},
    "qformer_config": {**QFORMER, "num_hidden_layers": 4, "cross_attention_frequency": 3, "layer_norm_eps": 1e-4},
    "text_config": {
        "model_type": "llama",
        "vocab_size": 55,
        "max_position_embeddings": 48,
        "hidden_size": 24,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "tie_word_embeddings": False,
        **NO_TOKENS,
    },
}
MATCHER = {
    "num_query_tokens": 5,
    "image_text_hidden_size": 20,
    "vision_config": VISION,
    "qformer_config": {**QFORMER, "use_qformer_text_input": True},
}
PLACES = {
    **MATCHER,
    "image_token_index": 49,  # texts are wanted with five of these in front
    "num_query_tokens": 4,
    "qformer_config": {**MATCHER["qformer_config"], "num_hidden_layers": 2, "cross_attention_frequency": 1, "pad_token_id": 3},
}
# What each row says: words, and None for an image.
ROWS: tuple[tuple[int | None, ...], ...] = ((None, 3, None, 4), (None, 5), (2, None, 3))
IMAGES = sum(part is None for row in ROWS for part in row)
SIDES = ("right", "left")
LENGTHS = (9, 6, 3)


def build(config: dict, seed: int) -> nn.Module:
    """The reference with random weights."""
    made = Blip2ForConditionalGeneration if "text_config" in config else Blip2ForImageTextRetrieval
    return randomise(made(Blip2Config(**config)), seed)


def pixels(config: dict, many: int, generator: torch.Generator) -> Tensor:
    """Random images."""
    side = config["vision_config"]["image_size"]
    return torch.randn(many, 3, side, side, generator=generator)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """The batch of `ROWS`, padded on either side with id 0; labels for the last words of each row."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary, tokens = config["text_config"]["vocab_size"], config["num_query_tokens"]
    out: Outputs = {"pixel_values": pixels(config, IMAGES, generator)}
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
    """The longest row, which needs no mask: its two images, ids, labels."""
    assert given["right_mask"][0].all()
    return given["pixel_values"][:2], given["right"][:1], given["right_labels"][:1]


def theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    images = given["pixel_values"]
    look = partial(reference.get_image_features, images)
    out |= {f"qformer: layer {i}": x for i, x in enumerate(record(reference.qformer.encoder.layer, look))}
    found = look()
    out["vision"], out["connector"] = found.last_hidden_state, found.pooler_output
    language = reference.language_model.model
    layers = language.decoder.layers if hasattr(language, "decoder") else language.layers
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(reference, images, ids, attention_mask=mask, labels=given[f"{side}_labels"])
        result = run()
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(record(layers, run))}
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    some, ids, labels = first_row(given)
    result = reference(some, ids, labels=labels)
    out["lesson: logits"], out["lesson: loss"] = result.logits, result.loss
    left, mask = given["left"], given["left_mask"]
    how = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    write = partial(reference.generate, images, left, **how)
    out["generated"] = write()[:, left.shape[1] :].float()
    out["generated to eos"] = fill(write(eos_token_id=eos_of(out["generated"]))[:, left.shape[1] :])
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, images = loaded.model, given["pixel_values"]
    look = partial(model.embed_image, images)
    out |= {f"qformer: layer {i}": x for i, x in enumerate(record(model.qformer.blocks, look))}
    out["vision"] = model.see(images)
    out["connector"] = loaded.get_image_features(images).pooler_output
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(loaded, images, ids, attention_mask=mask, labels=given[f"{side}_labels"])
        result = run()
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(record(model.language.blocks, run))}
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    some, ids, labels = first_row(given)
    out["lesson: logits"], out["lesson: loss"] = model(ids, some), model.loss(Captions(some, ids, labels))
    left, mask = given["left"], given["left_mask"]
    out["generated"] = model.generate(left, images, mask.bool(), max_new_tokens=NEW).float()
    stopped = loaded.generate(images, left, mask, NEW, eos_token_id=eos_of(out["generated"]))
    out["generated to eos"] = fill(stopped[:, left.shape[1] :])
    return out


# --- retrieval


def matcher_inputs(config: dict, seed: int = 0) -> Outputs:
    """Three images and three texts of different lengths, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    pad = config["qformer_config"].get("pad_token_id", 0)
    ids = torch.full((len(LENGTHS), max(LENGTHS)), pad)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(5, 45, (length,), generator=generator)
    return {"pixel_values": pixels(config, len(LENGTHS), generator), "ids": ids, "mask": (ids != pad).long()}


def matcher_theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    config, ids, mask = reference.config, given["ids"], given["mask"]
    if config.image_token_index is not None:
        front = torch.full((len(ids), config.num_query_tokens), config.image_token_index)
        ids, mask = torch.cat([front, ids], dim=1), torch.cat([torch.ones_like(front), mask], dim=1)
    run = partial(reference, given["pixel_values"], ids, mask)
    for name, head in (("itm", True), ("itc", False)):
        result = run(use_image_text_matching_head=head)
        out[f"{name}: logits"], out[f"{name}: texts'"] = result.logits_per_image, result.logits_per_text
        out[f"{name}: image"] = result.image_embeds
        text = result.text_embeds
        out[f"{name}: text"] = text if name == "itc" else text[:, : config.num_query_tokens]
    layers = record(reference.qformer.encoder.layer, partial(run, use_image_text_matching_head=True))
    out |= {f"itm: layer {i}": x[:, : config.num_query_tokens] for i, x in enumerate(layers)}
    out["lesson: match"] = out["itm: logits"].softmax(dim=-1)[:, 1]
    out["lesson: cosine"], out["lesson: similarity"] = out["itc: logits"], out["itc: logits"]
    return out


def matcher_ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, images, ids = loaded.model, given["pixel_values"], given["ids"]
    queries = model.config.qformer.queries
    run = partial(loaded, images, ids, given["mask"])
    for name, head in (("itm", True), ("itc", False)):
        result = run(use_image_text_matching_head=head)
        out[f"{name}: logits"], out[f"{name}: texts'"] = result.logits_per_image, result.logits_per_text
        out[f"{name}: image"] = result.image_embeds
        out[f"{name}: text"] = result.text_embeds if name == "itc" else result.text_embeds[:, :queries]
    layers = record(model.qformer.blocks, partial(run, use_image_text_matching_head=True))
    out |= {f"itm: layer {i}": x for i, x in enumerate(layers)}
    out["lesson: match"], out["lesson: cosine"] = model.match(images, ids), model(images, ids)
    out["lesson: similarity"] = similarity(model.embed_image(images), model.embed_text(ids))
    return out


def case(name: str, config: dict, seed: int) -> Case:
    """One configuration."""
    return Case("blip2", name, partial(build, config, seed), partial(inputs, config), theirs, ours)


def matcher_case(name: str, config: dict, seed: int) -> Case:
    """One configuration of the retrieval model."""
    start = partial(build, config, seed), partial(matcher_inputs, config)
    return Case("blip2", name, *start, matcher_theirs, matcher_ours)


CASES = [
    case("OPT", OPT, 7),
    case("LLaMA, untied; every third layer looks", LLAMA, 5),
    matcher_case("retrieval", MATCHER, 8),
    matcher_case("retrieval, places in front", PLACES, 7),
]
