"""LLaVA's invariants."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minivlm import checkpoints
from minivlm.language.chat import Chat
from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.language.generate import generate, pad_left
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.llava import Chats, LLaVA, LLaVAConfig
from minivlm.vision.vit import VisionTransformer, ViTConfig

IMAGE = 4
CONFIG = LLaVAConfig(
    ViTConfig(image_size=12, patch_size=4, width=20, layers=3, heads=2, hidden=24),
    DecoderConfig(vocab_size=40, context=64, width=24, layers=2, heads=6, kv_heads=2, hidden=36),
    IMAGE,
)
N = CONFIG.image_tokens
PLACES = [IMAGE] * N
ROWS = [[1, *PLACES, 8, 9, *PLACES, 20, 21], [1, 30, *PLACES, 9, 7], [1, 12, 13, 14]]  # two images, one, none
close = torch.testing.assert_close


def llava(config: LLaVAConfig = CONFIG) -> LLaVA:
    torch.manual_seed(0)
    model = LLaVA(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module", params=[1, 2], ids=["one matrix", "two layers"])
def model(request):
    return llava(dataclasses.replace(CONFIG, connector_layers=request.param))


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


PIXELS = images(3)


def batch() -> Chats:
    """`ROWS`, padded on the right; the last two tokens of each are learned."""
    longest = max(map(len, ROWS))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in ROWS])
    labels = torch.full_like(ids, -100)
    for row, text in enumerate(ROWS):
        labels[row, len(text) - 2 : len(text)] = torch.tensor(text[-2:])
    return Chats(PIXELS, ids, labels)


# --- config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 40}, "image_id is 40; the vocabulary has ids 0 to 39"),
        ({"image_id": -1}, "image_id is -1"),
        ({"skip_layers": 3}, "skip_layers is 3; the vision encoder has 3 layers, and at least one must be left"),
        ({"skip_layers": -1}, "skip_layers is -1"),
        ({"connector_layers": 0}, "connector_layers is 0; it must be at least 1"),
    ],
)
def test_config_refuses_what_does_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_sizes():
    assert CONFIG.image_tokens == 9
    assert LLaVAConfig.llava_7b().image_tokens == 256
    assert LLaVAConfig.llava_7b().language == DecoderConfig.llama_7b()
    tiny = LLaVAConfig.tiny(50, IMAGE)
    assert sum(p.numel() for p in LLaVA(tiny).parameters()) < 1_000_000
    assert tiny.connector_layers == 1
    assert tiny.skip_layers == 1


# --- seeing


@torch.no_grad()
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_skipped_layers_might_as_well_not_be_there(skip):
    """Nor does anything after them count: neither their weights nor the last norm's."""
    model = llava(dataclasses.replace(CONFIG, skip_layers=skip))
    features = model.embed_image(PIXELS)
    shallow = VisionTransformer(dataclasses.replace(CONFIG.vision, layers=3 - skip)).eval()
    shallow.load_state_dict({k: v for k, v in model.vision.state_dict().items() if k in shallow.state_dict()})
    assert torch.equal(model.connector(shallow(PIXELS)[:, 1:]), features)
    for part in (*model.vision.blocks[3 - skip :], model.vision.norm_after):
        for p in part.parameters():
            p.fill_(torch.nan)
    assert torch.equal(model.embed_image(PIXELS), features)
    for p in model.vision.blocks[2 - skip].parameters():
        p.fill_(torch.nan)
    assert model.embed_image(PIXELS).isnan().all()


@torch.no_grad()
def test_one_token_a_patch_in_reading_order(model):
    assert model.embed_image(PIXELS).shape == (3, N, 24)
    patches = model.vision(PIXELS, CONFIG.skip_layers)
    close(model.embed_image(PIXELS), torch.stack([model.connector(patches[:, 1 + i]) for i in range(N)], dim=1))
    blind = llava()
    blind.vision.blocks = nn.ModuleList([nn.Identity() for _ in range(3)])  # patches do not see each other
    changed = PIXELS.clone()
    changed[:, :, 4:8, 8:12] += 1.0  # second row, third column
    moved = (blind.embed_image(changed) != blind.embed_image(PIXELS)).any(-1).any(0)
    assert moved.nonzero().flatten().tolist() == [5]


