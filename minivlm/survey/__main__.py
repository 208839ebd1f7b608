"""`python -m minivlm.survey`: print the table of models. `--write README.md`: refresh it in that file.

`--check README.md`: exit with 1 where the file's table is stale. `--header clip`: print a notebook's header cell.
"""

import argparse
import sys
from pathlib import Path

from minivlm.survey import header, refresh, table


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minivlm.survey", description="The table of the surveyed models.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, metavar="FILE", help="refresh the table between the markers of FILE")
    what.add_argument("--check", type=Path, metavar="FILE", help="say whether the table in FILE is up to date")
    what.add_argument("--header", metavar="NAME", help="print the header cell of a model's notebook")
    options = parser.parse_args(arguments)

    if options.header is not None:
        try:
            print(header(options.header))
        except KeyError as error:
            return refuse(error.args[0])
        return 0
    file = options.write or options.check
    if file is None:
        print(table())
        return 0
    try:
        old = file.read_text(encoding="utf-8")
        new = refresh(old, table())
    except OSError as error:
        return refuse(f"{file}: {error.strerror}")
    except ValueError as error:  # a UnicodeDecodeError is one
        return refuse(f"{file}: {error}")
    if options.check:
        if new != old:
            print(f"{file} is stale: run python -m minivlm.survey --write {file}", file=sys.stderr)
        return int(new != old)
    if new != old:
        try:
            file.write_text(new, encoding="utf-8", newline="\n")
        except OSError as error:
            return refuse(f"{file}: {error.strerror}")
    return 0


def refuse(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
