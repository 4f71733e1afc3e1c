"""A move without a gap: a pod more first, and the one that is to go only once the new one serves.

For workloads whose Deployment is Tailwise's own. While a surge lasts the Deployment has one replica more than
its workload asks for. It ends by the eviction of the pod that moves, or is taken back: the newcomer goes
again where a budget forbids the eviction, where it found no better node, or where it took too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from tailwise.api.inference_workload_status import PlacementResult
from tailwise.domain.objects import Pod
from tailwise.domain.relocation import Move

# A newcomer finds its node, loads its model and becomes ready within this, or the move was none.
LONGEST = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Surge:
    """A move that has begun. ``before`` are the uids of the workload's pods when it did.

    ``taken_back``: the newcomer is to go; it has been marked as the one that a scale-down takes.
    """

    move: Move
    before: frozenset[str]
    replicas: int
    began_at: datetime
    taken_back: bool = False


class SurgeStep(Enum):
    """What to do with a surge now."""

    WAIT = auto()
    EVICT = auto()
    TAKE_BACK = auto()
    # Nothing is left to do but to lower the replicas.
    END = auto()


def surge_step(surge: Surge, pods: Sequence[Pod], replicas: int, now: datetime) -> SurgeStep:
    """The next step; ``pods`` are the workload's now, ``replicas`` what it asks for.

    Nobody is evicted unless as many others as the workload asks for are ready.
    """
    here = [pod for pod in pods if pod.deleted_at is None]
    leaving = next((pod for pod in here if pod.uid == surge.move.standpoint.uid), None)
    if surge.taken_back or leaving is None or replicas != surge.replicas:
        return SurgeStep.END
    others = [pod for pod in here if pod is not leaving and pod.ready_at is not None]
    if len(others) >= replicas and any(_better_placed(pod, surge) for pod in others):
        return SurgeStep.EVICT
    return SurgeStep.TAKE_BACK if now - surge.began_at >= LONGEST else SurgeStep.WAIT


def newcomers(surge: Surge, pods: Sequence[Pod]) -> list[Pod]:
    """Pods that came since the surge began."""
    return [pod for pod in pods if pod.uid not in surge.before and pod.deleted_at is None]


def _better_placed(pod: Pod, surge: Surge) -> bool:
    """Whether a pod came since, and to the node that was decided; not where a fallback let it."""
    return (
        pod.uid not in surge.before
        and pod.node_name not in ("", surge.move.standpoint.node)
        and pod.record is not None
        and pod.record.result is PlacementResult.PLACED
    )