@torch.no_grad()
def test_only_the_places_of_images_are_changed(model):
    given = batch()
    words, both = model.language.embed(given.ids), model.embed(given.ids, PIXELS)
    places = given.ids == IMAGE
    assert torch.equal(both[~places], words[~places])
    assert torch.equal(both[places], model.embed_image(PIXELS).flatten(0, 1))
    placeholder = llava(model.config)
    placeholder.language.embedding.weight[IMAGE] = 99.0  # nothing reads it
    assert torch.equal(placeholder(given.ids, PIXELS), model(given.ids, PIXELS))


@torch.no_grad()
def test_positions_are_counted_through(model):
    """An image is as many words as it has patches; nothing else is added."""
    ids = batch().ids[:1]
    embeddings = model.embed(ids, PIXELS[:2])
    assert embeddings.shape == (1, len(ROWS[0]), 24)
    positions = torch.arange(len(ROWS[0]))[None]
    close(model(ids, PIXELS[:2]), model.language(embeddings=embeddings, positions=positions))


@torch.no_grad()
def test_text_alone_is_the_language_model(model):
    """Bit for bit."""
    ids = torch.tensor([ROWS[2], [1, 30, 31, 9]])
    keep = torch.tensor([[True] * 4, [True] * 3 + [False]])
    assert torch.equal(model(ids), model.language(ids))
    assert torch.equal(model(ids, keep=keep), model.language(ids, keep=keep))
    assert torch.equal(model(ids, images(0)), model.language(ids))
    labels = torch.where(keep, ids, -100)
    assert torch.equal(model.loss(Chats(images(0), ids, labels)), model.language.loss(Texts(ids, labels)))
    assert torch.equal(model.generate(ids, max_new_tokens=5), generate(model.language, ids, max_new_tokens=5))


@torch.no_grad()
def test_words_before_an_image_do_not_see_it(model):
    ids = batch().ids[:1]
    one, other = model(ids, PIXELS[:2]), model(ids, torch.stack([PIXELS[0], PIXELS[2]]))
    second = 1 + N + 2
    assert torch.equal(one[:, :second], other[:, :second])
    assert (one[:, second:] - other[:, second:]).abs().amax(-1).min() > 1e-3, "all that follows sees it"


@torch.no_grad()
def test_swapping_images_and_their_rows_swaps_scores(model):
    ids = torch.tensor([[1, *PLACES, 9, 7], [1, *PLACES, 20, 21]])
    pixels, order = PIXELS[:2], torch.tensor([1, 0])
    logits = model(ids, pixels)
    close(model(ids[order], pixels[order]), logits[order], atol=1e-5, rtol=1e-5)
    same = ids[:1].expand(2, -1)
    close(model(same, pixels[order]), model(same, pixels)[order], atol=1e-5, rtol=1e-5)
    assert (model(ids, pixels[order]) - logits).abs().max() > 0.01, "whose image it is must matter"


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(model):
    alone = torch.cat([model.embed_image(one[None]) for one in PIXELS])
    close(model.embed_image(PIXELS), alone, atol=1e-5, rtol=1e-5)


# --- padding, on either side


