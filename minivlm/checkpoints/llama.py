"""Llama's released format, transformers' `LlamaForCausalLM`, and Qwen2's, which has biases for queries, keys and values.

What is not what it seems (transformers, `models/llama/modeling_llama.py` and `modeling_rope_utils.py`):

- where the rotary base stands has changed: `rope_theta` beside `rope_scaling`, later both inside `rope_parameters`. Every
  kind of scaling changes the numbers; none is built in here, so none is read.
- `attention_bias` means four biases, that of the output as well; Qwen2 has three, and no setting for them.
- an `eos_token_id` that is left out is 2: generation would stop there. So it is written, as null.
- rotary pairs are feature i and i + half a head; here, and in Meta's own files, 2 i and 2 i + 1. The rows of q and k are
  put into the other order.
- Llama 2's files hold the rotary frequencies of every layer, which follow from the config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.inputs import check_embeddings, check_ids, check_labels, check_mask, check_place, check_writing
from minivlm.checkpoints.names import Row, Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate

# config.json: their name, our name, their default.
FIELDS = (
    Field("vocab_size", "vocab_size", 32000),
    Field("max_position_embeddings", "context", 2048),
    Field("hidden_size", "width", 4096),
    Field("num_hidden_layers", "layers", 32),
    Field("num_attention_heads", "heads", 32),
    Field("intermediate_size", "hidden", 11008),
    Field("rms_norm_eps", "eps", 1e-6),
)
QWEN2_FIELDS = (
    Field("vocab_size", "vocab_size", 151936),
    Field("max_position_embeddings", "context", 32768),
    Field("hidden_size", "width", 4096),
    Field("num_hidden_layers", "layers", 32),
    Field("num_attention_heads", "heads", 32),
    Field("intermediate_size", "hidden", 22016),
    Field("rms_norm_eps", "eps", 1e-6),
)
ROPE_BASE = 10000.0

# What our class has built in.
FIXED = {"hidden_act": "silu", "attention_dropout": 0.0}
LLAMA_FIXED = {**FIXED, "attention_bias": False, "mlp_bias": False}
QWEN2_FIXED = {**FIXED, "use_sliding_window": False}


def table(config: DecoderConfig) -> Table:
    """Our tensor names and theirs."""
    block, layer = "blocks.*.", "model.layers.*."
    heads = (config.heads * config.hd, config.kv_heads * config.hd, config.kv_heads * config.hd)
    rows: tuple[Row, ...] = (
        Same("embedding.weight", "model.embed_tokens.weight"),
        Same(block + "norm_1.weight", layer + "input_layernorm.weight"),
        Stacked(
            block + "attention.qkv.*",
            tuple(f"{layer}self_attn.{x}_proj.*" for x in "qkv"),
            heads,
            (config.hd, config.hd, 0),
        ),
        Same(block + "attention.out.weight", layer + "self_attn.o_proj.weight"),
        Same(block + "norm_2.weight", layer + "post_attention_layernorm.weight"),
        Stacked(block + "mlp.gate_up.weight", (layer + "mlp.gate_proj.weight", layer + "mlp.up_proj.weight")),
        Same(block + "mlp.down.weight", layer + "mlp.down_proj.weight"),
        Same("norm.weight", "model.norm.weight"),
        Same("head.weight", "lm_head.weight"),
    )
    frequencies = config.rope_base ** (-torch.arange(0, config.hd, 2, device="cpu").float() / config.hd)
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies for i in range(config.layers)}
    return Table(rows, constants=buffers)


def read_config(settings: Settings, qwen2: bool = False) -> DecoderConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect((QWEN2_FIXED if qwen2 else LLAMA_FIXED) | {"quantization_config": None})
    values = settings.values
    kinds = values.get("layer_types")
    if kinds is not None and set(kinds) != {"full_attention"}:
        raise CheckpointError(f"{settings.where}: layer_types is {kinds!r:.200}; only full_attention is supported.")
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise CheckpointError(f"{settings.where}: tie_word_embeddings is {tied!r}; expected true or false.")
    numbers = settings.numbers(QWEN2_FIELDS if qwen2 else FIELDS)
    kv_heads = 32 if qwen2 else numbers["heads"]
    if values.get("num_key_value_heads", 0) is not None:
        kv_heads = settings.number("num_key_value_heads", kv_heads)
    head_width = None if values.get("head_dim") is None else settings.number("head_dim", 1)
    try:
        return DecoderConfig(
            **numbers,
            kv_heads=kv_heads,
            head_width=head_width,
            rope_base=_rope_base(settings),
            tied=tied,
            qkv_bias=qwen2,
        )
    except CheckpointError:
        raise
    except ValueError as error:  # our config's own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's Decoder can be. {error}") from error


def _rope_base(settings: Settings) -> float:
    """The base of the rotary positions; old and new places are read, whatever else stands there is refused."""
    old, new = settings.values.get("rope_scaling"), settings.values.get("rope_parameters")
    if old and new and old != new:
        raise CheckpointError(
            f"{settings.where}: rope_scaling {old!r} and rope_parameters {new!r} differ; expected one of them."
        )
    given = old or new or {}
    if not isinstance(given, Mapping):
        raise CheckpointError(f"{settings.where}: rope settings are {given!r}; expected an object {{...}}.")
    inside = Settings(given, f"{settings.where}: {'rope_scaling' if old else 'rope_parameters'}")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind != "default":
        raise CheckpointError(
            f"{inside.where}: rope_type is {kind!r}; this course's class has positions of type 'default' only. Another type"
            " would give other numbers, so the checkpoint is not loaded."
        )
    if odd := sorted(set(given) - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}):
        raise CheckpointError(f"{inside.where}: {', '.join(odd)} is not a setting of rope_type 'default'.")
    for part in (settings, inside):
        if part.values.get("partial_rotary_factor") not in (None, 1.0):
            part.expect({"partial_rotary_factor": 1.0})
    outer = settings.number("rope_theta", ROPE_BASE)
    base = inside.number("rope_theta", outer)
    if base != outer and "rope_theta" in settings.values:
        raise CheckpointError(f"{settings.where}: rope_theta is {outer!r} and {base!r}; expected one value.")
    return base


def write_config(config: DecoderConfig, qwen2: bool = False) -> dict[str, Any]:
    """A config.json from our config.

    Raises:
        CheckpointError: the reference refuses such a config.
    """
    if config.width % config.heads:
        raise CheckpointError(
            f"config.width {config.width} is no multiple of config.heads {config.heads}, which the released format"
            " demands even where head_width is given."
        )
    return {
        "model_type": "qwen2" if qwen2 else "llama",
        "architectures": ["Qwen2ForCausalLM" if qwen2 else "LlamaForCausalLM"],
        **written(config, QWEN2_FIELDS if qwen2 else FIELDS),
        **(QWEN2_FIXED if qwen2 else LLAMA_FIXED),
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.hd,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "rope_theta": config.rope_base,  # where older readers look
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,  # these are the tokenizer's business; the defaults would be other tokens of ours
        "eos_token_id": None,
        "pad_token_id": None,
    }


@dataclass(frozen=True)
class CausalLMOutput:
    """What a causal language model of transformers gives."""

    loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "b t v"]


class CausalLM(nn.Module):
    """A lesson's `Decoder` (`.model`) that takes the reference's arguments, checks them, and answers under its names."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput:
        """Scores for each next token, and the loss if labels are given.

        Args:
            input_ids, inputs_embeds: (B, T) or (B, T, D), one of them.
            attention_mask: (B, T), 1 for tokens and 0 for padding, on either side.
            labels: (B, T), -100 where there is no loss; they are shifted inside.

        Raises:
            TypeError, ValueError: not what this model takes.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds.")
        self._check_place(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels)
        self._check_place(position_ids=position_ids)
        if inputs_embeds is None:
            given = input_ids = check_ids(input_ids, self.config.vocab_size, self.config.context)
        else:
            given = check_embeddings(inputs_embeds, self.config.width, self.config.context)
        keep = check_mask(attention_mask, given)
        if labels is not None:
            labels = check_labels(labels, given.shape[:2], self.config.vocab_size)
        features = self.model.features(input_ids, inputs_embeds, keep, position_ids)
        loss = None if labels is None else self.model.next_token_loss(features, labels)
        return CausalLMOutput(loss, self.model.logits(features))

    def generate(
        self,
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
        self._check_place(input_ids=input_ids, attention_mask=attention_mask)
        ids = check_ids(input_ids, self.config.vocab_size, self.config.context)
        how = check_writing(self.config.vocab_size, max_new_tokens, eos_token_id, pad_token_id)
        return torch.cat([ids, generate(self.model, ids, check_mask(attention_mask, ids), **how)], dim=1)

    def _check_place(self, **given: Tensor | None) -> None:
        check_place(self.model.embedding.weight.device, **given)


LLAMA = Format(
    "llama", "LlamaForCausalLM", Decoder, CausalLM, read_config, write_config, table, lambda c: not c.qkv_bias
)
QWEN2 = Format(
    "qwen2",
    "Qwen2ForCausalLM",
    Decoder,
    CausalLM,
    partial(read_config, qwen2=True),
    partial(write_config, qwen2=True),
    table,
    lambda c: c.qkv_bias,
)
