"""Evaluation sets are those that were drawn, whole, balanced, and refused when they are not."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import torch

from minivlm import world
from minivlm.world import datasheet, frozen
from minivlm.world.__main__ import main
from minivlm.world.draws import INNER
from minivlm.world.frozen import FOLDER, FrozenError, load, thumbnails, verify
from minivlm.world.packing import join, pack, unpack
from minivlm.world.scenes import Scenes
from minivlm.world.splits import HELD_OUT, SEEN
from minivlm.world.tasks import TASKS
from tests.world.readers import answer, heard, seen

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("single_held_out", "refer")


@pytest.mark.parametrize("task", TASKS)
def test_the_stored_sets_are_drawn_and_rendered_so_today(task):
    assert verify(tasks=(task,)) == [], "if the world was changed on purpose: python -m minivlm.world write"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads(task):
    found = load(task)
    assert len(found) == len(found.rows) == len(found.samples) > 100
    assert isinstance(found.samples, TASKS[task].sample)
    assert all(type(row) is TASKS[task].row for row in found.rows)
    assert found.version == world.VERSION
    kinds = {getattr(row, "kind", None) for row in found.rows}
    if kinds & set(TASKS[task].chance):
        assert kinds == set(TASKS[task].chance), "chance is known of other kinds than there are"


def test_nothing_else_lies_in_the_folder():
    names = {f"{task}.{ending}" for task in TASKS for ending in ("safetensors", "jsonl")}
    assert {path.name for path in FOLDER.iterdir()} == names | {"manifest.json", "levels.json", "README.md"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6e6


def test_answers_are_right_by_the_independent_reader():
    for task in ("questions", "questions_held_out", "reasoning"):
        found = load(task)
        for i in range(0, len(found), 3):
            row = found.rows[i]
            for facts in (seen(found.samples, i), heard(row.told)):
                assert answer(row.question, facts) == row.answer, f"{task} {i}: {row}"


EVEN = {
    "questions": ("colour", "shape", "size", "count", "count of", "existence", "place", "relation", "same"),
    "questions_held_out": ("colour", "shape", "size", "count", "count of", "existence", "place", "relation", "same"),
    "reasoning": ("property beside", "count beside", "more"),
    "compare": ("same", "changed", "more", "which", "both"),
    "strings": ("sign",),
    "videos": ("direction", "second", "count", "motion"),
    "sounds": ("spell", "tones"),
    "hear": ("hear",),
    "robot": ("done", "possible"),
    "robot_held_out": ("done", "possible"),
}


@pytest.mark.parametrize("task", EVEN)
def test_answers_are_balanced_exactly(task):
    rows = load(task).rows
    assert len(set(Counter(row.kind for row in rows).values())) == 1, "kinds come unevenly"
    for kind in EVEN[task]:
        answers = Counter(row.answer for row in rows if row.kind == kind)
        assert len(answers) > 1
        assert len(set(answers.values())) == 1, f"{task}, {kind}: {dict(answers)}"


def test_single_things_and_noise_are_balanced_exactly():
    for task, pairs in (("single", SEEN), ("single_held_out", HELD_OUT)):
        found = load(task)
        assert set(Counter(row.name for row in found.rows).values()) == {10}
        shown = zip(found.samples.colour[:, 0].tolist(), found.samples.shape[:, 0].tolist(), strict=True)
        assert [world.pair_name(*pair) for pair in shown] == [row.name for row in found.rows]
        assert {row.name for row in found.rows} == {world.pair_name(*pair) for pair in pairs}
    noise = Counter(row.noise for row in load("web").rows)
    assert len(set(noise.values()) - {noise["clean"]}) == 1, noise
    assert noise["clean"] == sum(noise.values()) / 2


def test_what_is_held_out_is_shown_where_it_should_be():
    def pairs(scenes: Scenes) -> set:
        return set(zip(scenes.colour[scenes.present].tolist(), scenes.shape[scenes.present].tolist(), strict=True))

    for task in ("questions", "reasoning", "captions", "single", "web", "refer"):
        assert pairs(load(task).samples) <= set(SEEN), task
    for task in ("questions_held_out", "single_held_out"):
        assert pairs(load(task).samples) <= set(HELD_OUT), task
    test = set(world_digits("test"))
    assert set(load("digits").samples.which[load("digits").samples.digit > 0].tolist()) <= test


def world_digits(split: str) -> list[int]:
    from minivlm.world.digits import split_numbers

    return split_numbers(split).tolist()


def test_no_two_captioned_scenes_show_the_same():
    shown = [tuple(sorted(row.tags.split(", "))) for row in load("captions").rows]
    assert len(set(shown)) == len(shown)


def test_boxes_hold_what_the_phrase_means():
    found = load("refer")
    for i, row in enumerate(found.rows):
        if row.kind == "there":
            x1, y1, x2, y2 = row.box
            x, y = (found.samples.position[i, row.slot] * 224).tolist()
            assert x1 < x < x2, row
            assert y1 < y < y2, row
        else:
            assert row.slot == -1
            assert row.box == ()


def test_no_training_uses_the_names_of_the_sets():
    files = [*(ROOT / "minivlm").rglob("*.py"), *(ROOT / "notebooks" / "src").glob("*.py")]
    users = [p.name for p in files if re.search(r"generator\(\s*f?[\"']eval ", p.read_text(encoding="utf-8"))]
    assert users == ["frozen.py"]


def test_a_part_of_a_set():
    found = load("questions")
    some = found.of("colour", "place")
    assert {row.kind for row in some.rows} == {"colour", "place"}
    assert len(some.samples) == len(some)
    i = next(i for i, row in enumerate(found.rows) if row.kind in ("colour", "place"))
    assert some.rows[0] == found.rows[i]
    assert torch.equal(some.samples.position[0], found.samples.position[i])
    assert len(found[5]) == len(found[5].samples) == 1
    assert len(found[torch.tensor([True, *[False] * (len(found) - 1)])]) == 1
    with pytest.raises(FrozenError, match="taste"):
        found.of("taste")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of two sets."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    manifest["tasks"] = {task: manifest["tasks"][task] for task in SMALL}
    for task in SMALL:
        for ending in ("safetensors", "jsonl"):
            shutil.copy(FOLDER / f"{task}.{ending}", tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def test_an_unknown_task_is_refused():
    with pytest.raises(FrozenError, match="no task 'taste': there are questions"):
        load("taste")


def test_a_missing_manifest_or_file_or_entry_is_refused(folder):
    with pytest.raises(FrozenError, match="has no task 'web'"):
        load("web", folder)
    (folder / "refer.jsonl").unlink()
    with pytest.raises(FrozenError, match="refer.jsonl is missing.*python -m minivlm.world write"):
        load("refer", folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(FrozenError, match="manifest.json is missing"):
        load("refer", folder)


@pytest.mark.parametrize("ending", ["safetensors", "jsonl"])
def test_a_damaged_file_is_refused(folder, ending):
    path = folder / f"refer.{ending}"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(FrozenError, match=f"refer.{ending} is damaged"):
        load("refer", folder)
    path.write_bytes(b"")
    with pytest.raises(FrozenError, match=f"refer.{ending} is damaged"):
        load("refer", folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1"}', '{"version": "1", "tasks": {"refer": 3}}'])
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(FrozenError, match="manifest.json is damaged"):
        load("refer", folder)


def test_another_version_is_refused(folder, monkeypatch):
    monkeypatch.setattr(world, "VERSION", "99")
    with pytest.raises(FrozenError, match=r"was drawn by version .* but this is 99"):
        load("refer", folder)


def rewrite(folder: Path, task: str, change) -> None:
    """Change a set's tensors, with a manifest that fits them."""
    path = folder / f"{task}.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    content = safetensors.torch.save(tensors)
    path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tasks"][task]["sha256"]["safetensors"] = frozen.hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_drawn_otherwise_is_noticed(folder):
    rewrite(folder, "refer", lambda tensors: tensors["size"][0, 0].add_(1e-6))
    assert verify(folder, ("refer",)) == ["refer: size is drawn otherwise than it was."]


