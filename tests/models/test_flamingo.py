"""Flamingo's invariants."""

import dataclasses

import pytest
import torch
from torch import nn

from minivlm.connectors.gated import next_image
from minivlm.connectors.perceiver import PerceiverConfig
from minivlm.evaluation import probes
from minivlm.language.decoder import DecoderConfig
from minivlm.language.generate import generate
from minivlm.models.flamingo import Documents, Flamingo, FlamingoConfig
from minivlm.training.freezing import frozen
from minivlm.vision.vit import ViTConfig

IMAGE = 4
CONFIG = FlamingoConfig(
    ViTConfig(image_size=12, patch_size=4, width=20, layers=2, heads=2, hidden=24),
    DecoderConfig(vocab_size=40, context=64, width=24, layers=3, heads=6, kv_heads=2, hidden=36),
    PerceiverConfig(20, latents=3, layers=2, heads=2, head_width=6, frames=3, longest=5),
    IMAGE,
)
# Words before the first image, and two images; one at the start; none; two side by side.
ROWS = [[1, 30, 31, IMAGE, 8, 9, IMAGE, 20, 21], [1, IMAGE, 9, 7], [1, 12, 13, 14], [1, IMAGE, IMAGE, 22, 23, 24]]
COUNTS = [2, 1, 0, 2]
close = torch.testing.assert_close


