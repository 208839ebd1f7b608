"""Each probe passes the course's models and fails one that is broken in the way it looks for."""

import dataclasses
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minivlm.evaluation import probes
from minivlm.evaluation.probes.rows import image_id, rows
from minivlm.evaluation.probes.writing import _prompt
from minivlm.language.chat import Chat
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.clip import CLIP, CLIPConfig, Pairs
from minivlm.models.llava import Chats, LLaVA, LLaVAConfig

TOKENIZER = Tokenizer("what colour is the circle red blue green which picture user assistant and a".split())
IMAGE = TOKENIZER.encode("<image>")[0]
CONFIG = LLaVAConfig.tiny(len(TOKENIZER), IMAGE, width=32)
CONVERSATIONS = [
    [("<image>\nwhat colour is the circle?", "red.")],
    [("<image> and <image> which picture is red?", "the blue picture."), ("and the green circle?", "blue.")],
    [("what colour is green?", "a green green.")],
]


def seeded(kind: type[nn.Module], *args, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind(*args)


def llava(kind: type[LLaVA] = LLaVA) -> LLaVA:
    return seeded(kind, CONFIG)


def chats(conversations=CONVERSATIONS) -> Chats:
    images = torch.rand(sum(said.count("<image>") for turns in conversations for said, _ in turns), 3, 32, 32,
                        generator=torch.Generator().manual_seed(1))  # fmt: skip
    return Chats(images, *Chat(TOKENIZER, CONFIG.image_tokens, 128).batch(conversations, len(images)))


def pairs() -> Pairs:
    texts = ["red circle", "a blue circle and a green picture", "the picture"]
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Pairs(images, TOKENIZER.batch(texts, 32))


def fails(name: str, model: nn.Module, words: str, batch=None) -> None:
    batch = batch or (chats() if isinstance(model, LLaVA) else pairs())
    with pytest.raises(AssertionError, match=words):
        getattr(probes, name)(model, batch)


# --- the course's models pass


def test_llava_passes(capsys):
    model, batch = llava(), chats()
    measured = probes.run(model, batch)
    assert list(measured) == list(probes.SPEAKING)
    assert capsys.readouterr().out.splitlines() == [
        "causality        ok     < 1e-4  a later token or image changes no earlier score",
        "answers_only     ok     < 1e-4  the loss is the mean surprise at the answers alone",
        "image_tokens     ok     0       at images' places stands what embed_image gives",
        "permutation      ok     < 1e-4  swapped images have swapped answers",
        "every_image      ok     > 1e-4  each single image makes a difference",
        "padding          ok     < 1e-4  a text alone and in a batch: the same scores",
        "left_padding     ok     < 1e-4  the same with padding on the left",
        "teacher_forcing  ok     < 1e-4  it writes the token it finds likeliest",
        "cache            ok     < 1e-4  with remembered keys and values: the same scores",
        "storing          ok     0       saved and loaded: the same to the last bit",
    ]
    assert measured["every_image"] > 1e-3, "images should matter by more than the bound"
    assert max(value for name, value in measured.items() if name != "every_image") < 1e-5, measured


def test_clip_passes(capsys):
    measured = probes.run(seeded(CLIP, CLIPConfig.tiny(len(TOKENIZER), TOKENIZER.eos)), pairs())
    assert list(measured) == list(probes.EMBEDDING)
    assert capsys.readouterr().out.count("  ok  ") == len(measured)


def test_a_model_is_left_as_it_was():
    model = llava().train()
    model.vision.eval()
    modes = {name: part.training for name, part in model.named_modules()}
    before = probes.snapshot(model)
    probes.run(model, chats())
    probes.unchanged(before, model)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert not any(p.grad is not None for p in model.parameters())


def test_same_numbers_each_time():
    assert probes.run(llava(), chats()) == probes.run(llava(), chats())


# --- run


def test_run_says_why_something_is_left_out_and_raises_what_failed(capsys):
    class Blind(LLaVA):
        def embed_image(self, pixel_values):
            return super().embed_image(torch.zeros_like(pixel_values))

        def loss(self, batch):
            return super().loss(batch) + 1

    with pytest.raises(AssertionError) as caught:
        probes.run(llava(Blind), chats(), skip={"cache": "this one has none"})
    first, second = str(caught.value).splitlines()
    assert first.startswith("answers_only: with the labels given the loss is")
    assert second.startswith("every_image: row 0: image 0 was changed, and no score was")
    out = capsys.readouterr().out
    assert f"answers_only     FAILS  {first.removeprefix('answers_only: ')}" in out
    assert "cache            -              this one has none" in out
    assert "storing          ok" in out, "what comes after a failure is tried too"


def test_run_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="no probe 'alone' to skip; it has .'causality'"):
        probes.run(llava(), chats(), skip={"alone": ""})
    with pytest.raises(TypeError, match="got LLaVA and Pairs"):
        probes.run(llava(), pairs())
    with pytest.raises(TypeError, match="ids and pixel_values; list has no ids"):
        probes.causality(llava(), [])


