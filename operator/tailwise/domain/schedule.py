"""When training is due: the cron schedule with its missed runs, the annotation, drift and new rows.

All of them give a reason for one run; which asked first is what the run is called after.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

from tailwise.api.training_policy import ConcurrencyPolicy, Drift, Schedule


class Trigger(StrEnum):
    """What asked for a run."""

    ANNOTATION = "Annotation"
    SCHEDULE = "Schedule"
    DRIFT = "Drift"
    NEW_SAMPLES = "NewSamples"


class ScheduleError(ValueError):
    """A schedule cannot be read; the message names the field and the way out."""


@dataclass(frozen=True, slots=True)
class Times:
    """The schedule at a moment: the run that is due, if one is, how many were missed, and the next."""

    due_at: datetime | None
    missed: int
    next_at: datetime | None


def schedule_times(schedule: Schedule, last: datetime, now: datetime) -> Times:
    """What is due since ``last`` (the last run that was asked for, or when the LatencyModel was made).

    Of several missed runs one is made up for, the newest, and only within ``startingDeadlineSeconds``.

    Raises:
        ScheduleError: ``spec.schedule.cron`` or ``timeZone`` cannot be read.
    """
    if schedule.suspend:
        return Times(None, 0, None)
    try:
        zone = ZoneInfo(schedule.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        told = f"spec.schedule.timeZone: {schedule.time_zone!r} is no IANA time zone"
        raise ScheduleError(f"{told}; give one such as Europe/Berlin") from error
    try:
        # Back from now, one run a step: a long pause costs as many steps as are worth telling.
        backwards = croniter(schedule.cron, now.astimezone(zone) + timedelta(microseconds=1))
        missed: list[datetime] = []
        while len(missed) < _MOST_MISSED:
            run = backwards.get_prev(datetime).astimezone(UTC)
            if run <= last:
                break
            missed.append(run)
        next_at = croniter(schedule.cron, now.astimezone(zone)).get_next(datetime).astimezone(UTC)
    except (CroniterBadCronError, CroniterBadDateError, ValueError, KeyError) as error:
        told = f"spec.schedule.cron: {schedule.cron!r}: {error}"
        raise ScheduleError(f"{told}; give five fields, as in '0 3 * * *'") from error
    newest = missed[0] if missed else None
    if newest is not None and now - newest > timedelta(seconds=schedule.starting_deadline_seconds):
        return Times(None, len(missed), next_at)
    return Times(newest, max(0, len(missed) - 1), next_at)


_MOST_MISSED = 100


def may_start(running: bool, policy: ConcurrencyPolicy) -> bool:
    """Whether a run that is due starts now: Forbid leaves it out while one runs, Replace ends the other."""
    return not running or policy is ConcurrencyPolicy.REPLACE


@dataclass(frozen=True, slots=True)
class Asked:
    """What may ask for a run, as it stands now.

    ``annotation`` is the value of the retraining annotation, ``answered`` the one that was last answered.
    ``new_rows`` came since the last run, which ended at ``last_run_at``.
    """

    times: Times | None
    annotation: str
    answered: str
    is_drifting: bool
    new_rows: int
    last_run_at: datetime | None


def trigger(asked: Asked, drift: Drift | None, now: datetime) -> Trigger | None:
    """What asks for a run, None where nothing does. People come first; drift and rows keep the cooldown."""
    if asked.annotation and asked.annotation != asked.answered:
        return Trigger.ANNOTATION
    if asked.times is not None and asked.times.due_at is not None:
        return Trigger.SCHEDULE
    if drift is None or _cooling(asked.last_run_at, drift, now):
        return None
    if asked.is_drifting:
        return Trigger.DRIFT
    enough = drift.new_samples is not None and asked.new_rows >= drift.new_samples
    return Trigger.NEW_SAMPLES if enough else None


def _cooling(last_run_at: datetime | None, drift: Drift, now: datetime) -> bool:
    return last_run_at is not None and now - last_run_at < timedelta(seconds=drift.cooldown_seconds)
