"""The class that takes the reference's arguments: what it gives, and what it refuses."""

import inspect
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers

from minivlm import checkpoints
from minivlm.checkpoints import CheckpointError
from minivlm.checkpoints.clip import CLIPModel
from minivlm.models.clip import CLIP
from tests.checkpoints.helpers import CONFIG, clip_config, small_clip
from tests.parity.cases import clip as cases

PIXELS = torch.zeros(2, 3, 12, 12)
IDS = torch.tensor([[1, 9, 8, 5], [1, 9, 5, 0]])


@pytest.fixture
def model():
    return CLIPModel(small_clip())


def test_load_gives_the_lesson_class_in_eval_mode_and_touches_no_seed(tmp_path):
    checkpoints.save(small_clip(), tmp_path / "clip")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    loaded = checkpoints.load(tmp_path / "clip")
    assert torch.equal(torch.rand(4), expected)
    assert type(loaded.model) is CLIP
    assert loaded.config is loaded.model.config
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints(tmp_path, dtype):
    """Stored in half, read as stored, computed with in float32."""
    reference = cases.build(cases.ODD_GRID, 1).to(dtype)
    reference.save_pretrained(tmp_path / "half")
    _, state = checkpoints.read(tmp_path / "half")
    assert {tensor.dtype for tensor in state.values()} == {dtype}
    loaded = checkpoints.load(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    checkpoints.save(loaded.to(dtype), tmp_path / "again")
    again = transformers.CLIPModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(t, again[n]) and t.dtype == again[n].dtype for n, t in reference.state_dict().items())


@pytest.mark.parametrize("size", [None, 20_000])
@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_theirs_ours_theirs_bit_by_bit(case, tmp_path, size):
    reference = case.build()
    reference.save_pretrained(tmp_path / "theirs", **({} if size is None else {"max_shard_size": size}))
    assert (size is None) == (tmp_path / "theirs" / "model.safetensors").exists()
    checkpoints.save(checkpoints.load(tmp_path / "theirs"), tmp_path / "ours", max_shard_size=size)
    again, info = transformers.CLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    theirs, ours = reference.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    a, b = reference.config.to_dict(), again.config.to_dict()
    for tower in ("vision_config", "text_config"):
        for field in {*cases.ODD_GRID[tower], "layer_norm_eps", "hidden_act", "eos_token_id"} & a[tower].keys():
            assert a[tower][field] == b[tower][field] or field == "bos_token_id", field


@torch.no_grad()
def test_a_lesson_model_is_loaded_by_the_reference(tmp_path):
    """Ours first: a model that a notebook trained, in the reference's hands."""
    lesson = small_clip()
    checkpoints.save(lesson, tmp_path / "clip")
    reference = transformers.CLIPModel.from_pretrained(tmp_path / "clip")
    pixels = torch.randn(PIXELS.shape, generator=torch.Generator().manual_seed(0))
    theirs = reference(input_ids=IDS, pixel_values=pixels).logits_per_image
    torch.testing.assert_close(lesson(pixels, IDS), theirs, atol=1e-5, rtol=0)


def test_a_notebooks_own_class_is_saved_and_read(tmp_path):
    """A cell defines `CLIP` once more; it is another class of the same name."""
    cell = type(
        "CLIP", (torch.nn.Module,), {k: v for k, v in vars(CLIP).items() if k not in ("__dict__", "__weakref__")}
    )
    assert not issubclass(cell, CLIP)
    model = torch.nn.Module.__new__(cell)
    model.__dict__ = small_clip().__dict__
    checkpoints.save(model, tmp_path / "clip")
    sizes, state = checkpoints.read(tmp_path / "clip")
    assert CLIP(clip_config(sizes)).load_state_dict(state)
    assert torch.equal(state["text.positions"], model.text.positions)


def test_changed_classes_are_refused(tmp_path):
    def refuses(model, words):
        with pytest.raises(CheckpointError, match=words):
            checkpoints.save(model, tmp_path / "clip")
        assert not list(tmp_path.iterdir())

    refuses(torch.nn.Linear(2, 2), "a Linear cannot be saved in a released format; supported: CLIP")
    model = small_clip()
    model.extra = torch.nn.Parameter(torch.ones(2))
    refuses(model, "tensor 'extra' has no place in this file format")
    model = small_clip()
    model.vision.blocks.append(model.vision.blocks[0])
    refuses(model, "unexpected .*vision_model.encoder.layers.2")
    model = small_clip()
    del model.vision.norm_before
    refuses(model, "2 tensors missing.*'vision_model.pre_layrnorm.weight'")
    model = small_clip()
    model.vision.blocks[0].attention.qkv = torch.nn.Linear(12, 35)
    refuses(model, r"'vision.blocks.0.attention.qkv.weight' .* has shape \(35, 12\); expected \(36, 12\)")


