"""Moving pods that run, through the Eviction API, so that disruption budgets hold.

Every few seconds: where each pod of a workload with ``spec.placement.relocation`` stands and what the best
other node would be, the same way as for a new pod; ``domain.relocation`` decides. An evicted pod is made
again by its controller, gated, and placed as any other, with the node it left set aside for a while.
Nothing is moved on data that is stale: not knowing is no reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import aiohttp

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.placement_policy import Relocation, RelocationMode
from tailwise.api.profile import ModelProfile
from tailwise.cluster import apply, events
from tailwise.cluster.client import PODS, ApiError, Client
from tailwise.cluster.events import Event, Regarding
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.placement import PlacementController
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod
from tailwise.domain.placement import before_placement
from tailwise.domain.refusal import SET_ASIDE, is_remade
from tailwise.domain.relocation import Memory, Move, Standpoint, relocate

_LOGGER = logging.getLogger(__name__)

INTERVAL_SECONDS = 15.0


@dataclass(slots=True)
class RelocationController:
    """``step`` looks at all pods once; ``run`` does so until cancelled.

    ``profile`` and ``observed`` tell a workload's profile and a pod's measured P90 in milliseconds, None
    where there is none. ``set_aside`` keeps a workload's pods off a node until a time.
    """

    client: Client
    view: ClusterView
    assessor: Assessor
    profile: Callable[[KnownWorkload], object]
    observed: Callable[[Key, str], float | None]
    set_aside: Callable[[Key, str, datetime], None]
    record: Callable[[Event], None]
    memory: Memory = field(default_factory=Memory)

    async def run(self) -> None:
        """Look, move, wait; an API server that does not answer is asked again the next time."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.step(datetime.now(UTC))
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                _LOGGER.warning("relocation: %s; trying again", error or type(error).__name__)

    async def step(self, now: datetime) -> None:
        """Decide once and evict what is to move."""
        standpoints: list[Standpoint] = []
        for known in tuple(self.view.registry.workloads.values()):
            standpoints += await self._standpoints(known, now)
        before = self.memory
        self.memory, moves = relocate(before, standpoints, now)
        for move in moves:
            if not await self._evict(move, now):
                # The workload has not moved: it need not rest.
                moved = {
                    key: when for key, when in self.memory.moved.items() if key != move.standpoint.workload
                }
                if (earlier := before.moved.get(move.standpoint.workload)) is not None:
                    moved[move.standpoint.workload] = earlier
                self.memory = replace(self.memory, moved=moved)

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

    async def _evict(self, move: Move, now: datetime) -> bool:
        at = move.standpoint
        workload = Key(*at.workload)
        pod = next((pod for pod in self.view.pods_of(workload) if pod.uid == at.uid), None)
        if pod is None:
            return False
        evicted = await apply.evict(
            self.client, pod.namespace, pod.name, uid=pod.uid, resource_version=pod.resource_version
        )
        about = {"object": f"Pod/{pod.namespace}/{pod.name}"}
        if not evicted.done:
            _LOGGER.info("not moved off %s: %s", at.node, evicted.message, extra=about)
            return False
        lasting = max(SET_ASIDE, timedelta(seconds=at.policy.for_seconds))
        self.set_aside(workload, at.node, now + lasting)
        regarding = Regarding.of(PODS, pod.namespace, pod.name, pod.uid)
        self.record(events.moved(regarding, at.node, move.message()))
        _LOGGER.info("moved off %s: %s", at.node, move.message(), extra=about)
        return True


def relocation_by(placement: PlacementController) -> RelocationController:
    """Relocation beside this placement: what it moves, that places."""
    return RelocationController(
        placement.client,
        placement.view,
        placement.assessor,
        placement.workloads.profile,
        placement.workloads.observed_milliseconds,
        placement.refused.avoid,
        placement.record,
    )
