"""What happens to real trainings: they are killed at any moment, the disk is full, two want one folder."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork, so trainings cannot be started")


@pytest.fixture
def survive():
    def run(what: str) -> dict:
        # Not tmp_path, which others may not enter.
        with tempfile.TemporaryDirectory(prefix="minivlm-survive-") as folder:
            command = [sys.executable, "-m", "tests.training.survive", what, folder]
            found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(survive):
    found = survive("kills")
    assert len(found["steps"]) > 20
    assert not found["lost"], f"steps that were saved are lost: {found['lost']}"
    assert len(set(found["steps"])) > 5, f"the kills were to come at many moments; they came after steps {found['steps']}"
    for end in found["ends"]:
        assert end == found["expected"], f"after being killed at {found['steps']}"
    left = [name.split("-")[0] for name in found["files"]]
    assert left == ["checkpoint.json", "lock", "model", "trainer"], f"something was left behind: {found['files']}"


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(survive):
    found = survive("full")
    for limit, what in found["limits"].items():
        if int(limit) < 10**9:
            assert what["said"].startswith("CheckpointError: "), what["said"]
            words = "cannot be written to" if int(limit) == 0 else "The one of step 20 is whole"
            assert words in what["said"], f"full after {limit} bytes: {what['said']}"
            assert "File too large" in what["said"]
            assert what["kept"], f"full after {limit} bytes: the folder is not as it was before"
        assert what["end"] == found["expected"], f"full after {limit} bytes, then room again"


def test_a_folder_where_nobody_may_write_says_so(survive):
    for name, said in survive("readonly").items():
        if said.startswith("skip: "):
            pytest.skip(said.removeprefix("skip: "))
        assert said.startswith("CheckpointError: "), said
        assert f"{name} cannot be written to (Permission denied)" in said


def test_the_second_of_two_is_turned_away(survive):
    found = survive("two")
    assert f"in use by another training (process {found['pid']})" in found["said"], found["said"]
    assert found["kept"], "the second one changed something"
    assert found["end"] == found["expected"], "after the first one was killed, the second must end as if alone"
