"""Readers that the tests of questions share: they parse a question and answer it from facts, without the world's grammar.

Facts are a list of dicts (size, colour, shape, x, y). They come from the tensors of a scene, x and y being fractions, or from
its description in words, x and y being the column and the row of the place: the same answer must follow from both.
"""

import re

COLOUR = "red|orange|yellow|green|blue|purple|pink|black"
SHAPE = "circle|square|triangle|diamond|cross|ring|star|moon"
PLURALS = {"circles": "circle", "squares": "square", "triangles": "triangle", "diamonds": "diamond", "crosses": "cross",
           "rings": "ring", "stars": "star", "moons": "moon"}  # fmt: skip
COUNTS = "zero one two three four five six seven eight nine ten".split()
NAME = rf"the ((?:{COLOUR})(?= thing)|(?:(?:{COLOUR}) )?(?:{SHAPE}))(?: thing)?"
SIDE = "(to the left of|to the right of|above|below)"
PLACES = [["top left", "top", "top right"], ["left", "middle", "right"], ["bottom left", "bottom", "bottom right"]]
THING = re.compile(
    rf"an? (small|large) ({COLOUR}) ({SHAPE}) (?:at|on|in) the ((?:top|bottom)(?: left| right)?|left|right|middle)"
)


def third(value: float) -> int:
    return 0 if value < 0.42 else 1 if value < 0.58 else 2


def seen(scenes, i: int) -> list[dict]:
    """Facts from the tensors of scene `i`."""
    colours, shapes = COLOUR.split("|"), SHAPE.split("|")
    facts = []
    for slot in range(scenes.present.shape[1]):
        if scenes.present[i, slot]:
            x, y = scenes.position[i, slot].tolist()
            facts.append({"size": "small" if scenes.size[i, slot] < 0.23 else "large", "x": x, "y": y,
                          "colour": colours[scenes.colour[i, slot]], "shape": shapes[scenes.shape[i, slot]],
                          "place": PLACES[third(y)][third(x)]})  # fmt: skip
    return facts


def heard(told: str) -> list[dict]:
    """Facts from a description in words, each thing with its size and place."""
    facts = []
    for size, colour, shape, place in THING.findall(told):
        (row,) = [row for row in range(3) if place in PLACES[row]]
        facts.append({"size": size, "colour": colour, "shape": shape, "place": place,
                      "x": PLACES[row].index(place), "y": row})  # fmt: skip
    rest = THING.sub("", told)
    assert not re.sub(r",| and |\.", "", rest).strip(), f"{told!r} says more than the reader understands: {rest!r}"
    return facts


def meant(name: str, facts: list[dict]) -> int:
    """Number of the one thing that a name (`star`, `red`, `red star`) is true of."""
    fitting = [i for i, fact in enumerate(facts) if set(name.split()) <= {fact["colour"], fact["shape"]}]
    assert len(fitting) == 1, f"{name!r} is true of {len(fitting)} things of {facts}"
    return fitting[0]


def beside(a: dict, side: str, b: dict) -> bool:
    if side == "to the left of":
        return a["x"] < b["x"]
    if side == "to the right of":
        return a["x"] > b["x"]
    return a["y"] < b["y"] if side == "above" else a["y"] > b["y"]


def all_beside(side: str, name: str, facts: list[dict]) -> list[dict]:
    b = meant(name, facts)
    return [fact for i, fact in enumerate(facts) if i != b and beside(fact, side, facts[b])]


def count(group: str, facts: list[dict]) -> int:
    """How many `stars`, or `red things`, there are."""
    if group in PLURALS:
        return sum(fact["shape"] == PLURALS[group] for fact in facts)
    colour = re.fullmatch(rf"({COLOUR}) things", group)[1]
    return sum(fact["colour"] == colour for fact in facts)


def one(found: list[dict], why: str) -> dict:
    assert len(found) == 1, f"{why}: {len(found)} things fit"
    return found[0]


def a(fact: dict) -> str:
    return f"{'an' if fact['colour'] == 'orange' else 'a'} {fact['colour']} {fact['shape']}"


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


#: Pattern of a question -> its answer from the groups of the pattern and the facts.
ANSWERS = {
    rf"what colour is the ({SHAPE})\?": lambda f, shape: f[meant(shape, f)]["colour"],
    rf"what shape is the ({COLOUR}) thing\?": lambda f, colour: f[meant(colour, f)]["shape"],
    rf"is {NAME} small or large\?": lambda f, name: f[meant(name, f)]["size"],
    r"how many things are there\?": lambda f: COUNTS[len(f)],
    r"how many (\w+|\w+ things) are there\?": lambda f, group: COUNTS[count(group, f)],
    rf"is there an? ({COLOUR}) ({SHAPE})\?": lambda f, c, s: yes(any((t["colour"], t["shape"]) == (c, s) for t in f)),
    rf"where is {NAME}\?": lambda f, name: f[meant(name, f)]["place"],
    r"what is (?:at|on|in) the ((?:top |bottom )?(?:left|right)|top|bottom|middle)\?": lambda f, place: a(
        one([t for t in f if t["place"] == place], place)
    ),
    rf"is {NAME} {SIDE} {NAME}\?": lambda f, n, side, m: yes(beside(f[meant(n, f)], side, f[meant(m, f)])),
    rf"what is {SIDE} {NAME}\?": lambda f, side, name: a(one(all_beside(side, name, f), side)),
    rf"are {NAME} and {NAME} the same (colour|shape|size)\?": lambda f, n, m, what: yes(
        f[meant(n, f)][what] == f[meant(m, f)][what]
    ),
    rf"what (colour|shape) is the thing {SIDE} {NAME}\?": lambda f, what, side, name: one(
        all_beside(side, name, f), side
    )[what],
    rf"how many things are {SIDE} {NAME}\?": lambda f, side, name: COUNTS[len(all_beside(side, name, f))],
    r"are there more (\w+|\w+ things) than (\w+|\w+ things)\?": lambda f, one, two: yes(count(one, f) > count(two, f)),
}


def answer(question: str, facts: list[dict]) -> str:
    """The answer that follows from the facts."""
    found = [(reply, match) for pattern, reply in ANSWERS.items() if (match := re.fullmatch(pattern, question))]
    found = [(reply, match) for reply, match in found if "things" not in match.groups()] or found
    found = found[:1] if question == "how many things are there?" else found
    assert len(found) == 1, f"{len(found)} readings of {question!r}"
    reply, match = found[0]
    return reply(facts, *match.groups())


#: Pattern of a sentence of a chain of thought -> whether it is true.
SENTENCES = {
    rf"{NAME} is {SIDE} {NAME}": lambda f, n, side, m: beside(f[meant(n, f)], side, f[meant(m, f)]),
    rf"{NAME} is not {SIDE} {NAME}": lambda f, n, side, m: not beside(f[meant(n, f)], side, f[meant(m, f)]),
    rf"{NAME} is (?:a )?({COLOUR}|{SHAPE})": lambda f, name, value: (
        value in (f[meant(name, f)]["colour"], f[meant(name, f)]["shape"])
    ),
    r"(\w+|\w+ things): (\w+)": lambda f, group, number: COUNTS[count(group, f)] == number,
}


def is_true(sentence: str, facts: list[dict]) -> bool:
    found = [(check, match) for pattern, check in SENTENCES.items() if (match := re.fullmatch(pattern, sentence))]
    assert len(found) == 1, f"{len(found)} readings of {sentence!r}"
    check, match = found[0]
    return check(facts, *match.groups())
