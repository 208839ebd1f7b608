"""BLIP's invariants."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

import minivlm.models.blip
from minivlm.evaluation import probes
from minivlm.language.bert import SHARED_PARTS
from minivlm.models.blip import BLIP, COPIED, BLIPConfig, Momentum, Questions, begin
from minivlm.models.clip import Pairs, contrastive_loss
from minivlm.training import Checkpoint, fit

CLS, ENC, DEC, SEP, PAD = 1, 3, 4, 5, 0
CONFIG = BLIPConfig.tiny(40, ENC, DEC, SEP, width=48, layers=1, momentum=Momentum(queue=16, rate=0.75, ramp=4))


def fresh(config: BLIPConfig = CONFIG, seed: int = 0) -> BLIP:
    torch.manual_seed(seed)
    return BLIP(config).eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(size: int, seed: int = 0) -> Pairs:
    generator = seeded(seed)
    ids = torch.randint(6, 40, (size, 9), generator=generator)
    ids[:, 0], ids[:, 8], ids[::2, 6], ids[::2, 7:] = CLS, SEP, SEP, PAD
    return Pairs(torch.randn(size, 3, 32, 32, generator=generator), ids)


@pytest.fixture(scope="module")
def model():
    return fresh()


# --- the config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ()}, r"tasks is \(\); expected one or several of"),
        ({"tasks": ("itc", "mlm")}, r"tasks is \('itc', 'mlm'\); expected one or several of"),
        ({"tasks": ("itm", "lm")}, "'itm' needs 'itc', which finds its hard negatives"),
        ({"tasks": ("lm", "vqa")}, "'vqa' stands alone"),
        ({"shared": "some"}, r"shared is 'some'; expected one of \['all', 'all but self-attention'"),
        ({"text": dataclasses.replace(CONFIG.text, seen=None)}, "text.seen is None; it must be the width .* 48"),
        ({"text": dataclasses.replace(CONFIG.text, seen=47)}, "text.seen is 47"),
        ({"enc_id": 40}, "enc_id is 40; the vocabulary has ids 0 to 39"),
        ({"pad_id": -1}, "pad_id is -1"),
    ],
)
def test_configs_that_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_what_an_answering_decoder_cannot_share():
    text = dataclasses.replace(CONFIG.text, width=96)
    vqa = dataclasses.replace(CONFIG, text=text, tasks=("vqa",), shared="nothing")
    for how, parts in SHARED_PARTS.items():
        if "cross" in parts:
            with pytest.raises(ValueError, match="reads 48 features in the encoder and 96 in the decoder; share less"):
                dataclasses.replace(vqa, shared=how)
        else:
            dataclasses.replace(vqa, shared=how)


def test_one_way_to_say_it():
    """What a BLIP has no use for is not left in its config."""
    assert dataclasses.replace(CONFIG, tasks=("itm", "itc")).tasks == ("itc", "itm")
    assert dataclasses.replace(CONFIG, tasks=("itc",)).shared == "nothing"
    assert dataclasses.replace(CONFIG, tasks=("lm",)).momentum is None
    assert CONFIG.shared == "all but self-attention"


@pytest.mark.parametrize(
    ("shared", "millions"),
    [("all", 224), ("all but cross-attention", 252), ("all but self-attention", 252), ("nothing", 361)],
)
def test_published_sizes(shared, millions):
    """Table 3 of the paper."""
    with torch.device("meta"):
        model = BLIP(BLIPConfig.base(shared=shared, momentum=Momentum(queue=8)))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_what_is_pretrained():
    """As the paper says it, section 4.1 and the official pretrain.yaml."""
    base, large = BLIPConfig.base(), BLIPConfig.large()
    assert base.momentum == Momentum(57600, 0.995, 0.4, ramp=2 * 14_000_000 // 2880)
    assert (base.embedding, base.temperature, base.smoothing) == (256, 0.07, 0.1)
    assert (base.vision.width, large.vision.width, large.text.seen) == (768, 1024, 1024)
    assert base.text.vocab_size == 30522 + 2, "BERT's words, [DEC] and [ENC]"


def test_begin_overwrites_and_leaves_the_original():
    ids = torch.tensor([[1, 7, 8], [1, 9, 5]])
    assert begin(ids, 3).tolist() == [[3, 7, 8], [3, 9, 5]]
    assert ids[:, 0].tolist() == [1, 1]


# --- the modes


@torch.no_grad()
def test_what_each_way_of_reading_depends_on(model):
    given = batch(4)
    other = given.pixel_values.flip(0)
    text = model.embed_text(given.ids)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(model.embed_image(other), model.embed_image(given.pixel_values).flip(0))
    assert not torch.allclose(model.match(other, given.ids), model.match(*given), atol=1e-6)
    ids = begin(given.ids, DEC)
    score = lambda pixels, ids: model.decoder.logits(model.decoder(ids, model.see(pixels), True))
    changed = ids.clone()
    changed[:, 4] = 39
    before, after = score(given.pixel_values, ids), score(given.pixel_values, changed)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])
    assert not torch.allclose(score(other, ids), before, atol=1e-6)


@torch.no_grad()
def test_the_first_token_says_which_way(model):
    """Whatever the tokenizer has put there: [ENC] and [DEC] take its place, not that of the text encoder."""
    given = batch(4)
    ids = begin(given.ids, 20)
    assert torch.equal(model.match(given.pixel_values, ids), model.match(*given))
    one, other = (model.losses(Pairs(given.pixel_values, x), seeded()) for x in (given.ids, ids))
    assert torch.equal(one["lm"], other["lm"])
    assert not torch.equal(one["itc"], other["itc"])


@torch.no_grad()
def test_padding_changes_nothing(model):
    given = batch(4)
    longer = Pairs(given.pixel_values, F.pad(given.ids, (0, 3), value=PAD))
    torch.testing.assert_close(model.embed_text(longer.ids), model.embed_text(given.ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.match(*longer), model.match(*given), atol=1e-5, rtol=1e-5)
    one, other = (model.losses(pairs, seeded()) for pairs in (given, longer))
    for task in one:
        torch.testing.assert_close(one[task], other[task], atol=1e-5, rtol=1e-5)


def test_probes():
    """What must be true of a model that embeds. (Those for models that speak are for texts with places for images.)"""
    found = probes.run(fresh(), batch(4))
    assert set(found) == set(probes.EMBEDDING)


def test_encoder_and_decoder_share_all_but_self_attention(model):
    for ours, theirs in zip(model.encoder.blocks, model.decoder.blocks, strict=True):
        assert ours.attention is not theirs.attention
        assert ours.norm_1 is not theirs.norm_1
        assert ours.cross is theirs.cross
        assert ours.mlp is theirs.mlp
    assert model.encoder.embedding is model.decoder.embedding


# --- the losses


@torch.no_grad()
def test_the_loss_is_their_sum(model):
    given = batch(4)
    parts = model.losses(given, seeded())
    assert list(parts) == ["itc", "itm", "lm"]
    assert model.loss(given, seeded()).item() == pytest.approx(sum(x.item() for x in parts.values()))


@torch.no_grad()
def test_itc_without_a_slow_copy_is_clips_loss():
    model, given = fresh(dataclasses.replace(CONFIG, momentum=None)), batch(4)
    logits = model.embed_image(given.pixel_values) @ model.embed_text(given.ids).T / 0.07
    torch.testing.assert_close(model.losses(given)["itc"], contrastive_loss(logits))
    model.after_step()  # nothing to do


@torch.no_grad()
def test_itc_compares_with_the_slow_copy(model):
    """At the start the copy is the model; after it has changed, the loss does, though the model is the same."""
    model, given = fresh(), batch(4)
    image, text = model.embed_image(given.pixel_values), model.embed_text(given.ids)
    before = model.losses(given, seeded())
    torch.testing.assert_close(before["itc"], model.contrast(image, text, image, text)[0])
    for buffer in model.slow.buffers():
        buffer.mul_(1.5)
    after = model.losses(given, seeded())
    assert not torch.allclose(after["itc"], before["itc"])
    assert torch.equal(after["lm"], before["lm"])


@torch.no_grad()
def test_matching_by_hand(model, monkeypatch):
    """Which pairs are judged, and what is right: 3 right ones, 3 texts with wrong images, 3 images with wrong texts."""
    given, drawn = batch(3), [torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])]
    asked = []

    def negatives(similarity, positive, generator):
        asked.append((similarity, positive))
        return drawn[len(asked) - 1]

    monkeypatch.setattr(minivlm.models.blip, "hard_negatives", negatives)
    loss = model.losses(given)["itm"]
    pixels, ids = given
    pairs = [(i, i) for i in range(3)] + [((i + 1) % 3, i) for i in range(3)] + [(i, (i + 2) % 3) for i in range(3)]
    surprise = []
    for number, (image, text) in enumerate(pairs):
        yes = model.match(pixels[image : image + 1], ids[text : text + 1]).item()
        surprise.append(-math.log(yes if number < 3 else 1 - yes))
    assert loss.item() == pytest.approx(sum(surprise) / 9, rel=1e-4)
    # A wrong image is drawn by how alike text i and image j are, a wrong text by how alike image i and text j are.
    _, to_text, to_image = model._contrast(model.see(pixels), given)
    assert torch.equal(asked[0][0], to_image)
    assert torch.equal(asked[1][0], to_text)
    assert torch.equal(asked[0][1], torch.eye(3, dtype=torch.bool))


@torch.no_grad()
def test_equal_texts_are_no_negatives_of_each_other(model, monkeypatch):
    given = batch(4)
    given.ids[2] = given.ids[0]
    seen = []
    right = minivlm.models.blip.hard_negatives
    monkeypatch.setattr(minivlm.models.blip, "hard_negatives", lambda s, p, g: seen.append(p) or right(s, p, g))
    model.losses(given, seeded())
    assert seen[0].int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    given.ids[:] = given.ids[0]
    with pytest.raises(ValueError, match="row 0 has no wrong partner in this batch of 4"):
        model.losses(given)


@torch.no_grad()
def test_writing_by_hand(model):
    """[DEC] in front, padding is not learned, a tenth of each label lies on all 40 words."""
    pixels, ids = batch(2)
    found = []
    for row in range(2):
        text = begin(ids[row : row + 1], DEC)
        features = model.decoder(text, model.see(pixels[row : row + 1]), True)
        log_p = model.decoder.logits(features)[0].log_softmax(dim=-1)
        for column in range(1, 9):
            if (word := int(text[0, column])) != PAD:
                guess = log_p[column - 1]
                found.append(-(0.9 * guess[word] + 0.1 * guess.mean()).item())
    assert len(found) == 6 + 8
    loss = model.losses(Pairs(pixels, ids), seeded())["lm"]
    assert loss.item() == pytest.approx(sum(found) / 14, rel=1e-5)


def test_the_negatives_come_from_the_generator():
    model, given = fresh(), batch(8)
    losses = [model.losses(given, seeded(seed))["itm"].item() for seed in (0, 0, 1, 2, 3)]
    assert losses[0] == losses[1]
    assert len(set(losses)) > 2


# --- the slow copy


def test_the_slow_copy_gets_no_gradient_and_no_optimizer_sees_it():
    model = fresh()
    model.loss(batch(4), seeded()).backward()
    assert not list(model.slow.parameters())
    assert all(buffer.grad is None and not buffer.requires_grad for buffer in model.slow.buffers())
    assert not any(name.startswith("slow") for name, _ in model.named_parameters())
    assert any(name.startswith("slow") for name in model.state_dict()), "but it is saved"


@torch.no_grad()
def test_the_slow_copy_follows():
    model = fresh()
    before = {name: buffer.clone() for name, buffer in model.slow.named_buffers()}
    for parameter in model.parameters():
        parameter.add_(1.0)
    model.after_step()
    for name, buffer in model.slow.named_buffers():
        torch.testing.assert_close(buffer, before[name] + 0.25, atol=1e-6, rtol=0)
        part, rest = name.split(".", 1)
        assert part in COPIED
        torch.testing.assert_close(model.get_parameter(f"{part}.{rest}") - buffer, torch.full_like(buffer, 0.75))


def test_every_parameter_learns():
    model = fresh()
    model.loss(batch(4), seeded()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_it_learns_a_small_batch():
    """Eight pairs: told apart, judged and written."""
    model, given = fresh(dataclasses.replace(CONFIG, momentum=Momentum(queue=16, rate=0.9, ramp=100))), batch(8)
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=3e-3), seeded()
    before = {task: loss.item() for task, loss in model.losses(given, generator).items()}
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(given, generator).backward()
        optimizer.step()
        model.after_step()
    with torch.no_grad():
        after = {task: loss.item() for task, loss in model.losses(given, generator).items()}
        assert all(after[task] < 0.8 * before[task] for task in before), (before, after)
        assert (model.embed_image(given.pixel_values) @ model.embed_text(given.ids).T).argmax(1).tolist() == list(range(8))


def test_a_training_that_was_interrupted_goes_on(tmp_path):
    """Slow copy, queues and generator are all in the checkpoint."""

    def train(steps, folder=None, stop=None):
        model, generator = fresh(), seeded(7)

        def loss(given):
            if stop is not None and model.contrast.steps >= stop:
                raise KeyboardInterrupt
            return model.loss(given, generator)

        batches = lambda start: (batch(4, seed) for seed in range(start, 100))
        how = {"lr": 1e-3, "loss": loss}
        if folder is None:
            fit(model, batches, steps, **how)
        else:
            with Checkpoint(folder, 2, {"negatives": generator}) as checkpoint:
                fit(model, batches, steps, checkpoint=checkpoint, **how)
        return model.state_dict()

    with pytest.raises(KeyboardInterrupt):
        train(6, tmp_path / "run", stop=3)
    again, whole = train(6, tmp_path / "run"), train(6)
    assert whole["contrast.steps"] == 6
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


# --- writing and answering


@torch.no_grad()
def test_generate(model):
    given = batch(3)
    written = model.generate(given.pixel_values, max_new_tokens=6)
    prompt = torch.full((3, 1), DEC)
    wanted = model.decoder.generate(prompt, model.see(given.pixel_values), max_new_tokens=6, eos=SEP)
    assert torch.equal(written, wanted)
    beginning = torch.tensor([[CLS, 7, 8]] * 3)
    after = model.generate(given.pixel_values, beginning, max_new_tokens=6)
    wanted = model.decoder.generate(begin(beginning, DEC), model.see(given.pixel_values), max_new_tokens=6, eos=SEP)
    assert torch.equal(after, wanted)
    how = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 6}
    one, two = (model.generate(given.pixel_values, generator=seeded(seed), **how).tolist() for seed in (0, 0))
    assert one == two
    with pytest.raises(ValueError, match="captions to go on with must have no padding"):
        model.generate(given.pixel_values, given.ids)


def test_answers():
    """The decoder looks at the question, read in sight of the image, and not at the question's padding."""
    model, given = fresh(dataclasses.replace(CONFIG, tasks=("vqa",), shared="nothing")), batch(3)
    answers = torch.tensor([[CLS, 7, SEP, PAD], [CLS, 8, 9, SEP], [CLS, 10, SEP, PAD]])
    asked = Questions(*given, answers)
    loss = model.losses(asked)["vqa"]
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    with torch.no_grad():
        longer = Questions(given.pixel_values, F.pad(given.ids, (0, 2)), F.pad(answers, (0, 1)))
        torch.testing.assert_close(model.loss(longer), loss, atol=1e-5, rtol=1e-5)
        other = model.losses(asked._replace(pixel_values=given.pixel_values.flip(0)))["vqa"]
        assert (other - loss).abs() > 1e-6
        with pytest.raises(ValueError, match="this BLIP answers questions; give them as ids"):
            model.generate(given.pixel_values)


