"""What the README and the contributors' page tell a reader to type is true."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from minivlm.__main__ import parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/index.md", "docs/contributing.md")
SHELL = {"bash", "sh", "shell", "console"}
# Commands of others, whose names are all that is checked here.
OTHERS = {"git", "cd", "conda", "source", "uv", "jupyter"}


def blocks(page: str, languages: set[str]) -> list[str]:
    """The fenced blocks of a page in one of these languages."""
    tokens = MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8"))
    return [t.content for t in tokens if t.type == "fence" and t.info.strip().split(" ")[0] in languages]


def shell_lines() -> list[tuple[str, str]]:
    """(page, command) of every line of the shell blocks."""
    lines = [(page, line.strip()) for page in PAGES for block in blocks(page, SHELL) for line in block.splitlines()]
    lines = [(page, re.sub(r"\s+#.*$", "", line.removeprefix("$ "))) for page, line in lines if line and line[0] != "#"]
    assert lines, f"no commands found in {PAGES}"
    return lines


def check_make(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    given = re.search(r"^\.(?:\[([\w,]+)\])?$", words[-1])
    assert given, f"expected to end in . or .[extra]: {words[-1]}"
    unknown = set((given[1] or "").split(",")) - set(extras) - {""}
    assert not unknown, f"pyproject.toml has no extra {unknown}; it has {set(extras)}"


def check_python(words: list[str]) -> None:
    match words[1:]:
        case ["-m", "minivlm", *arguments]:
            parser().parse_args(arguments)
        case ["-m", module, *_] if module.startswith("minivlm."):
            done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        case ["-m", "pip", "install", *_]:
            check_pip(words)
        case ["-m", "pytest", *arguments]:
            missing = [a for a in arguments if "/" in a or (a[0].isalpha() and a != "auto") if not (ROOT / a).exists()]
            assert not missing, f"these paths do not exist: {missing}"
        case ["-m", "venv", _] | ["-m", "jupyterlab", *_]:
            pass
        case _:
            pytest.fail(f"this test does not know the command {shlex.join(words)}; teach it")


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_commands(page, line):
    for command in line.split("&&"):
        words = shlex.split(command)
        while "=" in words[0]:
            words.pop(0)
        if words[0] == "make":
            check_make(words)
        elif words[0] in ("python", "python3"):
            check_python(words)
        else:
            assert words[0] in OTHERS, f"{page}: this test does not know the command {command!r}; teach it"


def test_python_blocks():
    """The README's Python blocks run one after the other, as a reader would paste them."""
    code = "\n\n".join(blocks("README.md", {"python"}))
    environment = os.environ | {"MINIVLM_PRESET": "smoke", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_links_to_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"
