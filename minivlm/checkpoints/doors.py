"""`load`, `read` and `save`: the same for every model. What differs is a `Format`."""

import math
import os
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.checkpoints import blip, blip2, clip, flamingo, folder, instructblip, llama, llava, llava_original, opt
from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.format import Format
from minivlm.checkpoints.settings import Settings

FORMATS: tuple[Format, ...] = (
    clip.FORMAT,
    *blip.FORMATS,
    opt.FORMAT,  # before llama's: an OPT is a Decoder too
    llama.LLAMA,
    llama.QWEN2,
    llava.FORMAT,
    *llava_original.FORMATS,
    flamingo.FORMAT,
    instructblip.FORMAT,  # before BLIP-2's: an InstructBLIP is a BLIP2 too
    *blip2.FORMATS,
)


def load(path: str | Path, vision: str | Path | None = None) -> nn.Module:
    """The model in a released folder, in evaluation mode and float32.

    It takes the reference's arguments (`input_ids`, `attention_mask`, ...) and answers under its names; `.model` is the
    lesson class. Nothing is downloaded.

    Args:
        path: the folder.
        vision: that of the vision encoder, for a model whose own folder only names it (the original LLaVA's).

    Raises:
        CheckpointError: anything about the folder is not as expected.
    """
    form, config, tensors = _read(_folder(path), vision)
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten; your seed is not touched
        model = form.model(config)
    model.load_state_dict(tensors)
    return form.wrapper(model).eval()


def read(path: str | Path, vision: str | Path | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config's fields as plain numbers, and the tensors under our names, as they are stored. Arguments as for `load`.

    For classes of your own, such as those of a notebook's cells. A config within a config is a dict within the dict:

        sizes, tensors = read(folder)
        vision, text = ViTConfig(**sizes.pop("vision")), TextConfig(**sizes.pop("text"))
        model = CLIP(CLIPConfig(vision, text, **sizes))
        model.load_state_dict(tensors)

    Raises:
        CheckpointError: anything about the folder is not as expected.
    """
    _, config, tensors = _read(_folder(path), vision)
    return asdict(config), tensors


def save(model: nn.Module, path: str | Path, max_shard_size: int | None = None) -> None:
    """Write `model` as a folder that the reference loads (`CLIPModel.from_pretrained(path)`), whole or not at all.

    Args:
        model: a lesson model, or what `load` gave. A class of the same name, such as a notebook's own, is one too.
        path: a new folder, or that of a checkpoint to replace.
        max_shard_size: in bytes; larger models are split into several files. None: one file.

    Raises:
        CheckpointError: the model or its config has something that the format has no place for, or `path` is in use.
    """
    whole = isinstance(max_shard_size, int) and not isinstance(max_shard_size, bool)
    if max_shard_size is not None and not (whole and max_shard_size > 0):
        raise CheckpointError(
            f"max_shard_size is {max_shard_size!r}; expected a whole number of bytes, such as 5 * 10**9."
        )
    path = _folder(path)
    form, model = _format_for(model)
    settings = form.write_config(model.config)
    config = form.read_config(Settings(settings, "the new config.json"))
    _check_same(model.config, config)
    tensors, expected, table = model.state_dict(), form.expected(config), form.table(config)
    if empty := [name for name, tensor in tensors.items() if tensor.is_meta]:
        raise CheckpointError(
            f"the model to be saved has no numbers: tensor {empty[0]!r} is on the meta device ({len(empty)} such)."
            " Load or draw its weights first."
        )
    for name, tensor in tensors.items():
        if name in expected and tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"tensor {name!r} of the model to be saved has shape {tuple(tensor.shape)}; expected"
                f" {tuple(expected[name].shape)}, according to its config. Save the class that the config describes."
            )
    theirs = table.to_theirs(tensors)
    table.to_ours(theirs, expected, dict.fromkeys(theirs, "the model to be saved"))  # for its checks
    settings["dtype"] = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    folder.write(path, settings, theirs, max_shard_size)


def _folder(path: Any) -> Path:
    """The folder meant; an empty name means the current one, by its whole name, so that a message can tell."""
    if not isinstance(path, (str, os.PathLike)):
        raise CheckpointError(f"path is {path!r}; expected the name of a folder.")
    return Path.cwd() if Path(path) == Path() else Path(path)


def _read(path: Path, vision: str | Path | None) -> tuple[Format, Any, dict[str, Tensor]]:
    settings = folder.read_settings(path)
    form = _format_of(settings)
    theirs, where = {}, {}
    if form.beside is not None:
        if vision is None:
            raise CheckpointError(
                f"{settings.where}: this folder has no vision encoder; it only names one,"
                f" {settings.values.get('mm_vision_tower')!r}. Give that one's folder as well: load(path, vision=folder)."
            )
        settings, theirs, where = form.beside(settings, _folder(vision))
    elif vision is not None:
        raise CheckpointError(
            f"{settings.where}: this folder holds its model whole, so there is no use for vision={str(vision)!r}."
        )
    config = form.read_config(settings)
    own, files = folder.read_tensors(path)
    return form, config, form.table(config).to_ours({**theirs, **own}, form.expected(config), {**where, **files})


def _format_of(settings: Settings) -> Format:
    """The format that a config.json names, by its `model_type` and, where it is given, its `architectures`."""
    model_type, architectures = settings.values.get("model_type"), settings.values.get("architectures")
    for form in FORMATS:
        if model_type == form.model_type and architectures in (None, [form.architecture]):
            return form
    supported = ", ".join(
        f"model_type {form.model_type!r} with architectures [{form.architecture!r}]" for form in FORMATS
    )
    raise CheckpointError(
        f"{settings.where}: model_type {model_type!r} with architectures {architectures!r} is not supported;"
        f" supported: {supported}."
    )


def _format_for(model: nn.Module) -> tuple[Format, nn.Module]:
    """The format of a lesson model or a wrapper, and the lesson model. By name: a notebook defines the class once more."""
    if isinstance(model, tuple(form.wrapper for form in FORMATS)):
        model = model.model
    names = {base.__name__ for base in type(model).__mro__}
    for form in FORMATS:
        if form.model.__name__ in names and form.fits(model.config):
            return form, model
    if near := [form.architecture for form in FORMATS if form.model.__name__ in names]:
        raise CheckpointError(
            f"a {type(model).__name__} with this config cannot be saved in a released format; its formats,"
            f" {', '.join(near)}, hold others: {model.config}"
        )
    supported = ", ".join(dict.fromkeys(form.model.__name__ for form in FORMATS))
    raise CheckpointError(f"a {type(model).__name__} cannot be saved in a released format; supported: {supported}.")


def _check_same(ours: Any, again: Any, name: str = "config") -> None:
    """A config as it is, and as it would be read again from its config.json: what the format cannot say must not get lost."""
    if is_dataclass(ours):
        for field in fields(ours):
            _check_same(getattr(ours, field.name), getattr(again, field.name, None), f"{name}.{field.name}")
        return
    near = isinstance(ours, float) and isinstance(again, float) and math.isclose(ours, again, rel_tol=1e-6)
    if ours != again and not near:
        raise CheckpointError(
            f"{name} is {ours!r}, and the released format has no place for it: it would be read again as {again!r}."
            " Save with that value, or keep these weights with safetensors instead."
        )
