"""Sounds are the same signal at every rate, and an ear that knows only the tones' frequencies reads them back."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import sounds as s
from minivlm.world.questions import Question

TEXTS = st.from_regex("[a-z]{1,5}( [a-z]{1,4})?", fullmatch=True)


def reads(wave: np.ndarray, rate: int, onsets: list[float], held: list[float]) -> str:
    """The highest peak of the spectrum in each symbol's time, as a letter; a space where it is as good as silent."""
    heard = ""
    for onset, seconds in zip(onsets, held, strict=True):
        part = wave[round(onset * rate) : round((onset + seconds) * rate)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 4 * rate)) / len(part)
        peak = spectrum.argmax() / 4
        letter = 12 * np.log2(peak / 440) if peak else -1
        heard += s.LETTERS[round(letter)] if spectrum.max() > 0.02 and -0.5 < letter < 25.5 else " "
    return heard


def ear(sounds: s.Sounds, rate: int, **options) -> list[str]:
    waves = s.waveform(sounds, rate, **options).double().numpy()
    onsets, read = sounds.onsets().tolist(), []
    for wave, begin, held, there in zip(
        waves, onsets, sounds.duration.tolist(), sounds.present.sum(1).tolist(), strict=True
    ):
        read.append(reads(wave, rate, begin[:there], held[:there]))
    return read


@settings(deadline=None, max_examples=20)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4), seed=st.integers(0, 2**32), rate=st.sampled_from([3801, 4000, 16000])
)
def test_an_independent_ear_reads_the_text(texts, seed, rate):
    sounds = s.draw_sounds(world.generator("ear", seed), texts, snr=(15, 30))
    assert ear(sounds, rate) == texts
    assert sounds.texts() == texts


def test_the_ear_fails_in_a_storm():
    texts = s.draw_texts(world.generator("storm"), 40, "random")
    sounds = s.draw_sounds(world.generator("storm"), texts, snr=-40)
    right = [
        a == b for read, text in zip(ear(sounds, 4000), texts, strict=True) for a, b in zip(read, text, strict=True)
    ]
    assert np.mean(right) < 0.15, "noise a hundred times as strong as the tones does not hide them"
    assert ear(sounds, 4000, noise=False) == texts


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), rate=st.integers(3801, 5000), times=st.integers(2, 4))
def test_rates_agree_where_their_times_do(seed, rate, times):
    """With noise: it is a signal, too."""
    sounds = s.draw_sounds(world.generator("rates", seed), ["ring", "hi you"], snr=0)
    slow, fast = s.waveform(sounds, rate), s.waveform(sounds, rate * times)[:, ::times]
    length = int(sounds.lengths(rate).min()) - 1
    assert torch.allclose(slow[:, :length], fast[:, :length], atol=1e-5), "same time, other pressure"


@pytest.mark.parametrize("rate", [4000, 16000])
@pytest.mark.parametrize("snr", [-10, 0, 20])
def test_noise_is_as_strong_as_it_says_at_every_rate(rate, snr):
    sounds = s.draw_sounds(world.generator("power"), ["abcdefghijkl"] * 8, snr=snr, held=1, gaps=0)
    noise = (s.waveform(sounds, rate) - s.waveform(sounds, rate, noise=False)).double()
    power = noise.square().mean(1)
    decibels = 10 * torch.log10(sounds.amplitude.double().square() / 2 / power)
    assert decibels.tolist() == pytest.approx([snr] * 8, abs=0.5)
    share = torch.fft.rfft(noise).abs().square()
    band = torch.arange(share.shape[1]) / noise.shape[1] * rate
    quarters = [share[:, (band >= low) & (band < low + 475)].sum() for low in (0, 475, 950, 1425)]
    assert max(quarters) < 1.1 * min(quarters), "the noise is not white within its band"
    assert share[:, band > 1910].sum() < 0.01 * share.sum(), "noise above its band: a higher rate would change it"


