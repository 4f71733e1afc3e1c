"""Nodes and pods out of the API's JSON: plain camelCase mappings in, frozen values out.

The API server has validated what is read here; only what it lets pass is handled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from sys import intern
from typing import Any

from tailwise.api.labels import DELETION_COST_ANNOTATION
from tailwise.domain.objects import (
    ClaimUse,
    Container,
    HostPort,
    Node,
    Owner,
    Pod,
    PodPhase,
    Unmodelled,
)
from tailwise.domain.pod_rules import LabelSelector, PodAffinityTerm, SpreadConstraint
from tailwise.domain.record import parse_time, record_from_annotations
from tailwise.domain.resources import (
    CPU,
    ContainerAmounts,
    aggregate,
    amounts_from_object,
    largest,
    pod_limits,
    pod_requests,
)
from tailwise.domain.selectors import (
    NodeSelectorTerm,
    Operator,
    PreferredTerm,
    Requirement,
    Taint,
    Toleration,
)

Object = Mapping[str, Any]

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Volumes that do not care where the pod runs, and claims, which are looked at; any other may, as a disk does.
_VOLUMES_ANYWHERE = frozenset(
    {"configMap", "secret", "emptyDir", "projected", "downwardAPI", "hostPath", "image", "nfs", "csi"}
    | {"persistentVolumeClaim", "ephemeral"}
)


def node_from_object(obj: Object) -> Node:
    """A Node from its JSON."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    return Node(
        name=metadata["name"],
        labels=interned(metadata.get("labels")),
        allocatable=_amounts(status.get("allocatable")),
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"]) for taint in spec.get("taints") or ()
        ),
        unschedulable=bool(spec.get("unschedulable")),
        ready=_condition(status, "Ready").get("status") == "True",
    )


def pod_from_object(obj: Object) -> Pod:
    """A Pod from its JSON."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    ready, scheduled = _condition(status, "Ready"), _condition(status, "PodScheduled")
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return Pod(
        uid=metadata.get("uid", ""),
        namespace=intern(metadata.get("namespace", "")),
        name=metadata["name"],
        created_at=parse_time(metadata.get("creationTimestamp")) or _EPOCH,
        labels=interned(metadata.get("labels")),
        requests=_requests(spec, status),
        containers=tuple(_container(container) for container in spec.get("containers") or ()),
        cpu_limit_millicores=_cpu_limit(spec),
        owner=_controller(metadata),
        resource_version=metadata.get("resourceVersion", ""),
        phase=_phase(status),
        node_name=intern(spec.get("nodeName") or ""),
        nominated_node=intern(status.get("nominatedNodeName") or ""),
        gates=tuple(intern(gate["name"]) for gate in spec.get("schedulingGates") or ()),
        scheduler_name=intern(spec.get("schedulerName") or "default-scheduler"),
        deleted_at=parse_time(metadata.get("deletionTimestamp")),
        ready_at=parse_time(ready.get("lastTransitionTime")) if ready.get("status") == "True" else None,
        unschedulable_message=scheduled.get("message", "") if refused else "",
        unschedulable_since=parse_time(scheduled.get("lastTransitionTime")) if refused else None,
        host_ports=tuple(_host_ports(spec)),
        node_selector=interned(spec["nodeSelector"]) if spec.get("nodeSelector") else None,
        required_terms=_required_terms(node_affinity),
        preferred_terms=tuple(
            PreferredTerm(each["weight"], node_selector_term(each.get("preference") or {}))
            for each in node_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ),
        has_affinity=spec.get("affinity") is not None,
        has_node_affinity=affinity.get("nodeAffinity") is not None,
        has_annotations=bool(annotations),
        has_deletion_cost=DELETION_COST_ANNOTATION in annotations,
        tolerations=tuple(_toleration(each) for each in spec.get("tolerations") or ()),
        spread=tuple(_spread(spec, metadata.get("labels") or {})),
        affinity_terms=tuple(_pod_terms(affinity.get("podAffinity"), metadata)),
        anti_affinity_terms=tuple(_pod_terms(affinity.get("podAntiAffinity"), metadata)),
        claims=tuple(_claims(spec, metadata["name"])),
        unmodelled=tuple(_unmodelled(spec, affinity)),
        record=record_from_annotations(annotations),
    )


def interned(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Ten thousand pods share a few keys and values; they need not each keep their own."""
    return {intern(key): intern(value) for key, value in (labels or {}).items()}


