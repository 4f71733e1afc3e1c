"""Moving pods that run, through the Eviction API, so that disruption budgets hold.

Every few seconds: where each pod of a workload with ``spec.placement.relocation`` stands and what the best
other node would be, the same way as for a new pod; ``domain.relocation`` decides. A pod of our own Deployment
gets its successor first (``surges``). Another is evicted, made again by its controller, gated, and placed as
any other. The node that it left is set aside for a while. Nothing is moved on data that is stale: not knowing
is no reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.placement_policy import Relocation, RelocationMode
from tailwise.api.profile import ModelProfile
from tailwise.cluster.client import ApiError, Client
from tailwise.cluster.events import Event
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.placement import PlacementController
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.serving import serving_of
from tailwise.controllers.surges import Surges, evict
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod
from tailwise.domain.placement import before_placement
from tailwise.domain.refusal import SET_ASIDE, is_remade
from tailwise.domain.relocation import Memory, Move, Standpoint, not_moved, relocate, remembered, rested
from tailwise.domain.surge import LONGEST

_LOGGER = logging.getLogger(__name__)

INTERVAL_SECONDS = 15.0
# What a surge waits for comes when it comes: it is looked at more often.
_SURGE_SECONDS = 3.0


@dataclass(slots=True)
class RelocationController:
    """``step`` looks at all pods once; ``run`` does so until cancelled.

    ``profile`` and ``observed`` tell a workload's profile and a pod's measured P90 in milliseconds, None
    where there is none. ``set_aside`` keeps a workload's pods off a node until a time; ``moved`` keeps when
    it was last moved.
    """

    client: Client
    view: ClusterView
    assessor: Assessor
    profile: Callable[[KnownWorkload], object]
    observed: Callable[[Key, str], float | None]
    set_aside: Callable[[Key, str, datetime], None]
    moved: Callable[[Key, datetime], None]
    record: Callable[[Event], None]
    surges: Surges
    memory: Memory = field(default_factory=Memory)

    async def run(self) -> None:
        """Look, move, wait; an API server that does not answer is asked again the next time."""
        looked_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(_SURGE_SECONDS)
            try:
                await self.surges.step(datetime.now(UTC))
                if asyncio.get_running_loop().time() - looked_at >= INTERVAL_SECONDS:
                    looked_at = asyncio.get_running_loop().time()
                    await self.step(datetime.now(UTC))
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                _LOGGER.warning("relocation: %s; trying again", error or type(error).__name__)

    async def step(self, now: datetime) -> None:
        """Decide once and move what is to move."""
        standpoints: list[Standpoint] = []
        for known in tuple(self.view.registry.workloads.values()):
            standpoints += await self._standpoints(known, now)
        before = self.memory
        self.memory, moves = relocate(before, standpoints, now)
        for move in moves:
            workload = move.standpoint.workload
            if await self._move(move, now):
                self.moved(Key(*workload), now)
            else:
                self.memory = not_moved(self.memory, workload, before.moved.get(workload))

    async def _standpoints(self, known: KnownWorkload, now: datetime) -> list[Standpoint]:
        spec = known.workload.spec if known.workload is not None else None
        policy = spec.placement.relocation if spec is not None else None
        profile = self.profile(known)
        if spec is None or policy is None or policy.mode is RelocationMode.NEVER:
            return []
        if not isinstance(profile, ModelProfile):
            return []
        pods = [pod for pod in self.view.pods_of(known.key) if pod.workload == known.key.name]
        for pod in pods:
            await self.view.storage.read_for(pod)
            await self.assessor.prepare(profile, serving_of(pod, spec), latency_model_of(spec))
        # From here on nothing is awaited: all see the same cluster.
        return list(self._looked_at(known.key, spec, policy, profile, pods, now))

    def _looked_at(
        self,
        workload: Key,
        spec: InferenceWorkloadSpec,
        policy: Relocation,
        profile: ModelProfile,
        pods: list[Pod],
        now: datetime,
    ) -> Iterator[Standpoint]:
        settled = all(pod.ready_at is not None and pod.deleted_at is None for pod in pods)
        if spec.template is not None:
            settled = settled and len(pods) == spec.replicas
        standing = self.assessor.standing(pods, now, spec.placement.max_data_age_seconds)
        for pod in pods:
            here = standing.get(pod.uid)
            if here is None or here.source is PredictionSource.STALE or not pod.node_name:
                continue
            if not is_remade(pod) or pod.record is None:
                continue
            found = self.assessor.assess(
                before_placement(pod), spec, profile, now, set_aside=frozenset({pod.node_name})
            )
            best = found.decision.best
            if found.decision.node is None or best is None or best.source is PredictionSource.STALE:
                continue
            yield Standpoint(
                uid=pod.uid,
                workload=(workload.namespace, workload.name),
                node=pod.node_name,
                here_milliseconds=here.p90_milliseconds,
                better_node=best.node,
                there_milliseconds=best.p90_milliseconds,
                slo_milliseconds=spec.slo.latency_milliseconds,
                observed_milliseconds=self.observed(workload, pod.name),
                settled=settled,
                policy=policy,
            )

    async def _move(self, move: Move, now: datetime) -> bool:
        at = move.standpoint
        workload = Key(*at.workload)
        pod = next((pod for pod in self.view.pods_of(workload) if pod.uid == at.uid), None)
        known = self.view.registry.workloads.get(workload)
        if pod is None or known is None or known.workload is None:
            return False
        surge = self.surges.possible(workload)
        if not surge and not await evict(self.client, self.record, pod, move):
            return False
        lasting = max(SET_ASIDE, timedelta(seconds=at.policy.for_seconds))
        self.set_aside(workload, at.node, now + lasting + (LONGEST if surge else timedelta()))
        if surge:
            self.surges.begin(workload, move, known.workload.spec.replicas, now)
        return True

    def done(self, move: Move) -> None:
        """A move that began with a surge is over: only now its nodes are as they will be."""
        nodes = (move.standpoint.node, move.standpoint.better_node)
        self.memory = rested(self.memory, nodes, datetime.now(UTC))


def relocation_by(placement: PlacementController) -> RelocationController:
    """Relocation beside this placement: what it moves, that places."""
    rests = placement.workloads.rests
    surges = Surges(placement.client, placement.view, placement.record, placement.workload_changed)
    placement.workloads.surging = surges.replicas
    controller = RelocationController(
        placement.client,
        placement.view,
        placement.assessor,
        placement.workloads.profile,
        placement.workloads.observed_milliseconds,
        placement.refused.avoid,
        rests.moved,
        placement.record,
        surges,
        remembered({(key.namespace, key.name): at for key, at in rests.moves.items()}, datetime.now(UTC)),
    )
    surges.done = controller.done
    return controller
