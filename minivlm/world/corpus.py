"""What a language model of this world reads before it ever sees a picture: descriptions, and questions about them.

Texts speak of all colour-shape pairs, the held-out ones too: language may name what no training picture shows. What is read
depends on a name, a seed and a number alone, so a training run can go on from any step.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minivlm.world import documents, numbers, strings
from minivlm.world.boxes import CONVENTIONS, boxes, write
from minivlm.world.compare import compare
from minivlm.world.corpus_chats import balanced, crowded, hard, instruct, pointed, sound
from minivlm.world.document_questions import DocumentQuestions
from minivlm.world.episodes import BY, draw_episodes
from minivlm.world.grammar import FRAMES, STYLES, Captions, full
from minivlm.world.questions import Questions, names
from minivlm.world.reading import Reading, any_scenes, several, single
from minivlm.world.reasoning import Reasoning
from minivlm.world.robot import draw_tables
from minivlm.world.robot_questions import RobotQuestions
from minivlm.world.scenes import generator, things
from minivlm.world.splits import all_pairs
from minivlm.world.videos import draw_questions as draw_video_questions

WORDS = ("give", "box")

#: Questions about one scene in one text, before those asked twice are left out.
QUESTIONS = 8


def _scene(rng: np.random.Generator, n: int) -> list[Reading]:
    """A description and some questions about it; half of the scenes have three objects."""
    ask, read = Questions(rng, pairs=all_pairs()), []
    described = things(any_scenes(rng, n - n // 4))
    if n > 3:
        described += things(any_scenes(rng, n // 4, (3, 3)))
    for these in described:
        asked = ask(these, QUESTIONS)
        turns = tuple(dict.fromkeys((q.question, q.answer) for q in asked))
        told = asked[0].told if asked else full(these) + "."
        frame = "{}" if told.startswith(("at", "on", "in")) else FRAMES[int(rng.random() * len(FRAMES))]
        read.append(Reading("scene", frame.format(told), turns))
    return read


def _caption(rng: np.random.Generator, n: int) -> list[Reading]:
    """Captions in every style."""
    return [Reading("caption", said + ".", ()) for said in Captions(rng, styles=STYLES)(any_scenes(rng, n))]


def _reason(rng: np.random.Generator, n: int) -> list[Reading]:
    """Chains of thought, whose last sentence is the answer."""
    ask, read = Reasoning(rng), []
    for these in things(any_scenes(rng, n, (2, 3))):
        asked = ask(these, 3)
        turns = tuple(dict.fromkeys((r.question, r.thought[:-1]) for r in asked))
        read.append(Reading("reason", asked[0].told if asked else full(these) + ".", turns))
    return read


def _name(rng: np.random.Generator, n: int) -> list[Reading]:
    """Invented names: every shot but the first of its class can be told from those before it."""
    read = []
    for by in BY:
        for classes, shots in ((2, 2), (2, 3), (3, 2)):
            drawn = draw_episodes(rng, -(-n // 9), classes, shots, by, pairs=all_pairs())
            for asked, shown in zip(drawn.questions(), drawn.shown.tolist(), strict=True):
                said = [sentence.strip() for sentence in asked.told.split(".") if sentence.strip()]
                first = next(i for i in range(len(said)) if len(set(shown[: i + 1])) == classes) + 1
                turns = [tuple(sentence.rsplit(" ", 1)) for sentence in said[first:]]
                turns = tuple((*turns, (asked.question, asked.answer)))
                read.append(Reading("name", ". ".join(said[:first]) + ".", turns))
    return read[:n]


def _box(rng: np.random.Generator, n: int) -> list[Reading]:
    """Where things are, in numbers, in each of the surveyed ways to write a box."""
    scenes, read, how = any_scenes(rng, n, (1, 2)), [], list(CONVENTIONS)
    side = int(rng.integers(8, 17)) * 28
    where = boxes(scenes, side, side)
    for these, corners in zip(things(scenes), where, strict=True):
        convention = how[int(rng.random() * len(how))]
        known = [(names(these, thing), corners[i : i + 1]) for i, thing in enumerate(these)]
        lines = [write(convention, corner, side, side, [ways[-1]]) for ways, corner in known if ways]
        asked = [(ways[0], line) for (ways, _), line in zip([k for k in known if k[0]], lines, strict=True)]
        if asked:
            name, line = asked[int(rng.random() * len(asked))]
            read.append(Reading("box", " ".join(lines), ((f"give the box of {name}.", line),)))
    return read


def _compare(rng: np.random.Generator, n: int) -> list[Reading]:
    return single(compare(rng, n, pairs=all_pairs())[1])


def _string(rng: np.random.Generator, n: int) -> list[Reading]:
    return single(strings.StringQuestions(rng)(strings.draw_strings(rng, n, 64, 256)))


def _number(rng: np.random.Generator, n: int) -> list[Reading]:
    return single(numbers.NumberQuestions(rng)(numbers.draw_numbers(rng, n, 64, 128)))


def _document(rng: np.random.Generator, n: int) -> list[Reading]:
    drawn, ask = documents.draw_documents(rng, n, rows=(2, 3), columns=(2, 3)), DocumentQuestions(rng)
    return several(*(ask(drawn) for _ in range(4)))


def _video(rng: np.random.Generator, n: int) -> list[Reading]:
    return single(draw_video_questions(rng, n)[1])


def _robot(rng: np.random.Generator, n: int) -> list[Reading]:
    return single(RobotQuestions(rng).sift(draw_tables(rng, n))[1])


#: Kind of text -> its maker, and its share of all texts.
KINDS: dict[str, tuple[Callable[[np.random.Generator, int], list[Reading]], float]] = {
    "scene": (_scene, 0.33),
    "hard": (hard, 0.14),
    "balanced": (balanced, 0.10),
    "instruct": (instruct, 0.10),
    "name": (_name, 0.09),
    "reason": (_reason, 0.04),
    "caption": (_caption, 0.02),
    "crowded": (crowded, 0.02),
    "video": (_video, 0.03),
    "robot": (_robot, 0.04),
    "compare": (_compare, 0.03),
    "box": (_box, 0.02),
    "refer": (pointed, 0.01),
    "string": (_string, 0.01),
    "number": (_number, 0.005),
    "document": (_document, 0.01),
    "sound": (sound, 0.005),
}


def read(name: str, seed: int, number: int, n: int, kinds: Sequence[str] = ()) -> list[Reading]:
    """`n` texts of some kinds (default: all), in random order; the same for the same name, seed and number.

    Raises:
        ValueError: fewer texts than one, or a kind that does not exist.
    """
    kinds = list(kinds) or list(KINDS)
    if n < 1 or set(kinds) - set(KINDS):
        raise ValueError(f"read at least one text of kinds out of {list(KINDS)}; got n={n}, kinds={kinds}.")
    rng = generator(f"{name} {number}", seed)
    share = np.array([KINDS[kind][1] for kind in kinds])
    counts = rng.multinomial(n, share / share.sum()).tolist()
    texts: list[Reading] = []
    for kind, count in zip(kinds, counts, strict=True):
        made: list[Reading] = []
        while len(made) < count:  # a maker may leave some out
            made += KINDS[kind][0](rng, count - len(made))
        texts += made
    return [texts[i] for i in rng.permutation(len(texts)).tolist()]


def scene_questions(rng: np.random.Generator, n: int, objects: int) -> list[tuple[str, Reading]]:
    """Kind and text of single questions about scenes of so many objects, for measuring; kinds as often as they come."""
    ask = Questions(rng, pairs=all_pairs())
    asked: list[tuple[str, Reading]] = []
    while len(asked) < n:
        for these in things(any_scenes(rng, n, (objects, objects))):
            asked += [(q.kind, Reading("scene", q.told, ((q.question, q.answer),))) for q in ask(these)]
    return asked[:n]
