"""Remove what make's targets wrote into OUT, and nothing else.

    python3 tools/clean.py out

The checkout's own folder `out` goes whole. Of a folder elsewhere go the summary, the executed copies, the site and the
caches, and the folder itself if it is then empty. Any other folder of the checkout, and any folder that the checkout lies
in, is refused. Standard library only.
"""

import os
import shutil
import sys

ROOT = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHES = (".ruff_cache", ".hypothesis", ".pytest_cache")


def lies_in(path, folder):
    """True if `path` is `folder` or lies in it."""
    return os.path.commonpath([path, folder]) == folder


def problem(out):
    """Why this folder is not cleaned; an empty text where it may be."""
    own = os.path.join(ROOT, "out")
    if lies_in(ROOT, out):
        return "is the checkout itself or holds it"
    if lies_in(out, ROOT) and not lies_in(out, own):
        return f"lies in the checkout; there, only {own} is written by a run"
    return ""


def written(out):
    """The names in this folder that a run, the tests or the site wrote."""
    inside = set(os.listdir(out))
    found = inside & set(CACHES)
    if "summary.json" in inside:
        notebooks = {name for name in os.listdir(os.path.join(ROOT, "notebooks")) if name.endswith(".ipynb")}
        found |= {"summary.json"} | inside & notebooks
    if os.path.exists(os.path.join(out, "site", "objects.inv")):
        found.add("site")
    return sorted(found)


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def main(arguments):
    given = arguments[0]
    out = os.path.realpath(os.path.join(ROOT, given))
    why = problem(out)
    if why:
        sys.stderr.write(f"clean: OUT={given} {why}; nothing removed\n")
        return 2
    if not os.path.isdir(out):
        return 0
    if lies_in(out, ROOT):
        print(f"removing {out}")
        shutil.rmtree(out)
        return 0
    names = written(out)
    for name in names:
        print(f"removing {os.path.join(out, name)}")
        remove(os.path.join(out, name))
    left = sorted(os.listdir(out))
    if left:
        print(f"{out} stays: {len(left)} other files or folders are in it, such as {left[0]}")
    else:
        os.rmdir(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
