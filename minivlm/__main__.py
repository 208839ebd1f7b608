"""The command line: `python -m minivlm run | lab | build | claims | site`. Each command imports only what it needs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from minivlm.course.files import Course, CourseError, require


def run(given: argparse.Namespace) -> int:
    from minivlm.course.runner import Settings, run

    settings = Settings(preset=given.preset, seed=given.seed, arms=given.arms)
    return run(Course.here(), names(given), Path(given.out).resolve(), settings)


def lab(given: argparse.Namespace) -> int:
    from minivlm.course.lab import open_lab

    return open_lab(Course.here(), given.port, browser=not given.no_browser)


def build(given: argparse.Namespace) -> int:
    require("build", "jupytext")
    from minivlm.course import commands

    course, chosen = Course.here(), names(given)
    if given.from_lab:
        if not given.notebooks:
            raise CourseError("--from-lab needs to know which notebook: python -m minivlm build --from-lab 01")
        return commands.from_lab(course, chosen)
    if given.tidy:
        return commands.tidy(course, chosen)
    return commands.check(course, chosen) if given.check else commands.build(course, chosen, given.force)


def claims(given: argparse.Namespace) -> int:
    require("claims", "jupytext")
    from minivlm.course.claims import Request, print_status, run_claims, with_claims

    course = Course.here()
    chosen = names(given) if given.notebooks else with_claims(course, names(given))
    results = Path(given.results).resolve() if given.results else course.root / "results"
    request = Request(results, given.seeds, given.preset, given.arms, given.jobs, given.fresh)
    return (print_status if given.status else run_claims)(course, chosen, request)


def site(given: argparse.Namespace) -> int:
    from minivlm.course.site import build_site

    return build_site(Course.here(), Path(given.out).resolve())


def names(given: argparse.Namespace) -> list[str]:
    wanted = [part for text in given.notebooks for part in text.replace(",", " ").split()]
    return Course.here().choose(wanted)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m minivlm", description=sys.modules["minivlm"].__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="command")

    def command(action: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(action.__name__, help=about, description=about)
        added.set_defaults(action=action)
        return added

    one = command(run, "run notebooks, showing progress; executed copies and a summary go to a folder of their own")
    one.add_argument("notebooks", nargs="*", metavar="NB", help="01, 01_clip or clip; all of them if none is given")
    one.add_argument("--out", default="out", help="folder for the executed copies (default: out)")
    one.add_argument("--preset", choices=["cpu", "gpu", "smoke", "gpu-smoke"], help="default: gpu where there is one, else cpu")
    one.add_argument("--seed", type=int, help="0 or more (default: 0)")
    one.add_argument("--arms", choices=["lesson", "all"], help="which ablation arms to train (default: lesson)")

    one = command(lab, "open JupyterLab at the first notebook")
    one.add_argument("--port", type=int, default=8888, help="the first port to try (default: 8888)")
    one.add_argument("--no-browser", action="store_true", help="only print the address")

    one = command(build, "make notebooks/NAME.ipynb from notebooks/src/NAME.py, run it and store its outputs")
    one.add_argument("notebooks", nargs="*", metavar="NB", help="01, 01_clip or clip; all of them if none is given")
    one.add_argument("--force", action="store_true", help="also those whose cells did not change")
    other = one.add_mutually_exclusive_group()
    other.add_argument("--check", action="store_true", help="run nothing; say what is out of step (exit status 1)")
    other.add_argument("--from-lab", action="store_true", help="bring what was edited in Lab back to source and package")
    other.add_argument("--tidy", action="store_true", help="rewrite the sources as jupytext writes them")

    one = command(claims, "run notebooks over seeds and keep what they measured; go on where a call was stopped")
    one.add_argument("notebooks", nargs="*", metavar="NB", help="as for run; all that record a claim if none is given")
    one.add_argument("--seeds", type=int, default=5, metavar="N", help="run the seeds 0 to N - 1 (default: 5)")
    one.add_argument("--arms", choices=["lesson", "all"], default="all", help="which ablation arms to train (default: all)")
    one.add_argument("--preset", choices=["cpu", "gpu", "smoke", "gpu-smoke"], default="cpu", help="default: cpu")
    one.add_argument("--jobs", type=int, default=2, metavar="N", help="how many run at a time, a thread each (default: 2)")
    one.add_argument("--results", metavar="FOLDER", help="where the rows lie (default: the checkout's results/)")
    other = one.add_mutually_exclusive_group()
    other.add_argument("--fresh", action="store_true", help="also those that are stored and not stale")
    other.add_argument("--status", action="store_true", help="run nothing; say what is stored, stale, crashed or missing")

    one = command(site, "build the notebooks as web pages that need no network")
    one.add_argument("--out", default="out/site", help="default: out/site")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: done; 1: something that was run or checked failed; 2: the request cannot be done."""
    given = parser().parse_args(arguments)
    try:
        return given.action(given)
    except CourseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
