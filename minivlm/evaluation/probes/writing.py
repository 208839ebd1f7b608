"""Does a model write what it would have predicted, and does its memory of keys and values change nothing?"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from minivlm.evaluation.probes.compare import TOLERANCE, same
from minivlm.evaluation.probes.rows import Row, image_id, logits, padded, probe, rows, starts, told

#: Tokens that are added to a cache at once, between the first half and the single ones.
FEW = 3


@probe
def teacher_forcing(model: nn.Module, batch: Any, tokens: int = 6) -> float:
    """`generate` writes the likeliest token at each step: the one that `forward` gives the highest score when it reads what
    was written. Returns by how much a written token's score is below the highest, at most.

    The prompts are the texts up to their last answer, in a batch and then each alone. A model with small weights, as at its
    start, writes nearly the same whatever it reads: little shows in it.

    Raises:
        AssertionError: another token has a higher score.
    """
    prompts = [_prompt(model, row) for row in rows(model, batch)]
    return max(_forced(model, some, who, tokens) for who, some in _together_and_alone(prompts))


def _forced(model: nn.Module, prompts: Sequence[Row], who: str, tokens: int) -> float:
    ids, keep, images = padded(model, prompts, left=True)
    written = model.generate(ids, images, keep, max_new_tokens=tokens, **told(prompts))
    assert written.shape == (len(prompts), tokens), (
        f"generate was asked for {tokens} tokens for each of {len(prompts)} prompts; it returned shape {tuple(written.shape)}."
    )
    said = []
    for new in written:  # a token that keeps a place for an image cannot be read back: there is no image for it
        stop = (new == image_id(model)).nonzero() if image_id(model) is not None else []
        said.append(new[: int(stop[0]) + 1] if len(stop) else new)
    forced = [row._replace(ids=torch.cat([row.ids, new[:-1]])) for row, new in zip(prompts, said, strict=True)]
    worst = 0.0
    for number, (scores, new) in enumerate(zip(logits(model, forced, left=True), said, strict=True)):
        scores = scores[-len(new) :]
        below = (scores.max(-1).values - scores.gather(1, new[:, None])[:, 0]) / scores.abs().max()
        step = int(below.argmax())
        assert float(below.max()) <= TOLERANCE[scores.dtype], (
            f"{who.format(number)}: token {step} written is {int(new[step])}; reading the same text, forward likes"
            f" {int(scores[step].argmax())} best, by {float(below.max()):.1e} of the largest score."
        )
        worst = max(worst, float(below.max()))
    return worst


def _together_and_alone(these: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """All rows as one batch, then each as its own, which needs no `keep`; and what to call a row of it in a message."""
    return [("row {}", these)] + [(f"row {i}, alone", [row]) for i, row in enumerate(these)]


def _prompt(model: nn.Module, row: Row) -> Row:
    """A row up to its last answer, with the images that stand in this part."""
    learned = (row.labels != -100).tolist()
    first = len(learned)
    while first and not learned[first - 1]:  # what comes after the answer
        first -= 1
    while first and learned[first - 1]:
        first -= 1
    end = first or (1 if any(learned) else len(learned))
    seen = sum(start < end for start in starts(model, row))
    return Row(row.ids[:end], row.labels[:end], row.images[:seen], row.asked and row.asked[:seen])


@probe
def cache(model: nn.Module, batch: Any) -> float:
    """The language model reads half of each text, then a few tokens, then one at a time, remembering keys and values: the same
    scores as when it reads all at once. So it is in a batch, and for each text alone.

    Raises:
        AssertionError: they differ.
    """
    return max(_remembered(model, some, who) for who, some in _together_and_alone(rows(model, batch)))


def _remembered(model: nn.Module, these: Sequence[Row], who: str) -> float:
    ids, keep, images = padded(model, these, left=True)
    embeddings, language, length = model.embed(ids, images, **told(these)), model.language, ids.shape[1]
    hides = not keep.all()  # one text alone is read without `keep`, as `generate` does
    whole = language(embeddings=embeddings, keep=keep if hides else None)
    half = max(1, length // 2)
    memory, past, parts = language.new_cache(length), 0, []
    for end in sorted({half, *range(min(half + FEW, length), length + 1)}):
        now = keep[:, :end] if hides else None
        parts.append(language(embeddings=embeddings[:, past:end], keep=now, cache=memory))
        past = end
    which = "the batch" if len(these) > 1 else who.format(0)
    text = f"{which}: with a cache of keys and values the scores are others than without"
    return same(torch.cat(parts, dim=1)[keep], whole[keep], text)
