# %% [markdown] header="palm_e"

# %% [markdown]
# Ask a language model how to stack blocks, and it makes a plan. It is a plan for blocks in general: the model has no idea what
# stands on *this* table. PaLM-E's answer is as short as it can be. A sentence is a row of vectors, one for each word. Let the
# camera, the robot's joints, anything that measures, be turned into vectors just as wide, and **put them into the sentence where
# a word would stand**. Nothing else changes: no new layers, no new loss. The model's words become the robot's next action, the
# robot looks again, and so on, until the model says that it is done.
#
# **You will be able to**
# - write a sentence in which states, pictures, objects and sounds stand among the words, and say what each place holds;
# - build the encoders that turn them into words, and PaLM-E around them, in some hundred lines;
# - let a language model move blocks in closed loop, with things slipping out of the gripper, and score it by what the table
#   looks like in the end;
# - measure what joint training gives to each task when examples are few;
# - say what it costs to finetune the language model, and what it costs not to.
#
# **You need** [00b · A language model](00b_language_model.ipynb), whose finished model comes in here, and the vision
# transformer of [01 · CLIP](01_clip.ipynb). Training takes about five minutes on one core; plan an hour for the rest.

# %%
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm import backbones, plots, world
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate, pad_left
from minivlm.language.tokenizer import Tokenizer
from minivlm.vision.vit import VisionTransformer, ViTConfig

