"""Things dealt out to rows."""

import pytest
import torch

from minivlm.connectors.ragged import in_rows


def test_in_reading_order_filled_up_with_zeros():
    things = torch.arange(1.0, 13.0).view(4, 1, 3)
    rows, taken = in_rows(things, torch.tensor([1, 0, 3]))
    assert rows.shape == (3, 3, 1, 3)
    assert taken.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert torch.equal(rows[0, 0], things[0])
    assert torch.equal(rows[2], things[1:])
    assert not rows[~taken].any()


def test_rows_have_a_place_even_if_there_is_nothing():
    rows, taken = in_rows(torch.zeros(0, 2, 3), torch.tensor([0, 0]))
    assert rows.shape == (2, 1, 2, 3)
    assert not taken.any()


def test_gradients_pass():
    things = torch.ones(3, 2, requires_grad=True)
    rows, _ = in_rows(things, torch.tensor([2, 1]))
    (rows[0, 1] * 5).sum().backward()
    assert torch.equal(things.grad, torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]]))


@pytest.mark.parametrize("counts", [[1, 1], [2, 2], [0, 0]])
def test_counts_must_add_up(counts):
    with pytest.raises(ValueError, match=rf"rows of \[{counts[0]}, {counts[1]}\] .* there are 3 to be dealt out"):
        in_rows(torch.zeros(3, 2), torch.tensor(counts))
