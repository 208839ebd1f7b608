"""The robot's world: tables, pictures, moves and plans, checked by readers that share no code with it."""

import re
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minivlm import world
from minivlm.world import planner, robot, robot_words
from minivlm.world.robot_moves import Placement, fault, move, moves, step
from minivlm.world.robot_pictures import block_centres, block_masks, render_tables

COLOURS = list(world.COLOURS)
PALETTE = torch.tensor(list(world.COLOURS.values()))
ALL = robot.SEEN_STACKS + robot.HELD_OUT_STACKS
NAMES = ("the red block", "the blue block", "the green block", "the pink block")


def stacks_of(tables: robot.Tables, i: int) -> list[list[str]]:
    """The colours at each place from the table up, read off the tensors."""
    found = [[None] * robot.HIGHEST for _ in range(robot.PLACES)]
    for block in range(int(tables.present[i].sum())):
        found[tables.place[i, block]][tables.level[i, block]] = COLOURS[tables.colour[i, block]]
    return [[c for c in column if c] for column in found]


def pairs_of(tables: robot.Tables) -> set[tuple[int, int]]:
    stacks = [column for i in range(len(tables)) for column in stacks_of(tables, i)]
    return {(COLOURS.index(up), COLOURS.index(low)) for column in stacks for low, up in zip(column, column[1:])}  # noqa: B905


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32), least=st.integers(2, 4), more=st.integers(0, 2), twins=st.booleans())
def test_drawn_tables_can_stand(seed, least, more, twins):
    most = min(least + more, robot.MOST)
    tables = robot.draw_tables(world.generator("stand", seed), 50, (least, most), twins=twins, slots=4)
    assert tables.colour.shape == (50, 4)
    assert tables.counts().min() >= least
    assert tables.counts().max() <= most
    for i, columns in enumerate(tables.columns()):
        blocks = sorted(b for column in columns for b in column)
        assert blocks == list(range(int(tables.counts()[i]))), "a block floats, or two are in the same spot"
        colours = tables.colour[i][tables.present[i]].tolist()
        assert len(colours) - len(set(colours)) == twins, "twins are two of the same colour; else all differ"
        assert any(len(column) > 1 for column in columns), "no block is stacked although stacked=True"
    for field in (tables.colour, tables.place, tables.level, tables.shift):
        assert (field[~tables.present] == 0).all()


def test_every_arrangement_is_drawn_equally_often():
    tables = robot.draw_tables(world.generator("even"), 12_000, (3, 3), stacks=ALL, stacked=False)
    columns = tables.columns()
    counts = [columns.count(one) for one in robot.arrangements(3)]
    assert set(columns) == set(robot.arrangements(3))
    assert min(counts) > 60
    assert max(counts) < 140, "some arrangement comes more often than others"


def test_arrangements_are_all_there_once():
    """Counted by trying every place for every order."""
    for n in range(1, robot.MOST + 1):
        found = {
            tuple(tuple(b for b, p in zip(order, places, strict=True) if p == at) for at in range(robot.PLACES))
            for order in permutations(range(n))
            for places in product(range(robot.PLACES), repeat=n)
        }
        found = {columns for columns in found if max(map(len, columns)) <= robot.HIGHEST}
        assert set(robot.arrangements(n)) == found
        assert len(robot.arrangements(n)) == len(found)


def test_held_out_stacks_never_stand_in_training():
    tables = robot.draw_tables(world.generator("train"), 4000)
    assert pairs_of(tables) == {pair for pair in robot.SEEN_STACKS if pair[0] != pair[1]}, "a held-out stack leaks"
    assert pairs_of(robot.draw_tables(world.generator("held out"), 2000, stacks=robot.HELD_OUT_STACKS)) == set(
        robot.HELD_OUT_STACKS
    )


def test_held_out_stacks_treat_all_colours_alike():
    for colour in range(len(COLOURS)):
        assert sum(upper == colour for upper, _ in robot.HELD_OUT_STACKS) == 2
        assert sum(lower == colour for _, lower in robot.HELD_OUT_STACKS) == 2


