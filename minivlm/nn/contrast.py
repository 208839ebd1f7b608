"""Contrast with a long memory (ALBEF, Li et al. 2021, section 3.2): the right partner
is looked for among the last thousands, and other partners may be right too.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.nn.momentum import Queue


@dataclass(frozen=True)
class Momentum:
    """Settings of `MomentumContrast` (BLIP's official code, pretrain.yaml)."""

    queue: int = 57600  # pairs remembered
    rate: float = 0.995  # of the copy's numbers that stays at each step
    alpha: float = 0.4  # share of its opinion in the targets, in the end
    ramp: int = 1  # steps in which alpha rises from 0 to that

    def __post_init__(self) -> None:
        whole = self.queue >= 1 and self.ramp >= 1
        if not whole or not (0 <= self.rate <= 1 and 0 <= self.alpha <= 1):
            raise ValueError(
                "queue and ramp must be at least 1, rate and alpha between 0 and 1;"
                f" got {self}."
            )


def ramped(step: Int[Tensor, ""], alpha: float, ramp: int) -> Float[Tensor, ""]:
    """From 0 to `alpha` in a straight line, in `ramp` steps: a copy of a model that has
    learned nothing has no opinion worth learning.
    """
    return alpha * (step / ramp).clamp(max=1)


def soft_labels(
    similarity: Float[Tensor, "b n"], alpha: float | Float[Tensor, ""]
) -> Float[Tensor, "b n"]:
    """Which of n belongs to row i? Its own partner, number i, of course; but others may
    fit it too, so `alpha` of the label goes where the slow copy sees likeness.
    """
    own = torch.eye(*similarity.shape, device=similarity.device)
    return alpha * similarity.softmax(dim=1) + (1 - alpha) * own


def hard_negatives(
    similarity: Float[Tensor, "b b"],
    positive: Bool[Tensor, "b b"],
    generator: torch.Generator | None = None,
) -> Int[Tensor, "b"]:
    """One wrong partner for each row, drawn: the more alike, the likelier. `positive`
    are never drawn.

    Raises:
        ValueError: a row has no wrong partner.
    """
    if (alone := positive.all(dim=1)).any():
        raise ValueError(
            f"row {int(alone.int().argmax())} has no wrong partner in this batch of"
            f" {len(positive)}: all are right ones. Take a larger batch, or one with"
            " different texts."
        )
    weights = (similarity.softmax(dim=1) + 1e-4).masked_fill(positive, 0.0)
    return torch.multinomial(weights, 1, generator=generator)[:, 0]


class MomentumContrast(nn.Module):
    """Two kinds of things (images and texts, say) that belong together pair by pair.
    What the model makes of each is compared with what a slow copy of it makes of all of
    the other kind: this batch's and those remembered.

    Args:
        settings: see `Momentum`.
        width: of a feature.
        temperature: at the start; it is learned.
    """

    def __init__(self, settings: Momentum, width: int, temperature: float) -> None:
        super().__init__()
        self.settings = settings
        self.temperature = nn.Parameter(torch.tensor(temperature))
        self.queue_a = Queue(settings.queue, width)
        self.queue_b = Queue(settings.queue, width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._new: tuple[Tensor, Tensor] | None = None  # to be queued after the step

    def forward(
        self,
        a: Float[Tensor, "b e"],
        b: Float[Tensor, "b e"],
        slow_a: Float[Tensor, "b e"],
        slow_b: Float[Tensor, "b e"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b b"], Float[Tensor, "b b"]]:
        """The loss; and how alike are a number i and b number j, b number i and a
        number j. Unit vectors, row by row of one pair; `slow_` are the copy's.
        """
        self._new = slow_a.detach(), slow_b.detach()
        all_a = torch.cat([self._new[0], self.queue_a.features])
        all_b = torch.cat([self._new[1], self.queue_b.features])
        alpha = ramped(self.steps, self.settings.alpha, self.settings.ramp)
        loss, alike = 0.0, []
        for fast, slow, others in ((a, slow_a, all_b), (b, slow_b, all_a)):
            with torch.no_grad():
                labels = soft_labels(slow @ others.T / self.temperature, alpha)
            logits = fast @ others.T / self.temperature
            loss = loss + F.cross_entropy(logits, labels) / 2
            alike.append(logits[:, : len(fast)].detach())
        return loss, *alike

    @torch.no_grad()
    def after_step(self) -> None:
        """Remember what the loss was last computed from, and keep the temperature in
        its bounds.
        """
        self.temperature.clamp_(0.001, 0.5)
        self.steps += 1
        if self._new is not None:
            self.queue_a.push(self._new[0])
            self.queue_b.push(self._new[1])
            self._new = None
