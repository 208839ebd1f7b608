"""`python -m minivlm.world`: the frozen evaluation sets and the levels of guessing.

`verify`: draw everything again and say what differs. `levels`: measure, and print the table; `--write FILE` stores the levels
and refreshes the table in FILE. `write`: draw and store the sets, measure the levels, refresh both pages.
"""

import argparse
import sys
from pathlib import Path

from minivlm import world
from minivlm.world import datasheet, frozen, levels
from minivlm.world.tasks import TASKS


def verify(given: argparse.Namespace) -> int:
    found = frozen.verify(given.folder, tuple(given.tasks) or tuple(TASKS))
    for complaint in found:
        print(complaint, file=sys.stderr)
    if not found:
        print(f"{len(given.tasks) or len(TASKS)} sets of version {world.VERSION} are as they are drawn today.")
    return int(bool(found))


def measure(given: argparse.Namespace) -> int:
    measured = levels.measure()
    if given.write is None:
        print(datasheet.table(measured))
        return 0
    page = datasheet.refresh(
        given.write.read_text(encoding="utf-8"), datasheet.table(measured)
    )  # before writing anything
    frozen.put(given.folder / "levels.json", levels.text(measured).encode())
    frozen.put(given.write, page.encode())
    return 0


def write(given: argparse.Namespace) -> int:
    frozen.write(given.folder)
    frozen.put(given.folder / "levels.json", levels.text(measured := levels.measure()).encode())
    if given.folder == frozen.FOLDER:
        datasheet.renew(datasheet.SHEET, datasheet.sheet())
        datasheet.renew(datasheet.PAGE, datasheet.table(measured))
    print(f"{len(TASKS)} sets of version {world.VERSION} are in {given.folder}.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    top = argparse.ArgumentParser(
        prog="python -m minivlm.world", description="Frozen evaluation sets, and what guessing gives."
    )
    top.add_argument("--folder", type=Path, default=frozen.FOLDER, help="where the sets lie (default: data/eval)")
    commands = top.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("verify", help="draw the sets again and say what differs")
    one.add_argument("tasks", nargs="*", metavar="TASK", help="some of them alone")
    one.set_defaults(action=verify)
    one = commands.add_parser(
        "levels", help="measure the levels of chance and of guessing blindly, and print the table"
    )
    one.add_argument("--write", type=Path, metavar="FILE", help="store them, and refresh the table in FILE")
    one.set_defaults(action=measure)
    one = commands.add_parser("write", help="draw and store all sets, measure the levels, refresh the pages")
    one.set_defaults(action=write)
    given = top.parse_args(arguments)
    try:
        return given.action(given)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
