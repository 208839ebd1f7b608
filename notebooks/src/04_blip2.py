# %% [markdown] header="blip2"

# %% [markdown]
# By 2023 there were excellent vision encoders, and excellent language models, and to train a large model of both at once cost
# more than almost anybody had. BLIP-2 touches neither. Between them it puts a small translator with a few **learned
# queries**: they ask the image, and what they have found is handed to the language model as if it were words. A language
# model that has never seen anything, so the paper holds, is a poor teacher of seeing. So the translator goes to school first,
# without it: with pictures, texts, and three tasks that differ above all in **who may see whom**. Whether school pays here, we
# shall measure.
#
# **You will be able to**
# - build a Q-Former, and say of each of its parts who uses it: queries, text or both;
# - draw the masks of its three tasks cell by cell, and say what would leak if two were mixed up;
# - train a translator between two models that are frozen to the last bit, in two stages;
# - measure what the first stage is worth, at equal compute and at equal steps;
# - say what an image costs a language model, whatever its resolution.
#
# **You need** [02 · BLIP](02_blip.ipynb): the same three tasks, cross-attention and hard negatives come from there. The training cells
# are made for about two minutes on one core; plan an hour for the rest.

# %%
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm import backbones, plots, world
from minivlm.connectors.splice import splice
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.decoder import Decoder, DecoderConfig, init_normal
from minivlm.language.generate import generate, pad_left
from minivlm.models.blip import begin, blip_vit
from minivlm.models.clip import Pairs
from minivlm.nn.attention import Attention, causal_mask
from minivlm.nn.contrast import hard_negatives
from minivlm.nn.cross_attention import CrossAttention
from minivlm.nn.grouped_query import KVCache
from minivlm.nn.transformer import MLP
from minivlm.vision.processor import normalize
from minivlm.vision.vit import VisionTransformer, ViTConfig

plots.use_style()
lesson = Lesson("04_blip2")
run = lesson.choose(
    cpu=dict(queries=8, width=64, layers=4, stage_1=400, stage_2=200, batch_1=24,
             batch_2=24, lr_1=4e-3, lr_2=1e-3, lr_linear=1e-2, test=300),
    gpu=dict(queries=16, width=192, layers=6, stage_1=4000, stage_2=4000, batch_1=128,
             batch_2=128, lr_1=1e-3, lr_2=5e-4, lr_linear=5e-3, test=600),
    smoke=dict(stage_1=2, stage_2=2, batch_1=8, batch_2=8, test=24),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# The vision encoder and the language model are frozen (hatched). What learns is between them. Stage 1 (left) needs no
# language model: queries and a text stand side by side in one small transformer, the **Q-Former**, and only the queries look
# at the image. Stage 2 (right) takes the queries over, leaves the text out, and puts what they have found before the words of the language
# model, after one linear layer.

# %% alt="Diagram. Left, stage 1: an image passes the frozen vision encoder; queries in the Q-Former look at it, beside them stands a text; three losses ITC, ITM and ITG. Right, stage 2: the same image and queries, then a linear layer, then the frozen language model, which writes the text."
ax = plots.diagram(9, 4.0)


def seeing(x: float, title: str):
    """Image, eye and queries, at x; the Q-Former's box ends at the queries' right."""
    ax.text(x, 3.8, title, ha="left", va="center", weight="bold")
    image = plots.box(ax, x, 0.1, 0.9, 0.6, "image", "image")
    eye = plots.box(ax, x + 1.3, 0.1, 1.3, 0.6, "vision\nencoder", "image", frozen=True)
    plots.arrow(ax, image, eye)
    return eye


eye = seeing(0.1, "stage 1: learn to find what texts say")
plots.box(ax, 0.1, 1.5, 3.9, 0.8, "", "connector")
ax.text(0.2, 2.42, "Q-Former", ha="left", va="bottom")
for i in range(4):
    plots.box(ax, 0.3 + 0.55 * i, 1.7, 0.45, 0.4, f"q{i + 1}", "connector")
    plots.arrow(ax, (1.95, 0.7), (0.52 + 0.55 * i, 1.5))
plots.box(ax, 2.75, 1.7, 1.1, 0.4, "a red star", "text")
for task, x in (("ITC", 1.3), ("ITM", 2.3), ("ITG", 3.3)):
    loss = plots.box(ax, x - 0.4, 2.95, 0.8, 0.5, task, "loss")
    plots.arrow(ax, (x, 2.3), loss)

eye = seeing(4.6, "stage 2: learn to be read")
plots.box(ax, 4.8, 1.5, 2.5, 0.8, "", "connector")
ax.text(4.9, 2.42, "Q-Former, without text", ha="left", va="bottom")
for i in range(4):
    plots.box(ax, 4.98 + 0.55 * i, 1.7, 0.45, 0.4, f"q{i + 1}", "connector")
    plots.arrow(ax, (6.45, 0.7), (5.2 + 0.55 * i, 1.5))
linear = plots.box(ax, 7.6, 1.65, 0.7, 0.5, "linear", "connector")
plots.arrow(ax, (7.3, 1.9), linear)
words = plots.box(ax, 5.3, 2.85, 3.6, 0.6, "language model", "text", frozen=True)
plots.arrow(ax, linear, (7.95, 2.85))
plots.box(ax, 8.45, 1.7, 0.5, 0.4, "text", "text")
plots.arrow(ax, (8.7, 2.1), (8.7, 2.85))
plt.show()

# %% [markdown]
# ## Build
#
# ### Two strangers
#
# The eye is the course's CLIP, the language model has read about our world and never saw it. As in the paper, the eye's last layer
# is left out. (A plausible reason: what comes before it knows more of the picture's parts, because nobody has yet asked it for
# one summary.)

# %%
size = "gpu" if lesson.large and "language-gpu" in backbones.built() else "cpu"
seen_sizes, seen = backbones.read(f"vision-{size}")
read_sizes, read = backbones.read(f"language-{size}")
whole = ViTConfig(**seen_sizes["vision"])
vision_config = replace(whole, layers=whole.layers - 1)
language_config = DecoderConfig(**read_sizes)
tokenizer = backbones.world_tokenizer()
about = backbones.card(f"vision-{size}")
mean, std = about["pixel_mean"], about["pixel_std"]

eye_weights = {
    name.removeprefix("vision."): tensor
    for name, tensor in seen.items()
    if name.startswith("vision.") and f"blocks.{vision_config.layers}." not in name
}
print(f"an image: {vision_config.grid**2} patches and a class token,", end=" ")
print(f"each {vision_config.width} wide; a word: {language_config.width} wide")

# %% [markdown]
# ### Queries that ask
#
# A query is a learned vector, the same for every image. In each layer the queries first talk to each other (and to a text,
# if there is one and the mask allows it): **self-attention, one for both**. In every second layer they, and only they, then
# ask the image: **cross-attention**, from [02 · BLIP](02_blip.ipynb). At last each goes through an MLP: **one for queries,
# another for words**. So queries and words can talk, because they share the language of self-attention, and yet each kind does
# its own work.

# %% include="minivlm.connectors.qformer:QFormerConfig, QFormerBlock"

# %% [markdown]
# The layers, one on the other. Words have positions; queries have none, for they are told apart by what they are. Whether
# there is an image, a text or both is the caller's choice.

# %% include="minivlm.connectors.qformer:QFormer, init_qformer"

# %%
torch.manual_seed(0)
sizes = dict(width=32, layers=4, heads=2, hidden=64, seen=12, vocab_size=50)
small = QFormer(QFormerConfig(queries=4, **sizes)).eval()
with torch.no_grad():
    for side in (2, 4, 16):
        image = torch.randn(1, side**2, 12)
        queries, _ = small(image)
        print(f"{side**2:3d} patches -> {queries.shape[1]} vectors")

    order = torch.tensor([2, 0, 3, 1])
    before, _ = small(image)
    small.queries.copy_(small.queries[order].clone())
    after, _ = small(image)
print("queries have no place:", torch.allclose(after, before[:, order], atol=1e-5))

# %% [markdown]
# The first three lines are the point of the whole machine: however fine the picture, the language model will get four
# vectors, and not one more. The last: queries in another order find the same things, in that other order.
#
# ### Who may see whom
#
# A **mask** says for each pair whether row $i$ may see column $j$. The three tasks of stage 1 have the three masks below
# (figure 2 of the paper). The Q-Former, with all its weights, is the same for all three; each task has a small head of its own on
# top, and a text that is to be written starts with `[DEC]` instead of `[CLS]`.

# %% include="minivlm.connectors.qformer:itm_mask, itc_mask, itg_mask"

# %% alt="Three masks of four queries and five words, of which the last is padding. ITM: all see all but padding. ITC: two blocks, queries see queries, words see words. ITG: queries see queries; words see queries and the words before them."
words = ["[CLS]", "a", "red", "star", "pad"]
keep = torch.tensor([[True, True, True, True, False]])
masks = {
    "ITC: which text?": itc_mask(4, keep),
    "ITM: this text?": itm_mask(4, keep),
    "ITG: write one": itg_mask(4, keep),
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.4))
for (title, mask), ax in zip(masks.items(), axes, strict=True):
    names = [f"q{i + 1}" for i in range(4)] + words
    names[4] = "[DEC]" if title.startswith("ITG") else "[CLS]"
    ax.imshow(mask[0], cmap="cividis", vmin=0, vmax=1)
    for edge in range(8):
        ax.axhline(edge + 0.5, color="white", lw=0.4)
        ax.axvline(edge + 0.5, color="white", lw=0.4)
    ax.set_xticks(range(9), names, rotation=90)
    ax.set_yticks(range(9), names)
    ax.axhline(3.5, color="white", lw=2)
    ax.axvline(3.5, color="white", lw=2)
    ax.set_title(title)
    ax.tick_params(length=0)
