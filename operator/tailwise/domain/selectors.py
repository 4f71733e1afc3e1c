"""Which nodes a selector names and which taints a toleration bears, exactly as kube-scheduler reads them.

Source: k8s.io/component-helpers/scheduling/corev1 (nodeaffinity, helpers) and Toleration.ToleratesTaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

UNSCHEDULABLE_TAINT_KEY = "node.kubernetes.io/unschedulable"
NAME_FIELD = "metadata.name"

_INTEGER = re.compile(r"[+-]?\d+")
_INT64 = range(-(2**63), 2**63)


class Operator(StrEnum):
    """Operators of node selector requirements."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GREATER = "Gt"
    LESS = "Lt"


class TolerationOperator(StrEnum):
    """Operators of tolerations. Gt and Lt stand behind a feature gate that is off (1.35 to 1.37)."""

    EQUAL = "Equal"
    EXISTS = "Exists"
    GREATER = "Gt"
    LESS = "Lt"


class TaintEffect(StrEnum):
    """What a taint does to a pod that does not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint."""

    key: str
    value: str
    effect: str

    @property
    def repels(self) -> bool:
        """Whether a pod without a toleration is kept away, not merely discouraged."""
        return self.effect in (TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE)


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; an empty key or effect stands for all."""

    key: str = ""
    operator: str = TolerationOperator.EQUAL
    value: str = ""
    effect: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression over a label or a field."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeSelectorTerm:
    """Requirements that must all hold; a term without any names no node."""

    expressions: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the term has no requirement, and so matches nothing."""
        return not (self.expressions or self.fields)


@dataclass(frozen=True, slots=True)
class PreferredTerm:
    """A term that adds its weight to a node's score; kept only to be sent back unchanged."""

    weight: int
    term: NodeSelectorTerm


def tolerates(toleration: Toleration, taint: Taint, *, comparisons: bool = False) -> bool:
    """Whether the toleration covers the taint.

    ``comparisons`` is the feature gate TaintTolerationComparisonOperators: without it Gt and Lt cover
    nothing.
    """
    same_effect = toleration.effect in ("", taint.effect)
    same_key = toleration.key in ("", taint.key)
    if not (same_effect and same_key):
        return False
    match toleration.operator:
        case "" | TolerationOperator.EQUAL:
            return toleration.value == taint.value
        case TolerationOperator.EXISTS:
            return True
        case TolerationOperator.GREATER:
            return comparisons and _exceeds(taint.value, toleration.value)
        case TolerationOperator.LESS:
            return comparisons and _exceeds(toleration.value, taint.value)
        case _:
            return False


def untolerated(
    taints: Iterable[Taint], tolerations: Iterable[Toleration], *, comparisons: bool = False
) -> Taint | None:
    """The first taint that keeps the pod away; None when all are tolerated."""
    borne = tuple(tolerations)
    for taint in taints:
        if taint.repels and not any(tolerates(each, taint, comparisons=comparisons) for each in borne):
            return taint
    return None


def tolerates_unschedulable(tolerations: Iterable[Toleration]) -> bool:
    """Whether the pod may go to a cordoned node, as DaemonSets' pods do."""
    cordon = Taint(UNSCHEDULABLE_TAINT_KEY, "", TaintEffect.NO_SCHEDULE)
    return any(tolerates(each, cordon) for each in tolerations)


def holds(requirement: Requirement, value: str | None) -> bool:
    """Whether a label's value (None: no such label) meets the requirement."""
    match requirement.operator:
        case Operator.IN:
            met = value in requirement.values
        case Operator.NOT_IN:
            met = value not in requirement.values
        case Operator.EXISTS:
            met = value is not None
        case Operator.DOES_NOT_EXIST:
            met = value is None
        case Operator.GREATER:
            met = value is not None and all(_exceeds(value, each) for each in requirement.values)
        case Operator.LESS:
            met = value is not None and all(_exceeds(each, value) for each in requirement.values)
        case _:
            met = False
    return met


def term_valid(term: NodeSelectorTerm) -> bool:
    """Whether the scheduler can read the term; one that it cannot matches nothing."""
    return all(
        requirement.operator in (Operator.IN, Operator.NOT_IN) and len(requirement.values) == 1
        for requirement in term.fields
    ) and all(
        len(requirement.values) == 1 and _integer(requirement.values[0]) is not None
        for requirement in term.expressions
        if requirement.operator in (Operator.GREATER, Operator.LESS)
    )


def term_matches(term: NodeSelectorTerm, name: str, labels: Mapping[str, str]) -> bool:
    """Whether one node meets one term: the plain form of what ``filtering`` does for all nodes at once."""
    if term.empty or not term_valid(term):
        return False
    return all(holds(each, labels.get(each.key)) for each in term.expressions) and all(
        holds(each, name if each.key == NAME_FIELD else "") for each in term.fields
    )


def _exceeds(left: str, right: str) -> bool:
    greater, less = _integer(left), _integer(right)
    return greater is not None and less is not None and greater > less


def _integer(text: str) -> int | None:
    """strconv.ParseInt(text, 10, 64): ASCII digits with an optional sign, within int64."""
    if not (text.isascii() and _INTEGER.fullmatch(text)):
        return None
    number = int(text) if len(text) <= 20 else 2**63
    return number if number in _INT64 else None
