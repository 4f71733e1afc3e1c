"""Nodes and pods as decisions see them: only the fields that are used, frozen, a few hundred bytes each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from tailwise.api.labels import PLACEMENT_GATE, SCHEDULER_NAME, WORKLOAD_LABEL
from tailwise.domain.pod_rules import PodAffinityTerm, PodGroup, SpreadConstraint
from tailwise.domain.record import PlacementRecord
from tailwise.domain.resources import CPU, Amounts
from tailwise.domain.selectors import NodeSelectorTerm, PreferredTerm, Taint, Toleration


class PodPhase(StrEnum):
    """status.phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class Unmodelled(StrEnum):
    """What a pod may ask of its node that kube-scheduler checks and the filters here do not."""

    VOLUMES = "disks named in the pod itself"
    RESOURCE_CLAIMS = "resource claims"
    NAMESPACE_SELECTOR = "inter-pod affinity by the labels of namespaces"


class HostPort(NamedTuple):
    """A port of the node itself; the address is 0.0.0.0 where none was given."""

    protocol: str
    port: int
    address: str = "0.0.0.0"  # noqa: S104 - Kubernetes' own default, nothing is bound here


class ClaimUse(NamedTuple):
    """A PersistentVolumeClaim of the pod's namespace; ``ephemeral``: made for this pod alone."""

    name: str
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller that made a pod, and will make another when it goes."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Container:
    """A container's CPU: what its CFS quota and weight are made from."""

    name: str
    cpu_request_millicores: int | None = None
    cpu_limit_millicores: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A node. ``allocatable`` is what pods may request, in the units of ``resources``."""

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. Times are the API server's; None where it did not happen."""

    uid: str
    namespace: str
    name: str
    created_at: datetime
    labels: Mapping[str, str]
    requests: Amounts
    containers: tuple[Container, ...] = ()
    # The CPU limit of the whole pod's cgroup; None where some container is unlimited.
    cpu_limit_millicores: int | None = None
    owner: Owner | None = None
    resource_version: str = ""
    phase: PodPhase = PodPhase.PENDING
    # spec.nodeName: bound by kube-scheduler, or written by the pod's author.
    node_name: str = ""
    # Where kube-scheduler has evicted others to make room for the pod.
    nominated_node: str = ""
    gates: tuple[str, ...] = ()
    scheduler_name: str = "default-scheduler"
    deleted_at: datetime | None = None
    ready_at: datetime | None = None
    # Condition PodScheduled is False with reason Unschedulable: kube-scheduler's own words, and since when.
    unschedulable_message: str = ""
    unschedulable_since: datetime | None = None
    host_ports: tuple[HostPort, ...] = ()
    node_selector: Mapping[str, str] | None = None
    # None: no required node affinity. An empty tuple matches no node.
    required_terms: tuple[NodeSelectorTerm, ...] | None = None
    preferred_terms: tuple[PreferredTerm, ...] = ()
    # Which levels spec.affinity has: a JSON patch must create those that are missing and spare the others.
    has_affinity: bool = False
    has_node_affinity: bool = False
    has_annotations: bool = False
    # Whether somebody set the pod's deletion cost already.
    has_deletion_cost: bool = False
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[SpreadConstraint, ...] = ()
    affinity_terms: tuple[PodAffinityTerm, ...] = ()
    anti_affinity_terms: tuple[PodAffinityTerm, ...] = ()
    claims: tuple[ClaimUse, ...] = ()
    unmodelled: tuple[Unmodelled, ...] = ()
    # What an operator, this one or the one before, decided and wrote in the patch that opened the gate.
    record: PlacementRecord | None = None

    @property
    def workload(self) -> str | None:
        """Name of the InferenceWorkload in the pod's namespace that it belongs to."""
        return self.labels.get(WORKLOAD_LABEL) or None

    @property
    def gated(self) -> bool:
        """Whether Tailwise's gate is closed."""
        return PLACEMENT_GATE in self.gates

    @property
    def to_bind(self) -> bool:
        """Whether Tailwise is the pod's scheduler and has not bound it yet (binding: NodeName)."""
        return (
            self.scheduler_name == SCHEDULER_NAME
            and self.workload is not None
            and not (self.node_name or self.gates or self.finished)
        )

    @property
    def waits(self) -> bool:
        """Whether the pod waits for Tailwise's decision: at its gate, or to be bound."""
        return self.gated or self.to_bind

    @property
    def finished(self) -> bool:
        """Whether the pod has ended and so takes nothing of its node."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def group(self) -> PodGroup:
        """What topology spread and inter-pod affinity of other pods see of this one."""
        return PodGroup(
            self.namespace,
            frozenset(self.labels.items()),
            self.deleted_at is not None,
            self.anti_affinity_terms,
        )

    @property
    def occupied_node(self) -> str:
        """Node on which the pod counts: where it is bound, or where it was just sent to; empty if none."""
        if self.node_name or self.gated or self.record is None:
            return self.node_name
        return self.record.node


def serving_container(pod: Pod, name: str | None) -> Container | None:
    """The container of this name (spec.serving.container), or the first; None where there is none such."""
    if name is None:
        return pod.containers[0] if pod.containers else None
    return next((container for container in pod.containers if container.name == name), None)


def serving_cpu_limit_millicores(pod: Pod, container: str | None) -> int | None:
    """CPU limit that throttles the model server: its own or the pod's, whichever is less; None: neither."""
    server = serving_container(pod, container)
    limits = (server.cpu_limit_millicores if server else None, pod.cpu_limit_millicores)
    return min((limit for limit in limits if limit is not None), default=None)


def serving_cpu_request_millicores(pod: Pod, container: str | None) -> int:
    """CPU request of the model server, or of the whole pod where the container has none of its own."""
    server = serving_container(pod, container)
    if server is not None and server.cpu_request_millicores is not None:
        return server.cpu_request_millicores
    return pod.requests.get(CPU, 0)


def unsupported(pod: Pod) -> tuple[Unmodelled, ...]:
    """What of the pod the filters do not check: a node that passes may still be refused by kube-scheduler.

    With policy Best such a pod may come back unschedulable; Feasible leaves kube-scheduler a choice.
    """
    return pod.unmodelled
