"""What notebooks compare with is what the reference computes, and what ours computes."""

import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from minivlm import checkpoints
from minivlm.models.clip import CLIP
from tests.checkpoints.helpers import clip_config
from tests.parity import write_reference

CLIP_FOLDER = write_reference.FOLDER / "clip"
REWRITE = "stored and computed differ; was it meant? then: python -m tests.parity.write_reference"


def same(stored: dict, computed: dict) -> None:
    assert stored.keys() == computed.keys(), REWRITE
    for name, tensor in computed.items():
        torch.testing.assert_close(
            stored[name], tensor, atol=1e-6, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m} {REWRITE}"
        )


def test_the_stored_weights_are_those_of_the_command():
    stored = CLIPModel.from_pretrained(CLIP_FOLDER).state_dict()
    same(stored, write_reference.clip_model().state_dict())


def test_the_stored_numbers_are_the_references():
    reference, given = CLIPModel.from_pretrained(CLIP_FOLDER), write_reference.clip_inputs()
    same(load_file(CLIP_FOLDER / "expected.safetensors"), given | write_reference.clip_outputs(reference, given))


@torch.no_grad()
def test_ours_gives_the_stored_numbers_as_a_notebook_computes_them():
    sizes, state = checkpoints.read(CLIP_FOLDER)
    model = CLIP(clip_config(sizes))
    model.load_state_dict(state)
    expected = load_file(CLIP_FOLDER / "expected.safetensors")
    pixel_values, ids = expected["pixel_values"], expected["input_ids"]
    for name, ours in {
        "image_embeds": model.embed_image(pixel_values),
        "text_embeds": model.embed_text(ids),
        "logits_per_image": model(pixel_values, ids),
        "vision_last_hidden_state": model.vision(pixel_values),
    }.items():
        torch.testing.assert_close(ours, expected[name], atol=1e-5, rtol=0)
    assert expected["logits_per_image"].std() > 0.1, "logits that hardly differ would compare nothing"


def test_it_is_small_and_complete():
    files = {path.name: path.stat().st_size for path in CLIP_FOLDER.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "expected.safetensors"}
    assert sum(files.values()) < 400_000


def test_the_command_writes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["write_reference", str(tmp_path)])
    write_reference.main()
    assert "model.safetensors" in capsys.readouterr().out
    for name in ("model", "expected"):
        file = f"{name}.safetensors"
        same(load_file(CLIP_FOLDER / file), load_file(tmp_path / "clip" / file))