axes[0].set_ylabel("this row may see (yellow)")
plt.show()

# %% [markdown]
# - **ITC**, contrast: which text belongs to which image? Neither side may see the other, or it would see the solution.
# - **ITM**, matching: does *this* text belong to *this* image? That can only be judged by seeing both.
# - **ITG**, writing: say what is in the image, word by word. Words see the words before them, and the queries. They never see
#   the image. So what a caption needs **must pass through the queries**.
#
# A mask is a promise. Is it kept? We nudge each of the nine inputs of one layer and watch which outputs move: cell by
# cell it must be the mask. (Each row sees itself in any case, by the residual stream.)


# %%
def moved(block: QFormerBlock, mask: Tensor, queries: int = 4) -> Tensor:
    """(r, r): does output i change if input j does?"""
    x = torch.randn(1, mask.shape[1], 32)

    def out(x: Tensor) -> Tensor:
        one = block(x[:, :queries], x[:, queries:], None, mask)
        return torch.cat(one, dim=1)[0]

    nudged = []
    for j in range(mask.shape[1]):
        other = x.clone()
        other[:, j] += torch.randn(32)
        nudged.append((out(other) != out(x)).any(dim=-1))
    return torch.stack(nudged, dim=1)


with torch.no_grad():
    for title, mask in masks.items():
        promised = mask[0] | torch.eye(9, dtype=torch.bool)
        kept = moved(small.blocks[0], mask) == promised
        print(f"{title[:3]}: {int(kept.sum())} of {kept.numel()} cells as promised")

# %% [markdown]
# ### Stage 1
#
# First what remains of it at the end: a model that finds the image to a text and the text to an image. The eye is frozen,
# but for the norm on its last output, which learns (so the official code has it).

# %% include="minivlm.models.blip2_stage1:check_width, freeze_vision, MatcherConfig, Matcher"

# %% [markdown]
# An image is now several unit vectors, a text is one. How alike are they? **The query that fits best counts**, so each may
# specialise.

# %% include="minivlm.models.blip2_stage1:similarity"

# %%
image = F.normalize(
    torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [0.8, 0.6]]]), dim=-1
)
text = torch.tensor([[0.0, 1.0]])
print("best query:", [round(x, 2) for x in similarity(image, text)[:, 0].tolist()])
mean_of = (image @ text[0]).mean(dim=1)
print("mean query:", [round(x, 2) for x in mean_of.tolist()])

# %% [markdown]
# Two images of two queries each. In the first, one query has found just what the text says, and the other something else; in
# the second, both have found something a little like it. The best query prefers the first image, the mean would prefer the second.
#
# And what it takes to train it. The three losses are BLIP's, with three differences: one transformer serves all of them (BLIP's
# decoder had a self-attention of its own), the judge of ITM is the mean over the queries, and there is no momentum
# encoder: with a frozen eye, batches can be large enough.

# %% include="minivlm.models.blip2_stage1:vit_g, tiny_vit, Stage1Config, Stage1"

# %%
schools = {
    "released": Stage1Config.released(),
    "small": Stage1Config.tiny(100, dec_id=1),
}
for name, config in schools.items():
    with torch.device("meta"):
        big = Stage1(config)
    big.freeze()
    each = [(p.numel() / 1e6, p.requires_grad) for p in big.parameters()]
    n, learn = sum(n for n, _ in each), sum(n for n, learns in each if learns)
    print(f"{name:9s}{n:8.1f} million, {learn:.1f} learn;", end=" ")
    print(f"{config.vision.grid**2} patches, {config.qformer.queries} queries")

# %% [markdown]
# ### The language model
#
# Two of the paper's language models are OPTs, which have GPT-3's layers (the others are FlanT5, with an encoder and a
# decoder). OPT stands here in full, because the released weights need it; our own lesson has the course's decoder in its place.
# For all that is asked of it, an OPT is a `Decoder`.

# %% include="minivlm.language.opt:OFFSET, OPTConfig, OPTBlock, OPT"

# %%
for name in ("opt_2_7b", "opt_6_7b"):
    with torch.device("meta"):
        big = OPT(getattr(OPTConfig, name)())
    print(f"{name}: {sum(p.numel() for p in big.parameters()) / 1e9:.2f} billion")

# %% [markdown]
# ### Stage 2
#
# The queries' vectors go through one linear layer, which makes them as wide as words, and stand where the text keeps places
# for them (`splice` puts them there; [05 · PaLM-E](05_palm_e.ipynb) takes it apart). `start_from` takes over what stage 1
# has learned and leaves the parts for text behind. `freeze` says who learns: not the language model, and of the eye only the norm
# on top. Gradients
# must still go *through* the language model, for it is the one who knows whether an image was understood.

