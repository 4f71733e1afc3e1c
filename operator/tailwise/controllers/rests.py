"""What a workload's pods keep off for a while, and when one of them was last moved.

Kept in the workload's status, so that the next operator knows what this one learned. What is lost with a
process is at most what it had not written yet: a node may be tried once more, a move made a little early.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from tailwise.api.inference_workload_status import MAX_AVOIDED_NODES, AvoidedNode
from tailwise.cluster.reflector import Key
from tailwise.controllers.registry import KnownWorkload


@dataclass(slots=True)
class Rests:
    """Nodes set aside and moves made, by workload."""

    _avoided: dict[Key, dict[str, datetime]] = field(default_factory=dict)
    _moved: dict[Key, datetime] = field(default_factory=dict)

    def recover(self, workloads: Iterable[KnownWorkload]) -> None:
        """Take what statuses tell; what this process knows better stays."""
        for known in workloads:
            avoided = {each.node: each.until for each in known.status.avoided_nodes}
            if avoided:
                self._avoided[known.key] = avoided | self._avoided.get(known.key, {})
            if known.status.last_moved_at is not None:
                self._moved.setdefault(known.key, known.status.last_moved_at)

    def avoid(self, workload: Key, node: str, until: datetime) -> None:
        """Keep the workload's pods off a node until then."""
        self._avoided.setdefault(workload, {})[node] = until

    def set_aside(self, workload: Key, now: datetime) -> frozenset[str]:
        """Nodes that the workload's pods keep off now."""
        nodes = self._avoided.get(workload)
        if nodes is None:
            return frozenset()
        for node in [node for node, until in nodes.items() if until <= now]:
            del nodes[node]
        if not nodes:
            del self._avoided[workload]
        return frozenset(nodes)

    def moved(self, workload: Key, at: datetime) -> None:
        """A pod of the workload was moved."""
        self._moved[workload] = at

    @property
    def moves(self) -> dict[Key, datetime]:
        """When each workload was last moved; those that never were are missing."""
        return dict(self._moved)

    def forget(self, workload: Key) -> None:
        """The workload went."""
        self._avoided.pop(workload, None)
        self._moved.pop(workload, None)

    def avoided(self, workload: Key, now: datetime) -> tuple[AvoidedNode, ...]:
        """The nodes set aside as the status holds them, by name; of too many those that last longest."""
        self.set_aside(workload, now)
        nodes = sorted(self._avoided.get(workload, {}).items(), key=lambda item: item[1], reverse=True)
        kept = sorted(nodes[:MAX_AVOIDED_NODES])
        return tuple(AvoidedNode(node=node, until=until) for node, until in kept)

    def last_moved_at(self, workload: Key) -> datetime | None:
        """When a pod of the workload was last moved."""
        return self._moved.get(workload)
