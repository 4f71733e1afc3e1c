"""InferenceWorkloads: collect what is known, decide the status (``workload_status``), apply what differs.

Two writes at most: the Deployment of a template, and the status. Either is left out when nothing changed,
and a status is written once in a few seconds whatever happens, so that a thousand pods that start at once
are not a thousand writes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tailwise.api.conditions import ConditionStatus, ConditionType, EventReason, Reason
from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.inference_workload_status import MAX_PLACEMENTS, InferenceWorkloadStatus
from tailwise.api.placement_policy import PlacementPolicy
from tailwise.api.profile import ModelProfile
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, ApiError, Client
from tailwise.cluster.events import Event, Regarding, warning
from tailwise.cluster.reflector import Key
from tailwise.controllers.conditions import Finding, turned_up
from tailwise.controllers.deployment import deployment_manifest, is_owned
from tailwise.controllers.profiles import Answer, ProfileQuestion, ProfileStore
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.residents import Standing
from tailwise.controllers.rests import Rests
from tailwise.controllers.view import ClusterView
from tailwise.controllers.workload_status import (
    DeploymentOutcome,
    PlacementNote,
    WorkloadFacts,
    WorkloadVerdict,
    settles_at,
    workload_verdict,
)
from tailwise.domain.objects import Pod
from tailwise.telemetry.observed import LatencyObservation

_LOGGER = logging.getLogger(__name__)

# The more a status says, the more its write costs: one of a hundred placements costs the API server as much
# as four pods, and thousands of pods change it thousands of times.
_LEAST_SECONDS_BETWEEN_STATUSES, _SECONDS_A_PLACEMENT = 2.0, 0.1


@dataclass(frozen=True, slots=True)
class _Deployed:
    """What was last applied: for which workload, and what the API server then held."""

    workload_uid: str
    workload_generation: int
    deployment_generation: int
    outcome: DeploymentOutcome
    message: str = ""
    surging: int = 0


@dataclass(frozen=True, slots=True)
class _Written:
    """The status last written, which the watch may not have told back yet, and when."""

    uid: str
    status: InferenceWorkloadStatus
    at: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a workload asks of its model; worked out once, for every pod asks it several times.

    ``given``: the profile that its author wrote whole. ``stored``: the one that its status has, where that
    answers the same question.
    """

    workload: InferenceWorkload
    question: ProfileQuestion
    given: ModelProfile | None
    stored: ModelProfile | None


def _asked(known: KnownWorkload, workload: InferenceWorkload) -> _Asked:
    spec, stored, key = workload.spec, known.status.profile, known.status.profile_key
    question = ProfileQuestion.of(spec, known.key.namespace)
    written = spec.model.profile
    given = None
    if written is not None and written.is_complete:
        given = written.as_profile(spec.load.batch_size)
    answers = stored is not None and key is not None and question.made(key)
    return _Asked(workload, question, given, stored if answers else None)


_NOT_ASKED = _Deployed("", 0, 0, DeploymentOutcome.NOT_ASKED)


