"""Things that belong to rows, not equally many to each, as one tensor."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def in_rows(
    things: Float[Tensor, "all *shape"], counts: Int[Tensor, "b"]
) -> tuple[Float[Tensor, "b most *shape"], Bool[Tensor, "b most"]]:
    """The first `counts[0]` things as row 0, the next `counts[1]` as row 1, and so on;
    filled up with zeros. Rows have at least one place, so that there is something not
    to look at. Also says which places are taken.

    Raises:
        ValueError: the counts do not add up to the things.
    """
    if int(counts.sum()) != len(things):
        raise ValueError(
            f"rows of {counts.tolist()} are {int(counts.sum())} together; there are"
            f" {len(things)} to be dealt out."
        )
    most = max(1, int(counts.max()))
    taken = torch.arange(most, device=things.device) < counts[:, None]
    rows = things.new_zeros(*taken.shape, *things.shape[1:])
    rows[taken] = things
    return rows, taken
