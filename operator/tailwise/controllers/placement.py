"""A gated pod's way: its workload, its profile, a decision, one patch, one event.

Everything a decision needs is in memory, so the only wait is that for the patch. Between looking and
assuming there is no ``await``: decisions of all workers follow one another and each sees those before it.
A pod that cannot be placed waits, is tried again when the cluster changes, and follows its workload's
fallback when its time is up, counted from its creation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tailwise.api.conditions import Reason
from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.inference_workload_status import CandidateSummary
from tailwise.api.labels import WORKLOAD_LABEL
from tailwise.api.placement_policy import PlacementPolicy, Policy
from tailwise.cluster import apply, events
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import PODS, Client
from tailwise.cluster.events import Event, Regarding
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.controllers.inference_workload import InferenceWorkloadController
from tailwise.controllers.prediction_tables import latency_model_of
from tailwise.controllers.profiles import ProfileFailure
from tailwise.controllers.refused_pods import RefusedPods
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.remedy import RemedyFinder
from tailwise.controllers.serving import serving_of
from tailwise.controllers.standing_pods import StandingPods
from tailwise.controllers.view import ClusterView, made_by
from tailwise.controllers.waiting_pods import WaitingPods, likeness
from tailwise.controllers.workload_findings import describe_failure
from tailwise.controllers.workload_status import PlacementNote, claimed_twice
from tailwise.domain.fallback import Hold, Release, fallback_step
from tailwise.domain.feasible import feasible_nodes
from tailwise.domain.objects import Pod, unsupported
from tailwise.domain.placement import (
    placement_annotations,
    record_of,
    release,
    require_any,
    require_node,
)
from tailwise.domain.record import PlacementRecord
from tailwise.domain.refusal import is_refused, is_remade
from tailwise.domain.scoring import DecisionOutcome
from tailwise.domain.verdicts import candidate_summary
from tailwise.telemetry.metrics import OperatorMetrics

_LOGGER = logging.getLogger(__name__)

# A pod often comes a moment before the workload that its label names.
_UNKNOWN_WORKLOAD_GRACE = timedelta(seconds=10)
_SHORTEST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 15.0
_HELD_RETRY_SECONDS = 15.0

_REASONS = {
    DecisionOutcome.NO_NODE_FITS: Reason.NO_FEASIBLE_NODE,
    DecisionOutcome.NO_HARDWARE: Reason.NO_NODE_HARDWARE,
    DecisionOutcome.NO_PREDICTION: Reason.WAITING_FOR_PROFILE,
    DecisionOutcome.SLO_UNATTAINABLE: Reason.NO_NODE_MEETS_SLO,
    DecisionOutcome.OVER_NEIGHBOURS: Reason.NO_FEASIBLE_NODE,
}
_WAYS_OUT = {
    DecisionOutcome.NO_HARDWARE: (
        "; no agent has described these nodes: run the agent's DaemonSet on them (chart values "
        "agent.enabled, agent.nodeSelector, agent.tolerations)"
    ),
    DecisionOutcome.SLO_UNATTAINABLE: (
        "; raise spec.slo.latencyMilliseconds, or give the pods more CPU or faster nodes"
    ),
    DecisionOutcome.OVER_NEIGHBOURS: (
        "; add or free nodes, or set spec.placement.neighbours: Ignore to place it all the same"
    ),
    DecisionOutcome.NO_NODE_FITS: (
        "; lower resources.requests of the pods' containers, ease their other constraints, or add or free "
        "nodes"
    ),
}


@dataclass(frozen=True, slots=True)
class _Undecided:
    """Why a pod could not be placed now. ``no_node``: nodes were looked at, which the pod's event tells."""

    reason: Reason
    message: str
    candidates: CandidateSummary | None = None
    no_node: bool = False


