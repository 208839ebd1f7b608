"""The Perceiver resampler (Flamingo, Alayrac et al. 2022, section 2.1): however many
features an image or a video has, a fixed number of tokens comes out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.squared_relu import SquaredReLU

#: What bends inside the feed-forward layers: the paper's, and that of IDEFICS.
ACTIVATIONS = {"squared_relu": SquaredReLU, "relu": nn.ReLU}


@dataclass(frozen=True)
class PerceiverConfig:
    """Sizes of a resampler; all but the width are the paper's (table 4) by default."""

    width: int  # of a vision token, and of what comes out
    latents: int = 64  # tokens that come out
    layers: int = 6
    heads: int = 16
    head_width: int = 96
    frames: int = 8  # that have time embeddings; 0: frames are a set, without order
    longest: int = 30  # video that is taken, in frames
    activation: str = "squared_relu"  # or "relu"
    qk_norm: bool = False  # LayerNorm on queries and keys, as IDEFICS has it

    def __post_init__(self) -> None:
        for name in ("width", "latents", "layers", "heads", "head_width", "longest"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least 1."
                )
        if not 0 <= self.frames <= self.longest:
            raise ValueError(
                f"frames is {self.frames}; it must be 0 (no order), or from 1 to the"
                f" longest video, {self.longest}."
            )
        if self.frames == 1 < self.longest:
            raise ValueError(
                f"frames is 1, and one time embedding tells no order among the"
                f" {self.longest} frames of the longest video; take 0 or at least 2."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {self.activation!r}; it must be one of"
                f" {', '.join(ACTIVATIONS)}."
            )


class PerceiverLayer(nn.Module):
    """The latents look at the features and at themselves, then each thinks it over."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        c, d = config, config.width
        self.norm_seen, self.norm = nn.LayerNorm(d), nn.LayerNorm(d)
        qk_norm = nn.LayerNorm if c.qk_norm else None
        self.attention = CrossAttention(d, c.heads, d, c.head_width, False, qk_norm)
        self.mlp = nn.Sequential(
            nn.LayerNorm(d),
            nn.Linear(d, 4 * d, bias=False),
            ACTIVATIONS[c.activation](),
            nn.Linear(4 * d, d, bias=False),
        )

    def forward(
        self,
        latents: Float[Tensor, "b m d"],
        seen: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "b 1 _"] | None = None,
    ) -> Float[Tensor, "b m d"]:
        q = self.norm(latents)
        both = torch.cat([self.norm_seen(seen), q], dim=1)
        keys_values = self.attention.keys_values(both)
        latents = latents + self.attention(q, keys_values, mask)
        return latents + self.mlp(latents)


class PerceiverResampler(nn.Module):
    """Learned latents ask the features of all frames, layer after layer (figure 5).

    Features carry no places in space beyond what the vision encoder gave them. A frame
    is told by its time embedding. A video with more frames than there are embeddings is
    one that runs over the same time more finely: its embeddings lie between the learned
    ones, as in the paper's test with 30 frames (section B.1.3).
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        # Small: latents as large as features would drown what they are told at first.
        self.latents = nn.Parameter(0.02 * torch.randn(config.latents, config.width))
        if config.frames:
            self.time = nn.Parameter(torch.randn(config.frames, config.width))
        self.layers = nn.ModuleList(
            PerceiverLayer(config) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def times(self, keep: Bool[Tensor, "b f"]) -> Float[Tensor, "b f d"]:
        """The time embedding of each frame: the learned one of its number; in a longer
        video the straight line between two of them.
        """
        count, last = keep.sum(dim=1, keepdim=True), len(self.time) - 1
        step = (last / (count - 1).clamp(min=1)).clamp(max=1.0)
        number = torch.arange(keep.shape[1], device=keep.device)
        at = (number * step).clamp(max=last)
        low = at.floor().long()
        high = (low + 1).clamp(max=last)
        part = (at - low)[..., None].to(self.time.dtype)
        return torch.lerp(self.time[low], self.time[high], part)

    def forward(
        self,
        features: Float[Tensor, "b f n d"],
        keep: Bool[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Frames of `n` vision tokens each become `m` tokens. An image is one frame.

        Args:
            keep: False where there is no frame, at the end of a shorter video.

        Raises:
            ValueError: more frames than `longest`.
        """
        b, f, n, _ = features.shape
        if f > self.config.longest:
            raise ValueError(
                f"a video has {f} frames; this resampler takes at most"
                f" {self.config.longest}. Take fewer, evenly spaced."
            )
        if self.config.frames:
            every = features.new_ones(b, f, dtype=torch.bool)
            times = self.times(every if keep is None else keep)
            features = features + times[:, :, None]
        latents = self.latents.expand(b, -1, -1)
        mask = None
        if keep is not None:
            own = keep.new_ones(b, self.config.latents)
            mask = torch.cat([keep.repeat_interleave(n, dim=1), own], dim=1)[:, None]
        for layer in self.layers:
            latents = layer(latents, features.flatten(1, 2), mask)
        return self.norm(latents)
