"""Texts as sounds, and questions about what is heard, also together with a picture."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from minivlm.world.grammar import NUMBERS, article, listed, number
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.questions import Question
from minivlm.world.scenes import Scenes, things
from minivlm.world.splits import SEEN, pair_name
from minivlm.world.tones import FREQUENCIES, LEAST_RATE, LETTERS, SYMBOLS, Sounds, waveform

#: Seconds that a tone is held, and of silence before each; decibels from noise to tone. Drawn evenly in between.
HELD, GAPS, SNR = (0.12, 0.24), (0.04, 0.08), (0.0, 20.0)

#: How loud: the amplitude of the tones.
LOUDNESS = (0.2, 0.5)

#: Single words of the world that are spelled.
SPELLED: tuple[str, ...] = (*COLOURS, *SHAPES)

#: Most tones that are counted, and of which a random string is made.
MOST = 6

#: Kind of question -> probability of a guess among all its answers: of single words to `spell`, of random `letters`.
CHANCE: dict[str, float] = {
    "spell": 1 / len(SPELLED),
    "letters": 1 / sum(len(LETTERS) ** n for n in range(1, MOST + 1)),
    "tones": 1 / MOST,
    "hear": 1 / 2,
}

WORDS = (
    *"a an and what which how many is are the spelled letters tones heard thing you hear in picture shows yes no".split(),
    *LETTERS,
    *NUMBERS,
)


def draw_sounds(
    rng: np.random.Generator,
    texts: Iterable[Any],
    held: Any = HELD,
    gaps: Any = GAPS,
    snr: Any = SNR,
    loudness: Any = LOUDNESS,
    slots: int | None = None,
) -> Sounds:
    """Sound texts: letters become tones, spaces silence. Everything else about a sound is drawn, evenly between two ends.

    Args:
        texts: of the letters a to z and single spaces between them; each makes one sound.
        held: least and most seconds of a symbol; at least 0.03, or it would be all swelling and fading.
        gaps: least and most seconds of silence before a symbol.
        snr: least and most decibels of a tone over the noise; `None` for no noise.
        loudness: least and most amplitude.
        slots: number of columns, for joining batches (default: the longest text's letters).

    Raises:
        ValueError: no texts, a text that cannot be sounded, a pair that is none; the message says which.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise ValueError("draw_sounds needs at least one text; got none.")
    for text in texts:
        if not isinstance(text, str) or not re.fullmatch("[a-z]+( [a-z]+)*", text):
            raise ValueError(
                f"a text to sound is made of the letters a to z, with single spaces between; got {text!r}."
            )
    held, gaps = _pair("held", held, 0.03), _pair("gaps", gaps, 0.0)
    loudness = _pair("loudness", loudness, 1e-6)
    n, most = len(texts), max(map(len, texts))
    slots = most if slots is None else slots
    if slots < most:
        raise ValueError(f"slots={slots} is fewer than the {most} symbols of the longest text.")
    symbol = np.asarray([[SYMBOLS.index(s) for s in text.ljust(slots)] for text in texts], np.int64)
    present = np.arange(slots) < np.asarray([[len(text)] for text in texts])
    duration = np.zeros((2, n, slots))
    duration[0, :, :most], duration[1, :, :most] = rng.uniform(*held, (n, most)), rng.uniform(*gaps, (n, most))
    duration = torch.from_numpy((duration * present).astype(np.float32))
    decibels = np.full(n, np.inf) if snr is None else rng.uniform(*_pair("snr", snr, -200.0), n)
    return Sounds(
        symbol=torch.from_numpy(symbol * present),
        duration=duration[0],
        gap=duration[1],
        present=torch.from_numpy(present),
        amplitude=torch.from_numpy(rng.uniform(*loudness, n).astype(np.float32)),
        snr=torch.from_numpy(decibels.astype(np.float32)),
        seed=torch.from_numpy(rng.integers(2**31, size=n)),
    )


def _pair(name: str, value: Any, least: float) -> tuple[float, float]:
    value = (value, value) if isinstance(value, int | float) else value
    if not (isinstance(value, Sequence) and len(value) == 2 and all(isinstance(v, int | float) for v in value)):
        raise ValueError(f"{name} is a number, or a pair of them (least, most); got {value!r}.")
    if not least <= value[0] <= value[1] < float("inf"):
        raise ValueError(f"{name}=(least, most) must satisfy {least:g} <= least <= most; got {value}.")
    return float(value[0]), float(value[1])


def draw_texts(rng: np.random.Generator, n: int, kind: str, pairs: Iterable[tuple[int, int]] = SEEN) -> list[str]:
    """Draw `n` texts to sound: `word` (a colour or a shape), `pair` (a colour and a shape, from `pairs`), `sentence` (two
    such things) or `random` (1 to `MOST` letters, each number of them as likely).

    Raises:
        ValueError: no texts, no pairs, or a kind that does not exist.
    """
    pairs = [tuple(pair) for pair in pairs]
    if n < 1 or not pairs or kind not in ("word", "pair", "sentence", "random"):
        raise ValueError(
            "draw_texts needs at least one text, a pair, and a kind out of word, pair, sentence and random;"
            f" got n={n}, {len(pairs)} pairs and kind={kind!r}."
        )
    if kind == "word":
        return [SPELLED[i] for i in rng.integers(len(SPELLED), size=n)]
    if kind == "random":
        letters, many = rng.integers(len(LETTERS), size=(n, MOST)).tolist(), rng.integers(1, MOST + 1, n).tolist()
        return ["".join(LETTERS[i] for i in row[:m]) for row, m in zip(letters, many, strict=True)]
    drawn = rng.integers(len(pairs), size=(n, 1 if kind == "pair" else 2))
    return [" and ".join(article(pair_name(*pairs[i])) if kind == "sentence" else pair_name(*pairs[i]) for i in row)
            for row in drawn]  # fmt: skip


def ask(sounds: Sounds, kind: str) -> list[Question]:
    """One question of that kind about each sound: `spell` (the words), `letters` (one by one) or `tones` (how many).

    Raises:
        ValueError: an unknown kind, or more tones than there are words for.
    """
    if kind not in ("spell", "letters", "tones"):
        raise ValueError(f"kind is spell, letters or tones (for hear, see `hear`); got {kind!r}.")
    asked = []
    for text in sounds.texts():
        if kind == "spell":
            question, answer = "what is spelled?", text
        elif kind == "letters":
            question, answer = "which letters are heard?", letters(text)
        else:
            question, answer = "how many tones are heard?", number(len(text.replace(" ", "")))
        asked.append(Question(kind, told(text), question, answer))
    return asked


def letters(text: str) -> str:
    """A transcript: letters with spaces between, and commas between words. `r e d, s t a r`."""
    return ", ".join(" ".join(word) for word in text.split(" "))


def told(text: str) -> str:
    """What is heard, in words: `the tones are r e d.`"""
    return f"the tones are {letters(text)}."


def hear(
    rng: np.random.Generator, scenes: Scenes, pairs: Iterable[tuple[int, int]] = SEEN, **options: Any
) -> tuple[Sounds, list[Question]]:
    """A sound for each picture, the name of a thing such as `red star`, and whether the picture shows it: yes or no evenly.

    What is heard and not there shares its colour or its shape with something that is. `options` are those of `draw_sounds`.

    Args:
        pairs: (colour index, shape index) that may be heard where they are not there; those the scenes were drawn from.

    Raises:
        ValueError: a scene without things, or with all `pairs` in it.
    """
    pairs = [tuple(pair) for pair in pairs]
    yes, choice = rng.random(len(scenes)) < 0.5, rng.random((len(scenes), 2))
    palette, heard, shown = list(COLOURS), [], []
    for i, these in enumerate(things(scenes)):
        there = [(palette.index(thing.colour), SHAPES.index(thing.shape)) for thing in these]
        if not there:
            raise ValueError(f"scene {i} shows nothing: there is nothing to hear about.")
        pair = there[int(choice[i, 0] * len(there))]
        if not yes[i]:
            absent = [other for other in pairs if other not in there]
            near = [other for other in absent if (other[0] == pair[0]) != (other[1] == pair[1])] or absent
            if not near:
                raise ValueError(
                    f"scene {i} shows all the pairs that may be heard: none is left for a `no`; got {pairs}."
                )
            pair = near[int(choice[i, 1] * len(near))]
        heard.append(pair_name(*pair))
        order = sorted(article(pair_name(*other)) for other in there)
        shown.append(f"the picture shows {listed(order)}.")
    rows = zip(heard, shown, yes.tolist(), strict=True)
    question = "is the thing you hear in the picture?"
    asked = [
        Question("hear", f"{seen} {told(text)}", question, "yes" if answer else "no") for text, seen, answer in rows
    ]
    return draw_sounds(rng, heard, **options), asked


__all__ = [
    "CHANCE", "FREQUENCIES", "LEAST_RATE", "LETTERS", "SYMBOLS", "WORDS", "Sounds", "ask", "draw_sounds", "draw_texts", "hear",
    "waveform",
]  # fmt: skip
