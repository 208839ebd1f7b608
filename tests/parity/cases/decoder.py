"""The decoder language model against transformers' `LlamaForCausalLM` and `Qwen2ForCausalLM`.

Grouped-query heads (4 to 2, 6 to 3, 3 to 1), a head width that is not `width / heads`, tied and untied words, another rotary
base; texts of different lengths, padded on the right and on the left, and generation from them, token for token.
"""

from functools import partial

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from minivlm.language.decoder import Texts
from minivlm.language.generate import generate
from tests.parity.harness import Case, Outputs, randomise, record

NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
GROUPED = {
    "vocab_size": 61,
    "max_position_embeddings": 48,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    **NO_TOKENS,
}
TIED = {
    "vocab_size": 45,
    "max_position_embeddings": 48,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
    **NO_TOKENS,
}
QWEN2 = {
    "vocab_size": 50,
    "max_position_embeddings": 48,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    **NO_TOKENS,
}
LENGTHS = (12, 7, 4)
NEW = 14


def build(config: dict, seed: int, qwen2: bool = False) -> nn.Module:
    """The reference with random weights."""
    made = Qwen2ForCausalLM(Qwen2Config(**config)) if qwen2 else LlamaForCausalLM(LlamaConfig(**config))
    return randomise(made, seed)


def inputs(config: dict, seed: int = 0) -> Outputs:
    """Three texts of different lengths, padded on either side with id 0; labels for two stretches of each."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(LENGTHS)
    out: Outputs = {
        side + what: torch.zeros(3, longest, dtype=torch.long) for side in ("right", "left") for what in ("", "_mask")
    }
    out |= {side + "_labels": torch.full((3, longest), -100) for side in ("right", "left")}
    for row, length in enumerate(LENGTHS):
        words = torch.randint(1, config["vocab_size"], (length,), generator=generator)
        for side, start in (("right", 0), ("left", longest - length)):
            out[side][row, start : start + length] = words
            out[side + "_mask"][row, start : start + length] = 1
            for part in (slice(start + 1, start + 3), slice(start + length - 1, start + length)):
                out[side + "_labels"][row, part] = out[side][row, part]
    return out


def eos_of(free: torch.Tensor) -> int:
    """A token that ends some rows early and not all: the first in reading order that does."""
    rows = free.long().tolist()
    early = (token for row in rows for token in row[2:8] if not all(token in other for other in rows))
    return next(early, rows[0][2])


def fill(written: torch.Tensor) -> torch.Tensor:
    """To `NEW` columns, as if generation had not stopped when all rows had ended."""
    return torch.nn.functional.pad(written, (0, NEW - written.shape[1])).float()


def theirs(reference: nn.Module, given: Outputs) -> Outputs:
    """The reference's outputs, inside and at its end."""
    out: Outputs = {}
    for side in ("right", "left"):
        ids, mask = given[side], given[f"{side}_mask"]
        run = partial(reference, input_ids=ids, attention_mask=mask, labels=given[f"{side}_labels"])
        layers = record(reference.model.layers, run)
        out |= {f"{side}: block {i}": x[mask.bool()] for i, x in enumerate(layers)}
        out[f"{side}: hidden"] = reference.model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        out[f"{side}: logits"], out[f"{side}: loss"] = run().logits[mask.bool()], run().loss
    whole = given["right"][:1]
    out["lesson: logits"] = reference(whole).logits
    out["lesson: loss"] = reference(whole, labels=whole).loss
    out["lesson: embeddings"] = reference(inputs_embeds=reference.get_input_embeddings()(whole)).logits
    left, mask = given["left"], given["left_mask"]
    write = partial(reference.generate, left, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    out["generated"] = write()[:, left.shape[1] :].float()
    out["generated to eos"] = fill(write(eos_token_id=eos_of(out["generated"]))[:, left.shape[1] :])
    return out


def ours(loaded: nn.Module, given: Outputs) -> Outputs:
    """The same of ours; some from the lesson class itself, as a notebook calls it."""
    out: Outputs = {}
    model = loaded.model
    for side in ("right", "left"):
        ids, mask = given[side], given[f"{side}_mask"]
        keep = mask.bool()
        layers = record(model.blocks, partial(model, ids, keep=keep))
        out |= {f"{side}: block {i}": x[keep] for i, x in enumerate(layers)}
        out[f"{side}: hidden"] = model.features(ids, keep=keep)[keep]
        result = loaded(input_ids=ids, attention_mask=mask, labels=given[f"{side}_labels"])
        out[f"{side}: logits"], out[f"{side}: loss"] = result.logits[keep], result.loss
    whole = given["right"][:1]
    out["lesson: logits"] = model(whole)
    out["lesson: loss"] = model.loss(Texts(whole, whole))
    out["lesson: embeddings"] = model(embeddings=model.embed(whole))
    left, keep = given["left"], given["left_mask"].bool()
    out["generated"] = generate(model, left, keep, NEW).float()
    stopped = loaded.generate(left, given["left_mask"], NEW, eos_token_id=eos_of(out["generated"]))
    out["generated to eos"] = fill(stopped[:, left.shape[1] :])
    return out


CASES = [
    Case("decoder", "grouped-query heads", partial(build, GROUPED, 3), partial(inputs, GROUPED), theirs, ours),
    Case("decoder", "tied, wide heads", partial(build, TIED, 1), partial(inputs, TIED), theirs, ours),
    Case(
        "decoder", "Qwen2: biases, one key head", partial(build, QWEN2, 3, True), partial(inputs, QWEN2), theirs, ours
    ),
]
