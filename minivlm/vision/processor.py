"""The door for images: checks them, resizes them, and gives them the mean and spread
a model was trained with.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

#: How far outside [0, 1] a picture may lie: resizing and dividing round a little.
ROUNDING = 1e-4

#: Mean and standard deviation per channel that OpenAI's CLIP was trained with.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(
    images: Float[Tensor, "b c H W"],
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
) -> Float[Tensor, "b c H W"]:
    """`(images - mean) / std`, channel by channel: [0, 1] becomes roughly mean 0 and
    spread 1.
    """
    mean, std = (
        torch.tensor(v, dtype=images.dtype, device=images.device).view(-1, 1, 1)
        for v in (mean, std)
    )
    return (images - mean) / std


@dataclass(frozen=True)
class ImageProcessor:
    """`images` in [0, 1] of any size -> `pixel_values` of `size` x `size`,
    normalised.

    The shorter side is resized (bicubic, anti-aliased), the middle is cut out, as CLIP
    does.
    """

    size: Any
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size is a whole number of pixels; got {self.size!r}.")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(
                "mean and std have one number a channel, std above 0;"
                f" got {self.mean} and {self.std}."
            )

    def __call__(self, images: Tensor) -> Float[Tensor, "b c size size"]:
        """Check, resize, crop and normalise.

        Raises:
            TypeError: not a floating point tensor.
            ValueError: not (B, 3, H, W), or values outside [0, 1].
        """
        check_images(images, channels=len(self.mean))
        if images.shape[-2:] != (self.size, self.size):
            # Imported here because it takes seconds, and most lessons never resize.
            from torchvision.transforms.v2 import functional as tv

            images = tv.resize(
                images, [self.size], tv.InterpolationMode.BICUBIC, antialias=True
            ).clamp(0, 1)
            images = tv.center_crop(images, [self.size, self.size])
        return normalize(images, self.mean, self.std)


def check_images(images: Tensor, channels: int = 3) -> None:
    """Raise a `TypeError` or `ValueError` that says what is wrong, unless `images`
    is a batch of pictures in [0, 1].
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"images must be a float tensor in [0, 1]; got {given}."
            " For uint8 pictures: images.float() / 255."
        )
    if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
        alone = images.ndim == 3
        hint = " One image needs a batch axis: images[None]." if alone else ""
        raise ValueError(
            f"images must have shape (B, {channels}, H, W);"
            f" got {tuple(images.shape)}.{hint}"
        )
    low, high = images.aminmax()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise ValueError(
            f"images must lie in [0, 1]; got values from {low:.3g} to {high:.3g}."
            " Divide 0..255 pictures by 255; do not normalise twice."
        )