def test_another_type_is_noticed(folder):
    rewrite(folder, "refer", lambda tensors: tensors.update(colour=tensors["colour"].int()))
    assert verify(folder, ("refer",))[0] == "refer: colour is drawn otherwise than it was."


def test_what_is_said_otherwise_is_noticed(folder, monkeypatch):
    monkeypatch.setattr("minivlm.world.draws.pair_name", lambda c, s: f"{world.pair_name(c, s)}let")
    (complaint,) = verify(folder, ("single_held_out",))
    assert re.search(r"160 of 160 texts are made otherwise: .* is now .*let'", complaint)


def test_another_renderer_is_noticed(folder, monkeypatch):
    from minivlm.world.render import DISTANCES

    monkeypatch.setitem(DISTANCES, "star", DISTANCES["diamond"])
    assert verify(folder, ("refer",)) == ["refer: what it shows is rendered otherwise than it was."]


def test_rounding_is_not_taken_for_another_renderer(folder):
    rewrite(folder, "refer", lambda tensors: tensors["thumbnails"].sub_(1))
    assert verify(folder, ("refer",)) == []


def test_tensors_of_another_layout_are_refused(folder):
    rewrite(folder, "refer", lambda tensors: tensors.pop("size"))
    with pytest.raises(FrozenError, match="not laid out as this version does it"):
        load("refer", folder)


def test_writing_is_repeatable_and_leaves_nothing_behind(tmp_path):
    frozen.write(tmp_path, SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json"} | {
        f"{task}.{ending}" for task in SMALL for ending in ("safetensors", "jsonl")
    }
    for task in SMALL:
        assert (tmp_path / f"{task}.safetensors").read_bytes() == (FOLDER / f"{task}.safetensors").read_bytes()
        assert (tmp_path / f"{task}.jsonl").read_bytes() == (FOLDER / f"{task}.jsonl").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    frozen.put(path, b"old")
    monkeypatch.setattr(frozen.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        frozen.put(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("task", ["compare", "episodes_shape_2", "hear", "strings"])
def test_packing_loses_nothing(task):
    samples = load(task).samples
    packed = pack(samples)
    again = pack(unpack(type(samples), packed, INNER))
    assert again.keys() == packed.keys()
    assert all(torch.equal(again[name], packed[name]) for name in packed)
    two = join([samples[:3], samples[3:5]], INNER)
    assert len(two) == 5
    for name, tensor in pack(samples[:5]).items():
        assert torch.equal(pack(two)[name], tensor), name
    with pytest.raises(ValueError, match="got the tensors"):
        unpack(type(samples), packed | {"taste": torch.zeros(1)}, INNER)


def test_thumbnails_are_small():
    found = load("compare")[:3]
    small = thumbnails(TASKS["compare"], found.samples)
    assert small.shape == (3, 2, 3, 4, 4)
    assert small.dtype == torch.uint8


def test_the_datasheet_is_fresh():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert datasheet.refresh(page, datasheet.sheet()) == page, "run: python -m minivlm.world write"


def test_the_command_verifies(capsys, folder):
    assert main(["--folder", str(folder), "verify", *SMALL]) == 0
    assert "as they are drawn today" in capsys.readouterr().out
    (folder / "refer.jsonl").unlink()
    assert main(["--folder", str(folder), "verify", *SMALL]) == 1
    assert "refer.jsonl is missing" in capsys.readouterr().err
