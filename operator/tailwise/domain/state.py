"""What is known of the cluster now, kept current by single objects, handed out as frozen snapshots.

Each change costs the same however large the cluster is; a snapshot copies one short array for each resource
that pods touched since the last. The state has one owner, the task that reads the reflectors' changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tailwise.domain.objects import Node, Pod
from tailwise.domain.pod_rules import PodGroup
from tailwise.domain.resources import PODS
from tailwise.domain.snapshot import (
    CEILING,
    ClusterSnapshot,
    Counts,
    NodeTable,
    PortUse,
    node_table,
    with_nodes,
)
from tailwise.domain.storage import ClaimKey, StorageState


@dataclass(slots=True)
class _Usage:
    """Pods that count on one node, and their sums."""

    pods: dict[str, Pod] = field(default_factory=dict)
    requested: dict[str, int] = field(default_factory=dict)

    def add(self, pod: Pod, sign: int) -> None:
        for resource, amount in ((PODS, 1), *pod.requests.items()):
            self.requested[resource] = self.requested.get(resource, 0) + sign * min(amount, CEILING)


class ClusterState:
    """Nodes, pods and storage as last seen, plus placements that the API server has not told back yet."""

    def __init__(self) -> None:
        self.storage = StorageState()
        self._pods: dict[str, Pod] = {}
        self._where: dict[str, str] = {}  # uid -> node on which the pod counts
        self._assumed: dict[str, str] = {}  # uid -> node, until the API server says so itself
        self._usage: dict[str, _Usage] = {}
        self._ports: dict[tuple[str, int], tuple[PortUse, ...]] = {}
        self._workloads: dict[tuple[str, str], Mapping[str, int]] = {}
        self._groups: dict[str, dict[PodGroup, Mapping[str, int]]] = {}
        self._handed_out: set[str] = set()  # namespaces whose groups a snapshot holds: copy before writing
        self._repelling: frozenset[PodGroup] = frozenset()
        self._claim_users: dict[ClaimKey, Mapping[str, str]] = {}
        self._table: NodeTable = node_table(())
        self._changed_nodes: dict[str, Node | None] = {}
        self._requested: dict[str, Counts] = {}
        self._changed_usage: set[str] = set()
        self._last: ClusterSnapshot | None = None

    def put_node(self, node: Node) -> bool:
        """A node came or changed; False when nothing that decisions use is different (a heartbeat)."""
        known = self._changed_nodes.get(node.name, self._node(node.name))
        if known == node:
            return False
        self._changed_nodes[node.name] = node
        self._last = None
        return True

    def remove_node(self, name: str) -> None:
        """A node went. Its pods stay until the API server says that they went too."""
        if self._changed_nodes.get(name, self._node(name)) is not None:
            self._changed_nodes[name] = None
            self._last = None

    def put_pod(self, pod: Pod) -> None:
        """A pod came or changed."""
        node = pod.occupied_node
        if node or pod.finished:
            self._assumed.pop(pod.uid, None)
        else:
            node = self._assumed.get(pod.uid, "")
        self._set(pod, "" if pod.finished else node)

    def remove_pod(self, uid: str) -> None:
        """A pod went."""
        self._assumed.pop(uid, None)
        self._leave(uid)
        self._pods.pop(uid, None)

    def assume(self, pod: Pod, node: str) -> None:
        """Count a pod on the node that it was just sent to, before its patch comes back by the watch."""
        self._assumed[pod.uid] = node
        self._set(pod, node)

    def forget(self, uid: str) -> None:
        """Take an assumption back, because the patch failed."""
        if self._assumed.pop(uid, None) is not None:
            self._set(self._pods[uid], self._pods[uid].occupied_node)

    def pod(self, uid: str) -> Pod | None:
        """The pod of this uid as last seen."""
        return self._pods.get(uid)

    def pods(self) -> Iterator[Pod]:
        """All pods as last seen."""
        return iter(tuple(self._pods.values()))

    def node_of(self, uid: str) -> str | None:
        """Node on which the pod counts."""
        return self._where.get(uid)

    def snapshot(self) -> ClusterSnapshot:
        """The cluster as it is known now; the same value while nothing changes."""
        storage = self.storage.frozen()
        if self._last is None or self._last.storage is not storage:
            self._renew_table()
            self._renew_requested()
            self._last = ClusterSnapshot(
                table=self._table,
                requested=dict(self._requested),
                ports=dict(self._ports),
                workload_nodes=dict(self._workloads),
                groups=dict(self._groups),
                repelling=self._repelling,
                claim_users=dict(self._claim_users),
                storage=storage,
            )
            self._handed_out.update(self._groups)
        return self._last

    def _node(self, name: str) -> Node | None:
        position = self._table.index.get(name)
        return None if position is None else self._table.nodes[position]

    def _set(self, pod: Pod, node: str) -> None:
        before = self._pods.get(pod.uid)
        self._pods[pod.uid] = pod
        if before is not None and self._where.get(pod.uid, "") == node and _counts_alike(before, pod):
            if node:
                self._usage[node].pods[pod.uid] = pod
            return
        self._leave(pod.uid)
        if not node:
            return
        self._where[pod.uid] = node
        usage = self._usage.setdefault(node, _Usage())
        usage.pods[pod.uid] = pod
        usage.add(pod, 1)
        for port in pod.host_ports:
            key = (port.protocol, port.port)
            self._ports[key] = (*self._ports.get(key, ()), PortUse(node, port.address))
        self._count_workload(pod, node, 1)
        self._count_group(pod.group, node, 1)
        for claim in _claims_of(pod):
            # Replaced, never changed: snapshots hold the mapping.
            self._claim_users[claim] = {
                **self._claim_users.get(claim, {}),
                pod.uid: "" if pod.node_name else node,
            }
        self._changed_usage.add(node)
        self._last = None

    def _leave(self, uid: str) -> None:
        node = self._where.pop(uid, None)
        if node is None:
            return
        usage = self._usage[node]
        pod = usage.pods.pop(uid)
        usage.add(pod, -1)
        if not usage.pods:
            del self._usage[node]
        for port in pod.host_ports:
            self._free_port((port.protocol, port.port), PortUse(node, port.address))
        self._count_workload(pod, node, -1)
        self._count_group(pod.group, node, -1)
        for claim in _claims_of(pod):
            users = {uid: where for uid, where in self._claim_users.pop(claim).items() if uid != pod.uid}
            if users:
                self._claim_users[claim] = users
        self._changed_usage.add(node)
        self._last = None

    def _free_port(self, key: tuple[str, int], use: PortUse) -> None:
        uses = list(self._ports[key])
        uses.remove(use)
        if uses:
            self._ports[key] = tuple(uses)
        else:
            del self._ports[key]

    def _count_workload(self, pod: Pod, node: str, change: int) -> None:
        if pod.workload is None:
            return
        key = (pod.namespace, pod.workload)
        # Replaced, never changed: snapshots hold the mapping.
        counts = dict(self._workloads.get(key, {}))
        counts[node] = counts.get(node, 0) + change
        if counts[node] == 0:
            del counts[node]
        if counts:
            self._workloads[key] = counts
        else:
            self._workloads.pop(key, None)

    def _count_group(self, group: PodGroup, node: str, change: int) -> None:
        namespace = group.namespace
        groups = self._groups.get(namespace, {})
        if namespace in self._handed_out:
            groups = dict(groups)
            self._handed_out.discard(namespace)
        self._groups[namespace] = groups
        counts = dict(groups.get(group, {}))
        counts[node] = counts.get(node, 0) + change
        if counts[node] == 0:
            del counts[node]
        if counts:
            groups[group] = counts
        else:
            groups.pop(group, None)
        if not groups:
            del self._groups[namespace]
        if group.repels and (group in self._repelling) != bool(counts):
            self._repelling ^= {group}

    def _renew_table(self) -> None:
        if not self._changed_nodes:
            return
        before = self._table
        self._table = with_nodes(before, self._changed_nodes)
        self._changed_nodes = {}
        if self._table.names == before.names:
            return
        came = [name for name in self._table.names if name not in before.index]
        kept = np.array([before.index.get(name, -1) for name in self._table.names], dtype=np.int64)
        for resource, column in self._requested.items():
            # Index -1 reads the last element; the mask makes a node that came start from nothing.
            moved = column[kept] if len(column) else np.zeros(len(kept), dtype=np.int64)
            self._requested[resource] = np.where(kept >= 0, moved, 0)
        self._changed_usage.update(came)

    def _renew_requested(self) -> None:
        touched = [
            (position, self._usage.get(name))
            for name in self._changed_usage
            if (position := self._table.index.get(name)) is not None
        ]
        self._changed_usage = set()
        resources = self._requested.keys() | {
            resource for _, usage in touched if usage is not None for resource in usage.requested
        }
        for resource in resources if touched else ():
            column = self._requested.get(resource)
            column = np.zeros(len(self._table), dtype=np.int64) if column is None else column.copy()
            for position, usage in touched:
                column[position] = 0 if usage is None else usage.requested.get(resource, 0)
            self._requested[resource] = column


def _counts_alike(before: Pod, after: Pod) -> bool:
    """Whether a pod on the same node takes the same of it: most updates are of its status."""
    return (
        before.requests == after.requests
        and before.host_ports == after.host_ports
        and before.workload == after.workload
        and before.group == after.group
        and before.claims == after.claims
    )


def _claims_of(pod: Pod) -> set[ClaimKey]:
    """Claims that pods may share; a pod can name one twice."""
    return {ClaimKey(pod.namespace, use.name) for use in pod.claims if not use.ephemeral}
