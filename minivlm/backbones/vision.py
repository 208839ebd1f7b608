"""The backbone that sees: CLIP, trained on pictures of the world with their captions, longer than a lesson can."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm import world
from minivlm.backbones.language import world_tokenizer
from minivlm.evaluation import text_classifier
from minivlm.language.text_encoder import TextConfig
from minivlm.models.clip import CLIP, CLIPConfig, Pairs
from minivlm.vision.processor import normalize
from minivlm.vision.vit import ViTConfig

#: Mean and spread of the pixels of the world's pictures.
MEAN, STD = (0.87, 0.85, 0.84), (0.18, 0.19, 0.22)

_SEEN = torch.zeros(len(world.COLOURS), len(world.SHAPES), dtype=torch.bool)
_SEEN[tuple(zip(*world.SEEN, strict=True))] = True


@dataclass(frozen=True)
class VisionRecipe:
    """How a vision backbone is trained; part of its card."""

    width: int
    layers: int
    heads: int
    hidden: int
    text_layers: int
    image_size: int
    patch_size: int
    steps: int
    batch: int
    lr: float
    warmup: int
    single: float = 0.5  # share of pictures with one thing, whose captions are short
    context: int = 80
    weight_decay: float = 0.1
    seed: int = 0

    def build(self) -> CLIP:
        """The model at its start."""
        tokenizer = world_tokenizer()
        return CLIP(
            CLIPConfig(
                ViTConfig(self.image_size, self.patch_size, self.width, self.layers, self.heads, self.hidden),
                TextConfig(
                    len(tokenizer), self.context, self.width, self.text_layers, self.heads, self.hidden,
                    eot_id=tokenizer.eos,
                ),
                embedding=self.width,
            )
        )  # fmt: skip

    def batches(self, start: int) -> Iterator[Pairs]:
        """Batches from step `start` on; each is a function of the seed and its step alone."""
        tokenizer = world_tokenizer()
        for step in range(start, self.steps):
            rng = world.generator(f"vision {step}", self.seed)
            one = round(self.batch * self.single)
            several = (self.batch - one) // 2
            scenes = world.draw_scenes(rng, several, (2, 3))
            parts = [world.draw_scenes(rng, self.batch - 2 * several, (1, 1), slots=3), scenes, near_miss(rng, scenes)]
            said = world.Captions(rng)(parts[0])
            for part in parts[1:]:
                said += world.Captions(rng, styles=("full",))(part)
            images = world.render(world.Scenes.join(parts), self.image_size)
            yield Pairs(normalize(images, MEAN, STD), tokenizer.batch(said, self.context))


def near_miss(rng: np.random.Generator, scenes: world.Scenes) -> world.Scenes:
    """For each scene one with the same colours, shapes, sizes and places, but other things have them: what a model must tell
    apart to know which colour belongs to which shape, and where. No pair comes up that training may not show.
    """
    b, slots = scenes.present.shape
    count = scenes.counts()[:, None]
    here = torch.arange(slots).expand(b, slots)
    turned = torch.where(here < count, (here + 1) % count, here)  # each thing takes what the next one has
    field = torch.from_numpy(rng.integers(3, size=(b, 1)))
    colour, shape = scenes.colour.gather(1, turned), scenes.shape.gather(1, turned)
    swap_colour = (field == 0) & _all_seen(colour, scenes.shape, scenes.present)[:, None]
    swap_shape = (field == 1) & _all_seen(scenes.colour, shape, scenes.present)[:, None]
    swap_both = ~swap_colour & ~swap_shape  # colours and shapes together: the places are exchanged
    return world.Scenes(
        colour=torch.where(swap_colour | swap_both, colour, scenes.colour),
        shape=torch.where(swap_shape | swap_both, shape, scenes.shape),
        position=scenes.position,
        size=scenes.size,
        present=scenes.present,
        background=scenes.background,
    )


def _all_seen(colour: Int[Tensor, "b o"], shape: Int[Tensor, "b o"], present: Bool[Tensor, "b o"]) -> Bool[Tensor, "b"]:
    return (_SEEN[colour, shape] | ~present).all(1)


@torch.no_grad()
def metrics(model: CLIP, n: int = 2048, name: str = "vision test") -> dict[str, float]:
    """Zero-shot accuracy among all pairs, on seen and held-out ones; retrieval among pictures of several things."""
    tokenizer, size = world_tokenizer(), model.config.vision.image_size
    context = model.config.text.context

    def seen(scenes: world.Scenes) -> Float[Tensor, "b e"]:
        return model.embed_image(normalize(world.render(scenes, size), MEAN, STD))

    names = [world.article(world.pair_name(*pair)) for pair in world.all_pairs()]
    classes = text_classifier(model, tokenizer, names, world.FRAMES, context)
    found = {}
    for word, pairs in (("seen", world.SEEN), ("held out", world.HELD_OUT)):
        scenes = world.draw_scenes(world.generator(f"{name} {word}"), n, (1, 1), pairs)
        label = scenes.colour[:, 0] * len(world.SHAPES) + scenes.shape[:, 0]
        found[f"zero-shot, {word} pairs"] = ((seen(scenes) @ classes.T).argmax(1) == label).float().mean().item()
    rng = world.generator(f"{name} several")
    scenes = world.draw_scenes(rng, n, (2, 3))
    other, say = near_miss(rng, scenes), world.Captions(rng, styles=("full",))
    differ = ((scenes.colour != other.colour) | (scenes.shape != other.shape)).any(1)  # all alike: nothing to exchange
    scenes, other = scenes[differ], other[differ]
    texts = [model.embed_text(tokenizer.batch(say(part), context)) for part in (scenes, other)]
    image = seen(scenes)
    right, wrong = ((image * text).sum(1) for text in texts)
    found["caption against near miss"] = (right > wrong).float().mean().item()
    return found
