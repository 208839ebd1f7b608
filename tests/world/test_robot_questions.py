"""Questions about the robot's table have one true answer, which neither their words nor their kind give away."""

import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import planner, robot, robot_questions, robot_words
from minivlm.world.robot_questions import CHANCE, KINDS, RobotQuestions, correct

COLOURS = list(world.COLOURS)
BLOCK = r"(?:the \w+ block|object \d)"


def read(told: str) -> tuple[dict[str, str], dict[str, str]]:
    """Block -> what it is on, and block -> place, from the words alone."""
    on = dict(re.findall(rf"({BLOCK}) is (?:an? \w+ block )?on ({BLOCK}|the table)", told))
    place = dict(re.findall(rf"({BLOCK}) is (?:an? \w+ block )?on the table at place (\d)", told))
    for _ in range(robot.HIGHEST):
        place |= {block: place[low] for block, low in on.items() if low in place}
    return on, place


def answer(kind: str, told: str, question: str) -> str:
    """The answer from what is told, by rules of its own. For plans: from `planner`, which has tests of its own."""
    on, place = read(told)
    under = set(on.values())
    blocks = re.findall(BLOCK, question)
    if kind == "under":
        return on[blocks[0]]
    if kind == "top":
        at = re.search(r"place (\d)", question)[1]
        return next((block for block in on if place[block] == at and block not in under), "nothing")
    if kind == "possible":
        free = [block not in under for block in blocks]
        stack = list(place.values())
        room = len(blocks) == 1 or stack.count(place[blocks[1]]) < robot.HIGHEST
        return "yes" if all(free) and room else "no"
    goal = re.match(r"the goal is: (.*?)\. ", question)[1]
    if kind == "done":
        if goal == "all blocks are on the table":
            return "yes" if under == {"the table"} else "no"
        facts = [fact.split(" is on ") for fact in goal.split(" and ")]
        true = [
            on[block] == "the table" and place[block] == spot[-1] if "at place" in spot else on[block] == spot
            for block, spot in facts
        ]
        return "yes" if all(true) else "no"
    called = sorted(on)
    columns = [[] for _ in range(robot.PLACES)]
    for block in sorted(on, key=lambda b: 0 if on[b] == "the table" else 1 if on[on[b]] == "the table" else 2):
        columns[int(place[block]) - 1].append(called.index(block))
    plan = planner.plan(tuple(map(tuple, columns)), robot_words.parse_goal(goal, called))
    if kind == "next":
        return robot_words.action_text(plan[0], called) if plan else "done"
    return robot_words.plan_text(plan, called)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), numbered=st.booleans())
def test_answers_follow_from_what_is_told(seed, numbered):
    rng = world.generator("robot questions", seed)
    tables = robot.draw_tables(rng, 30, twins=numbered)
    for i, (kind, told, question, said) in enumerate(RobotQuestions(rng, numbered=numbered)(tables)):
        expected = answer(kind, told, question)
        assert said == expected, f"{told} {question} {said!r}, but {expected!r} is true"
        assert told == robot_words.tell(tables, numbered)[i]
        assert not said.endswith(".")


@pytest.fixture(scope="module")
def many():
    rng = world.generator("many")
    by_kind = defaultdict(list)
    for kind in KINDS:
        by_kind[kind] = RobotQuestions(rng, [kind])(robot.draw_tables(rng, 1500))
    return by_kind


def blind(questions) -> float:
    """How often the best answer to a question's words is right, where colours and places only count by their order."""
    answers = defaultdict(Counter)
    names = re.compile("|".join(COLOURS) + r"|(?<=place )\d")
    for q in questions:
        new = {name: f"<{i}>" for i, name in enumerate(dict.fromkeys(names.findall(q.question)))}
        wording, said = (names.sub(lambda m, new=new: new.get(m[0], m[0]), text) for text in (q.question, q.answer))
        answers[wording][said] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(questions)


def test_questions_do_not_give_their_answers_away(many):
    for kind, least, most in [
        ("done", 0.5, 0.56), ("possible", 0.5, 0.56), ("under", 0.1, 0.25), ("top", 0.1, 0.25),
        ("plan", 0.1, 0.4), ("next", 0.1, 0.4),
    ]:  # fmt: skip
        level = blind(many[kind])
        assert least < level < most, f"{kind}: {level:.2f} of the answers can be guessed from the question alone"


def test_answers_are_balanced(many):
    for kind in ("done", "possible"):
        yes = Counter(q.answer for q in many[kind])["yes"] / len(many[kind])
        assert 0.45 < yes < 0.55, f"{kind}: {yes:.2f} of the answers are yes"
    for kind in ("under", "top"):
        counts = Counter(q.answer for q in many[kind])
        assert len(counts) == len(COLOURS) + 1
        assert all(0.6 < n / len(many[kind]) * len(counts) < 1.4 for n in counts.values()), counts
    lengths = Counter(q.answer.count("put ") for q in many["plan"])
    assert all(0.27 < lengths[n] / len(many["plan"]) < 0.4 for n in (1, 2, 3)), lengths
    assert 0.2 < Counter(q.answer for q in many["next"])["done"] / len(many["next"]) < 0.3
    assert set(CHANCE) == set(KINDS)


