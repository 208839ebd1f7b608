"""Folders that are not as they should be: what was given, what was expected, what to do."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError, doors, folder
from tests.checkpoints.helpers import edit_config, edit_tensors, small_clip


@pytest.fixture
def saved(tmp_path):
    checkpoints.save(small_clip(), tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def sharded(tmp_path):
    checkpoints.save(small_clip(), tmp_path / "clip", max_shard_size=4000)
    assert len(list((tmp_path / "clip").glob("*.safetensors"))) > 3
    return tmp_path / "clip"


def refuses(path, words: str) -> None:
    """Both doors refuse, with these words."""
    for door in (checkpoints.load, checkpoints.read):
        with pytest.raises(CheckpointError, match=words):
            door(path)


def test_it_is_a_value_error():
    assert issubclass(CheckpointError, ValueError)


def test_no_folder(tmp_path):
    refuses(tmp_path / "nowhere", r"nowhere does not exist; expected a folder with config.json and model.safetensors")
    (tmp_path / "file").touch()
    refuses(str(tmp_path / "file"), "is a file; expected a folder")


def test_no_config(saved):
    (saved / "config.json").unlink()
    refuses(saved, r"config.json is missing. A checkpoint is a folder with config.json and model.safetensors")


@pytest.mark.parametrize(
    ("text", "words"),
    [(b'{"model_type"', "cannot be read as JSON"), (b"\xff\xfe", "cannot be read as JSON"), (b"[1]", "holds a list")],
)
def test_damaged_config(saved, text, words):
    (saved / "config.json").write_bytes(text)
    refuses(saved, words)


def test_no_weights(saved):
    (saved / "model.safetensors").unlink()
    refuses(saved, r"has no weights: expected model.safetensors, or model.safetensors.index.json")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_pickle_is_never_read(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refuses(saved, r"pytorch_model.bin, which is Python's pickle.*Convert it to safetensors")
    (saved / "pytorch_model.bin").replace(saved / "model.safetensors")  # nor under another name
    refuses(saved, "cannot be read as safetensors")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(saved, keep):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[:keep])
    refuses(saved, r"model.safetensors \(\d+ bytes\) cannot be read as safetensors.*copy or download it again")


def test_damaged_weights(saved):
    (saved / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    refuses(saved, "placeholder of Git LFS")


def test_missing_shard(sharded):
    first = sorted(sharded.glob("model-*.safetensors"))[0]
    first.unlink()
    refuses(sharded, f"{first.name} missing; model.safetensors.index.json names .* Copy all of them")


def test_damaged_shard(sharded):
    first = sorted(sharded.glob("model-*.safetensors"))[0]
    first.write_bytes(first.read_bytes()[:50])
    refuses(sharded, rf"{first.name} \(50 bytes\) cannot be read as safetensors")


@pytest.mark.parametrize(
    "weight_map",
    [None, [], {}, {"logit_scale": "../model.safetensors"}, {"logit_scale": 3}, {"logit_scale": "pytorch_model.bin"}],
)
def test_damaged_index(sharded, weight_map):
    (sharded / folder.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refuses(sharded, "weight_map must name a safetensors file of this folder for each tensor; got")


def test_index_and_shards_disagree(sharded):
    index = json.loads((sharded / folder.INDEX).read_text())
    file = index["weight_map"].pop("logit_scale")
    (sharded / folder.INDEX).write_text(json.dumps(index))
    refuses(sharded, f"{file}: tensor 'logit_scale' is there and not listed")
    index["weight_map"] |= {"logit_scale": file, "more": file}
    (sharded / folder.INDEX).write_text(json.dumps(index))
    refuses(sharded, f"{file}: tensor 'more' is listed and not there")


# --- tensors


def test_missing_tensor(saved):
    edit_tensors(saved, lambda tensors: tensors.pop("vision_model.pre_layrnorm.bias"))
    refuses(saved, r"1 tensors missing and 0 unexpected .*model.safetensors.*'vision_model.pre_layrnorm.bias' \(12,\)")


def test_unexpected_tensor(saved):
    edit_tensors(saved, lambda tensors: tensors.update({"vision_model.head.weight": torch.ones(3)}))
    refuses(saved, r"0 tensors missing and 1 unexpected.*'vision_model.head.weight' in .*model.safetensors")


def test_renamed_tensor(saved):
    rename = lambda t: t.update({"vision_model.pre_layernorm.bias": t.pop("vision_model.pre_layrnorm.bias")})
    edit_tensors(saved, rename)
    refuses(saved, "Was 'vision_model.pre_layrnorm.bias' renamed to 'vision_model.pre_layernorm.bias'")


def test_a_layer_too_many(saved):
    edit_config(saved, "vision_config", num_hidden_layers=1)
    refuses(saved, r"0 tensors missing and 16 unexpected.*layers.1.*\.\.\.")


@pytest.mark.parametrize(
    "name",
    [
        "logit_scale",
        "vision_model.encoder.layers.0.self_attn.k_proj.bias",
        "vision_model.embeddings.patch_embedding.weight",
    ],
)
def test_wrong_shape(saved, name):
    edit_tensors(saved, lambda tensors: tensors.update({name: torch.ones(7, 2)}))
    refuses(saved, rf"model.safetensors: tensor '{name}' has shape \(7, 2\); expected \(.*\), according to config.json")


def test_wrong_shape_with_the_right_number_of_values(saved):
    name = "vision_model.embeddings.patch_embedding.weight"
    edit_tensors(saved, lambda tensors: tensors.update({name: tensors[name].flatten(1)}))
    refuses(saved, r"has shape \(12, 48\); expected \(12, 3, 4, 4\)")


def test_quantised_tensor(saved):
    edit_tensors(
        saved, lambda tensors: tensors.update({"visual_projection.weight": torch.ones(10, 12, dtype=torch.int8)})
    )
    refuses(saved, "'visual_projection.weight' holds torch.int8; expected floating point")


def test_position_counters_of_old_files(saved):
    """Files written before transformers 4.31 hold two buffers that count 0, 1, 2, ..."""
    name = "text_model.embeddings.position_ids"
    edit_tensors(saved, lambda tensors: tensors.update({name: torch.arange(9)[None]}))
    assert set(checkpoints.read(saved)[1]) == set(small_clip().state_dict())
    edit_tensors(saved, lambda tensors: tensors.update({name: torch.arange(9)[None] + 2}))
    refuses(saved, f"tensor '{name}' should count 0, 1, 2")


# --- writing


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("size", [None, 1, 4000, 10**9])
def test_round_trip(tmp_path, size):
    model = small_clip()
    checkpoints.save(model, tmp_path / "deep" / "clip", max_shard_size=size)
    for other in (
        checkpoints.load(tmp_path / "deep" / "clip").model.state_dict(),
        checkpoints.read(tmp_path / "deep/clip")[1],
    ):
        assert other.keys() == model.state_dict().keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())
    for file in (tmp_path / "deep" / "clip").glob("*.safetensors"):
        tensors = load_file(file)
        assert size is None or len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= size
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["clip"], "something was left behind"


@pytest.mark.parametrize("size", [0, -1, True, "5GB", 1.5])
def test_bad_shard_size(tmp_path, size):
    with pytest.raises((CheckpointError, TypeError), match="max_shard_size"):
        checkpoints.save(small_clip(), tmp_path / "clip", max_shard_size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch, earlier, error):
    path = tmp_path / "clip"
    if earlier:
        checkpoints.save(small_clip(0), path)
    before = contents(path) if earlier else None
    calls = []

    def failing(tensors, file, metadata):
        calls.append(file)
        if len(calls) == 3:
            file.write_bytes(b"half")
            raise error
        save_file(tensors, file, metadata)

    monkeypatch.setattr(folder, "save_file", failing)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CheckpointError
    with pytest.raises(expected, match=str(error) or None):
        checkpoints.save(small_clip(1), path, max_shard_size=4000)
    assert len(calls) == 3
    assert [p.name for p in tmp_path.iterdir()] == (["clip"] if earlier else [])
    assert not earlier or contents(path) == before


def test_a_failing_rename_brings_the_earlier_one_back(tmp_path, monkeypatch):
    path = tmp_path / "clip"
    checkpoints.save(small_clip(0), path)
    before, rename = contents(path), os.rename

    def failing(source, target):
        if ".new-" in str(source):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(folder.os, "rename", failing)
    with pytest.raises(CheckpointError, match=r"cannot be written \(no\)"):
        checkpoints.save(small_clip(1), path)
    assert contents(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["clip"]


def test_an_earlier_checkpoint_is_replaced_whole(tmp_path):
    path = tmp_path / "clip"
    checkpoints.save(small_clip(0), path, max_shard_size=4000)
    checkpoints.save(small_clip(1), path)
    assert sorted(contents(path)) == ["config.json", "model.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["clip"], "the earlier one was left behind"
    assert torch.equal(checkpoints.read(path)[1]["log_scale"], small_clip(1).log_scale)


@pytest.mark.parametrize("name", ["tokenizer.json", "expected.safetensors", "model-best.safetensors", "notes"])
def test_other_files_are_not_lost(tmp_path, name):
    path = tmp_path / "clip"
    checkpoints.save(small_clip(0), path)
    (path / name).write_text("mine")
    before = contents(path)
    with pytest.raises(CheckpointError, match=rf"holds {name}, which writing a checkpoint there would delete"):
        checkpoints.save(small_clip(1), path)
    assert contents(path) == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "clip").write_text("mine")
    with pytest.raises(CheckpointError, match="is a file; expected the name of a folder"):
        checkpoints.save(small_clip(), tmp_path / "clip")
    assert (tmp_path / "clip").read_text() == "mine"


def test_files_can_be_read_by_whoever_can_read_the_config(saved):
    assert len({file.stat().st_mode for file in saved.iterdir()}) == 1


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_folder_stays_one(tmp_path, there):
    (tmp_path / "links").mkdir()
    link, path = tmp_path / "links" / "clip", tmp_path / "clip"
    link.symlink_to(path)
    if there:
        checkpoints.save(small_clip(0), path)
    checkpoints.save(small_clip(1), link)
    assert link.is_symlink()
    assert [p.name for p in link.parent.iterdir()] == ["clip"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "links"]
    assert torch.equal(checkpoints.read(path)[1]["log_scale"], small_clip(1).log_scale)


@pytest.mark.parametrize("name", ["file/clip", "loop", "x" * 300, "a\0b"])
def test_impossible_folders(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="cannot be written|is a file"):
        checkpoints.save(small_clip(), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]
    refuses(tmp_path / name, "does not exist")


def test_no_folder_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for door in (checkpoints.load, checkpoints.read, lambda path: checkpoints.save(small_clip(), path)):
        with pytest.raises((CheckpointError, TypeError), match="path"):  # in the tests, types are checked first
            door(None)
    with pytest.raises(CheckpointError, match="path is None; expected the name of a folder"):
        doors._folder(None)
    for here in ("", "."):
        refuses(here, str(tmp_path / "config.json"))


def test_a_model_without_numbers(tmp_path):
    with pytest.raises(CheckpointError, match="is on the meta device"):
        checkpoints.save(small_clip().to("meta"), tmp_path / "clip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1000, -1000, 10**400, float("nan"), float("inf"), "2"])
def test_a_scale_that_is_no_number_to_compute_with(saved, scale):
    edit_config(saved, logit_scale_init_value=scale)
    refuses(saved, "logit_scale_init_value is .* expected a number")


@pytest.mark.parametrize("value", [["a.safetensors"], {}, None, 3])
def test_an_index_whose_files_are_not_names(sharded, value):
    index = json.loads((sharded / folder.INDEX).read_text())
    index["weight_map"]["logit_scale"] = value
    (sharded / folder.INDEX).write_text(json.dumps(index))
    refuses(sharded, "weight_map must name a safetensors file")
