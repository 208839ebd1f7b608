# %% [markdown] header="palm_e"

# %% [markdown]
# Ask a language model how to stack blocks, and it makes a plan. It is a plan for blocks in general: the model has no idea what
# stands on *this* table. PaLM-E's answer is as short as it can be. A sentence is a row of vectors, one for each word. Let the
# camera, the robot's joints, anything that measures, be turned into vectors just as wide, and **put them into the sentence where
# a word would stand**. Nothing else changes: no new layer in the language model, no new loss. The model's words become the robot's next action, the
# robot looks again, and so on, until the model says that it is done.
#
# **You will be able to**
# - write a sentence in which states, pictures, objects and sounds stand among the words, and say what each place holds;
# - build the encoders that turn them into words, and PaLM-E around them;
# - let a language model move blocks in closed loop, with things slipping out of the gripper, and score it by what the table
#   looks like in the end;
# - measure what joint training gives to each task when examples are few;
# - say what it costs to finetune the language model, and what it costs not to.
#
# **You need** [00b · A language model](00b_language_model.ipynb), whose finished model comes in here, and the vision
# transformer of [01 · CLIP](01_clip.ipynb). It runs for about eight minutes on one core, most of it training; plan
# an hour for the rest.

# %%
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    cpu=dict(
        steps=600, few_steps=100, few=320, batch=32, jobs=240,
        lr=2e-3, lr_new=5e-3, lr_eye=1e-3,
    ),
    gpu=dict(steps=6000, few_steps=600, few=384, batch=128, jobs=600),
    smoke=dict(steps=2, few_steps=2, few=64, batch=8, jobs=6),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# Each kind of observation has an encoder of its own. What it gives takes the places that were kept in the text, anywhere, and
# the language model reads on as ever.

# %% alt="Diagram: a row of words with coloured places among them. A state encoder, an image encoder and a sound encoder fill the places; the language model reads the row and its words, an action, go to the robot, which changes the table that is observed."
ax = plots.diagram(9, 4.1)
row = ["goal: the", "", "block is on the table.", "", "", "", "next?", "put the ..."]
x, middle = 0.15, {}
for i, word in enumerate(row):
    width = 0.42 if not word else 0.3 + 0.092 * len(word)
    kind = "image" if not word else "text" if i < 7 else "loss"
    place = plots.box(ax, x, 1.55, width, 0.5, word, kind)
    plots.arrow(ax, place, (x + width / 2, 2.5))
    middle[i] = x + width / 2
    x += width + 0.08
plots.box(ax, 0.15, 2.5, x - 0.23, 0.6, "language model", "text")
encoders = (("sound", [1], 0.6), ("image", [3, 4], 2.7), ("state", [5], 4.45))
for name, filled, at in encoders:
    plots.box(ax, at, 0.1, 1.5, 0.75, f"{name}\nencoder", "connector")
    for place in filled:
        plots.arrow(ax, (at + 0.75, 0.85), (middle[place], 1.55))
robot = plots.box(ax, x - 1.5, 0.1, 1.3, 0.75, "robot", "image")
plots.arrow(ax, (middle[7], 1.55), robot)
plots.arrow(ax, robot, (5.95, 0.47))
note = "blue places are no words: encoders fill them; the last words (pink) are learned"
ax.text(0.15, 3.6, note, ha="left", va="center")
plt.show()

# %% [markdown]
# ## Build
#
# ### A robot and its tables
#
# Up to four blocks, four places, stacks of three, and a gripper that takes a block on which nothing stands and puts it on
# another or on the table. What its sensors say of a block is a vector of switches: which place, how high, which colour, and which colours
# it touches below and above. So *what is under it?* is easy from states: it is one of the switches. In a picture it must be seen.

# %% alt="Three tables with coloured blocks in stacks, a gripper above."
from minivlm.world.robot import draw_tables
from minivlm.world.robot_moves import moves
from minivlm.world.robot_pictures import block_masks, render_tables
from minivlm.world.robot_senses import NUMBERS, touch_vectors
from minivlm.world.robot_words import tell

tables = draw_tables(world.generator("look"), 3, slots=4)
print(tell(tables)[0])
parts = ("there", "place", "height", "colour", "below", "above")
first = touch_vectors(tables)[0, 0].int().split([1, 4, 3, 8, 8, 8])
for part, switches in zip(parts, first, strict=True):
    print(f"{part:8s}{switches.tolist()}")
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
# where two look the same. (We build that one and do not train it.)

# %% include="minivlm.connectors.observations:VectorEncoder, ImageEncoder, ObjectEncoder"

# %% [markdown]
# Nothing in the definition says that an observation must come from a robot. **The course's own addition**, not the paper's:
# a sound, moment by moment, through the same MLP as a state. (A row of a spreadsheet would go in alike, cell by cell.)

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
fig, ax = plt.subplots(figsize=(5.5, 3.4))
plots.heatmap(heard[0].T, title="'purple', heard", ax=ax)
ax.set_xlabel("tenth of a second")
ax.set_yticks([ord(letter) - ord("a") for letter in "eplru"], list("eplru"))
ax.set_ylabel("tone")
plt.show()

