"""The rows that are stored: of the backbones that ship, or the README would say of one model what another one did."""

import json

import pytest

from minivlm.course.lesson import ROOT

FILES = sorted((ROOT / "results").glob("*.jsonl"))
CARDS = {card.parent.name: json.loads(card.read_text()) for card in (ROOT / "data" / "backbones").glob("*/card.json")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_rows_were_made_with_backbones_that_are_here(file):
    for number, line in enumerate(file.read_text().splitlines(), 1):
        for name, start in json.loads(line).get("backbones", {}).items():
            here = CARDS.get(name, {}).get("weights_sha256")
            assert str(here).startswith(start), (
                f"{file.name}, line {number}: made with {name} ({start}...), and there is"
                f" {'another one of that name' if here else 'none of that name'} now. Remove the row and measure again:"
                f" python -m minivlm claims {file.stem}"
            )
