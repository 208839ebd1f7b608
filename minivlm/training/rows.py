"""A few rows of a frozen matrix that learn: new words in a finished language model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Rows(nn.Module):
    """A matrix of which only some rows are parameters."""

    def __init__(self, matrix: Tensor, rows: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.detach().clone(), persistent=False)
        self.register_buffer("rows", torch.tensor(rows, device=matrix.device), persistent=False)

    def forward(self, learned: Tensor) -> Tensor:
        return self.matrix.index_put((self.rows,), learned)

    def right_inverse(self, matrix: Tensor) -> Tensor:
        return matrix.detach()[self.rows].clone()


@contextmanager
def only_rows(*modules: nn.Module, rows: Sequence[int]) -> Iterator[None]:
    """Let only these rows of each module's `weight` learn; the others stay as they are to the last bit, whatever the optimizer.

        with frozen(model.vision, model.language.blocks, model.language.norm):
            with only_rows(model.language.embedding, rows=[door.end_id]):
                fit(model, batches, steps)

    Inside, the module has a parameter of that many rows in the place of its weight. At the end it has its weight again, in
    which they stand. (OpenFlamingo sets the other rows' gradients to zero, which a weight decay does not heed.)

    Raises:
        ValueError: no modules or rows, or a row that is not there, or is named twice.
    """
    rows = list(rows)
    if not modules or not rows or len(set(rows)) != len(rows):
        raise ValueError(
            f"only_rows takes modules with a weight, and rows, each once; got {len(modules)} modules and rows={rows}."
        )
    for module in modules:
        if min(rows) < 0 or max(rows) >= len(module.weight):
            raise ValueError(f"rows run from {min(rows)} to {max(rows)}; the weight has rows 0 to {len(module.weight) - 1}.")
    flags = [module.weight.requires_grad for module in modules]
    try:
        for module in modules:
            parametrize.register_parametrization(module, "weight", _Rows(module.weight, rows), unsafe=True)
            module.parametrizations.weight.original.requires_grad_(True)
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
            module.weight.requires_grad_(flag)
