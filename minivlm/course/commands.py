"""What `python -m minivlm build` prints and returns, for each of its options."""

import sys

from minivlm.course import back_from_lab, builder
from minivlm.course.files import Course, CourseError


def build(course: Course, names: list[str], force: bool = False) -> int:
    """Build the notebooks that changed; go on after one that fails."""
    failed = False
    for name in names:
        try:
            written = builder.build(course, name, force, on_start=lambda cell, of, name=name: progress(name, cell, of))
        except CourseError as error:
            progress(name)
            print(f"error: {error}", file=sys.stderr)
            failed = True
        else:
            progress(name)
            print(f"{name}: {'built' if written else 'unchanged'}", flush=True)
    return 1 if failed else 0


def progress(name: str, cell: int = 0, of: int = 0) -> None:
    """One line on a terminal that is written over; nothing elsewhere. Without a cell: clear it."""
    if sys.stdout.isatty():
        print(f"\r\033[K{name}: cell {cell} of {of}" if cell else "\r\033[K", end="", flush=True)


def check(course: Course, names: list[str]) -> int:
    """Say what is out of step; run nothing."""
    out_of_step = 0
    for name in names:
        try:
            found = builder.check(course, name)
        except CourseError as error:
            found = [str(error)]
        for text in found:
            print(f"{name}: {text}")
        out_of_step += bool(found)
    if out_of_step:
        print(
            f"{out_of_step} of {len(names)} notebooks are out of step with their sources. After a change of a source or "
            "of the package: python -m minivlm build. After a change in Lab: python -m minivlm build --from-lab NB"
        )
        return 1
    print(f"{len(names)} notebooks are in step with their sources and the package")
    return 0


def from_lab(course: Course, names: list[str]) -> int:
    """Bring edits made in Lab back."""
    for name in names:
        changed = back_from_lab.from_lab(course, name)
        for text in changed:
            print(text)
        if changed:
            print(f"{name}: now look at the change (git diff) and run: python -m minivlm build {name}")
        else:
            print(f"{name}: nothing to bring back; the notebook says what its source says")
    return 0


def tidy(course: Course, names: list[str]) -> int:
    for name in names:
        print(f"{name}: {'rewritten' if builder.tidy(course, name) else 'unchanged'}")
    return 0