@torch.no_grad()
def test_padding_changes_nothing(model):
    ids, keep = pad_left(ROWS, pad=0)
    left, right = model(ids, PIXELS, keep), model(batch().ids, PIXELS)
    start = 0
    for row, text in enumerate(ROWS):
        own = PIXELS[start : start + text.count(IMAGE) // N]
        start += len(own)
        alone = model(torch.tensor([text]), own)[0]
        close(left[row, -len(text) :], alone, atol=1e-5, rtol=1e-5)
        close(right[row, : len(text)], alone, atol=1e-5, rtol=1e-5)
    assert start == len(PIXELS)


@torch.no_grad()
@pytest.mark.parametrize("pad", [0, 17])
def test_a_batch_writes_what_each_would_write_alone(model, pad):
    """And that is what is likeliest, token by token, without a cache."""
    ids, keep = pad_left(ROWS, pad)
    together = model.generate(ids, PIXELS, keep, max_new_tokens=8).tolist()
    own = {0: PIXELS[:2], 1: PIXELS[2:], 2: None}
    for row, text in enumerate(ROWS):
        assert model.generate(torch.tensor([text]), own[row], max_new_tokens=8).tolist() == [together[row]]
        # What is written is read as words, even where it is the word that keeps places.
        read = [model.embed(torch.tensor([text]), own[row]), model.language.embed(torch.tensor([together[row]]))]
        forced = model.language(embeddings=torch.cat(read, dim=1))[0]
        assert forced[len(text) - 1 : -1].argmax(-1).tolist() == together[row]
    assert len(set(map(tuple, together))) == 3


@torch.no_grad()
def test_how_it_writes(model):
    ids = torch.tensor([[1, *PLACES, 9]])
    written = model.generate(ids, PIXELS[:1], max_new_tokens=8)[0].tolist()
    eos = written[3]
    end = written.index(eos) + 1
    assert model.generate(ids, PIXELS[:1], max_new_tokens=8, eos=eos)[0].tolist() == written[:end]
    how = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 8}
    a, b = (model.generate(ids, PIXELS[:1], generator=torch.Generator().manual_seed(3), **how) for _ in range(2))
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="padded on the left"):
        model.generate(batch().ids, PIXELS, batch().ids != 0)


# --- loss


@torch.no_grad()
def test_loss_by_hand(model):
    given, logits = batch(), model(batch().ids, PIXELS)
    parts = [
        F.cross_entropy(logits[row, column - 1], given.labels[row, column])
        for row, column in (given.labels != -100).nonzero().tolist()
    ]
    assert len(parts) == 6
    close(model.loss(given), torch.stack(parts).mean())


def test_loss_on_labels_only(model):
    """The embeddings of the places that predict a label, and of what they see, have a gradient; what comes after has none."""
    given = batch()
    labels = torch.full_like(given.labels, -100)
    labels[1, 3 + N] = given.ids[1, 3 + N]  # one token of the second text, after its image
    embeddings = model.embed(given.ids, PIXELS).detach().requires_grad_()
    features = model.language.features(embeddings=embeddings)
    model.language.next_token_loss(features, labels).backward()
    touched = embeddings.grad.abs().amax(-1) > 0
    assert touched[1, : 3 + N].all()
    assert not touched[1, 3 + N :].any()
    assert not touched[0].any()
    assert not touched[2].any()
    moved = Chats(PIXELS.clone(), given.ids, labels)
    moved.pixel_values[:2] += 1.0  # the first text's images
    with torch.no_grad():
        assert torch.equal(model.loss(moved), model.loss(Chats(PIXELS, given.ids, labels)))


def test_stage_one_moves_the_connector_alone():
    """Both models frozen: the gradient passes through the language model and reaches the matrix, and nothing else."""
    model = llava()
    model.vision.requires_grad_(False)
    model.language.requires_grad_(False)
    model.loss(batch()).backward()
    have = {name for name, p in model.named_parameters() if p.grad is not None}
    assert have == {"connector.0.weight", "connector.0.bias"}
    assert all(p.grad.abs().max() > 0 for p in model.connector.parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1).step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == have


def test_stage_two_moves_connector_and_language_model():
    model = llava(dataclasses.replace(CONFIG, connector_layers=2))
    model.vision.requires_grad_(False)
    model.loss(batch()).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {name for name in model.state_dict() if name.startswith("vision.")}
    placeholder = model.language.embedding.weight.grad[IMAGE]
    assert not placeholder.any(), "the word that keeps the places is never read"


def test_all_of_it_can_learn():
    """But for what is left out at the end of the vision encoder."""
    model = llava()
    model.loss(batch()).backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    unused = ("vision.blocks.2.", "vision.norm_after.")
    assert silent == {name for name in model.state_dict() if name.startswith(unused)}


