"""What a controller finds of an object: a condition, and whether it deserves an event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tailwise.domain import conditions as domain


@dataclass(frozen=True, slots=True)
class Finding(domain.Finding):
    """What a condition should say. ``alarming`` findings are told as a Warning event when they turn up."""

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


def turned_up(previous: Iterable[Condition], findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Alarming findings whose reason was not there before: those to tell an event of."""
    before = {(condition.type, condition.reason) for condition in previous}
    return tuple(f for f in findings if f.alarming and (f.type, f.reason.value) not in before)
