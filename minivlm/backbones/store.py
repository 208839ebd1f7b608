"""Backbones on disk: a released-format folder with a card that says what is in it, how it came to be and how good it is."""

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm import checkpoints, world
from minivlm.backbones.language import metrics as language_metrics
from minivlm.backbones.language import world_tokenizer
from minivlm.backbones.recipes import RECIPES, VERSION
from minivlm.backbones.training import LOG_EVERY, Run
from minivlm.backbones.vision import MEAN, STD
from minivlm.backbones.vision import metrics as vision_metrics
from minivlm.language.decoder import Decoder
from minivlm.models.clip import CLIP

FOLDER = Path(__file__).resolve().parents[2] / "data" / "backbones"
CARD, WEIGHTS = "card.json", "model.safetensors"


class BackboneError(ValueError):
    """A backbone is not there, damaged, or not for this world."""


def folder(name: str) -> Path:
    """Where a backbone lies.

    Raises:
        BackboneError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise BackboneError(f"there is no backbone {name!r}; there are {list(RECIPES)}.")
    return FOLDER / f"{name}-{VERSION}"


def built() -> list[str]:
    """Names of the backbones that are here."""
    return [name for name in RECIPES if (folder(name) / CARD).exists()]


def vocabulary_hash() -> str:
    """Hash of the vocabulary: another one would give the same ids other meanings."""
    tokenizer = world_tokenizer()
    return hashlib.sha256("\n".join([*tokenizer.specials, *tokenizer.words]).encode()).hexdigest()


def card(name: str) -> dict[str, Any]:
    """What a backbone's card says.

    Raises:
        BackboneError: it is not here, damaged, or made for another version of the world or another vocabulary.
    """
    path = folder(name) / CARD
    if not path.exists():
        here = f"here: {', '.join(built()) or 'none'}"
        raise BackboneError(f"{path} is missing ({here}). Make it: python -m minivlm.backbones train {name}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{path} is damaged ({error}); restore it from the repository.") from error
    expected = {"name": name, "version": VERSION, "world": world.VERSION, "vocabulary_sha256": vocabulary_hash()}
    for key, value in expected.items():
        if found.get(key) != value:
            raise BackboneError(
                f"{path}: {key} is {found.get(key)!r}; this package needs {value!r}. The backbone belongs to another version:"
                f" take the package and data/ from one release, or train it: python -m minivlm.backbones train {name}"
            )
    return found


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The sizes and tensors of a backbone, checked against its card, for classes of your own; see `checkpoints.read`.

    Raises:
        BackboneError: it is missing, damaged, or belongs to another version.
    """
    _check_hash(name)
    return checkpoints.read(folder(name))


def load(name: str) -> Decoder | CLIP:
    """A backbone as the package's own class, in evaluation mode.

    Raises:
        BackboneError: it is missing, damaged, or belongs to another version.
    """
    _check_hash(name)
    return checkpoints.load(folder(name)).model


def _check_hash(name: str) -> None:
    wanted, path = card(name)["weights_sha256"], folder(name) / WEIGHTS
    if not path.exists():
        raise BackboneError(f"{path} is missing; restore it from the repository.")
    if file_hash(path) != wanted:
        raise BackboneError(
            f"{path} ({path.stat().st_size} bytes) is damaged or another file: its sha256 is {file_hash(path)}, and its card"
            f" says {wanted}. Restore it from the repository."
        )


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(name: str, run: Run, where: Path | None = None) -> Path:
    """Measure a trained backbone, and write weights, config and card, whole or not at all."""
    where = folder(name) if where is None else where
    where.parent.mkdir(parents=True, exist_ok=True)
    model: nn.Module = getattr(run.model, "decoder", run.model).cpu().eval()
    is_language = isinstance(model, Decoder)
    found = language_metrics(model, world_tokenizer()) if is_language else vision_metrics(model)
    with tempfile.TemporaryDirectory(dir=where.parent) as temporary:
        new = Path(temporary) / "new"
        checkpoints.save(model, new)
        about = {
            "name": name,
            "version": VERSION,
            "what": "a decoder that has read the world's texts and never seen a picture"
            if is_language
            else "CLIP, trained on pictures and captions of the world; no picture shows a held-out pair",
            "held_out_pairs": "in the texts, as in language at large" if is_language else "in no picture and no caption",
            "world": world.VERSION,
            "vocabulary_sha256": vocabulary_hash(),
            "recipe": asdict(run.recipe),
            "parameters": sum(p.numel() for p in model.parameters()),
            "metrics": {kind: round(value, 4) for kind, value in found.items()},
            "weights_sha256": file_hash(new / WEIGHTS),
            "hours": round(run.seconds / 3600, 3),
            "device": torch.cuda.get_device_name() if run.device.type == "cuda" else f"one core, {platform.machine()}",
            "torch": torch.__version__.split("+")[0],
            "losses": {"every": LOG_EVERY, "mean": run.losses},
            "licence": "Apache-2.0",
        }
        if not is_language:
            about |= {"pixel_mean": MEAN, "pixel_std": STD}
        (new / CARD).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if where.exists():
            os.replace(where, Path(temporary) / "old")
        os.replace(new, where)
    return where
