from __future__ import annotations

import time
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.training_policy import FeatureSet
from tailwise.prediction.features import EXTENDED_FEATURES, PAPER_FEATURES, features
from tailwise.prediction.prediction import NodeLoad, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import UTILISATION_GRID
from tailwise.prediction.tables import PredictionTable, TableSet
from tests.unit.prediction.builders import node, profile, profile_of

PRIOR = PriorPredictor()
SERVINGS = [
    Serving(None),
    Serving(500),
    Serving(1000, threads=2, concurrency=2),
    Serving(700, requests_per_second=20.0),
]


@pytest.mark.parametrize("serving", SERVINGS)
@pytest.mark.parametrize("hardware", [node(2), node(4, ((10_000, 10_000),))])
def test_a_table_says_what_asking_directly_says(serving: Serving, hardware: object) -> None:
    model, machine = profile_of(12.0), node(2) if hardware is None else hardware
    table = PRIOR.table(model, serving, machine)  # type: ignore[arg-type]
    for utilisation in (*UTILISATION_GRID[::4], None):
        load = NodeLoad(cpu=None if utilisation is None else float(utilisation))
        direct = PRIOR.predict(Question(model, serving, machine, load))  # type: ignore[arg-type]
        assert table.at(utilisation) == pytest.approx(
            (direct.p50_milliseconds, direct.p90_milliseconds, direct.bound_milliseconds)
        )


def test_a_lookup_interpolates_and_keeps_unknown_load_apart() -> None:
    tables = [PRIOR.table(profile_of(cpu), Serving(None), node(1)) for cpu in (5.0, 50.0)]
    stacked = TableSet.stack(tables)
    p90, bound = stacked.lookup(np.array([0, 1, 1, 0]), np.array([0.0, 0.525, np.nan, 1000.0]))
    assert p90[0] == tables[0].p90[0]
    assert p90[1] == pytest.approx((tables[1].p90[10] + tables[1].p90[11]) / 2)
    _, unknown_p90, unknown_bound = tables[1].at(None)
    assert p90[2] == pytest.approx(unknown_p90)
    assert bound[2] == pytest.approx(unknown_bound)
    assert bound[2] > 1.2 * tables[1].at(tables[1].unknown.utilisation)[2]
    assert p90[3] == tables[0].p90[-1]


@cache
def kept(serving: Serving, quotas: tuple[tuple[int, int], ...]) -> PredictionTable:
    return PRIOR.table(profile_of(12.0), serving, node(4, quotas))


@given(
    serving=st.sampled_from(SERVINGS),
    quotas=st.sampled_from([(), ((10_000, 10_000),)]),
    utilisation=st.one_of(st.just(np.nan), st.floats(0.0, 2.0)),
    loads=st.lists(st.floats(0.0, 80.0), min_size=2, max_size=6),
)
def test_more_assumed_load_is_never_predicted_faster_on_known_and_unknown_utilisation(
    serving: Serving, quotas: tuple[tuple[int, int], ...], utilisation: float, loads: list[float]
) -> None:
    table = kept(serving, quotas)
    assumed = np.sort(np.array(loads))
    count = len(loads)
    p90, bound = TableSet.stack([table]).lookup(
        np.zeros(count, dtype=np.intp), np.full(count, utilisation), assumed
    )
    # To a rounding error of the interpolation.
    assert np.all(np.diff(p90) >= -1e-9 * p90[1:])
    assert np.all(np.diff(bound) >= -1e-9 * bound[1:])
    each = [table.at(utilisation, load) for load in assumed]
    assert p90 == pytest.approx([p90 for _, p90, _ in each])
    assert bound == pytest.approx([bound for _, _, bound in each])


def test_a_decision_over_5000_nodes_costs_less_than_a_single_prediction_each_would() -> None:
    tables = [PRIOR.table(profile_of(cpu), Serving(500), node(2)) for cpu in (5.0, 20.0, 50.0)]
    stacked = TableSet.stack(tables)
    rng = np.random.default_rng(0)
    classes, utilisation = rng.integers(0, 3, 5000), rng.random(5000)
    start = time.process_time()
    for _ in range(20):
        best = int(stacked.lookup(classes, utilisation)[0].argmin())
    gathered = (time.process_time() - start) / 20
    start = time.process_time()
    PRIOR.predict(Question(profile_of(5.0), Serving(500), node(2), NodeLoad(0.5)))
    # Relative, so that a slow machine does not fail it: 5,000 gathers cost less than ten predictions.
    assert gathered < 10 * (time.process_time() - start)
    assert classes[best] == 0


def test_the_papers_features_are_equations_5_to_8() -> None:
    question = Question(
        profile(dense_flops=8_000_000_000),
        Serving(None),
        node(8, maximum_megahertz=2300),
        NodeLoad(0.25, 0.5),
    )
    row = features([question], FeatureSet.PAPER)
    assert row.shape == (1, len(PAPER_FEATURES))
    assert row[0].tolist() == [6.0, 1150.0, 4 / 2**20, 8e9]


def test_what_cannot_be_known_is_not_a_number_in_the_features() -> None:
    row = features([Question(profile(), Serving(None), node(), NodeLoad(None))], FeatureSet.EXTENDED)[0]
    named = dict(zip(EXTENDED_FEATURES, row, strict=True))
    assert np.isnan(named["effective_cores"])
    assert np.isnan(named["effective_megahertz"])
    assert np.isnan(named["cpu_utilisation"])
    assert np.isfinite(named["prior_p90_milliseconds"])
