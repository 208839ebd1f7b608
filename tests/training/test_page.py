"""The script on docs/training.md runs as it stands there, on a small folder in COCO's layout."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torchvision.io import write_jpeg, write_png

from minivlm import world

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "training.md"


@pytest.fixture
def folder(tmp_path) -> Path:
    """24 images, grey ones and wide ones among them, with two captions each."""
    rng = world.generator("coco")
    scenes = world.draw_scenes(rng, 24, (1, 1))
    say = world.Captions(rng)
    captions = [say(scenes), say(scenes)]
    images = tmp_path / "coco" / "train2017"
    images.mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    about: dict[str, list] = {"images": [], "annotations": []}
    for i, image in enumerate(world.render(scenes, 48)):
        pixels = (image * 255).byte()
        if i % 5 == 0:
            pixels = torch.cat([pixels, pixels.flip(2)], dim=2)
        name = f"{i:012d}.{'png' if i % 7 == 0 else 'jpg'}"
        (write_png if i % 7 == 0 else write_jpeg)(pixels[:1] if i % 7 == 0 else pixels, str(images / name))
        about["images"].append({"id": 100 + i, "file_name": name})
        for k in range(2):
            about["annotations"].append({"id": 2 * i + k, "image_id": 100 + i, "caption": captions[k][i].capitalize()})
    about["annotations"][3]["caption"] = "Ein Bär, der 17 sehr lange Wörter sagt, " * 3  # unknown words, and too long
    (tmp_path / "coco" / "annotations" / "captions_train2017.json").write_text(json.dumps(about))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "train.py").write_text("\n".join(blocks), encoding="utf-8")
    return tmp_path


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_script_trains_and_goes_on(folder):
    lines = run(folder, "train.py").splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("CLIP step    20/20  loss ")
    assert run(folder, "train.py").startswith("goes on after step 20 of 20"), "started again, it has nothing left to do"


@pytest.mark.slow
@pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch has no gloo, so processes cannot talk"
)
def test_the_script_runs_under_torchrun(folder):
    said = run(folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py")
    assert len([line for line in said.splitlines() if line.startswith("CLIP step")]) == 10, said


def test_names_on_the_page_exist():
    from minivlm import training
    from minivlm.training import distributed

    text = PAGE.read_text(encoding="utf-8")
    for name in ("frozen", "bundled", "accumulated", "in_bf16", "Checkpoint", "labels", "shuffled"):
        assert name in text
        assert name in training.__all__
    for name in ("replicated", "sharded", "processes"):
        assert name in text
        assert hasattr(distributed, name)
