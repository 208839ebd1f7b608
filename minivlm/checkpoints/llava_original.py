"""The format of LLaVA's own repository, `LlavaLlamaForCausalLM` (`liuhaotian/llava-v1.5-7b`), which is only read:
`save` writes what `load` gave in transformers' format (`llava.py`).

What is not what it seems (haotian-liu/LLaVA, `llava/model/`):

- the config is the language model's, with a few settings more; the vision encoder's lies, with its weights, elsewhere:
  `mm_vision_tower` names it. It is a CLIP folder, whole or its vision tower alone.
- what is not said means LLaVA's first version: one matrix.
- there is no token for images: its code cuts the ids apart where images stand. Here their places are marked with the id of
  Vicuna's unknown word, which no prompt has. (Its own code pads with that word too: pad with another here.)
"""

import re
from pathlib import Path

from torch import Tensor

from minivlm.checkpoints import clip, folder, llama
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.llava import ConditionalGeneration, joined, tower_table, whole, write_config
from minivlm.checkpoints.names import Row, Same, Table
from minivlm.checkpoints.settings import Settings
from minivlm.models.llava import LLaVA, LLaVAConfig

# What our class has built in.
FIXED = {"mm_vision_select_feature": "patch", "mm_patch_merge_type": "flat", "s2": False}
UNKNOWN_WORD = 0


def table(config: LLaVAConfig) -> Table:
    """Our tensor names and theirs; the vision encoder's are those that `vision_folder` gives."""
    rows: tuple[Row, ...] = (Same("connector.0.*", "model.mm_projector.*"),)
    if config.connector_layers > 1:
        rows = (Same("connector.*.*", "model.mm_projector.*.*"),)
    return tower_table(config) + Table(rows) + llama.table(config.language).prefixed("language.")


def read_config(settings: Settings) -> LLaVAConfig:
    """Our config from a config.json with the vision encoder's own beside it (`vision_folder`).

    Raises:
        CheckpointError: a setting is not of its kind, or not supported, or the vision encoder is another one.
    """
    values = settings.values
    settings.expect(FIXED)
    if "anyres" in str(values.get("image_aspect_ratio")):
        raise CheckpointError(
            f"{settings.where}: image_aspect_ratio is {values['image_aspect_ratio']!r}: images in several tiles, which is a"
            " later model (LLaVA-NeXT)."
        )
    kind = values.get("mm_projector_type", "linear")
    found = re.fullmatch(r"linear|mlp([1-9]\d*)x_gelu", str(kind))
    if found is None:
        raise CheckpointError(f"{settings.where}: mm_projector_type is {kind!r}; expected 'linear' or 'mlp2x_gelu'.")
    layer = whole(settings, "mm_vision_select_layer", None)
    sizes = settings.part("vision_config").numbers(clip.VISION)
    width = whole(settings, "mm_hidden_size", int(sizes["width"]))
    if width != sizes["width"]:
        raise CheckpointError(
            f"{settings.where}: mm_hidden_size is {width}, and the vision encoder given is {sizes['width']} wide; expected"
            f" the folder of {values.get('mm_vision_tower')!r}."
        )
    return joined(settings, sizes, settings, UNKNOWN_WORD, int(found[1] or 1), layer)


def vision_folder(settings: Settings, path: Path) -> tuple[Settings, dict[str, Tensor], dict[str, str]]:
    """A vision encoder's own folder, a whole CLIP's or that of its vision tower, as a part of the settings and tensors of
    the model that goes with it, and the file of each tensor.

    Raises:
        CheckpointError: the folder is damaged, or another model's.
    """
    own = folder.read_settings(path)
    model_type = own.values.get("model_type")
    if model_type == "clip":
        own = clip.part(own, "vision_config", clip.VISION)
    elif model_type != "clip_vision_model":
        raise CheckpointError(
            f"{own.where}: model_type is {model_type!r}; expected 'clip' or 'clip_vision_model', the vision encoder"
            f" {settings.values.get('mm_vision_tower')!r} that {settings.where} names."
        )
    own.expect({**clip.FIXED, "quantization_config": None})
    tensors, where = folder.read_tensors(path)
    others = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
    names = [name for name in tensors if not name.startswith(others)]
    return (
        Settings({**settings.values, "vision_config": dict(own.values)}, settings.where),
        {f"vision_tower.{name}": tensors[name] for name in names},
        {f"vision_tower.{name}": where[name] for name in names},
    )


# Written as transformers' format, so this one fits no config.
FORMATS = tuple(
    Format(
        model_type,
        "LlavaLlamaForCausalLM",
        LLaVA,
        ConditionalGeneration,
        read_config,
        write_config,
        table,
        fits=lambda config: False,
        beside=vision_folder,
    )
    for model_type in ("llava", "llava_llama")
)
