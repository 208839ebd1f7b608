"""How far one gets without looking: by guessing (chance), and by knowing the questions' words and habits alone (blind).

The blind level is that of the best of a few readers that are fitted on many questions with answers and tried on fresh ones:
one knows the kind, one the exact wording, one its template (`what colour is the X?`). Each answers what was most often
right. Where something is held out, they are fitted on what was seen, as a model would be. Who is not better than that has not
been shown to see.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision.ops import box_iou

from minivlm import world
from minivlm.world.data_files import DATA
from minivlm.world.draws import Named, Pointed, WebCaption
from minivlm.world.episodes import NAMES
from minivlm.world.palette import COLOURS, SHAPES
from minivlm.world.robot_questions import correct
from minivlm.world.scenes import generator
from minivlm.world.tasks import TASKS, task_named
from minivlm.world.web import loops

FILE = DATA / "eval" / "levels.json"

#: How many times the frozen set is drawn to fit the readers, and to try them.
FIT, TRY = 20, 12

_PLACES = re.compile("leftmost|rightmost|highest|lowest|left|right|top|bottom|middle|large|small")
_THINGS = re.compile(rf"\b(?:{'|'.join((*COLOURS, *SHAPES, *NAMES))}|object \d+)\b")

Key = Callable[[Any], str]


class Level(NamedTuple):
    """Of one kind of question: how often a guess is right, and the best that the words alone give; `asked` were tried."""

    chance: float
    blind: float
    asked: int


def blind(
    fit: Sequence[Any],
    tried: Sequence[Any],
    right: Callable[[int, str], bool] | None = None,
    keys: Mapping[str, Key] | None = None,
) -> dict[str, float]:
    """Kind -> share of `tried` that the best reader fitted on `fit` gets right. Rows have kind, question and answer.

    `right(i, said)` says whether an answer to the i-th of `tried` is right (default: it is the answer).
    """
    right = right or (lambda i, said: said == tried[i].answer)
    scores: dict[str, list[float]] = defaultdict(list)
    for key in (keys or READERS).values():
        seen: dict[tuple[str, str], Counter] = defaultdict(Counter)
        for row in fit:
            answer = _by_place(row.question, row.answer) if key is _template else row.answer
            for group in (key(row), ""):  # "" for what was never seen
                seen[row.kind, group][answer] += 1
        best = {group: max(answers, key=lambda a: (answers[a], a)) for group, answers in seen.items()}
        hits: dict[str, list[bool]] = defaultdict(list)
        for i, row in enumerate(tried):
            said = best.get((row.kind, key(row)), best.get((row.kind, ""), ""))
            hits[row.kind].append(right(i, _spoken(row.question, said) if key is _template else said))
        for kind, found in hits.items():
            scores[kind].append(sum(found) / len(found))
    return {kind: max(found) for kind, found in scores.items()}


def _template(row: Any) -> str:
    return _by_place(row.question, row.question)


def _by_place(question: str, text: str) -> str:
    """A text with the question's colours, shapes and names as X0, X1, ..., by their places there; others as they are."""
    known = list(dict.fromkeys(_THINGS.findall(question)))
    return _THINGS.sub(lambda match: f"X{known.index(match[0])}" if match[0] in known else match[0], text)


def _spoken(question: str, answer: str) -> str:
    """The same back."""
    known = list(dict.fromkeys(_THINGS.findall(question)))
    return re.sub(r"X(\d+)", lambda match: known[int(match[1])] if int(match[1]) < len(known) else match[0], answer)


#: Reader -> what it looks at.
READERS: dict[str, Key] = {"kind": lambda row: "", "wording": lambda row: row.question, "template": _template}


class _Row(NamedTuple):
    kind: str
    question: str
    answer: str


