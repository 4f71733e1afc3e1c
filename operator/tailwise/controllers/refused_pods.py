"""Pods that kube-scheduler refuses after their node was decided: made anew elsewhere where that is safe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tailwise.cluster import apply, events
from tailwise.cluster.client import PODS, Client
from tailwise.cluster.events import Event, Regarding
from tailwise.cluster.reflector import Key
from tailwise.controllers.rests import Rests
from tailwise.domain.objects import Pod
from tailwise.domain.refusal import SET_ASIDE, LookAgain, refusal_step

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class RefusedPods:
    """Deletes refused pods and sets the nodes that refused them aside, for as long as ``SET_ASIDE``.

    ``changed`` is told whose set-aside nodes changed: they stand in the workload's status.
    """

    client: Client
    record: Callable[[Event], None]
    rests: Rests
    changed: Callable[[Key], None]

    def set_aside(self, workload: Key, now: datetime) -> frozenset[str]:
        """Nodes that refused a pod of the workload a while ago."""
        return self.rests.set_aside(workload, now)

    def avoid(self, workload: Key, node: str, until: datetime) -> None:
        """Keep the workload's pods off a node until then."""
        self.rests.avoid(workload, node, until)
        self.changed(workload)

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
