"""Drift, promotion, rollback and schedule: the decisions of a LatencyModel's life as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import comb
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.conditions import Reason
from tailwise.api.latency_model import Promotion, PromotionMode, RollbackMode
from tailwise.api.latency_model_status import Algorithm, ModelVersion, VersionOutcome
from tailwise.api.training_policy import ConcurrencyPolicy, Drift, Schedule
from tailwise.domain.drift import DriftVerdict, LiveWindow, binomial_tail, judge_drift
from tailwise.domain.promotion import Standing, judge_challenger, kept, pinned, rollback_to
from tailwise.domain.schedule import Asked, ScheduleError, Times, Trigger, may_start, schedule_times, trigger

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.01, 0.99))
def test_the_tail_of_a_binomial_is_the_sum_of_its_terms(count: int, samples: int, share: float) -> None:
    exact = sum(comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in range(count, samples + 1))
    assert binomial_tail(count, samples, share) == pytest.approx(min(1.0, exact), rel=1e-6, abs=1e-12)


def test_the_tail_of_many_samples_is_worked_out_as_well() -> None:
    assert binomial_tail(15_000, 100_000, 0.15) == pytest.approx(0.5, abs=0.01)
    assert binomial_tail(16_000, 100_000, 0.15) < 1e-15


@pytest.mark.parametrize(
    ("samples", "exceedances", "mape", "reason"),
    [
        (0, 0, None, Reason.NOT_ENOUGH_OBSERVATIONS),
        (199, 199, None, Reason.NOT_ENOUGH_OBSERVATIONS),
        (200, 0, 0.05, Reason.STABLE),
        (200, 30, 0.05, Reason.STABLE),  # exactly what a coverage of 85 % lets through
        (200, 40, 0.05, Reason.STABLE),  # chance explains it with 3 %
        (200, 45, 0.05, Reason.COVERAGE_FELL),
        (200, 200, None, Reason.COVERAGE_FELL),
        (200, 10, 0.10, Reason.STABLE),
        (200, 10, 0.16, Reason.ERROR_ROSE),
    ],
)
def test_drift_is_what_chance_does_not_explain(
    samples: int, exceedances: int, mape: float | None, reason: Reason
) -> None:
    verdict = judge_drift(LiveWindow(samples, exceedances, mape), 0.10, Drift())
    assert verdict.reason is reason
    assert verdict.is_drifting is (reason in (Reason.COVERAGE_FELL, Reason.ERROR_ROSE))
    assert str(samples) in verdict.message or "error" in verdict.message


@given(st.integers(200, 2000), st.data())
def test_more_exceedances_never_end_a_drift(samples: int, data: Any) -> None:
    fewer = data.draw(st.integers(0, samples))
    more = data.draw(st.integers(fewer, samples))
    if judge_drift(LiveWindow(samples, fewer), None, Drift()).is_drifting:
        assert judge_drift(LiveWindow(samples, more), None, Drift()).is_drifting


def standing(
    version: int, error: float = 10.0, coverage: float | None = 0.9, samples: int = 1000
) -> Standing:
    return Standing(version, error, coverage, samples)


@pytest.mark.parametrize(
    ("champion", "challenger", "policy", "reason"),
    [
        (standing(1), standing(2, 9.0), {}, Reason.PROMOTED_AUTOMATICALLY),
        (standing(1), standing(2, 9.81), {}, Reason.GAIN_TOO_SMALL),
        (standing(1), standing(2, 10.0), {"min_gain_percent": 0}, Reason.PROMOTED_AUTOMATICALLY),
        (standing(1), standing(2, 11.0), {"min_gain_percent": 0}, Reason.GAIN_TOO_SMALL),
        (standing(1), standing(2, 1.0, samples=499), {}, Reason.TOO_FEW_SAMPLES),
        (standing(1), standing(2, 1.0, coverage=0.87), {}, Reason.COVERAGE_TOO_LOW),
        (standing(1), standing(2, 1.0, coverage=None), {}, Reason.COVERAGE_TOO_LOW),
        (standing(0, 20.0, None), standing(1), {}, Reason.PROMOTED_AUTOMATICALLY),
        (standing(1, coverage=0.5), standing(2, 10.5), {}, Reason.PROMOTED_AUTOMATICALLY),
        (standing(1), standing(2, 9.0), {"mode": PromotionMode.MANUAL}, Reason.AWAITING_APPROVAL),
        (
            standing(1),
            standing(2, 9.0),
            {"mode": PromotionMode.MANUAL, "pinned_version": 2},
            Reason.VERSION_PINNED,
        ),
        (
            standing(1),
            standing(3, 9.0),
            {"mode": PromotionMode.MANUAL, "pinned_version": 2},
            Reason.AWAITING_APPROVAL,
        ),
    ],
)
def test_a_challenger_serves_when_it_is_better_and_covers(
    champion: Standing, challenger: Standing, policy: dict[str, Any], reason: Reason
) -> None:
    verdict = judge_challenger(champion, challenger, Promotion(**policy))
    assert verdict.reason is reason
    assert verdict.promoted is (reason in (Reason.PROMOTED_AUTOMATICALLY, Reason.VERSION_PINNED))
    assert f"version {challenger.version}" in verdict.message


def version(
    number: int, outcome: VersionOutcome = VersionOutcome.RETIRED, served: bool = True
) -> ModelVersion:
    return ModelVersion(
        version=number, algorithm=Algorithm.LIGHTGBM, outcome=outcome, promoted_at=NOW if served else None
    )


FELL = DriftVerdict(True, Reason.COVERAGE_FELL, "")
STABLE = DriftVerdict(False, Reason.STABLE, "")


@pytest.mark.parametrize(
    ("history", "drift", "policy", "to"),
    [
        ([version(1), version(2)], FELL, {}, 2),
        ([version(1), version(2, VersionOutcome.ROLLED_BACK)], FELL, {}, 1),
        ([version(2, VersionOutcome.REJECTED, served=False)], FELL, {}, 0),
        ([], FELL, {}, 0),
        ([version(1)], STABLE, {}, None),
        ([version(1)], FELL, {"rollback": RollbackMode.NEVER}, None),
        ([version(1)], FELL, {"mode": PromotionMode.MANUAL, "pinned_version": 3}, None),
    ],
)
def test_a_version_that_drifts_gives_way_to_the_one_before(
    history: list[ModelVersion], drift: DriftVerdict, policy: dict[str, Any], to: int | None
) -> None:
    assert rollback_to(Promotion(**policy), drift, 3, history) == to


def test_the_prior_is_never_rolled_back() -> None:
    assert rollback_to(Promotion(), FELL, 0, [version(1)]) is None


@pytest.mark.parametrize(("wanted", "serves"), [(None, 2), (1, 1), (0, 0), (7, 2)])
def test_a_pinned_version_serves_if_it_is_there(wanted: int | None, serves: int) -> None:
    policy = Promotion(mode=PromotionMode.MANUAL, pinned_version=wanted)
    assert pinned(policy, [version(1), version(2)], active=2) == serves


@given(st.sets(st.integers(1, 40)), st.integers(1, 20), st.integers(0, 40))
def test_history_keeps_the_newest_and_never_loses_what_serves(
    numbers: set[int], limit: int, active: int
) -> None:
    stays, gone = kept([version(each) for each in numbers], active, limit)
    left = {each.version for each in stays}
    assert left | set(gone) == numbers
    assert not left & set(gone)
    assert active not in gone
    assert len(left - {active}) == min(limit, len(numbers - {active}))
    assert not gone or max(gone) < min(left - {active})


def at(hour: int, minute: int = 0, day: int = 1) -> datetime:
    return datetime(2026, 6, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "last", "now", "times"),
    [
        ("0 3 * * *", "Etc/UTC", at(2), at(3), Times(at(3), 0, at(3, day=2))),
        ("0 3 * * *", "Etc/UTC", at(3), at(3, 30), Times(None, 0, at(3, day=2))),
        ("0 3 * * *", "Etc/UTC", at(2), at(3, 59), Times(at(3), 0, at(3, day=2))),
        ("0 3 * * *", "Etc/UTC", at(2), at(12), Times(None, 1, at(3, day=2))),  # too late for its deadline
        ("0 * * * *", "Etc/UTC", at(2), at(6, 10), Times(at(6), 3, at(7))),  # one is made up for
        ("0 3 * * *", "Europe/Berlin", at(0), at(1), Times(at(1), 0, at(1, day=2))),  # summer time
        ("@daily", "Etc/UTC", at(23), at(0, day=2), Times(at(0, day=2), 0, at(0, day=3))),
        ("*/5 * * * *", "Etc/UTC", at(0) - timedelta(days=900), at(6, 1), Times(at(6), 99, at(6, 5))),
    ],
)
def test_of_missed_runs_the_newest_is_made_up_for_within_its_deadline(
    cron: str, zone: str, last: datetime, now: datetime, times: Times
) -> None:
    assert schedule_times(Schedule(cron=cron, time_zone=zone), last, now) == times


def test_a_schedule_that_rests_asks_for_nothing() -> None:
    assert schedule_times(Schedule(cron="* * * * *", suspend=True), at(1), at(2)) == Times(None, 0, None)


@pytest.mark.parametrize(
    ("cron", "zone", "told"),
    [
        ("61 * * * *", "Etc/UTC", "spec.schedule.cron: '61"),
        ("a b c d e", "Etc/UTC", "spec.schedule.cron"),
        ("0 3 * * *", "Mars/Olympus", "spec.schedule.timeZone: 'Mars/Olympus'"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_told_by_its_field(cron: str, zone: str, told: str) -> None:
    with pytest.raises(ScheduleError, match=told):
        schedule_times(Schedule(cron=cron, time_zone=zone), at(1), at(2))


@pytest.mark.parametrize(
    ("changed", "drift", "asks"),
    [
        ({}, None, None),
        ({"annotation": "now"}, None, Trigger.ANNOTATION),
        ({"annotation": "now", "answered": "now"}, None, None),
        ({"times": Times(NOW, 0, None)}, None, Trigger.SCHEDULE),
        ({"times": Times(NOW, 0, None), "annotation": "now"}, None, Trigger.ANNOTATION),
        ({"is_drifting": True}, None, None),
        ({"is_drifting": True}, Drift(), Trigger.DRIFT),
        ({"is_drifting": True, "last_run_at": NOW - timedelta(minutes=59)}, Drift(), None),
        ({"is_drifting": True, "last_run_at": NOW - timedelta(minutes=60)}, Drift(), Trigger.DRIFT),
        ({"new_rows": 1000}, Drift(), None),
        ({"new_rows": 1000}, Drift(new_samples=1000), Trigger.NEW_SAMPLES),
        ({"new_rows": 999}, Drift(new_samples=1000), None),
    ],
)
def test_people_the_schedule_drift_and_new_rows_ask_for_a_run(
    changed: dict[str, Any], drift: Drift | None, asks: Trigger | None
) -> None:
    quiet: dict[str, Any] = {
        "times": None,
        "annotation": "",
        "answered": "",
        "is_drifting": False,
        "new_rows": 0,
        "last_run_at": None,
    }
    assert trigger(Asked(**quiet | changed), drift, NOW) is asks


@pytest.mark.parametrize(
    ("running", "policy", "starts"),
    [
        (False, ConcurrencyPolicy.FORBID, True),
        (True, ConcurrencyPolicy.FORBID, False),
        (True, ConcurrencyPolicy.REPLACE, True),
    ],
)
def test_a_run_that_is_due_while_one_runs_waits_or_replaces_it(
    running: bool, policy: ConcurrencyPolicy, starts: bool
) -> None:
    assert may_start(running, policy) is starts
