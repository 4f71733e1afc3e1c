"""Bounds of other percentiles than the P90: the P90 stays what it is, the bound is that of the one asked."""

from dataclasses import replace

import pytest

from tailwise.prediction.prediction import NodeLoad, Prediction, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import UTILISATION_GRID
from tests.unit.prediction.builders import node, profile_of

PREDICTOR = PriorPredictor()
PERCENTILES = (50, 90, 95, 99)
WAYS = [
    Serving(None),
    Serving(300, threads=1),
    Serving(1000, threads=2, concurrency=4),
    Serving(1000, requests_per_second=40.0),
]


def predicted(serving: Serving, percentile: int, load: float | None = 0.3) -> Prediction:
    asked = replace(serving, bound_percentile=percentile)
    return PREDICTOR.predict(Question(profile_of(15.0), asked, node(4), NodeLoad(load)))


@pytest.mark.parametrize("serving", WAYS)
@pytest.mark.parametrize("load", [0.0, 0.6, None])
def test_a_higher_percentile_has_a_higher_bound_and_one_p90(serving: Serving, load: float | None) -> None:
    found = [predicted(serving, percentile, load) for percentile in PERCENTILES]
    bounds = [each.bound_milliseconds for each in found]
    assert bounds == sorted(bounds)
    assert len({each.p90_milliseconds for each in found}) == 1
    assert bounds[-1] > found[-1].p90_milliseconds


def test_queues_make_tails_far_longer_than_the_p90() -> None:
    p90, p99 = (predicted(WAYS[-1], each).bound_milliseconds for each in (90, 99))
    assert p99 > 1.3 * p90


@pytest.mark.parametrize("percentile", PERCENTILES)
def test_a_table_says_what_a_prediction_says(percentile: int) -> None:
    serving = replace(WAYS[1], bound_percentile=percentile)
    table = PREDICTOR.table(profile_of(15.0), serving, node(4))
    for load in (float(UTILISATION_GRID[4]), float(UTILISATION_GRID[12])):
        asked = predicted(serving, percentile, load)
        assert table.at(load)[2] == pytest.approx(asked.bound_milliseconds)
