"""InstructBLIP against transformers' `InstructBlipForConditionalGeneration`, with a LLaMA and with an OPT.

As BLIP-2's, and each image has an instruction of its own length, padded on the right. All are in other words than the text.
"""

from functools import partial

import torch
from torch import Tensor, nn
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

from minivlm.models.instructblip import Instructions
from tests.parity.cases.blip2 import IMAGES, LLAMA, OPT, SIDES, first_row
from tests.parity.cases.blip2 import inputs as texts
from tests.parity.cases.decoder import NEW, eos_of, fill
from tests.parity.harness import Case, Outputs, randomise, record

LENGTHS = (8, 5, 8, 3)
assert len(LENGTHS) == IMAGES


def build(config: dict, seed: int) -> nn.Module:
    """The reference with random weights."""
    return randomise(InstructBlipForConditionalGeneration(InstructBlipConfig(**config)), seed)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """BLIP-2's batch, and what is asked of each image."""
    generator = torch.Generator().manual_seed(seed + 1)
    out = texts(config, seed)
    out["asked"] = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        out["asked"][row, :length] = torch.randint(1, config["qformer_config"]["vocab_size"], (length,), generator=generator)
    out["asked_mask"] = (out["asked"] != 0).long()
    return out


def first_asked(given: Outputs) -> tuple[Tensor, Tensor]:
    """What is asked of the two images of the first row, the same number of words, without padding."""
    asked = given["asked"][:3:2]
    assert given["asked_mask"][:3:2].all()
    return asked, torch.cat([given["pixel_values"][:1], given["pixel_values"][2:3]])


def theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    images = (given["pixel_values"], given["asked"], given["asked_mask"])
    look = partial(reference.get_image_features, *images)
    queries = reference.config.num_query_tokens
    layers = record(reference.qformer.encoder.layer, look)
    out |= {f"qformer: layer {i}": x[:, :queries] for i, x in enumerate(layers)}
    found = look()
    out["vision"], out["connector"] = found.last_hidden_state, found.pooler_output
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        result = reference(*images, ids, attention_mask=mask, labels=given[f"{side}_labels"])
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    _, ids, labels = first_row(given)
    asked, some = first_asked(given)
    result = reference(some, asked, input_ids=ids, labels=labels)
    out["lesson: logits"], out["lesson: loss"] = result.logits, result.loss
    left, mask = given["left"], given["left_mask"]
    how = {"attention_mask": mask, "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    write = partial(reference.generate, *images, left, **how)
    out["generated"] = write()[:, left.shape[1] :].float()
    out["generated to eos"] = fill(write(eos_token_id=eos_of(out["generated"]))[:, left.shape[1] :])
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model, images = loaded.model, (given["pixel_values"], given["asked"], given["asked_mask"])
    look = partial(model.embed_image, *images[:2], given["asked_mask"].bool())
    out |= {f"qformer: layer {i}": x for i, x in enumerate(record(model.qformer.blocks, look))}
    found = loaded.get_image_features(*images)
    out["vision"], out["connector"] = found.last_hidden_state, found.pooler_output
    for side in SIDES:
        ids, mask = given[side], given[f"{side}_mask"]
        result = loaded(*images, ids, attention_mask=mask, labels=given[f"{side}_labels"])
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[mask.bool()], result.loss
    _, ids, labels = first_row(given)
    asked, some = first_asked(given)
    out["lesson: logits"] = model(ids, some, asked=asked)
    out["lesson: loss"] = model.loss(Instructions(some, ids, labels, asked))
    left, mask = given["left"], given["left_mask"]
    how = {"asked": given["asked"], "asked_keep": given["asked_mask"].bool(), "max_new_tokens": NEW}
    out["generated"] = model.generate(left, images[0], mask.bool(), **how).float()
    stopped = loaded.generate(*images, left, mask, NEW, eos_token_id=eos_of(out["generated"]))
    out["generated to eos"] = fill(stopped[:, left.shape[1] :])
    return out


def case(name: str, config: dict, seed: int) -> Case:
    """One configuration."""
    return Case("instructblip", name, partial(build, config, seed), partial(inputs, config), theirs, ours)


CASES = [case("LLaMA", LLAMA, 4), case("OPT", OPT, 71)]
