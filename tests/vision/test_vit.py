"""Patches and the vision transformer."""

import dataclasses

import pytest
import torch

from minivlm.vision.vit import VisionTransformer, ViTConfig, patchify

CONFIG = ViTConfig(image_size=20, patch_size=4, width=12, layers=2, heads=3, hidden=24)


def test_patchify_by_hand():
    """A 4 x 6 picture with two channels, patches of 2: row by row, and inside a patch channel, row, column."""
    picture = torch.arange(24.0).view(1, 1, 4, 6)
    patches = patchify(torch.cat([picture, picture + 100], dim=1), 2)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 0].tolist() == [0, 1, 6, 7, 100, 101, 106, 107]
    assert patches[0, 1].tolist() == [2, 3, 8, 9, 102, 103, 108, 109]  # to the right
    assert patches[0, 3].tolist() == [12, 13, 18, 19, 112, 113, 118, 119]  # the next row
    assert patches[0, 5, 0] == 16


def test_patchify_is_the_patch_convolution():
    torch.manual_seed(0)
    conv, images = torch.nn.Conv2d(3, 5, 4, stride=4), torch.randn(2, 3, 12, 20)
    ours = patchify(images, 4) @ conv.weight.flatten(1).T + conv.bias
    torch.testing.assert_close(ours, conv(images).flatten(2).mT, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size": 21}, "image_size 21 is no multiple of patch_size 4"),
        ({"patch_size": 3}, "image_size 20 is no multiple of patch_size 3"),
        ({"heads": 5}, "width 12 is no multiple of heads 5"),
        ({"width": 13}, "width 13 is no multiple of heads 3"),
    ],
)
def test_config_refuses_what_does_not_fit(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


@torch.no_grad()
def test_without_clips_changes_by_hand():
    """A ViT as ImageNet's are: no norm before the blocks, GELU, patches with a bias."""
    torch.manual_seed(0)
    plain = {"norm_before": False, "activation": "gelu", "patch_bias": True}
    tower, images = VisionTransformer(dataclasses.replace(CONFIG, **plain)).eval(), torch.rand(2, 3, 20, 20)
    patches = patchify(images, 4) @ tower.patch_embedding.weight.T + tower.patch_embedding.bias
    assert tower.patch_embedding.bias.any()
    x = torch.cat([tower.class_token.expand(2, 1, -1), patches], dim=1) + tower.positions
    for block in tower.blocks:
        x = x + block.attention(block.norm_1(x))
        wide, _, narrow = block.mlp
        x = x + narrow(torch.nn.functional.gelu(wide(block.norm_2(x))))
    torch.testing.assert_close(tower(images), x, atol=1e-5, rtol=1e-5)
    assert not any("norm_before" in name for name in tower.state_dict())


def test_clips_changes_are_what_a_config_has_unless_it_says_otherwise():
    assert (CONFIG.norm_before, CONFIG.activation, CONFIG.patch_bias) == (True, "quick_gelu", False)
    with pytest.raises(ValueError, match="activation is 'relu'; it must be 'quick_gelu' or 'gelu'"):
        dataclasses.replace(CONFIG, activation="relu")


def test_config_grid():
    assert CONFIG.grid == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.width = 3


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return VisionTransformer(CONFIG).eval()


@torch.no_grad()
def test_one_token_for_each_patch_and_one_for_the_class(tower):
    assert tower(torch.rand(2, 3, 20, 20)).shape == (2, 26, 12)
    assert tower.patch_embedding.bias is None


@torch.no_grad()
def test_patches_are_told_apart_by_their_positions(tower):
    """Two patches change places: without positions the class token would not notice."""
    image = torch.rand(1, 3, 20, 20)
    swapped = image.clone()
    swapped[..., :4, :4], swapped[..., 8:12, 4:8] = image[..., 8:12, 4:8], image[..., :4, :4]
    assert not torch.allclose(tower(image)[:, 0], tower(swapped)[:, 0], atol=1e-4)
    blind = VisionTransformer(CONFIG).eval()
    blind.load_state_dict(tower.state_dict())
    blind.positions.zero_()
    torch.testing.assert_close(blind(image)[:, 0], blind(swapped)[:, 0])


@torch.no_grad()
def test_every_patch_reaches_the_class_token(tower):
    image = torch.rand(1, 3, 20, 20)
    for row in range(5):
        for column in range(5):
            changed = image.clone()
            changed[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
            assert not torch.allclose(tower(changed)[:, 0], tower(image)[:, 0])


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(tower):
    images = torch.rand(5, 3, 20, 20)
    together, alone = tower(images), torch.cat([tower(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tower(images.flip(0)), together.flip(0), atol=1e-5, rtol=1e-5)
