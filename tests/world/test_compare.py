"""Two pictures differ as planned and in nothing else, and every answer can be read from the words that describe them."""

import re
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world.compare import CHANCE, CHANGES, KINDS, WORDS, compare, draw_pairs
from minivlm.world.scenes import Thing, things

THING = re.compile(
    r"an? (small|large) (\w+) (\w+) (?:at|on|in) the ((?:top|bottom|left|right|middle)(?: (?:left|right))?)"
)
FIELDS = ("size", "colour", "shape", "place")


def difference(one: list[Thing], other: list[Thing]) -> str:
    """What differs, seen from the things alone."""
    if len(one) != len(other):
        longer, shorter = sorted([one, other], key=len, reverse=True)
        assert len(longer) == len(shorter) + 1
        assert set(shorter) < set(longer), f"more than one thing more or less: {one} and {other}"
        return "fewer" if len(one) > len(other) else "more"
    changed = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if not changed:
        return "nothing"
    assert len(changed) == 1, f"several things changed: {changed}"
    a, b = changed[0]
    fields = {name for name in Thing._fields if getattr(a, name) != getattr(b, name)}
    kinds = {"colour": {"colour"}, "shape": {"shape"}, "size": {"size", "radius"}}
    found = [kind for kind, names in kinds.items() if fields == names] or ["place"] * (fields <= {"x", "y"})
    assert len(found) == 1, f"{a} became {b}"
    return found[0]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**20), objects=st.sampled_from([(1, 2), (1, 3), (2, 3)]))
def test_pairs_differ_as_planned_and_in_nothing_else(seed, objects):
    changes = list(CHANGES) * 2
    pairs = draw_pairs(world.generator("pairs", seed), changes, objects)
    assert [CHANGES[i] for i in pairs.change.tolist()] == changes
    assert torch.equal(pairs.first.background, pairs.second.background)
    seen = set(world.SEEN)
    for planned, one, other in zip(changes, things(pairs.first), things(pairs.second), strict=True):
        assert difference(one, other) == planned
        for these in (one, other):
            assert objects[0] <= len(these) <= objects[1]
            assert {(list(world.COLOURS).index(t.colour), world.SHAPES.index(t.shape)) for t in these} <= seen
            for k, a in enumerate(these):
                edge = a.radius + 0.029
                assert edge < a.x < 1 - edge, f"{a} lies too close to the border"
                assert edge < a.y < 1 - edge, f"{a} lies too close to the border"
                for b in these[:k]:
                    assert (a.x - b.x) ** 2 + (a.y - b.y) ** 2 > (a.radius + b.radius + 0.029) ** 2, f"{a} touches {b}"


def read(told: str) -> list[list[dict[str, str]]]:
    """Both pictures, from their description."""
    parts = re.fullmatch(r"first picture: (.*)\. second picture: (.*)\.", told).groups()
    return [[dict(zip(FIELDS, match, strict=True)) for match in THING.findall(part)] for part in parts]


def answer(question: str, told: str) -> str:
    """The answer, by reading alone."""
    pictures = read(told)
    rows = [Counter(tuple(thing.values()) for thing in picture) for picture in pictures]
    gone, came = [list((rows[k] - rows[1 - k]).elements()) for k in (0, 1)]
    if question == "are the two pictures the same?":
        return "no" if gone or came else "yes"
    if question == "which picture has more things?":
        sizes = [len(picture) for picture in pictures]
        return "neither" if sizes[0] == sizes[1] else "the first" if sizes[0] > sizes[1] else "the second"
    if question == "what changed?":
        if len(gone) != len(came):
            return "the number of things"
        fields = {
            name for a, b in zip(gone, came, strict=True) for name, x, y in zip(FIELDS, a, b, strict=True) if x != y
        }
        assert len(fields) < 2
        return f"the {fields.pop()}" if fields else "nothing"
    if match := re.fullmatch(r"in which picture is the (\w+) (\w+)\?", question):
        shape, colour = match.groups()
        having = [[t["colour"] for t in picture if t["shape"] == shape] for picture in pictures]
        assert all(len(colours) == 1 for colours in having), f"which {shape} is meant? {told}"
        hits = [colours == [colour] for colours in having]
        assert sum(hits) == 1, f"true of {sum(hits)} pictures: {question} {told}"
        return ("the first", "the second")[hits.index(True)]
    shape = re.fullmatch(r"do both pictures show an? (\w+)\?", question)[1]
    return "yes" if all(any(t["shape"] == shape for t in picture) for picture in pictures) else "no"


