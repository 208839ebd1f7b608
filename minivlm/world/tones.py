"""Letters as tones, a known signal at every moment: hence at any sampling rate, with noise that is the same at each.

A letter is a tone of its own, one semitone above the letter before it; a space is silence. A tone swells and fades, so that
nothing clicks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minivlm.world.batch import Batch

#: What can be sounded: a symbol is its place here. The last is silence.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SYMBOLS = LETTERS + " "

#: Hertz of each letter: `a` is the concert pitch A.
FREQUENCIES: tuple[float, ...] = tuple(440 * 2 ** (k / 12) for k in range(len(LETTERS)))

#: Noise holds all frequencies up to here, evenly: those of all the tones, and a little more.
BAND = 1900

#: The least rate in samples a second: more than two a period of whatever sounds. Lower ones would fold high tones down.
LEAST_RATE = 2 * BAND + 1

#: Seconds in which a tone swells, and in which it fades: half a cosine.
EDGE = 0.01


@dataclass(frozen=True)
class Sounds(Batch):
    """`b` sounds of up to `s` symbols, one after the other: a gap, the symbol, the next gap ... Absent ones hold zeros.

    `snr` is in decibels: the power of a tone (at full swing) over that of the noise; infinite for no noise.
    """

    symbol: Int[Tensor, "b s"]  # index into SYMBOLS
    duration: Float[Tensor, "b s"]  # seconds
    gap: Float[Tensor, "b s"]  # seconds of silence before the symbol
    present: Bool[Tensor, "b s"]
    amplitude: Float[Tensor, "b"]  # of the tones
    snr: Float[Tensor, "b"]
    seed: Int[Tensor, "b"]  # of the noise

    def onsets(self) -> Float[Tensor, "b s"]:
        """Seconds at which each symbol begins; an absent one, where the sound ends."""
        through = (self.gap.double() + self.duration.double()).cumsum(1)
        return through - self.duration.double()

    def seconds(self) -> Float[Tensor, "b"]:
        """How long each sound is: it ends with its last symbol."""
        return (self.gap.double() + self.duration.double()).sum(1)

    def lengths(self, rate: Any) -> Int[Tensor, "b"]:
        """Samples of each sound at `rate`; `waveform` fills up the shorter ones of a batch with zeros."""
        return (self.seconds() * _checked(rate) - 1e-3).ceil().long()

    def texts(self) -> list[str]:
        """What is sounded: `red star`."""
        rows = zip(self.symbol.tolist(), self.present.tolist(), strict=True)
        return ["".join(SYMBOLS[s] for s, there in zip(*row, strict=True) if there) for row in rows]


def waveform(
    sounds: Sounds, rate: Any, noise: bool = True, device: str | torch.device = "cpu"
) -> Float[Tensor, "b samples"]:
    """The sounds at `rate` samples a second, on `device`: sample k is the signal at k / rate seconds.

    Noise is a signal too, not a number added to each sample: evenly strong from 0 to `BAND` hertz, silent above, drawn by
    numpy from each sound's seed. So two rates agree wherever their times do, and a higher one makes nothing easier.

    Raises:
        ValueError: a rate that is no whole number, or below `LEAST_RATE`.
    """
    lengths = sounds.lengths(rate)
    times = torch.arange(int(lengths.max()), dtype=torch.float64) / rate
    at = times.expand(len(sounds), -1).contiguous()
    onsets = sounds.onsets()
    index = (torch.searchsorted(onsets, at, right=True) - 1).clamp(min=0)  # the last symbol that has begun
    since = at - onsets.gather(1, index)
    left = sounds.duration.double().gather(1, index) - since
    tuned = torch.tensor([*FREQUENCIES, 0.0], dtype=torch.float64)  # silence: sin(0)
    frequency = (tuned[sounds.symbol] * sounds.present).gather(1, index)
    edge = torch.minimum(since, left).clamp(0, EDGE) / EDGE
    swing = sounds.amplitude.double()[:, None] * (0.5 - 0.5 * torch.cos(math.pi * edge))
    wave = swing * torch.sin(math.tau * frequency * since)
    if noise:
        power = sounds.amplitude.double().square() / 2 / 10 ** (sounds.snr.double() / 10)
        whole = sounds.seconds().floor().long() + 1
        columns = (sounds.seed, power.sqrt(), lengths, whole)
        for row, seed, strength, length, seconds in zip(wave, *(column.tolist() for column in columns), strict=True):
            if strength:
                row[:length] += strength * torch.from_numpy(_hiss(seed, seconds, rate)[:length])
    return wave.float().to(device)


def _hiss(seed: int, seconds: int, rate: int) -> np.ndarray:
    """Noise of power 1, the same signal at any rate: a sum of waves, each with a whole number of periods in `seconds`."""
    cosine, sine = np.random.default_rng(seed).normal(size=(2, BAND * seconds))
    spectrum = np.zeros(seconds * rate // 2 + 1, np.complex128)
    spectrum[1 : BAND * seconds + 1] = cosine - 1j * sine
    return np.fft.irfft(spectrum, seconds * rate) * (seconds * rate / 2 / math.sqrt(BAND * seconds))


def _checked(rate: Any) -> int:
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < LEAST_RATE:
        raise ValueError(
            f"rate is a whole number of samples a second, {LEAST_RATE} or more: the tones reach {FREQUENCIES[-1]:.0f} hertz,"
            f" the noise {BAND}, and each needs more than two samples a period; got {rate!r}."
        )
    return rate
