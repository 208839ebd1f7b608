"""Flamingo (Alayrac et al. 2022, arXiv 2204.14198): a finished language model looks at
images through layers that are put between its own, and stays what it is.

- a resampler makes 64 tokens of an image or a video
- gated cross-attention before every k-th block; gates shut, it is the old model exactly
- a word looks at the last image before it, and at no other
- only resampler and new layers learn
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.connectors.gated import GatedCrossAttention, image_mask, last_image
from minivlm.connectors.perceiver import PerceiverConfig, PerceiverResampler
from minivlm.connectors.ragged import in_rows
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate
from minivlm.nn.cross_attention import KeysValues
from minivlm.vision.vit import VisionTransformer, ViTConfig


@dataclass(frozen=True)
class FlamingoConfig:
    """A vision encoder, a language model, a resampler, and the layers in between. The
    last five are the paper's by default; IDEFICS has other ones.
    """

    vision: ViTConfig
    language: DecoderConfig
    resampler: PerceiverConfig
    image_id: int  # the token that says: here stands an image
    every: int = 1  # a new layer before block 0 and each `every`-th one after it
    new_words: int = 0  # at the vocabulary's end, which came with this model
    all_images: bool = False  # a word sees all images before it, not the last alone
    class_token: bool = False  # the resampler is given it, too
    hidden: int | None = None  # inside the new feed-forward layers; None: 4 * width
    swiglu: bool = False  # new layers with RMSNorm and SwiGLU, as LLaMA's own
    qk_norm: bool = False  # in the new layers' attention

    def __post_init__(self) -> None:
        words, layers = self.language.vocab_size, self.language.layers
        if not 0 <= self.image_id < words:
            raise ValueError(
                f"image_id is {self.image_id}; the vocabulary has ids 0 to {words - 1}."
            )
        if not 1 <= self.every <= layers:
            raise ValueError(
                f"every is {self.every}; the language model has {layers} blocks, so it"
                f" must be 1 to {layers}."
            )
        if self.resampler.width != self.vision.width:
            raise ValueError(
                f"the resampler is {self.resampler.width} wide, and the vision encoder"
                f" {self.vision.width}; they must be the same."
            )
        if not 0 <= self.new_words < words:
            raise ValueError(
                f"new_words is {self.new_words}; the whole vocabulary has {words}."
            )
        if self.hidden == 4 * self.language.width:  # one way to say it, not two
            object.__setattr__(self, "hidden", None)

    @classmethod
    def tiny(cls, vocab_size: int, image_id: int, width: int = 64) -> "FlamingoConfig":
        """A small one; the lesson takes its sizes from pretrained backbones instead."""
        sizes = {"width": width, "heads": 4, "hidden": 2 * width}
        vision = ViTConfig(image_size=32, patch_size=8, layers=2, **sizes)
        resampler = PerceiverConfig(width, 8, 2, 4, width // 4, frames=4, longest=8)
        language = DecoderConfig.tiny(vocab_size, width, layers=2)
        return cls(vision, language, resampler, image_id)

    @classmethod
    def flamingo_3b(cls, vocab_size: int = 32000) -> "FlamingoConfig":
        """The sizes of Flamingo-3B (tables 4 and 5), with CLIP ViT-L/14 in the place of
        NFNet-F6 and a decoder of LLaMA's kind in that of Chinchilla.
        """
        return cls._like_the_paper(vocab_size, 2048, 24, 16, every=1)

    @classmethod
    def flamingo_9b(cls, vocab_size: int = 32000) -> "FlamingoConfig":
        """The sizes of Flamingo-9B, likewise."""
        return cls._like_the_paper(vocab_size, 4096, 40, 32, every=4)

    @classmethod
    def _like_the_paper(
        cls, words: int, width: int, layers: int, heads: int, every: int
    ) -> "FlamingoConfig":
        vision = ViTConfig(224, 14, 1024, 24, 16, 4096)
        hidden = 8 * width // 3  # three matrices for two
        language = DecoderConfig(words, 2048, width, layers, heads, heads, hidden)
        return cls(vision, language, PerceiverConfig(1024), words - 1, every)

    @classmethod
    def idefics_9b(cls) -> "FlamingoConfig":
        """IDEFICS 9B (Laurençon et al. 2023), the open Flamingo: CLIP ViT-H/14 and
        LLaMA 7B, with two more words.
        """
        llama = DecoderConfig(32002, 2048, 4096, 32, 32, 32, hidden=11008)
        return cls(
            ViTConfig(224, 14, 1280, 32, 16, 5120, activation="gelu"),
            llama,
            PerceiverConfig(1280, frames=0, longest=1, activation="relu", qk_norm=True),
            image_id=32001,
            every=4,
            new_words=2,
            class_token=True,
            hidden=llama.hidden,
            swiglu=True,
            qk_norm=True,
        )


class Documents(NamedTuple):
    """Texts with images and videos among the words.

    `pixel_values`: all pictures of the batch in reading order. `ids`: one `image_id`
    where an image or a video stands. `labels`: -100 where there is no loss. `frames`:
    how many pictures each of them is; None: one each. `looks_at`: the number of the
    image in its text, from 1, that each place looks at; None: the last one before it.
    """

    pixel_values: Float[Tensor, "pictures c H W"]
    ids: Int[Tensor, "b t"]
    labels: Int[Tensor, "b t"]
    frames: Int[Tensor, "images"] | None = None
    looks_at: Int[Tensor, "b t"] | None = None


def look(
    layer: GatedCrossAttention,
    image: KeysValues,
    mask: Bool[Tensor, "b t n"],
    block: nn.Module,
    given: tuple,
) -> tuple:
    """What a block is given, after `layer` has looked. Words that come after those of
    `mask`, because they are being written, see what the last of it saw.
    """
    y, *rest, cache = given
    past = 0 if cache is None else cache.length
    rows = torch.arange(past, past + y.shape[1], device=y.device)
    mask = mask[:, rows.clamp(max=mask.shape[1] - 1)]
    return layer(y, image, mask), *rest, cache


class Flamingo(nn.Module):
    """A language model that has been given eyes."""

    def __init__(self, config: FlamingoConfig) -> None:
        super().__init__()
        self.config, c = config, config.language
        self.vision = VisionTransformer(config.vision)
        self.resampler = PerceiverResampler(config.resampler)
        self.language = Decoder(c)
        hidden = 4 * c.width if config.hidden is None else config.hidden
        seen, how = config.vision.width, (config.swiglu, config.qk_norm, c.eps)
        self.layers = nn.ModuleList(
            GatedCrossAttention(c.width, c.heads, c.hd, seen, hidden, *how)
            for _ in range(0, c.layers, config.every)
        )

    def embed_image(
        self,
        pixel_values: Float[Tensor, "pictures c H W"],
        frames: Int[Tensor, "images"] | None = None,
    ) -> Float[Tensor, "images m d"]:
        """Each image, or video of so many `frames`, as the resampler's tokens.

        Raises:
            ValueError: frames that do not add up to the pictures, a video without any,
                or with more than the resampler takes.
        """
        first = 0 if self.config.class_token else 1
        features = self.vision(pixel_values)[:, first:]
        if frames is None:
            return self.resampler(features[:, None])
        if int(frames.sum()) != len(features) or int(frames.min()) < 1:
            raise ValueError(
                f"frames is {frames.tolist()}, together {int(frames.sum())} pictures;"
                f" {len(features)} are given, and each video needs at least one."
            )
        return self.resampler(*in_rows(features, frames))

    def see(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "pictures c H W"] | None = None,
        frames: Int[Tensor, "images"] | None = None,
        looks_at: Int[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b most m d"], Bool[Tensor, "b t most"]]:
        """The images of each text, and which of them each of its places may look at.

        Raises:
            ValueError: images and the places where texts have one do not match, or a
                place looks at an image that its text has not.
        """
        places = ids == self.config.image_id
        counts = places.sum(dim=1)
        if pixel_values is None:
            tokens = self.resampler.latents
            features = tokens.new_empty(0, *tokens.shape)
        else:
            features = self.embed_image(pixel_values, frames)
        if int(counts.sum()) != len(features):
            raise ValueError(
                f"the texts have {counts.tolist()} images (id {self.config.image_id}),"
                f" {int(counts.sum())} together; {len(features)} are given. Give each"
                " image of the batch once, in reading order."
            )
        looks_at = last_image(places) if looks_at is None else looks_at
        if (looks_at > counts[:, None]).any() or (looks_at < 0).any():
            raise ValueError(
                f"looks_at runs from {int(looks_at.min())} to {int(looks_at.max())};"
                f" the texts have {counts.tolist()} images, counted from 1 (0: none)."
            )
        images, _ = in_rows(features, counts)
        return images, image_mask(looks_at, images.shape[1], self.config.all_images)

    @contextmanager
    def looking(
        self,
        images: Float[Tensor, "b most m d"],
        mask: Bool[Tensor, "b t most"],
    ) -> Iterator[None]:
        """While this is open, `self.language` looks at images: the new layers stand
        before its blocks. Nothing in it is changed; afterwards it is as it was.
        """
        mask = mask.repeat_interleave(images.shape[2], dim=2)
        with ExitStack() as stack:
            blocks = list(self.language.blocks)[:: self.config.every]
            for layer, block in zip(self.layers, blocks, strict=True):
                image = layer.attention.keys_values(images.flatten(1, 2))
                first = partial(look, layer, image, mask)
                stack.callback(block.register_forward_pre_hook(first).remove)
            yield

    def features(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "pictures c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        frames: Int[Tensor, "images"] | None = None,
        looks_at: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """What stands at each place after the language model's last norm; `keep` hides
        padding. Other arguments as in `Documents`, errors as in `see`.
        """
        with self.looking(*self.see(ids, pixel_values, frames, looks_at)):
            return self.language.features(ids, keep=keep)

    def forward(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "pictures c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        frames: Int[Tensor, "images"] | None = None,
        looks_at: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Scores for the token after each place; arguments as in `features`."""
        x = self.features(ids, pixel_values, keep, frames, looks_at)
        return self.language.logits(x)

    def loss(self, batch: Documents) -> Float[Tensor, ""]:
        """Surprise at the labelled words, given the images before them (equation 1)."""
        b = batch
        x = self.features(b.ids, b.pixel_values, None, b.frames, b.looks_at)
        return self.language.next_token_loss(x, b.labels)

    @torch.no_grad()
    def generate(
        self,
        ids: Int[Tensor, "b t"],
        pixel_values: Float[Tensor, "pictures c H W"] | None = None,
        keep: Bool[Tensor, "b t"] | None = None,
        frames: Int[Tensor, "images"] | None = None,
        **how: Any,
    ) -> Int[Tensor, "b new"]:
        """Go on from prompts, padded on the left; what is written looks at the last
        image. `how` as in `language.generate`.
        """
        with self.looking(*self.see(ids, pixel_values, frames)):
            return generate(self.language, ids, keep, **how)