@pytest.fixture(scope="module")
def many():
    return compare(world.generator("compare"), 4000)


def test_every_answer_can_be_read_from_what_is_told(many):
    pairs, questions = many
    assert len(pairs) == len(questions) == 4000
    for question, one, other in zip(questions, things(pairs.first), things(pairs.second), strict=True):
        assert answer(question.question, question.told) == question.answer, question
        for picture, these in zip(read(question.told), (one, other), strict=True):
            said = sorted((t["size"], t["colour"], t["shape"]) for t in picture)
            assert said == sorted((t.size, t.colour, t.shape) for t in these), "told of another pair"


def test_answers_are_balanced(many):
    counts = defaultdict(Counter)
    for question in many[1]:
        counts[question.kind][question.answer] += 1
    assert set(counts) == set(KINDS) == set(CHANCE)
    for kind, answers in counts.items():
        assert set(answers) == set(KINDS[kind])
        most = max(answers.values()) / sum(answers.values())
        assert most < CHANCE[kind] + 0.06, f"{kind} can be guessed: {dict(answers)}"


def test_the_words_of_a_question_do_not_give_the_answer_away(many):
    by_question = defaultdict(Counter)
    for question in many[1]:
        by_question[question.kind, question.question][question.answer] += 1
    for kind in ("which", "both"):
        rows = [row for (name, _), row in by_question.items() if name == kind and sum(row.values()) > 40]
        for row in rows:
            assert max(row.values()) / sum(row.values()) < 0.75, f"{kind}: {row}"


def test_no_is_hard_where_both_pictures_are_asked_for(many):
    """One picture has the shape, the other does not: looking at one alone is not enough."""
    for question in many[1]:
        if question.kind == "both" and question.answer == "no":
            shape = question.question[:-1].split()[-1]
            assert sum(any(t["shape"] == shape for t in picture) for picture in read(question.told)) == 1


def test_only_known_words(many):
    known = {*world.vocabulary(), *WORDS}
    for question in many[1][:500]:
        assert set(re.findall(r"[a-z]+", " ".join(question[1:]))) <= known


def test_same_generator_same_questions():
    a, b = (compare(world.generator("again"), 20) for _ in range(2))
    assert a[1] == b[1]
    assert torch.equal(a[0].second.position, b[0].second.position)


def test_indexing_gives_pairs():
    pairs = draw_pairs(world.generator("index"), CHANGES)
    assert len(pairs) == 7
    for index in (0, -1, [1], slice(1, 2), torch.tensor([True] + 6 * [False])):
        assert len(pairs[index]) == len(pairs[index].second) == len(pairs[index].change) == 1
    with pytest.raises(IndexError):
        pairs[7]
    assert sum(len(pair) for pair in pairs) == 7


def test_describe_may_be_ones_own():
    _, questions = compare(world.generator("own"), 3, describe=lambda these: f"{len(these)} things")
    assert all(re.fullmatch(r"first picture: \d things. second picture: \d things.", q.told) for q in questions)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: draw_pairs(rng, ["turned"]), "turned"),
        (lambda rng: draw_pairs(rng, []), "none"),
        (lambda rng: draw_pairs(rng, ["more"], objects=(2, 2)), "least < most"),
        (lambda rng: draw_pairs(rng, ["more"], objects=2), "a pair of whole numbers"),
        (lambda rng: draw_pairs(rng, ["colour"], pairs=[(0, 0), (1, 1)]), "another colour"),
        (lambda rng: compare(rng, 0), "at least one question"),
        (lambda rng: compare(rng, 3, kinds=["turned"]), "turned"),
        (lambda rng: compare(rng, 3, kinds=[]), "kinds"),
    ],
)
def test_impossible_requests_say_why(make, words):
    with pytest.raises(ValueError, match=words):
        make(world.generator("bad"))
