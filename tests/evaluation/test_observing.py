"""The probes of models with many senses pass PaLM-E, and fail one that is broken in the way they look for."""

import pytest
import torch

from minivlm.evaluation import probes
from minivlm.models.palm_e import Experience, PaLME, PaLMEConfig, Sense
from tests.models.test_palm_e import CONFIG, GIVEN, ROWS, S, batch, noise, palm_e

TEXT = torch.tensor([ROWS[2]])


class WordsToo(PaLME):
    """Scales all embeddings where there are observations."""

    def embed(self, ids, observations=None):
        return super().embed(ids, observations) * (1.0 if not observations else 1.01)


class PlaceholderAdded(PaLME):
    """Adds what an observation became to the placeholder's own vector instead of putting it in its place."""

    def embed(self, ids, observations=None):
        words, both = self.language.embed(ids), super().embed(ids, observations)
        return torch.where(words == both, words, words + both)


class Backwards(PaLME):
    """Observations of one kind in the wrong order."""

    def embed(self, ids, observations=None):
        return super().embed(ids, {k: v.flip(0) for k, v in (observations or {}).items()})


class Learned(PaLME):
    """Adds something of its own to every sentence."""

    def embed(self, ids, observations=None):
        return super().embed(ids, observations) + 1e-6


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (WordsToo, "what stands at the places of|a word does not stand"),
        (PlaceholderAdded, "what stands at the places of 'state' is not what observe gives"),
        (Backwards, "what stands at the places of 'obj' is not what observe gives"),
        (Learned, "what stands at the places of 'state' is not"),
    ],
)
def test_only_places_sees(kind, words):
    broken = kind(CONFIG).eval()
    broken.load_state_dict(palm_e().state_dict())
    with pytest.raises(AssertionError, match=words):
        probes.only_places(broken, batch())
    assert probes.only_places(palm_e(), batch()) > 0


def test_only_places_wants_places():
    with pytest.raises(AssertionError, match="the texts keep no places for 'img'"):
        probes.only_places(palm_e(), Experience({"img": GIVEN["img"]}, TEXT, TEXT))


def test_words_alone_sees():
    broken = Learned(CONFIG).eval()
    with pytest.raises(AssertionError, match="without observations the scores are not the language model's"):
        probes.words_alone(broken, TEXT)
    with pytest.raises(ValueError, match="takes a text without places"):
        probes.words_alone(palm_e(), torch.tensor([ROWS[0]]))


def test_through_one_sense():
    model = palm_e()
    ids = torch.tensor([[1, *S, 9, 10]])
    given = noise(1, 1, 5)
    one = Experience({"state": given}, ids, ids)
    view, seen = probes.one_sense(model, one, "state")
    assert torch.equal(view.loss(seen), model.loss(one))
    with torch.no_grad():
        assert torch.equal(view(ids, given), model(ids, {"state": given}))
    assert view.language is model.language
    with pytest.raises(ValueError, match="PaLME has no sense 'smell'; it has"):
        probes.one_sense(model, one, "smell")
    with pytest.raises(ValueError, match=r"must have observations of 'state' alone; it has \['state', 'img'"):
        probes.one_sense(model, batch(), "state")


@pytest.mark.parametrize("kind", [PlaceholderAdded, Backwards])
def test_the_probes_of_seeing_see_it_through_a_sense(kind):
    config = PaLMEConfig(CONFIG.language, {"state": Sense("vectors", 4, seen=5, tokens=2)})
    torch.manual_seed(0)
    broken = kind(config).eval()
    ids = torch.tensor([[1, *S, 9, *S, 10, 11]])
    labels = torch.where(ids >= 10, ids, -100)
    with pytest.raises(AssertionError, match="what stands at the images' places is not what embed_image gives"):
        probes.image_tokens(*probes.one_sense(broken, Experience({"state": noise(2, 1, 5)}, ids, labels), "state"))
