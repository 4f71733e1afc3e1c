"""The one patch that places a pod: node affinity and the gate in a single JSON patch (RFC 6902).

KEP-3838: while a pod is gated its required node affinity may be set if there is none, and may only narrow
if there is: the number of terms stays, each may gain requirements at its end, a term without requirements
(it matches nothing) must stay so. ``matchFields`` takes exactly one value, so one node is named by its
metadata.name and several by the label kubernetes.io/hostname. Terms are narrowed by appending, never by
writing them anew: what anybody else added in the meantime stays.

Each patch tests the pod's uid and that the gate is still where it was seen; a test that fails is a conflict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from typing import Any

from tailwise.api.inference_workload_status import PlacementResult
from tailwise.api.labels import DELETION_COST_ANNOTATION, PLACEMENT_GATE
from tailwise.domain.objects import Node, Pod
from tailwise.domain.record import PlacementRecord, annotations_from_record
from tailwise.domain.scoring import Candidate
from tailwise.domain.selectors import NAME_FIELD, NodeSelectorTerm, Operator, PreferredTerm, Requirement

HOSTNAME_LABEL = "kubernetes.io/hostname"

Operation = dict[str, Any]

_NODE_AFFINITY = "/spec/affinity/nodeAffinity"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_GREATEST_WEIGHT = 100
_GREATEST_COST = 10**9  # an int32 in Kubernetes


class PlacementError(ValueError):
    """The patch cannot be made; the message names the pod or node, the field and the way out."""


@dataclass(frozen=True, slots=True)
class WeightedNode:
    """A node that a pod may go to, and how much it is preferred (1 to 100; 0: not at all)."""

    node: Node
    weight: int = _GREATEST_WEIGHT


def record_of(candidate: Candidate, now: datetime) -> PlacementRecord:
    """What the pod's annotations are to say of this placement; latencies round up, as promises do."""
    age = candidate.age_seconds
    return PlacementRecord(
        result=PlacementResult.PLACED,
        decided_at=now,
        node=candidate.node,
        predicted_p50_milliseconds=ceil(candidate.p50_milliseconds),
        predicted_p90_milliseconds=ceil(candidate.p90_milliseconds),
        bound_milliseconds=ceil(candidate.bound_milliseconds),
        source=candidate.source,
        latency_model_version=candidate.version,
        data_age_seconds=None if age is None else max(0, round(age)),
    )


def require_node(pod: Pod, node: str, record: PlacementRecord) -> list[Operation]:
    """Policy Best: the pod may run on this node only.

    Raises:
        PlacementError: the pod is not gated.
    """
    by_name = Requirement(NAME_FIELD, Operator.IN, (node,))
    return [
        *_preconditions(pod),
        *_narrow(pod, NodeSelectorTerm(fields=(by_name,)), ()),
        *_annotate(pod, record),
        _open_gate(pod),
    ]


def require_any(pod: Pod, nodes: Sequence[WeightedNode], record: PlacementRecord) -> list[Operation]:
    """Policy Feasible: the pod may run on any of these nodes, with preference by weight.

    ``kubernetes.io/hostname`` need not equal the node's name: its value is read from each node.

    Raises:
        PlacementError: the pod is not gated, there is no node, or a node lacks the label.
    """
    if not nodes:
        raise PlacementError(f"Pod {pod.namespace}/{pod.name}: no node to require; use release() instead")
    hostnames = {each.node.name: _hostname(each.node) for each in nodes}
    any_of = Requirement(HOSTNAME_LABEL, Operator.IN, tuple(dict.fromkeys(hostnames.values())))
    preferred = tuple(
        PreferredTerm(
            min(each.weight, _GREATEST_WEIGHT),
            NodeSelectorTerm(fields=(Requirement(NAME_FIELD, Operator.IN, (each.node.name,)),)),
        )
        for each in nodes
        if each.weight > 0
    )
    return [
        *_preconditions(pod),
        *_narrow(pod, NodeSelectorTerm(expressions=(any_of,)), preferred),
        *_annotate(pod, record),
        _open_gate(pod),
    ]


def release(pod: Pod, now: datetime) -> list[Operation]:
    """Fallback: the gate goes, with no affinity; the default scheduler decides.

    Raises:
        PlacementError: the pod is not gated.
    """
    record = PlacementRecord(PlacementResult.FALLBACK, decided_at=now)
    return [*_preconditions(pod), *_annotate(pod, record), _open_gate(pod)]


def placement_annotations(pod: Pod, record: PlacementRecord) -> dict[str, str]:
    """The record, and what a scale-down is to know of it unless the pod brings that itself."""
    annotations = annotations_from_record(record)
    if not pod.has_deletion_cost:
        annotations[DELETION_COST_ANNOTATION] = str(_deletion_cost(record))
    return annotations


def headroom_weights(slo_milliseconds: float, bounds_milliseconds: Sequence[float]) -> list[int]:
    """Weights 1 to 100 in proportion to headroom (SLO less bound): the most headroom weighs 100."""
    headrooms = [max(0.0, slo_milliseconds - bound) for bound in bounds_milliseconds]
    most = max(headrooms, default=0.0)
    if most == 0.0:
        return [1] * len(headrooms)
    return [max(1, round(headroom / most * _GREATEST_WEIGHT)) for headroom in headrooms]


def _preconditions(pod: Pod) -> Iterator[Operation]:
    if not pod.gated:
        raise PlacementError(
            f"Pod {pod.namespace}/{pod.name}: spec.schedulingGates does not hold {PLACEMENT_GATE}; once it "
            "is gone the pod's affinity cannot change"
        )
    yield {"op": "test", "path": "/metadata/uid", "value": pod.uid}
    yield {"op": "test", "path": _gate_path(pod), "value": {"name": PLACEMENT_GATE}}