def levels(task: str, fit: int = FIT, tries: int = TRY) -> dict[str, Level]:
    """Kind -> level, of a task.

    Raises:
        ValueError: there is no such task.
    """
    how = task_named(task)
    if task == "captions":  # who does not see the picture takes any text for it
        return {kind: Level(level, level, round(1 / level)) for kind, level in how.chance.items()}
    learned = how.learned or task
    _, known = task_named(learned).draw(generator(f"levels fit {learned}"), fit)
    samples, fresh = how.draw(generator(f"levels {task}"), tries)
    if how.row is Pointed:
        return _pointed(samples, known, fresh, how.chance["exists"])
    right = None
    if how.row is Named:
        known, fresh = ([_Row(row.kind, "", row.name) for row in rows] for rows in (known, fresh))
    elif how.row is WebCaption:
        known, fresh = ([_Row("clean or not", row.text, row.kind) for row in rows] for rows in (known, fresh))
        keys = READERS | {"end": lambda row: f"{row.question.split()[-1]} {loops(row.question)}"}
        return _with_chance(blind(known, fresh, keys=keys), how.chance, fresh)
    elif task.startswith("robot"):
        right = lambda i, said: correct(samples[i], fresh[i], said)
    elif task.startswith(
        "episodes"
    ):  # the names to choose from are known: which of the two pictures it is called after
        known, fresh = (
            [_Row(row.kind, row.question, _first_or_second(row)) for row in rows] for rows in (known, fresh)
        )
    return _with_chance(blind(known, fresh, right), how.chance, fresh)


def _with_chance(found: Mapping[str, float], chance: Mapping[str, float], rows: Sequence[Any]) -> dict[str, Level]:
    asked = Counter(row.kind for row in rows)
    return {kind: Level(chance[kind], found[kind], asked[kind]) for kind in chance}


def _first_or_second(row: Any) -> str:
    names = list(dict.fromkeys(re.findall(r"is an? (\w+)\.", row.told)))
    return ("first", "second")[names.index(row.answer)]


def _pointed(scenes: Any, known: list[Pointed], fresh: list[Pointed], chance: float) -> dict[str, Level]:
    """Boxes: one of the things by chance; the mean box of all, or of those with the phrase, or its place, without looking."""
    truth = [_Row("exists", row.phrase, row.kind) for row in fresh]
    exists = blind([_Row("exists", row.phrase, row.kind) for row in known], truth)["exists"]
    best = 0.0
    for key in (lambda phrase: "", lambda phrase: phrase, lambda phrase: " ".join(_PLACES.findall(phrase))):
        groups: dict[str, list] = defaultdict(list)
        for row in known:
            if row.box:
                for group in (key(row.phrase), ""):
                    groups[group].append(row.box)
        mean = {group: torch.tensor(found).median(0).values for group, found in groups.items()}
        rows = [row for row in fresh if row.box]
        said = torch.stack([mean.get(key(row.phrase), mean[""]) for row in rows])
        best = max(
            best, float((box_iou(said, torch.tensor([row.box for row in rows])).diagonal() >= 0.5).float().mean())
        )
    counts = scenes.counts()[[bool(row.box) for row in fresh]]
    return {
        "box": Level(float((1 / counts).mean()), best, len(counts)),
        "exists": Level(chance, exists, len(fresh)),
    }


def measure() -> dict[str, dict[str, Level]]:
    """The levels of every task."""
    return {task: levels(task) for task in TASKS}


def text(measured: Mapping[str, Mapping[str, Level]]) -> str:
    """The content of `FILE`."""
    tasks = {task: {kind: level._asdict() for kind, level in found.items()} for task, found in measured.items()}
    return json.dumps({"version": world.VERSION, "tasks": tasks}, indent=1) + "\n"


def stored(file: Path = FILE) -> dict[str, dict[str, Level]]:
    """The levels as they were measured and stored.

    Raises:
        ValueError: there are none, or those of another version of the world.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); measure with: python -m minivlm.world write") from error
    if content["version"] != world.VERSION:
        raise ValueError(
            f"{file} is of version {content['version']}, this is {world.VERSION}: python -m minivlm.world write"
        )
    return {task: {kind: Level(**level) for kind, level in found.items()} for task, found in content["tasks"].items()}
