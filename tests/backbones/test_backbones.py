"""The shipped backbones are those of their cards, and what makes them can stop and go on."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from minivlm import backbones, world
from minivlm.backbones import language, store
from minivlm.backbones.recipes import RECIPES
from minivlm.backbones.training import LOG_EVERY, Run
from minivlm.language.decoder import DecoderConfig
from minivlm.world.corpus import Reading

TINY = replace(RECIPES["language-cpu"], width=32, layers=2, heads=2, hidden=32, steps=2 * LOG_EVERY, batch=4, warmup=5)
SHIPPED = ("language-cpu", "vision-cpu")


def test_the_small_backbones_are_here():
    assert set(SHIPPED) <= set(backbones.built()), f"of {SHIPPED}, only {backbones.built()} are in data/backbones"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_backbone_is_that_of_its_card(name):
    model, card = backbones.load(name), backbones.card(name)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == card["parameters"]
    assert card["recipe"] == json.loads(json.dumps(vars(RECIPES[name]))), "the recipe was changed: that is a new version"
    assert card["metrics"]
    assert card["losses"]["mean"]
    sizes, tensors = backbones.read(name)
    assert torch.equal(tensors["norm.weight" if "language" in name else "log_scale"], dict(model.named_parameters())[
        "norm.weight" if "language" in name else "log_scale"])  # fmt: skip
    assert sizes


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_recipe_gives_the_losses_of_the_card(name):
    """The first 200 steps again: the same on the same machine, near it on another."""
    torch.set_num_threads(1)
    run = Run(RECIPES[name]).go(until=200)
    expected = backbones.card(name)["losses"]["mean"][: 200 // LOG_EVERY]
    assert run.losses == pytest.approx(expected, rel=0.03), "these recipe and data do not make this backbone"


@pytest.mark.slow
def test_the_language_backbone_answers_as_its_card_says():
    found, said = store.measured(backbones.load("language-cpu")), backbones.card("language-cpu")["metrics"]
    assert found.keys() == said.keys()
    wrong = {kind: (found[kind], said[kind]) for kind in said if abs(found[kind] - said[kind]) > 0.02}
    assert not wrong, f"measured, and on the card: {wrong}; python -m minivlm.backbones measure language-cpu"
    assert min(said["questions"], said["questions_held_out"]) >= 0.95, "it cannot read well enough to be worth eyes"
    assert min(said[f"episodes_{by}_2"] for by in ("pair", "colour", "shape")) >= 0.9


def test_the_eye_names_what_it_never_saw_together():
    from minivlm.backbones import vision

    found = vision.metrics(backbones.load("vision-cpu"), n=256, name="another test")
    assert found["zero-shot, held out pairs"] > backbones.card("vision-cpu")["metrics"]["zero-shot, held out pairs"] - 0.05


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The folder of backbones, somewhere where it may be damaged."""
    shutil.copytree(store.FOLDER, tmp_path / "backbones")
    monkeypatch.setattr(store, "FOLDER", tmp_path / "backbones")
    return tmp_path / "backbones"


def test_damage_is_named(copy):
    weights = store.folder("language-cpu") / store.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(backbones.BackboneError, match="damaged"):
        backbones.load("language-cpu")
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(backbones.BackboneError, match="damaged"):
        backbones.read("language-cpu")
    weights.unlink()
    with pytest.raises(backbones.BackboneError, match="is missing"):
        backbones.load("language-cpu")


@pytest.mark.parametrize("key", ["world", "version", "vocabulary"])
def test_another_version_is_refused(copy, key):
    path = store.folder("language-cpu") / store.CARD
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, key: "0.1"}))
    with pytest.raises(backbones.BackboneError, match=f"{key} is '0.1'; this package needs"):
        backbones.load("language-cpu")
    for text, words in (("{", "damaged"), ("[]", "no card")):
        path.write_text(text)
        with pytest.raises(backbones.BackboneError, match=words):
            backbones.load("language-cpu")
    path.write_text(json.dumps({k: v for k, v in card.items() if k != "weights_sha256"}))
    with pytest.raises(backbones.BackboneError, match="lacks weights_sha256"):
        backbones.load("language-cpu")


def test_a_changed_config_is_seen(copy):
    path = store.folder("language-cpu") / store.CONFIG
    path.write_text(path.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 0.1'))
    with pytest.raises(backbones.BackboneError, match=r"config\.json.*damaged"):
        backbones.load("language-cpu")


def test_a_special_token_may_be_appended_and_nothing_else(monkeypatch):
    """Later models bring tokens of their own; the ids for them were kept free."""
    from minivlm.language import specials, tokenizer

    def vocabulary(*names, words=()):
        found = tokenizer.Tokenizer([*world.vocabulary(), *words], names)
        monkeypatch.setattr(store, "world_tokenizer", lambda: found)

    vocabulary(*specials.SPECIALS, "[LATER]")
    backbones.load("language-cpu")
    for names, words in (((*specials.SPECIALS[:-1], "[LATER]"), ()), (specials.SPECIALS, ("later",))):
        vocabulary(*names, words=words)
        with pytest.raises(backbones.BackboneError, match="vocabulary is"):
            backbones.load("language-cpu")


def test_unknown_and_unmade_ones_say_so():
    with pytest.raises(backbones.BackboneError, match="there are"):
        backbones.load("language-huge")
    missing = [name for name in RECIPES if name not in backbones.built()]
    for name in missing:
        with pytest.raises(backbones.BackboneError, match=f"backbones train {name}"):
            backbones.load(name)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr("minivlm.backbones.training.SAVE_EVERY", LOG_EVERY)
    whole = Run(TINY).go()
    Run(TINY, tmp_path / "state").go(until=LOG_EVERY)
    stopped = Run(TINY, tmp_path / "state")
    assert stopped.step == LOG_EVERY
    stopped.go()
    assert stopped.losses == whole.losses
    for (name, a), b in zip(whole.model.named_parameters(), stopped.model.parameters(), strict=True):
        assert torch.equal(a, b), f"{name} differs after a stop"


def test_a_state_of_another_recipe_or_damaged_is_refused(tmp_path):
    path = tmp_path / "state"
    Run(TINY, path).go(until=LOG_EVERY)
    Run(TINY, path)._save(path)
    with pytest.raises(ValueError, match="another recipe"):
        Run(replace(TINY, lr=1.0), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read"):
        Run(TINY, path)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("gpu")])