class Crossed(nn.Module):
    """Its texts keep no places for images: what is seen is added inside. Neither `embed` nor `embed_image`."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.see, self.language = nn.Linear(3 * 32 * 32, config.width), Decoder(config)

    def embedded(self, ids, pixel_values):
        seen = self.see(pixel_values.flatten(1)).view(len(ids), -1, self.config.width)
        return self.language.embed(ids) + 0.1 * seen.sum(1, keepdim=True)

    def forward(self, ids, pixel_values=None, keep=None):
        return self.language(embeddings=self.embedded(ids, pixel_values), keep=keep)

    def loss(self, batch):
        features = self.language.features(embeddings=self.embedded(batch.ids, batch.pixel_values))
        return self.language.next_token_loss(features, batch.labels)

    def generate(self, ids, pixel_values=None, keep=None, **how):
        rest = how.pop("max_new_tokens")
        new = ids[:, :0]
        for _ in range(rest):  # without a cache: what is seen belongs to every step
            so_far = torch.cat([ids, new], 1)
            kept = F.pad(keep, (0, new.shape[1]), value=True)
            new = torch.cat([new, self(so_far, pixel_values, kept)[:, -1:].argmax(-1)], 1)
        return new


def test_a_model_whose_texts_keep_no_places_passes():
    ids, labels = Chat(TOKENIZER, 1, 128).batch([[(said.replace("<image>", "a"), answer) for said, answer in turns]
                                                 for turns in CONVERSATIONS], 0)  # fmt: skip
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = seeded(Crossed, DecoderConfig.tiny(len(TOKENIZER), 32, 2))
    measured = probes.run(model, Chats(images, ids, labels))
    assert set(probes.SPEAKING) - set(measured) == {"image_tokens", "cache"}
    with pytest.raises(ValueError, match="5 images do not divide evenly among 3 texts"):
        probes.padding(model, Chats(images[:5], ids, labels))


class Native(LLaVA):
    """Images of any size, as a list; a place for each 8 x 8 patch."""

    def __init__(self, config: LLaVAConfig) -> None:
        super().__init__(config)
        self.patch = nn.Linear(3 * 8 * 8, config.language.width)

    def embed_image(self, pixel_values):
        return [self.patch(F.unfold(image[None], 8, stride=8)[0].T) for image in pixel_values]

    def embed(self, ids, pixel_values=None):
        embeddings = self.language.embed(ids)
        if pixel_values is None:
            return embeddings
        return embeddings.masked_scatter((ids == IMAGE)[..., None], torch.cat(self.embed_image(pixel_values)))

    def forward(self, ids, pixel_values=None, keep=None):
        return self.language(embeddings=self.embed(ids, pixel_values), keep=keep)

    def generate(self, ids, pixel_values=None, keep=None, **how):
        return generate(self.language, keep=keep, embeddings=self.embed(ids, pixel_values), **how)


def test_a_model_of_images_of_any_size_passes():
    sizes = [(8, 16), (24, 8), (8, 8), (16, 16)]
    images = [torch.rand(3, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]
    a, b, c = (TOKENIZER.encode(word)[0] for word in ("a", "red", "blue"))
    ids = torch.tensor([[1, a, *[IMAGE] * 2, b, *[IMAGE] * 3, c, 3, 0], [1, *[IMAGE] * 5, c, b, a, 3, 0]])
    labels = ids.clone()
    labels[0, :8] = labels[1, :7] = labels[:, 10:] = -100
    batch, model = Chats(images, ids, labels), llava(Native)
    assert [[image.shape[1:] for image in row.images] for row in rows(model, batch)] == [sizes[:2], sizes[2:]]
    assert [len(row.ids) for row in rows(model, batch)] == [10, 10]
    assert set(probes.run(model, batch)) == set(probes.SPEAKING)
    with pytest.raises(ValueError, match="row 1 keeps 5 places"):
        probes.padding(model, batch._replace(pixel_values=[*images[:3], images[0]]))
    with pytest.raises(ValueError, match="places for 4 images; the batch has 5"):
        probes.padding(model, batch._replace(pixel_values=[*images, images[0]]))


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (None, ValueError, "the batch has none"),
        (torch.rand(5, 3, 32, 32), ValueError, "keep 48 places for images; 5 images of one size"),
        ({"a": 1}, TypeError, "must be a tensor, or a list"),
    ],
)
def test_images_that_do_not_match_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        probes.padding(llava(), chats()._replace(pixel_values=images))


def test_a_text_ends_at_its_last_label_or_where_keep_says():
    class Kept(NamedTuple):
        pixel_values: torch.Tensor
        ids: torch.Tensor
        labels: torch.Tensor
        keep: torch.Tensor

    model, batch = llava(), chats()
    lengths = [len(Chat(TOKENIZER, CONFIG.image_tokens, 128).encode(turns)[0]) for turns in CONVERSATIONS]
    assert [len(row.ids) for row in rows(model, batch)] == lengths
    keep = torch.arange(batch.ids.shape[1]) < torch.tensor(lengths)[:, None]
    kept = Kept(batch.pixel_values, batch.ids.flip(1), batch.labels.flip(1), keep.flip(1))
    assert [len(row.ids) for row in rows(model, kept)] == lengths
    assert image_id(model) == IMAGE


def test_an_image_after_the_last_label_belongs_to_the_text():
    turns = [("<image> which picture is red?", "blue."), ("<image> and the circle?", "red.")]
    model, batch = llava(), chats([turns, turns[:1]])
    chat = Chat(TOKENIZER, CONFIG.image_tokens, 128)
    labels = batch.labels.clone()
    labels[0, len(chat.encode(turns[:1])[0]) :] = -100
    first, second = rows(model, batch._replace(labels=labels))
    assert (len(first.images), len(second.images)) == (2, 1)
    assert first.ids[-1] == IMAGE
    prompt = _prompt(model, first)
    assert len(prompt.ids) == len(chat.encode([(turns[0][0], None)])[0]), "it ends before the answer"
    assert len(prompt.images) == 1, "an image that comes later is not shown yet"
    assert set(probes.run(model, batch._replace(labels=labels))) == set(probes.SPEAKING)


def test_padding_keeps_no_place_for_an_image():
    """LLaVA's released sizes mark images with the id that the tokenizer pads with."""
    model, batch = seeded(LLaVA, dataclasses.replace(CONFIG, image_id=0)), chats()
    keep = torch.arange(batch.ids.shape[1]) < torch.tensor([len(row.ids) for row in rows(llava(), batch)])[:, None]
    ids = batch.ids.where(batch.ids != IMAGE, 0).where(keep, 1)
    assert set(probes.run(model, batch._replace(ids=ids))) == set(probes.SPEAKING)


