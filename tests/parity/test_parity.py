"""Every built model computes what its reference computes."""

import pytest
import transformers

from minivlm import survey
from minivlm.survey.models import ROOT
from tests.parity.harness import Mismatch, cases, check, compare
from tests.parity.references import PARTS, REFERENCES, Reference

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
    check(case, tmp_path / "checkpoint")


def test_every_model_has_a_reference_or_a_reason():
    assert list(REFERENCES) == [model.name for model in survey.MODELS]
    assert not PARTS.keys() & REFERENCES.keys()
    for name, reference in (REFERENCES | PARTS).items():
        if isinstance(reference, Reference):
            assert hasattr(transformers, reference.name), f"{name}: transformers has no {reference.name}"
        else:
            assert len(reference) > 20, f"{name}: say why there is no reference"


def test_every_built_model_is_compared():
    """A model counts as built here as soon as its module is there, before its notebook is."""
    modules = {_model(path.stem) for path in (ROOT / "minivlm" / "models").glob("*.py")} - {"__init__"}
    assert modules
    assert modules <= set(REFERENCES)
    assert set(survey.built()) <= modules
    compared = {case.model for case in CASES}
    assert compared >= PARTS.keys(), f"not compared: {sorted(PARTS.keys() - compared)}"
    compared -= PARTS.keys()
    wanted = {name for name in modules if isinstance(REFERENCES[name], Reference)}
    assert compared == wanted, f"not compared with their references: {sorted(wanted - compared)}"


def _model(module: str) -> str:
    """The model that a module belongs to: `blip2_stage1` to `blip2`, as long as no model has the longer name."""
    while module not in REFERENCES and "_" in module.strip("_"):
        module = module.rpartition("_")[0]
    return module


def test_the_comparison_sees_a_difference_and_a_nan(tmp_path):
    import torch

    one = {"a": torch.ones(2, 3), "b": torch.ones(1)}
    assert compare(one, one) == {}
    assert compare(one, {**one, "a": one["a"] + 2e-5}).keys() == {"a"}
    assert compare(one, {**one, "b": one["b"] * torch.nan}).keys() == {"b"}
    with pytest.raises(AssertionError, match="outputs differ"):
        compare(one, {"a": one["a"]})
    with pytest.raises(AssertionError, match="shape"):
        compare(one, {**one, "a": torch.ones(3, 2)})
    with pytest.raises(AssertionError, match="not finite"):
        compare({"a": one["a"] * torch.nan}, {"a": one["a"]})
    with pytest.raises(AssertionError, match="nothing"):
        compare({}, {})
    assert Mismatch(CASES[0], {"a": 1.0}).names == {"a"}


def test_every_parameter_of_a_reference_is_random():
    """No two equal values inside a parameter, and none that the reference's own start has: zeros and ones."""
    for case in CASES:
        for name, parameter in case.build().named_parameters():
            assert parameter.unique().numel() > 0.99 * parameter.numel(), name
            assert not ((parameter == 0) | (parameter == 1)).any(), name
