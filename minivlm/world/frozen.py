"""Frozen evaluation sets: samples and texts of every task, as they were drawn once, in `data/eval/`.

Each task has its tensors (`TASK.safetensors`) and its texts (`TASK.jsonl`, a line for each sample); `manifest.json` holds the
version of the world and the hash of every file. All of it can be drawn again: `verify` does so and says what differs.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import UInt8
from safetensors import SafetensorError
from torch import Tensor

from minivlm import world
from minivlm.world.data_files import DATA
from minivlm.world.draws import INNER
from minivlm.world.packing import pack, unpack
from minivlm.world.scenes import generator
from minivlm.world.tasks import TASKS, Task

FOLDER = DATA / "eval"

#: Name of the tensor beside the samples' own that holds small pictures of what they were rendered to.
THUMBNAILS = "thumbnails"

#: Side of the thumbnails, and by how much their numbers (0 to 255) may differ between machines.
THUMBNAIL, TOLERANCE = 4, 1


class FrozenError(ValueError):
    """An evaluation set is unknown, missing, damaged, or of another version of the world."""


@dataclass(frozen=True)
class Frozen:
    """One task's samples and, for each, its row of texts (`tasks.Task.row`): questions with answers, captions, ..."""

    task: str
    version: str  # of the world
    samples: Any
    rows: list

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> "Frozen":
        """The part at `index` (a number, a slice, a list or tensor of numbers, a mask)."""
        numbers = torch.arange(len(self))[index].flatten().tolist()
        return Frozen(self.task, self.version, self.samples[numbers], [self.rows[i] for i in numbers])

    def of(self, *kinds: str) -> "Frozen":
        """The part of some kinds.

        Raises:
            FrozenError: there is none of a kind.
        """
        there = {getattr(row, "kind", None) for row in self.rows}
        if not kinds or set(kinds) - there:
            raise FrozenError(f"{self.task} has the kinds {sorted(map(str, there))}; got {list(kinds)}.")
        return self[[i for i, row in enumerate(self.rows) if row.kind in kinds]]


def draw(task: str) -> tuple[Any, list]:
    """A task's samples and rows, drawn anew: what the frozen ones must equal."""
    return _task(task).draw(generator(f"eval {task}"), 1)


def load(task: str, folder: Path = FOLDER) -> Frozen:
    """A frozen set.

    Raises:
        FrozenError: unknown, missing, damaged, or drawn by another version of the world; the message says what to do.
    """
    how, files = _task(task), _manifest(folder)["tasks"]
    if task not in files:
        raise FrozenError(f"{folder / 'manifest.json'} has no task {task!r}; {_again(folder)}.")
    tensors = _tensors(folder, task, files[task])
    tensors.pop(THUMBNAILS, None)
    try:
        rows = [_row(how.row, line) for line in _read(folder, task, "jsonl", files[task]).decode().splitlines()]
        samples = unpack(how.sample, tensors, INNER)
    except (ValueError, TypeError) as error:
        why = f"is not laid out as this version does it ({error})"
        raise FrozenError(f"{task} in {folder} {why}; {_again(folder)}.") from error
    return Frozen(task, world.VERSION, samples, rows)