def test_a_sound_is_the_same_alone_and_in_any_batch():
    sounds = s.draw_sounds(world.generator("batch"), ["red", "purple moon", "a"], snr=5)
    together = s.waveform(sounds, 4000)
    for i, length in enumerate(sounds.lengths(4000).tolist()):
        assert torch.allclose(s.waveform(sounds[i], 4000)[0], together[i, :length], atol=1e-6)
        assert (together[i, length:] == 0).all(), "shorter sounds are filled up with silence"
    assert together.shape[1] == sounds.lengths(4000).max()
    assert not torch.equal(together, s.waveform(s.draw_sounds(world.generator("other"), sounds.texts()), 4000))


def test_nothing_clicks():
    """A click is high: all that lies above the tones is far below them, and the sound begins and ends in silence."""
    sounds = s.draw_sounds(world.generator("click"), ["zzzzzz"] * 4, snr=None, gaps=0, loudness=1)
    wave = s.waveform(sounds, 16000).double()
    steps = wave.diff(dim=1).abs().max()
    assert steps < 1.05 * 2 * np.pi * s.FREQUENCIES[-1] / 16000, "the signal jumps"
    share = torch.fft.rfft(wave).abs().square()
    band = torch.arange(share.shape[1]) / wave.shape[1] * 16000
    assert share[:, band > 2500].sum() < 1e-5 * share.sum(), "edges splash into high frequencies"


def test_timing_is_what_is_stored():
    sounds = s.draw_sounds(world.generator("time"), ["abc"], held=0.2, gaps=0.1, snr=None)
    assert sounds.onsets()[0].tolist() == pytest.approx([0.1, 0.4, 0.7])
    assert float(sounds.seconds()) == pytest.approx(0.9)
    loud = s.waveform(sounds, 4000)[0].abs().view(9, 400).amax(1)
    assert (loud > 0.1).tolist() == [False, True, True] * 3, "tones and gaps are not where they should be"


def answer_from(question: Question) -> str:
    """What somebody answers who has only read."""
    tones = re.search("the tones are (.*)[.]", question.told)[1]
    text = tones.replace(", ", "|").replace(" ", "").replace("|", " ")
    if question.kind == "hear":
        return "yes" if text in question.told.split(".")[0] else "no"
    many = ("zero", "one", "two", "three", "four", "five", "six")
    return {"spell": lambda: text, "letters": lambda: tones, "tones": lambda: many[len(text.replace(" ", ""))]}[
        question.kind
    ]()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["spell", "letters", "tones"]))
def test_questions_can_be_answered_by_reading_and_by_listening(seed, kind):
    rng = world.generator("ask", seed)
    texts = (
        s.draw_texts(rng, 3, "random")
        if kind == "tones"
        else s.draw_texts(rng, 1, "word") + s.draw_texts(rng, 2, "pair")
    )
    sounds = s.draw_sounds(rng, texts, snr=(15, 20))
    for question, heard in zip(s.ask(sounds, kind), ear(sounds, 4000), strict=True):
        assert answer_from(question) == question.answer, f"{question} cannot be answered by reading"
        assert s.told(heard) == question.told, f"{question}: the ear hears {heard!r}"


@pytest.mark.parametrize("kind", ["word", "pair", "sentence", "random"])
def test_texts_use_known_words_and_no_held_out_pair(kind):
    texts = s.draw_texts(world.generator("texts"), 3000, kind)
    sounds = s.draw_sounds(world.generator("texts"), texts)
    asked = [q for k in ("spell", "letters", "tones") for q in s.ask(sounds, k) if (kind, k) != ("random", "spell")]
    words = set(re.findall("[a-z]+", " ".join(" ".join(q[1:]) for q in asked)))
    assert words <= {*s.WORDS, *world.COLOURS, *world.SHAPES}, "a text uses a word that WORDS lacks"
    for c, p in world.HELD_OUT if kind in ("pair", "sentence") else ():
        assert not any(world.pair_name(c, p) in text for text in texts), "a held-out pair is spelled in training"
    lengths = Counter(map(len, texts))
    if kind == "random":
        assert set(lengths) == set(range(1, 7))
        assert max(lengths.values()) < 1.3 * min(lengths.values()), "numbers of tones are not even"