def test_same_name_same_tables_other_name_others():
    prints = []
    for name in ("train", "validation", "test", "train"):
        tables = robot.draw_tables(world.generator(name), 300)
        prints.append({tables.shift[i].numpy().tobytes() + tables.place[i].numpy().tobytes() for i in range(300)})
    assert prints[0] == prints[3]
    assert len(set.union(*prints[:3])) == 900, "two splits share a table"


# ---------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("height", "width"), [(24, 24), (32, 32), (96, 96), (40, 200), (150, 60)])
def test_pixels_say_who_stands_where(height, width):
    """A reader scans up each place in steps of its own and names the colour that it sees."""
    tables = robot.draw_tables(world.generator("pixels"), 60, twins=True)
    images = render_tables(tables, height, width)
    assert images.shape == (60, 3, height, width)
    assert images.min() >= 0
    assert images.max() <= 1
    solid = block_masks(tables, height, width) > 0.99
    for i in range(60):
        expected = stacks_of(tables, i)
        seen = []
        for place in range(robot.PLACES):
            x = int((place + 0.5) / robot.PLACES * width)
            distance = torch.cdist(images[i, :, :, x].T.contiguous(), PALETTE)
            column = [COLOURS[int(row.argmin())] if row.min() < 2e-3 else None for row in distance]
            runs = [c for c, before in zip(column, [None, *column[:-1]], strict=True) if c and c != before]
            seen.append(runs[::-1])
        assert seen == expected, f"table {i} shows {seen}, but {expected} stand there"
        for block in range(int(tables.counts()[i])):
            shown = images[i][:, solid[i, block]]
            assert torch.allclose(shown, PALETTE[tables.colour[i, block]][:, None].expand_as(shown), atol=0.02)


def test_gripper_hangs_over_its_place_and_touches_nothing():
    tall = robot.compose_table(["red", "green", "blue"], ["pink"], gripper=0)
    image = render_tables(tall, 96)[0]
    bare = render_tables(robot.compose_table(["red", "green", "blue"], ["pink"], gripper=2), 96)[0]
    changed = (image - bare).abs().sum(0) > 0.05
    assert changed[:, :24].any()
    assert changed[:, 48:72].any()
    assert not changed[:, 24:48].any()
    assert not (changed & (block_masks(tall, 96)[0].sum(0) > 0)).any(), "the gripper covers a block"


def test_a_large_picture_shrunk_is_the_small_picture():
    tables = robot.draw_tables(world.generator("shrink"), 6)
    averaged = torch.nn.functional.avg_pool2d(render_tables(tables, 512), 8)
    gap = (averaged - render_tables(tables, 64)).abs()
    assert gap.mean() < 3e-3
    assert gap.max() < 0.4


def test_masks_are_apart_and_say_where_blocks_are():
    tables = robot.draw_tables(world.generator("masks"), 80, slots=4)
    masks = block_masks(tables, 64)
    assert masks.sum(1).max() <= 1 + 1e-4, "two blocks overlap"
    assert (masks.amax((2, 3))[~tables.present] == 0).all()
    assert (masks.amax((2, 3))[tables.present] == 1).all()
    centre, side = block_centres(tables, 64, 64)
    grid = torch.arange(64) + 0.5
    x = (masks.sum(2) * grid).sum(-1) / masks.sum((2, 3))
    y = (masks.sum(3) * grid).sum(-1) / masks.sum((2, 3))
    found = torch.stack([x, y], -1)[tables.present]
    assert (found - centre[tables.present]).abs().max() < 0.1
    area = masks.sum((2, 3))[tables.present]
    assert ((area / side**2 > 0.93) & (area / side**2 < 1)).all()


def test_a_table_looks_the_same_alone_and_in_any_batch():
    tables = robot.draw_tables(world.generator("batch"), 130)
    alone = torch.cat([render_tables(tables[i], 32) for i in range(0, 130, 13)])
    assert torch.allclose(render_tables(tables, 32)[::13], alone, atol=1e-6)


