"""OPT's released format, transformers' `OPTForCausalLM`.

What is not what it seems (transformers, `models/opt/modeling_opt.py`):

- the table of positions has two rows more than `max_position_embeddings`, at its beginning; padding is read from the second.
- the epsilon of its norms is in no config.
- OPT 350M has norms after its layers and words narrower than the stream; neither is built in here, so it is not read.
- files may hold the matrix that writes words, which is the one that reads them, once more.
"""

from typing import Any

from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.llama import CausalLM
from minivlm.checkpoints.names import Row, Same, Stacked, Table
from minivlm.checkpoints.settings import Field, Settings, written
from minivlm.language.opt import OPT, OPTConfig

# config.json: their name, our name, their default.
FIELDS = (
    Field("vocab_size", "vocab_size", 50272),
    Field("max_position_embeddings", "context", 2048),
    Field("hidden_size", "width", 768),
    Field("num_hidden_layers", "layers", 12),
    Field("num_attention_heads", "heads", 12),
    Field("ffn_dim", "hidden", 3072),
)

# What our class has built in.
FIXED = {
    "activation_function": "relu",
    "attention_dropout": 0.0,
    "do_layer_norm_before": True,
    "_remove_final_layer_norm": False,
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
}


def table(config: OPTConfig) -> Table:
    """Our tensor names and theirs."""
    block, layer = "blocks.*.", "model.decoder.layers.*."
    words = "model.decoder.embed_tokens.weight"
    rows: tuple[Row, ...] = (
        Same("embedding.weight", words),
        Same("positions.weight", "model.decoder.embed_positions.weight"),
        Same(block + "norm_1.*", layer + "self_attn_layer_norm.*"),
        Same(block + "attention.q.*", layer + "self_attn.q_proj.*"),
        Stacked(block + "attention.kv.*", tuple(f"{layer}self_attn.{x}_proj.*" for x in "kv")),
        Same(block + "attention.out.*", layer + "self_attn.out_proj.*"),
        Same(block + "norm_2.*", layer + "final_layer_norm.*"),
        Same(block + "mlp.0.*", layer + "fc1.*"),
        Same(block + "mlp.2.*", layer + "fc2.*"),
        Same("norm.*", "model.decoder.final_layer_norm.*"),
        Same("head.weight", "lm_head.weight"),
    )
    return Table(rows, copies={"lm_head.weight": words} if config.tied else {})


def read_config(settings: Settings) -> OPTConfig:
    """Our config from a config.json.

    Raises:
        CheckpointError: a setting is not of its kind, or not supported.
    """
    settings.expect({**FIXED, "quantization_config": None})
    numbers, tied = settings.numbers(FIELDS), settings.values.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise CheckpointError(f"{settings.where}: tie_word_embeddings is {tied!r}; expected true or false.")
    if settings.values.get("word_embed_proj_dim") is not None:
        settings.expect({"word_embed_proj_dim": numbers["width"]})
    try:
        return OPTConfig(**numbers, tied=tied)
    except ValueError as error:  # our config's own checks
        raise CheckpointError(f"{settings.where}: not a model that this course's OPT can be. {error}") from error


def write_config(config: OPTConfig) -> dict[str, Any]:
    """A config.json from our config."""
    return {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        **written(config, FIELDS),
        **FIXED,
        "dropout": 0.0,
        "word_embed_proj_dim": config.width,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,  # these are the tokenizer's business; the defaults would be other tokens of ours
        "eos_token_id": None,
        "pad_token_id": None,
    }


FORMAT = Format("opt", "OPTForCausalLM", OPT, CausalLM, read_config, write_config, table)