class InferenceWorkloadController:
    """Works on one workload at a time; ``reconcile`` is what the queue calls."""

    def __init__(
        self,
        client: Client,
        view: ClusterView,
        profiles: ProfileStore,
        record: Callable[[Event], None],
        standing: Callable[[Sequence[Pod], PlacementPolicy], Mapping[str, Standing]],
    ) -> None:
        self._client = client
        self._view = view
        self._profiles = profiles
        self._record = record
        self._standing = standing
        self.rests = Rests()
        # Replicas on top of the workload's own, while a pod moves.
        self.surging: Callable[[Key], int] = lambda _: 0
        self._notes: dict[Key, PlacementNote] = {}
        self._observations: dict[Key, LatencyObservation] = {}
        self._asked: dict[Key, _Asked] = {}
        self._deployed: dict[Key, _Deployed] = {}
        self._written: dict[Key, _Written] = {}

    # ---- told by others

    def note(self, workload: Key, note: PlacementNote) -> bool:
        """Take what the placement of a pod came to; True when it is news."""
        news = self._notes.get(workload) != note
        self._notes[workload] = note
        return news

    def observe(self, workload: Key, observation: LatencyObservation) -> None:
        """Take what was seen of a workload's latency."""
        self._observations[workload] = observation

    def observed_milliseconds(self, workload: Key, pod: str) -> float | None:
        """A pod's own latency as last observed; None where nobody measures."""
        observation = self._observations.get(workload)
        latency = observation.pods.get(pod) if observation else None
        return latency.milliseconds if latency else None

    def profile(self, known: KnownWorkload) -> Answer | None:
        """The profile that predictions for a workload use: given, read, or None while it is being read."""
        if known.workload is None:
            return None
        asked = self._asked.get(known.key)
        if asked is None or asked.workload is not known.workload:
            asked = self._asked[known.key] = _asked(known, known.workload)
            # A stored profile with overridden figures in it is nobody else's answer.
            if asked.stored is not None and asked.workload.spec.model.profile is None:
                self._profiles.seed(asked.question, asked.stored)
        if asked.given is not None:
            return asked.given
        answer = self._profiles.get(asked.question)
        override = asked.workload.spec.model.profile
        return override.over(answer) if override and isinstance(answer, ModelProfile) else answer

    # ---- the queue's handler

    async def reconcile(self, key: Key) -> float | None:
        """Bring a workload's Deployment and status up to date; returns when to look again."""
        known = self._view.registry.workloads.get(key)
        if known is None:
            self._forget(key)
            return None
        wait = self._wait(key)
        deployed = await self._deploy(known)
        if wait > 0:
            return wait
        facts = self._collect(known, deployed)
        verdict = workload_verdict(facts)
        await self._apply(facts, verdict)
        settles = settles_at(facts)
        return (settles - facts.now).total_seconds() + 0.1 if settles else None

    def _wait(self, key: Key) -> float:
        written = self._written.get(key)
        if written is None:
            return 0.0
        placements = min(MAX_PLACEMENTS, self._view.pods_count(key))
        least = _LEAST_SECONDS_BETWEEN_STATUSES + _SECONDS_A_PLACEMENT * placements
        return written.at + least - time.monotonic()

    def _collect(self, known: KnownWorkload, deployed: _Deployed) -> WorkloadFacts:
        state = self._view.deployments.get(known.key.namespace, known.key.name)
        fault = state.fault if state is not None and state.owner_uid == known.uid else ""
        outcome, message = deployed.outcome, deployed.message
        if fault and outcome is DeploymentOutcome.APPLIED:
            outcome = DeploymentOutcome.REFUSED
            message = f"spec.template: its pods cannot be created: {fault}"
        written = self._written.get(known.key)
        if written is not None and written.uid == known.uid:
            known = replace(known, status=written.status)
        now = datetime.now(UTC)
        pods = tuple(self._view.pods_of(known.key))
        standing = self._standing(pods, known.workload.spec.placement) if known.workload else {}
        return WorkloadFacts(
            known=known,
            pods=pods,
            profile=self.profile(known),
            deployment=outcome,
            deployment_message=message,
            note=self._notes.get(known.key),
            observation=self._observations.get(known.key),
            latency_model_missing=self._missing_latency_model(known.workload),
            now=now,
            standing=standing,
            avoided=self.rests.avoided(known.key, now),
            last_moved_at=self.rests.last_moved_at(known.key),
        )

    def _missing_latency_model(self, workload: InferenceWorkload | None) -> str | None:
        reference = workload.spec.latency_model_ref if workload else None
        if reference is None or reference.name in self._view.registry.latency_models:
            return None
        return reference.name

    # ---- the Deployment

    async def _deploy(self, known: KnownWorkload) -> _Deployed:
        workload = known.workload
        if workload is None or workload.spec.template is None:
            return _NOT_ASKED
        state = self._view.deployments.get(known.key.namespace, known.key.name)
        last = self._deployed.get(known.key)
        generation = state.generation if state is not None else 0
        if (
            last is not None
            and (last.workload_uid, last.workload_generation) == (known.uid, known.generation)
            and last.surging == self.surging(known.key)
            and (generation == last.deployment_generation or last.outcome is DeploymentOutcome.REFUSED)
        ):
            return last
        deployed = await self._apply_deployment(known, workload)
        self._deployed[known.key] = deployed
        return deployed

    async def _apply_deployment(self, known: KnownWorkload, workload: InferenceWorkload) -> _Deployed:
        surging = self.surging(known.key)

        def made(outcome: DeploymentOutcome, generation: int = 0, message: str = "") -> _Deployed:
            return _Deployed(known.uid, known.generation, generation, outcome, message, surging)

        existing = await self._read_deployment(known.key)
        uid = None
        if existing is not None:
            if not is_owned(existing, known.uid):
                message = (
                    f"Deployment {known.key} exists and does not belong to this InferenceWorkload; rename "
                    "the InferenceWorkload, or delete the Deployment"
                )
                return made(DeploymentOutcome.NOT_OURS, 0, message)
            uid = existing["metadata"]["uid"]
        # Not forced when it is to be made: a Deployment that somebody makes meanwhile is not taken over.
        manifest = deployment_manifest(workload, uid=uid, surging=surging)
        written = await apply.apply(self._client, DEPLOYMENTS, manifest, force=uid is not None)
        if written.done:
            return made(DeploymentOutcome.APPLIED, int(written.object["metadata"].get("generation") or 0))
        if written.outcome is Outcome.REFUSED:
            return made(DeploymentOutcome.REFUSED, 0, f"spec.template is refused: {written.message}")
        if written.outcome is Outcome.NOT_FOUND:  # the namespace is going, and the workload with it
            return _NOT_ASKED
        raise RuntimeError(f"Deployment {known.key} changed meanwhile: {written.message}")

    async def _read_deployment(self, key: Key) -> dict[str, Any] | None:
        try:
            return await self._client.request("GET", DEPLOYMENTS.path(key.namespace, key.name))
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            raise

    # ---- the status

    async def _apply(self, facts: WorkloadFacts, verdict: WorkloadVerdict) -> None:
        known = facts.known
        if _document(known.status) != _document(verdict.status):
            result = await apply.apply_status(
                self._client,
                INFERENCE_WORKLOADS,
                namespace=known.key.namespace,
                name=known.key.name,
                uid=known.uid,
                status=_document(verdict.status),
            )
            if result.outcome is Outcome.NOT_FOUND:
                return
            if not result.done:
                raise RuntimeError(f"status of {known.key} refused: {result.message}")
            self._written[known.key] = _Written(known.uid, verdict.status, time.monotonic())
        self._tell(known, verdict)

    def _tell(self, known: KnownWorkload, verdict: WorkloadVerdict) -> None:
        for finding in turned_up(known.status.conditions, verdict.findings):
            self._record(_event(known.regarding, finding))

    def _forget(self, key: Key) -> None:
        self._asked.pop(key, None)
        self._notes.pop(key, None)
        self._observations.pop(key, None)
        self._deployed.pop(key, None)
        self._written.pop(key, None)
        self.rests.forget(key)


def _event(about: Regarding, finding: Finding) -> Event:
    reason = _EVENT_REASONS.get(finding.reason, finding.reason.value)
    if finding.type is ConditionType.MODEL_PROFILED and finding.status is ConditionStatus.FALSE:
        reason = EventReason.MODEL_UNREADABLE
    return warning(about, reason, finding.message, finding.reason.value)


# Where an event's reason is not the condition's own.
_EVENT_REASONS: dict[Reason, str] = {
    Reason.NOT_IMPLEMENTED: EventReason.SPEC_NOT_SUPPORTED,
    Reason.PODS_CLAIMED_TWICE: EventReason.CLAIMED_TWICE,
    Reason.NO_NODE_MEETS_SLO: EventReason.NO_FEASIBLE_NODE,
}


def _document(status: InferenceWorkloadStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
