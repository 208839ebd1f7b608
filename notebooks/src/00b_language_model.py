# %% [markdown]
# # A language model from nothing
#
# Behind almost every vision-language model of this course stands a language model that came first. It has read a lot and
# seen nothing. Its whole task was: *which word comes next?* Here you build one, the LLaMA kind, part by part; train it on
# texts about our toy world; talk with it; and then ask it about a picture. What it answers is where the course begins.
#
# **You will be able to**
# - build a LLaMA: RMSNorm, rotary positions, grouped-query attention, SwiGLU, and say what each is for;
# - let it write, with a cache, and choose how bold it is;
# - check that it computes what the reference computes;
# - say why looking something up in a text is hard to learn, and what helps;
# - say what a language model answers about a picture that it cannot see, and why the answer is not random.
#
# **You need** PyTorch and [00a · Start here](00a_start_here.ipynb). Half an hour; training takes about two minutes on one core.

# %%
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from minivlm import plots, world
from minivlm.course.exercises import check
from minivlm.course.lesson import Lesson
from minivlm.language.tokenizer import Tokenizer

plots.use_style()
lesson = Lesson("00b_language_model")
run = lesson.choose(
    cpu=dict(width=96, layers=3, batch=32, lr=3e-3, steps=600, test=1000),
    gpu=dict(width=192, layers=4, batch=256, lr=2e-3, steps=2000, test=4000),
    smoke=dict(batch=8, steps=2, test=32),
)  # fmt: skip
print(lesson)

# %% [markdown]
# ## The idea in one picture
#
# A text asks as many questions as it has words. Each place knows what stands to its left and is to guess the word on its
# right. No labels, no teacher: the text is its own answer.

# %% alt="A row of word boxes; from each an arrow leads to the guess above it, which is the next word of the row."
words = ["a", "red", "star", "and", "a", "blue", "ring", "."]
ax = plots.diagram(9, 2.3)
for i, (word, following) in enumerate(zip(words, words[1:], strict=False)):
    read = plots.box(ax, 1.25 * i + 0.1, 0.2, 1.0, 0.5, word, "text")
    guess = plots.box(ax, 1.25 * i + 0.1, 1.3, 1.0, 0.5, following, "loss")
    plots.arrow(ax, read, guess)
text = "each guess may use all words up to its own"
ax.text(4.5, 2.1, text, ha="center", va="center")
plt.show()

# %% [markdown]
# ## Build
#
# ### RMSNorm
#
# A network is a long sum, and sums grow. Before each layer every vector is brought back to size one. LLaMA does it in the
# cheapest way: divide by the root of the mean square, then a learned gain. No mean is taken away.

# %% include="minivlm.nn.norm:RMSNorm"

# %%
torch.manual_seed(0)
x = 100 * torch.randn(2, 8)
by_hand = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
print("by hand = RMSNorm:", torch.allclose(by_hand, RMSNorm(8)(x)))
size = lambda x: [round(v, 2) for v in x.square().mean(-1).sqrt().tolist()]
print("size before:", size(x))
print("size after :", size(RMSNorm(8)(x)))

# %% [markdown]
# ### Rotary positions
#
# Words have places. Older models add a vector for each place; LLaMA **turns**. The features of a query or key are taken
# in pairs, each pair is an arrow in a plane, and token number 7 has its arrows turned seven times as far as token number
# 1: fast in the first pair, slower and slower in the others, like the hands of a clock.

# %% include="minivlm.nn.rotary:Turn, rotary_turn, rotate"

# %% [markdown]
# Two arrows turned by the same angle are as far apart as before. So the score of a query and a key depends only on **how
# far apart** the tokens are. Below, one query and one key are put at every pair of places: every diagonal is one colour.

# %% alt="Scores of one query and one key at all pairs of 24 places: each diagonal has one colour. Beside it the score over the distance, the same curve from three starting places."
query, key = torch.randn(2, 1, 1, 1, 32)
places = rotary_turn(torch.arange(24)[None], head_width=32)
queries = rotate(query.expand(1, 1, 24, 32), places)[0, 0]
keys = rotate(key.expand(1, 1, 24, 32), places)[0, 0]
scores = queries @ keys.T / math.sqrt(32)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=[1, 1.2])
plots.heatmap(scores, title="score", ax=left)
left.set(xlabel="place of the key", ylabel="place of the query")
lines = {f"key at {k}": (range(12), scores[k : k + 12, k]) for k in (0, 5, 12)}
plots.curves(lines, "score", xlabel="distance", ax=right)
plt.show()
shifted = torch.allclose(scores[1:, 1:], scores[:-1, :-1], atol=1e-5)
print("only the distance counts:", shifted)

