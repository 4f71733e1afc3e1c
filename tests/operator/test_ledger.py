"""The ledger of decisions and live accuracy: real decisions on a cluster in memory, and what is then seen."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.controllers.ledger import DecisionLedger, Happened
from tailwise.domain.drift import LiveWindow
from tailwise.domain.ledger import Entry, Outcome
from tailwise.prediction.predictor import PriorPredictor
from tests.operator.live_stage import WINDOW_SECONDS, LiveStage, live_stage

UID = "uid-iris-1"


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[LiveStage]:
    async with live_stage() as made:
        yield made


def entry(stage: LiveStage, uid: str = UID) -> Entry:
    found = stage.accuracy.decisions.get(uid)
    assert found is not None
    return found


async def test_a_placement_is_kept_with_what_was_promised_and_the_best_other_nodes(stage: LiveStage) -> None:
    await stage.place("iris-1")
    known = entry(stage)
    assert (known.node, known.workload, known.latency_model, known.version) == ("fast", "iris", "default", 0)
    assert known.source is PredictionSource.PRIOR
    assert known.bound_milliseconds is not None
    assert known.predicted_p90_milliseconds is not None
    assert known.bound_milliseconds >= known.predicted_p90_milliseconds > 0
    assert [each.node for each in known.alternatives] == ["middle", "slow"]
    assert known.alternatives[0].p90_milliseconds > known.predicted_p90_milliseconds
    assert known.outcome is None
    assert not known.is_restored


async def test_its_outcome_is_the_first_whole_window_after_it_was_ready(stage: LiveStage) -> None:
    await stage.place("iris-1")
    promised = entry(stage).predicted_p90_milliseconds
    assert promised is not None
    stage.observe(WINDOW_SECONDS - 1, iris_1=1.0)  # begins before the pod was ready
    assert entry(stage).outcome is None
    stage.observe(1, iris_1=2 * promised)
    stage.observe(WINDOW_SECONDS, iris_1=1.0)
    known = entry(stage)
    assert known.outcome is not None
    assert known.outcome.p90_milliseconds == 2 * promised
    assert known.error == pytest.approx(1.0)
    assert known.exceeded
    assert (
        stage.metric("tailwise_placement_outcomes_total", latency_model="default", result="AboveBound") == 1
    )


async def test_windows_that_do_not_overlap_are_samples_of_the_serving_version(stage: LiveStage) -> None:
    await stage.place("iris-1")
    bound = entry(stage).bound_milliseconds
    assert bound is not None
    stage.observe(30, iris_1=1.0)
    for p90 in (bound / 2, 10 * bound, bound / 2):
        stage.observe(WINDOW_SECONDS / 2, iris_1=bound)  # overlaps
        stage.observe(WINDOW_SECONDS / 2, iris_1=p90)
    facts = stage.accuracy.facts("default", 0)
    assert facts.window.samples == 3
    assert facts.since is not None
    assert facts.newest_at is not None
    assert facts.newest_at - facts.since >= timedelta(seconds=3 * WINDOW_SECONDS)
    assert stage.accuracy.facts("default", 0, newest=1).window.samples == 1
    assert stage.accuracy.facts("default", 7).window == LiveWindow(0, 0)
    assert stage.accuracy.facts("other", 0).window == LiveWindow(0, 0)
    assert stage.accuracy.status("default", 7) is None
    status = stage.accuracy.status("default", 0)
    assert status is not None
    assert status.samples == 3


async def test_figures_of_a_version_count_exceedances_and_errors(stage: LiveStage) -> None:
    await stage.place("iris-1")
    bound, p90 = entry(stage).bound_milliseconds, entry(stage).predicted_p90_milliseconds
    assert bound is not None
    assert p90 is not None
    for seen in (p90, 3 * bound, p90, p90):
        stage.observe(WINDOW_SECONDS + 1, iris_1=seen)
    window = stage.accuracy.facts("default", 0).window
    assert (window.samples, window.exceedances) == (4, 1)
    assert window.mape is not None
    assert window.mape == pytest.approx((1 - p90 / (3 * bound)) / 4, abs=0.05)
    status = stage.accuracy.status("default", 0)
    assert status is not None
    assert (status.coverage_percent, status.exceedances) == ("75.0", 1)
    assert stage.metric("tailwise_live_coverage_ratio", latency_model="default") == 0.75
    labels = {"latency_model": "default", "source": "Prior"}
    assert stage.metric("tailwise_live_samples_total", result="AboveBound", **labels) == 1
    assert stage.metric("tailwise_live_samples_total", result="WithinBound", **labels) == 3


async def test_regret_is_what_the_best_other_node_would_have_saved_under_the_load_of_now(
    stage: LiveStage,
) -> None:
    await stage.place("iris-1", node="slow")  # of several feasible nodes kube-scheduler took another
    assert entry(stage).node == "slow"
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    regret = stage.accuracy.facts("default", 0).regret
    assert regret is not None
    # By the prior a core of an eighth of the speed takes at least some times as long.
    assert 0.5 < regret < 1


async def test_a_pod_on_the_best_node_has_no_regret(stage: LiveStage) -> None:
    await stage.place("iris-1")
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    assert stage.accuracy.facts("default", 0).regret == 0


async def test_a_version_is_not_judged_by_a_load_that_nobody_knows(stage: LiveStage) -> None:
    await stage.place("iris-1")
    stage.observe(3600, sampled=False, iris_1=50.0)
    assert stage.accuracy.facts("default", 0).window.samples == 0
    assert entry(stage).outcome is not None
    labels = {"latency_model": "default", "source": "Stale"}
    assert stage.metric("tailwise_live_samples_total", result="AboveBound", **labels) or stage.metric(
        "tailwise_live_samples_total", result="WithinBound", **labels
    )


class _Second(PriorPredictor):
    """The prior under another number: what is asked is which version a sample is of."""

    @property
    def version(self) -> int:
        return 2


async def test_a_version_that_is_exchanged_begins_without_samples(stage: LiveStage) -> None:
    await stage.place("iris-1")
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    await stage.assessor.tables.exchange("default", _Second())
    assert stage.accuracy.facts("default", 2).window.samples == 0
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    assert stage.accuracy.facts("default", 0).window.samples == 1
    assert stage.accuracy.facts("default", 2).window.samples == 1


async def test_a_restarted_operator_reads_running_pods_back_from_their_annotations(stage: LiveStage) -> None:
    await stage.place("iris-1", told=False)
    known = entry(stage)
    assert known.is_restored
    assert known.node == "fast"
    assert known.alternatives == ()
    assert known.source is PredictionSource.PRIOR
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    assert entry(stage).outcome is not None


async def test_a_promise_for_another_node_than_the_pod_is_on_is_not_taken_for_its_own(
    stage: LiveStage,
) -> None:
    *_, assessment = await stage.decide("iris-0")
    slow = float(assessment.predicted.p90_milliseconds[assessment.table.index["slow"]])
    await stage.place("iris-1", node="slow")
    assert entry(stage).predicted_p90_milliseconds == pytest.approx(slow)
    await stage.place("iris-3", node="slow", told=False)
    known = entry(stage, "uid-iris-3")
    assert known.is_restored
    assert known.node == "slow"
    assert known.predicted_p90_milliseconds is None
    stage.observe(WINDOW_SECONDS, iris_3=50.0)
    assert entry(stage, "uid-iris-3").error is None


async def test_a_pod_that_goes_stays_in_the_ledger_with_its_end(stage: LiveStage) -> None:
    manifest = await stage.place("iris-1")
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    stage.remove(manifest)
    known = entry(stage)
    assert known.ended_at is not None
    assert known.outcome is not None
    stage.observe(WINDOW_SECONDS, iris_1=50.0)
    assert stage.accuracy.facts("default", 0).window.samples == 1


async def test_a_window_of_few_requests_tells_nothing(stage: LiveStage) -> None:
    await stage.place("iris-1")
    stage.observe(WINDOW_SECONDS, requests=9, iris_1=50.0)
    assert entry(stage).outcome is None
    assert stage.accuracy.facts("default", 0).window.samples == 0


async def test_a_percentile_that_is_none_of_the_p90_judges_no_version() -> None:
    async with live_stage(slo={"latencyMilliseconds": 60_000, "percentile": 99}) as stage:
        await stage.place("iris-1")
        stage.observe(WINDOW_SECONDS, iris_1=50.0)
        assert stage.accuracy.facts("default", 0).window.samples == 0
        assert entry(stage).outcome is None


async def test_what_happens_is_told_once_each(stage: LiveStage) -> None:
    told: list[Happened] = []
    stage.accuracy.sink = lambda what, _: told.append(what)
    manifest = await stage.place("iris-1")
    for _ in range(3):
        stage.observe(WINDOW_SECONDS, iris_1=50.0)
    stage.remove(manifest)
    assert told == [Happened.DECIDED, Happened.OBSERVED, Happened.ENDED]


async def test_the_ledger_is_bounded_and_forgets_the_pods_that_are_gone_first(stage: LiveStage) -> None:
    ledger = DecisionLedger(most=3)
    _, pod, assessment = await stage.decide("iris-1")
    for number in range(3):
        placed = dataclasses.replace(pod, uid=f"u{number}")
        ledger.decided(placed, stage.spec, assessment, stage.now)
    ledger.ended("u1", stage.now)
    ledger.decided(dataclasses.replace(pod, uid="u3"), stage.spec, assessment, stage.now)
    assert [each.uid for each in ledger.entries()] == ["u0", "u2", "u3"]
    ledger.decided(dataclasses.replace(pod, uid="u4"), stage.spec, assessment, stage.now)
    assert [each.uid for each in ledger.entries()] == ["u2", "u3", "u4"]
    ledger.observed("u0", Outcome(1.0, None, stage.now, stage.now))
    assert ledger.get("u0") is None
    assert len(ledger.of_workload("default", "iris")) == 3


async def test_what_was_predicted_through_a_window_is_kept_no_longer_than_that(stage: LiveStage) -> None:
    await stage.place("iris-1")
    for _ in range(50):
        stage.observe(10, iris_2=1.0)  # nobody tells of the pod
    (watched,) = stage.accuracy._watched.values()
    readings = watched.readings()
    assert len(readings) == 2 * WINDOW_SECONDS / 10 + 1
    assert [each.at for each in readings] == sorted(each.at for each in readings)
    assert readings[-1].at == stage.now
    assert {each.source for each in readings} == {PredictionSource.PRIOR}
    assert all(each.bound_milliseconds >= each.p90_milliseconds > 0 for each in readings)
