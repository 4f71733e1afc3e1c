"""What a pod asks of the pods around it: topology spread and inter-pod (anti-)affinity, as values.

Only what kube-scheduler's filters read: required terms and constraints with DoNotSchedule. Source: the
plugins PodTopologySpread and InterPodAffinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tailwise.domain.selectors import Requirement, holds

# Requirements that must all hold; None selects nothing, an empty tuple everything (LabelSelectorAsSelector).
LabelSelector = tuple[Requirement, ...] | None


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """A topologySpreadConstraint with DoNotSchedule (KEP-895, KEP-3022, KEP-3094)."""

    topology_key: str
    max_skew: int
    selector: LabelSelector
    min_domains: int = 1
    honors_affinity: bool = True
    honors_taints: bool = False


@dataclass(frozen=True, slots=True)
class PodAffinityTerm:
    """A required term of podAffinity or podAntiAffinity; ``namespaces`` None stands for all of them."""

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class PodGroup:
    """Pods that such rules cannot tell apart: a ReplicaSet's share one. ``repels`` is their anti-affinity."""

    namespace: str
    labels: frozenset[tuple[str, str]]
    ending: bool = False
    repels: tuple[PodAffinityTerm, ...] = ()


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether the selector takes a pod with these labels."""
    return selector is not None and all(holds(each, labels.get(each.key)) for each in selector)


def concerns(term: PodAffinityTerm, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether a pod of this namespace with these labels is one that the term speaks of."""
    return (term.namespaces is None or namespace in term.namespaces) and selects(term.selector, labels)


def all_concern(terms: Iterable[PodAffinityTerm], namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether every term speaks of such a pod: affinity counts only pods that meet all its terms."""
    return all(concerns(term, namespace, labels) for term in terms)