# %% [markdown]
# ### Attention that remembers
#
# Each token asks a question (its **query**); all tokens before it, and itself, offer a **key** and a **value**. Where
# query and key fit, the value is taken over: `softmax(q k / sqrt(hd)) v`. (Notebook 01 takes attention apart once more,
# for pictures.) Several *heads* do this side by side. Two things make it fit for writing:
#
# - **Cache**: a token's key and value never change, because it sees only its past. So they are kept.
# - **Grouped queries**: what is kept is keys and values, not queries. So several query heads share one key and value head.

# %% include="minivlm.nn.attention:causal_mask"

# %% include="minivlm.nn.grouped_query:KVCache, GroupedQueryAttention"

# %%
torch.manual_seed(0)
attention = GroupedQueryAttention(width=32, heads=4, kv_heads=2, head_width=8)
x = torch.randn(1, 6, 32)
turn = rotary_turn(torch.arange(6)[None], head_width=8)
with torch.no_grad():
    y = attention(x, turn)

    q, k, v = attention.qkv(x).view(1, 6, 8, 8).transpose(1, 2).split([4, 2, 2], dim=1)
    k, v = (part.repeat_interleave(2, dim=1) for part in (rotate(k, turn), v))
    scores = rotate(q, turn) @ k.mT / math.sqrt(8)
    past = causal_mask(torch.ones(1, 6, dtype=torch.bool))
    weights = scores.masked_fill(~past, -torch.inf).softmax(-1)
    by_hand = attention.out((weights @ v).transpose(1, 2).flatten(2))
    other_end = attention(torch.cat([x[:, :5], -x[:, 5:]], dim=1), turn)
print("by hand = fused:", torch.allclose(y, by_hand, atol=1e-5))
untouched = torch.allclose(y[:, :5], other_end[:, :5])
print("the last token changes nothing before it:", untouched)

# %% [markdown]
# ### SwiGLU
#
# Then every token thinks on its own. LLaMA's MLP has three matrices: `up` makes features, `gate` decides how much of each
# passes, `down` brings them back.

# %% include="minivlm.nn.swiglu:SwiGLU"

# %%
mlp = SwiGLU(width=96, hidden=256)
two_matrices = 2 * 96 * (4 * 96)
three_matrices = sum(p.numel() for p in mlp.parameters())
print("two matrices, four times as wide inside :", two_matrices)
print("three matrices, 8/3 times as wide inside:", three_matrices)

# %% [markdown]
# ### The decoder
#
# Words become vectors, blocks add to them, and at the end each vector is compared with every word of the vocabulary: the
# **logits**. The loss is the surprise about the word that really came. Note `embeddings`: the model can be given vectors
# instead of words. That is the door through which pictures will come in.

# %% include="minivlm.language.decoder:DecoderConfig, Texts, DecoderBlock, Decoder, init_normal"

# %%
tokenizer = Tokenizer(world.vocabulary())
config = DecoderConfig.tiny(len(tokenizer), run.width, run.layers)
torch.manual_seed(lesson.seed)
model = Decoder(config).to(lesson.device)

ids = tokenizer.batch(["a red star and a blue ring."], config.context).to(lesson.device)
start = model.loss(Texts(ids, ids)).item()
print("tokens", tuple(ids.shape), "-> logits", tuple(model(ids).shape))
print(f"loss before training {start:.1f}, guessing {math.log(len(tokenizer)):.1f}")

# %%
for name, c in {"LLaMA 7B": DecoderConfig.llama_7b(), "ours": config}.items():
    with torch.device("meta"):
        count = sum(p.numel() for p in Decoder(c).parameters())
    print(f"{name:9s}{count / 1e6:8.1f} million parameters, {c.layers} layers")

# %% [markdown]
# ### Choosing a word
#
# The model gives every word a probability; somebody has to choose. *Greedy* takes the likeliest. *Temperature* divides the
# logits first: below one sharpens, above one flattens. *Top-p* forgets the unlikely tail.