def test_return_loss(model):
    assert model(IDS, PIXELS).loss is None
    assert model(IDS, PIXELS, return_loss=False).loss is None
    assert model(input_ids=IDS, pixel_values=PIXELS, return_loss=True).loss.shape == ()
    assert model(IDS, PIXELS[:1]).logits_per_text.shape == (2, 1)
    with pytest.raises(ValueError, match="one text for each image, in the same order; got 1 images and 2 texts"):
        model(IDS, PIXELS[:1], return_loss=True)


@pytest.mark.parametrize(
    ("pixels", "error", "words"),
    [
        (
            torch.zeros(2, 3, 16, 16),
            ValueError,
            r"must have shape \('B', 3, 12, 12\); got \(2, 3, 16, 16\).*Processor\(12\)",
        ),
        (torch.zeros(2, 3, 12, 16), ValueError, "must have shape"),
        (torch.zeros(2, 1, 12, 12), ValueError, "must have shape"),
        (torch.zeros(3, 12, 12), ValueError, "must have shape"),
        (torch.zeros(0, 3, 12, 12), ValueError, "must have shape"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.uint8), TypeError, "float tensor; got torch.uint8"),
    ],
)
def test_bad_pixel_values(model, pixels, error, words):
    with pytest.raises(error, match=words) as caught:
        model(IDS, pixels)
    assert "jaxtyping" not in type(caught.value).__module__


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (IDS.float(), TypeError, "tensor of whole numbers; got torch.float32"),
        (IDS.bool(), TypeError, "tensor of whole numbers; got torch.bool"),
        (IDS[0], ValueError, r"shape \(B, T\); got \(4,\)"),
        (IDS[:, :0], ValueError, r"shape \(B, T\); got \(2, 0\)"),
        (torch.full((1, 10), 5), ValueError, "has 10 columns, but the context holds 9"),
        (torch.tensor([[1, 5, 30]]), ValueError, "runs from 1 to 30; the vocabulary has ids 0 to 29"),
        (torch.tensor([[1, 5, -1]]), ValueError, "runs from -1 to 5"),
        (torch.tensor([[1, 5], [1, 4]]), ValueError, r"row 1 of input_ids has no end-of-text token \(id 5\)"),
    ],
)
def test_bad_ids(model, ids, error, words):
    with pytest.raises(error, match=words) as caught:
        model(ids, PIXELS)
    assert "jaxtyping" not in type(caught.value).__module__


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(2, 3), r"must have shape \(2, 4\); got \(2, 3\)"),
        (torch.ones(2, 1, 4, 4), r"got \(2, 1, 4, 4\)"),
        (torch.tensor([[0, 0, 0, 0], [-10, 0, 0, 0]]), "1 for tokens and 0 for padding"),
        (torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 1, 1, 1]]), "1 for tokens and 0 for padding"),
        (torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1]]), "row 1: attention_mask hides its first end-of-text token"),
    ],
)
def test_bad_masks(model, mask, words):
    with pytest.raises(ValueError, match=words):
        model(IDS, PIXELS, mask)


def test_lists_for_tensors(model):
    """In a test run the annotations would catch these first; in a notebook nothing does, so the checks are called bare."""
    image_features, text_features = (
        inspect.unwrap(f) for f in (CLIPModel.get_image_features, CLIPModel.get_text_features)
    )
    with pytest.raises(TypeError, match="float tensor; got list"):
        image_features(model, PIXELS.tolist())
    bare = SimpleNamespace(config=CONFIG, _check_ids=partial(inspect.unwrap(CLIPModel._check_ids), model))
    bare._check_mask = partial(inspect.unwrap(CLIPModel._check_mask), model)
    with pytest.raises(TypeError, match="tensor of whole numbers; got list"):
        text_features(bare, IDS.tolist())
    with pytest.raises(ValueError, match=r"have shape \(2, 4\); got list"):
        text_features(bare, IDS, IDS.tolist())


def test_masks_of_any_kind_of_number(model):
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    wanted = model.get_text_features(IDS, mask).pooler_output
    for dtype in (torch.bool, torch.int32, torch.float32, torch.uint8):
        assert torch.equal(model.get_text_features(IDS, mask.to(dtype)).pooler_output, wanted)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(model.get_text_features(IDS.to(dtype), mask).pooler_output, wanted)


def test_config_belongs_to_the_model(model):
    assert model.config is model.model.config
    assert model.config == CONFIG
