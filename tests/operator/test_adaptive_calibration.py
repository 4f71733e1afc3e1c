"""The bound follows what is observed: real decisions on a cluster in memory, and what is then seen."""

from __future__ import annotations

import pytest

from tests.operator.live_stage import WINDOW_SECONDS, LiveStage, live_stage

WINDOWS = 40


async def _bound_of_the_next(stage: LiveStage, name: str) -> float:
    _, _, assessment = await stage.decide(name)
    assert assessment.decision.best is not None
    return assessment.decision.best.bound_milliseconds


async def test_bounds_widen_when_latencies_shift_and_drift_is_still_seen() -> None:
    async with live_stage() as stage:
        await stage.place("iris-1")
        before = await _bound_of_the_next(stage, "iris-2")
        entry = stage.accuracy.decisions.get("uid-iris-1")
        assert entry is not None
        assert entry.bound_milliseconds is not None
        stage.observe(1, iris_1=1.0)
        for _ in range(WINDOWS):
            stage.observe(WINDOW_SECONDS, iris_1=2.0 * entry.bound_milliseconds)
        factor = stage.assessor.tables.widened("default")
        assert 1.5 < factor < 2.5
        assert stage.metric("tailwise_live_bound_factor", latency_model="default") == factor
        assert await _bound_of_the_next(stage, "iris-3") == pytest.approx(factor * before, rel=0.05)
        # The version itself is judged by its own bound: that it is helped hides nothing.
        window = stage.accuracy.facts("default", 0, newest=WINDOWS - 1).window
        assert window.exceedances == window.samples


async def test_bounds_that_hold_stay_as_the_version_gave_them() -> None:
    async with live_stage() as stage:
        await stage.place("iris-1")
        entry = stage.accuracy.decisions.get("uid-iris-1")
        assert entry is not None
        assert entry.bound_milliseconds is not None
        for _ in range(WINDOWS):
            stage.observe(WINDOW_SECONDS, iris_1=0.8 * entry.bound_milliseconds)
        assert stage.assessor.tables.widened("default") == 1.0
