"""How fast are the models, against the reference library?

    python benchmarks/models.py [clip llava ...] [--write results/speed_models.json]

Each model of the course and its reference (`transformers`) with the same weights, in one process and one thread, in turn:
forward and backward of the loss, and greedy writing with a cache. Median CPU time; before it is taken, both must compute the
same. Nothing else should run meanwhile.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from rivals import BATCH, LAYERS, MODELS, NEW, PATCHES, WIDTH, WORDS
from torch import Tensor, nn

ROUNDS = 31


def alternately(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU seconds of each, called in turn; the first two rounds warm up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for work, times in zip((ours, theirs), taken, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return statistics.median(taken[0][2:]), statistics.median(taken[1][2:])


def step(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Forward and backward, no optimizer."""
    model.zero_grad(set_to_none=True)
    loss().backward()


def measure(name: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of ours and theirs, and the ratio.

    Raises:
        RuntimeError: they do not compute the same.
    """
    torch.manual_seed(0)
    pair = MODELS[name]()
    with torch.no_grad():
        mine, other = pair.our_loss().item(), pair.their_loss().item()
    if abs(mine - other) > 1e-4:
        raise RuntimeError(f"{name}: the losses differ, {mine} and {other}; a comparison of times would mean nothing.")
    ours, theirs = alternately(
        lambda: step(pair.ours, pair.our_loss), lambda: step(pair.theirs, pair.their_loss), rounds
    )
    found = {"step_ms": 1000 * ours, "reference_step_ms": 1000 * theirs, "step_ratio": ours / theirs}
    if pair.our_write is not None and pair.their_write is not None:
        pair.ours.eval()
        pair.theirs.eval()
        if not torch.equal(pair.our_write(), pair.their_write()):
            raise RuntimeError(f"{name}: what is written differs; a comparison of times would mean nothing.")
        ours, theirs = alternately(pair.our_write, pair.their_write, max(5, rounds // 4))
        found |= {"write_ms": 1000 * ours, "reference_write_ms": 1000 * theirs, "write_ratio": ours / theirs}
    return found


def main() -> None:
    """Print a table; with `--write`, store it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], metavar="model", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':10s}{'step, ms':>10s}{'reference':>11s}{'ratio':>7s}{'write, ms':>12s}{'reference':>11s}{'ratio':>7s}")
    figures = {}
    for name in given.models or MODELS:
        found = figures[name] = measure(name)
        line = f"{name:10s}{found['step_ms']:10.1f}{found['reference_step_ms']:11.1f}{found['step_ratio']:7.2f}"
        if "write_ms" in found:
            line += f"{found['write_ms']:12.1f}{found['reference_write_ms']:11.1f}{found['write_ratio']:7.2f}"
        print(line, flush=True)
    if given.write:
        about = {
            "threads": 1, "torch": torch.__version__, "transformers": transformers.__version__,
            "machine": platform.machine(), "width": WIDTH, "layers": LAYERS, "batch": BATCH, "patches": PATCHES,
            "words": WORDS, "written": NEW,
        }  # fmt: skip
        given.write.write_text(json.dumps(about | {"models": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