# --- broken models that speak


class PeeksAhead(LLaVA):
    def forward(self, ids, pixel_values=None, keep=None):
        logits = super().forward(ids, pixel_values, keep)
        return logits + 0.01 * F.pad(logits[:, 1:], (0, 0, 0, 1))


class SeesAhead(LLaVA):
    """The text before an image knows it."""

    def forward(self, ids, pixel_values=None, keep=None):
        glimpse = 0.0 if pixel_values is None else pixel_values.mean()
        return super().forward(ids, pixel_values, keep) + 0.1 * glimpse


class Deaf(LLaVA):
    def forward(self, ids, pixel_values=None, keep=None):
        return torch.ones(*ids.shape, CONFIG.language.vocab_size)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (PeeksAhead, "row 0: the token at place .* was changed, and scores before it did too: they differ by .*e-"),
        (SeesAhead, "row 0: image 0, which begins at place .* was changed, and scores before it did too"),
        (Deaf, "was changed, and no score at or after it did"),
    ],
)
def test_causality(kind, words):
    fails("causality", llava(kind), words)


class LearnsEverything(LLaVA):
    def loss(self, batch):
        return super().loss(batch._replace(labels=batch.ids))


class IgnoresLabels(LLaVA):
    """Learns the text at the places of labels, whatever they say."""

    def loss(self, batch):
        return super().loss(batch._replace(labels=batch.ids.where(batch.labels != -100, -100)))


