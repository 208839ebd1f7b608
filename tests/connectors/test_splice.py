"""Images among words."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivlm.connectors.splice import splice


def case(*rows: str, tokens: int = 3, width: int = 4):
    """Rows of `.` for a word and `x` for a place; features are numbered from 1, words are 0."""
    places = torch.tensor([[c == "x" for c in row] for row in rows])
    embeddings = torch.zeros(*places.shape, width)
    images = int(places.sum()) // tokens
    features = 1 + torch.arange(images * tokens * width, dtype=torch.float).view(images, tokens, width)
    return embeddings, places, features


def test_reading_order():
    embeddings, places, features = case("..xxx.xxx", "xxx......", ".........")
    result = splice(embeddings, places, features)
    assert torch.equal(result[0, 2:5], features[0])
    assert torch.equal(result[0, 6:9], features[1])
    assert torch.equal(result[1, :3], features[2])
    assert not result[~places].any(), "words stay what they are"
    assert not embeddings.any(), "the input is not written to"


def test_places_need_not_be_neighbours():
    embeddings, places, features = case("x.xx", ".x.x", "x...", tokens=2)
    result = splice(embeddings, places, features)
    assert torch.equal(result[places], features.flatten(0, 1))


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
def test_any_places(rows):
    places = torch.tensor(rows)
    features = torch.arange(1.0, 1 + 2 * int(places.sum())).view(-1, 1, 2)
    result = splice(torch.zeros(*places.shape, 2), places, features)
    seen = iter(features.flatten(0, 1).tolist())
    wanted = [[next(seen) if place else [0.0, 0.0] for place in row] for row in rows]
    assert result.tolist() == wanted


def test_without_images():
    embeddings, places, _ = case("....", "....")
    embeddings += 2.0
    assert torch.equal(splice(embeddings, places, torch.empty(0, 3, 4)), embeddings)


def test_gradients_go_where_the_vectors_come_from():
    embeddings, places, features = case(".xxx.", "..xxx")
    embeddings.requires_grad_()
    features.requires_grad_()
    splice(embeddings, places, features).sum().backward()
    assert torch.equal(embeddings.grad, (~places[..., None]).float().expand_as(embeddings))
    assert torch.equal(features.grad, torch.ones_like(features))


@pytest.mark.parametrize(
    ("rows", "images", "words"),
    [
        ((".xxx.", "..xxx"), 1, "keeps 6 places for image tokens; 1 images of 3 tokens each fill 3"),
        ((".xxx.", "..xxx"), 3, "keeps 6 places for image tokens; 3 images of 3 tokens each fill 9"),
        ((".xxx.", "..xx."), 2, "keeps 5 places .* 2 images of 3 tokens each fill 6"),
        ((".xxx.",), 0, "keeps 3 places .* 0 images of 3 tokens each fill 0"),
        (("....",), 1, "keeps 0 places .* 1 images"),
    ],
)
def test_places_and_features_must_match(rows, images, words):
    embeddings, places, _ = case(*rows)
    with pytest.raises(ValueError, match=words):
        splice(embeddings, places, torch.ones(images, 3, 4))


def test_features_of_another_width():
    """Twice as wide would be enough of them, and would be cut at the wrong places."""
    embeddings, places, features = case(".xxx.")
    bare = getattr(splice, "__wrapped__", splice)
    with pytest.raises(ValueError, match="features are 8 wide, and the text's embeddings 4; a connector brings"):
        bare(embeddings, places, torch.cat([features, features], dim=-1))


def test_mixed_precision():
    """Under autocast a connector gives bfloat16 and an embedding table float32."""
    embeddings, places, features = case(".xxx.")
    result = splice(embeddings, places, features.to(torch.bfloat16))
    assert result.dtype == torch.float32
    assert torch.equal(result[places], features[0])
