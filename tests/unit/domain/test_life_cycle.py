"""A LatencyModel's life: one step at a time, over facts, as tables and as whole stories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, EventReason, Reason
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import (
    Algorithm,
    LatencyModelStatus,
    ModelVersion,
    RunResult,
    TrainingRun,
    VersionOutcome,
)
from tailwise.domain.drift import LiveWindow
from tailwise.domain.learning_facts import Facts, JobFacts, JobState, RunFailure, VersionFacts
from tailwise.domain.life_cycle import advance
from tailwise.domain.promotion import Standing
from tailwise.domain.schedule import Trigger

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def facts(spec: dict[str, Any] | None = None, **fields: Any) -> Facts:
    values: dict[str, Any] = {
        "spec": LatencyModelSpec.model_validate(spec or {}),
        "status": LatencyModelStatus(),
        "created_at": NOW - timedelta(days=1),
        "now": NOW,
    }
    return Facts(**values | fields)


def job(number: int = 1, state: JobState = JobState.RUNNING, **fields: Any) -> JobFacts:
    values: dict[str, Any] = {
        "latency_model": "m",
        "name": f"tailwise-train-m-v{number}",
        "uid": f"u{number}",
        "number": number,
        "state": state,
        "message": "",
        "trigger": "Annotation",
        "request": f"request-{number}",
        "scheduled_for": None,
        "created_at": NOW - timedelta(minutes=5),
        "ended_at": None if state is JobState.RUNNING else NOW - timedelta(minutes=1),
    }
    return JobFacts(**values | fields)


def stored(number: int, error: float = 5.0, coverage: float = 0.9, champion: int = 0) -> VersionFacts:
    """A version that errs by ``error`` where the one that serves errs by 10 and the prior by 20."""
    against = {0: Standing(0, 20.0, None, 0), number: Standing(number, error, coverage, 1000)}
    if champion:
        against[champion] = Standing(champion, 10.0, 0.9, 1000)
    return VersionFacts(
        latency_model="m",
        version=number,
        algorithm=Algorithm.LIGHTGBM,
        digest=f"sha256:{number}",
        artifact=f"tailwise-model-m-v{number}",
        trained_at=NOW - timedelta(minutes=1),
        samples=1000,
        mape=0.05,
        standings=against,
    )


def version(number: int, outcome: VersionOutcome, *, served: bool = True) -> ModelVersion:
    promoted_at = NOW - timedelta(days=1) if served else None
    return ModelVersion(
        version=number, algorithm=Algorithm.LIGHTGBM, outcome=outcome, promoted_at=promoted_at
    )


def serving(number: int, *before: int) -> LatencyModelStatus:
    """A status in which this version serves, and others did before it."""
    history = [version(number, VersionOutcome.CHAMPION)]
    history += [version(each, VersionOutcome.RETIRED) for each in before]
    last = TrainingRun(
        job=f"tailwise-train-m-v{number}", result=RunResult.SUCCEEDED, finished_at=NOW - timedelta(days=1)
    )
    return LatencyModelStatus(active_version=number, history=tuple(history), last_run=last)


EXCEEDED = LiveWindow(200, 120, 0.5)


def test_a_request_starts_a_run_whose_number_nobody_had() -> None:
    step = advance(facts(annotation="now", status=serving(3, 1), versions={1: stored(1), 3: stored(3)}))
    assert step.start is not None
    assert (step.start.number, step.start.trigger, step.start.request) == (4, Trigger.ANNOTATION, "now")


def test_a_run_is_known_by_its_job_and_its_request_is_answered_once() -> None:
    step = advance(facts(annotation="request-1", jobs=(job(),), progress="Search: 1 of 2"))
    assert step.start is None
    assert step.status.last_retrain_request == "request-1"
    assert step.status.last_run is not None
    assert (step.status.last_run.result, step.status.last_run.message) == (
        RunResult.RUNNING,
        "Search: 1 of 2",
    )
    again = advance(facts(annotation="request-1", jobs=(job(),), status=step.status))
    assert again.start is None
    assert again.told == ()


def test_a_version_that_is_better_is_promoted_in_the_step_that_sees_it() -> None:
    begun = advance(facts(jobs=(job(),))).status
    step = advance(facts(status=begun, jobs=(job(state=JobState.SUCCEEDED),), versions={1: stored(1)}))
    assert step.serve == step.status.active_version == 1
    assert step.status.champion is not None
    assert step.status.champion.outcome is VersionOutcome.CHAMPION
    assert step.status.champion.promoted_at == NOW
    reasons = [each.reason for each in step.told]
    assert reasons == [EventReason.TRAINING_SUCCEEDED, EventReason.VERSION_SERVING]
    assert (
        advance(
            facts(status=step.status, jobs=(job(state=JobState.SUCCEEDED),), versions={1: stored(1)})
        ).told
        == ()
    )


@pytest.mark.parametrize(
    ("made", "spec", "reason", "outcome"),
    [
        (stored(2, error=9.9, champion=1), {}, Reason.GAIN_TOO_SMALL, VersionOutcome.REJECTED),
        (stored(2, coverage=0.5, champion=1), {}, Reason.COVERAGE_TOO_LOW, VersionOutcome.REJECTED),
        (
            stored(2, champion=1),
            {"promotion": {"minSamples": 5000}},
            Reason.TOO_FEW_SAMPLES,
            VersionOutcome.REJECTED,
        ),
        (
            stored(2, champion=1),
            {"promotion": {"mode": "Manual"}},
            Reason.AWAITING_APPROVAL,
            VersionOutcome.CHALLENGER,
        ),
        (
            stored(2, champion=1),
            {"promotion": {"mode": "Manual", "pinnedVersion": 2}},
            Reason.VERSION_PINNED,
            VersionOutcome.CHAMPION,
        ),
        (stored(2, champion=1), {}, Reason.PROMOTED_AUTOMATICALLY, VersionOutcome.CHAMPION),
    ],
)
def test_a_challenger_serves_or_says_why_not(
    made: VersionFacts, spec: dict[str, Any], reason: Reason, outcome: VersionOutcome
) -> None:
    running = serving(1).model_copy(
        update={"last_run": TrainingRun(job="tailwise-train-m-v2", result=RunResult.RUNNING)}
    )
    step = advance(facts(spec, status=running, versions={1: stored(1), 2: made}))
    assert step.promotion is not None
    assert step.promotion.reason is reason
    assert {each.version: each.outcome for each in step.status.history}[2] is outcome
    promoted = outcome is VersionOutcome.CHAMPION
    assert step.serve == (2 if promoted else 1)
    waits = outcome is VersionOutcome.CHALLENGER
    assert (step.status.challenger is not None) is waits
    after = advance(facts(spec, status=step.status, versions={1: stored(1), 2: made}))
    assert (after.serve, after.told) == (step.serve, ())


def test_what_cannot_be_run_is_not_half_promoted() -> None:
    running = serving(1).model_copy(
        update={"last_run": TrainingRun(job="tailwise-train-m-v2", result=RunResult.RUNNING)}
    )
    asked = facts(status=running, versions={1: stored(1), 2: stored(2, champion=1)})
    step = advance(replace(asked, refused={2: "its parts are damaged"}))
    assert step.serve == 1
    assert step.promotion is not None
    assert (step.promotion.reason, "damaged" in step.promotion.message) == (Reason.ARTIFACT_INVALID, True)


@pytest.mark.parametrize(
    ("jobs", "failures", "words"),
    [
        ((), {}, "deleted before it ended"),
        ((job(state=JobState.FAILED, message="BackoffLimitExceeded"),), {}, "BackoffLimitExceeded"),
        ((job(state=JobState.SUCCEEDED),), {}, "left no version"),
        (
            (job(state=JobState.FAILED),),
            {1: RunFailure(Reason.TOO_FEW_SAMPLES, "the dataset has 3 rows")},
            "the dataset has 3 rows",
        ),
    ],
)
def test_a_run_without_a_version_failed_and_says_why(
    jobs: tuple[JobFacts, ...], failures: dict[int, RunFailure], words: str
) -> None:
    running = LatencyModelStatus(last_run=TrainingRun(job="tailwise-train-m-v1", result=RunResult.RUNNING))
    step = advance(facts(status=running, jobs=jobs, failures=failures))
    assert step.status.last_run is not None
    assert step.status.last_run.result is RunResult.FAILED
    assert step.failure is not None
    assert words in step.failure.message
    assert step.serve == 0
    again = advance(facts(status=step.status, jobs=jobs, failures=failures))
    assert (again.told, again.failure, again.start) == ((), None, None)


def test_a_version_that_stands_is_one_though_its_job_is_gone() -> None:
    running = LatencyModelStatus(last_run=TrainingRun(job="tailwise-train-m-v1", result=RunResult.RUNNING))
    assert advance(facts(status=running, versions={1: stored(1)})).serve == 1


def test_what_cannot_be_trained_is_said_once_for_each_request() -> None:
    step = advance(facts(annotation="a", cannot_train="there is no image"))
    assert step.start is None
    assert step.status.last_run is not None
    assert (step.status.last_run.result, step.status.last_run.message) == (
        RunResult.SKIPPED,
        "there is no image",
    )
    again = advance(facts(annotation="a", cannot_train="there is no image", status=step.status))
    assert again.told == ()
    # A Job that was kept from earlier is no news to a status whose last run was left out.
    old = job(3, JobState.SUCCEEDED, created_at=NOW - timedelta(hours=2))
    known = step.status.model_copy(update={"history": (version(3, VersionOutcome.REJECTED, served=False),)})
    assert advance(facts(annotation="a", status=known, jobs=(old,), versions={3: stored(3)})).told == ()


@pytest.mark.parametrize(("policy", "starts"), [("Forbid", False), ("Replace", True)])
def test_a_schedule_that_is_due_while_a_run_is_under_way(policy: str, starts: bool) -> None:
    spec = {"schedule": {"cron": "0 * * * *", "concurrencyPolicy": policy}}
    running = advance(facts(jobs=(job(),))).status
    step = advance(facts(spec, status=running, jobs=(job(),), now=NOW + timedelta(minutes=1)))
    assert (step.start is not None) is starts
    assert [each.number for each in step.end_jobs] == ([1] if starts else [])
    if step.start is not None:
        assert (step.start.number, step.start.scheduled_for) == (2, NOW)
    else:
        assert step.status.last_schedule_time == NOW
    assert step.status.next_schedule_time == NOW + timedelta(hours=1)


def test_a_missed_run_is_made_up_for_within_its_deadline_only() -> None:
    spec = {"schedule": {"cron": "0 3 * * *", "startingDeadlineSeconds": 3600}}
    assert advance(facts(spec)).start is None
    late = advance(facts(spec, now=NOW.replace(hour=3, minute=30)))
    assert late.start is not None
    assert late.start.scheduled_for == NOW.replace(hour=3)


def test_a_schedule_that_cannot_be_read_is_said() -> None:
    step = advance(facts({"schedule": {"cron": "99 * * * *"}}))
    assert "spec.schedule.cron" in step.schedule_fault


def test_a_version_that_no_longer_covers_gives_way_and_is_trained_anew() -> None:
    spec = {"drift": {"cooldownSeconds": 60}}
    known = {1: stored(1), 2: stored(2)}
    step = advance(facts(spec, status=serving(2, 1), versions=known, live={2: EXCEEDED}))
    assert step.drift.reason is Reason.COVERAGE_FELL
    assert step.serve == 1
    assert {each.version: each.outcome for each in step.status.history}[2] is VersionOutcome.ROLLED_BACK
    assert step.promotion is not None
    assert step.promotion.reason is Reason.ROLLED_BACK
    assert step.start is not None
    assert step.start.trigger is Trigger.DRIFT


def test_drift_lasts_over_the_way_back_until_another_version_is_promoted() -> None:
    spec = {"drift": {"cooldownSeconds": 60}}
    drifting = Condition(
        type=ConditionType.DRIFTING,
        status=ConditionStatus.TRUE,
        reason=Reason.COVERAGE_FELL,
        last_transition_time=NOW,
    )
    back = serving(1).model_copy(update={"conditions": (drifting,)})
    step = advance(facts(spec, status=back, versions={1: stored(1)}))
    assert step.start is not None
    assert step.start.trigger is Trigger.DRIFT


@pytest.mark.parametrize(
    "spec", [{"promotion": {"rollback": "Never"}}, {"promotion": {"mode": "Manual", "pinnedVersion": 2}}]
)
def test_a_version_stays_where_somebody_decided_so(spec: dict[str, Any]) -> None:
    step = advance(
        facts(spec, status=serving(2, 1), versions={1: stored(1), 2: stored(2)}, live={2: EXCEEDED})
    )
    assert step.drift.is_drifting
    assert (step.serve, step.start) == (2, None)


def test_a_pin_to_a_version_that_there_is_not_changes_nothing_and_is_said() -> None:
    spec = {"promotion": {"mode": "Manual", "pinnedVersion": 9}}
    step = advance(facts(spec, status=serving(2, 1), versions={1: stored(1), 2: stored(2)}))
    assert step.serve == 2
    assert step.promotion is not None
    assert "there is no version 9" in step.promotion.message


def test_a_pin_goes_back_and_to_the_prior() -> None:
    for pinned, serves in ((1, 1), (0, 0)):
        spec = {"promotion": {"mode": "Manual", "pinnedVersion": pinned}}
        step = advance(facts(spec, status=serving(2, 1), versions={1: stored(1), 2: stored(2)}))
        assert step.serve == serves
        assert step.status.champion is not None
        assert step.status.champion.version == serves


def test_old_versions_and_what_failed_runs_left_are_deleted_and_the_serving_one_never() -> None:
    status = serving(1, 2, 3, 4).model_copy(
        update={"last_run": TrainingRun(job="tailwise-train-m-v9", result=RunResult.FAILED)}
    )
    known = {each: stored(each) for each in (1, 2, 3, 4, 7)}
    step = advance(facts({"historyLimit": 1}, status=status, versions=known))
    assert step.delete_versions == (2, 3, 7)
    assert {each.version for each in step.status.history} == {1, 4}