class MeanOfMeans(LLaVA):
    def loss(self, batch):
        logits = self(batch.ids, batch.pixel_values)[:, :-1]
        each = F.cross_entropy(logits.mT, batch.labels[:, 1:], reduction="none")
        return (each.sum(1) / (batch.labels[:, 1:] != -100).sum(1)).mean()


class NotShifted(LLaVA):
    def loss(self, batch):
        return F.cross_entropy(self(batch.ids, batch.pixel_values).mT, batch.labels)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (LearnsEverything, "with the labels given the loss is"),
        (NotShifted, "with the labels given the loss is"),
        (MeanOfMeans, "the mean surprise at them"),
        (IgnoresLabels, "with other words as labels the loss is"),
    ],
)
def test_answers_only(kind, words):
    fails("answers_only", llava(kind), words)


def test_answers_only_needs_answers():
    batch = chats()
    with pytest.raises(ValueError, match="no labels to predict"):
        probes.answers_only(llava(), batch._replace(labels=torch.full_like(batch.ids, -100)))


class Backwards(LLaVA):
    def embed(self, ids, pixel_values=None):
        return super().embed(ids, None if pixel_values is None else pixel_values.flip(0))


class Louder(LLaVA):
    def embed(self, ids, pixel_values=None):
        return super().embed(ids, pixel_values) * torch.where(ids == IMAGE, 1.0, 1.001)[..., None]


class Pooled(LLaVA):
    def embed_image(self, pixel_values):
        return super().embed_image(pixel_values)[:, ::2]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Backwards, "at the images' places is not what embed_image gives: .* of 1536 numbers differ"),
        (Louder, "words do not stand in the sequence"),
        (Pooled, "keep 48 places for images; their images are 24 tokens"),
    ],
)
def test_image_tokens(kind, words):
    fails("image_tokens", llava(kind), words)


class LastImageOnly(LLaVA):
    def embed_image(self, pixel_values):
        return super().embed_image(pixel_values[-1:].expand_as(pixel_values))


class Sightless(LLaVA):
    def embed_image(self, pixel_values):
        return super().embed_image(torch.zeros_like(pixel_values))


def test_permutation():
    fails("permutation", llava(LastImageOnly), "its text and its images stand elsewhere in the batch")
    fails("permutation", llava(Backwards), "its text and its images stand elsewhere in the batch")


def test_every_image():
    fails("every_image", llava(LastImageOnly), "row 1: image 0 was changed, and no score was")
    fails("every_image", llava(Sightless), "row 0: image 0 was changed")
    fails("every_image", llava(), "the batch has no images", chats(CONVERSATIONS[2:])._replace(pixel_values=None))


class LosesTheMask(LLaVA):
    def forward(self, ids, pixel_values=None, keep=None):
        return super().forward(ids, pixel_values)


class LooksAtTheBatch(LLaVA):
    def forward(self, ids, pixel_values=None, keep=None):
        logits = super().forward(ids, pixel_values, keep)
        return logits - 0.01 * logits.mean(0)