def test_nothing_held_out_is_in_training_texts(many):
    held = {(COLOURS[upper], COLOURS[lower]) for upper, lower in robot.HELD_OUT_STACKS}
    said = set()
    for q in [q for questions in many.values() for q in questions]:
        said |= set(re.findall(r"the (\w+) block (?:is |be put )?on the (\w+) block", " ".join(q[1:])))
    assert not said & held, f"held-out stacks in training texts: {said & held}"
    assert len(said) == len(COLOURS) * (len(COLOURS) - 1) - len(held)


def test_held_out_questions_are_about_held_out_stacks():
    rng = world.generator("held out")
    tables = robot.draw_tables(rng, 200, stacks=robot.HELD_OUT_STACKS)
    ask = RobotQuestions(rng, ["plan"], stacks=robot.HELD_OUT_STACKS, forms=("on",))
    held = {(COLOURS[upper], COLOURS[lower]) for upper, lower in robot.HELD_OUT_STACKS}
    sifted, questions = ask.sift(tables)
    assert 120 < len(sifted) == len(questions)
    assert [q.told for q in questions] == robot_words.tell(sifted)
    for q in questions:
        goal = re.search(r"goal is: the (\w+) block is on the (\w+) block", q.question)
        assert goal.groups() in held


def test_every_word_is_known(many):
    twins = robot.draw_tables(world.generator("words"), 300, twins=True)
    texts = [*many.values(), RobotQuestions(world.generator("words"), numbered=True)(twins)]
    used = set(re.findall("[a-z]+", " ".join(" ".join(q[1:]) for questions in texts for q in questions)))
    unknown = used - {*COLOURS, *robot_words.WORDS}
    assert not unknown, f"words missing in robot_words.WORDS: {sorted(unknown)}"
    unused = set(robot_words.WORDS) - used
    assert not unused, f"robot_words.WORDS has words that no text uses: {sorted(unused)}"


def test_any_shortest_plan_is_right_and_nothing_else():
    table = robot.compose_table(["red", "blue"], [], ["green", "pink"])
    called = robot_words.names(table)[0]
    (goal,) = planner.goals(4, "all")
    text = robot_words.goal_text(goal, called)
    ask = lambda kind, answer: robot_questions.Question(kind, robot_words.tell(table)[0], text, answer)
    q = ask("plan", robot_words.plan_text(planner.plan(table.columns()[0], goal), called))
    q = q._replace(question=f"the goal is: {text}. what is the plan?")
    assert correct(table, q, q.answer)
    assert correct(table, q, "1. put the pink block on the table at place 4. 2. put the blue block on the table.")
    for wrong in (
        "1. put the pink block on the table",
        "1. put the red block on the table. 2. put the blue block on the table",
        "1. put the blue block on the pink block. 2. put the blue block on the table. 3. put the pink block on the table",
        "put the pink block",
        "",
    ):
        assert not correct(table, q, wrong), f"{wrong!r} passes for a shortest plan"
    q = q._replace(kind="next", answer="put the blue block on the table")
    assert correct(table, q, "put the pink block on the table at place 2")
    assert not correct(table, q, "put the pink block on the blue block")
    assert not correct(table, q, "done")
    with pytest.raises(ValueError, match="one table"):
        correct(robot.draw_tables(world.generator("two"), 2), q, "")


def test_every_answer_is_correct_and_others_are_not(many):
    rng = world.generator("correct")
    tables = robot.draw_tables(rng, 200)
    for i, q in enumerate(RobotQuestions(rng)(tables)):
        assert correct(tables[i], q, q.answer)
        assert not correct(tables[i], q, "the mauve block")


def test_doing_the_next_action_until_done_reaches_the_goal():
    """The robot's loop: ask, act, look again."""
    from minivlm.world.robot_moves import step

    rng = world.generator("loop")
    tables = robot.draw_tables(rng, 30)
    for i, q in enumerate(RobotQuestions(rng, ["next"])(tables)):
        table, called = tables[i], robot_words.names(tables[i])[0]
        for _ in range(4):
            said = answer("next", robot_words.tell(table)[0], q.question)
            if said == "done":
                break
            table = step(table, [robot_words.parse_action(said, called)])
        assert said == "done", f"{q} is not done after four actions"


def test_what_cannot_be_asked_says_why():
    flat = robot.compose_table(["red"], ["blue"])
    with pytest.raises(ValueError, match="stacked=True"):
        RobotQuestions(world.generator("x"), ["under"])(flat)
    with pytest.raises(ValueError, match="kinds are"):
        RobotQuestions(world.generator("x"), ["why"])
    with pytest.raises(ValueError, match="forms are"):
        RobotQuestions(world.generator("x"), forms=())
    with pytest.raises(ValueError, match="numbered=True"):
        RobotQuestions(world.generator("x"))(robot.compose_table(["red", "red"]))
