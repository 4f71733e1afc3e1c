"""A LatencyModel's life as one step over frozen facts: runs, versions, promotion, rollback, what is due.

In: the spec, the status as it stands, the Jobs and versions that there are, what was observed, ``now``. Out:
the status as it should stand, what is told, and what is to be done: start a run, end Jobs, delete versions.
Whoever is killed between deciding and doing decides the same again: a run is known by its Job, a version by
its number.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from tailwise.api.conditions import ConditionType, EventReason, Reason
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import (
    LatencyModelStatus,
    ModelVersion,
    RunResult,
    TrainingRun,
    VersionOutcome,
)
from tailwise.api.training_policy import ConcurrencyPolicy
from tailwise.domain.conditions import is_true
from tailwise.domain.learning_facts import (
    Facts,
    JobFacts,
    JobState,
    RunFailure,
    RunToStart,
    Step,
    Told,
    VersionFacts,
    prior_version,
    run_number,
)
from tailwise.domain.promotion import kept
from tailwise.domain.schedule import (
    Asked,
    ScheduleError,
    Times,
    Trigger,
    may_start,
    schedule_times,
    trigger,
)
from tailwise.domain.version_choice import became, challenger_of, choose, drift_of

# A Job and what it wrote are told by two watches, in either order.
_LAG = timedelta(seconds=20)
_LONGEST_MESSAGE = 1024


def advance(facts: Facts) -> Step:
    """One step: what runs and versions came to, which version serves, and what is due."""
    step = _run(facts, Step(facts.status, facts.status.active_version, drift_of(facts)))
    step = choose(facts, step)
    step = _due(facts, step)
    return _bounded(facts, step)


# ---- the run


def _run(facts: Facts, step: Step) -> Step:
    newest = max(facts.jobs, key=lambda each: each.number, default=None)
    last = facts.status.last_run
    if newest is not None and _is_news(newest, facts.status):
        last = TrainingRun(job=newest.name, result=RunResult.RUNNING, started_at=newest.created_at)
        status = facts.status.model_copy(
            update={
                "last_run": last,
                "last_retrain_request": newest.request or facts.status.last_retrain_request,
                "last_schedule_time": newest.scheduled_for or facts.status.last_schedule_time,
            }
        )
        began = Told(
            EventReason.TRAINING_STARTED, f"Job {newest.name}, asked for by {newest.trigger}", newest.name
        )
        step = replace(step, status=status, told=(*step.told, began))
    if last is None or last.result is not RunResult.RUNNING:
        return step
    number = run_number(last)
    made = facts.versions.get(number)
    job = next((each for each in facts.jobs if each.name == last.job), None)
    if made is not None:
        return _made(step, last, made)
    if job is None:
        told = f"Job {last.job} was deleted before it ended; ask for another run"
        return _failed(step, last, RunFailure(Reason.TRAINING_FAILED, told), facts.now)
    if job.state is JobState.RUNNING:
        message = facts.progress[:_LONGEST_MESSAGE]
        return replace(step, status=_with_run(step.status, last.model_copy(update={"message": message})))
    ended_at = job.ended_at or facts.now
    if job.state is JobState.SUCCEEDED and facts.now - ended_at < _LAG:
        return replace(step, due_again_at=ended_at + _LAG)
    failure = facts.failures.get(number) or RunFailure(
        Reason.TRAINING_FAILED, f"Job {job.name} left no version: {job.message or 'it said nothing'}"
    )
    return _failed(step, last, failure, ended_at)


def _is_news(job: JobFacts, status: LatencyModelStatus) -> bool:
    """Whether a Job is a run that the status does not know; one that is kept after its end is not."""
    last = status.last_run
    if any(each.version >= job.number for each in status.history) or job.number <= run_number(last):
        return False
    # A run that was left out has no number.
    return last is None or last.started_at is None or job.created_at >= last.started_at


def _made(step: Step, last: TrainingRun, made: VersionFacts) -> Step:
    version = ModelVersion(
        version=made.version,
        algorithm=made.algorithm,
        outcome=VersionOutcome.CHALLENGER,
        rmse=made.rmse,
        coverage_percent=made.coverage_percent,
        samples=made.samples,
        artifact=made.artifact,
        digest=made.digest,
        trained_at=made.trained_at,
    )
    message = f"version {made.version}, {made.algorithm.value}, learned from {made.samples} rows"
    run = last.model_copy(
        update={"result": RunResult.SUCCEEDED, "message": message, "finished_at": made.trained_at}
    )
    # One that waited for approval gives way to the newer one.
    history = [
        became(each, VersionOutcome.REJECTED) if each.outcome is VersionOutcome.CHALLENGER else each
        for each in step.status.history
        if each.version != made.version
    ]
    status = _with_run(step.status, run).model_copy(
        update={
            "history": (version, *history),
            "evaluations": made.evaluations,
            "dataset": made.dataset or step.status.dataset,
        }
    )
    told = Told(EventReason.TRAINING_SUCCEEDED, f"Job {last.job} made {message}", last.job)
    return replace(step, status=status, made=made, told=(*step.told, told))


def _failed(step: Step, last: TrainingRun, failure: RunFailure, at: datetime) -> Step:
    message = failure.message[:_LONGEST_MESSAGE]
    run = last.model_copy(update={"result": RunResult.FAILED, "message": message, "finished_at": at})
    told = Told(EventReason.TRAINING_FAILED, failure.message, last.job, alarming=True)
    return replace(step, status=_with_run(step.status, run), failure=failure, told=(*step.told, told))


def _with_run(status: LatencyModelStatus, run: TrainingRun) -> LatencyModelStatus:
    return status.model_copy(update={"last_run": run})


# ---- what is due


def _due(facts: Facts, step: Step) -> Step:
    status, spec = step.status, facts.spec
    times, fault = None, ""
    if spec.schedule is not None:
        try:
            times = schedule_times(spec.schedule, status.last_schedule_time or facts.created_at, facts.now)
        except ScheduleError as error:
            fault = str(error)
    next_at = times.next_at if times is not None else None
    status = status.model_copy(update={"next_schedule_time": next_at})
    step = replace(step, status=status, schedule_fault=fault)
    step = replace(step, due_again_at=_earliest(step.due_again_at, next_at))
    last = status.last_run
    running = last is not None and last.result is RunResult.RUNNING
    asked = Asked(
        times=times,
        annotation=facts.annotation,
        answered=status.last_retrain_request,
        is_drifting=_still_drifting(step),
        new_rows=facts.new_rows,
        last_run_at=(last.finished_at or last.started_at) if last is not None else None,
    )
    by = trigger(asked, spec.drift, facts.now)
    if by is None:
        return step
    ends_the_other = by in (Trigger.ANNOTATION, Trigger.SCHEDULE) and _replaces(spec)
    if running and (facts.cannot_train or not ends_the_other):
        # A run that is due while one runs is left out; one that a person asked for comes afterwards.
        return _passed(step, times) if by is Trigger.SCHEDULE else step
    if facts.cannot_train:
        return _skipped(facts, step, by, times)
    number = 1 + max(
        run_number(last),
        *(each.number for each in facts.jobs),
        *facts.versions,
        *(each.version for each in status.history),
        0,
    )
    start = RunToStart(
        number=number,
        trigger=by,
        request=facts.annotation if by is Trigger.ANNOTATION else "",
        scheduled_for=times.due_at if times is not None else None,
    )
    ended = tuple(each for each in facts.jobs if running and each.state is JobState.RUNNING)
    return replace(step, start=start, end_jobs=ended)


def _still_drifting(step: Step) -> bool:
    """Drift lasts until another version is promoted, or the one that answers now was seen to hold."""
    if step.promotion is not None and step.promotion.promoted:
        return False
    unseen = step.drift.reason is Reason.NOT_ENOUGH_OBSERVATIONS
    return step.drift.is_drifting or (unseen and is_true(step.status.conditions, ConditionType.DRIFTING))


def _replaces(spec: LatencyModelSpec) -> bool:
    policy = spec.schedule.concurrency_policy if spec.schedule is not None else ConcurrencyPolicy.FORBID
    return may_start(True, policy)


def _passed(step: Step, times: Times | None) -> Step:
    if times is None or times.due_at is None:
        return step
    return replace(step, status=step.status.model_copy(update={"last_schedule_time": times.due_at}))


def _skipped(facts: Facts, step: Step, by: Trigger, times: Times | None) -> Step:
    """There can be no run: say so once for each time that one is asked for."""
    now = facts.now.replace(microsecond=0)
    run = TrainingRun(result=RunResult.SKIPPED, message=facts.cannot_train, started_at=now, finished_at=now)
    step = _passed(replace(step, status=_with_run(step.status, run)), times)
    if by is Trigger.ANNOTATION:
        answered = step.status.model_copy(update={"last_retrain_request": facts.annotation})
        step = replace(step, status=answered)
    failure = RunFailure(Reason.TRAINING_FAILED, facts.cannot_train)
    told = Told(EventReason.TRAINING_SKIPPED, f"{by.value}: {facts.cannot_train}", by.value, alarming=True)
    return replace(step, failure=failure, told=(*step.told, told))


# ---- within bounds


def _bounded(facts: Facts, step: Step) -> Step:
    status = step.status
    history, gone = kept(status.history, step.serve, facts.spec.history_limit)
    # What a run left that was given up, and what nobody remembers, is older than the last run.
    known = {each.version for each in history}
    strays = {each for each in facts.versions if each not in known and each <= run_number(status.last_run)}
    deleted = tuple(sorted({*gone, *strays} - {step.serve}))
    told = tuple(
        Told(EventReason.VERSION_DELETED, f"version {each}: spec.historyLimit is reached", str(each))
        for each in gone
    )
    champion = next((each for each in history if each.version == step.serve), None) or prior_version()
    status = status.model_copy(
        update={
            "history": history,
            "active_version": step.serve,
            "champion": champion.model_copy(update={"outcome": VersionOutcome.CHAMPION}),
            "challenger": challenger_of(status),
        }
    )
    return replace(step, status=status, delete_versions=deleted, told=(*step.told, *told))


def _earliest(*times: datetime | None) -> datetime | None:
    return min((each for each in times if each is not None), default=None)
