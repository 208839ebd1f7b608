"""CLIP's text tower."""

import dataclasses

import pytest
import torch

from minivlm.language.text_encoder import TextConfig, TextEncoder

EOT = 3
CONFIG = TextConfig(vocab_size=20, context=8, width=12, layers=2, heads=3, hidden=24, eot_id=EOT)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TextEncoder(CONFIG).eval()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": 5}, "width 12 is no multiple of heads 5"),
        ({"eot_id": 20}, "eot_id 20 .*20"),
        ({"eot_id": -1}, "eot_id -1 .*20"),
    ],
)
def test_config_refuses_what_does_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_config_allows_the_ends():
    assert dataclasses.replace(CONFIG, eot_id=0).eot_id == 0
    assert dataclasses.replace(CONFIG, eot_id=None).eot_id is None


@torch.no_grad()
def test_later_tokens_change_nothing_earlier(tower):
    ids = torch.tensor([[1, 7, 8, 9, 10, EOT]])
    for at in range(1, 6):
        changed = ids.clone()
        changed[0, at] = 15
        before, after = tower(ids), tower(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        assert not torch.allclose(before[:, at:], after[:, at:])


@torch.no_grad()
def test_pool_takes_the_first_end_of_text(tower):
    ids = torch.tensor([[1, 7, EOT, 9, EOT, 19], [1, 7, 8, 9, 19, EOT]])
    features = torch.arange(12.0).view(2, 6, 1).expand(2, 6, 12)
    assert tower.pool(features, ids)[:, 0].tolist() == [2.0, 11.0]


@torch.no_grad()
def test_pool_takes_the_first_highest_id_where_none_is_named():
    tower = TextEncoder(dataclasses.replace(CONFIG, eot_id=None))
    ids = torch.tensor([[1, 7, 19, EOT, 19, 0], [19, 7, 8, 9, 4, EOT]])
    features = torch.arange(12.0).view(2, 6, 1).expand(2, 6, 12)
    assert tower.pool(features, ids)[:, 0].tolist() == [2.0, 6.0]


@torch.no_grad()
def test_what_comes_after_the_end_does_not_count(tower):
    ids = torch.tensor([[1, 7, 8, EOT, 0, 0], [1, 9, EOT, 0, 0, 0]])
    changed = ids.clone()
    changed[0, 4:], changed[1, 3:] = 11, torch.tensor([12, 13, EOT])
    pooled = tower.pool(tower(ids), ids)
    assert torch.equal(pooled, tower.pool(tower(changed), changed))
    assert torch.allclose(pooled[1], tower.pool(tower(ids[1:, :3]), ids[1:, :3])[0], atol=1e-5)


@torch.no_grad()
def test_keep_on_the_right_is_not_needed_and_on_the_left_it_is(tower):
    right = torch.tensor([[1, 7, 8, EOT, 0, 0]])
    keep = right != 0
    torch.testing.assert_close(tower.pool(tower(right, keep), right), tower.pool(tower(right), right))
    left, other = torch.tensor([[0, 0, 1, 7, 8, EOT]]), torch.tensor([[11, 12, 1, 7, 8, EOT]])
    keep = left != 0
    torch.testing.assert_close(tower(left, keep)[keep], tower(other, keep)[keep])
    assert not torch.allclose(tower(left)[keep], tower(other)[keep])


@torch.no_grad()
def test_word_order_matters(tower):
    ids, swapped = torch.tensor([[1, 7, 8, EOT]]), torch.tensor([[1, 8, 7, EOT]])
    assert not torch.allclose(tower.pool(tower(ids), ids), tower.pool(tower(swapped), swapped), atol=1e-4)


@torch.no_grad()
def test_a_text_does_not_depend_on_its_batch(tower):
    ids = torch.randint(4, 20, (6, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tower(ids), torch.cat([tower(row[None]) for row in ids]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_positions_tell_equal_tokens_apart(tower):
    """The same word four times: without positions, every place would look the same."""
    features = tower(torch.tensor([[7, 7, 7, 7]]))[0]
    for i in range(3):
        assert not torch.allclose(features[i], features[i + 1], atol=1e-4)