def write(folder: Path = FOLDER, tasks: tuple[str, ...] = tuple(TASKS)) -> None:
    """Draw and write the sets of `tasks`; the manifest comes last, so that no half-written folder looks whole."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"version": world.VERSION, "tasks": {}}
    for task in tasks:
        samples, rows = draw(task)
        tensors = pack(samples) | {THUMBNAILS: thumbnails(_task(task), samples)}
        lines = "".join(json.dumps(row._asdict(), ensure_ascii=True) + "\n" for row in rows)
        contents = {"safetensors": safetensors.torch.save(tensors), "jsonl": lines.encode()}
        for ending, content in contents.items():
            put(folder / f"{task}.{ending}", content)
        hashes = {ending: hashlib.sha256(content).hexdigest() for ending, content in contents.items()}
        manifest["tasks"][task] = {"samples": len(rows), "sha256": hashes}
    put(folder / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())


def verify(folder: Path = FOLDER, tasks: tuple[str, ...] = tuple(TASKS)) -> list[str]:
    """What is wrong with the sets, a sentence each: files, and whatever is drawn, said or rendered otherwise today."""
    found = []
    for task in tasks:
        try:
            frozen = load(task, folder)
        except FrozenError as error:
            found.append(str(error))
            continue
        samples, rows = draw(task)
        kept = _tensors(folder, task, _manifest(folder)["tasks"][task])
        seen = kept.pop(THUMBNAILS)
        for name, tensor in pack(samples).items():
            if not _same(tensor, kept.pop(name, None)):
                found.append(f"{task}: {name} is drawn otherwise than it was.")
        found += [f"{task}: {name} is not drawn any more." for name in kept]
        differ = [i for i, (old, new) in enumerate(zip(frozen.rows, rows, strict=False)) if old != new]
        if differ or len(rows) != len(frozen.rows):
            example = f": {frozen.rows[differ[0]]} is now {rows[differ[0]]}" if differ else ""
            found.append(f"{task}: {len(differ)} of {len(frozen.rows)} texts are made otherwise{example}.")
        today = thumbnails(_task(task), frozen.samples)
        if today.shape != seen.shape or (today.int() - seen.int()).abs().max() > TOLERANCE:
            found.append(f"{task}: what it shows is rendered otherwise than it was.")
    return found


def thumbnails(task: Task, samples: Any) -> UInt8[Tensor, "b k c 4 4"]:
    """Means over a few fields of each picture: small enough to keep, and another renderer's would differ."""
    images = task.pictures(samples)
    small = torch.nn.functional.adaptive_avg_pool2d(images.flatten(0, 1), THUMBNAIL).unflatten(0, images.shape[:2])
    return (small.clamp(0, 1) * 255).round().to(torch.uint8)


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _same(a: Tensor, b: Tensor | None) -> bool:
    """Whether two tensors are equal to the bit."""
    return b is not None and a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def _task(task: str) -> Task:
    if task not in TASKS:
        raise FrozenError(f"no task {task!r}: there are {', '.join(TASKS)}.")
    return TASKS[task]


def _again(folder: Path) -> str:
    return f"get it back with: git checkout -- {folder}, or draw it anew with: python -m minivlm.world write"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        version, tasks = manifest["version"], manifest["tasks"]
        if not all({"samples", "sha256"} <= set(entry) for entry in tasks.values()):
            raise ValueError("an entry lacks its number of samples or its hashes")
    except FileNotFoundError as error:
        raise FrozenError(f"{path} is missing; it comes with the checkout of the project: {_again(folder)}.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FrozenError(f"{path} is damaged ({error}): {_again(folder)}.") from error
    if version != world.VERSION:
        raise FrozenError(
            f"{folder} was drawn by version {version} of the world, but this is {world.VERSION}: results of the two cannot be"
            " compared. Use the sets of this version, or draw them with: python -m minivlm.world write"
        )
    return manifest


def _read(folder: Path, task: str, ending: str, entry: dict[str, Any]) -> bytes:
    path = folder / f"{task}.{ending}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FrozenError(f"{path} is missing or unreadable: {_again(folder)}.") from error
    found, expected = hashlib.sha256(content).hexdigest(), entry["sha256"].get(ending)
    if found != expected:
        raise FrozenError(
            f"{path} is damaged: its sha256 is {found}, expected was {expected}. {_again(folder).capitalize()}."
        )
    return content


def _tensors(folder: Path, task: str, entry: dict[str, Any]) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(_read(folder, task, "safetensors", entry))
    except SafetensorError as error:
        raise FrozenError(f"{folder / task}.safetensors holds no tensors ({error}): {_again(folder)}.") from error


def _row(kind: type, line: str) -> Any:
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(line).items()}
    )