def flamingo(opened: bool = True, seed: int = 0, **changes) -> Flamingo:
    torch.manual_seed(seed)
    model = Flamingo(dataclasses.replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.endswith(("alpha", "beta")):
                p.add_((1.0 if name.endswith("latents") else 0.2) * torch.randn_like(p))
            elif opened:
                p.copy_(torch.randn(1))
    return model


@pytest.fixture(scope="module", params=[1, 2, 3], ids=lambda every: f"every {every}")
def model(request):
    return flamingo(every=request.param)


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


PIXELS = images(5)


def batch(rows=ROWS) -> Documents:
    """Padded on the right; the last two tokens of each are learned."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(rows):
        labels[row, len(text) - 2 : len(text)] = torch.tensor(text[-2:])
    return Documents(PIXELS[: sum(row.count(IMAGE) for row in rows)], ids, labels)


def left(rows=ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    return ids, torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


# --- config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 40}, "image_id is 40; the vocabulary has ids 0 to 39"),
        ({"image_id": -1}, "image_id is -1"),
        ({"every": 0}, "every is 0; the language model has 3 blocks, so it must be 1 to 3"),
        ({"every": 4}, "every is 4"),
        ({"resampler": PerceiverConfig(24)}, "the resampler is 24 wide, and the vision encoder 20"),
        ({"new_words": 40}, "new_words is 40; the whole vocabulary has 40"),
        ({"new_words": -1}, "new_words is -1"),
    ],
)
def test_config_refuses_what_does_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_sizes():
    tiny = FlamingoConfig.tiny(50, IMAGE)
    assert sum(p.numel() for p in Flamingo(tiny).parameters()) < 1_000_000
    assert FlamingoConfig.flamingo_3b().language.hd == FlamingoConfig.flamingo_9b().language.hd == 128
    with torch.device("meta"):
        for config, layers in ((FlamingoConfig.flamingo_3b(), 24), (FlamingoConfig.flamingo_9b(), 10)):
            assert len(Flamingo(config).layers) == layers
    assert dataclasses.replace(CONFIG, hidden=96) == CONFIG
    assert [len(flamingo(every=k).layers) for k in (1, 2, 3)] == [3, 2, 1]


# --- step 0


@torch.no_grad()
@pytest.mark.parametrize("every", [1, 2])
def test_at_the_start_it_is_the_language_model_bit_for_bit(every):
    model, given = flamingo(opened=False, every=every), batch()
    assert torch.equal(model(given.ids, PIXELS), model.language(given.ids))
    assert torch.equal(model(given.ids, 9 * PIXELS), model.language(given.ids))
    ids, keep = left()
    assert torch.equal(model(ids, PIXELS, keep), model.language(ids, keep=keep))
    written = model.generate(ids, PIXELS, keep, max_new_tokens=6)
    assert torch.equal(written, generate(model.language, ids, keep, 6))


def test_at_the_start_only_the_gates_of_what_is_new_get_gradient():
    model = flamingo(opened=False)
    model.loss(batch()).backward()
    for name, p in model.named_parameters():
        new = name.startswith(("layers.", "resampler.", "vision."))
        moves = p.grad is not None and bool(p.grad.any())
        if new:
            assert moves == name.endswith(("alpha", "beta")), name
        elif name != "language.embedding.weight":
            assert moves, name


def test_after_a_step_of_the_gates_all_that_is_new_learns():
    model = flamingo()
    model.loss(batch()).backward()
    for name, p in model.named_parameters():
        if name.startswith(("layers.", "resampler.")) and not name.endswith("time"):
            assert p.grad.abs().sum() > 0, name
    assert model.resampler.time.grad.any(dim=1).tolist() == [True, False, False], "all are images: the first frame"


def test_the_frozen_parts_are_the_same_to_the_last_bit_after_training():
    model = flamingo(opened=False)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    ids = batch().ids
    with frozen(model.vision, model.language):
        learning = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=0.05)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = model.loss(batch())
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    for name, p in model.state_dict().items():
        assert torch.equal(p, before[name]) == name.startswith(("vision.", "language.")), name
    with torch.no_grad():
        assert not torch.allclose(model(ids, PIXELS), model.language(ids), atol=1e-3)
        old = flamingo(opened=False)
        assert torch.equal(model.language(ids), old.language(ids)), "past its new layers it is the old model"


# --- who sees what


@torch.no_grad()
def test_a_changed_image_changes_only_what_follows_it(model):
    given, number = batch(), 0
    before = model(given.ids, PIXELS)
    for row, many in enumerate(COUNTS):
        for place in (given.ids[row] == IMAGE).nonzero().flatten().tolist()[:many]:
            changed = PIXELS.clone()
            changed[number] += 1.0
            moved = (model(given.ids, changed) != before).any(-1)
            wanted = torch.zeros_like(moved)
            wanted[row, place:] = True  # later words through self-attention
            side_by_side = ROWS[row][place + 1] == IMAGE
            assert not (moved & ~wanted).any(), f"image {number}"
            assert moved[row, place], f"image {number} does not matter at its own place"
            assert moved[row, place : len(ROWS[row])].all() or side_by_side
            number += 1
    assert number == len(PIXELS)


@torch.no_grad()
def test_with_one_block_only_those_who_look_at_an_image_change():
    """Deeper, self-attention carries images on; before the first block nothing does."""
    model = flamingo(every=3, language=dataclasses.replace(CONFIG.language, layers=3))
    seen = []
    model.language.blocks[0].register_forward_pre_hook(lambda block, given: seen.append(given[0]))
    given = batch(ROWS[:1])

    def stream(pixels):
        with model.looking(*model.see(given.ids, pixels)):
            hook = model.layers[0].register_forward_hook(lambda layer, args, out: seen.append(out))
            model.language.features(given.ids)
            hook.remove()
        return seen[-1]

    before = stream(PIXELS[:2])
    for image, places in ((0, [3, 4, 5]), (1, [6, 7, 8])):
        changed = PIXELS[:2].clone()
        changed[image] += 1.0
        assert (stream(changed) != before).any(-1)[0].nonzero().flatten().tolist() == places


@torch.no_grad()
def test_without_images_nothing_is_seen(model):
    words = torch.tensor([ROWS[2]])
    together = model(batch().ids, PIXELS)
    close(model(words), together[2:3, :4])
    assert torch.equal(model(words), model(words, PIXELS[:0]))
    assert not torch.equal(model(words), model.language(words)), "the gated feed-forward layers run all the same"


@torch.no_grad()
def test_all_images():
    """Then a word sees the first image past the second; with one image there is no difference."""
    last, every = flamingo(), flamingo(all_images=True)
    one, two = batch(ROWS[1:2]), batch(ROWS[:1])
    assert torch.equal(last(one.ids, PIXELS[:1]), every(one.ids, PIXELS[:1]))
    a, b = last(two.ids, PIXELS[:2]), every(two.ids, PIXELS[:2])
    assert torch.equal(a[:, :6], b[:, :6])
    assert ((a - b)[:, 6:].abs().amax(-1) > 1e-4).all()


@torch.no_grad()
def test_the_next_image_instead(model):
    given = batch(ROWS[:1])
    looks = next_image(given.ids == IMAGE)
    before = model(given.ids, PIXELS[:2], looks_at=looks)
    assert not torch.allclose(before, model(given.ids, PIXELS[:2]), atol=1e-3)
    changed = PIXELS[:2].clone()
    changed[1] += 1.0
    moved = (model(given.ids, changed, looks_at=looks) != before).any(-1)[0]
    assert moved.tolist() == [False] * 4 + [True] * 5
    given = given._replace(looks_at=looks)
    assert not torch.equal(model.loss(given), model.loss(given._replace(looks_at=None)))


@torch.no_grad()
def test_an_image_is_where_its_text_says(model):
    """Not in the row before: the batch's images are dealt out in reading order."""
    together = model(batch().ids, PIXELS)
    first = 0
    for row, (ids, many) in enumerate(zip(ROWS, COUNTS, strict=True)):
        alone = model(torch.tensor([ids]), PIXELS[first : first + many] if many else None)
        close(together[row : row + 1, : len(ids)], alone)
        first += many


@torch.no_grad()
def test_the_class_token():
    with_it, without = flamingo(class_token=True), flamingo()
    patches = without.vision(PIXELS)
    close(without.embed_image(PIXELS), without.resampler(patches[:, None, 1:]))
    close(with_it.embed_image(PIXELS), without.resampler(patches[:, None]))


# --- videos


@torch.no_grad()
def test_videos_and_images_in_one_batch(model):
    """Frames are dealt out to videos as images are to texts; each is read as it would be alone."""
    pictures, frames = images(9, seed=1), torch.tensor([3, 1, 2, 1, 2])
    together = model(batch().ids, pictures, frames=frames)
    tokens = model.embed_image(pictures, frames)
    assert tokens.shape == (5, 3, 20)
    start = 0
    for i, many in enumerate(frames.tolist()):
        close(tokens[i : i + 1], model.embed_image(pictures[start : start + many], torch.tensor([many])))
        start += many
    close(together[:1], model(batch(ROWS[:1]).ids, pictures[:4], frames=frames[:2]))
    ones = torch.ones(5).long()
    close(model(batch().ids, PIXELS, frames=ones), model(batch().ids, PIXELS))


@torch.no_grad()
@pytest.mark.parametrize("frames", [0, 3])
def test_the_order_of_frames_matters_only_with_time_embeddings(frames):
    model = flamingo(resampler=dataclasses.replace(CONFIG.resampler, frames=frames))
    ids, clip, many = torch.tensor([ROWS[1]]), images(3), torch.tensor([3])
    difference = (model(ids, clip.flip(0), frames=many) - model(ids, clip, frames=many)).abs().max()
    assert (difference > 1e-3) == (frames > 0)
    assert difference < 1e-4 or frames


# --- padding, cache, writing


@torch.no_grad()
def test_padding_on_either_side(model):
    right = model(batch().ids, PIXELS)
    ids, keep = left()
    scores = model(ids, PIXELS, keep)
    for row, text in enumerate(ROWS):
        close(scores[row, -len(text) :], right[row, : len(text)])
    keep = torch.tensor([[i < len(text) for i in range(9)] for text in ROWS])
    close(model(batch().ids, PIXELS, keep)[keep], right[keep])


@torch.no_grad()
@pytest.mark.parametrize("steps", [[9], [1] * 9, [4, 5], [2, 1, 1, 3, 1, 1]])
def test_cached_equals_uncached(model, steps):
    """Read in pieces, however cut: before, at and after an image."""
    ids, keep = left()
    whole, parts, past = model(ids, PIXELS, keep), [], 0
    cache = model.language.new_cache(9)
    with model.looking(*model.see(ids, PIXELS)):
        for step in steps:
            now = slice(past, past + step)
            parts.append(model.language(ids[:, now], keep=keep[:, : past + step], cache=cache))
            past += step
    close(torch.cat(parts, dim=1)[keep], whole[keep])


@torch.no_grad()
def test_writing_is_reading_and_taking_the_likeliest(model):
    ids, keep = left()
    written = model.generate(ids, PIXELS, keep, max_new_tokens=5)
    for step in range(5):
        rows = ~(written[:, :step] == IMAGE).any(dim=1)  # an image that is written cannot be read
        assert rows.sum() >= 3
        read = torch.cat([ids, written[:, :step].masked_fill(written[:, :step] == IMAGE, 0)], dim=1)
        kept = torch.cat([keep, torch.ones(4, step).bool()], dim=1)
        likeliest = model(read, PIXELS, kept)[:, -1].argmax(dim=-1)
        assert torch.equal(likeliest[rows], written[rows, step]), step
    assert len({tuple(row) for row in written.tolist()}) > 2
    others = model.generate(ids, images(5, seed=3), keep, max_new_tokens=5)
    assert torch.equal(others[2], written[2]), "a text without images"


@torch.no_grad()
def test_an_image_that_is_written_shows_nothing_new():
    """There is none: what is written after it looks on at the last one that was given."""
    model = flamingo()
    model.language.head.weight.zero_()
    model.language.head.weight[IMAGE] = model.language.features(torch.tensor([[1]]))[0, 0]
    ids = torch.tensor([ROWS[1]])
    assert model.generate(ids, PIXELS[:1], max_new_tokens=3).shape == (1, 3)


def test_loss_is_that_of_the_labels(model):
    given = batch()
    with torch.no_grad():
        surprise = -model(given.ids, PIXELS).log_softmax(-1)
        wanted = [surprise[row, len(text) - 3 + i, text[len(text) - 2 + i]] for row, text in enumerate(ROWS) for i in (0, 1)]
        close(model.loss(given), torch.stack(wanted).mean())


@torch.no_grad()
def test_probes(model, capsys):
    measured = probes.run(model, batch())
    assert {"causality", "every_image", "permutation", "left_padding", "teacher_forcing", "storing"} <= set(measured)
    assert "FAILS" not in capsys.readouterr().out


# --- the language model is left as it was


@torch.no_grad()
def test_looking_leaves_nothing_behind(model):
    given = batch()
    before = model.language(given.ids)
    model(given.ids, PIXELS)
    with pytest.raises(IndexError), model.looking(*model.see(given.ids, PIXELS)):
        model.language(given.ids + 99)
    assert torch.equal(model.language(given.ids), before)
    assert not any(block._forward_pre_hooks for block in model.language.blocks)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"vision", "resampler", "language", "layers"}


