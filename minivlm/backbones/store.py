"""Backbones on disk: a released-format folder with a card that says what is in it, how it came to be and how good it is."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm import checkpoints, world
from minivlm.backbones.language import metrics as language_metrics
from minivlm.backbones.language import world_tokenizer
from minivlm.backbones.recipes import RECIPES, version
from minivlm.backbones.training import LOG_EVERY, Run
from minivlm.backbones.vision import MEAN, STD
from minivlm.backbones.vision import metrics as vision_metrics
from minivlm.language.decoder import Decoder
from minivlm.models.clip import CLIP

FOLDER = Path(__file__).resolve().parents[2] / "data" / "backbones"
CARD, CONFIG, WEIGHTS = "card.json", "config.json", "model.safetensors"
KEYS = ("recipe", "parameters", "metrics", "weights_sha256", "config_sha256", "vocabulary", "losses", "hours", "device")


class BackboneError(ValueError):
    """A backbone is not there, damaged, or not for this world."""


def folder(name: str) -> Path:
    """Where a backbone lies.

    Raises:
        BackboneError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise BackboneError(f"there is no backbone {name!r}; there are {list(RECIPES)}.")
    return FOLDER / f"{name}-{version(name)}"


def built() -> list[str]:
    """Names of the backbones that are here."""
    return [name for name in RECIPES if (folder(name) / CARD).exists()]


def vocabulary(specials: int | None = None) -> dict[str, Any]:
    """What gives ids their meaning: the first `specials` special tokens (default: all) and all words. A special token that
    is appended takes an id that was kept free, so it changes nothing for a backbone; a word needs weights of its own.
    """
    tokenizer = world_tokenizer()
    named = tokenizer.specials[:specials]
    text = "\n".join([*named, *tokenizer.words])
    return {"specials": len(named), "words": len(tokenizer.words), "sha256": hashlib.sha256(text.encode()).hexdigest()}


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
    if not isinstance(found, dict) or (lost := [key for key in KEYS if key not in found]):
        lacks = f"lacks {', '.join(lost)}" if isinstance(found, dict) else "is no card"
        raise BackboneError(f"{path} {lacks}; restore it from the repository.")
    known = found["vocabulary"] if isinstance(found["vocabulary"], dict) else {}
    expected = {"name": name, "version": version(name), "world": world.VERSION, "vocabulary": vocabulary(known.get("specials"))}
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
    about = card(name)
    for path, wanted in ((folder(name) / WEIGHTS, about["weights_sha256"]), (folder(name) / CONFIG, about["config_sha256"])):
        if not path.exists():
            raise BackboneError(f"{path} is missing; restore it from the repository.")
        if file_hash(path) != wanted:
            raise BackboneError(
                f"{path} ({path.stat().st_size} bytes) is damaged or another file: its sha256 is {file_hash(path)}, and its"
                f" card says {wanted}. Restore it from the repository."
            )


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measured(model: Decoder | CLIP) -> dict[str, float]:
    """What the card says of a backbone's accuracy."""
    found = language_metrics(model, world_tokenizer()) if isinstance(model, Decoder) else vision_metrics(model)
    return {kind: round(value, 4) for kind, value in found.items()}


def measure(name: str) -> dict[str, float]:
    """Measure a backbone that is here once more, and write what is found into its card."""
    about = card(name) | {"metrics": measured(load(name))}
    path = folder(name) / CARD
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return about["metrics"]


def publish(name: str, run: Run, where: Path | None = None) -> Path:
    """Measure a trained backbone, and write weights, config and card: what is there is whole, and an earlier one is only
    deleted once the new one stands in its place.
    """
    where = folder(name) if where is None else where
    where.parent.mkdir(parents=True, exist_ok=True)
    model: nn.Module = getattr(run.model, "decoder", run.model).cpu().eval()
    is_language = isinstance(model, Decoder)
    with tempfile.TemporaryDirectory(dir=where.parent) as temporary:
        new = Path(temporary) / "new"
        checkpoints.save(model, new)
        about = {
            "name": name,
            "version": version(name),
            "what": "a decoder that has read the world's texts and never seen a picture"
            if is_language
            else "CLIP, trained on pictures and captions of the world; no picture shows a held-out pair",
            "held_out_pairs": "in the texts, as in language at large" if is_language else "in no picture and no caption",
            "world": world.VERSION,
            "vocabulary": vocabulary(),
            "recipe": asdict(run.recipe),
            "parameters": sum(p.numel() for p in model.parameters()),
            "metrics": measured(model),
            "weights_sha256": file_hash(new / WEIGHTS),
            "config_sha256": file_hash(new / CONFIG),
            "hours": round(run.seconds / 3600, 3),
            "device": torch.cuda.get_device_name() if run.device.type == "cuda" else f"one core, {platform.machine()}",
            "torch": torch.__version__.split("+")[0],
            "losses": {"every": LOG_EVERY, "mean": run.losses},
            "licence": "Apache-2.0",
        }
        if not is_language:
            about |= {"pixel_mean": MEAN, "pixel_std": STD}
        (new / CARD).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        old = where.with_name(f"{where.name}.old.tmp")
        if where.exists():
            os.replace(where, old)
        os.replace(new, where)
        shutil.rmtree(old, ignore_errors=True)
    return where
