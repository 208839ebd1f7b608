"""Real handwriting: small images of digits (see `data/digits/README.md`), drawn at any size on pictures of any shape."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minivlm.world.data_files import data_file, read_data
from minivlm.world.ink import Windows, groups, lay_, layers

FILE, SHA256 = "digits/digits.npz", "be48c9df37095c53b2b71af775a2449c2b1b88db623984c95a34bade4b578d70"

#: Dots of an image, along each side; and the darkest dot.
DOTS, DARKEST = 8, 16

#: Number of the first image of each form. Everyone filled in the same form, so that the labels repeat: seen from them.
FORMS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)

#: Split -> forms. The test is about people who were not seen in training (see the README for the doubt that remains).
SPLITS: dict[str, range] = {"train": range(2, 14), "test": range(2)}


class Handwriting(NamedTuple):
    """All images, in the order of the file."""

    images: Float[Tensor, "n 8 8"]  # ink, from 0 (none) to 1
    labels: Int[Tensor, "n"]  # the digit


@lru_cache(maxsize=1)
def handwriting() -> Handwriting:
    """All images and labels.

    Raises:
        FileNotFoundError, ValueError: the file of the digits is missing or damaged.
    """
    with np.load(io.BytesIO(read_data(FILE, SHA256)), allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    if images.shape[1:] != (DOTS, DOTS) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{data_file(FILE)} holds images {images.shape} and labels {labels.shape}; expected n x 8 x 8 and n."
        )
    return Handwriting(torch.from_numpy(images).float() / DARKEST, torch.from_numpy(labels).long())


def split_numbers(split: str) -> Int[Tensor, "n"]:
    """Numbers of the images of a split.

    Raises:
        ValueError: a split that does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"split is one of {list(SPLITS)}; got {split!r}.")
    ends = (*FORMS, len(handwriting().labels))
    return torch.arange(ends[SPLITS[split].start], ends[SPLITS[split].stop])


@dataclass(frozen=True)
class Inks:
    """`g` placed dot images, in pixels of the pictures that they go onto. All tensors are on the CPU."""

    dots: Float[Tensor, "g 8 8"]  # ink, from 0 to 1
    position: Float[Tensor, "g 2"]  # top left corner of the square that it fills (x, y), y down
    height: Float[Tensor, "g"]  # of the square
    colour: Float[Tensor, "g 3"]  # RGB in [0, 1]
    scene: Int[Tensor, "g"]  # index of the picture


def draw_inks(images: Float[Tensor, "b 3 h w"], inks: Inks) -> Float[Tensor, "b 3 h w"]:
    """The pictures with dot images on them, new ones: bilinear between dots, averaged within pixels, cut off at borders.

    The square is one dot wider than the image, so that ink at its border can fade.
    """
    return draw_inks_(images.clone(memory_format=torch.contiguous_format), inks)


def draw_inks_(images: Float[Tensor, "b 3 h w"], inks: Inks) -> Float[Tensor, "b 3 h w"]:
    """The same in place, onto pictures whose memory is contiguous."""
    layer, pieces = layers(inks.scene, inks.colour), []
    for rows, most, samples in groups(inks.height):
        corner = inks.position[rows].floor()
        start = (inks.position[rows] - corner).to(images.device, non_blocking=True)
        height = inks.height[rows, None].to(images.device, non_blocking=True)
        line = (torch.arange((most + 1) * samples, device=images.device) + 0.5) / samples
        across, down = ((line - start[:, i : i + 1]) * (DOTS + 1) / height - 0.5 for i in (0, 1))
        n = len(line)
        grid = (
            torch.stack([across[:, None, :].expand(-1, n, n), down[:, :, None].expand(-1, n, n)], -1) * (2 / DOTS) - 1
        )
        dots = inks.dots[rows, None].to(images.device, non_blocking=True)
        coverage = torch.nn.functional.grid_sample(dots, grid, align_corners=False)
        coverage = torch.nn.functional.avg_pool2d(coverage, samples)[:, 0]
        rest = (torch.arange(len(rows)), inks.scene[rows], corner.long(), inks.colour[rows], layer[rows])
        pieces.append(Windows(coverage, *rest))
    return lay_(images, pieces)