def test_padding():
    fails("padding", llava(LooksAtTheBatch), "row 0: padded on the right, among the others, it has other scores")
    fails("left_padding", llava(LooksAtTheBatch), "row 0: padded on the left")
    fails("left_padding", llava(LosesTheMask), "row 0: padded on the left")


def test_packed():
    items = [torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) for n in (2, 3, 1)]
    alone = lambda item: item.cumsum(0)
    leaky = lambda items: torch.cat(items).cumsum(0).split([len(item) for item in items])
    assert probes.packed(lambda items: [alone(item) for item in items], alone, items) == 0.0
    with pytest.raises(AssertionError, match="item 1: packed with the others, it becomes something else"):
        probes.packed(leaky, alone, items)
    with pytest.raises(AssertionError, match="3 items were packed, and 2 came out"):
        probes.packed(lambda items: items[:2], alone, items)
    with pytest.raises(AssertionError, match="shape"):
        probes.packed(lambda items: [item[:1] for item in items], alone, items)
    with pytest.raises(ValueError, match="two items or more"):
        probes.packed(leaky, alone, items[:1])


class ForgetsWhere(Decoder):
    """With a cache, each new token believes to be the first."""

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        x = self.embed(ids) if embeddings is None else embeddings
        if cache and cache[0].length:
            positions = torch.zeros(x.shape[:2], dtype=torch.long)
        return super().features(ids, embeddings, keep, positions, cache)


class WithABadCache(LLaVA):
    def __init__(self, config: LLaVAConfig) -> None:
        super().__init__(config)
        self.language = ForgetsWhere(config.language)
        for p in self.language.parameters():  # so that it matters where a token stands
            nn.init.normal_(p, std=0.6)


class NextId(LLaVA):
    def generate(self, ids, pixel_values=None, keep=None, **how):
        return (super().generate(ids, pixel_values, keep, **how) + 1) % CONFIG.language.vocab_size


class WritesWithoutMask(LLaVA):
    def generate(self, ids, pixel_values=None, keep=None, **how):
        return super().generate(ids, pixel_values, None, **how)


class WritesBlindly(LLaVA):
    def generate(self, ids, pixel_values=None, keep=None, **how):
        return generate(self.language, ids, keep, **how)


class WritesLittle(LLaVA):
    def generate(self, ids, pixel_values=None, keep=None, **how):
        return super().generate(ids, pixel_values, keep, **how)[:, :2]


def loud(kind: type[LLaVA]) -> LLaVA:
    """Weights so large that each token and image changes what is said."""
    model = llava(kind)
    for p in model.language.parameters():
        nn.init.normal_(p, std=0.6)
    return model


@pytest.mark.parametrize("kind", [WithABadCache, NextId, WritesWithoutMask, WritesBlindly])
def test_teacher_forcing(kind):
    words = "row .: token .* written is .* reading the same text, forward likes .* best, by"
    with pytest.raises(AssertionError, match=words):
        probes.teacher_forcing(loud(kind), chats(), tokens=16)


def test_teacher_forcing_counts():
    fails(
        "teacher_forcing", llava(WritesLittle), r"asked for 6 tokens for each of 3 prompts; it returned shape \(3, 2\)"
    )


def test_loud_models_pass_too():
    model = loud(LLaVA)
    assert probes.teacher_forcing(model, chats()) <= 1e-4
    assert probes.cache(model, chats()) <= 1e-4


def test_a_written_image_token_cannot_be_read_back():
    class Mad(LLaVA):
        def generate(self, ids, pixel_values=None, keep=None, **how):
            return torch.full((len(ids), 6), IMAGE)

        def forward(self, ids, pixel_values=None, keep=None):
            logits = super().forward(ids, pixel_values, keep)
            return logits + 9 * (torch.arange(logits.shape[-1]) == IMAGE)

    assert probes.teacher_forcing(llava(Mad), chats()) == 0


