"""Small checkpoints for these tests, and ways to spoil one."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from minivlm.language.text_encoder import TextConfig
from minivlm.models.clip import CLIP, CLIPConfig
from minivlm.vision.vit import ViTConfig

CONFIG = CLIPConfig(
    ViTConfig(image_size=12, patch_size=4, width=12, layers=2, heads=3, hidden=20),
    TextConfig(vocab_size=30, context=9, width=8, layers=1, heads=2, hidden=12, eot_id=5),
    embedding=10,
)


def clip_config(sizes: dict) -> CLIPConfig:
    """The config of what `checkpoints.read` gives, as a notebook makes it."""
    return CLIPConfig(**sizes | {"vision": ViTConfig(**sizes["vision"]), "text": TextConfig(**sizes["text"])})


def small_clip(seed: int = 0, config: CLIPConfig = CONFIG) -> CLIP:
    """A random CLIP in which no two parameters are alike."""
    torch.manual_seed(seed)
    model = CLIP(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def edit_config(folder: Path, *path: str, **changes) -> None:
    """Change settings in config.json, `path` deep."""
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    part = settings
    for name in path:
        part = part[name]
    part |= changes
    file.write_text(json.dumps(settings))


def edit_tensors(folder: Path, change) -> None:
    """`change` a folder's dictionary of tensors in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
