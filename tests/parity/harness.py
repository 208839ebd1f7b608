"""Compare a model of ours with its reference, output by output.

The reference gets random values in *every* parameter (its own start leaves biases at 0 and norm gains at 1, which hides most
mistakes), is saved in the released format, and read by `checkpoints.load`: so parity tests the loading too. A new model adds
one file to `cases/`, with a list `CASES`.
"""

import importlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minivlm import checkpoints

ATOL = 1e-5  # float32, a few layers: two right implementations differ by less than half of it

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One model in one small configuration."""

    model: str  # its name in the survey, or in PARTS of references.py
    name: str  # of this configuration
    build: Callable[[], nn.Module]  # the reference, random
    inputs: Callable[[], Outputs]
    theirs: Callable[[nn.Module, Outputs], Outputs]  # named outputs of the reference ...
    ours: Callable[[nn.Module, Outputs], Outputs]  # ... and the same ones of what `checkpoints.load` gave

    def __str__(self) -> str:
        return f"{self.model}: {self.name}"


class Mismatch(AssertionError):
    """Ours and theirs differ. `names`: in which outputs."""

    def __init__(self, case: Case, differences: dict[str, float]) -> None:
        self.names = set(differences)
        lines = [f"  {name}: {difference:.3g}" for name, difference in differences.items()]
        super().__init__("\n".join([f"{case} differs from its reference (atol {ATOL:g}) in", *lines]))


def cases() -> list[Case]:
    """All cases of all models. Never an empty list: a test over nothing would pass."""
    files = sorted((Path(__file__).parent / "cases").glob("*.py"))
    found = [case for file in files for case in importlib.import_module(f"tests.parity.cases.{file.stem}").CASES]
    assert found, "no parity cases"
    return found


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter a random value of a sane size, in the order of their names.

    Embeddings, patches included, are small: in a stream of small variance a wrong epsilon can be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim < 2:
            p.copy_(0.3 * noise + (0.0 if name.endswith("bias") or "embed" in name else 1.0))
        else:
            small = 0.15 if "embed" in name else 1.0
            fan_in = 1 if "embed" in name and p.ndim == 2 else p[0].numel()
            p.copy_(small * fan_in**-0.5 * noise)
    return model.eval()


def compare(theirs: Outputs, ours: Outputs) -> dict[str, float]:
    """The largest difference of each output that is not equal; outputs must have the same names and shapes."""
    assert theirs.keys() == ours.keys(), f"outputs differ: {sorted(theirs.keys() ^ ours.keys())}"
    assert theirs, "nothing to compare"
    differences = {}
    for name, wanted in theirs.items():
        given = ours[name]
        assert given.shape == wanted.shape, f"{name}: shape {tuple(given.shape)}, reference {tuple(wanted.shape)}"
        assert wanted.isfinite().all(), f"{name}: the reference itself is not finite"
        difference = (given - wanted).abs().max().item()
        if not difference <= ATOL:  # not >: a NaN differs too
            differences[name] = difference
    return differences


@torch.no_grad()
def check(case: Case, folder: Path, plant: Callable[[nn.Module], None] | None = None) -> None:
    """Build, save, load, run and compare.

    Args:
        plant: given the loaded model before it runs; puts a mistake into it.

    Raises:
        Mismatch: an output differs.
    """
    reference, inputs = case.build(), case.inputs()
    theirs = case.theirs(reference, inputs)
    reference.save_pretrained(folder)
    mine = checkpoints.load(folder)
    if plant is not None:
        plant(mine)
    if differences := compare(theirs, case.ours(mine, inputs)):
        raise Mismatch(case, differences)


def record(modules: Iterable[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """What each of `modules` gives while `run()` runs."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for module in modules:
            hook = module.register_forward_hook(
                lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            stack.callback(hook.remove)
        run()
    return seen
