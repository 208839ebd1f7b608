# %% [markdown]
# # Start here
#
# A vision-language model looks at a picture and talks about it. Nobody programs that. Somebody found a way to connect
# something that sees with something that reads, and let it learn. In four years the field found some twenty ways that
# people still remember. In this course you build all of them, from plain PyTorch, small enough to train while the kettle
# boils, and measure what each idea is worth.
#
# **You will be able to**
# - find your way around the course, and run any of its notebooks;
# - play with the toy world that all models learn from;
# - say how text becomes numbers, and get it back without loss.
#
# Ten minutes. Nothing is trained here.

# %%
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from jaxtyping import Int
from torch import Tensor

from minivlm import plots, survey, world
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.specials import FIRST, SPECIALS

plots.use_style()
lesson = Lesson("00a_start_here")
print(lesson)

# %% [markdown]
# The last line is the same in every notebook. `preset` says how much is trained: `cpu` is made for about two minutes on one
# core, `gpu` is larger, `smoke` only checks that everything runs. Set `MINIVLM_PRESET` and `MINIVLM_SEED` to change it.
#
# ## The family
#
# Each model of the course is an answer to one question: *how does what was seen get into what is said?* Lines go from
# parents to children in the parent's colour, lanes are kinds of answers. Filled boxes have a notebook already.

# %% alt="Family tree of the 21 models on a time axis from 2021 to 2025, in six lanes by how vision and language are joined, with lines from parents to children."
plots.genealogy()
plt.show()

# %% [markdown]
# And the same as a list, with the one idea each paper is remembered for:

# %%
Markdown(
    "\n".join(
        [
            "| | model | date | idea |",
            "| --- | --- | --- | --- |",
            *(
                f"| {m.number} | {m.title} | {m.date} | {m.idea} |"
                for m in survey.MODELS
            ),
        ]
    )
)

# %% [markdown]
# ## The world
#
# Real photographs need real computers. Our models grow up in a small world instead: eight shapes in eight colours, drawn
# from a numbered recipe, with sentences that are true of them. It is simple enough to learn in minutes, and rich enough
# that every idea of the course has something to be good at.

# %% alt="Twenty-four pictures with one to three coloured shapes each, with true captions."
rng = world.generator("gallery", seed=7)
scenes = world.draw_scenes(rng, 24)
plots.show_images(
    world.render(scenes, 96), world.Captions(rng)(scenes), size=1.5, columns=6
)
plt.show()

# %% [markdown]
# Change `seed=7` and run it again: another world, and the same one on every computer. A scene is no picture but a list of
# facts, and captions are read off the facts, so they are never wrong:

# %%
print(scenes[0])

# %% [markdown]
# **It is your world as well.** Put things where you like:

# %% alt="A composed picture: a yellow circle above a green triangle, with a small red star in the corner."
mine = world.compose(
    dict(colour="yellow", shape="circle", x=0.5, y=0.3, size=0.18),
    dict(colour="green", shape="triangle", x=0.5, y=0.7, size=0.28),
    dict(colour="red", shape="star", x=0.14, y=0.14, size=0.1),
)
fig, ax = plt.subplots(figsize=(3, 3))
ax.imshow(world.render(mine, 300)[0].permute(1, 2, 0))
ax.axis("off")
plt.show()

# %% [markdown]
# Pictures are drawn from the facts at any size. Detail is really there at 512 pixels, and really gone at 16. Much of this
# course will be about that: how many pixels a model can afford, and what it does not see without them.

