"""Write data/reference/: small random models in the released format, and what the reference library computes with them.

    python -m tests.parity.write_reference [FOLDER]

So the notebooks show, without that library, that they compute the same numbers. `test_stored_reference.py` compares what is
stored with what the reference computes today.
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from minivlm.survey.models import ROOT
from tests.parity.cases import clip

FOLDER = ROOT / "data" / "reference"

CLIP = {
    "projection_dim": 24,
    "vision_config": {
        "image_size": 30,
        "patch_size": 6,
        "hidden_size": 40,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
    },
    "text_config": {
        "vocab_size": 64,
        "max_position_embeddings": 13,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "eos_token_id": 63,
        "bos_token_id": 1,
        "pad_token_id": 0,
    },
}


def clip_model() -> CLIPModel:
    """The random CLIP that is stored."""
    return clip.build(CLIP, seed=4)


def clip_inputs() -> dict[str, Tensor]:
    """Three images and three captions, padded on the right."""
    given = clip.inputs(CLIP, seed=5)
    return {
        "pixel_values": given["pixel_values"],
        "input_ids": given["right"],
        "attention_mask": given["right_mask"],
    }


@torch.no_grad()
def clip_outputs(model: CLIPModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the reference computes."""
    result = model(**given, return_loss=True)
    return {
        "vision_last_hidden_state": result.vision_model_output.last_hidden_state,
        "text_last_hidden_state": result.text_model_output.last_hidden_state,
        "image_embeds": result.image_embeds,
        "text_embeds": result.text_embeds,
        "logits_per_image": result.logits_per_image,
        "loss": result.loss,
    }


def write(folder: Path) -> None:
    """Write everything under `folder`."""
    model, given = clip_model(), clip_inputs()
    model.save_pretrained(folder / "clip")
    expected = {name: tensor.clone().contiguous() for name, tensor in (given | clip_outputs(model, given)).items()}
    save_file(expected, folder / "clip" / "expected.safetensors")
    for file in (folder / "clip").iterdir():
        file.chmod(0o644)


def main() -> None:
    """Write beside `data/reference`, then replace the files one by one."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write(Path(scratch))
        for file in Path(scratch).rglob("*.*"):
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            print(target, file_size(target))


def file_size(path: Path) -> str:
    return f"{path.stat().st_size / 1000:.0f} kB"


if __name__ == "__main__":
    main()