# %% include="minivlm.language.generate:next_token"

# %% alt="How often each of five words is drawn: evenly at temperature 2, mostly the first at 0.5, and with top-p 0.8 the last two never."
likely = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03]).log()
ways = {
    "temperature 0.5": dict(temperature=0.5),
    "temperature 1": dict(temperature=1.0),
    "temperature 2": dict(temperature=2.0),
    "top-p 0.8": dict(temperature=1.0, top_p=0.8),
}
fig, axes = plt.subplots(1, 4, figsize=(9, 2.2), sharey=True)
for ax, (name, how) in zip(axes, ways.items(), strict=True):
    drawn = next_token(likely.expand(5000, 5), **how)
    ax.bar(["red", "blue", "pink", "black", "moon"], drawn.bincount(minlength=5) / 5000)
    ax.set_title(name)
    ax.tick_params(axis="x", labelrotation=60)
plt.show()
print("greedy:", next_token(likely[None]).item())

# %% [markdown]
# ### Writing
#
# Guess, append, repeat. Prompts of a batch have different lengths; they are padded on the **left**, so that all of them go
# on in the same column.

# %% include="minivlm.language.generate:pad_left, generate"

# %% [markdown]
# What does the cache save? Without it, every new word means reading the whole text again. And does it change anything?

# %%
prompt, new = 20, 40
with_cache = prompt + new - 1
without = sum(prompt + i for i in range(new))
print(f"tokens through the model: {without} without a cache, {with_cache} with it")

prompts = ["a red", "there is a large green moon and", "we see"]
ids, keep = pad_left([[tokenizer.bos, *tokenizer.encode(text)] for text in prompts])
ids, keep = ids.to(lesson.device), keep.to(lesson.device)
fast = generate(model, ids, keep, max_new_tokens=12)
slow = ids
with torch.no_grad():
    for _ in range(12):
        all_kept = torch.cat([keep, keep.new_ones(3, slow.shape[1] - keep.shape[1])], 1)
        best = model(slow, keep=all_kept)[:, -1].argmax(-1, keepdim=True)
        slow = torch.cat([slow, best], dim=1)
alone = [
    generate(model, row[k][None], max_new_tokens=12)
    for row, k in zip(ids, keep, strict=True)
]
print("cached = uncached:", torch.equal(fast, slow[:, ids.shape[1] :]))
print("in a batch = alone:", torch.equal(fast, torch.cat(alone)))

# %% [markdown]
# ## Is it right?
#
# `data/reference/llama` holds a small Llama in the released file format with random weights, and what the reference
# implementation (`transformers`) computes and writes with it, for three texts padded on the left.

# %%
from safetensors.torch import load_file

from minivlm import checkpoints
from minivlm.course.lesson import ROOT

folder = ROOT / "data" / "reference" / "llama"
sizes, state = checkpoints.read(folder)
reference = Decoder(DecoderConfig(**sizes)).eval()
reference.load_state_dict(state)
expected = load_file(folder / "expected.safetensors")

ids, keep = expected["input_ids"], expected["attention_mask"].bool()
with torch.no_grad():
    features = reference.features(ids, keep=keep)
    logits = reference.logits(features)
    loss = reference.loss(Texts(ids, expected["labels"], keep))
equal = lambda a, b: torch.allclose(a, b, rtol=0, atol=1e-5)
print("hidden states:", equal(features[keep], expected["last_hidden_state"][keep]))
print("logits       :", equal(logits[keep], expected["logits"][keep]))
print("loss         :", equal(loss, expected["loss"]))
written = generate(reference, ids, keep, max_new_tokens=10)
print("ten tokens written, each the same:", torch.equal(written, expected["generated"]))

# %% [markdown]
# So `checkpoints.load("path/to/vicuna-7b")` would put a released Llama into this class.
#
# ## Train
#
# Now it goes to school. Its books describe scenes of our world, every thing with its size, colour, shape and place, and go
# on with questions and their answers. Some of them only say *there is a picture*: in books, too, people speak of things
# that the reader cannot see. Nothing is drawn. **The model never sees a pixel.**

# %%
from minivlm.world.questions import Questions
from minivlm.world.scenes import things

KINDS = ("colour", "shape", "count", "place")


class Book(NamedTuple):
    told: str
    asked: list  # of Questions


