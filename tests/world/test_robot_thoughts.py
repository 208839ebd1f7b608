"""Thoughts before actions: true, and enough to act on."""

import re

import pytest

from minivlm import world
from minivlm.language.tokenizer import Tokenizer
from minivlm.world.planner import holds
from minivlm.world.robot import compose_table, draw_tables, find
from minivlm.world.robot_moves import Placement
from minivlm.world.robot_questions import RobotQuestions
from minivlm.world.robot_thoughts import aloud, stacks, thought, thoughtful
from minivlm.world.robot_words import names, parse_goal

CALLED = ("the red block", "the blue block", "the green block", "the pink block")
TABLE = compose_table(["red", "blue"], [], ["green"], ["pink"])


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ((Placement(0, 2),), "under the red block is the table. on the red block is the blue block."
                             " on the blue block is nothing. on the green block is nothing"),
        ((Placement(1),), "under the blue block is the red block. on the blue block is nothing"),
        ((Placement(2, None, 0),), "under the green block is the table at place 3. on the green block is nothing. at place 1 is"
                                   " the red block. on the red block is the blue block. on the blue block is nothing"),
        ((Placement(2, None, 1),), "under the green block is the table at place 3. on the green block is nothing."
                                   " at place 2 is nothing"),
    ],
)  # fmt: skip
def test_by_hand(goal, said):
    (columns,) = TABLE.columns()
    assert thought(columns, goal, CALLED) == said
    first = said.split(". ")[0]
    assert thought(columns, goal, CALLED, above=False) == first


def test_every_sentence_is_true():
    tables, asked = RobotQuestions(world.generator("think"), ["next", "done"]).sift(draw_tables(world.generator("t"), 150))
    for columns, question, called in zip(tables.columns(), asked, names(tables), strict=True):
        *sentences, answer = thoughtful(question, columns, called).split(". ")
        assert answer == question.answer
        assert sentences
        for sentence in sentences:
            where, what, found = re.fullmatch(r"(under|on|at) (.+) is (.+)", sentence).groups()
            if where == "at":
                column = columns[int(what.removeprefix("place ")) - 1]
                assert found == (called[column[0]] if column else "nothing")
                continue
            place, level = find(columns, called.index(what))
            if where == "on":
                upper = columns[place][level + 1 :]
                assert found == (called[upper[0]] if upper else "nothing")
            elif level:
                assert found == called[columns[place][level - 1]]
            else:
                assert found in ("the table", f"the table at place {place + 1}")


def test_it_says_enough_to_know_whether_the_goal_is_reached():
    tables, asked = RobotQuestions(world.generator("done"), ["done"], forms=["on", "table", "place"]).sift(
        draw_tables(world.generator("d"), 100)
    )
    for columns, question, called in zip(tables.columns(), asked, names(tables), strict=True):
        text = question.question.removeprefix("the goal is: ").split(". ")[0]
        (fact,) = goal = parse_goal(text, called)
        (sentence,) = thought(columns, goal, called, above=False).split(". ")
        wanted = "the table" if fact.on is None else called[fact.on]
        wanted += "" if fact.place is None else f" at place {fact.place + 1}"
        assert sentence.endswith(f"is {wanted}") == holds(columns, goal)


def test_other_answers_have_no_thought_and_all_words_are_known():
    tokenizer = Tokenizer(world.vocabulary())
    tables, asked = RobotQuestions(world.generator("all")).sift(draw_tables(world.generator("a"), 60))
    for columns, question, called in zip(tables.columns(), asked, names(tables), strict=True):
        said = thoughtful(question, columns, called)
        assert (said == question.answer) == (question.kind not in ("plan", "next", "done"))
        many = len(re.findall(r"\w+|[.]| \d", said)) + len(re.findall(r" \d", said))  # a digit and its space are two
        assert len(tokenizer.encode(said)) == many, "a word is spelled out"


def test_stacks_are_told_from_the_left_and_upwards():
    empty = compose_table([], ["orange"], [], [])
    assert stacks(TABLE) == ["place 1: red blue. place 3: green. place 4: pink."]
    assert stacks(empty) == ["place 2: orange."]


def test_aloud_are_the_stacks_and_the_thought():
    tables, asked = RobotQuestions(world.generator("aloud")).sift(draw_tables(world.generator("a"), 40))
    each = zip(aloud(tables, asked), stacks(tables), asked, tables.columns(), names(tables), strict=True)
    for said, seen, *about in each:
        assert said == f"{seen} {thoughtful(*about)}"


def test_aloud_needs_a_question_for_each_table():
    tables, asked = RobotQuestions(world.generator("aloud")).sift(draw_tables(world.generator("a"), 4))
    with pytest.raises(ValueError, match="ask one question of each table; got 3 of 4 tables"):
        aloud(tables, asked[:3])