plots.use_style()
lesson = Lesson("05_palm_e")
run = lesson.choose(
    cpu=dict(steps=900, batch=32, lr=2e-3, lr_new=5e-3, jobs=240, few=240, few_steps=300),
    gpu=dict(steps=6000, batch=128, few_steps=1500, jobs=600),
    smoke=dict(steps=2, batch=8, jobs=6, few=60, few_steps=2),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# Each kind of observation has an encoder of its own. What it gives takes the places that were kept in the text, anywhere, and
# the language model reads on as ever.

# %% alt="Diagram: a row of words with coloured places among them. A state encoder, an image encoder and a sound encoder fill the places; the language model reads the row and its words, an action, go to the robot, which changes the table that is observed."
ax = plots.diagram(9, 4.1)
row = ["", "", "the goal is:", "the", "", "block is on", "", "next?", "put the ..."]
kinds = "image image text text loss text connector text loss".split()
x, middle = 0.15, {}
for i, word in enumerate(row):
    width = 0.36 if not word else 0.3 + 0.088 * len(word)
    kind = "image" if not word else "text" if i < 8 else "loss"
    place = plots.box(ax, x, 1.55, width, 0.5, word, kind)
    plots.arrow(ax, place, (x + width / 2, 2.5))
    middle[i] = x + width / 2
    x += width + 0.08
plots.box(ax, 0.15, 2.5, x - 0.23, 0.6, "language model", "text")
for name, i, at in (("camera", 0, 0.15), ("sound", 4, 3.0), ("state", 6, 5.2)):
    eye = plots.box(ax, at, 0.1, 1.5, 0.75, f"{name}\nencoder", "connector")
    for place in (0, 1) if i == 0 else (i,):
        plots.arrow(ax, (at + 0.75, 0.85), (middle[place], 1.55))
robot = plots.box(ax, 7.3, 0.1, 1.3, 0.75, "robot", "image")
plots.arrow(ax, (middle[8], 1.55), robot)
plots.arrow(ax, robot, (6.75, 0.47))
note = "blue places are no words: encoders fill them; the last words (pink) are learned"
ax.text(0.15, 3.6, note, ha="left", va="center")
plt.show()

# %% [markdown]
# ## Build
#
# ### A robot and its tables
#
# Up to four blocks, four places, stacks of three, and a gripper that takes a block on which nothing stands and puts it on
# another or on the table. What its sensors say about the blocks (where, how high, which colour) is a vector for each.

# %% alt="Three tables with coloured blocks in stacks, a gripper above."
from minivlm.world.robot import draw_tables, state_vectors
from minivlm.world.robot_moves import moves
from minivlm.world.robot_pictures import block_masks, render_tables
from minivlm.world.robot_words import tell

tables = draw_tables(world.generator("look"), 3, slots=4)
print(tell(tables)[0])
print(state_vectors(tables)[0])
possible = [len(moves(columns)) for columns in tables.columns()]
print("actions possible:", possible)
plots.show_images(render_tables(tables, 96), columns=3, size=1.7)
plt.show()

# %% [markdown]
# ### Encoders
#
# An encoder turns an observation into a few vectors as wide as a word: $\phi: \mathcal O \to \mathbb R^{q\times k}$. The
# paper has several (section 4). A **state** goes through an MLP. An **image** goes through a ViT, and each patch through an
# affine map. An **object** of an image is what its mask shows, through a ViT as well; that is how one can speak of *this* block
# where two look the same.

# %% include="minivlm.connectors.observations:VectorEncoder, ImageEncoder, ObjectEncoder"

# %% [markdown]
# Nothing in the definition says that an observation must come from a robot. **The course's own addition**, not the paper's:
# a sound, moment by moment, through the same MLP as a state. (A row of a table would go in alike, cell by cell.)

# %% alt="The spectrum of a sound over 12 moments: a few bright cells, one after the other, one for each letter of the word."
from minivlm.world.sounds import FREQUENCIES, draw_sounds, waveform

RATE, MOMENTS = 4000, 12
window = torch.arange(RATE // 10) / RATE
waves = torch.tensor(FREQUENCIES)[:, None] * window * 2 * torch.pi
listen = torch.cat([waves.cos(), waves.sin()]) / len(window)


def spectra(sounds) -> Float[Tensor, "n moments frequencies"]:
    """How loud each of 26 tones is in each tenth of a second."""
    sound = waveform(sounds, RATE)[:, : MOMENTS * len(window)]
    sound = nn.functional.pad(sound, (0, MOMENTS * len(window) - sound.shape[1]))
    heard = sound.unflatten(1, (MOMENTS, -1)) @ listen.T
    real, imaginary = heard.chunk(2, dim=-1)
    return 8 * (real.square() + imaginary.square()).sqrt()


def spell(rng, words: Sequence[str]):
    """Each letter a short tone."""
    return draw_sounds(rng, words, held=(0.1, 0.13), gaps=(0.04, 0.06), snr=(10, 20))


heard = spectra(spell(world.generator("look"), ["purple"]))
plots.heatmap(heard[0].T, title="what is heard of 'purple': letters by moments")
plt.show()

# %%
words = DecoderConfig(**backbones.read("language-cpu")[0]).width
eye = ViTConfig(32, 8, width=64, layers=2, heads=4, hidden=128)
pictures, masks = render_tables(tables, 32), block_masks(tables, 32)
one_object = torch.cat([pictures, masks[:, :1]], dim=1)
for name, encoder, value in (
    ("state", VectorEncoder(11, words), state_vectors(tables)),
    ("image", ImageEncoder(eye, words), pictures),
    ("object", ObjectEncoder(eye, words, tokens=2), one_object),
    ("sound", VectorEncoder(26, words), heard),
):
    print(f"{name:7s}{tuple(value.shape)!s:16s} -> {tuple(encoder(value).shape)}")

# %% [markdown]
# ### A sentence with observations in it
#
# The text names them, as in the paper: `what happened between <img_1> and <img_2>?` Each name becomes as many places as its
# encoder gives vectors. Only the answer is learned.

# %% include="minivlm.language.sentence:Observations, Sentence, Sentences"

# %% alt="A row of tokens: bos, two object tokens, words, four state tokens, and the answer with its end, coloured because only they are learned."
tokenizer = backbones.world_tokenizer()
door = Sentences(tokenizer, {"state": 4, "obj": 1}, context=64)
sentence = Sentence(
    "object 1 is <obj_1>. <state>what is under object 1?",
    {"<obj_1>": one_object[0], "<state>": state_vectors(tables)[0]},
    "the table",
)
ids, labels, found = door.encode(sentence)
learned = [float(label != -100) for label in labels]
title = "coloured: what the loss looks at"
plots.tokens(tokenizer.pieces(ids), learned, title=title)
plt.show()
try:
    door.encode(sentence._replace(observed={}))
except ValueError as error:
    print(error)

# %% [markdown]
# First all ids become vectors; then what stands at the marked places is overwritten. Several of a kind come in reading order.

# %% include="minivlm.connectors.splice:splice"

# %%
row = torch.zeros(1, 6, 2)
places = torch.tensor([[False, True, True, False, True, True]])
two = torch.tensor([[[1.0, 1.0], [2.0, 2.0]], [[3.0, 3.0], [4.0, 4.0]]])
print(splice(row, places, two)[0, :, 0].tolist())

# %% [markdown]
# ### PaLM-E
#
# That was all there is to build. The rest puts it together.

# %% include="minivlm.models.palm_e:Sense, PaLMEConfig, Experience, PaLME"

# %%
size = "gpu" if lesson.large and "language-gpu" in backbones.built() else "cpu"
sizes, read = backbones.read(f"language-{size}")
language = DecoderConfig(**sizes)
door = Sentences(tokenizer, {"state": 4, "img": 16, "audio": MOMENTS}, language.context)
senses = {
    "state": Sense("vectors", door.place_id("state"), seen=11),
    "img": Sense("image", door.place_id("img"), vision=eye),
    "audio": Sense("vectors", door.place_id("audio"), seen=len(FREQUENCIES)),
}
config = PaLMEConfig(language, senses)


def untrained() -> PaLME:
    """New encoders around the language model that has read, and never sensed."""
    torch.manual_seed(lesson.seed)
    model = PaLME(config)
    model.language.load_state_dict(read)
    return model.to(lesson.device)


model = untrained()
for name, part in {**model.encoders, "language": model.language}.items():
    print(f"{name:9s}{sum(p.numel() for p in part.parameters()):8,d} numbers")
