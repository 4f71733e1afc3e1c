"""Conditions as they should stand after a look at the object, by metav1.Condition's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason

_LONGEST_MESSAGE = 32_768


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one aspect of an object."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: str = ""


def with_findings(
    conditions: Iterable[Condition],
    findings: Iterable[Finding],
    *,
    generation: int,
    now: datetime,
    order: Sequence[ConditionType],
) -> tuple[Condition, ...]:
    """The conditions after these findings, in the given order; types without a finding stay as they are.

    lastTransitionTime changes only with the status, so that it tells since when; a status that is written
    again with nothing new is equal to the one before. Types that are not in ``order`` are dropped: another
    version wrote them and nobody keeps them true.
    """
    standing = {condition.type: condition for condition in conditions}
    for finding in findings:
        standing[finding.type] = _condition(standing.get(finding.type), finding, generation, now)
    return tuple(standing[kind] for kind in order if kind in standing)


def is_true(conditions: Iterable[Condition], kind: ConditionType) -> bool:
    """Whether the condition stands and is True."""
    return any(each.type == kind and each.status is ConditionStatus.TRUE for each in conditions)


def _condition(before: Condition | None, finding: Finding, generation: int, now: datetime) -> Condition:
    unchanged = before is not None and before.status is finding.status
    return Condition(
        type=finding.type,
        status=finding.status,
        reason=finding.reason,
        message=finding.message[:_LONGEST_MESSAGE],
        # metav1.Time has whole seconds; what comes back from the API server must equal what was sent.
        last_transition_time=(
            before.last_transition_time if before is not None and unchanged else now.replace(microsecond=0)
        ),
        observed_generation=generation,
    )
