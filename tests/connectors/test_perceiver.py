"""The resampler's invariants."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from minivlm.connectors.perceiver import PerceiverConfig, PerceiverResampler

CONFIG = PerceiverConfig(width=12, latents=5, layers=2, heads=3, head_width=6, frames=4, longest=10)
close = torch.testing.assert_close


def resampler(**changes) -> PerceiverResampler:
    torch.manual_seed(0)
    model = PerceiverResampler(dataclasses.replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


def video(frames: int, videos: int = 1, tokens: int = 7) -> torch.Tensor:
    return torch.randn(videos, frames, tokens, 12, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def test_a_fixed_number_of_tokens():
    model = resampler()
    for frames, tokens in ((1, 7), (1, 2), (4, 7), (9, 1)):
        assert model(video(frames, 2, tokens)).shape == (2, 5, 12)


@torch.no_grad()
def test_by_hand():
    """Figure 5 of the paper, written out for one head width, without the fused projections."""
    model, x = resampler(), video(3, 2)
    seen = (x + model.time[:3, None]).flatten(1, 2)
    latents = model.latents.expand(2, 5, 12)
    for layer in model.layers:
        a = layer.attention
        q = layer.norm(latents)
        both = torch.cat([layer.norm_seen(seen), q], dim=1)
        k, v = F.linear(both, a.kv.weight).chunk(2, dim=-1)
        heads = [
            (qh @ kh.transpose(1, 2) / 6**0.5).softmax(-1) @ vh
            for qh, kh, vh in zip(a.q(q).split(6, -1), k.split(6, -1), v.split(6, -1), strict=True)
        ]
        latents = latents + torch.cat(heads, -1) @ a.out.weight.T
        hidden = F.relu(layer.mlp[1](layer.mlp[0](latents))) ** 2
        latents = latents + layer.mlp[3](hidden)
    close(model(x), model.norm(latents))


@torch.no_grad()
@pytest.mark.parametrize("frames", [0, 4])
def test_order_of_frames_matters_only_with_time_embeddings(frames):
    model, x = resampler(frames=frames), video(4)
    moved = model(x.flip(1)) - model(x)
    assert (moved.abs().max() > 1e-2) == (frames > 0)
    if not frames:
        close(model(x.flip(1)), model(x))


@torch.no_grad()
def test_order_inside_a_frame_does_not_matter():
    model, x = resampler(), video(2)
    close(model(x[:, :, torch.randperm(7)]), model(x))


@torch.no_grad()
def test_time_embeddings():
    """The learned ones as they are; those of a longer video lie between them, the first and the last at the ends."""
    model = resampler()
    for frames in (1, 3, 4):
        assert torch.equal(model.times(torch.ones(1, frames).bool())[0], model.time[:frames])
    seven = model.times(torch.ones(1, 7).bool())[0]
    assert torch.equal(seven[::2], model.time)
    close(seven[1::2], (model.time[1:] + model.time[:-1]) / 2)
    ten = model.times(torch.ones(1, 10).bool())[0]
    line = F.interpolate(model.time.T[None], 10, mode="linear", align_corners=True)[0].T
    close(ten, line)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3, 7])
def test_a_shorter_video_in_a_batch(frames):
    """What stands after its end changes nothing, nor that others are longer."""
    model, x = resampler(), video(9, 2)
    keep = torch.ones(2, 9).bool()
    keep[1, frames:] = False
    both = model(x, keep)
    close(both[1:], model(x[1:, :frames]))
    close(both[:1], model(x[:1]))
    x[1, frames:] = 1e3
    close(model(x, keep), both)


def test_too_many_frames():
    with pytest.raises(ValueError, match="a video has 11 frames; this resampler takes at most 10"):
        resampler()(video(11))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latents": 0}, "latents is 0; it must be at least 1"),
        ({"longest": 0}, "longest is 0"),
        ({"frames": 11}, "frames is 11; .* longest video, 10"),
        ({"frames": -1}, "frames is -1"),
        ({"frames": 1}, "frames is 1, and one time embedding tells no order"),
        ({"activation": "gelu"}, "activation is 'gelu'; it must be one of squared_relu, relu"),
    ],
)
def test_config_refuses(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)


def test_the_papers_size():
    """Table 4: 6 layers, 16 heads of 96, 1536 wide: about 194 million parameters by the paper's count, of which its
    description gives 170: four square matrices for the attention, and eight for the feed-forward layer, each time.
    """
    with torch.device("meta"):
        model = PerceiverResampler(PerceiverConfig(1536))
    matrices = sum(p.numel() for p in model.layers.parameters() if p.ndim == 2)
    assert matrices == 6 * 12 * 1536**2
