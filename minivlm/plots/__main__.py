"""`python -m minivlm.plots docs/_static/genealogy.png`: draw the family tree of the surveyed models into a file."""

import argparse
import sys
from pathlib import Path

import matplotlib

from minivlm.plots.genealogy import fingerprint, genealogy


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m minivlm.plots", description="Draw the family tree of the models.")
    parser.add_argument("file", type=Path, help="where to write it, for instance docs/_static/genealogy.png")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")
    # Without matplotlib's version in it, the same picture is the same file; a test compares the fingerprint.
    try:
        genealogy().savefig(options.file, format="png", metadata={"Software": None, "Description": fingerprint()})
    except OSError as error:
        print(f"error: {options.file}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
