"""What becomes of a pod for which no node could be chosen, so that none is gated for ever unasked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tailwise.api.placement_policy import Fallback


@dataclass(frozen=True, slots=True)
class Wait:
    """Try again, at the latest at ``until``, when the pod's time is up."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """Open the gate without affinity: the default scheduler decides."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the gate closed until a node can be chosen; the time-out has passed and the user wants it so."""


FallbackStep = Wait | Release | Hold


def fallback_step(
    created_at: datetime, now: datetime, *, timeout_seconds: int, fallback: Fallback
) -> FallbackStep:
    """What to do with a pod that could not be placed at ``now``.

    Time counts from the pod's creation by the API server's clock, so that operators that take over from each
    other do not each begin anew; a pod from the future (clocks differ) waits for its time-out and no longer.
    """
    timeout = timedelta(seconds=timeout_seconds)
    until = min(created_at, now) + timeout
    if now < until:
        return Wait(until)
    return Release() if fallback is Fallback.DEFAULT_SCHEDULER else Hold()
