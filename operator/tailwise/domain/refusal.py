"""What becomes of a pod that kube-scheduler calls unschedulable after its node was decided.

By then its affinity cannot change (KEP-3838), so the pod can only wait for its node or be made anew. It is
made anew where that loses nothing: a controller will make another of it, and it never had a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from tailwise.api.inference_workload_status import PlacementResult
from tailwise.domain.objects import Pod

# Their controllers make a pod that is deleted again and count nothing against anybody. A Job would count it
# as a failure (backoffLimit); of other kinds nothing is known.
_REMAKERS = frozenset({"ReplicaSet", "StatefulSet", "ReplicationController"})

# Often a pod that is ending still holds what this one waits for.
GRACE = timedelta(seconds=5)
# kube-scheduler evicts others for the pod and waits for their graceful end.
PREEMPTION_GRACE = timedelta(seconds=90)
# For how long a node that refused a pod is no candidate for its siblings.
SET_ASIDE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class MakeAnew:
    """Delete the pod; its successor is placed elsewhere."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nothing is to be done before this time."""

    at: datetime


RefusalStep = MakeAnew | LookAgain


def is_remade(pod: Pod) -> bool:
    """Whether a controller makes the pod again when it is deleted, at no cost."""
    return pod.owner is not None and pod.owner.kind in _REMAKERS


def is_refused(pod: Pod) -> bool:
    """Whether the pod was placed, and kube-scheduler does not bind it."""
    return (
        not pod.gated
        and not pod.node_name
        and pod.deleted_at is None
        and pod.unschedulable_since is not None
        and pod.record is not None
        and pod.record.result is PlacementResult.PLACED
    )


def refusal_step(pod: Pod, now: datetime) -> RefusalStep | None:
    """What to do with a pod; None where it was not refused, or is better left to wait for its node."""
    if not is_refused(pod) or not is_remade(pod) or pod.unschedulable_since is None:
        return None
    until = pod.unschedulable_since + (PREEMPTION_GRACE if pod.nominated_node else GRACE)
    return MakeAnew() if now >= until else LookAgain(until)
