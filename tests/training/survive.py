"""Run by test_survival.py in a process of its own: python -m tests.training.survive WHAT FOLDER. It starts trainings by fork
(so torch is loaded once), does terrible things to them, and says as JSON what came of it.
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch

from minivlm.training import CheckpointError, checkpoint, store
from tests.training import tiny

STEPS = 50
WRITES = 14  # calls that a save makes of what `doomed` watches


def outcome(folder: Path | None, every: int = 1) -> str:
    """Everything that a training ends with, as a hash."""
    state, history = tiny.train(folder, STEPS, every)
    mark = hashlib.sha256(json.dumps(history).encode())
    for name, tensor in state.items():
        mark.update(name.encode() + tensor.numpy().tobytes())
    return mark.hexdigest()


def start(action, result: Path) -> int:
    """Run `action` in a new process, whose answer or error goes into `result`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            answer, code = action(), 0
        except CheckpointError as error:
            answer, code = f"CheckpointError: {error}", 2
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with open(f"{result}.new", "w") as file:
        file.write(str(answer))
    os.replace(f"{result}.new", result)
    os._exit(code)


def wait(pid: int) -> int:
    """-9 if it was killed, its exit status otherwise."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(action, result: Path) -> str:
    wait(start(action, result))
    return result.read_text()


def doomed(folder: Path, at: int):
    """A training that kills itself when it writes for the time `at`: between two calls, or in the middle of a file."""

    def action():
        calls = 0

        def deadly(function, half=None):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == at:
                    if half is not None:
                        half(*arguments)
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        def half_a_file(tensors, path):
            save_file(tensors, path)
            os.truncate(path, os.path.getsize(path) // 2)

        save_file = store.save_file
        store.save_file = deadly(save_file, half_a_file)
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, deadly(getattr(os, name)))
        Path.unlink = deadly(Path.unlink)
        return outcome(folder)

    return action


def kills(base: Path) -> dict:
    """SIGKILL at random times and at each call of a save, then to the end: how far each got, and if the end is the same."""
    rng, result = random.Random(int(os.environ.get("MINIVLM_TEST_SEED", 0))), base / "result"
    begun = time.perf_counter()
    expected = run(lambda: outcome(base / "whole"), result)
    whole = time.perf_counter() - begun
    plan = [None] * 10 + [call + WRITES * rng.randrange(2) for call in range(1, WRITES + 1)]
    rng.shuffle(plan)
    folder, steps, ends, lost = base / "run", [0], [], []
    while plan:
        if plan[-1] is not None:
            pid = start(doomed(folder, plan[-1]), result)
        else:
            pid = start(lambda: outcome(folder), result)
            time.sleep(rng.uniform(0, whole / 4))
            os.kill(pid, signal.SIGKILL)
        if wait(pid) == -signal.SIGKILL:
            manifest = folder / store.MANIFEST
            steps.append(json.loads(manifest.read_text())["step"] if manifest.exists() else 0)
            if steps[-1] < steps[-2]:
                lost.append(f"{steps[-2]} became {steps[-1]} at {plan[-1]}")
            plan.pop()
        else:  # it came to its end before it was killed
            ends.append(result.read_text())
            shutil.rmtree(folder)
            steps.append(0)
    ends.append(run(lambda: outcome(folder), result))
    names = sorted(path.name for path in folder.iterdir())
    return {"expected": expected, "ends": ends, "steps": steps, "lost": lost, "files": names}


def full(base: Path) -> dict:
    """The disk is full after so many bytes of a file; once there is room again, the training goes on."""
    result, found = base / "result", {}
    expected = run(lambda: outcome(None), result)
    for limit in (0, 100, 2000, 3000, 10**9):
        folder = base / f"run {limit}"

        def stopped(folder=folder):
            checkpoint.Checkpoint.save = stop_after(checkpoint.Checkpoint.save, 20)
            return outcome(folder, every=10)

        def limited(folder=folder, limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return outcome(folder, every=10)

        run(stopped, result)
        before = contents(folder)
        said = run(limited, result)
        kept = {name: data for name, data in contents(folder).items() if name != "lock"} == before
        found[limit] = {"said": said, "kept": kept, "end": run(partial(outcome, folder, 10), result)}
    return {"expected": expected, "limits": found}


def stop_after(save, last: int):
    def saved(self, step):
        save(self, step)
        if step == last:
            raise KeyboardInterrupt

    return saved


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def readonly(base: Path) -> dict:
    """A folder in which nobody may write, as somebody who is not root."""
    os.chmod(base, 0o777)
    result, found = base / "result", {}
    (base / "empty").mkdir()
    run(lambda: outcome(base / "used", every=25), result)
    for name in ("empty", "used"):
        os.chmod(base / name, 0o555)

        def action(folder=base / name):
            if os.getuid() == 0:
                try:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                except OSError as error:
                    return f"skip: root cannot become another user here ({error})"
            return outcome(folder)

        result.unlink(missing_ok=True)
        found[name] = run(action, result)
        os.chmod(base / name, 0o755)
    return found


def two(base: Path) -> dict:
    """Two at once; then the first is killed, and the second is let in."""
    result, ready, folder = base / "result", base / "ready", base / "run"
    expected = run(lambda: outcome(None), result)

    def slow():
        def save(self, step):
            kept(self, step)
            if step == 20:
                ready.touch()
                time.sleep(600)

        kept, checkpoint.Checkpoint.save = checkpoint.Checkpoint.save, save
        return outcome(folder, every=10)

    first = start(slow, base / "first")
    while not ready.exists():
        time.sleep(0.01)
    before = contents(folder)
    said = run(lambda: outcome(folder, every=10), result)
    kept = contents(folder) == before
    os.kill(first, signal.SIGKILL)
    wait(first)
    end = run(lambda: outcome(folder, every=10), result)
    return {"expected": expected, "pid": first, "said": said, "kept": kept, "end": end}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(None):
        tiny.train(steps=1)  # whatever torch loads late is loaded now
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
