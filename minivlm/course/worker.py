"""One run of one notebook in a process of its own: `python -m minivlm.course.worker ROOT NAME FOLDER`.

The environment says preset, seed and arms, as for every notebook. What became of it is written to FOLDER/outcome.json.
The claims runner holds the other end of standard input: when that closes, the runner is gone, and so is this process,
its kernel and FOLDER.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from minivlm.course.files import Course, write
from minivlm.course.runner import run_one

OUTCOME = "outcome.json"


def stop_with_the_runner(folder: Path) -> None:
    """Wait until standard input closes, then stop as Ctrl-C does, which ends the kernel; if that hangs, at once."""
    while os.read(0, 1024):  # not sys.stdin, whose lock this thread would still hold when the process ends
        pass
    signal.raise_signal(signal.SIGINT) if os.name == "nt" else os.kill(os.getpid(), signal.SIGINT)
    time.sleep(8)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(130)


def main(arguments: list[str]) -> int:
    root, name, folder = arguments
    threading.Thread(target=stop_with_the_runner, args=(Path(folder),), daemon=True).start()
    try:
        outcome = run_one(Course(Path(root)), name, Path(folder), dict(os.environ))
    except KeyboardInterrupt:
        outcome = None
    if outcome is None or outcome.status == "stopped":
        shutil.rmtree(folder, ignore_errors=True)
        return 130
    write(Path(folder, OUTCOME), json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