def test_a_language_model_that_is_swapped_is_used(model):
    other = flamingo(seed=5, every=model.config.every)
    with torch.no_grad():
        wanted = other(batch().ids, PIXELS)
        other.language.load_state_dict(model.language.state_dict())
        assert not torch.allclose(other(batch().ids, PIXELS), wanted)


# --- what does not fit


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pixel_values": None}, r"the texts have \[2, 1, 0, 2\] images \(id 4\), 5 together; 0 are given"),
        ({"pixel_values": PIXELS[:4]}, "5 together; 4 are given. Give each image of the batch once, in reading order"),
        ({"pixel_values": images(6)}, "5 together; 6 are given"),
        ({"frames": torch.tensor([1, 1, 1, 1])}, r"frames is \[1, 1, 1, 1\], together 4 pictures; 5 are given"),
        ({"frames": torch.tensor([2, 3])}, "5 together; 2 are given"),
        ({"frames": torch.tensor([2, 0, 1, 1, 1])}, "each video needs at least one"),
        ({"looks_at": torch.full((4, 9), 2)}, r"looks_at runs from 2 to 2; the texts have \[2, 1, 0, 2\] images"),
        ({"looks_at": torch.full((4, 9), -1)}, "looks_at runs from -1 to -1"),
    ],
)
def test_what_does_not_fit(model, given, words):
    arguments = {"pixel_values": PIXELS, **given}
    with pytest.raises(ValueError, match=words):
        model(batch().ids, **arguments)


def test_too_many_frames(model):
    with pytest.raises(ValueError, match="a video has 6 frames; this resampler takes at most 5"):
        model.generate(torch.tensor([ROWS[1]]), images(6), frames=torch.tensor([6]))


def test_mixed_precision():
    """The class and the resampler in float32, the language model in another kind of number, as a frozen one often is."""
    model = flamingo()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(batch())
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.dtype == p.dtype for p in model.parameters() if p.grad is not None)
    assert isinstance(model.layers, nn.ModuleList)