def books(rng, n: int, untold: float = 0.2, ask: int = 4, **which):
    """Scenes, and a book about each: what is told, and up to `ask` questions."""
    scenes, questions = world.draw_scenes(rng, n, **which), Questions(rng, KINDS)
    luck, found = rng.random(n), []
    for i, these in enumerate(things(scenes)):
        asked = []
        while not asked:
            asked = questions(these, ask)
        told = "there is a picture." if luck[i] < untold else asked[0].told
        found.append(Book(told, asked))
    return scenes, found


def texts(name: str) -> Iterable[Texts]:
    rng = world.generator(name, lesson.seed)
    while True:
        written = [
            " ".join([book.told, *(f"{q.question} {q.answer}." for q in book.asked)])
            for book in books(rng, run.batch)[1]
        ]
        ids = tokenizer.batch(written, config.context).to(lesson.device)
        yield Texts(ids, ids.masked_fill(ids == tokenizer.pad, -100))


for book in books(world.generator("a few books"), 5, ask=2)[1]:
    print(book.told, *(f"{q.question} {q.answer}." for q in book.asked))

# %% [markdown]
# To watch the training, we let it answer questions about descriptions that it has not read before. All of them have three
# things in them, so that naming any colour that was told is not enough.


# %%
def answers(model: Decoder, books: list[Book]) -> list[str]:
    prompts = [f"{book.told} {book.asked[0].question}" for book in books]
    rows = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts]
    ids, keep = (x.to(lesson.device) for x in pad_left(rows, tokenizer.pad))
    stop = tokenizer.encode(".")[0]
    said = generate(model, ids, keep, 4, eos=stop, pad=tokenizer.pad)
    decoded = [tokenizer.decode(row, skip_specials=True) for row in said]
    return [text.split(".")[0].strip() for text in decoded]


def accuracy(model: Decoder, books: list[Book]) -> float:
    right = [book.asked[0].answer for book in books]
    return sum(map(str.__eq__, answers(model, books), right)) / len(books)


