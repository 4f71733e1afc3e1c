"""Conditions of a status: what is said now, merged with when it last changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition should say. ``alarming`` findings are told as a Warning event when they turn up."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""
    alarming: bool = False


def good(kind: ConditionType, reason: Reason, message: str = "") -> Finding:
    """A condition that is met."""
    return Finding(kind, ConditionStatus.TRUE, reason, message)


def bad(kind: ConditionType, reason: Reason, message: str, *, alarming: bool = True) -> Finding:
    """A condition that is not met."""
    return Finding(kind, ConditionStatus.FALSE, reason, message, alarming)


def unknown(kind: ConditionType, reason: Reason, message: str = "", *, alarming: bool = False) -> Finding:
    """A condition of which nothing is known yet."""
    return Finding(kind, ConditionStatus.UNKNOWN, reason, message, alarming)


def merged(
    previous: Iterable[Condition], findings: Iterable[Finding], *, now: datetime, generation: int
) -> tuple[Condition, ...]:
    """The findings as conditions; the transition time moves only when the status does (metav1.Condition)."""
    before = {condition.type: condition for condition in previous}
    conditions = []
    for finding in findings:
        old = before.get(finding.type)
        since = old.last_transition_time if old is not None and old.status is finding.status else now
        conditions.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=finding.reason.value,
                message=finding.message,
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(conditions)


def turned_up(previous: Iterable[Condition], findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Alarming findings whose reason was not there before: those to tell an event of."""
    before = {(condition.type, condition.reason) for condition in previous}
    return tuple(f for f in findings if f.alarming and (f.type, f.reason.value) not in before)