# %% alt="The same scene drawn with 16, 32, 128 and 512 pixels, and its top left corner enlarged: at 16 the star there is a blur, at 512 every edge is sharp."
fig, axes = plt.subplots(2, 4, figsize=(9, 4.8))
for (whole, corner), size in zip(axes.T, (16, 32, 128, 512), strict=True):
    image = world.render(mine, size)[0].permute(1, 2, 0)
    whole.imshow(image)
    corner.imshow(image[: size // 4, : size // 4])
    whole.set_title(f"{size} x {size}")
    whole.axis("off")
    corner.axis("off")
axes[1, 0].set_title("the top left corner", loc="left")
plt.show()

# %% [markdown]
# The shape of the picture is free as well: a wide one is wider, its things are not squeezed.

# %% alt="The same scene on a wide canvas, three times as wide as high; the shapes keep their proportions."
fig, ax = plt.subplots(figsize=(9, 3))
ax.imshow(world.render(mine, 160, 480)[0].permute(1, 2, 0))
ax.axis("off")
plt.show()

# %% [markdown]
# ### What else there is
#
# Some ideas of the course need more than shapes. There are **signs to read**, on cards of any size, handwriting of real
# people (the UCI digits), and tables with rows and columns. Every question has one answer, and the answer is known:

# %% alt="A card with signs, a handwritten number and a table, each with a question and its answer below."
from minivlm.world import document_questions, documents, numbers, strings

rng = world.generator("things to read", seed=1)
card = strings.draw_strings(rng, 1, 64, 96, length=(4, 5), size=(18, 22))
number = numbers.draw_numbers(rng, 1, 32, 48, digits=(3, 3), size=(14, 16))
table = documents.draw_documents(rng, 1, rows=(4, 4), columns=(3, 3), styles=("words",))
pictures = [
    strings.render(card, 160, 240)[0],
    numbers.render(number, 160, 240)[0],
    documents.render(table, 160, 240)[0],
]
asked = [
    strings.StringQuestions(rng, ["read"])(card)[0],
    numbers.NumberQuestions(rng, ["digits"])(number)[0],
    document_questions.DocumentQuestions(rng, ["cell"])(table)[0],
]
titles = [f"{q.question} {q.answer}" for q in asked]
plots.show_images(pictures, titles, columns=3, size=3)
plt.show()

# %% [markdown]
# There is **time**: videos, which can be seen at any number of frames a second, and sounds, in which every letter is a tone.

# %% alt="Eight frames of a video in which things move; below it the spectrogram of a spelled word, a step for each letter."
from minivlm.world import motion, sounds, videos

rng = world.generator("time", seed=3)
film, asked = videos.draw_questions(rng, 1, ["direction"])
frames, times = motion.frames(film, rate=1, height=64, width=64)
seconds = [f"second {t:g}" for t in times[0].tolist()]
plots.show_images(frames[0][:8], seconds[:8], columns=8, size=1.1)
plt.show()
print(asked[0].question, asked[0].answer)

heard = sounds.draw_sounds(rng, ["purple star"], snr=(10, 12))
wave = sounds.waveform(heard, rate=8000)[0]
fig, ax = plt.subplots(figsize=(9, 2))
ax.specgram(wave.numpy(), NFFT=512, noverlap=384, Fs=8000, cmap="cividis", vmin=-90)
ax.set(ylim=(300, 2000), xlabel="seconds", ylabel="hertz")
plt.show()
question = sounds.ask(heard, "tones")[0]
print(question.question, question.answer, "|", heard.texts()[0])

# %% [markdown]
# There are **pictures that belong together**: things with invented names, and two pictures to compare. There are **places**
# in a picture, as boxes, and tables on which a robot has something to do.

# %% alt="Two pictures with invented names and a third to be named; two pictures that differ in one thing."
from minivlm.world import boxes, compare, episodes, refer, robot, robot_pictures
from minivlm.world.robot_questions import RobotQuestions
from torchvision.utils import draw_bounding_boxes

rng = world.generator("together", seed=1)
named, (pair, asked) = episodes.draw_episodes(rng, 1), compare.compare(rng, 1)
first, second, last = (x.strip() for x in named.interleaved("|")[0].split("|")[1:])
titles = [first, second, f"{last} {named.answers()[0]}"]
titles += ["first picture", "second picture"]
pictures = [*world.render(named.scenes(), 128)]
pictures += [world.render(scenes, 128)[0] for scenes in (pair.first, pair.second)]
plots.show_images(pictures, titles, columns=5, size=1.7)
plt.show()
print(asked[0].question, asked[0].answer)

# %% alt="A scene with a box around the thing that is meant, and a robot's table with a goal and the plan for it."
scene = world.draw_scenes(rng, 1, (3, 3))
meant = refer.refer(rng, scene)[0]
box = boxes.boxes(scene, 160, 160)[0, meant.slot][None]
image = (world.render(scene, 160)[0] * 255).to(torch.uint8)
boxed = draw_bounding_boxes(image, box, colors="black", width=3) / 255
table = robot.draw_tables(rng, 1)
plan = RobotQuestions(rng, ["plan"])(table)[0]
pictures = [boxed, robot_pictures.render_tables(table, 160, 160)[0]]
plots.show_images(pictures, [meant.phrase, "a robot's table"], columns=2, size=2.2)
plt.show()
print(boxes.write("qwen_vl", box, 160, 160, [meant.phrase]))
print(plan.question, plan.answer, sep="\n")

# %% [markdown]
# All of it, with what guessing gives for each kind of question, is in `docs/world.md`.
#
# ### What is kept back
#
# To see whether a model *understands* or *remembers*, some things must never be shown to it. Of the 64 pairs of colour and
# shape, the outlined ones are in no training picture. Every colour and every shape is seen there; these combinations are not.

# %% alt="The table of eight colours by eight shapes; two shapes in every colour are outlined as held out."
held_out = torch.zeros(8, 8, dtype=torch.bool)
for colour, shape in world.HELD_OUT:
    held_out[colour, shape] = True
every_pair = [
    world.compose(dict(colour=c, shape=s, size=0.36))
    for c in world.COLOURS
    for s in world.SHAPES
]
tiles = world.render(world.Scenes.join(every_pair), 40)
fig, axes = plt.subplots(8, 8, figsize=(7.5, 6.4))
for ax, tile, hidden in zip(axes.flat, tiles, held_out.flatten(), strict=True):
    ax.imshow(tile.permute(1, 2, 0))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=bool(hidden), color="black", linewidth=2.5)
for ax, name in zip(axes[0], world.SHAPES, strict=True):
    ax.set_title(name)
for ax, name in zip(axes[:, 0], world.COLOURS, strict=True):
    ax.set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()
print(f"held out: {len(world.HELD_OUT)} of {len(world.all_pairs())}")

# %% [markdown]
# ## Words become numbers
#
# A model reads numbers. A **tokenizer** cuts text into *tokens* and gives each its place in a list, the vocabulary. Ours
# knows the words of the world, one token each; whatever else you type is spelled out in bytes, so nothing is unreadable.

# %% include="minivlm.language.tokenizer:SPECIAL_IDS, _SPACE, _NEWLINE, Tokenizer"

# %% alt="Two rows of token chips: a known sentence is one chip a word, an unknown word is one chip a letter."
tokenizer = Tokenizer(world.vocabulary())
for text in ("a small red star on the left", "a red zebra, please!"):
    ids = tokenizer.encode(text)
    print(text, "->", ids)
    plots.tokens(tokenizer.pieces(ids))
plt.show()

# %% [markdown]
# Back again it is the same text, whatever it was:

# %%
for text in (
    "a red star",
    "  two  spaces",
    "Zürich, 数字 3.14!",
    "<eos> is a token, \n and so is a new line",
):
    print(
        repr(tokenizer.decode(tokenizer.encode(text))),
        tokenizer.decode(tokenizer.encode(text)) == text,
    )

# %% [markdown]
# Some tokens are no text: `<bos>` begins one, `<eos>` ends it, and `<pad>` fills up a batch of texts of unequal length.
# Each model of the course brings more, `<image>` for the place of a picture most of all. All of them have their numbers
# already, and there is room for others, so that no notebook ever renumbers a word. Only *you* write them: what a stranger
# types may look like one, and `encode(text, specials=False)` keeps it plain text.

# %%
print(FIRST, "and", len(SPECIALS) - len(FIRST), "more, such as", SPECIALS[4:9])
text = "<image>a red star"
for specials in (True, False):
    print(tokenizer.pieces(tokenizer.encode(text, specials)))

# %% [markdown]
# What cannot be done says so, here and everywhere in the course:

# %% tags=["raises-exception"]
tokenizer.batch(["a red star and a blue ring and a green moon"], length=8)

# %% [markdown]
# ## What two minutes buy
#
# Open [01 · CLIP](01_clip.ipynb). It builds two small transformers, shows them pictures of this world with their captions,
# and then asks for the names of pictures of *outlined* pairs, the ones no training picture showed. Before
# you run it: chance is 1 in 64. What do you expect?
#
# Every notebook goes the same way: the idea in one picture; the parts, each run at once on something small; a check that
# the code computes what the reference implementation computes; training; a look at what came out, failures too; the
# paper's claim, measured against a model without the idea; exercises.
#
# ## An exercise to warm up
#
# ### Exercise 1: How crowded is it? ●○○ 5 minutes
#
# `scenes.present` is True where a slot holds an object. Write `share_of(scenes, colour)`: the share of *objects* (not of
# scenes) in a batch that have the colour with index `colour`. Mind the empty slots: their colour is 0, as red's is.


# %%
def share_of(scenes: world.Scenes, colour: int) -> float:
    raise NotImplementedError


# %%
some = world.draw_scenes(world.generator("exercise"), 500)
check(
    "Exercise 1",
    share_of,
    (
        (some, 0),
        ((some.colour == 0) & some.present).sum().item() / some.present.sum().item(),
    ),
    (
        (some, 3),
        ((some.colour == 3) & some.present).sum().item() / some.present.sum().item(),
    ),
    mistakes={
        "empty slots were counted as red objects": lambda s, c: (
            (s.colour == c).sum().item() / s.present.sum().item()
        ),
        "that is a share of all slots, empty ones too": lambda s, c: (
            ((s.colour == c) & s.present).float().mean().item()
        ),
        "that is a share of scenes, not of objects": lambda s, c: (
            ((s.colour == c) & s.present).any(1).float().mean().item()
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_of(scenes: world.Scenes, colour: int) -> float:
#     return (scenes.colour[scenes.present] == colour).float().mean().item()
# ```
#
# </details>
