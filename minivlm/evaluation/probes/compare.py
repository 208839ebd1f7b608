"""How far apart are two results, and is that rounding?"""

import torch
from torch import Tensor

#: What rounding may do, as a share of the largest number: sums in another order give other last digits.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def apart(got: Tensor, wanted: Tensor, what: str) -> float:
    """The largest difference, as a share of the largest number wanted.

    Raises:
        AssertionError: shapes differ, or there is a number that is not finite.
    """
    assert got.shape == wanted.shape, f"{what}: the shape is {tuple(got.shape)}; expected {tuple(wanted.shape)}."
    finite = got.isfinite().all() and wanted.isfinite().all()
    assert finite, f"{what}: some of the numbers are not finite (nan or infinite)."
    if not got.numel():
        return 0.0
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=torch.finfo(wanted.dtype).tiny))


def same(got: Tensor, wanted: Tensor, what: str) -> float:
    """`apart`, which must be no more than rounding.

    Raises:
        AssertionError: it is more; the message is `what` and by how much.
    """
    difference, limit = apart(got, wanted, what), TOLERANCE[wanted.dtype]
    assert difference <= limit, (
        f"{what}: they differ by {difference:.1e} of the largest; rounding explains {limit:.0e}."
    )
    return difference


def different(got: Tensor, wanted: Tensor, what: str) -> float:
    """`apart`, which must be more than rounding.

    Raises:
        AssertionError: it is not; the message is `what`.
    """
    difference, limit = apart(got, wanted, what), TOLERANCE[wanted.dtype]
    assert difference > limit, (
        f"{what}: the difference is {difference:.1e} of the largest, no more than rounding ({limit:.0e})."
    )
    return difference


def identical(got: Tensor, wanted: Tensor, what: str) -> float:
    """`apart`, which must be nothing at all.

    Raises:
        AssertionError: it is not 0; the message is `what`, how many numbers differ and by how much.
    """
    difference = apart(got, wanted, what)
    many = int((got != wanted).sum())
    assert not many, (
        f"{what}: {many} of {got.numel()} numbers differ, by up to {difference:.1e} of the largest; expected none."
    )
    return difference
