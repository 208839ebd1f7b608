"""Classification and retrieval by hand-made embeddings."""

import pytest
import torch
import torch.nn.functional as F

from minivlm.evaluation import recall_at, text_classifier
from minivlm.language.tokenizer import Tokenizer


class Counts(torch.nn.Module):
    """Embeds a text as the normalised counts of its tokens."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = torch.nn.Parameter(torch.tensor(float(size)))

    def embed_text(self, ids):
        return F.normalize(F.one_hot(ids, int(self.size)).float().sum(1), dim=-1)


def test_the_ensemble_averages_embeddings_and_makes_them_unit_again():
    tokenizer = Tokenizer(["a", "photo", "of", "red", "blue"])
    model = Counts(len(tokenizer))
    templates = ("{}", "a photo of {}")
    classes = text_classifier(model, tokenizer, ["red", "blue"], templates, 16)
    each = [model.embed_text(tokenizer.batch([t.format(n) for n in ("red", "blue")], 16)) for t in templates]
    assert torch.allclose(classes, F.normalize((each[0] + each[1]) / 2, dim=-1))
    assert torch.allclose(classes.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize(("k", "share"), [(1, 1 / 3), (2, 2 / 3), (3, 1)])
def test_recall(k, share):
    similarity = torch.tensor([[3.0, 1, 2], [3, 2, 1], [3, 2, 1]])
    assert recall_at(k, similarity) == pytest.approx(share)