# %%
size = "gpu" if lesson.large and "language-gpu" in backbones.built() else "cpu"
sizes, read = backbones.read(f"language-{size}")
seen_sizes, seen = backbones.read(f"vision-{size}")
language, eye = DecoderConfig(**sizes), ViTConfig(**seen_sizes["vision"])
words, px = language.width, eye.image_size
pictures, masks = render_tables(tables, px), block_masks(tables, px)
one_object = torch.cat([pictures, masks[:, :1]], dim=1)
for name, encoder, value in (
    ("state", VectorEncoder(NUMBERS, words), touch_vectors(tables)),
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
door = Sentences(tokenizer, {"state": 4, "obj": 1}, context=64)  # texts come in here
sentence = Sentence(
    "object 1 is <obj_1>. <state>what is under object 1?",
    {"<obj_1>": one_object[0], "<state>": touch_vectors(tables)[0]},
    "the yellow block",
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
takes = {"state": 4, "img": eye.grid**2, "audio": MOMENTS}
door = Sentences(tokenizer, takes, language.context)
senses = {
    "state": Sense("vectors", door.place_id("state"), seen=NUMBERS),
    "img": Sense("image", door.place_id("img"), vision=eye),
    "audio": Sense("vectors", door.place_id("audio"), seen=len(FREQUENCIES)),
}
config = PaLMEConfig(language, senses)


def untrained() -> PaLME:
    """The language model that has read, and never sensed; CLIP's eye; else new."""
    torch.manual_seed(lesson.seed)
    model = PaLME(config)
    model.language.load_state_dict(read)
    sees = {k.removeprefix("vision."): v for k, v in seen.items() if "vision." in k}
    model.encoders["img"].vision.load_state_dict(sees)
    return model.to(lesson.device)


model = untrained()
for name, part in {**model.encoders, "language": model.language}.items():
    print(f"{name:9s}{sum(p.numel() for p in part.parameters()):8,d} numbers")
for name, many in door.tokens.items():
    kept = 2 * language.layers * language.kv_heads * language.hd * many
    print(f"{name:6s}{many:4d} tokens; its keys and values: {4 * kept / 1024:.0f} KiB")

# %% [markdown]
# ## Is it right?
#
# The authors released no code, so there is nothing to compare numbers with. But the paper's definition makes promises that hold
# **exactly**, whatever the weights, and these can be checked. Only the vectors at the observations' places change. A sentence without
# observations is the language model's, bit for bit. Two pictures exchanged are two names exchanged.

# %%
from minivlm.evaluation import probes

right = untrained().cpu().eval()
state, picture = touch_vectors(tables), pictures
asked = "<img_1>was before <img_2>and now <state>what is the plan?"
observed = {"<img_1>": picture[0], "<img_2>": picture[1], "<state>": state[1]}
ids, labels, given = door.batch([Sentence(asked, observed, "done")])
with torch.no_grad():
    before, after = right.language.embed(ids), right.embed(ids, given)
changed = (before != after).any(-1)[0]
kept = torch.isin(ids[0], torch.tensor([s.place_id for s in senses.values()]))
print(f"{len(changed)} tokens, {int(changed.sum())} changed:", end=" ")
print("exactly the places" if torch.equal(changed, kept) else "not the places!")
probes.only_places(right, Experience(given, ids, labels))

text, _, _ = door.batch([Sentence("what is the plan?", {})])
print("without observations, furthest from the language model:", end=" ")
print(probes.words_alone(right, text))

other = observed | {"<img_1>": picture[1], "<img_2>": picture[0]}
named = asked.replace("_1", "_x").replace("_2", "_1").replace("_x", "_2")
with torch.no_grad():
    one, two = (
        right(ids, given)
        for ids, _, given in (
            door.batch([Sentence(asked, other)]),
            door.batch([Sentence(named, observed)]),
        )
    )
    ids, _, given = door.batch([Sentence(asked, observed)])
    plain = right(ids, given)
print("pictures exchanged = names exchanged:", torch.equal(one, two))
print("and it matters which is which:", not torch.equal(one, plain))

# %% [markdown]
# And the **probes** that the course asks of every model that talks, here through states, then through pictures:

# %%
rows = [
    Sentence(
        "<state>what is under the green block?",
        {"<state>": state[0]},
        "the yellow block",
    ),
    Sentence(
        "was <img_1>or <img_2>the goal?",
        {"<img_1>": picture[0], "<img_2>": picture[1]},
        "no",
    ),
]
for name, row in zip(("state", "img"), rows, strict=True):
    ids, labels, given = door.batch([row, Sentence("what is now?", {}, "nothing")])
    batch = Experience(given, ids, labels)
    print(name)
    _ = probes.run(*probes.one_sense(right, batch, name))

# %% [markdown]
# ## Train
#
# ### What it is asked
#
# What the next action is for a goal, "done" where there is nothing left to do; whether a goal is reached; and what is under a
# block. Half of the tables are given as states, half as pictures. In some goals a block is not named but **sounded**.
#
# The goal comes first and then what is sensed, as in the paper's prompt for its kitchen robot: `Human: <instruction> ... I see <img>.`
# And before it answers, our model says **aloud** what it sees: the stacks, place by place; then, if there is a goal, what is under
# the goal's blocks and what is on them. That is our choice, not the paper's: a small model that must answer at once stays a
# guesser for longer (`MINIVLM_ARMS=all` trains that one too).

# %%
from minivlm.vision.processor import normalize
from minivlm.world.robot_questions import RobotQuestions, correct
from minivlm.world.robot_thoughts import aloud

KINDS, FORMS = ("next", "done", "under"), ("on", "table")
COLOUR = re.compile(r"the (\w+) block is on")
about_eye = backbones.card(f"vision-{size}")
pixel_mean, pixel_std = about_eye["pixel_mean"], about_eye["pixel_std"]


def sensed(tables, sense: str) -> Tensor:
    """What is observed of each table."""
    if sense == "state":
        return touch_vectors(tables)
    return normalize(render_tables(tables, px), pixel_mean, pixel_std)


def asked_of(
    tables, questions: Sequence[str], sense: str, plain: bool = False
) -> list[Sentence]:
    """The goal if there is one, then what is observed, then the question. `plain`: as
    in the texts that the language model has read, what is observed first.
    """
    rows = []
    for question, value in zip(questions, sensed(tables, sense), strict=True):
        goal, dot, rest = question.rpartition(". ")
        text = f"{goal}{dot.strip()}<{sense}>{rest}"
        text = f"<{sense}>{question}" if plain else text
        rows.append(Sentence(text, {f"<{sense}>": value}))
    return rows


def sounded(rng, sentences: Sequence[Sentence]) -> list[Sentence]:
    """The first block of a goal is called by a sound: `the <audio>block is on ...`."""
    found = [COLOUR.search(s.text) for s in sentences]
    which = [i for i, match in enumerate(found) if match]
    heard = spectra(spell(rng, [found[i][1] for i in which])) if which else []
    changed = list(sentences)
    for i, sound in zip(which, heard, strict=True):
        text = COLOUR.sub("the <audio>block is on", sentences[i].text, count=1)
        given = {"<audio>": sound, **sentences[i].observed}
        changed[i] = sentences[i]._replace(text=text, observed=given)
    return changed


def experience(
    rng, n: int, kinds=KINDS, senses=("state", "img"), sounds=0.2, plain=False
) -> list[Sentence]:
    """`n` tables (or a few less), each with a question, and what is seen, aloud, and
    the answer. `plain`: at once the answer, as in the texts that were read.
    """
    rows = []
    for sense in senses:
        some = dict(slots=4, stacked=bool(rng.integers(2)))
        drawn = draw_tables(rng, n // len(senses), **some)
        tables, asked = RobotQuestions(rng, kinds, forms=FORMS).sift(drawn)
        answers = [q.answer for q in asked] if plain else aloud(tables, asked)
        prompts = asked_of(tables, [q.question for q in asked], sense, plain)
        rows += [p._replace(answer=a) for p, a in zip(prompts, answers, strict=True)]
    rows = [rows[i] for i in rng.permutation(len(rows))]
    cut = round(sounds * len(rows))
    return [*sounded(rng, rows[:cut]), *rows[cut:]]


for sentence in experience(world.generator("look"), 24, sounds=0.5)[:10:2]:
    print(f"{sentence.text} → {sentence.answer}")


# %%
from minivlm.training import fit, frozen


def batches(rng, sentences: Sequence[Sentence]) -> Iterator[Experience]:
    """Sentences of like length together, the batches in random order."""
    length = [len(one.text) + len(one.answer) for one in sentences]
    order = sorted(range(len(sentences)), key=length.__getitem__)
    starts = range(0, max(1, len(order) - run.batch + 1), run.batch)
    for start in rng.permutation(list(starts)):
        rows = [sentences[i] for i in order[start : start + run.batch]]
        ids, labels, given = door.batch(rows)
        given = {kind: value.to(lesson.device) for kind, value in given.items()}
        yield Experience(given, ids.to(lesson.device), labels.to(lesson.device))


def endless(**how) -> Iterator[Experience]:
    """Tables never end; actions are asked for more often than the rest."""
    rng = world.generator("train", lesson.seed)
    while True:
        rows = experience(rng, 16 * run.batch, ("next", "next", *KINDS), **how)
        yield from batches(rng, rows)


@torch.no_grad()
def say(model: PaLME, sentences: Sequence[Sentence], part: int = 120) -> list[str]:
    """What the model says to each."""
    said, how = [], dict(max_new_tokens=80, eos=tokenizer.eos)
    for i in range(0, len(sentences), part):
        ids, keep, given = door.prompts(sentences[i : i + part])
        given = {kind: value.to(lesson.device) for kind, value in given.items()}
        ids, keep = ids.to(lesson.device), keep.to(lesson.device)
        new = model.generate(ids, given, keep, **how)
        said += [tokenizer.decode(row, skip_specials=True).strip() for row in new]
    return said


def last(said: str) -> str:
    """The last sentence: what it does, or answers, after all that it sees."""
    return said.removesuffix(".").split(".")[-1].strip()


def accuracy(model: PaLME, tables, asked, sense: str) -> dict[str, float]:
    """Share of right answers by kind; any action towards the goal is right."""
    said = say(model, asked_of(tables, [q.question for q in asked], sense))
    right: dict[str, list[bool]] = {}
    for i, (words, question) in enumerate(zip(said, asked, strict=True)):
        good = correct(tables[[i]], question, last(words))
        right.setdefault(question.kind, []).append(good)
    return {kind: sum(found) / len(found) for kind, found in right.items()}


def unseen(name: str, kinds: Sequence[str], n: int):
    """`n` tables, each with a question."""
    rng = world.generator(name)
    return RobotQuestions(rng, kinds, forms=FORMS).sift(draw_tables(rng, n, slots=4))


# %% [markdown]
# ### At work
#
# Then the model gets a robot. It senses the table, and says one action for its goal, which the simulator carries out; but now and
# then the block **slips** out of the gripper and falls onto a free place of the table, or stays where it was. The model looks again, and so on until it says
# "done", or has used up its tries. Whether it succeeded is not read off its words: the simulator says whether the goal holds of
# the **final table**. Two planners give the levels. One is *random*: any possible action. The other is *blind*: it says the
# goal's own words as actions, over and over; a goal that is one action away is its own plan. Neither ever says "done": each goes
# on until its tries are used up, and a random one may undo what it reached.

# %%
from minivlm.world.robot import HELD_OUT_STACKS
from minivlm.world.robot_loop import (
    SLIP,
    TRIES,
    Jobs,
    blindly,
    draw_jobs,
    randomly,
    work,
)


def planner(
    model: PaLME, sense: str, spoken=False, other: str = "", plain: bool = False
):
    """The model as a planner. `other`: which of its observations, the "picture" or the
    "sound", is that of the next job.
    """

    def asked_about(tables, jobs: Jobs, which: Sequence[int]) -> list[Sentence]:
        goals = jobs.texts()
        asked = [f"the goal is: {goals[i]}. what is the next action?" for i in which]
        sentences = asked_of(tables, asked, sense, plain)
        return sounded(world.generator("voice"), sentences) if spoken else sentences

    def plan(tables, jobs: Jobs, which: Sequence[int]) -> list[str]:
        next_ones = [(i + 1) % len(jobs) for i in which]
        seen = jobs.tables[next_ones] if other == "picture" else tables
        sentences = asked_about(seen, jobs, which)
        if other == "sound":
            theirs = asked_about(seen, jobs, next_ones)
            heard = [{"<audio>": one.observed["<audio>"]} for one in theirs]
            both = zip(sentences, heard, strict=True)
            sentences = [s._replace(observed={**s.observed, **h}) for s, h in both]
        return [last(words) for words in say(model, sentences)]

    return plan


def interval(right: Sequence[bool]) -> tuple[float, float, float]:
    """Share, and its 95% interval (Wilson 1927)."""
    n, share, z = len(right), sum(right) / len(right), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return share, middle - half, middle + half


jobs = draw_jobs(world.generator("palm_e test"), run.jobs, forms=FORMS)


def success(planner, jobs: Jobs = jobs) -> list[bool]:
    """Whether each job's goal holds in the end; all planners have the same luck."""
    return work(jobs, planner, world.generator("luck"))[0]


print(f"{SLIP:.0%} of what is carried slips; tries: {TRIES}")
at_random = success(randomly(world.generator("random")))
blind = success(blindly())
for name, ok in (("random", at_random), ("blind", blind)):
    print(f"{name:7s}reaches {interval(ok)[0]:.0%} of {len(ok)} goals;", end="")
    for k in (1, 2, 3):
        these = [o for o, far in zip(ok, jobs.far, strict=True) if far == k]
        print(f"  {k} away: {interval(these)[0]:.0%}", end="")
    print()

# %% [markdown]
# ### Training
#
# All of it learns together: new encoders at a high rate, CLIP's eye at a low one, and the language model.

# %% tags=["nbval-ignore-output"]
val = {
    sense: unseen(f"validation {sense}", KINDS, 30 if lesson.short else 90)
    for sense in ("state", "img")
}
watched: list[dict[str, float]] = []


def watch(model: PaLME) -> float:
    """Right answers, mean over kinds; for each sense, and the mean of both."""
    found = {sense: accuracy(model, *val[sense], sense) for sense in val}
    watched.append({sense: mean(of_kind.values()) for sense, of_kind in found.items()})
    return mean(watched[-1].values())


def mean(numbers: Iterable[float]) -> float:
    numbers = list(numbers)
    return sum(numbers) / len(numbers)


def train(
    model: PaLME, steps: int, name: str, stream=None, freeze: bool = False, look=None
) -> dict:
    """Encoders and language model; or (`freeze`) the encoders alone."""
    how = dict(evaluate=look, name=name, weight_decay=0.0)
    stream = endless() if stream is None else stream
    rates = {"encoders": run.lr_new, "encoders.img.vision": run.lr_eye}
    if freeze:
        with frozen(model.language):
            return fit(model, stream, steps, run.lr, lrs=rates, **how)
    return fit(model, stream, steps, run.lr, lrs=rates, **how)


history = train(model, run.steps, "all of it", look=lambda: watch(model))

# %% alt="Left: the loss falls. Right: the share of right answers over the steps, from states and from pictures; both rise from near nothing."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
loss = torch.tensor(history["loss"]).unfold(0, min(20, len(history["loss"])), 1).mean(1)
plots.curves({"loss": (range(len(loss)), loss)}, "loss, mean of 20", ax=left)
right.set_ylim(0, 1.02)
lines = {
    called: (history["step"], [now[sense] for now in watched])
    for called, sense in (("states", "state"), ("pictures", "img"))
}
from minivlm.world import levels as guessing

guess = guessing.stored()["robot"]
flat = {
    level: mean(getattr(guess[kind], level) for kind in KINDS)
    for level in ("chance", "blind")
}
plots.curves(lines, "right answers", **flat, ax=right)
plt.show()

# %% [markdown]
# ## Look
#
# ### A robot at work
#
# Of the goals that take three actions, the one that was reached after most tries, seen by the camera. Over each table stands what
# the model did when it saw it; where it does the same again, the block had slipped, or what it
# said could not be done.

# %% tags=["nbval-ignore-output"] alt="A row of tables, from the first to the last, each with what the model did when it saw it."
three = [i for i, far in enumerate(jobs.far) if far == 3]
hard = Jobs(
    jobs.tables[three],
    tuple(jobs.goals[i] for i in three),
    tuple(jobs.called[i] for i in three),
    (3,) * len(three),
)
diary: list[dict[int, str]] = []


def overheard(plan):
    def planner(tables, jobs, which):
        words = plan(tables, jobs, which)
        diary.append(dict(zip(which, words, strict=True)))
        return words

    return planner


ok, films = work(hard, overheard(planner(model, "img")), world.generator("luck"))
longest = max(range(len(ok)), key=lambda i: (ok[i], sum(i in now for now in diary)))
rounds = [k for k, now in enumerate(diary) if longest in now]
film = [render_tables(films[k][[longest]], 96)[0] for k in rounds]
goal = f"the goal is: {hard.texts()[longest]}."
first = asked_of(hard.tables[[longest]], [f"{goal} what is the next action?"], "img")
print(goal, "Reached:", ok[longest])
print("At first it says:", say(model, first)[0])
plots.show_images(film, [diary[k][longest] for k in rounds], columns=5, size=1.8)
plt.show()

# %% [markdown]
# ### What goes wrong
#
# Goals that were not reached, the tables as they were left, and the last thing the model said. Below, what it saw in the first.

# %% tags=["nbval-ignore-output"] alt="The last tables of up to four goals that were not reached, each with the goal and the last thing the model said."
failed = [i for i, good in enumerate(ok) if not good][:4]
if failed:
    ends = {i: [now[i] for now in diary if i in now][-1] for i in failed}
    titles = [f"{hard.texts()[i]}?\n{ends[i]}" for i in failed]
    pictures = render_tables(films[-1][failed], 96)
    plots.show_images(pictures, titles, 4, size=2.2, right=[False] * len(failed))
    plt.show()
    wish = f"the goal is: {hard.texts()[failed[0]]}. what is the next action?"
    print(wish, say(model, asked_of(films[-1][failed[:1]], [wish], "img"))[0])

# %% [markdown]
# ### By ear
#
# The same table and four goals, that differ in nothing but the sound. Yellow and pink stand on the table already: "done" is
# right. Blue and green must come down.

# %% tags=["nbval-ignore-output"]
from minivlm.world.robot import compose_table

one = compose_table(["yellow", "blue"], ["pink", "green"])
for colour in ("yellow", "blue", "pink", "green"):
    goal = f"the goal is: the {colour} block is on the table."
    asked = asked_of(one, [f"{goal} what is the next action?"], "img")
    (spoken,) = sounded(world.generator("voice"), asked)
    print(f"the sound spells {colour}:", say(model, [spoken])[0])

# %% [markdown]
# ### Your own table
#
# Up to four blocks, from the table upwards, up to three in a stack; colours must differ.

# %% tags=["nbval-ignore-output"]
yours = compose_table(["red", "green"], [], ["blue"])
wish = "the goal is: the red block is on the blue block. what is the next action?"
print(say(model, asked_of(yours, [wish], "img"))[0])

# %% [markdown]
# ## The claim
#
# **1. Finetuned or frozen?** Only the encoders learn, and the language model stays as it was, to the last bit. It cannot forget,
# then. Can it plan? It could not learn to say aloud what it sees, in a form that it has never read. So it is asked in the form of
# its own texts: what is observed, the goal, and at once the action. Its steps are cheaper, and it gets as many of them as
# cost the same. (With all arms: the frozen one aloud, and the finetuned one at once, each at the same compute.)


# %% tags=["nbval-ignore-output"]
from torch.utils.flop_counter import FlopCounterMode


def cost(freeze: bool, batches: int = 8, **how) -> float:
    """Floating-point operations of a training step, in the mean."""
    one, stream, total = untrained(), endless(**how), 0
    one.language.requires_grad_(not freeze)
    for _ in range(batches):
        with FlopCounterMode(display=False) as counter:
            one.loss(next(stream)).backward()
        total += counter.get_total_flops()
    return total / batches


def rival(name: str, freeze: bool, plain: bool) -> PaLME:
    """Another one, trained for the compute of ours."""
    arm, share = untrained(), cost(False) / cost(freeze, plain=plain)
    steps = round(share * run.steps)
    print(f"{name}: {steps} steps cost as much as {run.steps} of ours")
    train(arm, steps, name, endless(plain=plain), freeze)
    return arm


cold = rival("encoders alone", freeze=True, plain=True)
if lesson.all_arms:
    at_once = rival("at once", freeze=False, plain=True)
    cold_aloud = rival("encoders alone, aloud", freeze=True, plain=False)

# %% tags=["nbval-ignore-output"]
from minivlm.world import frozen as eval_sets

told = eval_sets.load("questions")
told = [told.rows[i] for i in range(0, len(told), 12 if lesson.short else 3)]


def reads(model: PaLME) -> tuple[float, str]:
    """Right answers about scenes in words, asked as the language model was trained,
    be the answer the first sentence that it says or the last; and one that it gave.
    """
    said = say(model, [Sentence(f"{row.told} {row.question}", {}) for row in told])
    both = [(one.split(".")[0], last(one)) for one in said]
    right = [row.answer in ends for row, ends in zip(told, both, strict=True)]
    return sum(right) / len(right), said[0]


@torch.no_grad()
def chooses(model: PaLME) -> float:
    """Right answers, if it must only choose among all answers of a question's kind."""
    of_kind: dict[str, set[str]] = {}
    for row in told:
        of_kind.setdefault(row.kind, set()).add(row.answer)
    right = 0
    for row in told:
        options, text = sorted(of_kind[row.kind]), f"{row.told} {row.question}"
        ids, labels, _ = door.batch([Sentence(text, {}, one) for one in options])
        ids, labels = ids.to(lesson.device), labels[:, 1:].to(lesson.device)
        scores = model(ids)[:, :-1].transpose(1, 2)
        lost = nn.functional.cross_entropy(scores, labels, reduction="none").sum(1)
        best = lost / (labels != -100).sum(1)
        right += options[int(best.argmin())] == row.answer
    return right / len(told)


models = {"before": untrained(), "finetuned": model, "frozen": cold}
remembered, chosen, examples = {}, {}, {}
for name, one in models.items():
    remembered[name], examples[name] = reads(one)
    chosen[name] = chooses(one)
planners = {
    "states": planner(model, "state"),
    "pictures": planner(model, "img"),
    "pictures and sounds": planner(model, "img", spoken=True),
    "another's picture": planner(model, "img", other="picture"),
    "another's sound": planner(model, "img", spoken=True, other="sound"),
    "states, frozen LM": planner(cold, "state", plain=True),
    "pictures, frozen LM": planner(cold, "img", plain=True),
}
if lesson.all_arms:
    for name, arm, plain in (("at once", at_once, True), ("frozen", cold_aloud, False)):
        planners[f"states, {name}"] = planner(arm, "state", plain=plain)
        planners[f"pictures, {name}"] = planner(arm, "img", plain=plain)
reached = {name: success(plan) for name, plan in planners.items()}
for name, pairs in (("seen", None), ("new", HELD_OUT_STACKS)):
    rng = world.generator(f"palm_e {name} stacks")
    these = draw_jobs(rng, run.jobs, forms=["on"], onto=pairs)
    reached[f"{name} stacks"] = success(planners["pictures"], these)
    reached[f"{name} stacks, blind"] = success(blindly(), these)

# %% alt="Bars of success for each planner with their 95% intervals; random and blind levels."
shares = {name: interval(ok) for name, ok in reached.items()}
levels = dict(chance=interval(at_random)[0], blind=interval(blind)[0])
values = {name: share for name, (share, _, _) in shares.items()}
spans = {name: (low, high) for name, (_, low, high) in shares.items()}
plots.bars(values, "goals reached, in closed loop", **levels, intervals=spans)
plt.show()

# %% tags=["nbval-ignore-output"]
wish = f"the goal is: {jobs.texts()[0]}. what is the next action?"
print("frozen, at work:", say(cold, asked_of(jobs.tables[[0]], [wish], "img", True))[0])
print("\n" + told[0].told, told[0].question)
for name, share in remembered.items():
    print(f"{name:10s}{share:4.0%} right, {chosen[name]:4.0%} if it chooses:", end=" ")
    print(examples[name])

# %% [markdown]
# (The lines are 95% intervals; dotted: the random planner and the blind one. "Another's": the observation is that of the next job;
# often the goal's blocks are not on its table then. "Stacks", from pictures: goals that put one block on another, a pair of colours that
# was seen stacked, or one that never was; compare these two with each other, and with their own blind planners.)
#
# **2. Does joint training help when examples are few?** Of each of three tasks there are few examples, as states. One model learns
# all three together. Three others learn one each, with a third of the steps, so that the compute of all three is the same; with all
# arms also with as many steps. All tasks share a part, the stacks said aloud: that is how one can help another here.

# %% tags=["nbval-ignore-output"]
TASKS = KINDS


def few(task: str) -> list[Sentence]:
    """The same few for everyone."""
    rng = world.generator(f"few {task}", lesson.seed)
    return experience(rng, 2 * run.few, [task], ["state"], sounds=0.0)[: run.few]


def again(sentences: Sequence[Sentence], name: str) -> Iterator[Experience]:
    """Over and over."""
    rng = world.generator(name, lesson.seed)
    while True:
        yield from batches(rng, sentences)


few_of = {task: few(task) for task in TASKS}
tests = {task: unseen(f"few test {task}", [task], run.jobs) for task in TASKS}
together = untrained()
all_of_them = [s for rows in few_of.values() for s in rows]
train(together, len(TASKS) * run.few_steps, "together", again(all_of_them, "together"))
joint, alone, alone_long = {}, {}, {}
for task, (some, asked) in tests.items():
    joint[task] = accuracy(together, some, asked, "state")[task]
    for found, times in ((alone, 1), (alone_long, len(TASKS)))[: 1 + lesson.all_arms]:
        single, stream = untrained(), again(few_of[task], task)
        train(single, times * run.few_steps, f"{task} alone", stream)
        found[task] = accuracy(single, some, asked, "state")[task]

# %% alt="A table of shares of right answers from few examples, by task: all tasks learned together, each alone, and the blind and chance levels."
table = torch.tensor(
    [[arm[task] for task in TASKS] for arm in (joint, alone, alone_long) if arm]
    + [[getattr(guess[task], level) for task in TASKS] for level in ("blind", "chance")]
)
longer = ["alone, as many steps"] if alone_long else []
names = ["together", "each alone", *longer, "blind", "chance"]
plots.heatmap(table, names, TASKS, "right, from few examples", limits=(0, 1))
plt.show()

# %% tags=["nbval-ignore-output"]
rate = {name: share for name, (share, _, _) in shares.items()}
lesson.record(
    "a finetuned language model reaches more goals than a frozen one",
    finetuned=rate["states"],
    frozen=rate["states, frozen LM"],
    finetuned_pictures=rate["pictures"],
    frozen_pictures=rate["pictures, frozen LM"],
    pictures_and_sounds=rate["pictures and sounds"],
    another_picture=rate["another's picture"],
    another_sound=rate["another's sound"],
    new_stacks=rate["new stacks"],
    seen_stacks=rate["seen stacks"],
    chance=levels["chance"],
    blind=levels["blind"],
)
if lesson.all_arms:
    lesson.record(
        "saying aloud what it sees makes a small model a better planner",
        aloud=rate["states"],
        at_once=rate["states, at once"],
        aloud_pictures=rate["pictures"],
        at_once_pictures=rate["pictures, at once"],
        frozen_aloud=rate["states, frozen"],
        frozen_aloud_pictures=rate["pictures, frozen"],
        chance=levels["chance"],
        blind=levels["blind"],
    )
lesson.record(
    "a frozen language model forgets nothing, a finetuned one does",
    frozen=remembered["frozen"],
    finetuned=remembered["finetuned"],
    before=remembered["before"],
    finetuned_choosing=chosen["finetuned"],
    before_choosing=chosen["before"],
)
longer = {f"{task}_as_many_steps": share for task, share in alone_long.items()}
lesson.record(
    "joint training helps when examples are few, at equal compute",
    together=mean(joint.values()),
    alone=mean(alone.values()),
    **{f"{task}_together": joint[task] for task in TASKS},
    **{f"{task}_alone": alone[task] for task in TASKS},
    **longer,
    chance=sum(guess[task].chance for task in TASKS) / len(TASKS),
    blind=sum(guess[task].blind for task in TASKS) / len(TASKS),
)
lesson.expect(remembered["frozen"] - remembered["before"], at_least=0, at_most=0)
lesson.expect(rate["pictures"], at_least=0.5, what="goals reached, from pictures")
gap = rate["pictures"] - rate["another's picture"]
lesson.expect(gap, at_least=0.25, what="the gain from its own picture")
gap = rate["states"] - levels["blind"]
lesson.expect(gap, at_least=0.15, what="the gain over the blind planner")

# %% tags=["nbval-ignore-output"] alt="Bars: goals reached from states and pictures, finetuned and frozen, and with another's picture and sound, with a dot for each stored seed; the random and the blind planner."
over = lesson.stored("a finetuned language model reaches more goals than a frozen one")
keys = {
    "states": "finetuned",
    "pictures": "finetuned_pictures",
    "pictures and sounds": "pictures_and_sounds",
    "another's picture": "another_picture",
    "another's sound": "another_sound",
    "states, frozen LM": "frozen",
    "pictures, frozen LM": "frozen_pictures",
}
values = {name: over.get(key) or [rate[name]] for name, key in keys.items()}
plots.bars(values, "goals reached", **levels, highlight=list(keys)[:3])
plt.show()
print(lesson.verdict())

# %% [markdown]
# **What it says.** Finetuned, it reaches most of its goals, slips and all: from pictures about as many as from states, and also when
# a block is not named but sounded. Shown another's table, or played another's sound, it falls below the planner that looks at
# nothing: so it does look, and listen. Goals with stacks that it never
# saw are reached less often than those with seen ones, and more often than blindly.
#
# **Frozen**, the language model forgets nothing, and does not learn to plan, neither in the form of its own texts nor (all arms)
# aloud. This is where toy and paper part. In the paper's table 2 a frozen model is far behind as well; but in planning, table 1,
# frozen ones do well. PaLM has read enough to be steered by a few vectors, ours has not.
#
# **Finetuned**, it has lost its old trade: asked about a scene in words, it tells of blocks (see above). Made to choose among the known
# answers it is right more often (printed above). So a part of the loss is habit, and another part is knowledge.
#
# **Aloud** (all arms, one seed so far): the same model, trained to answer at once for the same compute, is no better than the blind
# planner. Our reading, not measured: several small looks, one after the other, are easier to learn than one that must do everything.
#
# **Few examples**: at equal compute the joint one is ahead in the mean. But each task alone, for as many steps (all arms, one seed), is as
# good or better: in that run, what looks like one task helping another was a matter of steps, perhaps of those in which the
# shared sentence, the stacks, is learned. So this is **not the paper's finding**. Its gain comes from other robots and from the web, which is the more surprising
# kind, and is not tested here.
#
# ## Paper and toy
#
# | | paper | here |
# | --- | --- | --- |
# | language model | PaLM: 8B, 62B, 540B (section 5) | the course's decoder, which has read texts of this world only |
# | image encoder | ViT-4B or ViT-22B, trained before; also a ViT from scratch (section 4) | the course's CLIP |
# | objects | masked by ground truth, or found by OSRT, the best of table 1: 82.5% | the masked one is built, not trained |
# | together | 12B, 84B and 562B | printed above |
# | states | vectors of poses, sizes, colours (section 4) | place, height, colour and touch of each block |
# | what it says | the next step | what it sees, aloud, then the next step |
# | what it remembers | the steps so far stand in the prompt (section 6) | nothing: it looks again |
# | sounds | none | the course's addition |
# | robots | tasks and motions, table pushing, a mobile kitchen robot (section 6) | four places and a gripper, exactly simulated |
# | skills | other policies carry out the words | the simulator carries out the words, and lets things slip |
# | data | 8.9% about robots, most of the rest from the web (section 5) | all about the robot |
# | measured by | success at the task; VQA scores | the simulator's final table |
#
# What the paper found: with 320 examples a task, task and motion planning goes from 30.6% (planning 1, one robot's data) to 74.1% when
# trained on the full mixture (table 1, ViT-4B, frozen language model). On the table-pushing task a frozen language model reaches 20.0%,
# a trained one 80.0% (table 2, task 1, full mixture, 12B). In planning (table 1) the language models are frozen, and do well. And forgetting is a matter of size: of its scores at writing the 12B model loses 87.3%,
# the 562B one 3.9% (section 6.6, figure 6). That last point a toy cannot show: ours has one size, and it is small.
#
# ## Exercises
#
# Write your answer over the `raise`; the next line says whether it is right, and if it is not, what you may have mixed up.
#
# ### Exercise 1: How many places? ●○○ 5 minutes
#
# Write `places(text, tokens)`: how many places the observations take that the text names. `tokens` says for each kind how many
# one takes; names are like `<img>` and `<img_2>`, and one may come twice.


# %%
def places(text: str, tokens: Mapping[str, int]) -> int:
    raise NotImplementedError


# %%
one_takes = {"img": 16, "obj": 2, "object": 1, "state": 4}
find = lambda text: re.findall(r"<([a-z]+)(?:_\d+)?>", text)
check(
    "Exercise 1",
    places,
    (("<img>what is this?", one_takes), 16),
    (("object 1 is <obj_1>. object 2 is <obj_2>. <state>what now?", one_takes), 8),
    (("was <img_1>before <img_2>or after <img_1>?", one_takes), 48),
    (("what now?", one_takes), 0),
    (("<obj_1>on <object>?", one_takes), 3),
    mistakes={
        "a name that comes twice takes its places twice": lambda text, tokens: sum(
            tokens[name.split("_")[0]] for name in set(re.findall(r"<(\w+)>", text))
        ),
        "each kind counts, and each name of it": lambda text, tokens: sum(
            tokens[kind] for kind in set(find(text))
        ),
        "an observation takes as many places as its encoder gives vectors": (
            lambda text, tokens: len(find(text))
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def places(text: str, tokens: Mapping[str, int]) -> int:
#     names = re.findall(r"<([a-z]+)(?:_\d+)?>", text)
#     return sum(tokens[name] for name in names)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 2: Say only what can be done ●●○ 15 minutes
#
# A planner before PaLM-E, SayCan, asks two models: the language model how likely each action is as the next thing to say, the robot how
# likely it is to succeed. Write `grounded(says, can)`: from log-probabilities of the words `says` (B, actions) and probabilities `can`
# (B, actions), the index of the action with the largest product for each row; -1 where nothing can be done at all.


# %%
def grounded(says: Tensor, can: Tensor) -> Tensor:
    raise NotImplementedError


# %%
says = torch.tensor([[-0.1, -3.0, -2.5], [-0.1, -3.0, -2.5], [-1.0, -2.0, -9.0]])
can = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.5, 0.9], [0.0, 0.0, 0.0]])
check(
    "Exercise 2",
    grounded,
    ((says, can), torch.tensor([0, 2, -1])),
    ((says[:1], torch.tensor([[0.8, 0.9, 0.9]])), torch.tensor([0])),
    mistakes={
        "where nothing can be done the answer is -1": lambda s, c: (
            (s.exp() * c).argmax(-1)
        ),
        "the words' numbers are logarithms: exp first": lambda s, c: torch.where(
            c.sum(-1) > 0, (s * c).argmax(-1), -1
        ),
        "likely to be said matters, not only possible": lambda s, c: torch.where(
            c.sum(-1) > 0, c.argmax(-1), -1
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def grounded(says: Tensor, can: Tensor) -> Tensor:
#     both = says.exp() * can
#     return torch.where(can.sum(-1) > 0, both.argmax(-1), -1)
# ```
# With a perfect `can` (an oracle) SayCan reaches 38.7% on the paper's first planning task (table 1): it knows what is possible, and
# does not see what is there.
#
# </details>

# %% [markdown]
# ### Exercise 3: How sure are we? ●●○ 15 minutes
#
# Two planners tried the same goals with the same luck. Write `better(one, other)` for two rows of booleans: how many
# goals only the first reached, how many only the second, and the difference of their shares of success. (Goals that both or neither reached say nothing about
# who is better: that is what McNemar's test is about.)


# %%
def better(one: Tensor, other: Tensor) -> tuple[int, int, float]:
    raise NotImplementedError


# %%
one = torch.tensor([True, True, False, True, False, True, True, False])
other = torch.tensor([True, False, True, False, False, False, True, False])
check(
    "Exercise 3",
    better,
    ((one, other), (3, 1, 0.25)),
    ((other, one), (1, 3, -0.25)),
    mistakes={
        "only the first: the other one did not reach it": lambda a, b: (
            int(a.sum()), int(b.sum()), float(a.float().mean() - b.float().mean())
        ),
        "first those that only the first reached": lambda a, b: (
            int((b & ~a).sum()), int((a & ~b).sum()),
            float(a.float().mean() - b.float().mean()),
        ),
        "the difference of shares is out of all goals": lambda a, b: (
            int((a & ~b).sum()), int((b & ~a).sum()),
            float(((a & ~b).sum() - (b & ~a).sum()) / (a != b).sum()),
        ),
    },
)  # fmt: skip

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def better(one: Tensor, other: Tensor) -> tuple[int, int, float]:
#     gain = one.float().mean() - other.float().mean()
#     return int((one & ~other).sum()), int((other & ~one).sum()), float(gain)
# ```
# Try it: `better(*(torch.tensor(reached[name]) for name in ("states", "states, frozen LM")))`. The luck is the same for both;
# that makes the comparison sharper than two intervals side by side.
#
# </details>
