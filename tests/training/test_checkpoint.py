"""A training that was interrupted ends as one that was not, and what is damaged or foreign is named."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from minivlm.training import Checkpoint, CheckpointError, fit, shuffled
from minivlm.training.store import MANIFEST
from tests.training.tiny import STEPS, Tiny, batches, train


class Stop(Exception):
    pass


def stopping(at: int):
    """Batches that end in an error before batch `at`."""

    def stream(start):
        for number, batch in enumerate(batches(start), start):
            if number == at:
                raise Stop
            yield batch

    return stream


def assert_same(one, two):
    (state, history), (other, past) = one, two
    for name in state:
        assert torch.equal(state[name], other[name]), f"{name} differs after going on"
    assert history == past, "losses or evaluations differ after going on"


@pytest.fixture(scope="module")
def whole():
    return train()


def stop(folder, at: int, **how) -> None:
    with pytest.raises(Stop):
        train(folder, batches=stopping(at), **how)


def test_saving_changes_nothing(whole, tmp_path, capsys):
    train()
    without = capsys.readouterr().out
    assert_same(train(tmp_path), whole)
    assert capsys.readouterr().out == without


@pytest.mark.parametrize("at", [1, 5, 6, 10, 11])
def test_an_interrupted_training_ends_as_one_that_was_not(whole, tmp_path, capsys, at):
    stop(tmp_path, at)
    random.random(), np.random.rand(), torch.rand(1)  # whatever happens in between
    capsys.readouterr()
    assert_same(train(tmp_path), whole)
    out = capsys.readouterr().out
    assert (f"goes on after step {at // 5 * 5} of {STEPS}" in out) == (at >= 5), out


def test_often_interrupted_with_every_step_saved(whole, tmp_path):
    for at in (1, 2, 4, 7, 11):
        stop(tmp_path, at, every=1)
    assert_same(train(tmp_path, every=1), whole)


def test_a_training_that_is_done_is_not_trained_on(whole, tmp_path):
    train(tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "lock"}
    assert_same(train(tmp_path), whole)
    assert files == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "lock"}


def test_only_the_last_one_is_kept_and_strangers_are_left_alone(tmp_path):
    (tmp_path / "notes.tmp").write_text("mine")
    (tmp_path / "model.safetensors").write_text("mine too")
    (tmp_path / "model.tmp").write_text("left by one that was killed")
    train(tmp_path, every=1)
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == [MANIFEST, "lock", "model", "model.safetensors", "notes.tmp", "trainer"]


def files(folder):
    about = json.loads((folder / MANIFEST).read_text())["files"]
    return folder / about["model"]["name"], folder / about["trainer"]["name"]


def flip(path, where: float):
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])
    return path


def swap(model, trainer):
    a, b = model.read_bytes(), trainer.read_bytes()
    model.write_bytes(b)
    trainer.write_bytes(a)
    return model


def older(folder, model):
    """The model of another step under this one's name."""
    train(folder / "other", every=3)
    shutil.copy(files(folder / "other")[0], model)
    return model


def edit(folder):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"step": 5', '"step": 4'))
    return path


def empty(path):
    path.write_text("")
    return path


def unlink(path):
    path.unlink()
    return path