def test_prompts_end_before_the_last_answer():
    seen = []

    class Asked(LLaVA):
        def generate(self, ids, pixel_values=None, keep=None, **how):
            seen.extend(row[kept] for row, kept in zip(ids, keep, strict=True))
            return super().generate(ids, pixel_values, keep, **how)

    probes.teacher_forcing(llava(Asked), chats())
    wanted = [[*turns[:-1], (turns[-1][0], None)] for turns in CONVERSATIONS] * 2  # in a batch, then each alone
    chat = Chat(TOKENIZER, CONFIG.image_tokens, 128)
    assert [row.tolist() for row in seen] == [chat.encode(turns)[0] for turns in wanted]


def test_cache():
    fails(
        "cache",
        llava(WithABadCache),
        "with a cache of keys and values the scores are others than without: they differ by",
    )


class ForgetsWhereAlone(Decoder):
    """With a cache and nothing hidden, as for a single prompt, positions begin anew."""

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if keep is None:
            x = self.embed(ids) if embeddings is None else embeddings
            positions = torch.arange(x.shape[1]).expand(x.shape[:2])
        return super().features(ids, embeddings, keep, positions, cache)


class OneAtATime(Decoder):
    """Several new tokens at once forget what is in the cache."""

    def features(self, ids=None, embeddings=None, keep=None, positions=None, cache=None):
        if cache and cache[0].length and keep is not None and keep.shape[1] - cache[0].length > 1:
            keep = keep & (torch.arange(keep.shape[1]) >= cache[0].length)
        return super().features(ids, embeddings, keep, positions, cache)


def reading_with(language: type[Decoder]) -> LLaVA:
    model = loud(LLaVA)
    other = language(CONFIG.language)
    other.load_state_dict(model.language.state_dict())
    model.language = other
    return model


def test_a_single_prompt_is_probed_as_well():
    """It is read without `keep`, which is another way through the model."""
    fails("cache", reading_with(ForgetsWhereAlone), "row 0, alone: with a cache of keys and values")
    with pytest.raises(AssertionError, match="row ., alone: token .* written is"):
        probes.teacher_forcing(reading_with(ForgetsWhereAlone), chats(), tokens=16)


def test_several_tokens_are_added_to_a_cache_at_once():
    fails("cache", reading_with(OneAtATime), "the batch: with a cache of keys and values")


class RandomOffset(LLaVA):
    """Has something that is no parameter and no buffer."""

    def __init__(self, config: LLaVAConfig) -> None:
        super().__init__(config)
        self.offset = torch.randn(config.language.vocab_size)

    def forward(self, ids, pixel_values=None, keep=None):
        return super().forward(ids, pixel_values, keep) + self.offset


def test_storing():
    fails("storing", llava(RandomOffset), "saved and loaded, the model answers otherwise: .* numbers differ")
    with pytest.raises(AssertionError, match="answers otherwise"):
        probes.storing(llava(), chats(), again=lambda model: seeded(LLaVA, CONFIG, seed=1))


def test_storing_uses_up_no_random_numbers(monkeypatch):
    model, batch = llava(), chats()
    state = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPUs were seeded"))
    probes.storing(model, batch)
    assert torch.equal(torch.get_rng_state(), state)


def test_not_finite():
    model = llava()
    model.language.norm.weight.data.fill_(torch.nan)
    fails("padding", model, "not finite")


# --- what was frozen, what has learned


def step(model: nn.Module, *parts: nn.Module) -> None:
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=0.1)
    model.loss(chats()).backward()
    optimizer.step()


def test_unchanged_and_changed():
    model = llava()
    before = {name: probes.snapshot(getattr(model, name)) for name in ("language", "connector")}
    step(model, model.connector)
    assert probes.unchanged(before["language"], model.language) == sum(p.numel() for p in model.language.parameters())
    assert probes.changed(before["connector"], model.connector) == sum(p.numel() for p in model.connector.parameters())
    with pytest.raises(AssertionError, match="0.weight should not change, and has by up to .*, and so have 1 others"):
        probes.unchanged(before["connector"], model.connector)
    with pytest.raises(AssertionError, match="embedding.weight should have learned"):
        probes.changed(before["language"], model.language)
    with pytest.raises(AssertionError, match="0.weight is not in the snapshot"):
        probes.changed(before["language"], model.connector)
    with pytest.raises(AssertionError, match="no parameter wants a gradient"):
        probes.changed(before["language"], model.language.requires_grad_(False))