# %% include="minivlm.models.blip2:BLIP2Config, Captions, BLIP2"

# %%
IMAGE, CLS, DEC = (tokenizer.encode(t)[0] for t in ("<image>", "[CLS]", "[DEC]"))


def reads(queries: int) -> QFormerConfig:
    """Sizes of our Q-Former; stage 2 leaves its vocabulary away."""
    return QFormerConfig(
        queries, run.width, run.layers, heads=run.width // 16, hidden=2 * run.width,
        seen=vision_config.width, vocab_size=len(tokenizer), context=64,
    )  # fmt: skip


def new_school(
    tasks: tuple[str, ...] = ("itc", "itm", "itg"), queries: int = run.queries
) -> Stage1:
    """Stage 1, untrained, with the eye as it came."""
    torch.manual_seed(lesson.seed)
    how = dict(embedding=run.width, dec_id=DEC, tasks=tasks)
    first = Stage1(Stage1Config(vision_config, reads(queries), **how))
    first.vision.load_state_dict(eye_weights)
    first.freeze()
    return first.to(lesson.device)


def new_blip2(first: Stage1 | None = None, queries: int = run.queries) -> BLIP2:
    """Stage 2, untrained; from stage 1 if there was one."""
    torch.manual_seed(lesson.seed)
    mute = replace(reads(queries), vocab_size=None)
    model = BLIP2(BLIP2Config(vision_config, mute, language_config, IMAGE))
    model.vision.load_state_dict(eye_weights)
    model.language.load_state_dict(read)
    model.freeze()
    model.to(lesson.device)
    if first is not None:
        model.start_from(first)
    return model


def counted(model: nn.Module) -> tuple[float, float]:
    """Millions of parameters: all, and those that learn."""
    each = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in each), sum(n for n, learns in each if learns)


released = {"OPT 2.7B": BLIP2Config.opt_2_7b(), "OPT 6.7B": BLIP2Config.opt_6_7b()}
print("              million  that learn  words an image takes")
for name, config in released.items():
    with torch.device("meta"):
        big = BLIP2(config)
    big.freeze()
    n, learn = counted(big)
    print(f"{name:10s}{n:11,.0f}{learn:12,.0f}{config.image_tokens:12d}")
model = new_blip2()
n, learn = counted(model)
print(f"{'ours':10s}{n:11.2f}{learn:12.2f}{model.config.image_tokens:12d}")

# %% [markdown]
# 107 and 108 million trained parameters are the numbers of the paper's table 2, to the million. Everything else, which is nearly
# all of either model, is never touched.
#
# ## Is it right?
#
# Two small random models in the released file format, and what `transformers` computes with them: the retrieval model of stage 1,
# and BLIP-2 with an OPT, with several images in texts padded on the left. Loaded into the classes of the cells above:

# %%
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.course.lesson import ROOT


def compare(ours: dict[str, Tensor], expected: dict[str, Tensor], keep: Tensor) -> None:
    for name, value in ours.items():
        there = expected[name]
        if name == "logits":  # what stands at padding means nothing
            value, there = value[keep], there[keep]
        equal = torch.allclose(value, there, rtol=0, atol=1e-5)
        print(f"{name:15s}{str(tuple(value.shape)):14s}equal to 1e-5: {equal}")


folder = ROOT / "data" / "reference" / "blip2_matcher"
there, weights = checkpoints.read(folder)
vision = ViTConfig(**there.pop("vision"))
qformer = QFormerConfig(**there.pop("qformer"))
matcher = Matcher(MatcherConfig(vision, qformer, **there)).eval()
matcher.load_state_dict(weights)
expected = load_file(folder / "expected.safetensors")
images, ids = expected["pixel_values"], expected["input_ids"]
with torch.no_grad():
    ours = {
        "image_embeds": matcher.embed_image(images),
        "text_embeds": matcher.embed_text(ids),
        "itc": matcher(images, ids),
        "itm": matcher.judge(matcher.see(images), ids),
    }
compare(ours, expected, matcher.keep(ids))

folder = ROOT / "data" / "reference" / "blip2"
there, weights = checkpoints.read(folder)
vision = ViTConfig(**there.pop("vision"))
qformer = QFormerConfig(**there.pop("qformer"))
opt = OPTConfig(**there.pop("language"))
reference = BLIP2(BLIP2Config(vision, qformer, opt, **there)).eval()
reference.load_state_dict(weights)
expected = load_file(folder / "expected.safetensors")
images, ids = expected["pixel_values"], expected["input_ids"]
keep = expected["attention_mask"].bool()
many = expected["generated"].shape[1]
with torch.no_grad():
    ours = {
        "image_features": reference.embed_image(images),
        "logits": reference(ids, images, keep),
        "generated": reference.generate(ids, images, keep, max_new_tokens=many),
    }
compare(ours, expected, keep)

# %% [markdown]
# Folders such as `Salesforce/blip2-opt-2.7b` are read by the same lines. What no reference says, because `transformers` has
# neither ITG nor the losses, must hold with any weights: who sees whom in the *whole* model, after all its layers.

# %%
first = new_school().eval()
rng = world.generator("probes")
some = world.draw_scenes(rng, 3, objects=(2, 2))
pixels = normalize(world.render(some, vision_config.image_size), mean, std)
pixels = pixels.to(lesson.device)
texts = ["[CLS] a red star", "[CLS] a red ring", "[CLS] a blue ring"]
ids = torch.tensor([tokenizer.encode(text) for text in texts]).to(lesson.device)
changed = ids.clone()
changed[:, -1] = tokenizer.encode("moon")[0]  # another last word
with torch.no_grad():
    image, keep = first.see(pixels), first.keep(ids)
    for name, make in {"ITC": itc_mask, "ITM": itm_mask, "ITG": itg_mask}.items():
        mask = make(run.queries, keep)
        a, b = (first.qformer(image, words, mask)[0] for words in (ids, changed))
        print(f"{name}: the queries notice another word: {not torch.equal(a, b)}")
    a, b = first.write(image, ids), first.write(image, changed)
    print("ITG: a word sees those before it only:", torch.equal(a[:, :-1], b[:, :-1]))
    alone = similarity(first.embed_image(pixels), first.embed_text(ids))
    both = first.contrast(image, ids) * first.temperature
print("ITC in one pass = each side alone:", torch.allclose(alone, both, atol=1e-5))

# %%
from minivlm.evaluation import probes

rows = [
    [IMAGE] * run.queries + tokenizer.encode(text)
    for text in ("a red star.", "a blue ring.", "a moon, small.")
]
longest = max(map(len, rows))
ids = torch.tensor([row + [tokenizer.pad] * (longest - len(row)) for row in rows])
labels = ids.masked_fill((ids == IMAGE) | (ids == tokenizer.pad), -100)
given = Captions(pixels, ids.to(lesson.device), labels.to(lesson.device))
_ = probes.run(model.eval(), given)

