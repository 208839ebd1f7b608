# %% [markdown] header="llava"

# %% [markdown]
# In the spring of 2023 there were models that saw well and models that talked well, and to join them one built clever
# machinery: resamplers, queries, gated layers. LLaVA took **one matrix**. Each patch that CLIP has seen is multiplied by
# it and is then, for all the language model knows, a word. The second idea was about data: of people who instruct an assistant
# about images there was none, so a language model wrote it, *without seeing the images*, from descriptions in words. Much of
# what came after LLaVA is a variation of it.
#
# **You will be able to**
# - build LLaVA from a vision encoder and a language model that never met, and say what each place of its input holds;
# - turn a conversation into tokens and labels so that only the answers are learned;
# - make instruction data about pictures without looking at a picture;
# - train in two stages, say what each is for, and measure what it buys;
# - tell a model that looks from a model that guesses well.
#
# **You need** [00b · A language model](00b_language_model.ipynb) and [01 · CLIP](01_clip.ipynb): their finished models come in
# here. Training takes about three minutes on one core; plan an hour for the rest.

# %%
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm import backbones, plots, world
from minivlm.connectors.splice import splice
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.decoder import Decoder, DecoderConfig
from minivlm.language.generate import generate, pad_left
from minivlm.language.tokenizer import Tokenizer
from minivlm.vision.processor import normalize
from minivlm.vision.vit import VisionTransformer, ViTConfig