def test_it_learns_a_small_batch():
    """Four images, each with its own answer to the same question: text alone cannot tell them apart."""
    torch.manual_seed(0)
    model = LLaVA(dataclasses.replace(CONFIG, connector_layers=2))
    ids = torch.tensor([[1, *PLACES, 9, answer] for answer in (10, 11, 12, 13)])
    labels = torch.where(ids >= 10, ids, -100)
    given = Chats(images(4), ids, labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(given).backward()
        optimizer.step()
    with torch.no_grad():
        assert model.loss(given).item() < 0.05  # ln 4 = 1.39 without looking
        assert model.generate(ids[:, :-1], given.pixel_values, max_new_tokens=1).flatten().tolist() == [10, 11, 12, 13]
        assert model.loss(given._replace(pixel_values=given.pixel_values.roll(1, 0))).item() > 1.5


def test_in_mixed_precision():
    """Autocast makes the connector's output bfloat16, while an embedding table stays float32."""
    model = llava()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(batch())
    loss.backward()
    with torch.no_grad():
        close(loss.float(), model.loss(batch()), atol=0.1, rtol=0.05)
    assert model.connector[0].weight.grad.isfinite().all()


# --- what does not fit


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, r"keeps 27 places for image tokens; 0 images of 9 tokens each fill 0. A text needs 9 places for each"),
        (0, "keeps 27 places for image tokens; 0 images of 9 tokens each fill 0. A text needs 9 places"),
        (2, "keeps 27 places for image tokens; 2 images of 9 tokens each fill 18"),
        (4, "keeps 27 places for image tokens; 4 images of 9 tokens each fill 36"),
    ],
)
def test_images_and_places_must_match(model, count, words):
    pixels = None if count is None else images(count)
    for run in (model, model.embed, model.generate):
        with pytest.raises(ValueError, match=words):
            run(batch().ids, pixels)


def test_images_without_places(model):
    with pytest.raises(ValueError, match="keeps 0 places for image tokens; 3 images of 9 tokens each fill 27"):
        model(torch.tensor([[1, 2, 3]]), PIXELS)


# --- with its neighbours


def test_a_chat_fits_the_model():
    """The whole way: words, ids, loss, an answer."""
    tokenizer = Tokenizer(["what", "is", "this", "a", "ring", "user", "assistant"])
    chat = Chat(tokenizer, N, context=64)
    language = dataclasses.replace(CONFIG.language, vocab_size=len(tokenizer))
    model = llava(dataclasses.replace(CONFIG, language=language, image_id=chat.image_id))
    ids, labels = chat.batch([[("<image>\nwhat is this?", "a ring")], [("what is <image> a <image>?", "a")]], images=3)
    loss = model.loss(Chats(PIXELS, ids, labels))
    assert loss.isfinite()
    prompts, keep = chat.prompts([[("<image>\nwhat is this?", None)], [("what?", None)]], images=1)
    written = model.generate(prompts, PIXELS[:1], keep, max_new_tokens=3, eos=tokenizer.eos)
    assert written.shape[0] == 2


def test_its_parts_are_the_packages_own():
    """So that backbones are put in as they are."""
    model = llava()
    vision, language = VisionTransformer(CONFIG.vision), Decoder(CONFIG.language)
    model.vision.load_state_dict(vision.state_dict())
    model.language.load_state_dict(language.state_dict())
    assert torch.equal(model(torch.tensor([ROWS[2]])), language(torch.tensor([ROWS[2]])))


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_it_says_the_same(model, tmp_path, tied):
    config = dataclasses.replace(model.config, language=dataclasses.replace(CONFIG.language, tied=tied))
    lesson, given = llava(config), batch()
    checkpoints.save(lesson, tmp_path / "llava")
    loaded = checkpoints.load(tmp_path / "llava")
    assert loaded.config == config
    assert torch.equal(loaded.model(given.ids, PIXELS), lesson(given.ids, PIXELS))
    assert torch.equal(loaded(given.ids, PIXELS, labels=given.labels).loss, lesson.loss(given))