def test_state_vectors_tell_the_state():
    tables = robot.draw_tables(world.generator("vectors"), 100, slots=4)
    vectors = robot.state_vectors(tables)
    real = tables.present
    assert torch.equal(vectors[..., 0] > 0.5, real)
    assert torch.equal((vectors[..., 1] * robot.PLACES).long()[real], tables.place[real])
    assert torch.equal((vectors[..., 2] * (robot.HIGHEST - 1)).round().long()[real], tables.level[real])
    assert torch.equal(vectors[..., 3:].argmax(-1)[real], tables.colour[real])
    assert (vectors[~real] == 0).all()
    assert vectors.min() >= 0
    assert vectors.max() <= 1


# ---------------------------------------------------------------------------------------------- words


def read_told(told: str) -> list[list[str]]:
    """Stacks of names, from sentences alone, in whatever order they come."""
    where = {}
    for sentence in told.removesuffix(".").split(". "):
        name, spot = re.fullmatch(r"(the \w+ block|object \d)(?: is an? \w+ block | is )(on .*)", sentence).groups()
        where[name] = spot
    found = [[] for _ in range(robot.PLACES)]
    for _ in range(robot.HIGHEST):  # each round finds the blocks that stand on found ones
        for name, spot in list(where.items()):
            place = re.fullmatch(r"on the table at place (\d)", spot)
            for column in [found[int(place[1]) - 1]] if place else [c for c in found if c and f"on {c[-1]}" == spot]:
                column.append(name)
                where.pop(name, None)
    return found if not where else [["some block stands nowhere"], [str(where)]]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_what_is_told_is_the_table(seed):
    tables = robot.draw_tables(world.generator("told", seed), 20)
    for i, told in enumerate(robot_words.tell(tables)):
        expected = [[f"the {colour} block" for colour in column] for column in stacks_of(tables, i)]
        assert read_told(told) == expected, f"{told!r} is not {expected}"
    twins = robot.draw_tables(world.generator("told twins", seed), 20, twins=True)
    for i, told in enumerate(robot_words.tell(twins, numbered=True)):
        colours = dict(re.findall(r"(object \d) is an? (\w+) block", told))
        assert [[colours[name] for name in column] for column in read_told(told)] == stacks_of(twins, i)
        assert [colours[f"object {b + 1}"] for b in range(len(colours))] == [
            COLOURS[c] for c in twins.colour[i][twins.present[i]]
        ], "object numbers are not the blocks' slots"


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_actions_plans_and_goals_survive_being_said(n):
    called = NAMES[:n]
    for columns in robot.arrangements(n)[::17]:
        for action, _ in moves(columns):
            assert robot_words.parse_action(robot_words.action_text(action, called), called) == action
    for form in planner.FORMS:
        for goal in planner.goals(n, form):
            assert robot_words.parse_goal(robot_words.goal_text(goal, called), called) == goal
            for columns in robot.arrangements(n)[:: 101 if n > 2 else 7]:
                plan = planner.plan(columns, goal)
                if plan:
                    text = robot_words.plan_text(plan, called)
                    assert robot_words.parse_plan(text, called) == robot_words.parse_plan(text + ".", called) == plan


def test_twelve_objects_have_no_two_meanings():
    called = [f"object {i}" for i in range(1, 13)]
    action = Placement(0, 11)
    assert robot_words.parse_action(robot_words.action_text(action, called), called) == action


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("put the purple block on the table", robot_words.parse_action),
        ("put the red block on the table at place 9", robot_words.parse_action),
        ("put the red block under the blue block", robot_words.parse_action),
        ("", robot_words.parse_action),
        ("put the red block on the table", robot_words.parse_plan),
        ("2. put the red block on the table", robot_words.parse_plan),
        ("1. put the red block on the table. 3. put the red block on the blue block", robot_words.parse_plan),
        ("1. fly", robot_words.parse_plan),
        ("the red block is happy", robot_words.parse_goal),
    ],
)
def test_texts_that_say_nothing_are_refused(text, read):
    with pytest.raises(ValueError, match="got"):
        read(text, NAMES)