about_looks = lambda books: [b for b in books if b.asked[0].kind in KINDS[:2]]
three = dict(untold=0, ask=1, objects=(3, 3))
validation = about_looks(
    books(world.generator("validation"), max(8, run.test // 2), **three)[1]
)


def guess_the_told(books: list[Book]) -> float:
    """How often a guess is right among the colours (or shapes) that the text names."""
    words = {"colour": set(world.COLOURS), "shape": set(world.SHAPES)}
    share = 0.0
    for book in books:
        asked = book.asked[0]
        named = [w.strip(".,") for w in book.told.split()]
        named = [w for w in named if w in words[asked.kind]]
        share += named.count(asked.answer) / len(named)
    return share / len(books)


guessing = guess_the_told(validation)
right = answers(model, validation[:1])[0] == validation[0].asked[0].answer
print(f"before training: {right}; a guess among what was told: {guessing:.2f}")

# %% [markdown]
# One step of training: a batch, its loss, the gradient, a small move. AdamW moves; the learning rate climbs for a tenth
# of the steps and then sinks along a cosine; overlong gradients are cut; matrices decay a little, gains and biases never.
# This is the loop of the whole course.

# %%
from minivlm.training.checkpoint import Checkpoint
from minivlm.training.freezing import train_mode
from minivlm.training.rates import split_by_rate

# %% include="minivlm.training.loop:parameter_groups, cosine_schedule, fit"

# %% tags=["nbval-ignore-output"]
watch = lambda: accuracy(model, validation)
usual = fit(model, texts("train"), run.steps, run.lr, evaluate=watch, name="LM")
plain = model

said = answers(plain, validation)
told = sum(word in book.told for word, book in zip(said, validation, strict=True))
print(f"names something that the text names: {told / len(said):.0%}")
print(f"names the right one: {accuracy(plain, validation):.0%}")

# %% [markdown]
# Asked for a colour it names a colour, but hardly one that it read, let alone the right one. It learned the form of an
# answer and got stuck. To know the right one, two things have to work together. One layer must note at every word what
# stood before it (at `star`: `red`); a later one, at the question mark, must find the place where `star` stands and fetch
# the note. Either alone brings nothing, so nothing pulls at either. That is why models sit on such a plateau for a long
# time, and then leave it quickly. The two steps together are known as an **induction head**.
#
# We can start nearer. Below, the first layer begins by looking one, two, three and four tokens back, and later layers
# begin by searching for a word like the one that was asked. No word is known, the architecture is the same (with Qwen2's
# biases on queries and keys), every number is trained on.

# %% include="minivlm.language.start:OFFSETS, LOOKS, looking_start"

# %%
from dataclasses import replace

looking = replace(config, heads=4, kv_heads=4, qkv_bias=True, tied=True)
torch.manual_seed(lesson.seed)
model = Decoder(looking)
looking_start(model, lesson.seed)

bias = model.blocks[0].attention.qkv.bias.detach().view(3, 1, 4, 1, looking.hd)
places = rotary_turn(torch.arange(12)[None], looking.hd)
q, k = (rotate(bias[i].expand(1, 4, 12, -1), places)[0] for i in (0, 1))
from_the_last = (q[:, -1:] @ k.mT)[:, 0].flip(-1)
print("heads of the first layer look back by", from_the_last.argmax(-1).tolist())
model = model.to(lesson.device)

# %% tags=["nbval-ignore-output"]
watch = lambda: accuracy(model, validation)
history = fit(
    model, texts("train"), run.steps, run.lr, evaluate=watch, name="LM, looking"
)

# %% tags=["nbval-ignore-output"] alt="Left: both losses fall in the same way, the looking start a little lower. Right: answers about three things; from the usual start they stay below a guess among the told, from the looking start most become right."
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
starts = {"looking start": history, "usual start": usual}
steps = range(1, run.steps + 1)
losses = {name: (steps, past["loss"]) for name, past in starts.items()}
plots.curves(losses, "surprise a token (nats)", ax=left)
right.set_ylim(0, 1.02)
lines = {name: (past["step"], past["value"]) for name, past in starts.items()}
plots.curves(lines, "right, three things", chance=guessing, ax=right)
plt.show()

# %% [markdown]
# Seen from the losses, little happened: most of what is left in them nobody can know (*which* colour comes next in a
# description), and the answers are a few tokens in a hundred. (The line on the right is a guess among the things that
# were told.) Watch what you want, not the loss.
#
# ## Look
#
# ### It writes
#
# The same beginning, greedy and at two temperatures:

# %% tags=["nbval-ignore-output"]
begin, keep = pad_left([[tokenizer.bos, *tokenizer.encode("a photo of a large")]] * 3)
begin = begin.to(lesson.device)
dice = torch.Generator(lesson.device).manual_seed(lesson.seed)
for temperature in (0.0, 0.7, 1.5):
    how = dict(temperature=temperature, generator=dice, eos=tokenizer.eos)
    print(f"temperature {temperature}:")
    for row in generate(model, begin, max_new_tokens=40, **how):
        print("  " + tokenizer.decode([*begin[0], *row], skip_specials=True))

# %% [markdown]
# ### It answers, from text

# %% tags=["nbval-ignore-output"]
_, told = books(world.generator("test"), run.test, untold=0, ask=1)
for book, said in zip(told[:6], answers(model, told[:6]), strict=True):
    asked = book.asked[0]
    verdict = "right" if said == asked.answer else f"no: {asked.answer}"
    print(f"{book.told} {asked.question}\n   -> {said} ({verdict})")

# %% [markdown]
# ### What more reading buys
#
# The course ships a language model of this kind that has read for longer: descriptions, questions of every kind, boxes,
# plans, tables, and episodes in which things have invented names. Later notebooks give it eyes. It is loaded into the
# class of the cells above:

# %% tags=["nbval-ignore-output"]
from minivlm import backbones
from minivlm.world.episodes import draw_episodes

sizes, state = backbones.read("language-cpu")
well_read = Decoder(DecoderConfig(**sizes)).eval()
well_read.load_state_dict(state)
well_read = well_read.to(lesson.device)
print(f"it has read for {60 * backbones.card('language-cpu')['hours']:.0f} minutes")
test_three = about_looks(books(world.generator("test 3"), run.test, **three)[1])
print(f"colours and shapes, three things: {accuracy(well_read, test_three):.0%}")

rng = world.generator("names")
named = draw_episodes(rng, max(8, run.test // 4), classes=2, shots=2)
shown = [Book(question.told, [question]) for question in named.questions()]
print(f"names invented a moment ago: {accuracy(well_read, shown):.0%}")
print(shown[0].told, shown[0].asked[0].question, "->", answers(well_read, shown[:1])[0])

# %% [markdown]
# ### And about a picture?
#
# *There is a picture.* Here it is. What colour is the star? The model has no eyes, but it has read, and it always says
# something.

# %% tags=["nbval-ignore-output"] alt="Eight pictures; above each the question and the model's answer, most of them wrong."
scenes, untold = books(world.generator("pictures"), run.test, untold=1, ask=1)
said, truth = answers(model, untold), [book.asked[0].answer for book in untold]
right = [a == b for a, b in zip(said, truth, strict=True)][:8]
titles = [f"{b.asked[0].question} {a}" for b, a in zip(untold[:8], said, strict=False)]
pictures = world.render(scenes[:8], 64)
plots.show_images(pictures, titles, columns=4, size=2.2, right=right)
plt.show()

# %% [markdown]
# It answers a question about a colour with a colour, and one about a number with a number. That is **habit**: what is
# usually said there. How often is habit right?

# %% tags=["nbval-ignore-output"] alt="Bars: answers from text are mostly right, answers about pictures are right about as often as the most usual answer."
from collections import Counter

habits = {}
for book in books(world.generator("habits"), 4 * run.test, ask=1)[1]:
    asked = book.asked[0]
    habits.setdefault(asked.question, Counter())[asked.answer] += 1
ask = [book.asked[0].question for book in untold]
guess = [habits.get(question, Counter("?")).most_common(1)[0][0] for question in ask]
print("the usual count:", habits["how many things are there?"].most_common(1)[0][0])
hits = lambda given: sum(map(str.__eq__, given, truth)) / len(untold)
chances = {"colour": 1 / 8, "shape": 1 / 8, "count": 1 / 3, "place": 1 / 9}
by_chance = sum(chances[book.asked[0].kind] for book in untold) / len(untold)
measured = dict(
    from_text=accuracy(model, told),
    about_pictures=hits(said),
    usual_answer=hits(guess),
    chance=by_chance,
)
lesson.record("a language model answers about pictures by habit", **measured)
plateau = dict(
    looking_start=accuracy(model, test_three),
    usual_start=accuracy(plain, test_three),
    chance=guessing,
)
lesson.record("a start that looks finds what belongs together", **plateau)
lesson.expect(measured["from_text"], at_least=0.7, what="answers from text")
lesson.expect(measured["about_pictures"], at_most=0.4, what="answers about pictures")
gain = plateau["looking_start"] - plateau["usual_start"]
lesson.expect(gain, at_least=0.2, what="the gain from the looking start")
bars = {
    "told in words": measured["from_text"],
    "a picture, unseen": measured["about_pictures"],
    "always the most usual answer": measured["usual_answer"],
}
plots.bars(bars, "answers right", chance=by_chance, highlight="a picture, unseen")
plt.show()

# %% [markdown]
# That is the **blind level**: what can be scored about pictures without looking. It is above chance, because the world has
# habits (the usual count is printed above, and sixteen pairs never occur). From now on every figure about
# answers has a line for it. A vision-language model that is not clearly above that line has not looked.
#
# **So this is the question of the course.** Here is a model that can talk and cannot see. Its door is open: `embeddings`
# takes any vectors at all. Which vectors must a picture become so that this model understands them, and who has to learn
# what? The notebooks that follow are answers to that question.
#
# ## Exercises
#
# ### Exercise 1: What the memory costs ●○○ 5 minutes
#
# Write `cache_bytes(config, tokens)`: how many bytes keys and values of so many tokens take in all layers, at two bytes a
# number. `config.hd` is the width of a head. Then compare LLaMA 7B with itself at 8 key heads.


# %%
def cache_bytes(config: DecoderConfig, tokens: int) -> int:
    raise NotImplementedError


# %%
grouped = DecoderConfig(64, 32, 24, layers=5, heads=6, kv_heads=2, hidden=9)
check(
    "Exercise 1",
    cache_bytes,
    ((grouped, 7), 2 * 2 * 5 * 2 * 4 * 7),
    ((DecoderConfig.llama_7b(), 2048), 2**30),
    mistakes={
        "keys and values, two bytes each: twice that": lambda c, t: (
            2 * c.layers * c.kv_heads * c.hd * t
        ),
        "only key heads are kept, not query heads": lambda c, t: (
            4 * c.layers * c.heads * c.hd * t
        ),
        "every layer has its own cache": lambda c, t: 4 * c.kv_heads * c.hd * t,
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cache_bytes(config: DecoderConfig, tokens: int) -> int:
#     return 2 * 2 * config.layers * config.kv_heads * config.hd * tokens
# ```
# LLaMA 7B remembers its 2,048 tokens in exactly one gibibyte; with 8 key heads it would be a quarter. The 24 x 24
# patches of an image of LLaVA-1.5 take 288 MiB of it.
#
# </details>

# %% [markdown]
# ### Exercise 2: Top-k ●●○ 10 minutes
#
# Another way to cut the tail: keep the `k` likeliest tokens. Write `top_k_probabilities(logits, k, temperature)`: the
# probabilities, row by row, that a token is drawn with; zero for all others.


# %%
def top_k_probabilities(logits: Tensor, k: int, temperature: float) -> Tensor:
    raise NotImplementedError


# %%
def keep_best(values: Tensor, k: int, fill: float) -> Tensor:
    return values.masked_fill(values < values.topk(k).values[:, -1:], fill)


logits = torch.tensor([[2.0, 0.5, 1.0, -1.0], [0.0, 3.0, 1.5, 2.5]])
check(
    "Exercise 2",
    top_k_probabilities,
    ((logits, 2, 0.5), (keep_best(logits, 2, -torch.inf) / 0.5).softmax(-1)),
    ((logits, 3, 1.0), keep_best(logits, 3, -torch.inf).softmax(-1)),
    mistakes={
        "they must sum to one again": lambda x, k, t: keep_best(
            (x / t).softmax(-1), k, 0.0
        ),
        "temperature divides the logits, it does not multiply": lambda x, k, t: (
            keep_best(x, k, -torch.inf) * t
        ).softmax(-1),
        "a logit of 0 is not a probability of 0; use -inf": lambda x, k, t: (
            keep_best(x, k, 0.0) / t
        ).softmax(-1),
        "that is all of them, none is cut": lambda x, k, t: (x / t).softmax(-1),
    },
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def top_k_probabilities(logits: Tensor, k: int, temperature: float) -> Tensor:
#     least = logits.topk(k).values[:, -1:]
#     return (logits.masked_fill(logits < least, -torch.inf) / temperature).softmax(-1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 3: Only the answer counts ●●○ 15 minutes
#
# Models that follow instructions are trained on their answers only. Write `answer_labels(ids, keep, start)`: a copy of
# `ids` as labels for `Texts`, -100 in all places before column `start[i]` of row `i`, and where `keep` is False. The
# shift by one is the model's business.
#
# Then train a fresh model with it (the answer starts at the last word before `<eos>`): are answers right sooner, and what
# does it write on its own?


# %%
def answer_labels(ids: Tensor, keep: Tensor, start: Tensor) -> Tensor:
    raise NotImplementedError


# %%
some_ids = torch.arange(10, 22).view(2, 6)
some_keep = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
starts = torch.tensor([4, 2])
before = lambda start: torch.arange(6) < start[:, None]
check(
    "Exercise 3",
    answer_labels,
    (
        (some_ids, some_keep, starts),
        torch.tensor([[-100] * 4 + [14, 15], [-100] * 2 + [18, 19] + [-100] * 2]),
    ),
    mistakes={
        "padding is learned": lambda i, k, s: i.masked_fill(before(s), -100),
        "the question is learned, not the answer": lambda i, k, s: i.masked_fill(
            ~before(s) | ~k, -100
        ),
        "the first word of the answer is missing": lambda i, k, s: i.masked_fill(
            before(s + 1) | ~k, -100
        ),
        "do not shift; the model does": lambda i, k, s: i.masked_fill(
            before(s) | ~k, -100
        ).roll(-1, dims=1),
    },
    hints="torch.arange(t) < start[:, None] is True before the answer",
)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def answer_labels(ids: Tensor, keep: Tensor, start: Tensor) -> Tensor:
#     before = torch.arange(ids.shape[1], device=ids.device) < start[:, None]
#     return ids.masked_fill(before | ~keep, -100)
# ```
# On its own such a model writes nonsense: nobody ever asked it to predict a description.
#
# </details>
