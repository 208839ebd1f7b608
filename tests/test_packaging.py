"""pyproject.toml, environment.yml, the Makefile and the set-up behind it."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch"}
TARGETS = ("help", "run", "lab", "test", "notebooks", "claims", "site", "check", "clean")

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")


@pytest.fixture
def ensure_venv(tmp_path, monkeypatch):
    """The set-up script as a module, with a small checkout of its own and a Python that only notes what it is asked."""
    spec = importlib.util.spec_from_file_location("ensure_venv", ROOT / "tools" / "ensure_venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkout = tmp_path / "check out"
    python = checkout / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    python.chmod(0o755)
    (checkout / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(module, "ROOT", str(checkout))
    module.asked = lambda: (tmp_path / "asked").read_text().count("pip install")
    module.checkout = checkout
    return module


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment_has_the_ranges_of_pyproject():
    lines = [line for line in conda()["dependencies"] if isinstance(line, str) and line != "pip"]
    found = {}
    for line in lines:
        name, operator, version = re.fullmatch(r"([\w-]+)(>=|=)(.+)", line).groups()
        found[CONDA_NAMES.get(name, name)] = SpecifierSet(("==" if operator == "=" else operator) + version)
    wanted = {Requirement(text).name: Requirement(text).specifier for text in PROJECT["dependencies"]}
    assert found == wanted | {"python": SpecifierSet(PROJECT["requires-python"])}


def test_environment_ends_with_the_checkout():
    assert conda()["channels"] == ["conda-forge", "nodefaults"]
    assert "pip" in conda()["dependencies"]
    assert conda()["dependencies"][-1] == {"pip": ["-e ."]}


def test_installed_packages_are_in_range():
    from importlib.metadata import version

    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), text


def test_ranges_not_pins():
    for text in PROJECT["dependencies"] + [t for extra in PROJECT["optional-dependencies"].values() for t in extra]:
        requirement = Requirement(text)
        pinned = any(part.operator == "==" and not part.version.endswith(".*") for part in requirement.specifier)
        assert not pinned, f"{text}: a range ages better than a pin"
        assert not requirement.url, f"{text}: an address"


def test_no_lock_file_with_addresses():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in tracked:
        if re.search(r"lock$|lock\.(json|ya?ml|toml)$|requirements.*\.txt$", name):
            assert "://" not in (ROOT / name).read_text(), f"{name} names hosts of a registry"


# --- the set-up script


def test_set_up_is_done_once(ensure_venv):
    assert ensure_venv.main(["--venv", "venv"]) == 0
    assert ensure_venv.main(["--venv", "venv"]) == 0
    assert ensure_venv.asked() == 1, "a second run installs nothing"


def test_set_up_is_done_again_when_it_no_longer_fits(ensure_venv):
    ensure_venv.main(["--venv", "venv"])
    ensure_venv.main(["--venv", "venv", "test"])
    assert ensure_venv.asked() == 2, "an extra is missing"
    ensure_venv.main(["--venv", "venv"])
    assert ensure_venv.asked() == 2, "more than needed is enough"
    (ensure_venv.checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    ensure_venv.main(["--venv", "venv"])
    assert ensure_venv.asked() == 3, "pyproject.toml changed"
    stamp = ensure_venv.checkout / "venv" / "minivlm-setup.json"
    assert json.loads(stamp.read_text())["extras"] == ["test"], "what another target asked for is kept"
    stamp.write_text(stamp.read_text().replace("check out", "elsewhere"))
    ensure_venv.main(["--venv", "venv"])
    assert ensure_venv.asked() == 4, "the environment belongs to another checkout"


def test_set_up_that_fails_leaves_no_stamp(ensure_venv, capsys):
    python = ensure_venv.checkout / "venv" / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *install*) exit 7;; esac\n')
    assert ensure_venv.main(["--venv", "venv"]) == 2
    assert "failed with exit status 7" in capsys.readouterr().err
    assert not (ensure_venv.checkout / "venv" / "minivlm-setup.json").exists()


def test_a_folder_that_cannot_be_written_is_named(ensure_venv, monkeypatch, capsys):
    monkeypatch.setattr(ensure_venv.os, "access", lambda path, mode: path != str(ensure_venv.checkout))
    assert ensure_venv.main(["--venv", "new/venv"]) == 2
    said = capsys.readouterr().err
    assert f"{ensure_venv.checkout}/new/venv cannot be written" in said
    assert "VENV=/tmp/venv OUT=/tmp/out" in said
    assert "network" not in said
    assert not (ensure_venv.checkout / "new").exists()
    assert ensure_venv.main(["--venv", "venv"]) == 0, "the folder itself counts, where there is one"


def test_a_long_set_up_shows_signs_of_life(ensure_venv, monkeypatch, capsys):
    python = ensure_venv.checkout / "venv" / "bin" / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *install*) sleep 1;; esac\n')
    monkeypatch.setattr(ensure_venv, "PATIENCE", 0.3)
    assert ensure_venv.main(["--venv", "venv"]) == 0
    said = capsys.readouterr().err
    assert "takes some minutes" in said
    assert 2 <= said.count("still installing") <= 4


def test_an_old_python_is_told_kindly(ensure_venv, monkeypatch, capsys):
    assert ensure_venv.version_problem((3, 11, 0), "python3") == ""
    monkeypatch.setattr(ensure_venv.shutil, "which", lambda name: None)
    text = ensure_venv.version_problem((3, 10, 2), "/usr/bin/python3")
    assert "needs Python 3.11 or newer, and /usr/bin/python3 is Python 3.10.2" in text
    assert "https://www.python.org/downloads/" in text
    monkeypatch.setattr(ensure_venv, "runs", lambda name: name == "python3.12")
    assert "make PYTHON=python3.12" in ensure_venv.version_problem((3, 10, 2), "python3")
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    assert ensure_venv.main(["--venv", "new"]) == 2
    assert not (ensure_venv.checkout / "new").exists()


@pytest.mark.parametrize("name", ["ensure_venv", "clean"])
def test_an_old_python_can_read_the_scripts(name):
    ast.parse((ROOT / "tools" / f"{name}.py").read_text(), feature_version=(3, 6))


# --- the Makefile


def make(*words, cwd=ROOT):
    """Run make as from a fresh shell: inside `make test VENV=...`, it would inherit that VENV."""
    inherited = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "VENV", "OUT", "PYTHON", "NB")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(["make", *words], cwd=cwd, env=environment, capture_output=True, text=True)


@needs_make
def test_targets_are_there_and_explained():
    said = make("help").stdout
    for target in TARGETS[1:]:
        assert re.search(rf"^{target} +\w", said, re.MULTILINE), f"make help does not explain {target}:\n{said}"
    for target in TARGETS:
        assert make("-n", target).returncode == 0


@needs_make
def test_make_works_from_anywhere(tmp_path):
    said = make("-C", str(ROOT), "-n", "run", "NB=01", cwd=tmp_path).stdout
    assert f'cd "{ROOT}"' in said
    assert f'"{ROOT}/.venv/bin/python" -m minivlm run 01 --out "{ROOT}/out"' in said


@needs_make
def test_make_takes_paths_elsewhere():
    said = make("-n", "test", "VENV=/tmp/v", "OUT=/tmp/o").stdout
    assert '"/tmp/v/bin/python" -m pytest -n 2 --nbval -o cache_dir="/tmp/o/.pytest_cache" notebooks tests' in said
    assert f'"{ROOT}/rel/bin/python"' in make("-n", "run", "VENV=rel").stdout


@pytest.fixture
def small_checkout(tmp_path):
    """A checkout with a Makefile, one notebook and something in out/."""
    checkout = tmp_path / "home" / "check out"
    for folder in ("tools", "notebooks", "out", "other"):
        (checkout / folder).mkdir(parents=True)
        (checkout / folder / "01_a.ipynb").touch()
    (checkout / "notebooks" / "summary.json").touch()
    shutil.copy(ROOT / "Makefile", checkout)
    shutil.copy(ROOT / "tools" / "clean.py", checkout / "tools")
    return checkout


@needs_make
@pytest.mark.parametrize("out", ["", ".", "..", "/", "notebooks", "other", "out/../notebooks", "link"])
def test_make_clean_spares_the_checkout(small_checkout, out):
    (small_checkout / "link").symlink_to("notebooks")
    before = sorted(small_checkout.parent.rglob("*"))
    done = make("clean", f"OUT={out}", cwd=small_checkout)
    assert done.returncode != 0
    assert "nothing removed" in done.stderr
    assert sorted(small_checkout.parent.rglob("*")) == before


@needs_make
def test_make_clean_removes_out(small_checkout):
    assert make("clean", cwd=small_checkout).returncode == 0
    assert not (small_checkout / "out").exists()
    assert make("clean", cwd=small_checkout).returncode == 0, "nothing to do"


@needs_make
def test_make_clean_of_a_folder_elsewhere_removes_what_a_run_wrote(small_checkout, tmp_path):
    out = tmp_path / "a folder"
    (out / "site").mkdir(parents=True)
    for name in ("01_a.ipynb", "summary.json", "site/objects.inv", "letter.txt"):
        (out / name).touch()
    assert make("clean", f"OUT={out}", cwd=small_checkout).returncode == 0
    assert [path.name for path in out.iterdir()] == ["letter.txt"]
    (out / "letter.txt").rename(out / "01_a.ipynb")
    make("clean", f"OUT={out}", cwd=small_checkout)
    assert (out / "01_a.ipynb").exists(), "no run wrote here, or there would be a summary"
    (out / "summary.json").touch()
    make("clean", f"OUT={out}", cwd=small_checkout)
    assert not out.exists()


@needs_make
def test_a_path_with_a_slash_after_a_space_is_still_relative():
    assert f'--out "{ROOT}/a /b"' in make("-n", "run", "OUT=a /b").stdout


def test_continuous_integration_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, ".ci/run should be executable"
    assert "make test" in script.read_text()