# %% [markdown]
# ## Train
#
# ### Stage 1: school
#
# Pictures of one to three things and what is to be seen on them, in words, drawn without end. Each text begins with `[CLS]`, whose vector
# stands for the text; where it is to be written, `[DEC]` takes its place.


# %%
from minivlm.world.grammar import listed, noun
from minivlm.world.scenes import things


def pixels_of(scenes: world.Scenes) -> Tensor:
    images = world.render(scenes, vision_config.image_size, device=lesson.device)
    return normalize(images, mean, std)


def padded(rows: Sequence[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    table = [row + [filler] * (longest - len(row)) for row in rows]
    return torch.tensor(table, device=lesson.device)


def told(rng, these: Sequence) -> str:
    """All that is there, in any order, by colour and shape."""
    return (
        listed([noun(these[i], size=False) for i in rng.permutation(len(these))]) + "."
    )


def to_read(texts: Sequence[str]) -> Tensor:
    """Texts as stage 1 has them."""
    rows = [[CLS, *tokenizer.encode(text), tokenizer.eos] for text in texts]
    return padded(rows, tokenizer.pad)


def pairs() -> Iterator[Pairs]:
    rng = world.generator("stage 1", lesson.seed)
    while True:
        scenes = world.draw_scenes(rng, 16 * run.batch_1, objects=(1, 3))
        texts = [told(rng, these) for these in things(scenes)]
        for start in range(0, len(texts), run.batch_1):
            rows = list(range(start, start + run.batch_1))
            yield Pairs(
                pixels_of(scenes[rows]), to_read(texts[start : start + run.batch_1])
            )


batch = next(pairs())
print(tuple(batch.pixel_values.shape), tokenizer.decode(batch.ids[0].tolist()))

# %% [markdown]
# To watch: among a hundred unseen pictures and their hundred texts, how often is a picture's own text the one most alike?


# %%
from minivlm.evaluation.zero_shot import recall_at
from minivlm.training import fit, frozen

rng = world.generator("validation pairs")
val_pictures = world.draw_scenes(rng, min(100, run.test), objects=(1, 3))
val_texts = to_read([told(rng, these) for these in things(val_pictures)])
val_pixels = pixels_of(val_pictures)


@torch.no_grad()
def found_text(first: Stage1) -> float:
    """Share of unseen pictures that find their text, by ITC."""
    return recall_at(1, first(val_pixels, val_texts))


def stage_1(first: Stage1, steps: int, name: str) -> dict[str, list[float]]:
    """School. Returns the loss of each task at each step."""
    generator = torch.Generator(lesson.device).manual_seed(lesson.seed)
    seen_losses = {task: [] for task in first.config.tasks}

    def loss(batch: Pairs) -> Tensor:
        each = first.losses(batch, generator)
        for task, value in each.items():
            seen_losses[task].append(value.detach())
        return sum(each.values())

    look = (lambda: found_text(first)) if "itc" in seen_losses else None
    how = dict(weight_decay=0.05, loss=loss, evaluate=look, name=name)
    with frozen(first.vision.blocks):
        watched = fit(first, pairs(), steps, run.lr_1, **how)
    kept = {task: torch.stack(values).tolist() for task, values in seen_losses.items()}
    return kept | {"step": watched["step"], "recall": watched["value"]}


# %% tags=["nbval-ignore-output"]
first = new_school()
losses_1 = stage_1(first, run.stage_1, "stage 1")

# %% alt="Left: the losses of the three tasks fall. Right: the share of unseen pictures that find their text among a hundred rises."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))


def smooth(values: Sequence[float], many: int = 10) -> Tensor:
    return torch.tensor(values).unfold(0, min(many, len(values)), 1).mean(1)


tasks = {task.upper(): smooth(losses_1[task]) for task in ("itc", "itm", "itg")}
lines = {task: (range(len(values)), values) for task, values in tasks.items()}
plots.curves(lines, "loss, mean of ten", ax=left)
line = {"ITC": (losses_1["step"], losses_1["recall"])}
right.set_ylim(0, 1.02)
plots.curves(line, "finds its text", chance=1 / len(val_texts), ax=right)
plt.show()

# %% [markdown]
# (ITC and ITG have smoothed labels, so that even a perfect answer costs something: no zero is to be expected.)
#
# ITC compares quickly, ITM judges carefully. So one lets ITC choose the best few, and ITM decide among them, as the paper does.
# On the frozen test pictures:

# %% tags=["nbval-ignore-output"]
from minivlm.world import frozen as eval_sets

retrieval = eval_sets.load("captions")[: min(256, run.test)]
rng = world.generator("test texts")
retrieval_texts = [told(rng, these) for these in things(retrieval.samples)]


@torch.no_grad()
def retrieved(first: Stage1, best: int = 8) -> dict[str, float]:
    """Share of test pictures that find their text, by ITC; by ITM among its best."""
    pixels = pixels_of(retrieval.samples)
    ids = to_read(retrieval_texts)
    alike = first(pixels, ids)
    found = {"by ITC": recall_at(1, alike)}
    if "itm" in first.config.tasks:
        image, some = first.see(pixels), alike.topk(best, dim=1).indices
        scores = [first.judge(image, ids[some[:, i]]) for i in range(best)]
        likely = torch.stack([score[:, 1] - score[:, 0] for score in scores], dim=1)
        chosen = some.gather(1, likely.argmax(dim=1, keepdim=True))[:, 0]
        own = torch.arange(len(ids), device=chosen.device)
        found["and ITM"] = (chosen == own).float().mean().item()
    return found


by_task = retrieved(first.eval())
print({how: round(share, 2) for how, share in by_task.items()})

# %% [markdown]
# (If the second number is no larger, the careful judge is no help yet: ITM is learned last, as its curve shows, and the eight
# texts it must choose from are those most alike to the right one.)
#
# ### What the queries look at
#
# Cross-attention weights of the last layer that looks, each query on its own: the darker, the more. (The class token is left out;
# what it gets is missing from 1.) Nothing obliges a query to look at one thing only, or two queries to look at different ones.


# %%
@torch.no_grad()
def looks(model: Stage1 | BLIP2, pixels: Tensor) -> Tensor:
    """(layers that look, B, Q, N): share that each query takes from each token."""
    weights = []

    def weigh(cross: CrossAttention, given: tuple) -> None:
        x, (k, _) = given
        q = rearrange(cross.q(x), "b q (nh hd) -> b nh q hd", nh=cross.heads)
        score = q @ k.mT / math.sqrt(k.shape[-1])
        weights.append(score.softmax(dim=-1).mean(dim=1))

    looking = [block.cross for block in model.qformer.blocks if block.looks]
    hooks = [cross.register_forward_pre_hook(weigh) for cross in looking]
    model.qformer(model.see(pixels))
    for hook in hooks:
        hook.remove()
    return torch.stack(weights)


# %% alt="A picture of a red star, a blue ring and a green square, and beside it where each of eight queries looks: some at the star, some at the empty corners at the bottom, some evenly at everything below."
three = world.compose(
    dict(colour="red", shape="star", x=0.22, y=0.25, size=0.2),
    dict(colour="blue", shape="ring", x=0.75, y=0.3, size=0.2),
    dict(colour="green", shape="square", x=0.5, y=0.77, size=0.2),
)
picture = world.render(three, 64)[0]
shares = looks(first, pixels_of(three))[-1, 0, :, 1:]
fig, axes = plt.subplots(1, 9, figsize=(9, 1.4))
axes[0].imshow(picture.permute(1, 2, 0))
axes[0].set_axis_off()
for i, ax in enumerate(axes[1:]):
    grid = shares[i].view(vision_config.grid, vision_config.grid)
    plots.overlay(picture, grid, ax, f"query {i + 1}", limits=(0, shares.max().item()))
plt.show()

# %% [markdown]
# ### Stage 2: learn to be read
#
# Now the language model comes in, and stays as it is. A row of training is an image and a text of one of two kinds: what is there, to
# be written; or questions about it, of which only the answers are learned. The form is the one in which the language model has
# always read: first what is told, a full stop, then questions. Only that what is told is now eight vectors. (The linear layer, which
# never went to school, learns faster than the Q-Former, `lr_linear`; so it does in every model that we shall compare.)


# %%
from minivlm.world.instruct import Instructions

KINDS = ("colour", "shape", "count", "existence")


def row_of(these: Sequence, queries: int, rng, ask=None) -> tuple[list, list]:
    """Ids and labels of one row: a description, or questions and answers."""
    ids = [tokenizer.bos] + [IMAGE] * queries
    labels = [-100] * len(ids)
    if ask is None:
        text = [*tokenizer.encode(told(rng, these)), tokenizer.eos]
        return ids + text, labels + text
    stop = tokenizer.encode(".")
    ids, labels = ids + stop, labels + [-100]
    for question, answer in ask(these).turns:
        question, answer = tokenizer.encode(question), tokenizer.encode(answer)
        ids, labels = ids + question + answer, labels + [-100] * len(question) + answer
    return ids, labels


def captions(queries: int = run.queries) -> Iterator[Captions]:
    """Batches of texts of like length, so that little is padding, in random order."""
    rng = world.generator("stage 2", lesson.seed)
    ask = Instructions(rng, ["conversation"], KINDS, turns=8)
    while True:
        scenes = world.draw_scenes(rng, 16 * run.batch_2, objects=(1, 3))
        rows = [
            row_of(these, queries, rng, ask if i % 2 else None)
            for i, these in enumerate(things(scenes))
        ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        for start in rng.permutation(list(range(0, len(rows), run.batch_2))):
            some = order[start : start + run.batch_2]
            ids = padded([rows[i][0] for i in some], tokenizer.pad)
            labels = padded([rows[i][1] for i in some], -100)
            yield Captions(pixels_of(scenes[some]), ids, labels)


batches, shown = captions(), {}
while len(shown) < 2:
    text = tokenizer.decode(next(batches).ids[0].tolist()).replace("<image>", "·")
    shown.setdefault("?" in text, text.replace("<pad>", ""))
print(f"to write:  {shown[False]}\nto answer: {shown[True][:80]} ...")

# %% [markdown]
# How many questions about unseen pictures are answered right, word for word? Kinds and answers come equally often.


# %%
from minivlm.evaluation.answers import by_kind
from minivlm.world.asking import ask as draw_questions


@torch.no_grad()
def answers(
    model: BLIP2, pixels: Tensor, questions: Sequence[str], batch: int = 100
) -> list[str]:
    said = []
    start = [tokenizer.bos] + [IMAGE] * model.config.image_tokens
    for i in range(0, len(questions), batch):
        some = [start + tokenizer.encode(". " + q) for q in questions[i : i + batch]]
        ids, keep = (x.to(lesson.device) for x in pad_left(some, tokenizer.pad))
        images = pixels[i : i + batch]
        new = model.generate(ids, images, keep, max_new_tokens=6)
        said += [tokenizer.decode(row).split(".")[0].strip() for row in new.tolist()]
    return said


def accuracy(model: BLIP2, pixels: Tensor, rows: Sequence) -> dict[str, float]:
    """Share of right answers, by kind and in the mean over kinds."""
    found = by_kind(answers(model, pixels, [row.question for row in rows]), rows)
    found = {kind: found[kind] for kind in KINDS}
    return found | {"mean": sum(found.values()) / len(found)}


val_scenes, val_rows = draw_questions(world.generator("validation"), run.test, KINDS)
asked_pixels = pixels_of(val_scenes)
watched = []


def stage_2(model: BLIP2, steps: int, name: str) -> dict[str, list[float]]:
    """Q-Former, linear layer and the eye's last norm; the rest stays as it is."""

    def watch() -> float:
        watched.append(accuracy(model, asked_pixels, val_rows))
        return watched[-1]["mean"]

    watched.clear()
    said, faster = captions(model.config.image_tokens), {"connector": run.lr_linear}
    how = dict(weight_decay=0.0, lrs=faster, evaluate=watch, name=name)
    with frozen(model.language, model.vision.blocks):
        return fit(model, said, steps, run.lr_2, **how)


# %% tags=["nbval-ignore-output"]
model = new_blip2(first)
history = stage_2(model, run.stage_2, "stage 2")
by_step = {kind: [found[kind] for found in watched] for kind in KINDS}

# %% alt="Left: the loss of stage 2 falls. Right: right answers by kind rise."
from minivlm.world.questions import CHANCE

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
two = smooth(history["loss"])
plots.curves({"stage 2": (range(len(two)), two)}, "loss, mean of ten", ax=left)
right.set_ylim(0, 1.02)
lines = {kind: (history["step"], values) for kind, values in by_step.items()}
chance = sum(CHANCE[kind] for kind in KINDS) / len(KINDS)
plots.curves(lines, "right, by kind", chance=chance, ax=right)
plt.show()

# %% [markdown]
# (The dotted line is chance in the mean over kinds.) `frozen` has compared the language model and the eye's layers before and
# after, bit by bit. So what the language model says about texts without images is *exactly* what it was.
#
# ## Look
#
# ### What it says about pictures
#
# Test pictures and questions are frozen files in `data/eval/`, the same for every model of the course.

# %% tags=["nbval-ignore-output"] alt="Eight test pictures, each with a question and BLIP-2's answer, marked right or wrong."
test = eval_sets.load("questions").of(*KINDS)
test = test[list(range(min(len(test), 2 * run.test)))]
said = answers(model, pixels_of(test.samples), [row.question for row in test.rows])
right = [a == row.answer for a, row in zip(said, test.rows, strict=True)]
titles = [f"{row.question} {a}" for row, a in zip(test.rows, said, strict=True)]
pictures = world.render(test.samples[list(range(8))], 64)
plots.show_images(pictures, titles[:8], columns=4, size=2.2, right=right[:8])
plt.show()

# %% [markdown]
# ### What it writes by itself
#
# Without a question the language model goes on from the eight vectors alone. A description is right if it names exactly the
# things that are there, each with its colour and shape. After so short a time few are, so we also count in parts: twice the
# things named right, over all things named and all that are there (F1).


# %% tags=["nbval-ignore-output"] alt="Six test pictures, each with the description that BLIP-2 wrote, marked right or wrong."
def written(model: BLIP2, pixels: Tensor) -> list[str]:
    start = [tokenizer.bos] + [IMAGE] * model.config.image_tokens
    ids = torch.tensor([start] * len(pixels), device=lesson.device)
    new = model.generate(ids, pixels, max_new_tokens=48, eos=tokenizer.eos)
    return [
        tokenizer.decode(row, skip_specials=True).split(".")[0] for row in new.tolist()
    ]


def named(text: str) -> list[tuple[str, str]]:
    """The pairs of a colour and a shape that a text names."""
    words = text.replace(",", " ").replace(".", " ").split()
    colours, shapes = set(world.COLOURS), set(world.SHAPES)
    near = zip(words, words[1:], strict=False)
    return sorted((a, b) for a, b in near if a in colours and b in shapes)


def described(said: str, text: str) -> float:
    """F1 of the things named; 1 if they are exactly those of `text`."""
    ours, theirs = Counter(named(said)), Counter(named(text))
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())


shown = retrieval[list(range(6))]
said = written(model, pixels_of(shown.samples))
pictures = world.render(shown.samples, 64)
good = [described(a, b) == 1 for a, b in zip(said, retrieval_texts, strict=False)]
plots.show_images(pictures, said, columns=3, size=2.9, right=good)
plt.show()

# %% [markdown]
# ### What it gets wrong

# %% tags=["nbval-ignore-output"] alt="Eight test pictures with wrong answers of BLIP-2; the right one is in brackets."
wrong = [i for i, fine in enumerate(right) if not fine][:8]
if wrong:
    texts = [row.question for row in test.rows]
    said = answers(model, pixels_of(test.samples), texts)
    titles = [f"{texts[i]} {said[i]} ({test.rows[i].answer})" for i in wrong]
    pictures = world.render(test.samples[wrong], 64)
    plots.show_images(pictures, titles, columns=4, size=2.2, right=[False] * len(wrong))
    plt.show()

# %% [markdown]
# ## The claim
#
# **School first.** Without stage 1 the paper's models are far worse at questions about images, and with an OPT they get even worse as
# training goes on (figure 5, section 4.1; at equal steps of stage 2). Here: the same Q-Former, language model, data and
# learning rates, but stage 2 from the start. Once with **equal steps** of stage 2, and once with **equal compute**: then
# the operations of stage 1 are spent on more of stage 2. (The learning rates are those of stage 2 for all, although a Q-Former
# from nothing may prefer others than one from school: nobody looked for the best of each.)

# %% tags=["nbval-ignore-output"]
from torch.utils.flop_counter import FlopCounterMode


def flops(model: Stage1 | BLIP2, batches: Iterator, many: int = 8) -> float:
    """Mean floating-point operations of a training step."""
    total = 0
    for _ in range(many):
        with FlopCounterMode(display=False) as counter:
            model.loss(next(batches)).backward()
        total += counter.get_total_flops()
    model.zero_grad(set_to_none=True)
    return total / many


cost_1, cost_2 = flops(new_school(), pairs()), flops(new_blip2(), captions())
equal = run.stage_2 + round(run.stage_1 * cost_1 / cost_2)
print(f"stage 1: {run.stage_1} steps of {cost_1 / 1e9:.1f} GFLOP")
print(f"stage 2: {run.stage_2} steps of {cost_2 / 1e9:.1f} GFLOP")
print(f"stage 2 alone, equal compute: {equal} steps")

# %% tags=["nbval-ignore-output"]
no_school, more_steps = new_blip2(), new_blip2()
_ = stage_2(no_school, run.stage_2, "equal steps")
_ = stage_2(more_steps, equal, "equal compute")

# %% [markdown]
# Other arms are trained with `MINIVLM_ARMS=all` only: stage 1 with **one of its
# losses left out**, with as much compute for the others (without ITC there is no ITM either, for it is ITC that finds the hard wrong
# partners: what remains is writing); and **other numbers of queries**, with as many steps in both stages.

# %% tags=["nbval-ignore-output"]
from minivlm.world import levels


def both_stages(
    tasks=("itc", "itm", "itg"), queries: int = run.queries, name: str = ""
):
    """A model after stage 1, with the compute of the lesson's, and after stage 2."""
    school = new_school(tasks, queries)
    steps = run.stage_1
    if len(tasks) < 3:
        steps = round(steps * cost_1 / flops(new_school(tasks, queries), pairs()))
    stage_1(school, steps, f"{name}, 1")
    later = new_blip2(school, queries)
    stage_2(later, run.stage_2, f"{name}, 2")
    return school, later


schools = {"all three": first}
arms = {
    "school first": model,
    "no school, equal steps": no_school,
    "no school, equal compute": more_steps,
}
DROPPED = {
    "without ITG": ("itc", "itm"),
    "without ITM": ("itc", "itg"),
    "without ITC and ITM": ("itg",),
}
NUMBERS = [n for n in (1, 4, 16) if n != run.queries]
if lesson.all_arms:
    for name, some in DROPPED.items():
        schools[name], arms[name] = both_stages(some, name=name)
    for n in NUMBERS:
        _, arms[f"queries: {n}"] = both_stages(queries=n, name=f"{n} queries")

# %%
final = eval_sets.load("questions").of(*KINDS)
final = final[list(range(min(len(final), 4 * run.test)))]
final_pixels = pixels_of(final.samples)
found = {name: accuracy(arm, final_pixels, final.rows) for name, arm in arms.items()}
blank = torch.full_like(final_pixels, final_pixels.mean().item())
found["another picture"] = accuracy(model, final_pixels.roll(7, 0), final.rows)
found["a blank picture"] = accuracy(model, blank, final.rows)
stored = levels.stored()["questions"]
for name in ("blind", "chance"):
    level = {kind: getattr(stored[kind], name) for kind in KINDS}
    found[name] = level | {"mean": sum(level.values()) / len(level)}

# %% alt="A table of right answers by kind of question: school first, stage 2 alone, other pictures, blind and chance."
columns = [*KINDS, "mean"]
table = torch.tensor([[row[kind] for kind in columns] for row in found.values()])
plots.heatmap(table, list(found), columns, "share of right answers", limits=(0, 1))
plt.show()

# %% [markdown]
# And what they write by themselves, and what stage 1 finds. Descriptions need a level to be compared with, too: `blind` is one
# and the same text said of every picture, the best of the test's own.

# %% tags=["nbval-ignore-output"]
retrieval_pixels = pixels_of(retrieval.samples)


def named_right(said: Sequence[str]) -> float:
    both = zip(said, retrieval_texts, strict=True)
    return sum(described(one, text) for one, text in both) / len(retrieval_texts)


descriptions = {
    name: named_right(written(arm, retrieval_pixels)) for name, arm in arms.items()
}
everywhere = [[text] * len(retrieval_texts) for text in retrieval_texts]
descriptions["blind"] = max(named_right(same_text) for same_text in everywhere)
for name, share in descriptions.items():
    print(f"{name:28s} things named right (F1): {share:.2f}")
recalls = {name: retrieved(school.eval()) for name, school in schools.items()
           if "itc" in school.config.tasks}  # fmt: skip
for name, shares in recalls.items():
    print(name, {how: round(share, 2) for how, share in shares.items()})

# %% tags=["nbval-ignore-output"]
average = {name: row["mean"] for name, row in found.items()}
levels_of = dict(blind=average["blind"], chance=average["chance"])
looked = dict(another=average["another picture"], blank=average["a blank picture"])
pupil, same, more = "school first", "no school, equal steps", "no school, equal compute"
school = average[pupil]
asked_steps = dict(school_first=school, no_school=average[same])
lesson.record("school first answers better, at equal steps of stage 2",
              **asked_steps, **looked, **levels_of)  # fmt: skip
asked_compute = dict(school_first=school, no_school=average[more])
lesson.record("school first answers better, at equal compute",
              **asked_compute, **levels_of)  # fmt: skip
unseen = dict(blind=descriptions["blind"])
at_steps = dict(school_first=descriptions[pupil], no_school=descriptions[same])
lesson.record("school first describes better, at equal steps of stage 2",
              **at_steps, **unseen)  # fmt: skip
at_compute = dict(school_first=descriptions[pupil], no_school=descriptions[more])
lesson.record("school first describes better, at equal compute",
              **at_compute, **unseen)  # fmt: skip
if lesson.all_arms:
    three, two_only = recalls["all three"], recalls["without ITG"]
    one = dict(all_three=three["by ITC"], without_itg=two_only["by ITC"])
    others = dict(without_itm=recalls["without ITM"]["by ITC"])
    lesson.record("learning to write helps to find", **one, **others)
    no_itg, no_itm, only_itg = DROPPED
    one = dict(all_three=school, without_itg=average[no_itg])
    others = dict(without_itm=average[no_itm], itg_alone=average[only_itg])
    lesson.record("three losses are better than two, for stage 2", **one, **others)
    many = {f"queries_{n}": average[f"queries: {n}"] for n in NUMBERS}
    eight = {f"queries_{run.queries}": school}
    lesson.record("several queries are better than one", **eight, **many)

lesson.expect(average["school first"], at_least=0.5, what="BLIP-2's accuracy")
gap = average["school first"] - average["another picture"]
lesson.expect(gap, at_least=0.15, what="the gain from looking at the right picture")
gap = average[pupil] - average[same]
lesson.expect(gap, at_least=-0.1, what="the gain from school at equal steps")

# %% tags=["nbval-ignore-output"] alt="Two panels of bars, descriptions and answers: school first, no school at equal steps, no school at equal compute, with a dot for each stored seed; dotted, the levels of the best blind guess and, for answers, of chance."
fig, axes = plt.subplots(2, 1, figsize=(6.5, 4.2))
for what, steps, compute, ax in (
    ("describes", at_steps, at_compute, axes[0]),
    ("answers", asked_steps, asked_compute, axes[1]),
):
    over_seeds = [
        lesson.stored(f"school first {what} better, at equal {limit}")
        for limit in ("steps of stage 2", "compute")
    ]
    bars = {
        pupil: over_seeds[0].get("school_first") or [steps["school_first"]],
        same: over_seeds[0].get("no_school") or [steps["no_school"]],
        more: over_seeds[1].get("no_school") or [compute["no_school"]],
    }
    guesses = levels_of if what == "answers" else unseen
    label = "things named right, F1" if what == "describes" else "right answers"
    plots.bars(bars, label, highlight=pupil, ax=ax, **guesses)
    ax.set_xlim(0, 1)
plt.show()
print(lesson.verdict())

# %% [markdown]
# **What it says** (of the run stored here; over seeds, the lines above). Count steps of stage 2, as the paper's figure does, and
# the translator that has been to school answers better: the language model has less to teach. Count operations, and it is behind:
# spent on stage 2, what school costs buys more, in answers and in descriptions. That is not what the paper suggests. Possible
# reasons, none of them tested here: a step of school runs the translator five times over the batch (ITM alone three times, and no
# language model), a step of stage 2 once, and then the language model; ours is so small that both steps cost about
# the same, while the paper's smallest is over twenty times as large as its Q-Former (see the sizes above). And ours speaks of this
# world and of nothing else, so its gradients say plainly what it would like to hear.
#
# Of descriptions, two of the three models have learned next to nothing: compare them with `blind`. At equal steps those
# bars say nothing about school.
#
# The control with another picture says that the answers come from looking. The arms of `all` we have run with one seed: more queries
# answered better, up to the sixteen that we tried (they cost more as well); and all three losses were *not* the best choice. For the
# same compute, school without ITM answered better than the whole one, and so did writing alone, which is also all that stage 2 will ask
# for; and learning to write did not help to find. The paper's table 6, below, has that the other way around. Perhaps a school so short
# is no place to learn three things.
#
# **What two minutes do not buy**: to say whether there is a blue diamond, one must know which colour belongs to which shape. Look at
# the column `existence` beside the level of chance. The row of equal compute had more steps of stage 2: compare its columns. Try
# `run.stage_2`, and see what is left of the lead.
#
# ## Paper and toy
#
# | | paper | here |
# | --- | --- | --- |
# | vision encoder | CLIP ViT-L/14 or EVA-CLIP ViT-g/14 at 224 px, its last layer left out, frozen (section 3.4) | the course's CLIP at 32 px, the same |
# | Q-Former | BERT-base's size and weights, 32 queries (section 3.1) | four layers, eight queries, from nothing |
# | language model | OPT or FlanT5, frozen | the course's decoder, frozen |
# | stage 1 | 129 million images, 250,000 steps of 2,320 or 1,680 (section 3.4) | an endless stream of descriptions |
# | stage 2 | the same images, 80,000 steps of 1,920 or 1,520 | descriptions, and questions about them |
# | questions | asked of stage 2's model, which was never trained on them ("zero-shot"; section 4.3 then trains on them too, and there the Q-Former reads the question as well: [07 · InstructBLIP](07_instructblip.ipynb)) | trained, for half of the rows |
# | hard wrong partners | of all GPUs' batches | of one batch; equal texts are left out |
#
# Ours starts from nothing where the paper's Q-Former starts from BERT, which knows words before it sees a picture; so ours has
# more to learn in stage 1.
#
# The paper's figure 5 has curves and no numbers to quote. Its table 6 has them for one of our other arms: with ITG in
# stage 1, texts and images of COCO are found at once in 85.4% and 68.3%; without it, in 84.5% and 67.2%.
#
# What an image costs the language model, computed:

# %%
print(f"{'':10s}{'tokens':>7s}{'GFLOP to read':>15s}{'cache, KiB':>12s}")
for name, config in (released | {"ours": model.config}).items():
    n, words = config.image_tokens, config.language
    with torch.device("meta"):
        reader = (OPT if isinstance(words, OPTConfig) else Decoder)(words)
        with FlopCounterMode(display=False) as counter:
            reader.features(embeddings=torch.zeros(1, n, words.width))
    number_bytes = 4 if name == "ours" else 2
    cache = 2 * number_bytes * words.layers * words.width * n / 1024
    gflop = counter.get_total_flops() / 1e9
    print(f"{name:10s}{n:7d}{gflop:15.2f}{cache:12,.0f}")

# %% [markdown]
# ## Exercises
#
# Write your answer over the `raise`; the next line says whether it is right, and if it is not, what you may have mixed up.
#
# ### Exercise 1: The best query ●○○ 5 minutes
#
# One unit vector for each query of each image (B, Q, E), one for each text (K, E). Write `alike(image, text)`, (B, K): the
# cosine of every image with every text, that of the query which fits best.


# %%
def alike(image: Tensor, text: Tensor) -> Tensor:
    raise NotImplementedError


# %%
torch.manual_seed(0)
pictures = F.normalize(torch.randn(3, 4, 6), dim=-1)
texts = F.normalize(torch.randn(2, 6), dim=-1)
check(
    "Exercise 1",
    alike,
    ((pictures, texts), similarity(pictures, texts)),
    ((pictures[:1], texts), similarity(pictures[:1], texts)),
    ((pictures, texts[:1]), similarity(pictures, texts[:1])),
    mistakes={
        "the best query counts, not the mean of all": lambda i, t: torch.einsum(
            "bqe,ke->bkq", i, t
        ).mean(-1),
        "the best of each image's queries, not the best of each text's images": (
            lambda i, t: torch.einsum("bqe,ke->bkq", i, t).amax(0)
        ),
        "one text is a batch too: keep its axis": lambda i, t: (
            torch.einsum("bqe,ke->bkq", i, t).amax(-1).squeeze()
        ),
        "the rows are images, the columns texts": lambda i, t: (
            torch.einsum("bqe,ke->bkq", i, t).amax(-1).T
        ),
    },
    hints="first all cosines of a query with a text, (B, K, Q)",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def alike(image: Tensor, text: Tensor) -> Tensor:
#     return (image[:, None] @ text[None, :, :, None])[..., 0].amax(dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 2: A mask for writing ●●○ 15 minutes
#
# Write `writing(queries, keep)`, the mask of ITG, (B, Q + T, Q + T), from nothing: True where row $i$ may see column $j$;
# queries stand first, `keep` (B, T) is False where there is padding. Nobody reads the rows of padding; let them see what a word
# in their place would see.


# %%
def writing(queries: int, keep: Tensor) -> Tensor:
    raise NotImplementedError


# %%
two_texts = torch.tensor([[True, True, True], [True, True, False]])
all_of_it = lambda q, keep: itm_mask(q, keep)


def changed_mask(change) -> Any:
    """`itg_mask` with one mistake in it."""

    def wrong(queries: int, keep: Tensor) -> Tensor:
        mask = itg_mask(queries, keep)
        change(mask, queries, keep)
        return mask

    return wrong


def blind_words(mask, q, keep) -> None:
    mask[:, q:, :q] = False


def seeing_queries(mask, q, keep) -> None:
    mask[:, :q, q:] = keep[:, None]


def no_order(mask, q, keep) -> None:
    mask[:, q:, q:] = keep[:, None]


def all_in_order(mask, q, keep) -> None:
    mask[:, :q, :q] = mask[:, :q, :q].tril()


def padding_seen(mask, q, keep) -> None:
    n = keep.shape[1]
    mask[:, q:, q:] = torch.ones(n, n, dtype=torch.bool).tril()


check(
    "Exercise 2",
    writing,
    ((2, two_texts), itg_mask(2, two_texts)),
    ((1, two_texts[:1]), itg_mask(1, two_texts[:1])),
    mistakes={
        "words see all queries: where else would they know the image from?": (
            changed_mask(blind_words)
        ),
        "queries must not see the words": changed_mask(seeing_queries),
        "a word must not see the words after it": changed_mask(no_order),
        "queries have no order: each sees all of them": changed_mask(all_in_order),
        "nobody sees padding": changed_mask(padding_seen),
        "that is the mask of ITM": all_of_it,
        "that is the mask of ITC": lambda q, keep: itc_mask(q, keep),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def writing(queries: int, keep: Tensor) -> Tensor:
#     b, t = keep.shape
#     mask = torch.zeros(b, queries + t, queries + t, dtype=torch.bool)
#     mask[:, :, :queries] = True
#     mask[:, queries:, queries:] = torch.ones(t, t, dtype=torch.bool).tril() & keep[:, None]
#     return mask
# ```
#
# </details>

# %% [markdown]
# ### Exercise 3: Whose knowledge gets where? ●●● 20 minutes
#
# One layer's mask says who sees whom. But in two layers a secret can travel: the text sees a query, and in the next layer
# another query sees the text. Write `reached(mask, layers)`, (R, R): True where row $i$ may know something of row $j$ after so
# many layers. (Everyone knows itself from the start.) Then try: if ITC is computed in *one* pass over queries and text, under
# which of the three masks is it an honest task?


# %%
def reached(mask: Tensor, layers: int) -> Tensor:
    raise NotImplementedError


# %%
def steps_of(mask: Tensor, layers: int, itself: bool = True) -> Tensor:
    one = mask | torch.eye(len(mask), dtype=torch.bool) if itself else mask
    known = torch.eye(len(mask), dtype=torch.bool)
    for _ in range(layers):
        known = (one.float() @ known.float()) > 0
    return known


chain = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).bool()
check(
    "Exercise 3",
    reached,
    ((chain, 1), steps_of(chain, 1)),
    ((chain, 2), steps_of(chain, 2)),
    ((chain, 3), steps_of(chain, 3)),
    ((itg_mask(2, two_texts)[1], 4), steps_of(itg_mask(2, two_texts)[1], 4)),
    mistakes={
        "that is what one layer lets through": lambda m, n: steps_of(m, 1),
        "each also keeps what it knew before: the residual stream": (
            lambda m, n: steps_of(m, n, itself=False)
        ),
        "one layer too many": lambda m, n: steps_of(m, n + 1),
        "rows see, columns are seen": lambda m, n: steps_of(m, n).T,
    },
    hints="a product of masks: i sees someone who already knows j",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def reached(mask: Tensor, layers: int) -> Tensor:
#     known = itself = torch.eye(len(mask), dtype=torch.bool)
#     for _ in range(layers):
#         known = ((mask | itself).float() @ known.float()) > 0
#     return known
# ```
# Under the mask of ITM everybody knows everything after one layer, and an image's queries would have read the very text that
# they should find: perfect in training, chance in use. Under that of ITG the queries know nothing of the text, however many
# layers there are; but the text knows the queries, and so the very image that should find it: worthless as well. Only under that
# of ITC are both sides clean.
#
# </details>

# %% [markdown]
# ### Ask it yourself
#
# Any picture of up to three things, any question of the kinds above. (Some pairs of colour and shape, such as
# a blue moon, are in no training picture: `world.HELD_OUT`. The radii of small things are 0.15 to 0.2, of large ones 0.26 to 0.34.)
# We ask the one that answers best so far.

# %% tags=["nbval-ignore-output"] alt="The picture that is asked about, composed by hand."
picture = world.compose(
    dict(colour="green", shape="moon", x=0.32, y=0.66, size=0.28),
    dict(colour="red", shape="square", x=0.76, y=0.26, size=0.18),
)
best = arms[max(arms, key=average.get)]
for question in (
    "what colour is the moon?",
    "how many things are there?",
    "is there a red ring?",
):
    print(question, answers(best, pixels_of(picture), [question])[0])
print("it writes:", written(best, pixels_of(picture))[0])
plots.show_images(world.render(picture, 128), size=2.2)
plt.show()
