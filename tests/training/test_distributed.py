"""Two real processes compute what one does with the same batch, save together, and go on in other numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from minivlm.training.distributed import processes, replicated, sharded, share

ROOT = Path(__file__).resolve().parents[2]

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this PyTorch has no gloo, so processes cannot talk"
)


def run(what: str, folder: Path, world: int, until: int = 0) -> dict:
    folder.mkdir(exist_ok=True)
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={world}", "-m"] if world > 1 else []
    command = [sys.executable, "-m", *torchrun, "tests.training.together", what, str(folder), str(until)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text()) | {"out": done.stdout}


def assert_close(one: dict, two: dict) -> None:
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-6, abs=1e-6)  # float32 has 1e-7; ten steps add up
    for a, b in zip(one["weights"], two["weights"], strict=True):
        assert torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return {what: run(what, tmp_path_factory.mktemp(what), 1) for what in ("rows", "texts")}


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("what", ["rows", "rows parts", "texts", "rows sharded", "texts sharded"])
def test_two_processes_compute_what_one_does(what, alone, tmp_path):
    """Texts differ in their numbers of labels, which are weighed."""
    found = run(what, tmp_path, 2)
    assert found["world"] == 2
    assert_close(found, alone[what.split()[0]])
    if what == "rows":
        assert found["rows"] == [[4] * 10] * 2, "each process should see half of every batch"
    share_of_it = found["here"] / found["in all"]
    assert share_of_it == (pytest.approx(0.5, abs=0.05) if "sharded" in what else 1), "of the numbers of the model"
    other = json.loads((tmp_path / "found 1.json").read_text())
    assert other["loss"] == found["loss"]
    assert other["weights"] == found["weights"]
    assert len([line for line in found["out"].splitlines() if "step" in line]) == 10
    assert "rank 1" not in found["out"], "only the first process prints"


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize(("what", "first", "then"), [("rows", 2, 1), ("rows", 1, 2), ("rows sharded", 2, 1)])
def test_it_goes_on_in_another_number_of_processes(what, first, then, alone, tmp_path):
    run(what, tmp_path, first, until=7)
    found = run(what, tmp_path, then)
    assert "goes on after step 6 of 10" in found["out"]
    assert_close(found, alone["rows"])


@needs_gloo
@pytest.mark.slow
def test_two_processes_go_on_as_two(alone, tmp_path):
    whole = run("rows", tmp_path / "whole", 2)
    run("rows", tmp_path / "run", 2, until=7)
    found = run("rows", tmp_path / "run", 2)
    assert (found["loss"], found["weights"]) == (whole["loss"], whole["weights"])


@needs_gloo
@pytest.mark.slow
def test_all_processes_hear_that_it_could_not_be_saved(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.tmp").mkdir()  # in the way of a file
    found = run("rows", tmp_path, 2)
    assert "step 3 could not be written" in found["error"]
    assert json.loads((tmp_path / "found 1.json").read_text()) == {"error": found["error"]}


def test_alone_nothing_is_set_up():
    model = nn.Linear(2, 2)
    model.loss = lambda batch: model(batch).sum()
    with processes() as ranks:
        assert (ranks.rank, ranks.world) == (0, 1)
        assert not dist.is_initialized()
        assert replicated(model) is model.loss
        assert sharded(model) is model.loss


def test_a_single_number_cannot_be_shared_out():
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ValueError, match="scale is a single number"):
        sharded(model)


def test_rows_are_shared_out():
    batch = {"a": torch.arange(6), "b": (torch.arange(12).view(6, 2), "name")}
    parts = [share(batch, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([part["a"] for part in parts]), batch["a"])
    assert torch.equal(torch.cat([part["b"][0] for part in parts]), batch["b"][0])
    assert [part["b"][1] for part in parts] == ["name"] * 3
    with pytest.raises(ValueError, match=r"\[6, 6\] rows cannot be shared by 4"):
        share(batch, 0, 4)
    with pytest.raises(ValueError, match=r"\[2, 6\] rows"):
        share([torch.arange(6), torch.arange(2)], 0, 2)