def test_the_large_recipes_take_a_step(name):
    """On the CPU and with a small batch: what is not trained here can be trained elsewhere."""
    run = Run(replace(RECIPES[name], batch=4))
    before = {key: p.detach().clone() for key, p in run.model.named_parameters()}
    run.go(until=1)
    changed = [key for key, p in run.model.named_parameters() if not torch.equal(p, before[key])]
    assert len(changed) == len(before), f"untouched by a step: {sorted(set(before) - set(changed))}"


def test_publishing_writes_a_backbone_that_loads(tmp_path):
    run = Run(TINY).go(until=LOG_EVERY)
    where = store.publish("language-cpu", run, tmp_path / "new")
    assert sorted(path.name for path in where.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert json.loads((where / "card.json").read_text())["weights_sha256"] == store.file_hash(where / store.WEIGHTS)
    store.publish("language-cpu", run, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"], "something temporary was left behind"


def test_batches_depend_on_seed_and_step_alone():
    def first(start):
        return next(iter(TINY.batches(start)))

    for start in (0, 5, 17):
        again = [batch for batch, _ in zip(TINY.batches(0), range(start + 1), strict=False)][-1]
        assert torch.equal(first(start).ids, again.ids), f"step {start} reads something else after a stop"


def test_answers_weigh_more_than_what_is_told():
    tokenizer = backbones.world_tokenizer()
    text = Reading("scene", "a red star.", (("what colour is the star?", "red"), ("how many things are there?", "one")))
    ids, weights = language.encode(tokenizer, text, 0.2, 64)
    assert tokenizer.decode(ids[1:-1]) == text.text
    learned = [i for i, weight in zip(ids, weights, strict=True) if weight == 1]
    assert tokenizer.decode(learned) == "red. one."
    assert weights[0] == 0, "the first token cannot be predicted"


class Oracle(torch.nn.Module):
    """Knows the next token, but for one that it always gets wrong."""

    def __init__(self, vocabulary: int, ids: torch.Tensor, blind_to: int) -> None:
        super().__init__()
        self.config = DecoderConfig(vocabulary, 64, 8, 1, 1, 1, 8)
        self.next, self.blind_to = ids[:, 1:].clone(), blind_to
        self.next[self.next == blind_to] = 0
        self.vocabulary = vocabulary

    def forward(self, ids):
        return torch.nn.functional.one_hot(self.next, self.vocabulary).float()


def test_an_answer_is_right_only_if_every_word_is():
    tokenizer = backbones.world_tokenizer()
    texts = [Reading("scene", "a red star.", (("what is in the middle?", "a red star"), ("how many are there?", "one")))]
    ids = language.padded(tokenizer, [language.encode(tokenizer, text, 0.0, 64) for text in texts]).ids
    word = tokenizer.encode(" red star")[-1]
    for wrong, expected in ((word, [False, True]), (tokenizer.eos, [True, True])):
        assert language.accuracy(Oracle(len(tokenizer), ids, wrong), tokenizer, texts) == [expected]


def test_texts_speak_of_all_pairs_and_pictures_do_not():
    """Stated on the cards: the language model may read of a pair that no training picture shows."""
    from minivlm.world.corpus import read

    told = " ".join(text.text for text in read("language", 0, 0, 1500, kinds=["scene"]))
    said = {pair for pair in world.all_pairs() if world.pair_name(*pair) in told}
    assert said == set(world.all_pairs()), "some pair is never read about"
    seen = set()
    for batch in [world.draw_scenes(world.generator("vision pictures"), 3000, (2, 3))]:
        from minivlm.backbones.vision import near_miss

        for scenes in (batch, near_miss(world.generator("misses"), batch)):
            pairs = zip(scenes.colour[scenes.present].tolist(), scenes.shape[scenes.present].tolist(), strict=True)
            seen |= set(pairs)
    assert not seen & set(world.HELD_OUT), "a picture shows a held-out pair"


def test_the_page_of_backbones_is_fresh():
    from minivlm.backbones.page import refresh

    page = (store.FOLDER.parents[1] / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert refresh(page) == page, "run: python -m minivlm.backbones list --write docs/backbones.md"
    with pytest.raises(ValueError, match="markers|lines"):
        refresh("nothing")
