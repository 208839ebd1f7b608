# %% [markdown] header="blip"

# %% [markdown]
# CLIP and its followers learned from what the web says about its pictures, and the web lies: captions of another picture,
# captions that get one thing wrong, captions that say *best price today*. One can drown the lies in more data. BLIP asked
# whether **the model could clean its own captions**: write a second one for every picture, judge both, throw out what is
# wrong, and start again on what is left. For that one model must compare, judge *and* write. The paper's answer to that
# became a building kit: BLIP-2 and InstructBLIP are made of its parts.
#
# **You will be able to**
# - build a text transformer that reads, reads in sight of an image, and writes, and is hardly larger for it;
# - say what a slow copy, a queue and soft labels do for contrast, and work one step of it by hand;
# - sample hard negatives, and notice when a matching loss has learned nothing;
# - bootstrap: turn one noisy model into a captioner and a filter, clean a data set with them, and measure what was gained;
# - measure a filter by its precision and its recall.
#
# **You need** [00b · A language model](00b_language_model.ipynb) for how text is written and
# [01 · CLIP](01_clip.ipynb) for attention, the vision transformer and contrast. Training takes about five minutes on one
# core; plan an hour and a half for the rest.

# %%
import copy
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm import backbones, plots, world
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.generate import next_token
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.clip import Pairs, contrastive_loss
from minivlm.nn.attention import causal_mask
from minivlm.nn.grouped_query import KVCache
from minivlm.nn.transformer import MLP
from minivlm.vision.processor import normalize
from minivlm.vision.vit import VisionTransformer, ViTConfig