@dataclass(slots=True)
class PlacementController:
    """Works on one pod at a time; ``reconcile`` is what the queue calls."""

    client: Client
    view: ClusterView
    assessor: Assessor
    workloads: InferenceWorkloadController
    record: Callable[[Event], None]
    metrics: OperatorMetrics
    workload_changed: Callable[[Key], None]
    # Told of each pod that was placed, by which decision, when.
    decided: Callable[[Pod, InferenceWorkloadSpec, Assessment, datetime], None] = lambda *_: None
    # Has a pod looked at again, now.
    try_again: Callable[[Key], None] = lambda _: None
    # Pods that wait for something in the cluster to change.
    waiting: WaitingPods[_Undecided] = field(default_factory=WaitingPods)
    # Opened by this process; the watch may still show their gate.
    _opened: set[str] = field(default_factory=set)
    # Also who keeps the pods of a workload off a node for a while.
    refused: RefusedPods = field(init=False)
    standing: StandingPods = field(init=False)
    _remedies: RemedyFinder = field(init=False)

    def __post_init__(self) -> None:
        self.refused = RefusedPods(self.client, self.record, self.workloads.rests, self.workload_changed)
        self.standing = StandingPods(self.view, self.assessor, self.workloads)
        self._remedies = RemedyFinder(self.view, self.assessor)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow what the watch tells of pods."""
        self.standing.pod_changed(old, new)
        gone = old is not None and new is None
        if old is not None and (gone or (new is not None and not new.waits)):
            self._opened.discard(old.uid)
            self._waits(Key(old.namespace, old.name), None)

    async def reconcile(self, key: Key) -> float | None:
        """Place a pod, or say why not; returns when to try again."""
        pod = self.view.pods.get(key.namespace, key.name)
        if pod is not None and is_refused(pod):
            return await self.refused.reconcile(pod, datetime.now(UTC))
        if pod is None or not pod.waits or pod.deleted_at is not None or pod.uid in self._opened:
            self._waits(key, None)
            return None
        workload = Key(pod.namespace, pod.workload or "")
        known = self.view.registry.workloads.get(workload)
        if known is None:
            return await self._unknown_workload(pod)
        if claimed_twice(pod):
            return await self._claimed_twice(pod, known)
        found = await self._answer(pod, known)
        why = await self._place(pod, known, found) if isinstance(found, Assessment) else found
        return await self._undecided(pod, known, why) if why is not None else None

    # ---- decide

    async def _answer(self, pod: Pod, known: KnownWorkload) -> Assessment | _Undecided:
        """The decision, or the answer that another pod of the same making got a moment ago."""
        alike = likeness(pod, known.generation)
        told = self.waiting.answer(Key(pod.namespace, pod.name), alike)
        if told is not None:
            return told
        found = await self._assess(pod, known)
        if isinstance(found, _Undecided) and found.no_node:
            self.waiting.refused_one(alike, found)
        return found

    async def _assess(self, pod: Pod, known: KnownWorkload) -> Assessment | _Undecided:
        """The decision, with the pod assumed on its node; or why there is none."""
        if known.workload is None:
            return _Undecided(Reason.SPEC_INVALID, f"InferenceWorkload {known.key}: {known.fault}")
        if pod.to_bind and (unseen := unsupported(pod)):
            what = ", ".join(unseen)
            return _Undecided(
                Reason.NO_FEASIBLE_NODE,
                f"the pod asks for {what}, which only kube-scheduler checks: use "
                "spec.placement.binding: NodeAffinity",
            )
        profile = self.workloads.profile(known)
        if profile is None:
            return _Undecided(Reason.WAITING_FOR_PROFILE, f"the model of {known.key} is being read")
        if isinstance(profile, ProfileFailure):
            reason, message = describe_failure(profile)
            return _Undecided(reason, message)
        spec = known.workload.spec
        await self.view.storage.read_for(pod)
        await self.assessor.prepare(profile, serving_of(pod, spec), latency_model_of(spec))
        # From here to the return nothing is awaited.
        began = time.perf_counter()
        now = datetime.now(UTC)
        set_aside = self.refused.set_aside(known.key, now)
        assessment = self.assessor.assess(pod, spec, profile, now, set_aside=set_aside)
        decision = assessment.decision
        if decision.node is not None:
            self.assessor.assume(pod, decision.node, (spec, profile), now)
        self.metrics.decided(time.perf_counter() - began)
        if decision.node is not None:
            return assessment
        for refusal, nodes in decision.verdicts.counts():
            self.metrics.rejected(refusal.by.name.lower(), nodes)
        way_out = _WAYS_OUT.get(decision.outcome, "")
        if decision.outcome is DecisionOutcome.SLO_UNATTAINABLE:
            way_out = await self._remedies.find(pod, spec, profile, assessment) or way_out
        return _Undecided(
            _REASONS[decision.outcome],
            decision.message() + way_out,
            candidate_summary(decision.verdicts),
            no_node=True,
        )

    # ---- apply

    async def _place(self, pod: Pod, known: KnownWorkload, assessment: Assessment) -> _Undecided | None:
        decision = assessment.decision
        best = decision.best
        assert best is not None  # noqa: S101 - _assess has seen to it
        now = datetime.now(UTC)
        try:
            written = await self._send(pod, known, assessment, record_of(best, now))
        except BaseException:
            # The answer is unknown: the watch will tell, and until then the pod counts where it was sent.
            self.metrics.placed("Failed")
            raise
        if written is not None:
            self.assessor.take_back(pod.uid)
            self.metrics.placed("Failed")
            return written
        self.metrics.placed("Placed", (now - pod.created_at).total_seconds())
        self.metrics.predicted(best.source.value)
        if known.workload is not None:
            self.decided(pod, known.workload.spec, assessment, now)
        self._waits(Key(pod.namespace, pod.name), None)
        for key in self.waiting.placed_one(likeness(pod, known.generation)):
            self.try_again(key)
        sentence = decision.message()
        self.record(events.placed(_regarding(pod), sentence, known.regarding))
        note = PlacementNote(Reason.ALL_PODS_PLACED, "", candidate_summary(decision.verdicts))
        self.workloads.note(known.key, note)
        self.workload_changed(known.key)
        # The pod's annotations and the events say it to everybody; a burst would be thousands of lines.
        _LOGGER.debug("%s", sentence, extra={"object": f"Pod/{pod.namespace}/{pod.name}"})
        return None

    async def _send(
        self, pod: Pod, known: KnownWorkload, assessment: Assessment, record: PlacementRecord
    ) -> _Undecided | None:
        """The one write that places the pod; None when it is placed, by this write or by another."""
        if not pod.to_bind:
            return await self._patch(pod, self._operations(pod, known, assessment, record))
        annotations = placement_annotations(pod, record)
        bound = await apply.bind(
            self.client, pod.namespace, pod.name, uid=pod.uid, node=record.node, annotations=annotations
        )
        return self._sent(pod, bound)

    def _operations(
        self, pod: Pod, known: KnownWorkload, assessment: Assessment, record: PlacementRecord
    ) -> list[dict[str, Any]]:
        """The patch: the winner alone, or all feasible nodes where the policy or the pod's making asks it."""
        policy = known.workload.spec.placement if known.workload else PlacementPolicy()
        several = policy.policy is Policy.FEASIBLE
        if several or not is_remade(pod):
            nodes = feasible_nodes(
                assessment.decision,
                assessment.predicted.bound_milliseconds,
                assessment.table,
                objective=policy.objective,
                insist_on_winner=not several,
            )
            if nodes:
                return require_any(pod, nodes, record)
        return require_node(pod, record.node, record)

    async def _patch(self, pod: Pod, operations: Sequence[dict[str, Any]]) -> _Undecided | None:
        """Send the one patch; None when the gate is open, by this patch or by somebody else's."""
        return self._sent(pod, await apply.patch_json(self.client, PODS, pod.namespace, pod.name, operations))

    def _sent(self, pod: Pod, written: apply.Written) -> _Undecided | None:
        if written.done:
            self._opened.add(pod.uid)
            return None
        if written.outcome is Outcome.REFUSED:
            message = (
                f"the API server refused the placement of Pod {pod.namespace}/{pod.name}: {written.message}"
            )
            _LOGGER.warning("%s", message)
            return _Undecided(Reason.PODS_PENDING, message)
        if written.outcome is Outcome.NOT_FOUND:
            return _Undecided(Reason.PODS_PENDING, "the pod is gone")
        return _Undecided(Reason.PODS_PENDING, "the pod changed meanwhile")

    async def _undecided(self, pod: Pod, known: KnownWorkload, why: _Undecided) -> float | None:
        policy = known.workload.spec.placement if known.workload else PlacementPolicy()
        now = datetime.now(UTC)
        step = fallback_step(
            pod.created_at, now, timeout_seconds=policy.timeout_seconds, fallback=policy.fallback
        )
        if why.no_node:
            self.record(events.no_feasible_node(_regarding(pod), why.message, known.regarding))
        if isinstance(step, Release) and pod.to_bind:
            # No other scheduler takes it: it can only wait.
            step = Hold()
        if isinstance(step, Release):
            return await self._release(pod, known, _at_the_end(why, known, policy.timeout_seconds))
        first = self._waits(
            Key(pod.namespace, pod.name), likeness(pod, known.generation) if why.no_node else pod.uid
        )
        self._note(known.key, PlacementNote(why.reason, why.message, why.candidates))
        if isinstance(step, Hold):
            # While the model is being read the condition says so; what is told of it stays told.
            if why.reason is not Reason.WAITING_FOR_PROFILE:
                self.record(events.held(_regarding(pod), why.message, known.regarding, to_bind=pod.to_bind))
            return _HELD_RETRY_SECONDS if first else None
        # The longer a pod has waited, the less likely that a moment more makes the difference.
        waited = (now - pod.created_at).total_seconds()
        retry = min(max(waited / 4, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
        left = (step.until - now).total_seconds()
        return max(0.05, min(retry, left) if first else left)

    async def _release(self, pod: Pod, known: KnownWorkload | None, why: _Undecided) -> float | None:
        now = datetime.now(UTC)
        failed = await self._patch(pod, release(pod, now))
        if failed is not None:
            self.metrics.placed("Failed")
            return _SHORTEST_RETRY_SECONDS
        self.metrics.placed("Fallback", (now - pod.created_at).total_seconds())
        self._waits(Key(pod.namespace, pod.name), None)
        if known is not None:  # else the event on its label tells this too
            self.record(events.fell_back(_regarding(pod), why.message, known.regarding))
            self._note(known.key, PlacementNote(why.reason, why.message, why.candidates))
        _LOGGER.info(
            "left to the default scheduler: %s",
            why.message,
            extra={"object": f"Pod/{pod.namespace}/{pod.name}"},
        )
        return None

    # ---- pods that no one workload answers for

    async def _unknown_workload(self, pod: Pod) -> float | None:
        now = datetime.now(UTC)
        until = min(pod.created_at, now) + _UNKNOWN_WORKLOAD_GRACE
        if now < until:
            return (until - now).total_seconds()
        name = pod.workload or ""
        self.record(events.unknown_workload(_regarding(pod), name, to_bind=pod.to_bind))
        if pod.to_bind:
            return _HELD_RETRY_SECONDS
        message = f"label {WORKLOAD_LABEL}: namespace {pod.namespace} has no InferenceWorkload {name}"
        return await self._release(pod, None, _Undecided(Reason.NO_PODS, message))

    async def _claimed_twice(self, pod: Pod, known: KnownWorkload) -> float | None:
        maker = made_by(pod) or ""
        self.record(events.claimed_twice(_regarding(pod), known.key.name, maker))
        message = (
            f"two workloads claim the pod: its label names {known.key.name}, the template of {maker} made it"
        )
        why = _Undecided(Reason.PODS_CLAIMED_TWICE, message)
        return await self._undecided(pod, known, why)

    def _waits(self, key: Key, alike: Hashable | None) -> bool:
        """A pod waits, or (None) does so no longer; True when it is tried for those like it."""
        first = alike is not None and self.waiting.add(key, alike)
        if alike is None and (heir := self.waiting.discard(key)) is not None:
            self.try_again(heir)
        self.metrics.gated(len(self.waiting))
        return first

    def _note(self, workload: Key, note: PlacementNote) -> None:
        if self.workloads.note(workload, note):
            self.workload_changed(workload)


def _at_the_end(why: _Undecided, known: KnownWorkload, timeout_seconds: int) -> _Undecided:
    """Why a pod is let go, in words that stay true: an event cannot be changed once the model is read."""
    if why.reason is not Reason.WAITING_FOR_PROFILE:
        return why
    message = (
        f"the model of InferenceWorkload {known.key} was not read within spec.placement.timeoutSeconds "
        f"({timeout_seconds} s); its condition ModelProfiled says what came of it"
    )
    return replace(why, message=message)


def _regarding(pod: Pod) -> Regarding:
    return Regarding.of(PODS, pod.namespace, pod.name, pod.uid)
