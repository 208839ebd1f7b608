"""PaLM-E's invariants."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from minivlm.evaluation import probes
from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.language.generate import generate, pad_left
from minivlm.language.sentence import Sentence, Sentences
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.palm_e import Experience, PaLME, PaLMEConfig, Sense
from minivlm.vision.vit import ViTConfig

STATE, IMAGE, OBJECT, SOUND = range(4, 8)
EYE = ViTConfig(image_size=8, patch_size=4, width=20, layers=2, heads=2, hidden=24)
CONFIG = PaLMEConfig(
    DecoderConfig(vocab_size=40, context=64, width=24, layers=2, heads=6, kv_heads=2, hidden=36),
    {
        "state": Sense("vectors", STATE, seen=5, tokens=2),
        "img": Sense("image", IMAGE, vision=EYE),
        "obj": Sense("object", OBJECT, vision=EYE, tokens=2),
        "audio": Sense("vectors", SOUND, seen=3),
    },
)
S, I, O, A = [STATE] * 2, [IMAGE] * 4, [OBJECT] * 2, [SOUND] * 3
ROWS = [[1, *O, 8, *I, 9, *O, 20, 21], [1, 30, *S, *A, 9, 10], [1, 12, 13, 14], [1, *A, 15, 16, 17]]
close = torch.testing.assert_close


def palm_e(config: PaLMEConfig = CONFIG) -> PaLME:
    torch.manual_seed(0)
    model = PaLME(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def model():
    return palm_e()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


GIVEN = {"state": noise(1, 1, 5), "img": noise(1, 3, 8, 8), "obj": noise(2, 4, 8, 8), "audio": noise(2, 3, 3)}


def batch() -> Experience:
    """`ROWS`, padded on the right; the last two tokens of each are learned."""
    longest = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in ROWS])
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(ROWS):
        labels[row, len(text) - 2 : len(text)] = torch.tensor(text[-2:])
    return Experience(GIVEN, ids, labels)


# --- config


@pytest.mark.parametrize(
    ("sense", "words"),
    [
        (dict(kind="smell", place_id=4), "of the kind 'vectors', 'image' or 'object'; got 'smell'"),
        (dict(kind="vectors", place_id=4), "tokens and seen must be at least 1; got 1, 0"),
        (dict(kind="object", place_id=4, vision=EYE, tokens=0), "got 0"),
        (dict(kind="image", place_id=4), "'image' needs `vision`"),
        (dict(kind="object", place_id=4), "'object' needs `vision`"),
    ],
)
def test_a_sense_that_does_not_fit(sense, words):
    with pytest.raises(ValueError, match=words):
        Sense(**sense)


@pytest.mark.parametrize("ids", [(4, 4), (4, 40), (-1, 5)])
def test_places_of_their_own(ids):
    senses = {name: Sense("vectors", i, seen=2) for name, i in zip("ab", ids, strict=True)}
    with pytest.raises(ValueError, match=r"each sense has one of its own, from 0 to 39"):
        dataclasses.replace(CONFIG, senses=senses)


def test_it_can_be_blind():
    bare = palm_e(dataclasses.replace(CONFIG, senses={}))
    assert torch.equal(bare(torch.tensor([ROWS[2]])), bare.language(torch.tensor([ROWS[2]])))


# --- the exact invariants


@torch.no_grad()
def test_only_the_places_are_changed(model):
    given = batch()
    words, both = model.language.embed(given.ids), model.embed(given.ids, GIVEN)
    places = (given.ids >= STATE) & (given.ids <= SOUND)
    assert torch.equal(both[~places], words[~places])
    for name, token in zip(GIVEN, (STATE, IMAGE, OBJECT, SOUND), strict=True):
        assert torch.equal(both[given.ids == token], model.observe(name, GIVEN[name]).flatten(0, 1))
    assert probes.only_places(model, given) == given.ids.numel()
    blind = palm_e()
    blind.language.embedding.weight[STATE : SOUND + 1] = 99.0  # nothing reads it
    assert torch.equal(blind(given.ids, GIVEN), model(given.ids, GIVEN))


@torch.no_grad()
def test_text_alone_is_the_language_model(model):
    """Bit for bit."""
    ids = torch.tensor([ROWS[2], [1, 30, 31, 9]])
    keep = torch.tensor([[True] * 4, [True] * 3 + [False]])
    assert torch.equal(model(ids), model.language(ids))
    assert torch.equal(model(ids, {}, keep), model.language(ids, keep=keep))
    assert torch.equal(model(ids, {"img": noise(0, 3, 8, 8)}), model.language(ids))
    labels = torch.where(keep, ids, -100)
    assert torch.equal(model.loss(Experience({}, ids, labels)), model.language.loss(Texts(ids, labels)))
    assert torch.equal(model.generate(ids, max_new_tokens=5), generate(model.language, ids, max_new_tokens=5))
    assert probes.words_alone(model, ids) == 0


@torch.no_grad()
def test_swapped_observations_are_swapped_names(model):
    """`<a> ... <b>` with a and b exchanged reads as `<b> ... <a>`."""
    tokenizer = Tokenizer(["what", "between", "and"])
    language = dataclasses.replace(CONFIG.language, vocab_size=len(tokenizer))
    door = Sentences(tokenizer, {"img": 4}, 64)
    model = palm_e(PaLMEConfig(language, {"img": Sense("image", door.place_id("img"), vision=EYE)}))
    a, b = noise(3, 8, 8, seed=1), noise(3, 8, 8, seed=2)
    forth = "what between <img_1>and <img_2>and what"
    back = "what between <img_2>and <img_1>and what"
    rows = [
        Sentence(forth, {"<img_1>": a, "<img_2>": b}),
        Sentence(back, {"<img_1>": b, "<img_2>": a}),
        Sentence(back, {"<img_1>": a, "<img_2>": b}),
    ]
    scores = []
    for row in rows:
        ids, _, given = door.batch([row])
        scores.append(model(ids, given))
    assert torch.equal(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs().max() > 0.01


@torch.no_grad()
def test_words_before_an_observation_do_not_know_it(model):
    ids = batch().ids[:1]
    other = GIVEN | {"img": noise(1, 3, 8, 8, seed=5)}
    one, two = (model(ids, {k: v for k, v in g.items() if k in ("img", "obj")}) for g in (GIVEN, other))
    start = ROWS[0].index(IMAGE)
    assert torch.equal(one[:, :start], two[:, :start])
    assert (one[:, start:] - two[:, start:]).abs().amax(-1).min() > 1e-3


@torch.no_grad()
def test_positions_are_counted_through(model):
    ids, given = torch.tensor([ROWS[0]]), {k: GIVEN[k] for k in ("img", "obj")}
    positions = torch.arange(len(ROWS[0]))[None]
    close(model(ids, given), model.language(embeddings=model.embed(ids, given), positions=positions))


@pytest.mark.parametrize("sense", list(GIVEN))
def test_every_probe_through_every_sense(model, sense):
    token = CONFIG.senses[sense].place_id
    many = model.observe(sense, GIVEN[sense]).shape[1]
    rows = [[1, *[token] * many, 9, 10], [1, 20, *[token] * many, 21, *[token] * many, 9, 11, 12], [1, 30, 31, 32]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        labels[i, len(row) - 2 : len(row)] = torch.tensor(row[-2:])
    given = noise(3, *GIVEN[sense].shape[1:], seed=3)
    found = probes.run(*probes.one_sense(model, Experience({sense: given}, ids, labels), sense))
    assert len(found) == 10


@torch.no_grad()
def test_padding_changes_nothing(model):
    ids, keep = pad_left(ROWS, pad=0)
    left, right = model(ids, GIVEN, keep), model(batch().ids, GIVEN)
    for row, text in enumerate(ROWS):
        close(left[row, -len(text) :], right[row, : len(text)], atol=1e-5, rtol=1e-5)


# --- encoders


@torch.no_grad()
def test_an_object_is_what_its_mask_shows(model):
    picture, mask = noise(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1.0
    seen = model.observe("obj", torch.cat([picture, mask], 1))
    other = picture.clone()
    other[..., 4:] = 7.0  # behind the mask
    assert torch.equal(model.observe("obj", torch.cat([other, mask], 1)), seen)
    other[..., :4] += 1.0
    assert (model.observe("obj", torch.cat([other, mask], 1)) - seen).abs().max() > 1e-3


@torch.no_grad()
def test_each_vector_is_encoded_alone(model):
    vectors = noise(2, 4, 5)
    together = model.observe("state", vectors)
    assert together.shape == (2, 8, 24)
    alone = [model.observe("state", vectors[:, k : k + 1]) for k in range(4)]
    close(together, torch.cat(alone, dim=1))


# --- loss


@torch.no_grad()
def test_loss_by_hand(model):
    given, logits = batch(), model(batch().ids, GIVEN)
    parts = [
        F.cross_entropy(logits[row, column - 1], given.labels[row, column])
        for row, column in (given.labels != -100).nonzero().tolist()
    ]
    assert len(parts) == 8
    close(model.loss(given), torch.stack(parts).mean())


def test_a_frozen_language_model_lets_gradients_through():
    model = palm_e()
    model.language.requires_grad_(False)
    before = probes.snapshot(model.language)
    model.loss(batch()).backward()
    have = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert have == set(GIVEN)
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2).step()
    probes.unchanged(before, model.language)


def test_all_of_it_can_learn():
    model = palm_e()
    model.loss(batch()).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name.split(".")[-2] for name in silent} == {"norm_after"}, "CLIP's last norm is not used"
    places = model.language.embedding.weight.grad[STATE : SOUND + 1]
    assert not places.any(), "the words that keep places are never read"


def test_it_learns_a_small_batch():
    torch.manual_seed(0)
    model = PaLME(CONFIG)
    ids = torch.tensor([[1, *S, 9, answer] for answer in (10, 11, 12, 13)])
    given = Experience({"state": noise(4, 1, 5)}, ids, torch.where(ids >= 10, ids, -100))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(given).backward()
        optimizer.step()
    with torch.no_grad():
        assert model.loss(given).item() < 0.05
        written = model.generate(ids[:, :-1], given.observations, max_new_tokens=1)
        assert written.flatten().tolist() == [10, 11, 12, 13]
        turned = {"state": given.observations["state"].roll(1, 0)}
        assert model.loss(given._replace(observations=turned)).item() > 1.5


# --- what does not fit


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"smell": noise(1, 2)}, r"'smell' is no kind of observation of this model; it has \['state', 'img', 'obj', 'aud"),
        ({"state": noise(1, 1, 4)}, r"one 'state' has the shape \('any', 5\); got \(1, 4\)"),
        ({"state": noise(1, 5)}, r"one 'state' has the shape \('any', 5\); got \(5,\)"),
        ({"img": noise(1, 4, 8, 8)}, r"one 'img' has the shape \(3, 8, 8\); got \(4, 8, 8\)"),
        ({"img": noise(1, 3, 8, 12)}, r"one 'img' has the shape \(3, 8, 8\)"),
        ({"obj": noise(2, 3, 8, 8)}, r"one 'obj' has the shape \(4, 8, 8\)"),
    ],
)
def test_observations_of_another_kind(model, given, words):
    for run in (model, model.embed, model.generate):
        with pytest.raises(ValueError, match=words):
            run(batch().ids, GIVEN | given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"img": noise(2, 3, 8, 8)}, "observations 'img': the text keeps 4 places"),
        ({"img": noise(0, 3, 8, 8)}, "observations 'img': the text keeps 4 places"),
        ({"obj": noise(1, 4, 8, 8)}, "observations 'obj': the text keeps 4 places"),
        ({"audio": noise(2, 4, 3)}, "observations 'audio': the text keeps 6 places"),
    ],
)
def test_more_or_fewer_than_places(model, change, words):
    for run in (model, model.embed, model.generate):
        with pytest.raises(ValueError, match=words):
            run(batch().ids, GIVEN | change)


def test_places_without_observations(model):
    with pytest.raises(ValueError, match="observations 'state': the text keeps 2 places"):
        model(batch().ids)
    with pytest.raises(ValueError, match="observations 'img': the text keeps 0 places"):
        model(torch.tensor([[1, 2, 3]]), {"img": GIVEN["img"]})


def test_its_language_model_is_the_packages_own():
    model, language = palm_e(), Decoder(CONFIG.language)
    model.language.load_state_dict(language.state_dict())
    assert torch.equal(model(torch.tensor([ROWS[2]])), language(torch.tensor([ROWS[2]])))