def test_unchanged_sees_a_single_bit_buffers_and_names():
    part = nn.BatchNorm1d(4)
    before = probes.snapshot(part)
    part.running_mean[2] = -0.0
    with pytest.raises(AssertionError, match="running_mean should not change"):
        probes.unchanged(before, part)
    part.running_mean[2] = 0.0
    assert probes.unchanged(before, part) == 4 * 4 + 1
    part.weight.data = torch.ones(5)
    with pytest.raises(AssertionError, match=r"weight should not change, and its shape is \(5,\); it was \(4,\)"):
        probes.unchanged(before, part)
    part.weight.data = torch.ones(4)
    part.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(AssertionError, match="extra is new"):
        probes.unchanged(before, part)


# --- does it look?


def test_no_blind_cheating():
    images = torch.arange(20.0)[:, None, None, None].expand(20, 3, 4, 4) / 20
    truth = images[:, 0, 0, 0].clone()
    looks = lambda images: (images[:, 0, 0, 0] == truth[: len(images)]).float().mean().item()
    sight = probes.no_blind_cheating(looks, images, torch.Generator().manual_seed(0))
    assert sight == pytest.approx((1.0, 0.0, 0.05))  # no image kept its place; one is as grey as a blank one
    for seed in range(20):
        assert probes.no_blind_cheating(looks, images[:3], torch.Generator().manual_seed(seed), gap=0.5).shuffled == 0
    listed = probes.no_blind_cheating(
        lambda images: looks(torch.stack(images)), list(images), torch.Generator().manual_seed(0)
    )
    assert listed == sight
    with pytest.raises(AssertionError, match=r"is 0.900 with the real images and 0.900 with shuffled ones: 0.000 less"):
        probes.no_blind_cheating(lambda images: 0.9, images, torch.Generator())
    likes_grey = lambda images: max(looks(images), 0.95 if images.std() == 0 else 0.0)
    with pytest.raises(AssertionError, match="1.000 with the real images and 0.950 with blank ones: 0.050 less"):
        probes.no_blind_cheating(likes_grey, images, torch.Generator())
    with pytest.raises(ValueError, match="two images or more"):
        probes.no_blind_cheating(looks, images[:1], torch.Generator())


# --- broken models that embed


class Long(CLIP):
    def embed_image(self, pixel_values):
        return 1.01 * super().embed_image(pixel_values)


class Centred(CLIP):
    def embed_text(self, ids):
        vectors = super().embed_text(ids)
        return F.normalize(vectors - 0.01 * vectors.mean(0), dim=-1)


class ReadsPadding(CLIP):
    def embed_text(self, ids):
        return F.normalize(super().embed_text(ids) + 0.01 * (ids == 0).sum(1, keepdim=True), dim=-1)


class FirstIsSpecial(CLIP):
    def embed_image(self, pixel_values):
        return super().embed_image(torch.cat([pixel_values[:1].flip(-1), pixel_values[1:]]))


class SeesNothing(CLIP):
    def embed_image(self, pixel_values):
        return super().embed_image(torch.zeros_like(pixel_values))


class ReadsNothing(CLIP):
    def embed_text(self, ids):
        return super().embed_text(ids[:1].expand_as(ids))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("unit_length", Long, "embeddings of images have no unit length: they differ by 1.0e-02"),
        ("alone", Centred, "number 0 of the texts has another embedding alone"),
        ("alone", ReadsPadding, "number 0 of the texts has another embedding alone"),
        ("order", FirstIsSpecial, "embeddings of images do not go with them"),
        ("distinct", SeesNothing, "two different images have the same embedding"),
        ("distinct", ReadsNothing, "two different texts have the same embedding"),
    ],
)
def test_embeddings(name, kind, words):
    config = CLIPConfig.tiny(len(TOKENIZER), TOKENIZER.eos, width=48)
    getattr(probes, name)(seeded(CLIP, config), pairs())
    fails(name, seeded(kind, config), words)