def _amounts(resource_list: Object | None) -> dict[str, int]:
    return {intern(name): amount for name, amount in amounts_from_object(resource_list).items()}


def _condition(status: Object, kind: str) -> Object:
    found: Object = {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            found = condition
    return found


def _phase(status: Object) -> PodPhase:
    try:
        return PodPhase(status.get("phase") or PodPhase.PENDING)
    except ValueError:
        return PodPhase.UNKNOWN


def _controller(metadata: Object) -> Owner | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(intern(reference["kind"]), reference["name"], intern(reference["uid"]))
    return None


def _container(container: Object) -> Container:
    resources = container.get("resources") or {}
    return Container(
        name=intern(container["name"]),
        cpu_request_millicores=_amounts(resources.get("requests")).get(CPU),
        cpu_limit_millicores=_amounts(resources.get("limits")).get(CPU),
    )


def _container_amounts(container: Object, resources: Object | None = None) -> ContainerAmounts:
    given = (container.get("resources") or {}) if resources is None else resources
    return ContainerAmounts(
        name=container["name"],
        requests=_amounts(given.get("requests")),
        limits=_amounts(given.get("limits")),
        restartable=container.get("restartPolicy") == "Always",
    )


def _requests(spec: Object, status: Object) -> dict[str, int]:
    containers = [_container_amounts(each) for each in spec.get("containers") or ()]
    init_containers = [_container_amounts(each) for each in spec.get("initContainers") or ()]
    pod_level = _amounts((spec.get("resources") or {}).get("requests"))
    overhead = _amounts(spec.get("overhead"))
    asked = pod_requests(containers, init_containers, pod_level=pod_level, overhead=overhead)
    resized = _resized(spec, status)
    if resized is None:
        return asked
    return largest(asked, pod_requests([resized], pod_level=pod_level, overhead=overhead))


def _resized(spec: Object, status: Object) -> ContainerAmounts | None:
    """What a pod that is being resized in place still holds (KEP-1287); None for all others."""
    statuses = {
        each["name"]: each
        for each in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
        if each.get("allocatedResources") or (each.get("resources") or {}).get("requests")
    }
    if not statuses:
        return None

    def held(container: Object, read: str) -> ContainerAmounts:
        found = statuses.get(container["name"], {})
        allocated = {"requests": found["allocatedResources"]} if found.get("allocatedResources") else None
        actuated = found.get("resources") or {}
        chosen = actuated if read == "actuated" and actuated.get("requests") else allocated
        return _container_amounts(container, chosen)

    totals = [
        aggregate(
            [held(each, read) for each in spec.get("containers") or ()],
            [held(each, read) for each in spec.get("initContainers") or ()],
            lambda container: container.requests,
        )
        for read in ("allocated", "actuated")
    ]
    return ContainerAmounts("", largest(*totals), {})


def _cpu_limit(spec: Object) -> int | None:
    limits = pod_limits(
        [_container_amounts(each) for each in spec.get("containers") or ()],
        [
            _container_amounts(each)
            for each in spec.get("initContainers") or ()
            if each.get("restartPolicy") == "Always"
        ],
        pod_level=_amounts((spec.get("resources") or {}).get("limits")),
    )
    return limits.get(CPU)


def _host_ports(spec: Object) -> Iterator[HostPort]:
    """Ports of containers and sidecars, as the NodePorts plugin takes them."""
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if number := port.get("hostPort"):
                address = port.get("hostIP") or "0.0.0.0"  # noqa: S104 - Kubernetes' own default
                yield HostPort(intern(port.get("protocol") or "TCP"), number, address)


def _required_terms(node_affinity: Object) -> tuple[NodeSelectorTerm, ...] | None:
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return None
    return tuple(node_selector_term(term) for term in required.get("nodeSelectorTerms") or ())


def node_selector_term(term: Object) -> NodeSelectorTerm:
    """One term of a node selector."""
    return NodeSelectorTerm(
        _requirements(term.get("matchExpressions") or ()), _requirements(term.get("matchFields") or ())
    )


def _requirements(requirements: Sequence[Object]) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(intern(each["key"]), intern(each["operator"]), tuple(each.get("values") or ()))
        for each in requirements
    )


