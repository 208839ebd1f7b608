import numpy as np
import pytest
import torch

from minivlm.course.exercises import check, difference

X = torch.arange(6.0).reshape(2, 3)
CASE = ((X, 2.0), X / 2)
MISTAKES = {"you multiplied instead of dividing": lambda x, t: x * t, "you forgot the temperature": lambda x, t: x}


def wrong(attempt, *cases, **options):
    with pytest.raises(AssertionError) as caught:
        check("Exercise 1", attempt, *(cases or [CASE]), **options)
    return str(caught.value)


def test_stub(capsys):
    def stub(x, t):
        raise NotImplementedError

    assert check("Exercise 1", stub, CASE, mistakes=MISTAKES) is False
    assert capsys.readouterr().out == "Exercise 1: to do\n"


def test_right(capsys):
    assert check("Exercise 1", lambda x, t: x / t, CASE, mistakes=MISTAKES) is True
    assert capsys.readouterr().out == "Exercise 1: correct\n"


def test_known_mistakes_are_named():
    assert wrong(lambda x, t: t * x, mistakes=MISTAKES) == "Exercise 1: you multiplied instead of dividing"
    assert wrong(lambda x, t: x + 0, mistakes=MISTAKES) == "Exercise 1: you forgot the temperature"
    assert "largest difference is 1" in wrong(lambda x, t: x / t + 1, mistakes=MISTAKES)


def test_a_mistake_must_fit_every_case_on_which_it_is_wrong():
    cases = [CASE, ((X, 1.0), X), ((X, 4.0), X / 4)]
    assert "you multiplied" in wrong(lambda x, t: x * t, *cases, mistakes=MISTAKES)
    text = wrong(lambda x, t: x * t if t < 3 else x, *cases, mistakes=MISTAKES)
    assert "you multiplied" not in text
    assert "(case 1 of 3)" in text


def test_a_mistake_that_no_case_shows_is_the_authors():
    with pytest.raises(ValueError, match="gives the right answer on every case"):
        check("Exercise 1", lambda x: x, ((0.0,), 0.0), mistakes={"doubled": lambda x: 2 * x})
    with pytest.raises(ValueError, match="at least one case"):
        check("Exercise 1", lambda x: x)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x, t: None, "returns None; is there a return?"),
        (lambda x, t: x[:1], r"expected the shape (2, 3), got (1, 3)"),
        (lambda x, t: (x / t).double(), "expected the dtype torch.float32, got torch.float64"),
        (lambda x, t: [1], "expected a tensor, got list"),
        (lambda x, t: x / 0, "NaN"),
        (lambda x, t: x @ x, "your code raises RuntimeError"),
        (lambda x: x, "your code raises TypeError"),
    ],
)
def test_other_mistakes_are_described(attempt, words):
    assert words in wrong(attempt)


def test_hints_and_test_functions():
    def is_positive(attempt):
        assert attempt(1) > 0, "a loss is positive"

    text = wrong(lambda x: -x, is_positive, hints="look at equation 3")
    assert text.startswith("Exercise 1: a loss is positive")
    assert text.endswith("\n  Hint: look at equation 3")
    assert check("Exercise 1", lambda x: x, is_positive)


def test_arguments_are_copied():
    x = torch.zeros(2)
    assert check("Exercise 1", lambda x: x.add_(1), ((x,), torch.ones(2)), ((x,), torch.ones(2)))
    assert x.sum() == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.tensor([1, 2]), torch.tensor([1, 2])),
        (torch.tensor([True]), torch.tensor([True])),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
        (torch.ones(2, requires_grad=True), torch.ones(2)),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (np.ones(2), np.ones(2)),
        (torch.tensor(3.0), 3),
        (1.0000001, 1.0),
        ("a cat", "a cat"),
        (None, None),
        ((1, torch.ones(2)), (1, torch.ones(2))),
        ({"a": 1}, {"a": 1}),
        (True, True),
    ],
)
def test_same(value, expected):
    assert difference(value, expected, rtol=1e-4, atol=1e-5) == ""


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        (torch.tensor([1, 3]), torch.tensor([1, 2]), "1 of 2 values"),
        (torch.tensor([True]), torch.tensor([False]), "1 of 1 values"),
        (torch.ones(2), 3, "expected one number, got the shape (2,)"),
        ("3", 3, "expected a number, got '3'"),
        (2, 3, "expected 3, got 2"),
        ("dog", "cat", "expected 'cat', got 'dog'"),
        (1, "cat", "expected 'cat', got 1"),
        ((1, 2), (1, 3), "value 2: expected 3, got 2"),
        ((1,), (1, 3), "expected 2 values"),
        ({"a": 1}, {"b": 1}, "keys ['b']"),
        (torch.ones(2), np.ones(2), "expected a numpy array, got Tensor"),
        (torch.tensor([1.0, float("inf")]), torch.ones(2), "largest difference is inf at (1,)"),
    ],
)
def test_different(value, expected, words):
    assert words in difference(value, expected, rtol=1e-4, atol=1e-5)