def test_introduction_names_the_entity_tokens():
    tables = robot.compose_table(["red", "red"])
    assert robot_words.introduce(tables) == ["object 1 is <obj_1>. object 2 is <obj_2>."]
    with pytest.raises(ValueError, match="numbered=True"):
        robot_words.names(tables)


# ---------------------------------------------------------------------------------------------- moves and plans


def simulate(columns, action):
    """A second simulator, on lists; None where the action is impossible."""
    block, on, at = action
    stacks = [list(column) for column in columns]
    source = next((s for s in stacks if s and s[-1] == block), None)
    if source is None:
        return None
    if on is not None:
        target = next((s for s in stacks if s and s[-1] == on and s is not source and len(s) < 3), None)
    elif at is None:
        target = next((s for s in stacks if not s), None) if len(source) > 1 else None
    else:
        target = stacks[at] if not stacks[at] else None
    if target is None:
        return None
    target.append(source.pop())
    return tuple(tuple(stack) for stack in stacks)


def every_action(n):
    where = [(None, None), *((None, p) for p in range(robot.PLACES)), *((b, None) for b in range(n))]
    return [Placement(block, *spot) for block in range(n) for spot in where]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_simulator_agrees_with_another_and_conserves_blocks(n):
    for columns in robot.arrangements(n)[:: 5 if n == 4 else 1]:
        possible = dict(moves(columns))
        for action in every_action(n):
            after = simulate(columns, action)
            assert possible.get(action) == after, f"{action} on {columns}: {possible.get(action)}, not {after}"
            assert bool(fault(columns, action)) == (after is None)
            if after:
                assert sorted(sum(after, ())) == list(range(n)), f"{action} on {columns} loses or makes a block"


def test_each_move_can_be_undone_by_one_move():
    """`planner.distances` searches backwards and relies on it."""
    for columns in robot.arrangements(3):
        for action, after in moves(columns):
            assert columns in dict(moves(after)).values(), f"{action} on {columns} cannot be undone"


def brute(columns, goal_holds, most=3):
    """The length of the shortest plan by trying all action sequences, shorter ones first."""
    layer = {columns}
    for length in range(most + 1):
        if any(goal_holds(c) for c in layer):
            return length
        n = sum(map(len, columns))
        layer = {simulate(c, a) for c in layer for a in every_action(n)} - {None}
    return None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_plans_reach_their_goals_and_none_is_shorter(data):
    n = data.draw(st.integers(2, 4))
    columns = data.draw(st.sampled_from(robot.arrangements(n)))
    form = data.draw(st.sampled_from([f for f in planner.FORMS if n > 2 or f != "tower"]))
    goal = data.draw(st.sampled_from(planner.goals(n, form)))
    text = robot_words.goal_text(goal, NAMES[:n])

    def reached(columns):
        """Read from the goal's words."""
        said = {}
        for place, column in enumerate(columns):
            for low, up in zip((None, *column), column, strict=False):
                said[NAMES[up]] = (f"the table at place {place + 1}",) if low is None else (NAMES[low],)
                said[NAMES[up]] += ("the table",) if low is None else ()
        facts = [fact.split(" is on ") for fact in text.split(" and ")]
        if text == "all blocks are on the table":
            return all("the table" in spot for spot in said.values())
        return all(spot in said[name] for name, spot in facts)

    plan = planner.plan(columns, goal)
    after = columns
    for action in plan:
        after = simulate(after, action)
        assert after is not None, f"{plan} from {columns} does the impossible: {action}"
    assert reached(after), f"{plan} from {columns} does not reach {text!r}"
    assert planner.reaches(columns, goal, plan)
    shortest = brute(columns, reached)
    assert shortest == (len(plan) if len(plan) <= 3 else None), (
        f"{plan} from {columns} to {text!r}: {shortest} would do"
    )


