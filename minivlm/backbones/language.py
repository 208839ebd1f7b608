"""The backbone that reads: a decoder trained on the world's texts, and never on a picture."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minivlm import world
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.start import looking_start
from minivlm.language.tokenizer import Tokenizer
from minivlm.world import frozen
from minivlm.world.corpus import Reading, read, scene_questions

#: Batches that are drawn at a time, sorted by length so that little is padding, and then shuffled.
BLOCK = 16

#: Evaluation sets whose questions can be answered by reading; answers are balanced, so habit helps little.
FROZEN = (
    "questions", "questions_held_out", "reasoning", "episodes_pair_2", "episodes_colour_2", "episodes_shape_2", "compare",
    "strings", "digits", "documents", "videos", "robot",
)  # fmt: skip


class Weighted(NamedTuple):
    """Texts and how much each token counts in the loss; 0 for padding and the first."""

    ids: Int[Tensor, "b t"]
    weight: Float[Tensor, "b t"]


@dataclass(frozen=True)
class LanguageRecipe:
    """How a language backbone is trained; part of its card."""

    width: int
    layers: int
    heads: int
    hidden: int
    steps: int
    batch: int
    lr: float
    warmup: int
    context: int = 256
    rope_base: float = 10000.0
    told: float = 0.2  # weight in the loss of a token that is no answer: most of it cannot be foreseen
    weight_decay: float = 0.1
    seed: int = 0

    def tokenizer(self) -> Tokenizer:
        """Words of the world, special tokens of all models."""
        return world_tokenizer()

    def build(self) -> "Reader":
        """The model at its start."""
        config = DecoderConfig(
            len(self.tokenizer()), self.context, self.width, self.layers, self.heads, self.heads, self.hidden,
            rope_base=self.rope_base, tied=True, qkv_bias=True,
        )  # fmt: skip
        model = Reader(config)
        looking_start(model.decoder, self.seed)
        return model

    def batches(self, start: int) -> Iterator[Weighted]:
        """Batches from step `start` on; each is a function of the seed and its step alone."""
        tokenizer = self.tokenizer()
        for number in range(start // BLOCK, -(-self.steps // BLOCK)):
            batches = block(tokenizer, self, number)
            yield from batches[max(0, start - number * BLOCK) :]


class Reader(nn.Module):
    """A decoder whose loss knows weights."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)

    def loss(self, batch: Weighted) -> Float[Tensor, ""]:
        """Mean surprise at the tokens, weighted; each is predicted one place before."""
        wanted = batch.weight[:, 1:] > 0
        logits = self.decoder.logits(self.decoder.features(batch.ids[:, :-1])[wanted])
        weight = batch.weight[:, 1:][wanted]
        return (F.cross_entropy(logits, batch.ids[:, 1:][wanted], reduction="none") * weight).sum() / weight.sum()


def world_tokenizer() -> Tokenizer:
    """The tokenizer of the backbones: every word of the world, and the special tokens of all models."""
    return Tokenizer(world.vocabulary())


def encode(tokenizer: Tokenizer, text: Reading, told: float, context: int) -> tuple[list[int], list[float]]:
    """Ids of `<bos> text <eos>`, and the weight of each: 1 for answers (with their full stop), `told` for the rest."""
    ids = [tokenizer.bos, *tokenizer.encode(text.told)]
    weights = [0.0] + [told] * (len(ids) - 1)
    for question, answer in text.turns:
        asked = tokenizer.encode(question if question.startswith("<") else f" {question}", after=ids)
        said = tokenizer.encode(f" {answer}.", after=[*ids, *asked])
        if len(ids) + len(asked) + len(said) >= context:
            break
        ids += asked + said
        weights += [told] * len(asked) + [1.0] * len(said)
    return [*ids, tokenizer.eos][:context], [*weights, told][:context]


def padded(tokenizer: Tokenizer, rows: Sequence[tuple[list[int], list[float]]]) -> Weighted:
    """Rows of ids and weights as one batch, padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    return Weighted(
        torch.tensor([ids + [tokenizer.pad] * (longest - len(ids)) for ids, _ in rows]),
        torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in rows]),
    )


def block(tokenizer: Tokenizer, recipe: LanguageRecipe, number: int) -> list[Weighted]:
    """`BLOCK` batches: texts of like length together, the batches in random order."""
    texts = read("language", recipe.seed, number, BLOCK * recipe.batch)
    rows = sorted((encode(tokenizer, text, recipe.told, recipe.context) for text in texts), key=lambda row: len(row[0]))
    order = np.random.default_rng([recipe.seed, number]).permutation(BLOCK).tolist()
    return [padded(tokenizer, rows[i * recipe.batch : (i + 1) * recipe.batch]) for i in order]


@torch.no_grad()
def accuracy(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[Reading], batch: int = 100) -> list[list[bool]]:
    """For each text, which of its turns the model answers right, word for word, when it is given all that comes before."""
    right = []
    context = model.config.context
    for start in range(0, len(texts), batch):
        rows = [encode(tokenizer, text, 0.0, context) for text in texts[start : start + batch]]
        ids = padded(tokenizer, rows).ids
        hit = torch.zeros_like(ids, dtype=torch.bool)
        hit[:, 1:] = model(ids[:, :-1]).argmax(-1) == ids[:, 1:]
        for (_, weights), row in zip(rows, hit.tolist(), strict=True):
            turns, inside = [], False
            for weight, good in zip(weights, row, strict=False):
                if weight and not inside:
                    turns.append(True)
                inside = bool(weight)
                if inside:
                    turns[-1] = turns[-1] and good
            right.append(turns)
    return right


def metrics(model: Decoder, tokenizer: Tokenizer, n: int = 600, name: str = "language test") -> dict[str, float]:
    """Accuracy from text alone on the frozen evaluation sets, as a whole and by kind (`task / kind`), on boxes to be copied,
    and on scenes with one, two and three objects (`scene 3`, `scene colour 3`), whose questions come as they are drawn.
    """
    found: dict[str, list[bool]] = defaultdict(list)
    for task in FROZEN:
        rows = frozen.load(task).rows
        answers = [row.thought[:-1] if hasattr(row, "thought") else row.answer for row in rows]  # the way is asked for, too
        texts = [Reading(row.kind, row.told, ((row.question, a),)) for row, a in zip(rows, answers, strict=True)]
        for row, turns in zip(rows, accuracy(model, tokenizer, texts), strict=True):
            found[task] += turns
            found[f"{task} / {row.kind}"] += turns
    for turns in accuracy(model, tokenizer, read(name, 0, 0, max(20, n // 4), kinds=["box"])):
        found["boxes"] += turns
    shares = {kind: sum(right) / len(right) for kind, right in found.items()}
    return shares | scene_metrics(model, tokenizer, n, name)


def scene_metrics(model: Decoder, tokenizer: Tokenizer, n: int, name: str) -> dict[str, float]:
    """The part of `metrics` about scenes, which leaves the evaluation sets alone: for watching a training."""
    found: dict[str, list[bool]] = defaultdict(list)
    for objects in (1, 2, 3):
        asked = scene_questions(world.generator(f"{name} scenes", objects), n, objects)
        for (kind, _), turns in zip(asked, accuracy(model, tokenizer, [text for _, text in asked]), strict=True):
            found[f"scene {kind} {objects}"] += turns
            found[f"scene {objects}"] += turns
    return {kind: sum(right) / len(right) for kind, right in found.items()}