def _toleration(toleration: Object) -> Toleration:
    return Toleration(
        key=intern(toleration.get("key", "")),
        operator=intern(toleration.get("operator", "")) or "Equal",
        value=intern(toleration.get("value", "")),
        effect=intern(toleration.get("effect", "")),
    )


def _spread(spec: Object, labels: Mapping[str, str]) -> Iterator[SpreadConstraint]:
    """Constraints that refuse nodes; those with ScheduleAnyway only score them."""
    for each in spec.get("topologySpreadConstraints") or ():
        if each.get("whenUnsatisfiable") != "DoNotSchedule":
            continue
        selector = label_selector(each.get("labelSelector"))
        if selector is not None:
            # Newer API servers have merged them into the selector already: twice does no harm (KEP-3243).
            selector += tuple(
                Requirement(intern(key), Operator.IN, (labels[key],))
                for key in each.get("matchLabelKeys") or ()
                if key in labels
            )
        yield SpreadConstraint(
            topology_key=intern(each["topologyKey"]),
            max_skew=int(each["maxSkew"]),
            selector=selector,
            min_domains=int(each.get("minDomains") or 1),
            honors_affinity=each.get("nodeAffinityPolicy", "Honor") == "Honor",
            honors_taints=each.get("nodeTaintsPolicy", "Ignore") == "Honor",
        )


def _pod_terms(affinity: Object | None, metadata: Object) -> Iterator[PodAffinityTerm]:
    """Required terms; the API server has merged matchLabelKeys into their selectors (KEP-3633)."""
    for term in (affinity or {}).get(_REQUIRED) or ():
        named = frozenset(map(intern, term.get("namespaces") or ()))
        selector = term.get("namespaceSelector")
        everywhere = selector is not None and not _by_namespace_labels(term)
        if selector is None and not named:
            named = frozenset((intern(metadata.get("namespace", "")),))
        yield PodAffinityTerm(
            topology_key=intern(term["topologyKey"]),
            selector=label_selector(term.get("labelSelector")),
            namespaces=None if everywhere else named,
        )


def _by_namespace_labels(term: Object) -> bool:
    selector = term.get("namespaceSelector") or {}
    return bool(selector.get("matchLabels") or selector.get("matchExpressions"))


def label_selector(selector: Object | None) -> LabelSelector:
    """A label selector; None selects nothing."""
    if selector is None:
        return None
    return (
        *(
            Requirement(intern(key), Operator.IN, (value,))
            for key, value in (selector.get("matchLabels") or {}).items()
        ),
        *_requirements(selector.get("matchExpressions") or ()),
    )


def _claims(spec: Object, pod_name: str) -> Iterator[ClaimUse]:
    """Claims that volumes name, and those that are made for generic ephemeral ones (KEP-1698)."""
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield ClaimUse(intern(claim["claimName"]))
        elif "ephemeral" in volume:
            yield ClaimUse(f"{pod_name}-{volume['name']}", ephemeral=True)


def _unmodelled(spec: Object, affinity: Object) -> Iterator[Unmodelled]:
    kinds = {kind for volume in spec.get("volumes") or () for kind in volume if kind != "name"}
    if kinds - _VOLUMES_ANYWHERE:
        yield Unmodelled.VOLUMES
    if spec.get("resourceClaims"):
        yield Unmodelled.RESOURCE_CLAIMS
    terms = [
        term
        for kind in ("podAffinity", "podAntiAffinity")
        for term in (affinity.get(kind) or {}).get(_REQUIRED) or ()
    ]
    if any(_by_namespace_labels(term) for term in terms):
        yield Unmodelled.NAMESPACE_SELECTOR
