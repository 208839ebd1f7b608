"""Make a virtual environment ready for a Makefile target; do nothing when it already is.

    python3 tools/ensure_venv.py --venv .venv            the learner's packages
    python3 tools/ensure_venv.py --venv .venv test       those and the extra `test`

What was installed is remembered in VENV/minivlm-setup.json: which checkout, which pyproject.toml (its hash), which
extras. It is installed again when one of these no longer fits. Standard library only, and in syntax that
Python 3.6 reads: this file also has to tell the owner of an old Python, kindly, that it is old.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time

OLDEST = (3, 11)
PATIENCE = 30  # seconds between two signs of life
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def runs(name):
    """True if this command exists and starts (a version manager may leave a name that does not)."""
    return bool(shutil.which(name)) and subprocess.run([name, "--version"], capture_output=True).returncode == 0


def version_problem(version, executable):
    """What to tell the owner of a too old Python; an empty text where it is new enough."""
    if tuple(version[:2]) >= OLDEST:
        return ""
    newer = [name for name in ("python3.13", "python3.12", "python3.11") if runs(name)]
    advice = "Try: make PYTHON=" + newer[0] if newer else "Install a newer one from https://www.python.org/downloads/"
    given = ".".join(str(part) for part in version[:3])
    wanted = ".".join(str(part) for part in OLDEST)
    return f"minivlm needs Python {wanted} or newer, and {executable} is Python {given}. {advice}"


def wanted_stamp(root, extras):
    """What the stamp of a fitting environment says."""
    with open(os.path.join(root, "pyproject.toml"), "rb") as stream:
        return {"checkout": root, "pyproject": hashlib.sha256(stream.read()).hexdigest(), "extras": sorted(extras)}


def read_stamp(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def is_ready(stamp, wanted):
    """True if an environment with this stamp serves: same checkout, same pyproject.toml, at least the wanted extras."""
    same = all(stamp.get(key) == wanted[key] for key in ("checkout", "pyproject"))
    return same and set(wanted["extras"]) <= set(stamp.get("extras", []))


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def can_write(folder):
    """True if this folder, or the nearest one above it that exists, may be written."""
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK)


def run_patiently(command):
    """Run a command that may take minutes, and now and then say that it still does."""
    began = time.time()
    process = subprocess.Popen(command)
    try:
        while True:
            try:
                status = process.wait(timeout=PATIENCE)
                break
            except subprocess.TimeoutExpired:
                say(f"set-up: still installing ({time.time() - began:.0f} s)")
    except BaseException:  # Ctrl-C reaches pip too
        process.kill()
        process.wait()
        raise
    if status:
        raise subprocess.CalledProcessError(status, command)


def install(venv, python, root, wanted):
    """Create the environment where there is none, install the checkout into it, write the stamp."""
    if not os.path.exists(python):
        say(f"set-up: creating the virtual environment {venv}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        subprocess.run([python, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    target = root + (f"[{','.join(wanted['extras'])}]" if wanted["extras"] else "")
    say(f"set-up: installing {target} into {venv} (the first time takes some minutes: torch is large)")
    run_patiently([python, "-m", "pip", "install", "--quiet", "--editable", target])
    stamp = os.path.join(venv, "minivlm-setup.json")
    with open(stamp + ".tmp", "w", encoding="utf-8") as stream:
        json.dump(wanted, stream, indent=1)
    os.replace(stamp + ".tmp", stamp)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Make a virtual environment ready for this checkout.")
    parser.add_argument("--venv", required=True, help="its folder; relative to the checkout unless absolute")
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml, such as: test site")
    given = parser.parse_args(arguments)

    venv = os.path.join(ROOT, given.venv)
    python = os.path.join(venv, "Scripts" if os.name == "nt" else "bin", "python")
    wanted = wanted_stamp(ROOT, given.extras)
    stamp = read_stamp(os.path.join(venv, "minivlm-setup.json"))
    if os.path.exists(python) and is_ready(stamp, wanted):
        return 0
    problem = "" if os.path.exists(python) else version_problem(sys.version_info, sys.executable)
    if problem:
        say(problem)
        return 2
    if not can_write(venv):
        say(f"set-up: {venv} cannot be written. Give folders of your own: make VENV=/tmp/venv OUT=/tmp/out and the target")
        return 2
    if stamp.get("checkout") == ROOT:  # keep what an earlier target asked for
        wanted["extras"] = sorted(set(wanted["extras"]) | set(stamp.get("extras", [])))
    try:
        install(venv, python, ROOT, wanted)
    except subprocess.CalledProcessError as error:
        say(f"set-up: this step failed with exit status {error.returncode}: {' '.join(error.cmd)}")
        say("set-up: its own message is above. No network, or no room on the disk (6 GB), are the usual reasons.")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
