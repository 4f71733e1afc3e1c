"""Which windows become rows, case by case; the same against a real Prometheus stands in tests/telemetry."""

from __future__ import annotations

import math

import pytest

from tailwise.telemetry.history import _Part, _unusable
from tailwise.training.rows import DropReason


@pytest.mark.parametrize(
    ("values", "full", "reason"),
    [
        ({_Part.P90: 0.09, _Part.HIGHEST: 0.2, _Part.RATE: 10, _Part.SAMPLES: 20}, 20, None),
        ({_Part.P90: 0.09, _Part.SAMPLES: 14}, 20, None),
        ({_Part.P90: 0.09, _Part.SAMPLES: 13}, 20, DropReason.GAP),
        ({_Part.P90: 0.09}, 20, DropReason.GAP),
        ({_Part.P90: 0.09}, None, None),  # a query of one's own tells no counter
        ({_Part.P90: 0.09, _Part.SAMPLES: 20, _Part.RESETS: 1}, 20, DropReason.RESET),
        ({_Part.P90: 0.2, _Part.HIGHEST: 0.2, _Part.SAMPLES: 20}, 20, DropReason.ABOVE_BUCKETS),
        ({_Part.P90: math.nan, _Part.RATE: 0, _Part.SAMPLES: 20}, 20, DropReason.TOO_FEW_QUERIES),
    ],
)
def test_a_window_is_used_when_it_was_scraped_whole_and_its_counter_never_fell(
    values: dict[_Part, float], full: float | None, reason: DropReason | None
) -> None:
    assert _unusable(values, full) is reason