DAMAGES = {
    "first byte": (lambda folder, model, trainer: flip(model, 0), "damaged or another"),
    "middle": (lambda folder, model, trainer: flip(trainer, 0.5), "damaged or another"),
    "last byte": (lambda folder, model, trainer: flip(trainer, 1), "damaged or another"),
    "cut": (lambda folder, model, trainer: truncate(model), r"has \d+ bytes, and should have"),
    "empty": (lambda folder, model, trainer: empty(model), "has 0 bytes"),
    "gone": (lambda folder, model, trainer: unlink(trainer), "is missing"),
    "swapped": (lambda folder, model, trainer: swap(model, trainer), "bytes|damaged"),
    "of another step": (lambda folder, model, trainer: older(folder, model), "damaged or another"),
    "manifest edited": (lambda folder, model, trainer: edit(folder), "damaged"),
    "manifest cut": (lambda folder, model, trainer: truncate(folder / MANIFEST), "damaged"),
    "manifest empty": (lambda folder, model, trainer: empty(folder / MANIFEST), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(tmp_path, name):
    change, words = DAMAGES[name]
    stop(tmp_path, 7)
    path = change(tmp_path, *files(tmp_path))
    with pytest.raises(CheckpointError, match=words) as error:
        train(tmp_path)
    assert str(path) in str(error.value), f"the message must name {path}; it says: {error.value}"


def test_every_byte_of_the_manifest_counts(tmp_path):
    """But for the white space at its end."""
    stop(tmp_path, 7)
    path = tmp_path / MANIFEST
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for where in rng.integers(0, len(data.rstrip()), 40).tolist():
        other = bytearray(data)
        other[where] ^= 1 << int(rng.integers(0, 7))
        if json_or_none(bytes(other)) == json.loads(data):
            continue  # white space, or another way to write the same
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match=MANIFEST):
            train(tmp_path)


def json_or_none(data: bytes):
    try:
        return json.loads(data)
    except ValueError:
        return None


def late(start):
    return batches(start + 1)


def stuck(start):
    """Begins at the beginning, wherever it is asked to."""
    return batches(0)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"lr": 0.1}, "lr was 0.05 and is 0.1"),
        ({"lrs": {"norm": 0.02}}, "lrs was .* and is"),
        ({"lrs": None}, "lrs was .* and is None"),
        ({"steps": 13}, "steps was 12 and is 13"),
        ({"weight_decay": 0.0}, "weight_decay was 0.1 and is 0.0"),
        ({"width": 5}, r"first\.weight was \(4, 4\) torch.float32 and is \(5, 5\)"),
        ({"seed": 1}, r"vision\.weight is frozen, and its values were others"),
        ({"batches": late}, "batch 4 is not the one"),
        ({"batches": stuck}, "batch 4 is not the one"),
    ],
)
def test_another_training_is_refused(tmp_path, how, words):
    stop(tmp_path, 7)
    with pytest.raises(CheckpointError, match=words):
        train(tmp_path, **how)


def test_other_frozen_parts_are_another_training(tmp_path):
    stop(tmp_path, 7)
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(CheckpointError, match=r"frozen.*: vision\.bias, vision\.weight"):
        fit(Tiny(), batches, STEPS, lr=0.05, lrs={"norm": 0.01}, checkpoint=checkpoint)


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), np.random.rand, random.random])
def test_batches_from_a_shared_generator_are_refused(tmp_path, draw):
    def stream(start):
        for batch in batches(start):
            draw()
            yield batch

    with pytest.raises(CheckpointError, match="shared generator"):
        train(tmp_path, batches=stream)


def test_what_must_be_said_before_is_said(tmp_path):
    with Checkpoint(tmp_path) as checkpoint, pytest.raises(ValueError, match="must be a function"):
        fit(Tiny(), batches(0), 3, checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match="open it first"):
        fit(Tiny(), batches, 3, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="every=0"):
        Checkpoint(tmp_path, every=0)


def test_a_folder_has_one_training_at_a_time(tmp_path):
    with Checkpoint(tmp_path), pytest.raises(CheckpointError, match=r"in use by another training \(process \d+\)"):
        train(tmp_path)
    train(tmp_path)


def test_batches_as_a_function_and_as_a_stream_are_the_same():
    assert_same(train(batches=batches(0)), train(batches=batches))


def test_any_batch_of_a_finite_set_can_be_had_at_once():
    order = shuffled(10, 4, seed=1)
    first = [batch for batch, _ in zip(order(0), range(6), strict=False)]
    for start in range(6):
        assert next(order(start)) == first[start]
    for epoch in range(3):
        seen = sum(first[2 * epoch : 2 * epoch + 2], [])
        assert len(set(seen)) == 8, "an example came twice in one pass"
    assert first[:2] != first[2:4], "two passes in the same order"
    assert next(shuffled(10, 4, seed=2)(0)) != first[0]


def test_processes_share_a_batch_without_overlap():
    parts = [next(shuffled(10, 4, 1, rank, 2)(3)) for rank in range(2)]
    assert parts[0] + parts[1] == next(shuffled(10, 4, 1)(3))


@pytest.mark.parametrize("how", [(3, 4), (3, 0), (10, 3, 0, 0, 2), (10, 4, 0, 2, 2)])
def test_a_batch_that_cannot_be_drawn_says_so(how):
    with pytest.raises(ValueError, match="a batch of"):
        shuffled(*how)
