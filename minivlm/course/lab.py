"""Open JupyterLab at the first notebook."""

import os
import socket
import subprocess
import sys

from minivlm.course.files import Course, CourseError

FIRST = "00a_start_here"
TRIES = 50
FIRST_OF_ALL = 1024  # that a user who is not root may serve


def is_free(port: int) -> bool:
    """True if a server could listen at this port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(first: int, tries: int = TRIES) -> int:
    """The first free port from `first` on. Raises CourseError if there is none among `tries`, or no such port."""
    last = first + tries - 1
    if not 0 < first <= 65535:
        raise CourseError(f"--port {first}: a port is a number from 1 to 65535")
    for port in range(first, min(last, 65535) + 1):
        if is_free(port):
            return port
    if last < FIRST_OF_ALL:
        raise CourseError(f"--port {first}: ports below {FIRST_OF_ALL} are the system's on most machines; give a higher one")
    raise CourseError(
        f"no free port from {first} to {last}. Close a JupyterLab that still runs (jupyter lab list shows them) or give "
        "another port: python -m minivlm lab --port 9999"
    )


def command(course: Course, port: int, browser: bool = True) -> list[str]:
    """The command that starts JupyterLab. Its root is the checkout, so that the package can be read beside the notebooks."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={course.root}",
        f"--LabApp.default_url=/lab/tree/notebooks/{FIRST}.ipynb",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        *(["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []),  # in a container; only this machine is served
        *([] if browser else ["--no-browser"]),
    ]


def open_lab(course: Course, port: int = 8888, browser: bool = True) -> int:
    """Start JupyterLab and wait until it is stopped. Returns its exit status."""
    if not course.notebook(FIRST).exists():
        raise CourseError(f"{course.notebook(FIRST)} is missing; make it with: python -m minivlm build {FIRST}")
    port = free_port(port)
    print(f"JupyterLab on port {port}; stop it with Ctrl-C", flush=True)
    try:
        return subprocess.run(command(course, port, browser), cwd=course.root).returncode
    except KeyboardInterrupt:
        return 0
