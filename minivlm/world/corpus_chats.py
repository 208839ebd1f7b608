"""More of what the language model reads: conversations, balanced questions, crowded scenes, phrases with boxes, tones."""

import numpy as np

from minivlm.world import asking
from minivlm.world.boxes import CONVENTIONS, boxes, write
from minivlm.world.grammar import full
from minivlm.world.instruct import Instructions
from minivlm.world.questions import Questions, names
from minivlm.world.reading import Reading, any_scenes, single
from minivlm.world.refer import refer
from minivlm.world.scenes import things
from minivlm.world.sounds import ask as ask_sounds
from minivlm.world.sounds import draw_sounds, draw_texts
from minivlm.world.splits import all_pairs

WORDS = ("user", "assistant", "answer", "with", "one", "word", "give", "box")

#: Kinds of questions that are learned last, as often as they are to be asked; kinds about scenes with many things.
HARD = ("relation", "relation", "relation", "beside", "at", "size")
CROWDED = ("colour", "shape", "count", "count of", "existence", "place", "at", "relation")


def instruct(rng: np.random.Generator, n: int) -> list[Reading]:
    """Conversations: `user: a red star ... what colour is the star? assistant: red.<eos>user: ...`"""
    write_one, read = Instructions(rng, pairs=all_pairs()), []
    for these in things(any_scenes(rng, n)):
        dialogue = write_one(these)
        asked = [f"{question} assistant:" for question, _ in dialogue.turns]
        if dialogue.kind == "conversation" and rng.random() < 0.3:
            asked[0] = asked[0].replace(" assistant:", " answer with one word. assistant:")
            if " " in dialogue.turns[0][1]:
                asked[0] = f"{dialogue.turns[0][0]} assistant:"
        asked = [asked[0], *(f"<eos>user: {later}" for later in asked[1:])]
        answers = [answer[:-1] for _, answer in dialogue.turns]
        read.append(Reading("instruct", f"user: {dialogue.told}", tuple(zip(asked, answers, strict=True))))
    return read


def balanced(rng: np.random.Generator, n: int) -> list[Reading]:
    """Questions of every kind with balanced answers, a third of them with the way to the answer; some as a conversation."""
    steps = n // 3
    read = single(asking.ask(rng, n - steps, pairs=all_pairs())[1])
    if steps:
        read += [
            Reading("reason", r.told, ((r.question, r.thought[:-1]),)) for r in asking.reason(rng, steps, pairs=all_pairs())[1]
        ]
    spoken = []
    for text in read:
        if rng.random() < 0.3:
            ((question, answer),) = text.turns
            text = Reading(text.kind, f"user: {text.told}", ((f"{question} assistant:", answer),))
        spoken.append(text)
    return spoken


def hard(rng: np.random.Generator, n: int) -> list[Reading]:
    """Many questions of the kinds that are learned last, about two or three things."""
    ask, read = Questions(rng, HARD, all_pairs()), []
    while len(read) < n:
        for these in things(any_scenes(rng, n - len(read), (2, 3))):
            if asked := ask(these, 8):
                read.append(Reading("hard", asked[0].told, tuple(dict.fromkeys((q.question, q.answer) for q in asked))))
    return read


def crowded(rng: np.random.Generator, n: int) -> list[Reading]:
    """Four to seven small things."""
    asked = asking.ask(rng, n, CROWDED, (4, 7), all_pairs(), sizes=(0.04, 0.1))[1]
    return single(asked)


def pointed(rng: np.random.Generator, n: int) -> list[Reading]:
    """Things with their boxes in one of the surveyed ways to write them, and a phrase whose box is wanted."""
    scenes, how, read = any_scenes(rng, n), list(CONVENTIONS), []
    side = int(rng.integers(8, 17)) * 28
    where, told = boxes(scenes, side, side), things(scenes)
    for phrase in refer(rng, scenes, pairs=all_pairs()):
        these, convention = told[phrase.scene], how[int(rng.random() * len(how))]
        called = [names(these, thing) for thing in these]
        if not all(called):
            continue
        lines = []
        for i, ways in enumerate(called):
            line = write(convention, where[phrase.scene][i : i + 1], side, side, [ways[-1]])
            lines.append(line if ways[-1] in line else f"{ways[-1]} {line}")
        answer = lines[phrase.slot]
        read.append(Reading("refer", f"{full(these)}. {' '.join(lines)}", ((f"give the box of {phrase.phrase}.", answer),)))
    return read


def sound(rng: np.random.Generator, n: int) -> list[Reading]:
    """Tones that spell words."""
    kinds, read = ("spell", "letters", "tones"), []
    for i, kind in enumerate(kinds):
        many = n // 3 + (i < n % 3)
        if many:
            texts = draw_texts(rng, many, ("word", "pair", "random")[int(rng.integers(3))], all_pairs())
            read += single(ask_sounds(draw_sounds(rng, texts), kind))
    return read