def test_of_several_plans_the_rule_decides():
    columns = ((0, 1), (2, 3), (), ())
    assert planner.plan(columns, (Placement(0, 2),))[0] == Placement(1), "the block furthest to the left comes first"
    assert planner.plan(((0,), (), (), ()), (Placement(0, None, 1),)) == (Placement(0, None, 1),)
    said = planner.plan(((), (0, 1), (), ()), (Placement(1, None, 0),))
    assert said == (Placement(1, None, 0),), "what the goal names comes before an equal action without a place"


def test_a_goal_that_contradicts_itself_says_so():
    with pytest.raises(ValueError, match="contradicts"):
        planner.plan(((0,), (1,), (), ()), (Placement(0, 1), Placement(1, 0)))


def test_steps_change_the_tensors_as_the_simulator_says():
    tables = robot.draw_tables(world.generator("step"), 200)
    rng = world.generator("actions")
    actions = [options[rng.integers(len(options))][0] for options in map(moves, tables.columns())]
    after = step(tables, actions)
    for i, (columns, action) in enumerate(zip(tables.columns(), actions, strict=True)):
        assert after.columns()[i] == simulate(columns, action)
        assert after.gripper[i] == after.place[i, action.block]
    for same in ("colour", "present", "shift", "background"):
        assert torch.equal(getattr(tables, same), getattr(after, same))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Placement(0), "red block 0 cannot be moved: green block 1 stands on it"),
        (Placement(1, 0), "is on red block 0 already"),
        (Placement(1, 1), "on itself"),
        (Placement(2), "on the table already"),
        (Placement(2, 0), "red block 0 is not free"),
        (Placement(2, None, 0), "place 1 is not free"),
        (Placement(2, None, 4), "places 1 to 4; got place 5"),
        (Placement(7), "no such block"),
        (Placement(2, 1, 2), "both a block and a place"),
    ],
)
def test_impossible_actions_say_why(action, words):
    tables = robot.compose_table(["red", "green"], [], [], ["blue"])
    with pytest.raises(ValueError, match=words):
        step(tables, [action])
    assert not planner.reaches(tables.columns()[0], (Placement(0),), [action])


def test_stacks_have_a_limit_and_a_full_table_no_place():
    with pytest.raises(ValueError, match="higher than 3"):
        move(((0, 1, 2), (3,), (), ()), Placement(3, 2))
    with pytest.raises(ValueError, match="one action a table"):
        step(robot.compose_table(["red"]), [])


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (dict(n=0), "at least one table"),
        (dict(n=1, blocks=(3, 5)), "got"),
        (dict(n=1, blocks=(4, 3)), "got"),
        (dict(n=1, blocks=3), "a pair of whole numbers"),
        (dict(n=1, blocks=(1, 3)), "two blocks or more"),
        (dict(n=1, slots=3), "slots"),
        (dict(n=1, stacks=[(8, 0)]), r"\(8, 0\)"),
        (dict(n=1, stacks=[]), "no two blocks may be stacked"),
        (dict(n=1, stacks=[(1, 1)]), "no two blocks may be stacked"),
    ],
)
def test_impossible_requests_say_why(request_, words):
    with pytest.raises(ValueError, match=words):
        robot.draw_tables(world.generator("bad"), **request_)


@pytest.mark.parametrize("columns", [(), (["mauve"],), (["red"] * 4,), ([], [], [], [], ["red"])])
def test_composing_nonsense_says_why(columns):
    with pytest.raises(ValueError, match="got"):
        robot.compose_table(*columns)


@pytest.mark.parametrize("draw", [render_tables, block_masks])
def test_empty_pictures_say_why(draw):
    with pytest.raises(ValueError, match="at least 1 x 1"):
        draw(robot.compose_table(["red"]), 0)


def test_indexing():
    tables = robot.draw_tables(world.generator("index"), 5)
    for index in (0, -1, slice(2, 4), [1, 2], torch.tensor([3]), tables.counts() == 3):
        assert isinstance(tables[index], robot.Tables)
    assert [len(table) for table in tables] == [1] * 5
    with pytest.raises(IndexError, match="5 of 5"):
        tables[5]
