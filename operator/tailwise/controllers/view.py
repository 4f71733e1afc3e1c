"""The copy of the cluster that decisions are made on: nodes, pods, hardware, Deployments, workloads.

Everything a placement needs is in memory before its pod arrives. Changes that matter are told to
``Interests``, which the runtime fills in; heartbeats of nodes and other noise are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tailwise.api.hardware import HARDWARE_LABEL, NodeHardware
from tailwise.api.labels import MANAGED_BY, MANAGED_BY_LABEL, hardware_config_map_name
from tailwise.cluster.client import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, Client
from tailwise.cluster.events import Event, Regarding, hardware_unreadable
from tailwise.cluster.hardware import HardwareError, hardware_from_object
from tailwise.cluster.reflector import Key, Listener, Reflector, Selection
from tailwise.controllers.deployment import MADE_BY_LABEL
from tailwise.controllers.registry import Registry
from tailwise.controllers.storage_view import StorageView
from tailwise.domain.objects import Node, Pod
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.refusal import is_refused
from tailwise.domain.state import ClusterState

Raw = Mapping[str, Any]

# Finished pods take nothing of a node, and clusters with many Jobs keep many of them.
_RUNNING_PODS = "status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """What is kept of a Deployment that a workload owns."""

    uid: str
    generation: int
    owner_uid: str
    ready_replicas: int
    fault: str


@dataclass(slots=True)
class Interests:
    """Who is told what; each is called in the event loop and must return at once."""

    # A pod that waits for a decision, or that its node refused after one.
    undecided_pod: Callable[[Key], None] = lambda _: None
    workload_pods: Callable[[Key], None] = lambda _: None
    capacity: Callable[[], None] = lambda: None
    # The node whose hardware came, changed or went.
    hardware: Callable[[str], None] = lambda _: None
    event: Callable[[Event], None] = lambda _: None
    pod: Callable[[Pod | None, Pod | None], None] = lambda _old, _new: None


@dataclass(slots=True)
class ClusterView:
    """The copy; ``reflectors`` are what keeps it true, and ``storage`` where a pod uses claims."""

    nodes: Reflector[Node]
    pods: Reflector[Pod]
    hardware: Reflector[NodeHardware]
    deployments: Reflector[DeploymentState]
    registry: Registry
    interests: Interests
    storage: StorageView
    state: ClusterState = field(default_factory=ClusterState)
    _pods_of: dict[Key, set[Key]] = field(default_factory=dict)
    # Hardware of nodes that do not exist, by name.
    _imagined: dict[str, NodeHardware] = field(default_factory=dict)

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """All that must run, and be synced before anything is decided."""
        return (self.nodes, self.pods, self.hardware, self.deployments)

    def pods_of(self, workload: Key) -> Iterator[Pod]:
        """Pods that carry a workload's label or were made by its template."""
        for key in self._pods_of.get(workload, ()):
            pod = self.pods.get(key.namespace, key.name)
            if pod is not None:
                yield pod

    def pods_count(self, workload: Key) -> int:
        """How many ``pods_of`` has."""
        return len(self._pods_of.get(workload, ()))

    def hardware_of(self, node: str) -> NodeHardware | None:
        """A node's hardware, if its agent has described it."""
        described = self.hardware.get(self.hardware.selection.namespace or "", hardware_config_map_name(node))
        return described or self._imagined.get(node)

    def described(self) -> Iterator[NodeHardware]:
        """The hardware of all nodes that have been described."""
        return chain(self.hardware.values(), self._imagined.values())

    def imagine(self, node: Node, hardware: NodeHardware) -> None:
        """Add a node that does not exist: what would be decided if it did."""
        self.state.put_node(node)
        self._imagined[node.name] = hardware


def made_by(pod: Pod) -> str | None:
    """The workload whose template made the pod, if one did."""
    return pod.labels.get(MADE_BY_LABEL) or None


def workloads_of(pod: Pod) -> frozenset[Key]:
    """The workloads that a pod concerns: usually one; two where label and maker contradict each other."""
    return frozenset(Key(pod.namespace, name) for name in (pod.workload, made_by(pod)) if name)


