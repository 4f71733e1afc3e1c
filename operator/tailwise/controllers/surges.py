"""Moves of pods whose Deployment is ours: a pod more, then the eviction, then as many as before.

The Deployment's replicas say that a surge is on, nothing else does: a process that ends in the middle leaves
the next one to lower them, and the ReplicaSet takes a pod that is not ready or the slowest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from tailwise.api.labels import DELETION_COST_ANNOTATION
from tailwise.cluster import apply, events
from tailwise.cluster.client import PODS, Client
from tailwise.cluster.events import Event, Regarding
from tailwise.cluster.reflector import Key
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod
from tailwise.domain.relocation import Move
from tailwise.domain.surge import Surge, SurgeStep, newcomers, surge_step

_LOGGER = logging.getLogger(__name__)

_GOES_FIRST = str(-(2**31))


@dataclass(slots=True)
class Surges:
    """``step`` looks at all of them. ``changed`` is told whose replicas change, ``done`` what has moved."""

    client: Client
    view: ClusterView
    record: Callable[[Event], None]
    changed: Callable[[Key], None]
    done: Callable[[Move], None] = lambda _: None
    _on: dict[Key, Surge] = field(default_factory=dict)

    def replicas(self, workload: Key) -> int:
        """How many more the workload's Deployment is to have now."""
        return int(workload in self._on)

    def possible(self, workload: Key) -> bool:
        """Whether the workload's Deployment is ours, and so can have one more."""
        known = self.view.registry.workloads.get(workload)
        state = self.view.deployments.get(workload.namespace, workload.name)
        if known is None or known.workload is None or known.workload.spec.template is None:
            return False
        return state is not None and state.owner_uid == known.uid

    def begin(self, workload: Key, move: Move, replicas: int, now: datetime) -> None:
        """Have one pod more made; it is placed as any other."""
        before = frozenset(pod.uid for pod in self.view.pods_of(workload))
        self._on[workload] = Surge(move, before, replicas, now)
        self.changed(workload)
        _LOGGER.info("one pod more, to move one off %s", move.standpoint.node, extra=_about(workload))

    async def step(self, now: datetime) -> None:
        """Look at each surge once: evict, take back, or wait on."""
        for workload, surge in tuple(self._on.items()):
            known = self.view.registry.workloads.get(workload)
            spec = known.workload.spec if known is not None and known.workload is not None else None
            pods = list(self.view.pods_of(workload))
            step = surge_step(surge, pods, spec.replicas if spec is not None else -1, now)
            if step is SurgeStep.EVICT:
                await self._evict(workload, surge, pods)
            elif step is SurgeStep.TAKE_BACK:
                await self._take_back(workload, surge, "no other pod was ready on a better node in time")
            elif step is SurgeStep.END:
                self._end(workload)

    async def _evict(self, workload: Key, surge: Surge, pods: list[Pod]) -> None:
        pod = next(pod for pod in pods if pod.uid == surge.move.standpoint.uid)
        if await evict(self.client, self.record, pod, surge.move):
            self._end(workload)
            self.done(surge.move)
        else:
            await self._take_back(workload, surge, "the eviction was refused")

    async def _take_back(self, workload: Key, surge: Surge, why: str) -> None:
        """Mark the newcomers; the replicas are lowered at the next step, when the ReplicaSet has seen it."""
        _LOGGER.info("no move off %s: %s", surge.move.standpoint.node, why, extra=_about(workload))
        path = f"/metadata/annotations/{DELETION_COST_ANNOTATION.replace('/', '~1')}"
        for pod in newcomers(surge, list(self.view.pods_of(workload))):
            if pod.has_annotations:
                operations = [
                    {"op": "test", "path": "/metadata/uid", "value": pod.uid},
                    {"op": "add", "path": path, "value": _GOES_FIRST},
                ]
                await apply.patch_json(self.client, PODS, pod.namespace, pod.name, operations)
        self._on[workload] = replace(surge, taken_back=True)

    def _end(self, workload: Key) -> None:
        del self._on[workload]
        self.changed(workload)


async def evict(client: Client, record: Callable[[Event], None], pod: Pod, move: Move) -> bool:
    """Evict a pod that is still as it was seen, and tell of it; False where that is refused."""
    about = {"object": f"Pod/{pod.namespace}/{pod.name}"}
    node = move.standpoint.node
    evicted = await apply.evict(
        client, pod.namespace, pod.name, uid=pod.uid, resource_version=pod.resource_version
    )
    if not evicted.done:
        _LOGGER.info("not moved off %s: %s", node, evicted.message, extra=about)
        return False
    record(events.moved(Regarding.of(PODS, pod.namespace, pod.name, pod.uid), node, move.message()))
    _LOGGER.info("moved off %s: %s", node, move.message(), extra=about)
    return True


def _about(workload: Key) -> dict[str, str]:
    return {"object": f"InferenceWorkload/{workload}"}
