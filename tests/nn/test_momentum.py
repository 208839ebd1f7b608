"""The slow copy and the queue."""

import pytest
import torch
from torch import nn

from minivlm.nn.momentum import Queue, follow, slow_copy


def test_a_slow_copy_computes_the_same_and_has_no_parameters():
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 2)))
    slow = slow_copy(fast)
    x = torch.randn(5, 3)
    assert torch.equal(slow(x), fast(x))
    assert not list(slow.parameters())
    assert slow.state_dict().keys() == fast.state_dict().keys()
    assert not slow(x).requires_grad, "no gradient goes through it"
    with torch.no_grad():
        fast[0].weight.add_(1)
    assert not torch.equal(slow(x), fast(x)), "it is a copy"
    assert all(p.requires_grad for p in fast.parameters())


def test_following_by_hand():
    """0.75 of its own and 0.25 of the model's: exact, in numbers that float32 holds."""
    fast = nn.Linear(2, 1)
    slow = slow_copy(fast)
    with torch.no_grad():
        fast.weight.copy_(torch.tensor([[8.0, -4.0]]))
        fast.bias.fill_(1.0)
        slow.weight.copy_(torch.tensor([[0.0, 4.0]]))
        slow.bias.fill_(5.0)
    follow(slow, fast, 0.75)
    assert slow.weight.tolist() == [[2.0, 2.0]]
    assert slow.bias.item() == 4.0
    follow(slow, fast, 0.75)
    assert slow.weight.tolist() == [[3.5, 0.5]]
    assert fast.weight.tolist() == [[8.0, -4.0]], "the model itself stays"
    follow(slow, fast, 1.0)
    assert slow.weight.tolist() == [[3.5, 0.5]]
    follow(slow, fast, 0.0)
    assert torch.equal(slow.weight, fast.weight)


def test_a_queue_begins_full_of_directions():
    torch.manual_seed(0)
    queue = Queue(50, 3)
    torch.testing.assert_close(queue.features.norm(dim=-1), torch.ones(50))
    assert queue.features.mean().abs() < 0.2
    assert queue.state_dict().keys() == {"features", "place"}
    assert not list(queue.parameters())


def test_a_queue_wraps_around():
    queue = Queue(5, 1)
    queue.features.fill_(-1)

    def push(*values: float) -> list[float]:
        queue.push(torch.tensor(values)[:, None].float())
        return queue.features[:, 0].tolist()

    assert push(0, 1) == [0, 1, -1, -1, -1]
    assert push(2, 3) == [0, 1, 2, 3, -1]
    assert push(4, 5) == [5, 1, 2, 3, 4], "the oldest gives way"
    assert queue.place.item() == 1
    assert push(6, 7, 8, 9, 10) == [10, 6, 7, 8, 9], "as many as it holds"
    assert queue.place.item() == 1


def test_a_queue_keeps_numbers_not_the_tensors_it_got():
    queue, features = Queue(4, 2), torch.ones(2, 2, requires_grad=True)
    queue.push(features)
    assert not queue.features.requires_grad
    with torch.no_grad():
        features.zero_()
    assert queue.features[:2].tolist() == [[1, 1], [1, 1]]


def test_a_queue_refuses_more_than_it_holds():
    with pytest.raises(ValueError, match="a queue of 4 got 5 features at once; make the queue longer"):
        Queue(4, 2).push(torch.zeros(5, 2))


def test_a_stored_queue_goes_on_where_it_was():
    one, other = Queue(4, 1), Queue(4, 1)
    one.push(torch.ones(3, 1))
    other.load_state_dict(one.state_dict())
    other.push(torch.zeros(2, 1))
    assert other.features[:, 0].tolist() == [0, 1, 1, 0]
    assert one.features[:3, 0].tolist() == [1, 1, 1]


def test_a_queue_takes_features_of_lower_precision():
    queue = Queue(4, 2)
    queue.push(torch.ones(3, 2, dtype=torch.bfloat16))
    assert queue.features.dtype == torch.float32
    assert queue.features[:3].tolist() == [[1, 1]] * 3