plots.use_style()
lesson = Lesson("02_blip")
run = lesson.choose(
    cpu=dict(width=64, layers=2, batch=32, lr=2e-3, steps=900, queue=64,
             human=400, web=4000, noise=0.7, tuning=300, tuning_lr=2e-3,
             control_steps=100, pools=4),
    gpu=dict(width=192, layers=4, batch=128, lr=1e-3, steps=6000, queue=256,
             human=1000, web=20000, tuning=800, tuning_lr=1e-3,
             control_steps=500, pools=8),
    smoke=dict(batch=16, steps=3, human=40, web=120, tuning=2, control_steps=2,
               queue=32, pools=1),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# A little data comes from people and is right; most comes from the web and is often wrong. A first model learns from all of
# it. Made into a **captioner** and a **filter** by a short training on the human pairs, it writes a new text for every web
# picture and judges both texts. What the filter keeps, with the human pairs, is the **new set**, and on that a new model starts
# where the first had started. The paper calls this CapFilt (section 3.3).

# %% alt="Diagram: human and web pairs train a first BLIP; fine-tuned on human pairs it becomes a captioner, which writes a text for each web picture, and a filter, which judges the web's text and the written one; what is kept trains a new BLIP from scratch."
ax = plots.diagram(9, 3.9)
human_box = plots.box(ax, 0.1, 3.0, 1.5, 0.75, "human\npairs", "image")
web_box = plots.box(ax, 0.1, 0.3, 1.5, 0.75, "web\npairs", "image")
first = plots.box(ax, 2.1, 1.55, 1.2, 0.75, "first\nBLIP", "connector")
captioner_box = plots.box(ax, 3.9, 1.85, 1.3, 0.65, "captioner", "text")
filter_box = plots.box(ax, 3.9, 0.35, 1.3, 0.65, "filter", "loss")
new_set = plots.box(ax, 6.1, 1.55, 1.2, 0.75, "new set", "image")
second = plots.box(ax, 7.8, 1.55, 1.1, 0.75, "new\nBLIP", "connector")
plots.arrow(ax, human_box, (2.4, 2.3))
plots.arrow(ax, (0.85, 1.05), (2.1, 1.75))
plots.arrow(ax, (3.3, 2.05), captioner_box)
plots.arrow(ax, (3.3, 1.7), (4.1, 1.0))
plots.arrow(ax, captioner_box, filter_box)
plots.arrow(ax, (1.6, 0.6), filter_box)
plots.arrow(ax, (5.2, 0.7), (6.4, 1.55))
plots.arrow(ax, (1.6, 3.5), (6.6, 2.3))
plots.arrow(ax, new_set, second)
ax.text(4.65, 1.4, "writes", ha="left", va="center")
ax.text(2.7, 0.5, "every web text", ha="center", va="top")
ax.text(5.9, 0.85, "what it keeps", ha="left", va="center")
ax.text(
    4.55,
    0.2,
    "captioner and filter are tuned on the human pairs",
    ha="center",
    va="top",
)
plt.show()

# %% [markdown]
# Here is our web. The world's `WebCaptions` plants what real web captions are full of. What was planted is written down, so
# that we can measure a filter later; **no training ever sees it**. (The web itself comes without such a list.) Some texts are of
# another picture (**swapped**), some have a **wrong colour** or a **wrong shape**, some are **generic** and say nothing of any
# picture, some are **truncated**. Crossed below is whatever was tampered with.

# %% alt="Twelve pictures of one thing each with their web captions, those that are true ticked and the others crossed: wrong colours, wrong shapes, other pictures' captions, adverts, texts that break off."
from minivlm.world.grammar import noun
from minivlm.world.scenes import Thing, things
from minivlm.world.web import FALSE, NOISE, WebCaptions

KINDS = ("swapped", "wrong colour", "wrong shape", "generic", "truncated")


def say(rng):
    """Writes what a person would say of pictures of one thing: `a large red star`."""
    return lambda scenes: [noun(thing) for (thing,) in things(scenes)]


some_rng = world.generator("gallery")
some = world.draw_scenes(some_rng, 12, objects=(1, 1))
lies = WebCaptions(some_rng, run.noise, KINDS, say(some_rng))(some)
true = [NOISE[kind] == "clean" for kind in lies.noise]
plots.show_images(world.render(some, 64), lies.texts, 6, 1.45, right=true)
plt.show()

# %% [markdown]
# A wrong colour or shape is false in one word only, and the other words are right. A truncated text is not even false:
# it is true and says too little. We will keep such texts apart when we count.
#
# ## Build
#
# ### Looking: cross-attention
#
# In 01's attention, a sequence asks itself. In **cross-attention** the queries come from one sequence (words) and the keys
# and values from another (patches of an image). So every word can ask the image its own question. The keys and values do not
# depend on the word, so they are computed once for a text that is written word by word.

# %% include="minivlm.nn.cross_attention:KeysValues, CrossAttention"

# %%
torch.manual_seed(0)
look = CrossAttention(width=8, heads=2, seen=12)
words, patches = torch.rand(1, 3, 8), torch.rand(1, 16, 12)
seen = look.keys_values(patches)
print("words", tuple(words.shape), "patches", tuple(patches.shape), end=" ")
print("->", tuple(look(words, seen).shape))
one_word = look(words[:, 1:2], seen)
print("a word asks for itself:", torch.allclose(one_word, look(words, seen)[:, 1:2]))
shuffled = look.keys_values(patches[:, torch.randperm(16)])
print("the order of patches says nothing:", torch.allclose(look(words, shuffled),
                                                          look(words, seen), atol=1e-6))

# %% [markdown]
# (Where a patch was is in its features: the vision transformer has added positions.)
#
# ### A block of BERT, and one thing more
#
# BERT's block attends, adds, and *then* normalises (**post-norm**; CLIP's normalises first). BLIP puts a cross-attention
# between self-attention and MLP. If there is nothing to see, it is **skipped**: the very same block then only reads.

# %% include="minivlm.language.bert:BertConfig, BertBlock, reading_mask"

# %% [markdown]
# Three ways to read follow from two switches. *Is there an image? May a word see what comes after it?*
#
# | | image | later words | first token | for |
# | --- | --- | --- | --- | --- |
# | text encoder | no | yes | `[CLS]` | comparing (ITC) |
# | image-grounded encoder | yes | yes | `[ENC]` | judging (ITM) |
# | image-grounded decoder | yes | no | `[DEC]` | writing (LM) |

# %% alt="Three masks for a text of five tokens, one of them padding, beside three image tokens: the text encoder sees all words and no image, the grounded encoder all words and the image, the decoder the words up to its own and the image."
keep = torch.tensor([[True, True, True, True, False]])
fig, axes = plt.subplots(1, 3, figsize=(9, 2.9))
rows = ["[first]", "a", "red", "star", "[pad]"]
for ax, (name, causal, image) in zip(
    axes,
    [("text encoder", False, 0), ("grounded encoder", False, 1), ("decoder", True, 1)],
    strict=True,
):
    of_words = reading_mask(keep, causal).expand(1, 5, 5)[0].float()
    both = torch.cat([of_words, image * torch.ones(5, 3)], dim=1)
    plots.heatmap(both, fmt="{:.0f}", title=name, limits=(0, 1), ax=ax)
    ax.set_yticks(range(5), rows if ax is axes[0] else [""] * 5)
    ax.set_xticks([2, 6], ["words", "image"])
    ax.axvline(4.5, color="white", linewidth=4)
plt.show()

# %% [markdown]
# Now the whole of it. Its output layer is for the decoder alone, and uses the matrix that also reads words in. `init_bert`
# says how it starts; at our small width BERT's own start is too small, and the first token would hardly know its text.

# %% include="minivlm.language.bert:SHARED_PARTS, Bert, init_bert, share"

# %%
torch.manual_seed(0)
sizes = dict(context=16, width=16, layers=2, heads=2, hidden=32)
reader = Bert(BertConfig(50, **sizes, seen=12))
ids = torch.tensor([[1, 20, 21, 22, 23]])
with torch.no_grad():
    alone, grounded = reader(ids), reader(ids, patches)
    writing = reader(ids, patches, causal=True)
    changed = ids.clone()
    changed[0, 4] = 30  # another last word
    same = lambda x, y: torch.allclose(x[:, :4], y[:, :4], atol=1e-6)
    writes_alike = same(reader(changed, patches, causal=True), writing)
    reads_alike = same(reader(changed, patches), grounded)
print("with an image it reads otherwise:", not same(alone, grounded))
print("another last word changes the words before it:", end=" ")
print(f"reading {not reads_alike}, writing {not writes_alike}")

# %% [markdown]
# ### Sharing
#
# An encoder and a decoder would be two BERTs. BLIP lets them **share everything but self-attention**: looking and thinking
# are the same work in both; but who reads a finished text attends to it in other ways than who must guess the next
# word. (`SHARED_PARTS` has the four choices of the paper's table 3; once there is a BLIP we will count what each costs.)
#
# ### ITC: compare, with a long memory
#
# CLIP compares within the batch, and needs thousands of pairs in it. BLIP takes from its ancestor ALBEF (and from MoCo) a
# **queue**: the last thousands of features stay, as further wrong answers. But the model changes with each step, and old
# features go stale. So they come from a **slow copy** that changes hardly at all: each of its numbers is a running mean.

# %% include="minivlm.nn.momentum:slow_copy, follow, Queue"

# %%
fast = nn.Linear(1, 1, bias=False)
slow = slow_copy(fast)
slow.weight.fill_(1.0)
nn.init.constant_(fast.weight, 3.0)
followed = []
for _ in range(4):
    follow(slow, fast, momentum=0.5)
    followed.append(slow.weight.item())
print("1 on its way to 3, momentum 0.5:", followed)
print("parameters that an optimizer sees:", len(list(slow.parameters())))

queue = Queue(size=3, width=1)
for number in (1.0, 2.0, 3.0, 4.0):
    queue.push(torch.tensor([[number]]))
print("a queue of three after 1, 2, 3, 4:", queue.features[:, 0].tolist())

# %% [markdown]
# The slow copy has a second use. In 01 two equal captions of a batch hurt: each is punished for fitting the other's
# image. With noisy captions it is worse, because a wrong answer may fit *better* than the right one. So the label is not
# all on one's own partner: a part `alpha` of it goes where the slow copy sees likeness. Those are **soft labels**. At first
# the copy knows nothing, so `alpha` rises slowly from zero.

# %% include="minivlm.nn.contrast:Momentum, ramped, soft_labels"

# %% [markdown]
# By hand. Say the slow copy finds, for one image and three texts, scores of $\ln 2$, $0$ and $0$. The softmax of these is
# $\frac12, \frac14, \frac14$. With $\alpha = 0.4$ the labels are
# $0.4 \cdot (\frac12, \frac14, \frac14) + 0.6 \cdot (1, 0, 0) = (0.8, 0.1, 0.1)$. If the model itself has
# $\ln 6$, $\ln 3$ and $0$, its softmax is $0.6, 0.3, 0.1$, and the loss is
# $-0.8 \ln 0.6 - 0.1 \ln 0.3 - 0.1 \ln 0.1 = 0.759$.

# %%
labels = soft_labels(torch.tensor([[math.log(2), 0.0, 0.0]]), alpha=0.4)
print("labels:", [round(x, 3) for x in labels[0].tolist()])
logits = torch.tensor([[math.log(6), math.log(3), 0.0]])
by_hand = -0.8 * math.log(0.6) - 0.1 * math.log(0.3) - 0.1 * math.log(0.1)
print(f"loss: {F.cross_entropy(logits, labels).item():.3f}, by hand {by_hand:.3f}")
rise = [ramped(torch.tensor(step), 0.4, ramp=4).item() for step in range(6)]
print("alpha:", [round(x, 1) for x in rise])

# %% [markdown]
# Put together. It knows neither images nor texts, only two kinds of things that belong together, *a* and *b*. Note what is
# compared with what: the model's own feature with the **slow copy's** features of the other kind, those of this batch and
# those remembered. The temperature is learned.

# %% include="minivlm.nn.contrast:MomentumContrast"

# %% [markdown]
# And a whole step by hand: two pairs, one remembered of each kind, all features on a circle. The formula written out with
# sines and cosines must give what the class gives.


# %%
def on_circle(*degrees: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


contrast = MomentumContrast(Momentum(queue=1, alpha=0.4, ramp=1), 2, temperature=0.5)
contrast.steps += 1  # the ramp is over
contrast.queue_a.push(on_circle(180))
contrast.queue_b.push(on_circle(200))
a, b, slow_a, slow_b = (0, 90), (10, 70), (5, 80), (20, 60)
loss, like_b, _ = contrast(*(on_circle(*x) for x in (a, b, slow_a, slow_b)))


def one_direction(fast, slow, others) -> float:
    total = 0.0
    for i in range(2):
        score = lambda angle, other: math.cos(math.radians(angle - other)) / 0.5
        mine = [math.exp(score(fast[i], other)) for other in others]
        theirs = [math.exp(score(slow[i], other)) for other in others]
        for j in range(3):
            label = 0.4 * theirs[j] / sum(theirs) + 0.6 * (i == j)
            total -= label * math.log(mine[j] / sum(mine)) / 2
    return total


there = one_direction(a, slow_a, (*slow_b, 200))
back = one_direction(b, slow_b, (*slow_a, 180))
print(f"the class {loss.item():.5f}, by hand {(there + back) / 2:.5f}")
print("remembered before the step's end:", contrast.queue_b.features[0].tolist()[0] < 0)

# %% [markdown]
# ### ITM: judge, and be asked the hard questions
#
# **Image-text matching** shows the grounded encoder an image *and* a text, and asks: do they belong together? Here every word
# can look at the image, so it can find a single wrong word where two arrows can only be near each other or not. But most
# wrong pairs are so wrong that there is nothing to learn from them. So each image gets one wrong text of the batch, and
# each text one wrong image, and **the more alike ITC finds them, the likelier they are drawn**.

# %% include="minivlm.nn.contrast:hard_negatives"

# %%
likeness = torch.tensor([[5.0, 3.0, 1.0, 0.0]]).repeat(4, 1)
own = torch.eye(4, dtype=torch.bool)
generator = torch.Generator().manual_seed(0)
drawn = Counter(
    hard_negatives(likeness, own, generator)[0].item() for _ in range(1000)
)
print("wrong partners of number 0, in 1000 draws:", dict(sorted(drawn.items())))

# %% [markdown]
# **A trap.** Of three pairs asked about, one is right and two are wrong. Whoever always says "right with probability 1/3" has
# a loss of $\ln 3 - \frac23 \ln 2$. It looks like a loss that has come down from $\ln 2$; it is one that has learned
# *nothing*. A user of the authors' code who reported it (issue 200) stood exactly there. Remember the number:

# %%
GUESSING = math.log(3) - 2 / 3 * math.log(2)
print(f"matching, always guessing one third: {GUESSING:.3f}; a coin: {math.log(2):.3f}")

# %% [markdown]
# ### LM: write
#
# The decoder learns what 00b's language model learned, the next word, only in sight of the image. One detail: **label smoothing**.
# A tenth of each label is spread over all words, so that the decoder is never paid for being quite sure. Its loss has a
# floor above zero, then:

# %%
tokenizer = Tokenizer(world.vocabulary())
smoothing, size = 0.1, len(tokenizer)
other = smoothing / size
floor = -(1 - smoothing + other) * math.log(1 - smoothing + other)
floor -= (size - 1) * other * math.log(other)
print(f"the lowest loss possible with {size} words: {floor:.3f}")

# %% [markdown]
# ### BLIP
#
# Its sizes, and what it is trained for. (`vqa` is for later: BLIP answers a question by letting its decoder look at what
# the grounded encoder made of image and question, section 5.3.)

# %% include="minivlm.models.blip:TASKS, COPIED, BLIPConfig, blip_vit"

# %% [markdown]
# First what it can do. The first token says in which way a text is read: `begin` overwrites it. (The paper says that
# `[Encode]` is appended. In the authors' code it takes the place of the first token, and so it does here.)

# %% include="minivlm.models.blip:Questions, begin, feature, MED"

# %% [markdown]
# Then how it learns: three losses, added up. One pass through the vision encoder serves them all; the text passes three
# times, once in each way. A loss changes nothing that lasts; the training loop calls `after_step`, and there slow copy
# and queues move on. `only` makes a captioner or a filter of it.

# %% include="minivlm.models.blip:BLIP"

# %%
cls, enc, dec, sep = (
    tokenizer.encode(token)[0] for token in ("[CLS]", "[ENC]", "[DEC]", "[SEP]")
)
size = "gpu" if lesson.large and "vision-gpu" in backbones.built() else "cpu"
eye_sizes, eye = backbones.read(f"vision-{size}")
vision_config = ViTConfig(**eye_sizes["vision"])
config = BLIPConfig.tiny(
    len(tokenizer), enc, dec, sep, run.width, run.layers, run.queue
)
text_config = replace(config.text, seen=vision_config.width)
config = replace(config, vision=vision_config, text=text_config)


def untrained() -> BLIP:
    """An eye that has seen something before, and a text model that knows nothing."""
    torch.manual_seed(lesson.seed)
    model = BLIP(config)
    mine = {k.removeprefix("vision."): v for k, v in eye.items() if "vision." in k}
    model.vision.load_state_dict(mine)
    follow(model.slow.vision, model.vision, momentum=0.0)
    return model.to(lesson.device)


def count(config: BLIPConfig) -> float:
    with torch.device("meta"):
        return sum(p.numel() for p in BLIP(config).parameters()) / 1e6


print("what encoder and decoder share   ours    base (million parameters)")
for shared in SHARED_PARTS:
    ours = count(replace(config, shared=shared))
    base = count(BLIPConfig.base(shared=shared, momentum=None))
    print(f"{shared:26s}{ours:11.2f}{base:8.0f}")

# %% [markdown]
# The last column is that of table 3, to the million. What it bought there, from top to bottom, in COCO's text recall@1 after
# fine-tuning: 77.3, 78.4, 77.5 and 78.3. All but self-attention is as good as sharing nothing, and far smaller.

# %% [markdown]
# ## Is it right?
#
# `data/reference` holds three small BLIPs in the released file format, with random weights, and what the reference
# implementation (`transformers`) computes with them: a captioner (`BlipForConditionalGeneration`), a filter
# (`BlipForImageTextRetrieval`, both its heads), and one that answers questions (`BlipForQuestionAnswering`). The classes of the
# cells above must compute the same.

# %%
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.course.lesson import ROOT


def stored(name: str) -> tuple[BLIP, dict[str, Tensor]]:
    """A small BLIP with the reference's weights, and what the reference computed."""
    folder = ROOT / "data" / "reference" / name
    sizes, weights = checkpoints.read(folder)
    vision, text = ViTConfig(**sizes.pop("vision")), BertConfig(**sizes.pop("text"))
    model = BLIP(BLIPConfig(vision, text, **sizes)).eval()
    model.load_state_dict(weights)
    return model, load_file(folder / "expected.safetensors")


def compare(name: str, value: Tensor, there: Tensor) -> None:
    equal = torch.allclose(value, there, rtol=0, atol=1e-5)
    print(f"{name:22s}{str(tuple(value.shape)):15s}equal to 1e-5: {equal}")


with torch.no_grad():
    writer, expected = stored("blip_captioner")
    pixel_values, ids = expected["pixel_values"], expected["input_ids"]
    image, keep = writer.see(pixel_values), writer.keep(ids)
    compare("image tokens", image, expected["image_embeds"])
    scores = writer.decoder.logits(writer.decoder(ids, image, True, keep))
    compare("scores of words", scores[keep], expected["logits"][keep])
    compare("loss", writer.loss(Pairs(pixel_values, ids)), expected["loss"])
    new = writer.generate(pixel_values, max_new_tokens=expected["generated"].shape[1])
    print("written captions, word for word:", torch.equal(new, expected["generated"]))

    judge, expected = stored("blip_filter")
    pixel_values, ids = expected["pixel_values"], expected["input_ids"]
    cosines = judge.embed_image(pixel_values) @ judge.embed_text(ids).T
    compare("ITC, cosines", cosines, expected["itc"])
    compare("ITM, scores", judge.judge(judge.see(pixel_values), ids), expected["itm"])

    answerer, expected = stored("blip_answers")
    pixel_values, ids = expected["pixel_values"], expected["input_ids"]
    asked = Questions(pixel_values, ids, expected["answer_ids"])
    compare("loss of answers", answerer.loss(asked), expected["loss"])
    length = expected["generated"].shape[1]
    new = answerer.generate(pixel_values, ids, max_new_tokens=length)
    print("written answers, word for word:", torch.equal(new, expected["generated"]))

# %% [markdown]
# And with any weights these must hold: what is shared is one object, self-attention is not; the text encoder knows no image
# (a cross-attention left switched on would leak it into ITC); the slow copy is out of the optimizer's reach.

# %%
from minivlm.evaluation import probes

model = untrained().eval()
one, two = model.encoder.blocks[0], model.decoder.blocks[0]
print("cross-attention shared:", one.cross is two.cross, end="; ")
print("self-attention:", one.attention is two.attention)

few = world.draw_scenes(world.generator("few"), 4, objects=(1, 1))
texts = tokenizer.batch(say(world.generator("few words"))(few), config.text.context)
pixels = world.render(few, vision_config.image_size).to(lesson.device)
some = Pairs(pixels, begin(texts, cls).to(lesson.device))
model.loss(some).backward()
print("learning numbers of the slow copy:", len(list(model.slow.parameters())))
model.zero_grad()
model.embed_text(some.ids).sum().backward()
print("the text encoder looks at images:", one.cross.q.weight.grad is not None)
_ = probes.run(model, some)

# %% [markdown]
# ## Train
#
# ### Two piles of pairs
#
# A **human** set, small and true; a **web** set, large and mostly not. Both are finite: an experiment about data needs data that
# can run out. Of the web's texts, `noise` are faulty, of each kind about equally many. `planted` is what was planted. It
# goes to nobody who learns.

# %%
from minivlm.world.finite import FiniteSet

human = FiniteSet("human", lesson.seed, run.human, say, objects=(1, 1))
web = FiniteSet("web", lesson.seed, run.web, say, objects=(1, 1))
web_rng = world.generator("web noise", lesson.seed)
drawn = WebCaptions(web_rng, run.noise, KINDS, say(web_rng))(web.scenes)
web_texts, planted = drawn.texts, [NOISE[kind] for kind in drawn.noise]
about = backbones.card(f"vision-{size}")
mean, std = about["pixel_mean"], about["pixel_std"]


def pixels_of(scenes: world.Scenes) -> Tensor:
    images = world.render(scenes, vision_config.image_size, device=lesson.device)
    return normalize(images, mean, std)


def read_in(texts: Sequence[str]) -> Int[Tensor, "b t"]:
    """`[CLS] text [SEP]`, padded on the right."""
    ids = begin(tokenizer.batch(texts, config.text.context), cls)
    return ids.masked_fill(ids == tokenizer.eos, sep).to(lesson.device)


def joined(*sets: Pairs) -> Pairs:
    """One set of pairs from several."""
    longest = max(part.ids.shape[1] for part in sets)
    ids = [F.pad(part.ids, (0, longest - part.ids.shape[1])) for part in sets]
    return Pairs(torch.cat([part.pixel_values for part in sets]), torch.cat(ids))


human_pairs = Pairs(pixels_of(human.scenes), read_in(human.texts))
web_pairs = Pairs(pixels_of(web.scenes), read_in(web_texts))
noisy_pairs = joined(human_pairs, web_pairs)
print(f"{len(human)} human pairs, {len(web)} from the web. Of these:")
for kind, n in Counter(planted).most_common():
    example = web_texts[planted.index(kind)]
    print(f"{n / len(web):5.0%} {kind:13s} such as: {example}")

# %% [markdown]
# ### The first model
#
# It learns from all of it at once, human and web. We watch the three losses, each against what knowing nothing costs.
# (Writing cannot fall below the floor that we computed, and comparing cannot reach zero, either: there are so few different captions
# that batch and queue hold some of them more than once, and soft labels are never quite sure.)

# %%
from minivlm.training import fit


def epochs(pairs: Pairs, name: str) -> Iterator[Pairs]:
    """Whole batches in a new order each time around, without end."""
    rng = world.generator(name, lesson.seed)
    while True:
        order = torch.from_numpy(rng.permutation(len(pairs.ids))).to(lesson.device)
        for rows in order.split(run.batch):
            if len(rows) == run.batch:
                ids = pairs.ids[rows]
                longest = int(model.keep(ids).sum(1).max())
                yield Pairs(pairs.pixel_values[rows], ids[:, :longest])


def train(
    model: BLIP, pairs: Pairs, steps: int, lr: float, name: str
) -> dict[str, list[float]]:
    """Fit, and keep each task's loss. The temperature learns more slowly: our rates are
    larger than the paper's, and from 0.07 it is not far to nothing.
    """
    generator = torch.Generator(lesson.device).manual_seed(lesson.seed)
    found = []

    def loss(batch: Pairs) -> Tensor:
        losses = model.losses(batch, generator)
        found.append(torch.stack(list(losses.values())).detach())
        return sum(losses.values())

    slower = {} if model.config.momentum is None else {"contrast": lr / 20}
    fit(model, epochs(pairs, name), steps, lr, lrs=slower, loss=loss, name=name)
    return dict(zip(model.config.tasks, torch.stack(found).T.tolist(), strict=True))


# %% tags=["nbval-ignore-output"]
noisy = untrained()
losses = train(noisy, noisy_pairs, run.steps, run.lr, "noisy")
temperature = noisy.contrast.temperature.item()
print(f"the temperature went from {config.temperature} to {temperature:.3f}")

# %% tags=["nbval-ignore-output"] alt="Three losses over the steps, each with a dotted line for guessing: comparing falls slowly, matching hardly leaves the line, writing falls at once and then stays above its floor."
def draw_losses(losses: dict[str, list[float]]) -> None:
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.8))
    nothing = dict(itc=math.log(run.batch + run.queue), itm=GUESSING)
    nothing["lm"] = math.log(len(tokenizer))
    names = dict(itc="comparing (ITC)", itm="matching (ITM)", lm="writing (LM)")
    for ax, (task, values) in zip(axes, losses.items(), strict=True):
        window = max(1, len(values) // 40)
        smooth = torch.tensor(values).unfold(0, window, 1).mean(1)
        ax.plot(smooth)
        ax.axhline(nothing[task], color="#767676", linestyle=":")
        if task == "lm":
            ax.axhline(floor, color="#767676", linestyle="--")
        ax.set_ylim(0, 1.15 * max(smooth.max().item(), nothing[task]))
        lines = "dotted: guessing" + (", dashed: floor" if task == "lm" else "")
        ax.set(title=names[task], xlabel=f"step\n{lines}")
    plt.show()


draw_losses(losses)

# %% [markdown]
# ### How to measure it
#
# Each of the three things that BLIP does, on new pictures with true captions. **Searching** as the paper does it: rank with
# ITC, which is cheap, then let ITM judge the best few once more. **Judging**: true captions, and captions with one word
# wrong; how many are judged right? **Writing**: is the text true? Both the likeliest text and one drawn as CapFilt draws it.
# Since the world knows what is in a picture, we can judge any text about it, word by word:

# %%
def verdict(text: str, thing: Thing) -> str:
    """What a text is of a picture with one thing: true, false, partly (nothing wrong,
    but size, colour or shape is missing), or nothing said.
    """
    known = {*world.COLOURS, *world.SHAPES, *world.SIZES}
    said = [word for word in text.split() if word in known]
    if set(said) - {thing.size, thing.colour, thing.shape}:
        return "false"
    return {0: "nothing said", 3: "true"}.get(len(set(said)), "partly")


# %%
from minivlm.evaluation import recall_at


class Pool(NamedTuple):
    """Pictures of which no two show the same, and what is to be said of each."""

    scenes: world.Scenes
    things: list[Thing]
    texts: list[str]
    pairs: Pairs
    wrong: Int[Tensor, "b t"]  # texts that are wrong in one word


def drawn_pool(name: str, draws: int = 1500) -> Pool:
    scenes = world.draw_scenes(world.generator(name), draws, objects=(1, 1))
    last = {text: row for row, text in enumerate(say(None)(scenes))}
    scenes = scenes[list(last.values())]
    pairs = Pairs(pixels_of(scenes), read_in(list(last)))
    rng = world.generator(f"{name} wrong")
    wrong = WebCaptions(rng, 1.0, ("wrong colour", "wrong shape"), say(rng))(scenes)
    shown = [thing for (thing,) in things(scenes)]
    return Pool(scenes, shown, list(last), pairs, read_in(wrong.texts))


test = [drawn_pool(f"test {number}") for number in range(run.pools)]
print(f"{run.pools} times {len(test[0].texts)} pictures, such as", test[0].texts[0])


def in_words(ids: Int[Tensor, "b t"]) -> list[str]:
    """What was written, without its end and what fills it up."""
    stop = (sep, tokenizer.pad)
    return [tokenizer.decode([i for i in row if i not in stop]) for row in ids.tolist()]


@torch.no_grad()
def ranked_first(
    model: BLIP, pixel_values: Tensor, ids: Tensor, best: int = 8
) -> tuple[float, float]:
    """Recall@1, mean of both directions: by ITC alone; its best few by ITM."""
    seen, by_itc, right = model.see(pixel_values), [], []
    alike = model.embed_image(pixel_values) @ model.embed_text(ids).T
    own = torch.arange(len(ids), device=ids.device)
    for square, texts_wanted in ((alike, True), (alike.T, False)):
        by_itc.append(recall_at(1, square))
        found = square.topk(min(best, len(ids)), dim=1).indices
        scores = []
        for column in found.T:
            image, text = (own, column) if texts_wanted else (column, own)
            no, yes = model.judge(seen[image], ids[text]).T
            scores.append(yes - no)
        first = found.gather(1, torch.stack(scores, 1).argmax(1, keepdim=True))[:, 0]
        right.append((first == own).float().mean().item())
    return sum(by_itc) / 2, sum(right) / 2


@torch.no_grad()
def captions_of(model: BLIP, pixel_values: Tensor, **how: Any) -> list[str]:
    texts = []
    for part in pixel_values.split(500):
        texts += in_words(model.generate(part, max_new_tokens=8, **how))
    return texts


def truthful(texts: Sequence[str], things: Sequence[Thing]) -> float:
    """Share of texts that say the size, the colour and the shape, and nothing wrong."""
    pairs = zip(texts, things, strict=True)
    return sum(verdict(text, thing) == "true" for text, thing in pairs) / len(texts)


@torch.no_grad()
def judged_right(model: BLIP, pool: Pool) -> float:
    """Mean of the shares of true texts believed and of wrong ones refused."""
    images, ids = pool.pairs
    believed = model.match(images, ids) >= 0.5
    refused = model.match(images, pool.wrong) < 0.5
    return (believed.float().mean() + refused.float().mean()).item() / 2


NUCLEUS = dict(temperature=1.0, top_p=0.9)


def measure(model: BLIP, pools: Sequence[Pool] = test) -> dict[str, float]:
    """Means over the pools."""
    found = Counter()
    generator = torch.Generator(lesson.device).manual_seed(0)
    for pool in pools:
        images, ids = pool.pairs
        likeliest = captions_of(model, images)
        drawn = captions_of(model, images, **NUCLEUS, generator=generator)
        by_itc, then_itm = ranked_first(model, images, ids)
        found["searching"] += then_itm
        found["judging"] += judged_right(model, pool)
        found["writing"] += truthful(drawn, pool.things)
        found["ITC alone"] += by_itc
        found["likeliest"] += truthful(likeliest, pool.things)
    return {name: total / len(pools) for name, total in found.items()}


def tell(name: str, found: dict[str, float]) -> None:
    print(name + ": " + ", ".join(f"{key} {value:.0%}" for key, value in found.items()))


# %% tags=["nbval-ignore-output"]
tell("the first model", measure(noisy))

# %% [markdown]
# ### CapFilt
#
# **Captioner and filter** are both made of the first model, separately, on the human pairs alone: one by LM, one by ITC and
# ITM. Separately, because a filter that shares the captioner's weights forgives its mistakes (paper, table 4: exercise 4).

# %% tags=["nbval-ignore-output"]
captioner, judge = noisy.only("lm"), noisy.only("itc", "itm")
tuning = (run.tuning, run.tuning_lr)
_ = train(captioner, human_pairs, *tuning, "captioner")
_ = train(judge, human_pairs, *tuning, "filter")

# %% [markdown]
# **Write.** One text for each web picture, and not the likeliest. The captioner draws each word from the **nucleus**: the
# likeliest words that together just reach 0.9 of the probability. Beam search makes fewer mistakes (19% instead of 25%
# in the paper) and a worse data set (table 2): it says safe things that are known already.

# %%
step = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
generator = torch.Generator().manual_seed(0)
draw = lambda: next_token(step, **NUCLEUS, generator=generator).item()
times = Counter(draw() for _ in range(1000))
print("words of probability .5, .3, .15, .05:", dict(sorted(times.items())))

# %% tags=["nbval-ignore-output"]
generator = torch.Generator(lesson.device).manual_seed(lesson.seed)
nucleus = dict(**NUCLEUS, generator=generator)
web_things = [thing for (thing,) in things(web.scenes)]
with torch.no_grad():
    parts = [captioner.generate(part, max_new_tokens=8, **nucleus)
             for part in web_pairs.pixel_values.split(500)]  # fmt: skip
    longest = max(part.shape[1] for part in parts)
    new_ids = torch.cat([F.pad(p, (0, longest - p.shape[1])) for p in parts])
written_ids = torch.cat([torch.full_like(new_ids[:, :1], cls), new_ids], dim=1)
written_pairs = Pairs(web_pairs.pixel_values, written_ids)
written = in_words(new_ids)
pairs = zip(written, web_things, strict=True)
of_written = [verdict(text, thing) for text, thing in pairs]
for name, n in Counter(of_written).most_common():
    example = written[of_written.index(name)]
    print(f"{n / len(web):5.1%} {name:13s} such as: {example}")

# %% [markdown]
# Now and then a word comes from nowhere. That is label smoothing: a tenth of the probability is spread over all words, and where
# the right one has a little less than 0.9, the nucleus takes in as many of the others as it needs to get there, hundreds perhaps.
# (`<reserved 578>` is a place in the vocabulary that no word has taken yet.)
#
# **Judge.** Both texts of each web picture go before the filter, the web's and the written one; what ITM finds less likely
# than one half is thrown out.


# %%
@torch.no_grad()
def belongs(judge: BLIP, pairs: Pairs) -> Bool[Tensor, "b"]:
    parts = zip(pairs.pixel_values.split(500), pairs.ids.split(500), strict=True)
    return torch.cat([judge.match(images, ids) for images, ids in parts]) >= 0.5


def some_of(pairs: Pairs, rows: Bool[Tensor, "b"]) -> Pairs:
    return Pairs(pairs.pixel_values[rows], pairs.ids[rows])


# %% tags=["nbval-ignore-output"]
kept_web, kept_written = belongs(judge, web_pairs), belongs(judge, written_pairs)
new_set = joined(
    human_pairs, some_of(web_pairs, kept_web), some_of(written_pairs, kept_written)
)
print(f"kept: {kept_web.float().mean():.0%} of the web's texts", end=", ")
print(f"{kept_written.float().mean():.0%} of the written ones")
print(f"the new set has {len(new_set.ids)} pairs, the noisy one {len(noisy_pairs.ids)}")

# %% [markdown]
# ### How good is the filter?
#
# Now, and only now, we look up what was planted. **Recall**: of the texts that are wrong, how many were thrown out?
# **Precision**: of the texts that were thrown out, how many were wrong? Who throws out blindly has a precision, too: the share of
# texts that are wrong. Texts that break off are true and partial, and there
# are arguments for both; so they are in neither number and stand by themselves.


# %% tags=["nbval-ignore-output"] alt="Bars: the share of each kind of text that the filter threw out: few of the clean ones, and most of the false, the generic and the truncated ones; of the written ones few that are true and most that are false."
def precision_recall(
    thrown: Sequence[bool], wrong: Sequence[bool]
) -> tuple[float, float]:
    hits = sum(t and w for t, w in zip(thrown, wrong, strict=True))
    return hits / max(1, sum(thrown)), hits / max(1, sum(wrong))


thrown = (~kept_web).tolist()
share_thrown = {}
for kind in ("clean", *KINDS):
    of_kind = [t for t, k in zip(thrown, planted, strict=True) if k == kind]
    share_thrown[f"web: {kind}"] = sum(of_kind) / max(1, len(of_kind))
thrown_written = (~kept_written).tolist()
for name in ("true", "false"):
    of_kind = [t for t, v in zip(thrown_written, of_written, strict=True) if v == name]
    share_thrown[f"written: {name}"] = sum(of_kind) / max(1, len(of_kind))
right_ones = ["web: clean", "written: true"]
plots.bars(share_thrown, "share thrown out", highlight=right_ones)
plt.show()

apart = [kind != "truncated" for kind in planted]
wrong = [kind != "clean" for kind in planted]
counted = [(t, w) for t, w, a in zip(thrown, wrong, apart, strict=True) if a]
precision, recall = precision_recall(*zip(*counted, strict=True))
clean_thrown = share_thrown["web: clean"]
print(f"precision {precision:.0%}, recall {recall:.0%};", end=" ")
print(f"of the clean texts {clean_thrown:.0%} were lost")
at_random = sum(wrong for _, wrong in counted) / max(1, len(counted))
print(f"precision of who throws out blindly: {at_random:.0%}")

# %% [markdown]
# ### The new model
#
# It starts where the first one started, and does not go on from it, so that nothing it knows comes from lies. (In the paper it makes
# little difference: table 13. As the paper's begin with a vision encoder that knows ImageNet, ours begin with that of the course's
# CLIP.) As many steps as the first.

# %% tags=["nbval-ignore-output"]
cleaned = untrained()
losses = train(cleaned, new_set, run.steps, run.lr, "CapFilt")
tell("the first model", measure(noisy))
tell("the new model", measure(cleaned))

# %% tags=["nbval-ignore-output"] alt="The three losses of the new model: comparing, matching and writing all fall further than those of the first."
draw_losses(losses)

# %% [markdown]
# ## Look
#
# ### What was thrown out, and what replaced it
#
# Above each picture what the web said, and the filter did not believe; below, what the captioner wrote and the filter kept.

# %% tags=["nbval-ignore-output"] alt="Twelve web pictures; above each the web text that was thrown out, below it the written text that was kept in its place."
shown, of_kind = [], Counter()
for i, kind in enumerate(planted):
    if thrown[i] and kept_written[i] and of_kind[kind] < 3 and len(shown) < 12:
        shown.append(i)
        of_kind[kind] += 1
if shown:
    pictures = world.render(web.scenes[shown], 64)
    lies = [web_texts[i] for i in shown]
    figure = plots.show_images(pictures, lies, 6, 1.45, right=[False] * len(shown))
    for ax, i in zip(figure.axes, shown, strict=False):
        new_text = "✓ " + "\n".join(textwrap.wrap(written[i], 15))
        ax.text(0.5, -0.03, new_text, transform=ax.transAxes, color=plots.RIGHT,
                ha="center", va="top", fontsize=11)  # fmt: skip
    figure.set_figheight(figure.get_figheight() + 1.0)
    figure.get_layout_engine().set(h_pad=0.1)
    plt.show()

# %% [markdown]
# ### What the filter got wrong
#
# Both ways: clean texts it threw out, and false ones that it let pass. (A judge that is never wrong could write as well: it need
# only try all texts.)

# %% tags=["nbval-ignore-output"] alt="Up to six true web texts that were thrown out, and up to six false ones that were kept, each with its picture."
lost = [i for i, kind in enumerate(planted) if kind == "clean" and thrown[i]][:6]
passed = [i for i, kind in enumerate(planted) if kind in FALSE and not thrown[i]][:6]
for rows, good in ((lost, True), (passed, False)):
    if rows:
        pictures = world.render(web.scenes[rows], 64)
        texts = [web_texts[i] for i in rows]
        plots.show_images(pictures, texts, 6, 1.45, right=[good] * len(rows))
        plt.show()

# %% [markdown]
# ### What a word needs
#
# Paint over one patch of a picture after another, and ask the new model's decoder how much more it is surprised by each word of
# the true caption. (Attention weights would be easier to draw and say less: what the eye knows of a thing need not lie
# where the thing is.)

# %% tags=["nbval-ignore-output"] alt="Three pictures, and for each how much more surprising the size, the colour and the shape become when a patch is painted over; the shape depends on one or two patches at the thing, the colour hardly on any."
@torch.no_grad()
def surprise(model: BLIP, pixel_values: Tensor, ids: Tensor) -> Float[Tensor, "b t"]:
    """Of the decoder, at each word but the first."""
    said, keep = begin(ids, config.dec_id), model.keep(ids)
    scores = model.decoder.logits(
        model.decoder(said, model.see(pixel_values), True, keep)
    )
    return F.cross_entropy(scores[:, :-1].mT, ids[:, 1:], reduction="none")


def needs(model: BLIP, pixel_values: Tensor, ids: Tensor) -> Float[Tensor, "t h w"]:
    """How much is lost for each word of one text if a patch is painted over."""
    grid, side = config.vision.grid, config.vision.patch_size
    painted = pixel_values.repeat(grid * grid, 1, 1, 1)
    background = pixel_values[0, :, :1, :1]
    for i, image in enumerate(painted):
        y, x = i // grid * side, i % grid * side
        image[:, y : y + side, x : x + side] = background
    ids = ids.expand(grid * grid, -1)
    more = surprise(model, painted, ids) - surprise(model, pixel_values, ids[:1])
    return more.T.reshape(-1, grid, grid)


pool = test[0]
fig, axes = plt.subplots(3, 4, figsize=(8.4, 6.6))
for i, (given, *others) in enumerate(axes):
    picture = world.render(pool.scenes[i], 64)[0]
    given.imshow(picture.permute(1, 2, 0))
    given.axis("off")
    images, ids = pool.pairs
    maps = needs(cleaned, images[i : i + 1], ids[i : i + 1]).cpu()
    words = enumerate(pool.texts[i].split()[1:], 1)  # 0 is the article
    for ax, (place, word) in zip(others, words, strict=True):
        top = (0.0, max(0.3, maps[place].max().item()))
        plots.overlay(picture, maps[place], ax, word, limits=top)
plt.show()

# %% [markdown]
# Where a map stays pale, no single patch is needed: a colour can be read off whatever of the thing is left. Shape, and at times size,
# hang on one patch or two.

# %% [markdown]
# ## The claim
#
# **A model trained on CapFilt's set is better than one trained on the noisy set.** Same model, same start, same learning rate,
# same number of steps of the same batch; only the pairs differ. (The paper compares like that, in table 1. It is not
# equal compute: somebody had to train the first model, captioner and filter. `MINIVLM_ARMS=all` therefore also trains on
# the noisy set for as long as all of CapFilt takes; table 12 has longer training on noise, too. And it trains on the sets of the
# **filter only** and of the **captioner only**.) Three controls: captions **shuffled** among the pictures, from which nothing can be
# learned, for a few steps (so few that it proves little; with all arms for as many as the others); the new model asked about **another picture**, its blind level; and chance.

# %% tags=["nbval-ignore-output"]
arms = {"CapFilt": cleaned, "noisy": noisy}


def another(name: str, pairs: Pairs, steps: int) -> None:
    arms[name] = untrained()
    train(arms[name], pairs, steps, run.lr, name)


mixed = new_set._replace(ids=new_set.ids.roll(run.batch + 1, dims=0))
another("shuffled", mixed, run.steps if lesson.all_arms else run.control_steps)
if lesson.all_arms:
    another("filter only", joined(human_pairs, some_of(web_pairs, kept_web)), run.steps)
    another("captioner only", joined(noisy_pairs, written_pairs), run.steps)
    another("noisy, longer", noisy_pairs, 2 * run.steps + 2 * run.tuning)
found = {name: measure(model) for name, model in arms.items()}
elsewhere = [
    pool._replace(
        pairs=Pairs(pool.pairs.pixel_values.roll(1, dims=0), pool.pairs.ids)
    )
    for pool in test
]
found["another picture"] = measure(cleaned, elsewhere)
for name, numbers in found.items():
    tell(name, numbers)

# %% tags=["nbval-ignore-output"] alt="A table: for each arm the share of pictures and texts found, judged right, written truthfully."
columns = list(found["noisy"])
table = torch.tensor([[row[name] for name in columns] for row in found.values()])
plots.heatmap(table, list(found), columns, "share right", limits=(0, 1))
plt.show()

# %% tags=["nbval-ignore-output"]
key_of = lambda name: name.replace(",", "").replace(" ", "_")
levels = dict(searching=1 / len(test[0].texts), judging=1 / 2, writing=0.0)
numbers = {
    task: {key_of(arm): row[task] for arm, row in found.items()} for task in levels
}
blind = {task: row.pop("another_picture") for task, row in numbers.items()}
for arm in ("CapFilt", "noisy"):  # without ITM, which has the last word above
    numbers["searching"][f"{arm}_ITC_alone"] = found[arm]["ITC alone"]
lesson.record(
    "trained on CapFilt's set it finds pairs better than on the noisy set",
    **numbers["searching"], chance=levels["searching"], blind=blind["searching"],
)  # fmt: skip
lesson.record(
    "trained on CapFilt's set it judges texts better than on the noisy set",
    **numbers["judging"], chance=levels["judging"], blind=blind["judging"],
)  # fmt: skip
lesson.record(
    "trained on CapFilt's set it writes the truth more often than on the noisy set",
    **numbers["writing"], blind=blind["writing"],
)  # fmt: skip
false_thrown = [t for t, kind in zip(thrown, planted, strict=True) if kind in FALSE]
lesson.record(
    "the filter throws out false texts rather than true ones",
    false_texts=sum(false_thrown) / max(1, len(false_thrown)), true_texts=clean_thrown,
    precision=precision, recall=recall, precision_at_random=at_random,
)  # fmt: skip
gain = {task: row["CapFilt"] - row["noisy"] for task, row in numbers.items()}
lesson.expect(gain["writing"], at_least=0.2, what="the gain in writing")
lesson.expect(gain["judging"], at_least=0.03, what="the gain in judging")
lesson.expect(precision, at_least=0.8, what="the filter's precision")
lesson.expect(numbers["searching"]["shuffled"], at_most=0.1, what="shuffled captions")

# %% tags=["nbval-ignore-output"] alt="Bars for searching, judging and writing: CapFilt, noisy, and the arms that were trained, for searching also CapFilt and noisy by ITC alone, a dot for each stored seed, and levels of chance and of another picture (blind)."
claims = {
    "searching": "trained on CapFilt's set it finds pairs better than on the noisy set",
    "judging": "trained on CapFilt's set it judges texts better than on the noisy set",
    "writing": "trained on CapFilt's set it writes the truth more often than on the"
    " noisy set",
}
fig, axes = plt.subplots(3, 1, figsize=(7.5, 7.5), sharex=True)
for ax, (task, claim) in zip(axes, claims.items(), strict=True):
    over_seeds = lesson.stored(claim)
    keys = [k for k in numbers[task] | over_seeds if k not in ("chance", "blind")]
    values = {
        key.replace("_", " "): over_seeds.get(key) or [numbers[task][key]]
        for key in keys
    }
    seen_levels = dict(chance=levels[task], blind=blind[task])
    plots.bars(values, "", **seen_levels, highlight="CapFilt", ax=ax)
    ax.set_title(task, loc="right")
axes[-1].set(xlim=(0, 1.15), xlabel="share right")
plt.show()
print(lesson.verdict())

# %% [markdown]
# **What it says.** *Writing*: on the noisy set the likeliest caption is nearly always right all the same, because no two lies about red
# stars agree, and the truth wins the vote. But the lies have been learned as well, and a text that is *drawn* is true about as
# often as those it was trained on. *Judging*: of the pairs that ITM is told are right, half are not; and where a picture has a lie for a
# caption, the "wrong" texts that ITC finds most alike are often true. In this time it gets part of the way from guessing, further with one
# seed than with another. (That is not the threshold of one half alone: in searching only the order counts, and it orders less well than
# ITC.) On the new set it gets all the way, with every seed that we ran.
# *Searching*: ITC alone forgives the noise, for the same reason as the vote; but ITM
# has the last word, and one that half guesses spoils the order. So most of what is gained in searching is judging once more: by ITC alone
# (the bars above) the noisy set is not far behind, and who must search with a noisy model had better leave ITM out.
#
# So much of what noise costs hides where one takes the likeliest answer, and shows where a model must say how sure it is.
#
# **Where it failed before**: with one attention head as wide as the model, there was a seed with which the filter learned colours and no
# shapes, and the new model's ITM never left the line of guessing. With a head for every 16 features it has not happened in our five seeds. Our reading, not measured: a
# caption of ours has three words to check, and several heads can check them side by side. (To see it fail: `MINIVLM_SEED=1`, and
# `heads=1` in the `replace` that makes `text_config`.)
#
# The other arms (`MINIVLM_ARMS=all`) divide the work otherwise than the paper does, where the captioner alone brings more than the filter
# alone. Here, in three seeds, either alone *judges* and *searches* about as well as both. But only the filter makes what is drawn true: the
# captioner adds true texts and leaves the lies in, and those are learned as well.
# Nor is it a matter of compute: trained on the noisy set for as long as all of CapFilt takes, the model judges better or as well, never as
# well as on the new set, and what it writes is true hardly more often.
#
# What our comparison cannot show: that new captions tell *more* than the web's. Ours say all there is. And our lies are independent of
# one another. The web's are not: where everybody calls a whale a fish, no vote helps, and no filter trained on the vote.
#
# ## Paper and toy
#
# | | paper | here |
# | --- | --- | --- |
# | pairs from people | COCO and Visual Genome; COCO to fine-tune on (section 4.1) | `run.human` true captions |
# | pairs from the web | CC3M, CC12M, SBU; 115 million of LAION as well | `run.web`, of which `run.noise` are faulty |
# | starts from | a ViT that knows ImageNet, BERT-base | the eye of the course's CLIP; a text model that knows nothing |
# | training | 20 epochs, batch 2880 on 32 GPUs | `run.steps` steps on one core |
# | a caption | a sentence | size, colour and shape of one thing |
# | the filter is measured by | how many of the written texts it rejects (table 2) | what was planted |
# | noisy, filter, captioner, both | 78.4, 79.1, 79.7, 80.6 (COCO text recall@1, table 1) | the figure above |
#
# What an image costs, computed:

# %%
from torch.utils.flop_counter import FlopCounterMode

released = {"base": BLIPConfig.base(), "large": BLIPConfig.large(), "ours": config}
print(f"{'':6s}{'tokens':>7s}{'GFLOP to see':>14s}{'keys and values, KiB':>22s}")
for name, c in released.items():
    with torch.device("meta"):
        tower = VisionTransformer(c.vision)
        size = c.vision.image_size
        with FlopCounterMode(display=False) as counter:
            tower(torch.zeros(1, 3, size, size))
    gflop, n = counter.get_total_flops() / 1e9, 1 + c.vision.grid**2
    number_bytes = 4 if name == "ours" else 2
    kept = 2 * number_bytes * c.text.layers * c.text.width * n / 1024
    print(f"{name:6s}{n:7d}{gflop:14.3f}{kept:22,.0f}")

# %% [markdown]
# (The keys and values are what a text that is written keeps of its image. BLIP's text model looks at all tokens of an
# image in every layer. BLIP-2, notebook 04, lets a few learned queries look in its place.)
#
# ## Exercises
#
# Write your answer over the `raise`; the next line says whether it is right, and if it is not, what you may have mixed up.
#
# ### Exercise 1: What guessing costs ●○○ 5 minutes
#
# Each right pair is judged together with `wrong` wrong ones. Write the loss (mean cross-entropy, in nats) of a judge that
# knows nothing but that, and always gives the best answer one can give without looking. BLIP has `wrong = 2`.


# %%
def cost_of_guessing(wrong: int) -> float:
    raise NotImplementedError


# %%
def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


check(
    "Exercise 1",
    cost_of_guessing,
    ((2,), GUESSING),
    ((1,), math.log(2)),
    ((9,), entropy(0.1)),
    mistakes={
        "a coin is not the best guess if there are more wrong pairs": lambda wrong: (
            math.log(2)
        ),
        "wrong pairs have a cost too": lambda wrong: math.log(1 + wrong) / (1 + wrong),
        "that is the sum over the pairs, not the mean": lambda wrong: (
            (1 + wrong) * entropy(1 / (1 + wrong))
        ),
        "that is in bits, not in nats": lambda wrong: (
            entropy(1 / (1 + wrong)) / math.log(2)
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cost_of_guessing(wrong: int) -> float:
#     p = 1 / (1 + wrong)
#     return -p * math.log(p) - (1 - p) * math.log(1 - p)
# ```
# The best constant answer is the base rate, and its cost is the entropy of the base rate. With nine wrong pairs a loss of
# 0.33 looks good and is worth nothing. Draw this line into every curve of a loss.
#
# </details>

# %% [markdown]
# ### Exercise 2: The nucleus ●●○ 15 minutes
#
# Write which words are in the nucleus: the fewest words, the likeliest first, that together have a probability of `p` or more.
# `probabilities` (V,) sums to one; return a mask (V,).


# %%
def nucleus_of(probabilities: Tensor, p: float) -> Tensor:
    raise NotImplementedError


# %%
def in_order(probabilities: Tensor, inside) -> Tensor:
    values, order = probabilities.sort(descending=True)
    return torch.zeros_like(probabilities, dtype=torch.bool).index_put(
        (order,), inside(values)
    )


five = torch.tensor([0.05, 0.5, 0.1, 0.25, 0.1 + 1e-3]) / 1.001
check(
    "Exercise 2",
    nucleus_of,
    ((five, 0.9), torch.tensor([False, True, True, True, True])),
    ((five, 0.6), torch.tensor([False, True, False, True, False])),
    ((five, 0.2), torch.tensor([False, True, False, False, False])),
    mistakes={
        "the word that crosses p belongs to it; else it may be empty": lambda x, p: (
            in_order(x, lambda v: v.cumsum(0) <= p)
        ),
        "the likeliest come first; sort before you add up": lambda x, p: (
            x.cumsum(0) - x < p
        ),
        "the mask is in the sorted order; put it back": lambda x, p: (
            (lambda v: v.cumsum(0) - v < p)(x.sort(descending=True).values)
        ),
        "that is a threshold for each word, not for their sum": lambda x, p: x >= 1 - p,
    },
    hints="what is reached *before* a word decides whether it is needed",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nucleus_of(probabilities: Tensor, p: float) -> Tensor:
#     values, order = probabilities.sort(descending=True)
#     inside = torch.empty_like(probabilities, dtype=torch.bool)
#     inside[order] = values.cumsum(0) - values < p
#     return inside
# ```
# Then try other values: write the web's captions anew with `top_p=0.5` and with `top_p=1.0`. How many are false, and how many
# different ones are there?
#
# </details>

# %% [markdown]
# ### Exercise 3: Negatives that are none ●●○ 15 minutes
#
# COCO has five captions for each image. In retrieval fine-tuning, BLIP must not draw another caption of the *same image* as a
# wrong one. Write the probabilities with which `hard_negatives` then draws: `similarity` (B, B) are scores, `image_id` (B,)
# says which image each pair is of. Rows sum to one; add 1e-4 before you hide the right ones, as the code does.


# %%
def chances(similarity: Tensor, image_id: Tensor) -> Tensor:
    raise NotImplementedError


# %%
def hidden(similarity: Tensor, right: Tensor, normal: bool = True) -> Tensor:
    weights = (similarity.softmax(1) + 1e-4).masked_fill(right, 0.0)
    return weights / weights.sum(1, keepdim=True) if normal else weights


torch.manual_seed(0)
square, of_image = 2 * torch.randn(5, 5), torch.tensor([7, 7, 3, 4, 3])
twins = of_image[:, None] == of_image
check(
    "Exercise 3",
    chances,
    ((square, of_image), hidden(square, twins)),
    ((square, torch.arange(5)), hidden(square, torch.eye(5).bool())),
    mistakes={
        "other captions of the same image can still be drawn": lambda x, image: (
            hidden(x, torch.eye(len(x)).bool())
        ),
        "chances sum to one": lambda x, image: (
            hidden(x, image[:, None] == image, normal=False)
        ),
        "the more alike, the likelier: the scores are missing": lambda x, image: (
            hidden(0 * x, image[:, None] == image)
        ),
        "rows and columns are mixed up": lambda x, image: (
            hidden(x.T, image[:, None] == image)
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def chances(similarity: Tensor, image_id: Tensor) -> Tensor:
#     weights = similarity.softmax(dim=1) + 1e-4
#     weights = weights.masked_fill(image_id[:, None] == image_id, 0.0)
#     return weights / weights.sum(dim=1, keepdim=True)
# ```
# Forgotten, it is a common reason why ITM stays on the line of guessing: the hardest of all "wrong" texts are right. (Our toy has so few
# captions that the same text often stands twice in a batch. So BLIP above counts equal texts as right, which the authors' code does not.)
#
# </details>

# %% [markdown]
# ### Exercise 4: A judge of its own texts ●●● 40 minutes
#
# Let one model be captioner *and* filter: `both = noisy.only("itc", "itm", "lm")`, trained on the human pairs as long as the two were
# together. Let it write a text for each web picture and judge it. The paper: it then rejects 8% instead of 25% of the
# written texts, and what is trained on the rest is worse (table 4, confirmation bias).
#
# To compare, write `forgiven(thrown, verdicts)`: of the written texts whose verdict is `"false"`, the share that was *not*
# thrown out; 0 if there are none. Call it for the two judges.


# %%
def forgiven(thrown: list[bool], verdicts: list[str]) -> float:
    raise NotImplementedError


# %%
said = ["true", "false", "false", "partly", "false", "true", "false"]
out = [False, True, False, False, True, True, False]
check(
    "Exercise 4",
    forgiven,
    ((out, said), 0.5),
    (([True, False], ["true", "partly"]), 0.0),
    (([False, False], ["false", "false"]), 1.0),
    (([False, True, True], ["false", "false", "false"]), 1 / 3),
    mistakes={
        "that is the share that was thrown out": lambda out, said: (
            (lambda f: sum(f) / max(1, len(f)))(
                [t for t, v in zip(out, said, strict=True) if v == "false"]
            )
        ),
        "of the false texts, not of all": lambda out, said: (
            sum(v == "false" and not t for t, v in zip(out, said, strict=True))
            / len(out)
        ),
        "a text that says part of the truth is not false": lambda out, said: (
            (lambda f: f.count(False) / max(1, len(f)))(
                [t for t, v in zip(out, said, strict=True) if v != "true"]
            )
        ),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def forgiven(thrown: list[bool], verdicts: list[str]) -> float:
#     false = [t for t, verdict in zip(thrown, verdicts, strict=True) if verdict == "false"]
#     return false.count(False) / max(1, len(false))
# ```
# With `both` as above: `train(both, human_pairs, 2 * run.tuning, run.tuning_lr, "both")`, then the cells of *CapFilt* with
# `both` in the place of `captioner` and `judge`.
#
# </details>
