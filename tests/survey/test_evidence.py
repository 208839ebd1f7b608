"""What rows say over seeds, against examples worked by hand."""

import pytest

from minivlm.survey import evidence as module
from minivlm.survey.evidence import evidence, interval, read_rows, short, spread


def row(seed=0, **numbers):
    about = {"notebook": "01_a", "claim": "it helps", "preset": "cpu", "arms": "all", "device": "cpu"}
    return about | {"seed": seed, "seconds": 9.0} | numbers


def rows(pairs, **more):
    return [row(seed=seed, learned=one, fixed=other, **more) for seed, (one, other) in enumerate(pairs)]


def test_interval_of_three_seeds_is_their_range():
    """Of 27 resamples one has the smallest mean: a share of 3.7%, more than the 2.5% that are cut off."""
    assert interval([0.1, 0.6, 0.2]) == pytest.approx((0.1, 0.6))


def test_interval_worked_by_hand():
    """0, 4, 4, 4: a mean of 0 has 1 of 256 chances (0.4%), of 1 another 12 (4.7%): the lower end is 1. Of 4, 81: the upper."""
    assert interval([0, 4, 4, 4]) == (1, 4)
    assert interval([-4, -4, 0, -4]) == (-4, -1)


def test_interval_is_the_same_each_time_and_whatever_the_order():
    values = [0.31, 0.4, 0.12, 0.55, 0.37, 0.711, 0.2003, 0.0907]
    assert interval(values) == interval(values) == interval(values[::-1]) == interval(values[3:] + values[:3])
    low, high = interval(values)
    assert min(values) < low < sum(values) / 8 < high < max(values)


def test_interval_refuses_few_seeds():
    with pytest.raises(ValueError, match="needs 3 of them or more, and got 2"):
        interval([0.1, 0.2])


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(0.9, 0.5), (0.8, 0.5), (0.9, 0.6)], "reproduced"),
        ([(0.9, 0.5), (0.8, 0.5), (0.5, 0.6)], "not reproduced"),
        ([(0.9, 0.5), (0.8, 0.5), (0.6, 0.6)], "not reproduced"),  # the interval ends at zero
        ([(0.1, 0.5), (0.2, 0.5), (0.5, 0.6)], "not reproduced, but the reverse"),
        ([(0.9, 0.5), (0.8, 0.5)], "too few seeds, 3 needed"),
        ([(0.9, float("nan")), (0.8, 0.5), (0.9, 0.6)], "not reproduced"),
    ],
)
def test_verdict(pairs, verdict):
    (found,) = evidence(rows(pairs))
    assert found.verdict == verdict
    assert str(found).endswith(f": {verdict}")


def test_seeds_are_compared_in_pairs():
    """Two arms that vary a lot from seed to seed, together: the difference does not vary."""
    (found,) = evidence(rows([(0.9, 0.8), (0.5, 0.4), (0.2, 0.1)]))
    assert found.interval == pytest.approx((0.1, 0.1))
    assert str(found) == "3 seeds: learned 0.53, fixed 0.43, difference 0.10 [0.10, 0.10]: reproduced"


def test_levels_are_no_arms():
    (found,) = evidence([row(chance=0.1, learned=0.9, blind=0.2, fixed=0.5)])
    assert found.main == ["learned", "fixed"]
    (alone,) = evidence([row(learned=0.9, chance=0.1)])
    assert str(alone) == "1 seed: learned 0.90: nothing to compare with"


def test_crashes_and_failed_expectations_are_counted():
    good = rows([(0.9, 0.5), (0.8, 0.5), (0.7, 0.5)])
    good[2]["failed"] = "learned is 0.7, expected at least 0.75"
    (found,) = evidence([*good, row(seed=3, error="out of memory")])
    assert str(found).startswith("3 of 4 seeds, 1 failed an expectation: learned 0.80, fixed 0.50, difference 0.30 [")
    (lost,) = evidence([row(error="out of memory")])
    assert str(lost) == "0 of 1 seeds: no numbers"


def test_the_last_row_of_a_seed_with_numbers_counts():
    (found,) = evidence([row(learned=0.1), row(learned=0.8), row(error="no")])
    assert found.measured == {"learned": [0.8]}
    assert not found.without


def test_presets_and_kinds_of_device_are_kept_apart():
    found = evidence([row(x=1), row(x=2, preset="gpu", device="A100"), row(x=3, seed=1, preset="gpu", device="T4")])
    assert [(one.preset, one.device, one.measured["x"]) for one in found] == [("cpu", "cpu", [1]), ("gpu", "gpu", [2, 3])]


def test_only_numbers_that_each_seed_has():
    (found,) = evidence([row(a=1, b=2, c=True), row(seed=1, a=1, d=2)])
    assert found.measured == {"a": [1, 1]}


def test_every_column_that_the_runner_adds_is_no_number():
    (found,) = evidence([row(a=1, code="0", torch="2", world=1, backbones={}, error="")])
    assert list(found.measured) == ["a"]


def test_short():
    assert [short(value) for value in (0, 0.94, -0.096, 0.0156, 0.0004, 12.345)] == [
        "0.00",
        "0.94",
        "-0.10",
        "0.02",
        "0.0004",
        "12.35",
    ]
    assert short(float("nan")) == "nan"
    assert spread("bag_of_words", [0.5, 0.7]) == "bag of words 0.60 (0.50 to 0.70)"
    assert spread("a", [0.5, 0.5]) == "a 0.50"


def test_a_damaged_file_says_which_line(tmp_path):
    file = tmp_path / "a.jsonl"
    assert read_rows(file) == []
    file.write_text('{"seed": 0}\n\n{"seed": 1', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 3 is not a row of results \('\{\"seed\": 1'\); mend or remove"):
        read_rows(file)
    file.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1"):
        read_rows(file)


def test_few_seeds_are_said_to_be_few():
    assert str(module.NEEDED) in module.TOO_FEW
