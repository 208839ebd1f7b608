"""Make, list and check backbones.

    python -m minivlm.backbones list
    python -m minivlm.backbones train language-cpu        (stop it at any time; the same command goes on)
    python -m minivlm.backbones measure language-cpu      (accuracies on its card, once more)
    python -m minivlm.backbones check                     (hashes and versions of those that are here)
"""

import argparse
import sys
from pathlib import Path

import torch

from minivlm.backbones.language import scene_metrics, world_tokenizer
from minivlm.backbones.page import refresh
from minivlm.backbones.recipes import RECIPES
from minivlm.backbones.store import FOLDER, BackboneError, built, card, load, measure, publish
from minivlm.backbones.training import Run
from minivlm.backbones.vision import metrics as vision_metrics


def report(run: Run) -> None:
    """A line every so often; accuracies now and then."""
    line = f"step {run.step}/{run.recipe.steps}  {run.seconds / 60:.1f} min  loss {run.losses[-1]:.3f}"
    if run.step % 500 == 0 or run.step == run.recipe.steps:
        run.model.eval()
        decoder = getattr(run.model, "decoder", None)
        if decoder is None:
            found = vision_metrics(run.model, 512, "validation")
        else:
            found = scene_metrics(decoder, world_tokenizer(), 200, "validation")
        line += "\n  " + "  ".join(f"{kind} {value:.2f}" for kind, value in found.items())
    print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m minivlm.backbones", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the backbones, and how good those are that are here")
    listing.add_argument("--write", type=Path, help="refresh the table between the markers of this page")
    commands.add_parser("check", help="hashes and versions of those that are here")
    again = commands.add_parser("measure", help="measure one that is here once more, for its card")
    again.add_argument("name", choices=list(RECIPES))
    train = commands.add_parser("train", help="make one, or go on making it")
    train.add_argument("name", choices=list(RECIPES))
    train.add_argument("--state", type=Path, help="file of the running state (default: beside the others, not in git)")
    train.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    if given.command == "train":
        torch.set_num_threads(1)
        state = given.state or FOLDER / f"{given.name}.state.tmp"
        run = Run(RECIPES[given.name], state, given.device)
        print(f"{given.name}: from step {run.step} of {run.recipe.steps}; state in {state}", flush=True)
        where = publish(given.name, run.go(report=report))
        state.unlink(missing_ok=True)
        print(f"written: {where}")
        return 0
    if given.command == "measure":
        torch.set_num_threads(1)
        print("  ".join(f"{kind} {value:.2f}" for kind, value in measure(given.name).items()))
        return 0
    if given.command == "list" and given.write:
        given.write.write_text(refresh(given.write.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    wrong = 0
    for name in RECIPES:
        if name not in built():
            print(f"{name:14s} not here; python -m minivlm.backbones train {name}")
            continue
        try:
            about = card(name)
            if given.command == "check":
                load(name)
            print(f"{name:14s} {about['parameters']:,} parameters, {about['hours']} hours, {about['device']}")
            if given.command == "list":
                print("  " + ", ".join(f"{kind} {value:.2f}" for kind, value in about["metrics"].items()))
        except BackboneError as error:
            wrong = 1
            print(f"{name:14s} {error}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
