"""A person sees a bar; a file has the plain lines alone. Scripts run in a terminal of their own."""

import os
import pty
import re
import subprocess
import sys
import termios
import threading
from pathlib import Path

from minivlm.training import fit
from minivlm.training.bar import bar
from tests.training.test_loop import batches, line

ROOT = Path(__file__).resolve().parents[2]
PLAIN = [f"line step {step:5d}/20" for step in range(2, 21, 2)]


def in_terminal(script: str) -> str:
    """What a person has seen when it ended."""
    person, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    seen = bytearray()

    def look() -> None:
        try:
            while part := os.read(person, 65536):
                seen.extend(part)
        except OSError:  # Linux: nobody has the terminal open any more
            pass

    looking = threading.Thread(target=look)
    looking.start()
    run = ["-c", f"from tests.training.test_bar import *\n{script}"]
    try:
        done = subprocess.run([sys.executable, *run], stdout=terminal, stderr=subprocess.PIPE, cwd=ROOT, timeout=120)
    finally:
        os.close(terminal)
        looking.join(timeout=30)
        os.close(person)
    assert done.returncode == 0, done.stderr.decode()
    return seen.decode()


def train() -> None:
    with bar(20, "training") as shown:
        fit(line(), shown(batches()), 20, name="line")


def assert_plain(lines: list[str]) -> None:
    assert [text[: len(plain)] for text, plain in zip(lines, PLAIN, strict=True)] == PLAIN


def left(seen: str) -> list[str]:
    """The lines that still stand there: of each the last version, without those that were wiped."""
    return [text for text in (row.rstrip("\r").split("\r")[-1].strip() for row in seen.split("\n")) if text]


def test_a_terminal_shows_a_bar_below_the_lines():
    seen = in_terminal("train(); print('ready')")
    assert re.search(r"training: +\d+%\|.*\d+/20", seen), f"no bar in {seen!r}"
    *lines, last = left(seen)
    assert last == "ready", f"the bar was not wiped: {last!r}"
    assert_plain(lines)


def test_a_training_that_goes_on_begins_where_it_was():
    seen = in_terminal(
        "with bar(20, 'training') as shown:\n"
        "    stream = shown(lambda start: iter(range(start, 20)))\n"
        "    assert list(stream(15)) == [15, 16, 17, 18, 19]"
    )
    counts = [int(count) for count in re.findall(r"(\d+)/20", seen)]
    assert 15 in counts, f"no 15 of 20 in {seen!r}"
    assert not set(range(1, 15)) & set(counts), "it began at 0"


def test_elsewhere_there_is_none(capsys):
    stream = batches()
    with bar(20, "training") as shown:
        assert shown(stream) is stream
        fit(line(), shown(stream), 20, name="line")
    assert_plain(capsys.readouterr().out.splitlines())


def test_a_training_that_fails_gives_the_terminal_back():
    seen = in_terminal(
        "try:\n"
        "    with bar(20) as shown:\n"
        "        fit(line(), shown([next(batches())]), 20)\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
        "print('after')"
    )
    assert left(seen)[-2:] == ["the batches ran out at step 2 of 20.", "after"]
