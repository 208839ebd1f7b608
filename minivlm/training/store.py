"""A folder with one checkpoint, which is there whole or not at all, whatever happens while it is written.

The files with the tensors are written under names that no earlier checkpoint has, and reach the disk. Then
`checkpoint.json`, with their names and hashes, takes the place of the one before, in one step of the file system. Only
then is the earlier one deleted.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FORMAT = "minivlm checkpoint 1"
MANIFEST, LOCK = "checkpoint.json", "lock"
OURS = re.compile(r"(model|trainer)-\d+-[0-9a-f]{16}\.safetensors|(model|trainer|manifest)\.tmp")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or it is damaged, in use, or of another training."""


class Store:
    """One folder, open for one process at a time; see `open`.

    Args:
        folder: of its own; it is made if it is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.step: int | None = None  # of what was last read or written
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Keep other processes out. The kernel lets them in again when this one closes the folder, or dies.

        Raises:
            CheckpointError: another one is in; or the folder cannot be written to.
        """
        if fcntl is None:
            raise CheckpointError("checkpoints need file locks (flock), which this system does not have; train without one.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / LOCK, "a+", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            who = lock.read().strip() or "unknown"
            lock.close()
            raise CheckpointError(
                f"{self.folder} is in use by another training (process {who}). Wait for it or stop it, or give another folder."
            ) from error
        try:
            lock.truncate(0)
            os.write(lock.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            lock.close()
            raise self._unwritable(error) from error
        self._lock = lock

    def close(self) -> None:
        """Let others in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, step: int, tensors: dict[str, dict[str, Tensor]], about: dict[str, Any]) -> None:
        """Put a checkpoint in the place of the one that is there.

        Args:
            tensors: by the file they go into (`model`, `trainer`), and by name; on the CPU.
            about: anything else that JSON can hold.

        Raises:
            CheckpointError: it could not be written. The earlier one is whole.
        """
        if self._lock is None:
            raise CheckpointError(f"{self.folder} is not open for writing; write: with Checkpoint(...) as checkpoint.")
        try:
            files = {kind: self._write_tensors(kind, step, part) for kind, part in tensors.items()}
            _sync(self.folder)
            manifest = {"format": FORMAT, "step": step, "files": files, "about": about}
            text = json.dumps(manifest | {"sha256": _mark(manifest)}, indent=1) + "\n"
            temporary = self.folder / "manifest.tmp"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.folder / MANIFEST)  # from here on it is the new one
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            kept = "There was none before" if self.step is None else f"The one of step {self.step} is whole"
            try:
                self._sweep()
            except (OSError, CheckpointError):
                pass  # what is wrong with the folder is about to be said
            raise CheckpointError(
                f"the checkpoint of step {step} could not be written to {self.folder} ({error}). {kept}. Make"
                " room, and start the same training again: it goes on from there."
            ) from error
        self.step = step
        self._sweep()

    def read(self) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
        """The step, tensors and the rest of the checkpoint, every byte of it checked; None if there is none.

        Raises:
            CheckpointError: a file is missing, damaged or another one; the message has its name.
        """
        manifest = self._manifest()
        if manifest is None:
            return None
        tensors = {}
        for kind, file in manifest["files"].items():
            path = self.folder / file["name"]
            if not path.exists():
                raise CheckpointError(f"{path} is missing. {_ADVICE}")
            size = path.stat().st_size
            if size != file["bytes"]:
                raise CheckpointError(f"{path} has {size} bytes, and should have {file['bytes']}. {_ADVICE}")
            if file_hash(path) != file["sha256"]:
                raise CheckpointError(f"{path} is damaged or another file: its sha256 is not that of {MANIFEST}. {_ADVICE}")
            with safe_open(path, framework="pt") as opened:
                tensors[kind] = {name: opened.get_tensor(name) for name in opened.keys()}
        self.step = manifest["step"]
        return manifest["step"], tensors, manifest["about"]

    def _unwritable(self, error: OSError) -> CheckpointError:
        why = error.strerror or str(error)
        return CheckpointError(f"{self.folder} cannot be written to ({why}); make it writable, or give another folder.")

    def _manifest(self) -> dict[str, Any] | None:
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            rest = {key: value for key, value in found.items() if key != "sha256"}
            whole = found.get("sha256") == _mark(rest)
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). {_ADVICE}") from error
        if found.get("format") != FORMAT:
            raise CheckpointError(f"{path} is of another version: its format is {found.get('format')!r}, not {FORMAT!r}.")
        if not whole:
            raise CheckpointError(f"{path} is damaged: its sha256 is not that of its content. {_ADVICE}")
        return found

    def _write_tensors(self, kind: str, step: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
        temporary = self.folder / f"{kind}.tmp"
        save_file(tensors, temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        mark = file_hash(temporary)
        about = {"name": f"{kind}-{step:08d}-{mark[:16]}.safetensors", "bytes": temporary.stat().st_size, "sha256": mark}
        os.replace(temporary, self.folder / about["name"])
        return about

    def _sweep(self) -> None:
        """Delete what was begun and not finished, and checkpoints before this one."""
        manifest = self._manifest()
        keep = {file["name"] for file in manifest["files"].values()} if manifest else set()
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name) and path.name not in keep:
                path.unlink()


_ADVICE = "Restore the folder from a copy, or delete it to start anew."


def file_hash(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mark(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Make sure that names in a folder reach the disk: without it a power cut could undo os.replace."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