def cluster_view(
    client: Client,
    namespace: str,
    registry: Registry,
    restarted: Callable[[str, str], None] = lambda _resource, _reason: None,
) -> ClusterView:
    """A view over the whole cluster; ``namespace`` is where agents write hardware.

    ``restarted`` is told resource and reason whenever a watch ended.
    """
    interests = Interests()
    state = ClusterState()

    def hardware(obj: Raw) -> NodeHardware | None:
        try:
            return hardware_from_object(obj)
        except HardwareError as error:
            metadata = obj["metadata"]
            about = Regarding.of(CONFIG_MAPS, metadata["namespace"], metadata["name"], metadata["uid"])
            interests.event(hardware_unreadable(about, str(error)))
            return None

    def node_put(_: Key, *versions: Node) -> None:
        if view.state.put_node(versions[-1]):
            interests.capacity()

    def node_removed(key: Key, _: Node) -> None:
        view.state.remove_node(key.name)
        interests.capacity()

    def hardware_changed(_: Key, *versions: NodeHardware) -> None:
        interests.hardware(versions[-1].node)
        interests.capacity()

    def storage_changed() -> None:
        interests.capacity()

    def deployment_changed(key: Key, *_: object) -> None:
        interests.workload_pods(key)

    view = ClusterView(
        nodes=Reflector(
            client,
            Selection(NODES),
            node_from_object,
            Listener(node_put, node_put, node_removed),
            restarted=restarted,
        ),
        pods=Reflector(
            client,
            Selection(PODS, field_selector=_RUNNING_PODS),
            pod_from_object,
            Listener(
                lambda key, pod: _pod_changed(view, key, None, pod),
                lambda key, old, new: _pod_changed(view, key, old, new),
                lambda key, pod: _pod_changed(view, key, pod, None),
            ),
            restarted=restarted,
        ),
        hardware=Reflector(
            client,
            Selection(CONFIG_MAPS, namespace, label_selector=f"{HARDWARE_LABEL}=true"),
            hardware,
            Listener(hardware_changed, hardware_changed, hardware_changed),
            restarted=restarted,
        ),
        deployments=Reflector(
            client,
            Selection(DEPLOYMENTS, label_selector=f"{MANAGED_BY_LABEL}={MANAGED_BY}"),
            _deployment,
            Listener(deployment_changed, deployment_changed, deployment_changed),
            restarted=restarted,
        ),
        registry=registry,
        interests=interests,
        storage=StorageView(client, state.storage, storage_changed, restarted),
        state=state,
    )
    return view


def _pod_changed(view: ClusterView, key: Key, old: Pod | None, new: Pod | None) -> None:
    before = workloads_of(old) if old is not None else frozenset()
    after = workloads_of(new) if new is not None else frozenset()
    for workload in before - after:
        keys = view._pods_of.get(workload, set())
        keys.discard(key)
        if not keys:
            view._pods_of.pop(workload, None)
    for workload in after:
        view._pods_of.setdefault(workload, set()).add(key)
    if new is not None:
        view.state.put_pod(new)
    elif old is not None:
        view.state.remove_pod(old.uid)
    view.interests.pod(old, new)
    for workload in before | after:
        view.interests.workload_pods(workload)
    if new is not None and new.deleted_at is None and (new.waits or is_refused(new)):
        view.interests.undecided_pod(key)


def _deployment(obj: Raw) -> DeploymentState:
    metadata, status = obj["metadata"], obj.get("status") or {}
    owners = [ref["uid"] for ref in metadata.get("ownerReferences") or () if ref.get("controller")]
    # Why pods are not made: quota, a refused admission, a missing service account.
    faults = [
        each.get("message", "")
        for each in status.get("conditions") or ()
        if each.get("type") == "ReplicaFailure" and each.get("status") == "True"
    ]
    return DeploymentState(
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        owner_uid=owners[0] if owners else "",
        ready_replicas=int(status.get("readyReplicas") or 0),
        fault=faults[0] if faults else "",
    )