@torch.no_grad()
def test_answers_do_not_look_at_the_padding_of_questions(monkeypatch):
    """At the start hardly anything would show it, so here all numbers are large, and the mask is counted too."""
    model, given = fresh(dataclasses.replace(CONFIG, tasks=("vqa",), shared="nothing")), batch(4)
    for parameter in model.decoder.parameters():
        parameter.add_(0.5 * torch.randn(parameter.shape, generator=seeded()))
    written = model.generate(given.pixel_values, given.ids, max_new_tokens=8)
    longer = F.pad(given.ids, (0, 5))
    assert torch.equal(model.generate(given.pixel_values, longer, max_new_tokens=8), written)
    assert len({tuple(row) for row in written.tolist()}) > 1
    right, masks = model.decoder.generate, []
    monkeypatch.setattr(
        model.decoder, "generate", lambda *a, seen_keep, **how: masks.append(seen_keep) or right(*a, seen_keep=seen_keep, **how)
    )
    model.generate(given.pixel_values, given.ids, max_new_tokens=1)
    assert torch.equal(masks[0], given.ids != PAD)


# --- parts of it


@torch.no_grad()
def test_only_some_of_the_tasks(model):
    given = batch(4)
    captioner, judge, answers = model.only("lm"), model.only("itc", "itm"), model.only("vqa", shared="nothing")
    assert torch.equal(captioner.losses(given)["lm"], model.losses(given, seeded())["lm"])
    assert torch.equal(judge.match(*given), model.match(*given))
    assert torch.equal(answers.encoder.embedding.weight, model.encoder.embedding.weight)
    assert captioner.config.momentum is None
    assert not hasattr(captioner, "encoder")
    assert not hasattr(judge, "decoder")
    whole = model.state_dict()
    captioner.decoder.embedding.weight.add_(1)
    assert torch.equal(whole["decoder.embedding.weight"], model.encoder.embedding.weight), "a copy"
    assert not torch.equal(captioner.decoder.embedding.weight, model.decoder.embedding.weight)
    with pytest.raises(ValueError, match=r"a BLIP for \('lm',\) has no 'encoder.positions', which \('itc',\) needs"):
        captioner.only("itc")


def test_as_many_images_as_texts(model):
    some = batch(3)
    with pytest.raises(ValueError, match="3 images and 2 texts"):
        model.judge(model.see(some.pixel_values), some.ids[:2])


def test_what_a_blip_was_not_made_for_is_refused(model):
    some = batch(3)
    captioner, judge = model.only("lm"), model.only("itc")
    for ask in (
        lambda: judge.generate(some.pixel_values),
        lambda: judge.match(some.pixel_values, some.ids),
        lambda: captioner.embed_image(some.pixel_values),
        lambda: captioner.embed_text(some.ids),
    ):
        with pytest.raises(ValueError, match="this BLIP is for .* what you ask for needs"):
            ask()


def test_a_copy_for_some_tasks_is_where_the_model_is():
    judge = fresh().double().only("itc", "itm")
    assert {p.dtype for p in judge.parameters()} == {torch.float64}
