"""A checkpoint's folder: `config.json` with one safetensors file, or with several and an index of them. No models here."""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minivlm.checkpoints.errors import CheckpointError
from minivlm.checkpoints.settings import Settings

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing. A checkpoint is a folder with {CONFIG} and {WEIGHTS}.") from None
    except (OSError, ValueError) as error:  # a UnicodeDecodeError and a JSONDecodeError are ValueErrors
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}). It may be incomplete; copy it again."
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}; expected an object {{...}}.")
    return found


def read_settings(folder: Path) -> Settings:
    """What `config.json` says.

    Raises:
        CheckpointError: there is no such folder or file, or it is damaged.
    """
    if not os.path.isdir(folder):  # unlike pathlib's, False for a name that no folder can have
        is_what = "is a file" if os.path.exists(folder) else "does not exist"
        raise CheckpointError(
            f"{folder} {is_what}; expected a folder with {CONFIG} and {WEIGHTS}. Nothing is downloaded."
        )
    return Settings(read_json(folder / CONFIG), str(folder / CONFIG))


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a folder as they are stored, and the file of each.

    Raises:
        CheckpointError: a file is missing or damaged, index and files disagree, or there are only pickled weights.
    """
    if (folder / WEIGHTS).exists():
        tensors = _read_file(folder / WEIGHTS)
        return tensors, dict.fromkeys(tensors, str(folder / WEIGHTS))
    if not (folder / INDEX).exists():
        raise CheckpointError(_no_weights(folder))
    index = read_json(folder / INDEX).get("weight_map")
    files = list(index.values()) if isinstance(index, dict) else []
    if not files or not all(isinstance(n, str) and Path(n).name == n and n.endswith(".safetensors") for n in files):
        raise CheckpointError(
            f"{folder / INDEX}: weight_map must name a safetensors file of this folder for each tensor; got {index!r:.200}."
        )
    names = set(files)
    if lost := sorted(name for name in names if not (folder / name).exists()):
        raise CheckpointError(
            f"{folder}: {', '.join(lost)} missing; {INDEX} names {len(names)} files. Copy all of them."
        )
    tensors, where = {}, {}
    for name in sorted(names):
        found = _read_file(folder / name)
        listed = {tensor for tensor, file in index.items() if file == name}
        if odd := sorted(found.keys() ^ listed):
            there = "is there and not listed" if odd[0] in found else "is listed and not there"
            raise CheckpointError(
                f"{folder / name}: tensor {odd[0]!r} {there} ({len(odd)} such). {INDEX} and this file do not belong together."
            )
        tensors |= found
        where |= dict.fromkeys(found, str(folder / name))
    return tensors, where


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as safetensors: {error}. It is damaged or incomplete"
            " (or a placeholder of Git LFS); copy or download it again."
        ) from error


def _no_weights(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if pickled:
        return (
            f"{folder} has its weights as {', '.join(pickled)}, which is Python's pickle: reading it can run any program,"
            " so it is never read here. Convert it to safetensors where you trust it, for example with transformers:"
            f" AutoModel.from_pretrained(folder).save_pretrained(new_folder); expected {WEIGHTS}."
        )
    return f"{folder} has no weights: expected {WEIGHTS}, or {INDEX} with the files it names."


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], most: int | None = None) -> None:
    """Write a whole checkpoint, or nothing.

    Args:
        folder: made new; an earlier checkpoint there is replaced.
        most: largest size of one file in bytes, as far as single tensors allow; None: one file.

    Raises:
        CheckpointError: `folder` is a file, cannot be written, or holds files that are no checkpoint's; they would be lost.
    """
    shards = _shards(tensors, most)
    try:
        target = folder.resolve()  # a link stays one
        _check_replaceable(target)
        _write(target, config, tensors, shards)
    except CheckpointError:
        raise
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:  # a loop of links, a name with a null byte
        raise CheckpointError(f"{folder} cannot be written ({error}). Choose another folder; nothing was changed.") from error


def _write(folder: Path, config: Mapping, tensors: Mapping[str, Tensor], shards: list[dict[str, Tensor]]) -> None:
    with _replacing(folder) as new:
        (new / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        names = [WEIGHTS]
        if len(shards) > 1:
            names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
            total = sum(tensor.nbytes for tensor in tensors.values())
            index = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True)
            (new / INDEX).write_text(text + "\n", encoding="utf-8")
        for name, shard in zip(names, shards, strict=True):
            # Copies: safetensors takes no views, and several of these may be slices of one fused tensor.
            copies = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in shard.items()}
            save_file(copies, new / name, {"format": "pt"})
            (new / name).chmod((new / CONFIG).stat().st_mode)  # safetensors lets only their owner read its files


def _shards(tensors: Mapping[str, Tensor], most: int | None) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if most is not None and shards[-1] and size + tensor.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; expected the name of a folder to write.")
    written = re.compile(r"config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
    inside = [path.name for path in folder.iterdir()] if folder.exists() else []
    if foreign := [name for name in inside if not written.fullmatch(name)]:
        raise CheckpointError(
            f"{folder} holds {', '.join(sorted(foreign)[:5])}, which writing a checkpoint there would delete."
            " Choose a new folder, or move these files away."
        )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` if all goes well, and disappears if not."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    new, old = (folder.with_name(f".{folder.name}.{word}-{mark}") for word in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():  # else the old one is all there is
            shutil.rmtree(old, ignore_errors=True)
