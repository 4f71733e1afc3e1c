"""Pods that kube-scheduler refuses after their node was decided: made anew elsewhere where that is safe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from tailwise.cluster import apply, events
from tailwise.cluster.client import PODS, Client
from tailwise.cluster.events import Event, Regarding
from tailwise.cluster.reflector import Key
from tailwise.domain.objects import Pod
from tailwise.domain.refusal import SET_ASIDE, LookAgain, refusal_step

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class RefusedPods:
    """Deletes refused pods and remembers which nodes refused whose, for as long as ``SET_ASIDE``.

    The memory is this process's own: the next one may try such a node once more, and learn the same.
    """

    client: Client
    record: Callable[[Event], None]
    _until: dict[Key, dict[str, datetime]] = field(default_factory=dict)

    def set_aside(self, workload: Key, now: datetime) -> frozenset[str]:
        """Nodes that refused a pod of the workload a while ago."""
        nodes = self._until.get(workload)
        if nodes is None:
            return frozenset()
        for node in [node for node, until in nodes.items() if until <= now]:
            del nodes[node]
        if not nodes:
            del self._until[workload]
        return frozenset(nodes)

    def avoid(self, workload: Key, node: str, until: datetime) -> None:
        """Keep the workload's pods off a node until then."""
        self._until.setdefault(workload, {})[node] = until

    async def reconcile(self, pod: Pod, now: datetime) -> float | None:
        """Delete a pod that its node refused, if it still is as it was seen; returns when to look again."""
        step = refusal_step(pod, now)
        if step is None or pod.record is None:
            return None
        if isinstance(step, LookAgain):
            return (step.at - now).total_seconds()
        node, why = pod.record.node, pod.unschedulable_message
        self.avoid(Key(pod.namespace, pod.workload or ""), node, now + SET_ASIDE)
        # A pod that was bound, changed or replaced meanwhile is another question: the precondition fails.
        deleted = await apply.delete(
            self.client, PODS, pod.namespace, pod.name, uid=pod.uid, resource_version=pod.resource_version
        )
        if deleted.done:
            self.record(events.refused(Regarding.of(PODS, pod.namespace, pod.name, pod.uid), node, why))
            _LOGGER.info(
                "deleted, since %s refused it: %s",
                node,
                why,
                extra={"object": f"Pod/{pod.namespace}/{pod.name}"},
            )
        return None
