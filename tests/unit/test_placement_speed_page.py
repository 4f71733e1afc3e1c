"""docs/placement-speed.md says what its JSON says, and a round that is done is not run again."""

import json
from pathlib import Path

from bench.placement import Side, order
from bench.placement_report import text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "placement-speed.md"


def test_the_page_is_the_one_that_is_written_from_its_figures() -> None:
    assert PAGE.read_text() == text(json.loads(PAGE.with_suffix(".json").read_text()))


def test_no_side_is_always_the_first() -> None:
    rounds = list(order(tuple(Side), 2))
    assert [side for side, number in rounds if number == 0] == list(Side)
    assert [side for side, number in rounds if number == 1] == list(Side)[::-1]
