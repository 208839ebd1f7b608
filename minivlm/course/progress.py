"""Progress of running notebooks: one line that is written over on a terminal, a line for each section elsewhere."""

import shutil
import sys
import time
from io import TextIOBase

from nbformat import NotebookNode


def section(cell: NotebookNode) -> str:
    """The heading (of level 1 or 2) that a markdown cell opens, or an empty text."""
    if cell.cell_type != "markdown":
        return ""
    for line in cell.source.splitlines():
        if line.startswith(("# ", "## ")):
            return line.lstrip("# ").strip()
    return ""


class Progress:
    """Says which notebook runs, which cell of how many, for how long, and what it printed last."""

    def __init__(self, name: str, notebook: NotebookNode, stream: TextIOBase | None = None) -> None:
        self.name, self.notebook = name, notebook
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty()
        self.began = time.monotonic()
        self.heading, self.where = "", ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def start(self, index: int) -> None:
        """A cell begins (markdown cells too)."""
        self.where = f"{self.name}  cell {index + 1} of {len(self.notebook.cells)}  {self.seconds:.0f} s"
        heading = section(self.notebook.cells[index])
        if heading:
            self.heading = heading
            if not self.live:
                self.line(f"{self.where}  {heading}")
        self.rewrite(self.heading)

    def text(self, index: int, text: str) -> None:
        """The running cell printed something: its last line is shown, and a claim stays."""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        for line in lines:
            if line.startswith("claim:"):
                self.line(f"{self.name}  {line}")
        if lines:
            of = len(self.notebook.cells)
            self.where = f"{self.name}  cell {index + 1} of {of}  {self.seconds:.0f} s"
            self.rewrite(lines[-1])

    def rewrite(self, what: str) -> None:
        if self.live:
            line = f"{self.where}  {what}"[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="", file=self.stream, flush=True)

    def line(self, text: str) -> None:
        print(("\r\033[K" if self.live else "") + text, file=self.stream, flush=True)

    def clear(self) -> None:
        if self.live:
            print("\r\033[K", end="", file=self.stream, flush=True)