def test_hearing_and_seeing():
    n = 6000
    scenes = world.draw_scenes(world.generator("hear"), n, (1, 3))
    sounds, asked = s.hear(world.generator("hear"), scenes, snr=None)
    assert 0.47 < np.mean([q.answer == "yes" for q in asked]) < 0.53, "yes and no are not even"
    blind = defaultdict(Counter)
    for i, (text, question) in enumerate(zip(sounds.texts(), asked, strict=True)):
        colour, shape = text.split()
        there = scenes.present[i]
        colours = [list(world.COLOURS)[c] for c in scenes.colour[i][there]]
        shapes = [world.SHAPES[c] for c in scenes.shape[i][there]]
        shown = (colour, shape) in zip(colours, shapes, strict=True)
        assert question.answer == ("yes" if shown else "no"), f"{text!r} heard; the picture shows {colours}, {shapes}"
        assert answer_from(question) == question.answer
        assert colour in colours or shape in shapes, "a no that needs no look: nothing of it is in the picture"
        blind[text][question.answer] += 1
    assert set(blind) == {world.pair_name(*pair) for pair in world.SEEN}
    level = sum(max(counts.values()) for counts in blind.values()) / n
    assert level < 0.56, f"the sound alone gives the answer away: {level:.3f}"
    assert ear(sounds[:3], 4000) == sounds.texts()[:3]


def test_parts_and_joins():
    sounds = s.draw_sounds(world.generator("join"), ["red", "blue", "pink"])
    assert sounds[1].texts() == sounds[torch.tensor([1])].texts() == ["blue"]
    assert s.Sounds.join([sounds[:1], sounds[1:]]).texts() == sounds.texts()
    with pytest.raises(ValueError, match="differ in length alone"):
        s.Sounds.join([sounds, s.draw_sounds(world.generator("join"), ["orange"])])


@pytest.mark.parametrize("rate", [0, -1, 3800, 16000.0, True, "8k"])
def test_impossible_rates_say_the_least_that_works(rate):
    sounds = s.draw_sounds(world.generator("x"), ["red"])
    for request in (sounds.lengths, lambda rate: s.waveform(sounds, rate)):
        with pytest.raises(ValueError, match="3801 or more"):
            request(rate)
    assert s.LEAST_RATE == 3801 > 2 * max(s.FREQUENCIES)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(texts=[]), "at least one text"),
        (dict(texts=["Red"]), "'Red'"),
        (dict(texts=["red  star"]), "single spaces"),
        (dict(texts=[""]), "letters a to z"),
        (dict(texts=[3]), "letters a to z"),
        (dict(texts="red", held=0.001), "held"),
        (dict(texts="red", held=(0.3, 0.2)), "held"),
        (dict(texts="red", gaps=-1), "gaps"),
        (dict(texts="red", snr="loud"), "snr"),
        (dict(texts="red", snr=float("nan")), "snr"),
        (dict(texts="red", loudness=0), "loudness"),
        (dict(texts="red", slots=2), "slots=2"),
    ],
)
def test_impossible_sounds_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        s.draw_sounds(world.generator("bad"), **request_)


def test_other_nonsense_says_why():
    rng = world.generator("bad")
    for request, words in (
        (lambda: s.draw_texts(rng, 0, "word"), "at least one text"),
        (lambda: s.draw_texts(rng, 1, "song"), "song"),
        (lambda: s.draw_texts(rng, 1, "pair", pairs=[]), "a pair"),
        (lambda: s.ask(s.draw_sounds(rng, "red"), "smell"), "smell"),
        (lambda: s.hear(rng, world.draw_scenes(rng, 50, (1, 1), pairs=[(0, 1)]), pairs=[(0, 1)]), "none is left"),
    ):
        with pytest.raises(ValueError, match=words):
            request()