def _gate_path(pod: Pod) -> str:
    return f"/spec/schedulingGates/{pod.gates.index(PLACEMENT_GATE)}"


def _open_gate(pod: Pod) -> Operation:
    """Only Tailwise's own gate: other controllers keep theirs."""
    return {"op": "remove", "path": _gate_path(pod)}


def _narrow(pod: Pod, term: NodeSelectorTerm, preferred: Sequence[PreferredTerm]) -> Iterator[Operation]:
    """Operations that leave of the nodes the pod may go to only those of ``term`` too."""
    if pod.required_terms:
        for position, own in enumerate(pod.required_terms):
            yield from _append(f"{_NODE_AFFINITY}/{_REQUIRED}/nodeSelectorTerms/{position}", own, term)
        if preferred:
            yield _add(f"{_NODE_AFFINITY}/{_PREFERRED}", _preferred_objects(pod, preferred))
        return
    affinity: dict[str, Any] = {_REQUIRED: {"nodeSelectorTerms": [_term_object(term)]}}
    if preferred:
        affinity[_PREFERRED] = _preferred_objects(pod, preferred)
    # An "add" replaces what is there: write at the deepest level that exists, so that nothing beside it goes.
    if pod.has_node_affinity:
        yield from (_add(f"{_NODE_AFFINITY}/{key}", value) for key, value in affinity.items())
    elif pod.has_affinity:
        yield _add(_NODE_AFFINITY, affinity)
    else:
        yield _add("/spec/affinity", {"nodeAffinity": affinity})


def _append(path: str, own: NodeSelectorTerm, addition: NodeSelectorTerm) -> Iterator[Operation]:
    """One of the pod's terms, narrowed. One without requirements matches no node and must stay so."""
    if own.empty:
        return
    for field, have, more in (
        ("matchExpressions", own.expressions, addition.expressions),
        ("matchFields", own.fields, addition.fields),
    ):
        if have:
            yield from (_add(f"{path}/{field}/-", _requirement_object(each)) for each in more)
        elif more:
            yield _add(f"{path}/{field}", [_requirement_object(each) for each in more])


def _annotate(pod: Pod, record: PlacementRecord) -> Iterator[Operation]:
    annotations = placement_annotations(pod, record)
    if pod.has_annotations:
        for key, value in annotations.items():
            yield _add(f"/metadata/annotations/{key.replace('~', '~0').replace('/', '~1')}", value)
        return
    # There were none when the pod was read: make sure that none are lost that came since.
    yield {"op": "test", "path": "/metadata/annotations", "value": None}
    yield _add("/metadata/annotations", annotations)


def _deletion_cost(record: PlacementRecord) -> int:
    """What a scale-down takes first is least: the slowest node, before it where nothing was predicted."""
    if record.predicted_p90_milliseconds is None:
        return -_GREATEST_COST
    return -min(record.predicted_p90_milliseconds, _GREATEST_COST - 1)


def _preferred_objects(pod: Pod, preferred: Sequence[PreferredTerm]) -> list[dict[str, Any]]:
    """The pod's own preferences stay; kube-scheduler adds up the weights of all that match."""
    return [
        {"weight": each.weight, "preference": _term_object(each.term)}
        for each in (*pod.preferred_terms, *preferred)
    ]


def _term_object(term: NodeSelectorTerm) -> dict[str, Any]:
    lists = {"matchExpressions": term.expressions, "matchFields": term.fields}
    return {key: [_requirement_object(each) for each in value] for key, value in lists.items() if value}


def _requirement_object(requirement: Requirement) -> Mapping[str, Any]:
    values = {"values": list(requirement.values)} if requirement.values else {}
    return {"key": requirement.key, "operator": str(requirement.operator), **values}


def _hostname(node: Node) -> str:
    hostname = node.labels.get(HOSTNAME_LABEL)
    if not hostname:
        raise PlacementError(
            f"Node {node.name}: it has no label {HOSTNAME_LABEL}, by which several nodes are named; label it "
            "or use policy Best"
        )
    return hostname


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def before_placement(pod: Pod) -> Pod:
    """The pod as it was when it asked for a node: gated, on no node, with the terms that it brought itself.

    What was narrowed to its node is taken off again. A requirement on several host names at the end of a
    term was put there where the pod also prefers the node by its name; nobody can tell it from the pod's own
    otherwise.
    """
    node = pod.record.node if pod.record is not None else pod.node_name
    by_name = Requirement(NAME_FIELD, Operator.IN, (node,))
    several = any(by_name in each.term.fields for each in pod.preferred_terms)
    terms = tuple(_widened(term, by_name, several) for term in pod.required_terms or ())
    # A term that was empty from the start matches nothing, and still does.
    alone = len(terms) == 1 and terms[0].empty and pod.required_terms != terms
    return replace(
        pod,
        node_name="",
        gates=(PLACEMENT_GATE,),
        required_terms=None if alone or pod.required_terms is None else terms,
        preferred_terms=(),
        # A successor gets ephemeral volumes of its own, made where it goes.
        claims=tuple(use for use in pod.claims if not use.ephemeral),
        record=None,
    )


def _widened(term: NodeSelectorTerm, by_name: Requirement, several: bool) -> NodeSelectorTerm:
    expressions = term.expressions
    if several and expressions and expressions[-1].key == HOSTNAME_LABEL:
        expressions = expressions[:-1]
    return NodeSelectorTerm(expressions, tuple(each for each in term.fields if each != by_name))
