"""The door for images."""

import inspect

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from minivlm.vision.processor import CLIP_MEAN, CLIP_STD, ImageProcessor, check_images, normalize


def pictures(*size: int) -> torch.Tensor:
    """Smooth and sharp at once, in whole steps of 1/255, far enough from 0 and 1 that nothing has to be cut off there."""
    generator = torch.Generator().manual_seed(sum(size))
    coarse = 0.25 + 0.5 * torch.rand(2, 3, 5, 6, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=size, mode="nearest")
    return (images * 255).round() / 255


def test_numbers_are_clips():
    assert tuple(OPENAI_CLIP_MEAN) == CLIP_MEAN
    assert tuple(OPENAI_CLIP_STD) == CLIP_STD


def test_normalize_by_hand():
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    given = normalize(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.1, 0.2)).flatten().tolist()
    assert given == pytest.approx([0.2, 2.0, 1.5], rel=1e-5)


def reference(images: torch.Tensor, backend: type) -> torch.Tensor:
    """What the reference's processor makes of whole numbers 0..255."""
    processor = backend(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    arrays = [np.asarray((image * 255).round().byte().permute(1, 2, 0)) for image in images]
    return torch.as_tensor(np.asarray(processor(arrays, return_tensors="pt")["pixel_values"]))


STEP = 1 / 255 / min(CLIP_STD)  # the reference rounds to 1/255 after resizing each side; we do not


@pytest.mark.parametrize("backend", [CLIPImageProcessor, CLIPImageProcessorPil])
@pytest.mark.parametrize("size", [(32, 32), (48, 48), (40, 70), (97, 51), (20, 31), (33, 32), (15, 15)])
def test_equals_the_references_processor(backend, size):
    """Resized and cropped as the reference does it."""
    images = pictures(*size)
    given, wanted = ImageProcessor(32)(images), reference(images, backend)
    assert given.shape == wanted.shape == (2, 3, 32, 32)
    assert (given - wanted).abs().max() <= 2 * STEP
    assert (given - wanted).abs().mean() <= 0.5 * STEP


def test_where_an_odd_number_of_pixels_is_cut_off():
    """51 columns to 32: OpenAI's own code (torchvision's crop) begins at round(9.5) = 10, and so do we; transformers at 9."""
    images = pictures(40, 64)
    given, wanted = ImageProcessor(32)(images), reference(images, CLIPImageProcessor)
    assert (given[..., :-1] - wanted[..., 1:]).abs().max() <= 2 * STEP


def test_the_right_size_is_only_normalised():
    images = pictures(32, 32)
    assert torch.equal(ImageProcessor(32)(images), normalize(images))


def test_the_middle_is_cut_out():
    """A wide white picture with a black stripe in its middle, and another at its edge."""
    images = torch.ones(1, 3, 32, 96)
    images[..., 40:56] = 0
    images[..., :8] = 0
    kept = ImageProcessor(32, mean=(0.0,) * 3, std=(1.0,) * 3)(images)
    assert torch.equal(kept, images[..., 32:64])


def test_bicubic_does_not_leave_the_range():
    images = (torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    kept = ImageProcessor(32, mean=(0.0,) * 3, std=(1.0,) * 3)(images)
    assert kept.min() >= 0
    assert kept.max() <= 1


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (
            torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            TypeError,
            r"got torch.uint8. For uint8 pictures: images.float\(\) / 255",
        ),
        (torch.zeros(1, 3, 8, 8, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.zeros(3, 8, 8), ValueError, r"got \(3, 8, 8\). One image needs a batch axis: images\[None\]"),
        (torch.zeros(8, 8), ValueError, r"shape \(B, 3, H, W\); got \(8, 8\)"),
        (torch.zeros(1, 8, 8, 3), ValueError, r"got \(1, 8, 8, 3\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, r"got \(1, 4, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"got \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), ValueError, r"got \(1, 3, 0, 8\)"),
        (torch.full((1, 3, 8, 8), 255.0), ValueError, r"from 255 to 255. Divide 0..255 pictures by 255"),
        (torch.full((1, 3, 8, 8), -0.5), ValueError, "from -0.5 to -0.5"),
        (torch.full((1, 3, 8, 8), float("nan")), ValueError, r"must lie in \[0, 1\]; got values from nan"),
    ],
)
def test_bad_images(images, error, words):
    for door in (ImageProcessor(8), ImageProcessor(4), check_images):
        with pytest.raises(error, match=words) as caught:
            door(images)
        assert "jaxtyping" not in type(caught.value).__module__


def test_what_is_no_tensor():
    with pytest.raises(TypeError, match="must be a float tensor in .*; got ndarray"):
        inspect.unwrap(check_images)(np.zeros((1, 3, 8, 8)))


@pytest.mark.parametrize("wrong", [dict(size=0), dict(size=2.5), dict(size=8, std=(1.0, 0.0, 1.0)), dict(size=8, mean=(0.5,))])
def test_impossible_processors_say_why(wrong):
    with pytest.raises(ValueError, match="got"):
        ImageProcessor(**wrong)


def test_rounding_just_outside_is_forgiven():
    ImageProcessor(8)(torch.full((1, 3, 8, 8), 1.00001))
