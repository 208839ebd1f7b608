"""Encoders of observations."""

import torch

from minivlm.connectors.observations import ImageEncoder, ObjectEncoder, VectorEncoder
from minivlm.vision.vit import ViTConfig

EYE = ViTConfig(image_size=8, patch_size=4, width=12, layers=1, heads=2, hidden=16)


def test_shapes():
    assert VectorEncoder(5, 6, tokens=3)(torch.randn(2, 4, 5)).shape == (2, 12, 6)
    assert ImageEncoder(EYE, 6)(torch.randn(2, 3, 8, 8)).shape == (2, 4, 6)
    assert ObjectEncoder(EYE, 6, tokens=3)(torch.randn(2, 4, 8, 8)).shape == (2, 3, 6)


@torch.no_grad()
def test_tokens_of_one_vector_stand_together():
    encoder, vectors = VectorEncoder(5, 6, tokens=3), torch.randn(1, 4, 5)
    out = encoder(vectors)
    assert torch.allclose(out[0, 3:6].flatten(), encoder.mlp(vectors[0, 1]), atol=1e-6)


@torch.no_grad()
def test_an_image_is_its_patches_without_the_class_token():
    encoder, image = ImageEncoder(EYE, 6), torch.randn(1, 3, 8, 8)
    assert torch.equal(encoder(image), encoder.project(encoder.vision(image)[:, 1:]))


@torch.no_grad()
def test_nothing_of_an_object_shows_beyond_its_mask():
    encoder, image, mask = ObjectEncoder(EYE, 6), torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)
    mask[..., 2:4, 2:4] = 0.5
    seen = encoder(torch.cat([image, mask], 1))
    assert torch.equal(encoder(torch.cat([torch.where(mask > 0, image, 9.0), mask], 1)), seen)
    assert not torch.equal(encoder(torch.cat([image, 2 * mask], 1)), seen)