plots.use_style()
lesson = Lesson("06_llava")
run = lesson.choose(
    cpu=dict(stage_1=200, stage_2=260, batch=24, lr_1=1e-2, lr_2=2e-3, test=300),
    gpu=dict(stage_1=1000, stage_2=6000, batch=128, lr_1=5e-3, lr_2=1e-3, test=600),
    smoke=dict(stage_1=2, stage_2=2, batch=8, test=24),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# The image goes through CLIP, which is frozen. What comes out is a row of patches, each a vector. The matrix $W$ makes each as
# wide as a word of the language model. In the text, a placeholder `<image>` keeps as many places as there are patches; there
# the vectors are put. Then the language model reads on as ever.

# %% alt="Diagram: an image passes the frozen vision encoder and the matrix W and becomes four tokens; they stand among the words of a question; the language model reads the row, and its answer is learned."
ax = plots.diagram(9, 3.9)
row = ["user:", "", "", "", "", "what", "is", "this?", "assistant:", "a", "ring."]
x, middle = 0.2, {}
for i, word in enumerate(row):
    kind = "connector" if not word else "text" if i < 9 else "loss"
    width = 0.42 if not word else 0.3 + 0.09 * len(word)
    place = plots.box(ax, x, 1.5, width, 0.5, word, kind)
    plots.arrow(ax, place, (x + width / 2, 2.5))
    middle[i] = x + width / 2
    x += width + 0.08
plots.box(ax, 0.2, 2.5, x - 0.28, 0.6, "language model", "text")
center = (middle[1] + middle[4]) / 2
matrix = plots.box(ax, center - 0.4, 0.1, 0.8, 0.7, "W", "connector")
eye = plots.box(
    ax,
    center + 1.0,
    0.1,
    1.9,
    0.7,
    "CLIP, all but\nits last layer",
    "image",
    frozen=True,
)
image = plots.box(ax, center + 3.5, 0.1, 1.1, 0.7, "image", "image")
plots.arrow(ax, image, eye)
plots.arrow(ax, eye, matrix)
for i in range(1, 5):
    plots.arrow(ax, (center, 0.8), (middle[i], 1.5))
note = (
    "only the answer (pink) is learned;"
    " image tokens are words to read, never to write"
)
ax.text(0.2, 3.45, note, ha="left", va="center")
plt.show()

# %% [markdown]
# ## Build
#
# ### The two that never met
#
# The course ships a CLIP that was trained on pictures and captions of our world, and a language model that has read a great
# deal about it and never saw a picture. The paper took OpenAI's CLIP ViT-L/14 and Vicuna.

# %%
size = "gpu" if lesson.large and "language-gpu" in backbones.built() else "cpu"
seen_sizes, seen = backbones.read(f"vision-{size}")
read_sizes, read = backbones.read(f"language-{size}")
vision_config = ViTConfig(**seen_sizes["vision"])
language_config = DecoderConfig(**read_sizes)
tokenizer = backbones.world_tokenizer()
about = backbones.card(f"vision-{size}")
mean, std = about["pixel_mean"], about["pixel_std"]
print(f"{vision_config.grid**2} patches, {vision_config.width} wide, of", end=" ")
print(f"{vision_config.image_size} px pictures; words {language_config.width} wide")

# %% [markdown]
# ### The matrix
#
# What stands between them is called the **connector**. LLaVA's is one linear layer (equation 1; the code gives it a bias).
# LLaVA-1.5 will take two, with a GELU between: a number in the config.

# %% include="minivlm.connectors.projector:Projector"

# %%
for layers in (1, 2):
    connector = Projector(vision_config.width, language_config.width, layers)
    count = sum(p.numel() for p in connector.parameters())
    print(f"{layers} layer(s): {count:6d} numbers;", end=" ")
    patches = torch.zeros(1, vision_config.grid**2, vision_config.width)
    print(tuple(patches.shape), "->", tuple(connector(patches).shape))

# %% [markdown]
# ### Among the words
#
# The text keeps a place for each patch, marked with the id of `<image>`. First all ids become vectors; the placeholders' own
# vectors are then overwritten. So a picture can stand anywhere, and several can. It is the `splice` of
# [05 · PaLM-E](05_palm_e.ipynb), which came before; what is new is only that all of it is pictures.

# %%
words = torch.zeros(1, 7, 2)
places = torch.tensor([[False, True, True, False, True, True, False]])
two_images = torch.tensor([[[1.0, 1.0], [2.0, 2.0]], [[3.0, 3.0], [4.0, 4.0]]])
print(splice(words, places, two_images)[0, :, 0].tolist())
try:
    splice(words, places, two_images[:1])
except ValueError as error:
    print(error)

# %% [markdown]
# ### Who says what
#
# A conversation becomes one row of tokens. The words between the turns are Vicuna's (in small letters, because our language
# model reads no others): `user:`, `assistant:`, and an end-of-text token after each answer, which is how the model says that it has finished.
# The **labels** are made piece by piece together with the ids. (Making them afterwards, by looking for `assistant:` in the
# finished row, leads to the "tokenization mismatch" that users of the authors' code report: two tokenizations of one text
# need not agree.)

# %% include="minivlm.language.chat:Exchange, Chat"

# %% alt="A row of tokens: bos, user, four of the image's places, the question, assistant, and then the answer with its end, coloured because only they are learned."
chat = Chat(tokenizer, image_tokens=4, context=40)
turns = [("<image>\nwhat colour is the ring?", "red."), ("is it large?", "yes.")]
ids, labels = chat.encode(turns)
learned = [float(label != -100) for label in labels]
shown = [piece.replace("\n", "\\n") for piece in tokenizer.pieces(ids)]
plots.tokens(shown, learned, title="coloured: what the loss looks at")
plt.show()

# %% [markdown]
# ### LLaVA
#
# And that is the model. Two details are easy to miss. CLIP's **last layer is left out**: the patches are better one layer
# before (by 0.96 points on ScienceQA, the paper measures in table 8). A likely reason: after that layer only the class token
# is ever compared with a text, and nobody asks the patches for anything. And the **class token is dropped**.

# %% include="minivlm.models.llava:LLaVAConfig, Chats, LLaVA"

# %%
chat = Chat(tokenizer, vision_config.grid**2, language_config.context)
config = LLaVAConfig(vision_config, language_config, chat.image_id)


def untrained(pretrained_eye: bool = True, pretrained_words: bool = True) -> LLaVA:
    """Both parts as they came, and a matrix that knows nothing."""
    torch.manual_seed(lesson.seed)
    model = LLaVA(config)
    if pretrained_eye:
        eye = {k.removeprefix("vision."): v for k, v in seen.items() if "vision." in k}
        model.vision.load_state_dict(eye)
    if pretrained_words:
        model.language.load_state_dict(read)
    return model.to(lesson.device)


model = untrained()
parts = {
    "vision": model.vision,
    "connector": model.connector,
    "language": model.language,
}
for name, part in parts.items():
    print(f"{name:10s}{sum(p.numel() for p in part.parameters()):9,d} numbers")

# %%
released = {
    "7B": LLaVAConfig.llava_7b(),
    "13B": LLaVAConfig.llava_13b(),
    "ours": config,
}
for name, c in released.items():
    with torch.device("meta"):
        big = LLaVA(c)
    count = lambda module: sum(p.numel() for p in module.parameters())
    share = count(big.connector) / count(big)
    print(
        f"{name:5s}{count(big) / 1e6:9.1f} million, of which {share:.2%} join the two;",
        end="",
    )
    print(f" an image is {c.image_tokens} tokens")

# %% [markdown]
# ## Is it right?
#
# `data/reference/llava` holds a small LLaVA in the released file format, with random weights, and what the reference
# implementation (`transformers`) computes with it: two texts of different lengths, padded on the left, with an image each.
# We load it into the class of the cells above.

# %%
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.course.lesson import ROOT

folder = ROOT / "data" / "reference" / "llava"
sizes_there, weights = checkpoints.read(folder)
vision = ViTConfig(**sizes_there.pop("vision"))
language = DecoderConfig(**sizes_there.pop("language"))
reference = LLaVA(LLaVAConfig(vision, language, **sizes_there)).eval()
reference.load_state_dict(weights)
expected = load_file(folder / "expected.safetensors")

ids, keep = expected["input_ids"], expected["attention_mask"].bool()
with torch.no_grad():
    ours = {
        "image_features": reference.embed_image(expected["pixel_values"]),
        "logits": reference(ids, expected["pixel_values"], keep),
    }
for name, value in ours.items():
    there = expected[name]
    if name == "logits":  # what stands at padding means nothing
        value, there = value[keep], there[keep]
    equal = torch.allclose(value, there, rtol=0, atol=1e-5)
    print(f"{name:15s}{str(tuple(value.shape)):14s}equal to 1e-5: {equal}")

# %% [markdown]
# The same lines read a released folder such as `llava-hf/llava-1.5-7b-hf`. And some things must hold with any weights. These
# **probes** are asked of every model of the course that talks:

# %%
from minivlm.evaluation import probes

some = world.draw_scenes(world.generator("probes"), 3, objects=(1, 3))
pixels = normalize(world.render(some, vision_config.image_size), mean, std)
pixels = pixels.to(lesson.device)
talk = [
    [("<image>\n" + q, a)]
    for q, a in (
        ("what?", "a ring."),
        ("where is it?", "left."),
        ("is there a star?", "no."),
    )
]
ids, labels = (x.to(lesson.device) for x in chat.batch(talk, images=3))
_ = probes.run(model.eval(), Chats(pixels, ids, labels))

# %% [markdown]
# ## Train
#
# ### The writer who does not see
#
# The paper gave GPT-4 what people had written about an image (captions, and boxes as numbers), and asked it to write what a
# user might ask and an assistant who *sees* it would answer: 58,000 conversations, 23,000 detailed descriptions and
# 77,000 pieces of reasoning (section 3). Our writer is the world's grammar. It, too, gets words and no pixels:

# %%
from minivlm.world.instruct import Instructions
from minivlm.world.scenes import things

scenes = world.draw_scenes(world.generator("examples"), 40, objects=(2, 3))
write = Instructions(world.generator("writer"))
written = [write(these) for these in things(scenes)]
for kind in ("conversation", "detail", "reasoning"):
    dialogue = next(d for d in written if d.kind == kind)
    print(f"{kind}. The writer knows: {dialogue.told}")
    for question, answer in dialogue.turns:
        print(f"   user: {question}\n   assistant: {answer}")

# %% [markdown]
# ### Stage 1: learn to be read
#
# At first the matrix is noise, and the language model reads noise. If everything learned at once, the language model would
# bend to make sense of it. So first **only the matrix** learns, from pictures and their descriptions, while the language
# model holds still and tells it, by its gradients, what it would have liked to read. Each picture
# comes with one turn: somebody asks for a description and gets it (section 4.2).


# %%
def batches(scenes: world.Scenes, texts: Sequence[Any], rng) -> Iterator[Chats]:
    """Batches of conversations of like length, so that little is padding, in random
    order."""
    order = sorted(range(len(texts)), key=lambda i: len(str(texts[i])))
    starts = range(0, len(order), run.batch)
    for start in rng.permutation(list(starts)):
        rows = order[start : start + run.batch]
        images = world.render(
            scenes[rows], vision_config.image_size, device=lesson.device
        )
        ids, labels = chat.batch([texts[i] for i in rows], images=len(rows))
        ids, labels = ids.to(lesson.device), labels.to(lesson.device)
        yield Chats(normalize(images, mean, std), ids, labels)


def drawn(name: str, write_one) -> Iterator[Chats]:
    """Endless batches: scenes are drawn, and something is written about each."""
    rng = world.generator(name, lesson.seed)
    write = write_one(rng)
    while True:
        scenes = world.draw_scenes(rng, 16 * run.batch, objects=(1, 3))
        yield from batches(scenes, [write(these) for these in things(scenes)], rng)


# %%
from minivlm.evaluation.answers import by_kind, respond
from minivlm.training import fit, frozen
from minivlm.world.asking import ask

KINDS = ("colour", "shape", "count", "existence", "relation", "place")
TAUGHT = (*KINDS, "relation")  # the hardest is asked about twice as often


def converse(rng, kinds=("conversation",)):
    """Stage 2: dialogues; the image comes with the first question."""
    write = Instructions(rng, kinds, TAUGHT, turns=8)

    def one(these):
        (question, answer), *later = write(these).turns
        return [("<image>\n" + question, answer), *later]

    return one


def describe(rng):
    """Stage 1: all that is there, in words."""
    return converse(rng, ["detail"])


batch = next(drawn("look", describe))
print("stage 1:", tokenizer.decode(batch.ids[0]).replace("<image>", "·"))
batch = next(drawn("look", converse))
print("stage 2:", tokenizer.decode(batch.ids[0]).replace("<image>", "·"))

# %% [markdown]
# To watch the training: how many questions about unseen pictures does it answer right, word for word? Kinds and answers come
# equally often, so habit does not help much.


# %%
def pixels_of(scenes: world.Scenes) -> Tensor:
    images = world.render(scenes, vision_config.image_size, device=lesson.device)
    return normalize(images, mean, std)


def answers(
    model: nn.Module, scenes: world.Scenes, questions: Sequence[str]
) -> list[str]:
    asked = [[("<image>\n" + question, None)] for question in questions]
    return respond(model, chat, asked, pixels_of(scenes), max_new_tokens=8)


def accuracy(
    model: nn.Module, scenes: world.Scenes, rows: Sequence
) -> dict[str, float]:
    """Share of right answers, by kind and in the mean over kinds."""
    said = answers(model, scenes, [row.question for row in rows])
    found = by_kind(said, rows)
    return found | {"mean": sum(found.values()) / len(found)}


val_scenes, val_rows = ask(world.generator("validation"), run.test, KINDS)
watched = []


def watch(model: nn.Module) -> float:
    watched.append(accuracy(model, val_scenes, val_rows))
    return watched[-1]["mean"]


print(f"{len(val_rows)} questions; {', '.join(KINDS)}")

# %% tags=["nbval-ignore-output"]
no_decay = dict(weight_decay=0.0)  # as in the paper


def stage_1(model: LLaVA, steps: int, name: str = "stage 1") -> dict:
    """The matrix alone."""
    with frozen(model.vision, model.language):
        said = drawn("stage 1", describe)
        return fit(model, said, steps, run.lr_1, name=name, **no_decay)


losses_1 = stage_1(model, run.stage_1)["loss"]

# %% [markdown]
# What has the language model understood so far? It has never been trained on a single image, and it has not changed by one
# bit (`frozen` checks). It has only read, conversations too, in which a scene was *told* in words before the first question.
# So let us ask it as it was always asked. Only that now the telling is an image.

# %% alt="Share of right answers by kind after stage 1, and chance: colours and shapes are far above it."
from minivlm.world.questions import CHANCE

first = accuracy(model, val_scenes, val_rows)
rows = torch.tensor([[which[kind] for kind in KINDS] for which in (first, CHANCE)])
title = "right answers after stage 1"
plots.heatmap(rows, ["frozen words", "chance"], KINDS, title, limits=(0, 1))
plt.show()

# %% [markdown]
# Of colours and shapes much has come through: a matrix was enough to say *this patch is like the word red*. Of places next to
# nothing has; they are in no single patch.
#
# ### Stage 2: learn to converse
#
# Now matrix **and** language model learn, on dialogues. The vision encoder stays frozen.

# %% tags=["nbval-ignore-output"]
def stage_2(model: LLaVA, steps: int, write=converse, name: str = "stage 2") -> dict:
    """Matrix and language model."""
    watched.clear()
    with frozen(model.vision):
        said = drawn("stage 2", write)
        look = lambda: watch(model)
        return fit(model, said, steps, run.lr_2, evaluate=look, name=name, **no_decay)


history = stage_2(model, run.stage_2)
by_step = {kind: [found[kind] for found in watched] for kind in KINDS}

# %% alt="Left: the loss of stage 1 and then of stage 2 falls. Right: accuracy by kind over the steps of stage 2; counts and colours come first, relations last."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
smooth = lambda x: torch.tensor(x).unfold(0, min(10, len(x)), 1).mean(1)
one, two = smooth(losses_1), smooth(history["loss"])
lines = {
    "stage 1": (range(len(one)), one),
    "stage 2": (range(len(one), len(one) + len(two)), two),
}
plots.curves(lines, "loss, mean of ten", ax=left)
right.set_ylim(0, 1.02)
lines = {kind: (history["step"], values) for kind, values in by_step.items()}
chance = sum(CHANCE[kind] for kind in KINDS) / len(KINDS)
plots.curves(lines, "right, by kind", chance=chance, xlabel="step of stage 2", ax=right)
plt.show()

# %% [markdown]
# (The dotted line is chance in the mean over kinds.) Where things are, and how they stand to each other, comes last: no patch
# knows it alone.
#
# ## Look
#
# ### What it says about pictures
#
# Test pictures and questions are frozen files in `data/eval/`, the same for every model of the course.

# %% tags=["nbval-ignore-output"] alt="Eight test pictures, each with a question and LLaVA's answer, marked right or wrong."
from minivlm.world import frozen as eval_sets

test = eval_sets.load("questions").of(*KINDS)
test = test[list(range(min(len(test), 2 * run.test)))]
said = answers(model, test.samples, [row.question for row in test.rows])
right = [a.rstrip(".") == row.answer for a, row in zip(said, test.rows, strict=True)]
titles = [f"{row.question} {a}" for row, a in zip(test.rows, said, strict=True)]
first = list(range(8))
pictures = world.render(test.samples[first], 64)
plots.show_images(pictures, titles[:8], columns=4, size=2.2, right=right[:8])
plt.show()

# %% [markdown]
# ### What it gets wrong

# %% tags=["nbval-ignore-output"] alt="Eight test pictures with wrong answers of LLaVA; the right one is in brackets."
wrong = [i for i, good in enumerate(right) if not good][:8]
titles = [f"{test.rows[i].question} {said[i]} ({test.rows[i].answer})" for i in wrong]
if wrong:
    pictures = world.render(test.samples[wrong], 64)
    plots.show_images(pictures, titles, columns=4, size=2.2, right=[False] * len(wrong))
    plt.show()

# %% [markdown]
# ### Where it looks
#
# The place that is about to say the answer's first word takes something from every place before it. How much from each patch?
# Below, the mean over the heads of each layer, for two questions about **one** picture.

# %% alt="One picture with a star and a ring, twice; for each of two questions the attention of four layers to the 16 patches."
from minivlm.evaluation.attention_maps import attention_maps

asked = ["what colour is the star?", "what colour is the ring?"]
for colours in (
    ("red", "blue"),
    ("green", "orange"),
    ("pink", "black"),
    ("yellow", "red"),
):
    two = world.compose(
        dict(colour=colours[0], shape="star", x=0.25, y=0.3, size=0.2),
        dict(colour=colours[1], shape="ring", x=0.75, y=0.7, size=0.22),
    )
    given = [answers(model, two, [question])[0] for question in asked]
    if given == [f"{colour}." for colour in colours]:
        break  # one that it gets right
grid, layers = vision_config.grid, language_config.layers
fig, axes = plt.subplots(2, layers, figsize=(9, 4.8))
for question, answer, row in zip(asked, given, axes, strict=True):
    prompt = [[("<image>\n" + question, None)]]
    ids, _ = (x.to(lesson.device) for x in chat.prompts(prompt, images=1))
    with torch.no_grad():
        embeddings = model.embed(ids, pixels_of(two))
    maps = attention_maps(model.language, embeddings=embeddings)[:, 0].mean(1)
    patches = maps[:, -1, (ids[0] == chat.image_id)]
    for layer, ax in enumerate(row):
        title = f"layer {layer + 1}" if layer else ""
        plots.overlay(
            world.render(two, 64)[0], patches[layer].view(grid, grid), ax, title
        )
    row[0].set_title(f"{question} {answer}\nlayer 1", loc="left")
plt.show()

# %% [markdown]
# (Attention shows where something was *read*, not what was done with it. Each patch has also read the patches before it, so
# the last layers may look anywhere.)
#
# ## The claim
#
# **Two stages are better than one.** The paper leaves stage 1 out and loses 5.11 points on ScienceQA (table 8: 85.81
# instead of 90.92). Here: the same model, with the same start, the same data and learning rate, but stage 2 alone. For
# **equal compute** the operations of stage 1 are spent on more steps of stage 2.

# %% tags=["nbval-ignore-output"]
from torch.utils.flop_counter import FlopCounterMode


def flops(model: LLaVA, write, parts: Sequence[nn.Module], batches: int = 16) -> float:
    """Mean floating-point operations of a step when only `parts` learn."""
    stream, total = drawn("flops", write), 0
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    for _ in range(batches):
        with FlopCounterMode(display=False) as counter:
            model.loss(next(stream)).backward()
        total += counter.get_total_flops()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    return total / batches


cost_1 = flops(model, describe, [model.connector])
cost_2 = flops(model, converse, [model.connector, model.language])
equal = run.stage_2 + round(run.stage_1 * cost_1 / cost_2)
print(f"stage 1: {run.stage_1} steps of {cost_1 / 1e9:.1f} GFLOP")
print(f"stage 2: {run.stage_2} steps of {cost_2 / 1e9:.1f} GFLOP")
print(f"stage 2 alone, equal compute: {equal} steps")

# %% tags=["nbval-ignore-output"]
one_stage = untrained()
_ = stage_2(one_stage, equal, name="stage 2 alone")

# %% [markdown]
# Other arms are trained with `MINIVLM_ARMS=all` only, because each takes as long again: stage 2 alone with *as many steps of
# stage 2*; the two parts of the data by themselves (**captions only** in stage 2, and all three kinds of dialogues); and
# two controls, a language model that **never read anything** and an eye that **never saw anything**, both trained in the
# same two stages. And three that cost nothing: the trained model with **another picture** than the one asked about, with a
# **blank** one, and the best guess from the question's words (**blind**).

# %% tags=["nbval-ignore-output"]
from minivlm.world import levels


def two_stages(model: LLaVA, write, name: str) -> LLaVA:
    stage_1(model, run.stage_1, f"{name}, 1")
    stage_2(model, run.stage_2, write, f"{name}, 2")
    return model


arms = {"two stages": model, "stage 2 alone": one_stage}
if lesson.all_arms:
    arms["stage 2 alone, equal steps"] = untrained()
    stage_2(arms["stage 2 alone, equal steps"], run.stage_2, name="equal steps")
    caption = lambda rng: converse(rng, ["detail"])
    arms["captions only"] = two_stages(untrained(), caption, "captions")
    mixed = lambda rng: converse(rng, ["conversation", "detail", "reasoning"])
    arms["all kinds of dialogues"] = two_stages(untrained(), mixed, "all kinds")
    fresh = untrained(pretrained_words=False)
    arms["a fresh language model"] = two_stages(fresh, converse, "fresh words")
    newborn = untrained(pretrained_eye=False)
    arms["an untrained eye"] = two_stages(newborn, converse, "new eye")

# %%
final = eval_sets.load("questions").of(*KINDS)
final = final[list(range(min(len(final), 40 * run.test)))]
found = {name: accuracy(arm, final.samples, final.rows) for name, arm in arms.items()}

asked = [[("<image>\n" + row.question, None)] for row in final.rows]
images = pixels_of(final.samples)
blank = torch.full_like(images, images.mean().item())
for name, other in {
    "another picture": images.roll(7, 0),
    "a blank picture": blank,
}.items():
    told = by_kind(respond(model, chat, asked, other, max_new_tokens=8), final.rows)
    found[name] = told | {"mean": sum(told.values()) / len(told)}
stored = levels.stored()["questions"]
for name in ("blind", "chance"):
    level = {kind: getattr(stored[kind], name) for kind in KINDS}
    found[name] = level | {"mean": sum(level.values()) / len(level)}

# %% alt="A table of accuracy by kind of question: two stages, stage 2 alone, other pictures, blind and chance."
columns = [*KINDS, "mean"]
table = torch.tensor([[row[kind] for kind in columns] for row in found.values()])
plots.heatmap(table, list(found), columns, "share of right answers", limits=(0, 1))
plt.show()

# %% tags=["nbval-ignore-output"]
average = {name: row["mean"] for name, row in found.items()}
levels_of = dict(blind=average["blind"], chance=average["chance"])
looked = dict(another=average["another picture"], blank=average["a blank picture"])
measured = dict(
    two_stages=average["two stages"], stage_2_alone=average["stage 2 alone"]
)
if lesson.all_arms:
    others = (
        "stage 2 alone, equal steps",
        "a fresh language model",
        "an untrained eye",
    )
    measured |= {
        name.replace(",", "").replace(" ", "_"): average[name] for name in others
    }
lesson.record(
    "two stages are better than one, at equal compute",
    **measured,
    **looked,
    **levels_of,
)
if lesson.all_arms:
    dialogues, captions = average["all kinds of dialogues"], average["captions only"]
    one = dict(all_dialogues=dialogues, captions_only=captions)
    alone = dict(conversations_only=average["two stages"])
    lesson.record(
        "dialogues teach to answer, captions do not", **one, **alone, **levels_of
    )

lesson.expect(average["two stages"], at_least=0.6, what="LLaVA's accuracy")
gap = average["two stages"] - average["another picture"]
lesson.expect(gap, at_least=0.25, what="the gain from looking at the right picture")

# %% tags=["nbval-ignore-output"] alt="Bars for the arms of the claim, with a dot for each stored seed, and levels of chance and of the best blind guess."
over_seeds = lesson.stored("two stages are better than one, at equal compute")
names = {"two stages": "two_stages", "stage 2 alone": "stage_2_alone"}
names |= {name: name.replace(",", "").replace(" ", "_") for name in
          ("stage 2 alone, equal steps", "a fresh language model", "an untrained eye")
          if name.replace(",", "").replace(" ", "_") in over_seeds}  # fmt: skip
values = {name: over_seeds.get(key) or [measured[key]] for name, key in names.items()}
values["another picture"] = over_seeds.get("another") or [looked["another"]]
label = "right answers, mean over kinds"
plots.bars(values, label, highlight="two stages", **levels_of)
plt.show()
print(lesson.verdict())

# %% [markdown]
# **What it says.** The first stage is worth its compute here too: the same operations, spent on more of stage 2, buy less. The
# controls say what the success is owed to. With a language model that never read anything, the same two stages come not far
# above the blind level in this time: most of what LLaVA can do, its language model could do before, from text. With an eye
# that never saw anything it is better off than that: what a random layer makes of a patch still depends on the patch, and the
# matrix and the language model learn to read it.
#
# **Captions only** ends below a blind guess, and that is a matter of form as well: whatever one asks, it mostly describes the
# picture, which may contain the answer and is not it. That is the paper's point about instruction data, in its crudest shape. What does *not*
# show here is that more kinds of dialogues help: at the same number of steps, long descriptions and reasoning take the
# place of short questions, and short questions are what is measured.
#
# **What this little training does not buy** is places: compare their column with the others. They need what no single patch
# holds. Does more of stage 2 help? `run.stage_2` is yours to change.
#
# ## Paper and toy
#
# | | paper | here |
# | --- | --- | --- |
# | vision encoder | CLIP ViT-L/14 at 224 px, frozen (section 4.1) | the course's CLIP at 32 px, frozen |
# | language model | Vicuna | the course's decoder, which has read texts of this world only |
# | connector | one linear layer | the same |
# | stage 1 | 595,000 captions of CC3M, learning rate 2e-3, one epoch (section 4.2) | an endless stream of descriptions |
# | stage 2 | 158,000 dialogues, learning rate 2e-5, three epochs | an endless stream of dialogues |
# | who wrote them | GPT-4, from captions and boxes | a grammar, from the scene's description |
# | measured by | a GPT-4 judge; ScienceQA | the right word, by kind of question |
#
# The learning rates are larger than the paper's, that of stage 2 by far: a language model of a million numbers has less to
# lose.
# And our pictures have no noise, our answers no choice of words: what the judge of the paper rewards cannot show here.
#
# What an image costs inside the language model, computed:

# %%
header = f"{'':6s}{'tokens':>7s}{'GFLOP to read':>15s}{'cache, KiB':>12s}"
print(header)
for name, c in released.items():
    n, words = c.image_tokens, c.language
    with torch.device("meta"):
        reader = Decoder(words)
        with FlopCounterMode(display=False) as counter:
            reader.features(embeddings=torch.zeros(1, n, words.width))
    gflop = counter.get_total_flops() / 1e9
    number_bytes = 4 if name == "ours" else 2
    cache = 2 * number_bytes * words.layers * words.kv_heads * words.hd * n / 1024
    print(f"{name:6s}{n:7d}{gflop:15.2f}{cache:12,.0f}")

# %% [markdown]
# ## Exercises
#
# Write your answer over the `raise`; the next line says whether it is right, and if it is not, what you may have mixed up.
#
# ### Exercise 1: How many pictures fit? ●○○ 5 minutes
#
# Write `pictures_that_fit(config, words)`: with how many pictures a conversation of so many words (all tokens that are not
# a picture's) still fits into the language model's context. Then see for yourself what LLaVA 7B can look at at once.


# %%
def pictures_that_fit(config: LLaVAConfig, words: int) -> int:
    raise NotImplementedError


# %%
check(
    "Exercise 1",
    pictures_that_fit,
    ((LLaVAConfig.llava_7b(), 200), 7),
    ((LLaVAConfig.llava_7b(), 256), 7),
    ((LLaVAConfig.llava_7b(), 257), 6),
    mistakes={
        "the class token is dropped: 256 places, not 257": lambda c, w: (
            (c.language.context - w) // (c.vision.grid**2 + 1)
        ),
        "a picture takes the patches of its rows times those of its columns": (
            lambda c, w: (c.language.context - w) // c.vision.grid
        ),
        "the words take places too": lambda c, w: (
            c.language.context // c.vision.grid**2
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def pictures_that_fit(config: LLaVAConfig, words: int) -> int:
#     return (config.language.context - words) // config.image_tokens
# ```
# Seven. That is why later models compress what a picture becomes (notebooks 04, 08, 13).
#
# </details>

# %% [markdown]
# ### Exercise 2: Cut and join ●●○ 15 minutes
#
# The authors' code does not keep places. It has *one* token for an image, cuts the text there, and joins the pieces with the
# image's vectors between them, so that the row becomes longer. Write it for one row: `embeddings` (T, D), `at` the index of
# each image token in increasing order, `features` (images, N, D). The image tokens' own vectors disappear.


# %%
def cut_and_join(embeddings: Tensor, at: list[int], features: Tensor) -> Tensor:
    raise NotImplementedError


# %%
row = torch.arange(6.0)[:, None] * torch.ones(1, 2)
images = torch.tensor([[[10.0] * 2, [11.0] * 2], [[20.0] * 2, [21.0] * 2]])


def joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts))


check(
    "Exercise 2",
    cut_and_join,
    ((row, [1, 4], images), joined([row[:1], images[0], row[2:4], images[1], row[5:]])),
    ((row, [0], images[:1]), joined([images[0], row[1:]])),
    ((row, [5], images[1:]), joined([row[:5], images[1]])),
    mistakes={
        "the image token's own vector must go": lambda e, at, f: joined(
            [x for i in range(len(e))
             for x in ([e[i : i + 1], f[at.index(i)]] if i in at else [e[i : i + 1]])]
        ),  # fmt: skip
        "the images are in the wrong order": lambda e, at, f: joined(
            [f.flip(0)[at.index(i)] if i in at else e[i : i + 1] for i in range(len(e))]
        ),
        "the text after the last image is missing": lambda e, at, f: joined(
            [f[at.index(i)] if i in at else e[i : i + 1] for i in range(at[-1] + 1)]
        ),
    },
    hints="torch.cat takes pieces of any length, empty ones too",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cut_and_join(embeddings: Tensor, at: list[int], features: Tensor) -> Tensor:
#     pieces, start = [], 0
#     for place, image in zip(at, features, strict=True):
#         pieces += [embeddings[start:place], image]
#         start = place + 1
#     return torch.cat([*pieces, embeddings[start:]])
# ```
# In a batch the rows now have different lengths and must be padded once more, and labels and masks must be cut and joined in
# just the same way. Keeping places from the start avoids both.
#
# </details>

# %% [markdown]
# ### Exercise 3: Image last ●●○ 20 minutes
#
# In the paper the first turn is the image and then the question, or the question and then the image, at random (equation 2).
# Write `image_last(turns)`: a conversation like those of `converse`, with `<image>` and its line break moved behind the first
# question. Then measure: does the model, which has always seen the image first, still answer? And if it is trained on both?


# %%
def image_last(turns: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    raise NotImplementedError


# %%
one = [("<image>\nis it red?", "yes."), ("why?", None)]
check(
    "Exercise 3",
    image_last,
    ((one,), [("is it red?\n<image>", "yes."), ("why?", None)]),
    (([("<image>\nwhat?", None)],), [("what?\n<image>", None)]),
    mistakes={
        "only the first turn has the image": lambda turns: [
            (q.removeprefix("<image>\n") + "\n<image>", a) for q, a in turns
        ],
        "the line break stands between question and image": lambda turns: [
            (turns[0][0].removeprefix("<image>\n") + "<image>", turns[0][1]), *turns[1:]
        ],
        "the image is still first, too": lambda turns: [
            (turns[0][0] + "\n<image>", turns[0][1]), *turns[1:]
        ],
    },
)  # fmt: skip

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def image_last(turns: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
#     (question, answer), *later = turns
#     return [(question.removeprefix("<image>\n") + "\n<image>", answer), *later]
# ```
# To measure: `respond(model, chat, [image_last(c) for c in asked], pixels_of(final.samples))`, with `asked` from the claim.
# What an order costs that was never trained is worth seeing before you trust any model with a prompt of your own.
#
# </details>

# %% [markdown]
# ### Ask it yourself
#
# Any picture of up to three things, any questions of the kinds above, one after the other: what was said before stays in the
# prompt. The world's words are in `world.vocabulary()`; others are spelled letter by letter, and it has never read them.

# %% tags=["nbval-ignore-output"] alt="The picture that the conversation is about, composed by hand."
picture = world.compose(
    dict(colour="green", shape="moon", x=0.25, y=0.7, size=0.22),
    dict(colour="orange", shape="square", x=0.7, y=0.3, size=0.2),
)
questions = [
    "what colour is the moon?",
    "how many things are there?",
    "is there a ring?",
]

turns = []
for question in questions:
    said = question if turns else "<image>\n" + question
    answer = respond(model, chat, [[*turns, (said, None)]], pixels_of(picture))[0]
    turns.append((said, answer))
    print(f"user: {question}\nassistant: {answer}")
plots.show_images(world.render(picture, 128), size=2.2)
plt.show()
