"""The older a node's utilisation, the wider the bound, until the prediction does without it."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tailwise.controllers.assessment import Assessor
from tailwise.controllers.serving import serving_of
from tailwise.domain.capacity import known_load
from tailwise.domain.scoring import Candidate
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation
from tests.operator.stage import NodeShape, memory_pod, memory_view
from tests.operator.test_unknown_load import MODEL, SPEC

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLDEST = SPEC.placement.max_data_age_seconds


async def predicted_at(age_seconds: float | None, load: float = 0.2) -> Candidate:
    """What is predicted for a pod on one node whose utilisation is so old; None: nobody measures."""
    async with memory_view([NodeShape("n")]) as view:
        assessor = Assessor(view, PriorPredictor())
        if age_seconds is not None:
            reading = Reading(load, NOW - timedelta(seconds=age_seconds))
            assessor.sampled(Utilisation(CpuUnit.FRACTION, 60.0, {"n": NodeUtilisation(cpu=reading)}))
        pod = memory_pod("p", "w")
        await assessor.prepare(MODEL, serving_of(pod, SPEC))
        best = assessor.assess(pod, SPEC, MODEL, NOW).decision.best
    assert best is not None
    return best


async def test_the_bound_widens_with_age_and_the_prediction_stays() -> None:
    fresh, old, older = [await predicted_at(OLDEST * times) for times in (0.5, 1.25, 1.75)]
    assert fresh.bound_milliseconds < old.bound_milliseconds < older.bound_milliseconds
    assert fresh.p90_milliseconds == old.p90_milliseconds == older.p90_milliseconds
    assert {each.source.value for each in (fresh, old, older)} == {"Prior"}
    assert old.age_seconds == pytest.approx(1.25 * OLDEST)


async def test_past_twice_the_age_it_counts_as_unknown_and_never_as_idle() -> None:
    gone, never = await predicted_at(2 * OLDEST + 1, load=0.0), await predicted_at(None)
    assert gone.source.value == never.source.value == "Stale"
    assert (gone.p90_milliseconds, gone.bound_milliseconds) == (
        never.p90_milliseconds,
        never.bound_milliseconds,
    )
    idle = await predicted_at(0.0, load=0.0)
    assert gone.bound_milliseconds > idle.bound_milliseconds


def test_doubt_grows_from_the_age_to_twice_the_age() -> None:
    load, doubt = known_load(
        np.array([0.1, 0.2, 0.3, 0.4, np.nan]), np.array([10.0, 120.0, 180.0, 241.0, np.nan]), 120.0
    )
    np.testing.assert_array_equal(load, [0.1, 0.2, 0.3, np.nan, np.nan])
    np.testing.assert_array_equal(doubt, [0.0, 0.0, 0.5, 0.0, 0.0])
