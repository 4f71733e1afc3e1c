"""A workload's status as a pure function of what is known: the decisions of ``inference_workload``.

Placements are read from the pods' own annotations, which the patch that opened the gate wrote: a restarted
operator says the same as the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from tailwise.api.conditions import INFERENCE_WORKLOAD_CONDITIONS, Reason
from tailwise.api.inference_workload_status import (
    MAX_PLACEMENTS,
    AvoidedNode,
    CandidateSummary,
    InferenceWorkloadStatus,
    Placement,
    PlacementResult,
    PodCounts,
    PredictionSource,
    ServingLatencyModel,
)
from tailwise.api.labels import WORKLOAD_LABEL
from tailwise.api.not_implemented import unimplemented_workload_fields
from tailwise.api.profile import ModelProfile
from tailwise.controllers import workload_findings as findings
from tailwise.controllers.conditions import Finding
from tailwise.controllers.profiles import Answer, ProfileFailure, ProfileQuestion
from tailwise.controllers.registry import KnownWorkload
from tailwise.controllers.residents import Standing
from tailwise.controllers.view import made_by
from tailwise.domain.conditions import with_findings
from tailwise.domain.objects import Pod
from tailwise.domain.record import PlacementRecord
from tailwise.telemetry.observed import LatencyObservation

# Changes of a latency below these are noise; each would be a write.
_OBSERVED_STEP, _PREDICTED_STEP = 0.05, 0.1


class _Prediction(TypedDict):
    predicted_p50_milliseconds: int | None
    predicted_p90_milliseconds: int | None
    bound_milliseconds: int | None
    source: PredictionSource | None
    latency_model_version: int | None
    data_age_seconds: int | None


class DeploymentOutcome(StrEnum):
    """What became of the Deployment that a template asks for."""

    NOT_ASKED = "NotAsked"
    APPLIED = "Applied"
    NOT_OURS = "NotOurs"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class PlacementNote:
    """The last decision for any of the workload's pods, and why pods wait if they do."""

    reason: Reason
    message: str
    candidates: CandidateSummary | None = None


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """All that a workload's status is made from."""

    known: KnownWorkload
    pods: Sequence[Pod]
    profile: Answer | None
    deployment: DeploymentOutcome
    deployment_message: str
    note: PlacementNote | None
    observation: LatencyObservation | None
    latency_model_missing: str | None
    now: datetime
    # What is predicted now for pods where they stand, by uid.
    standing: Mapping[str, Standing] = field(default_factory=dict)
    avoided: tuple[AvoidedNode, ...] = ()
    last_moved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WorkloadVerdict:
    """The status to write, and what of it is worth an event."""

    status: InferenceWorkloadStatus
    findings: tuple[Finding, ...]


def workload_verdict(facts: WorkloadFacts) -> WorkloadVerdict:
    """Work the status out."""
    known, before = facts.known, facts.known.status
    mine = [pod for pod in facts.pods if pod.workload == known.key.name and pod.deleted_at is None]
    placements = _placements(mine, before, facts)
    counts = _counts(mine)
    found = _findings(facts, mine, counts, placements)
    profile = facts.profile if isinstance(facts.profile, ModelProfile) else None
    workload = known.workload
    question = ProfileQuestion.of(workload.spec, known.key.namespace) if workload else None
    status = InferenceWorkloadStatus(
        observed_generation=known.generation,
        conditions=with_findings(
            before.conditions,
            found,
            generation=known.generation,
            now=facts.now,
            order=INFERENCE_WORKLOAD_CONDITIONS,
        ),
        profile=profile,
        profile_key=question.key(profile) if profile and question else None,
        replicas=len(mine),
        ready_replicas=sum(pod.ready_at is not None for pod in mine),
        selector=f"{WORKLOAD_LABEL}={known.key.name}",
        pods=counts,
        placements=placements,
        predicted_p90_milliseconds=max(
            (each.predicted_p90_milliseconds for each in placements if each.predicted_p90_milliseconds),
            default=None,
        ),
        observed_p90_milliseconds=_observed(before.observed_p90_milliseconds, facts.observation),
        candidates=facts.note.candidates if facts.note and facts.note.candidates else before.candidates,
        latency_model=_serving(facts),
        avoided_nodes=facts.avoided,
        last_moved_at=facts.last_moved_at,
    )
    return WorkloadVerdict(status, found)


def _serving(facts: WorkloadFacts) -> ServingLatencyModel:
    """Which LatencyModel answers: the one that is asked for, while it is there."""
    workload = facts.known.workload
    reference = workload.spec.latency_model_ref if workload else None
    if reference is None or facts.latency_model_missing:
        return ServingLatencyModel()
    return ServingLatencyModel(name=reference.name)


def settles_at(facts: WorkloadFacts) -> datetime | None:
    """When the verdict changes by time alone; None if it does not."""
    created = facts.known.workload.metadata.creation_timestamp if facts.known.workload else None
    grace = created + findings.NO_PODS_GRACE if created else None
    return grace if grace is not None and not facts.pods and grace > facts.now else None


def claimed_twice(pod: Pod) -> bool:
    """Whether a pod's label names one workload while another's template made it."""
    maker = made_by(pod)
    return maker is not None and pod.workload is not None and maker != pod.workload


def _findings(
    facts: WorkloadFacts, mine: Sequence[Pod], counts: PodCounts, placements: Sequence[Placement]
) -> tuple[Finding, ...]:
    workload = facts.known.workload
    unsupported = unimplemented_workload_fields(workload.spec) if workload else []
    supported = findings.supported(facts.known.fault, unsupported)
    if workload is None:
        return findings.unreadable(supported)
    spec = workload.spec
    profiled = findings.profiled(
        spec.model.profile is not None and spec.model.profile.is_complete,
        facts.profile,
    )
    foreign = sorted(
        {f"{pod.name} ({made_by(pod)} and {pod.workload})" for pod in facts.pods if claimed_twice(pod)}
    )
    note = _lasting_note(facts)
    placed = findings.placed(
        counts=counts,
        reason=note.reason if note else None,
        message=note.message if note else "",
        claimed_twice=foreign,
        without_gate=[pod.name for pod in mine if not pod.waits and pod.record is None],
        unschedulable=[
            f"{pod.name}: {pod.unschedulable_message}"
            for pod in mine
            if pod.unschedulable_message and pod.record and pod.record.result is PlacementResult.PLACED
        ],
    )
    attainable = findings.attainable(
        spec.slo,
        [each.bound_milliseconds for each in placements if each.bound_milliseconds is not None],
        facts.note.reason if facts.note else None,
        facts.note.message if facts.note else "",
    )
    observed = findings.observed(spec, facts.observation)
    ready = findings.ready(
        findings.Replicas(
            wanted=spec.replicas if spec.template else None,
            present=len(mine),
            ready=sum(pod.ready_at is not None for pod in mine),
        ),
        deployment_reason={
            DeploymentOutcome.NOT_OURS: Reason.DEPLOYMENT_NOT_OURS,
            DeploymentOutcome.REFUSED: Reason.TEMPLATE_REFUSED,
        }.get(facts.deployment),
        deployment_message=facts.deployment_message,
        latency_model_missing=facts.latency_model_missing,
        age=facts.now - (workload.metadata.creation_timestamp or facts.now),
        label=f"{WORKLOAD_LABEL}: {facts.known.key.name}",
        others=(supported, profiled, placed),
    )
    return (ready, supported, profiled, placed, attainable, observed)


def _lasting_note(facts: WorkloadFacts) -> PlacementNote | None:
    """The note on the last decision; one made while the model was being read says what came of that."""
    note = facts.note
    if note is None or note.reason is not Reason.WAITING_FOR_PROFILE:
        return note
    if isinstance(facts.profile, ProfileFailure):
        reason, message = findings.describe_failure(facts.profile)
        return PlacementNote(reason, message, note.candidates)
    return note


def _counts(pods: Sequence[Pod]) -> PodCounts:
    pending = sum(pod.waits for pod in pods)
    placed = sum(
        not pod.waits and pod.record is not None and pod.record.result is PlacementResult.PLACED
        for pod in pods
    )
    return PodCounts(pending=pending, placed=placed, fallback=len(pods) - pending - placed)


def _placements(
    pods: Sequence[Pod], before: InferenceWorkloadStatus, facts: WorkloadFacts
) -> tuple[Placement, ...]:
    known = {each.pod: each for each in before.placements}
    decided = [(pod, pod.record) for pod in pods if pod.record is not None and not pod.waits]
    decided.sort(key=lambda pair: (pair[1].decided_at or pair[0].created_at, pair[0].name), reverse=True)
    placements = [
        _placement(pod, record, known.get(pod.name), facts) for pod, record in decided[:MAX_PLACEMENTS]
    ]
    return tuple(sorted(placements, key=lambda each: each.pod))


def _placement(
    pod: Pod, record: PlacementRecord, before: Placement | None, facts: WorkloadFacts
) -> Placement:
    seen = facts.observation.pods.get(pod.name) if facts.observation else None
    placed = record.result is PlacementResult.PLACED
    standing = facts.standing.get(pod.uid) if placed else None
    # Of several feasible nodes kube-scheduler may have chosen another than the one named first.
    node = pod.node_name or record.node if placed else record.node
    if before is not None and before.node != node:
        before = None
    return Placement(
        pod=pod.name,
        node=node,
        result=record.result,
        **_predicted(record, before, standing),
        decided_at=record.decided_at,
        observed_p90_milliseconds=_steady(
            before.observed_p90_milliseconds if before else None, seen.milliseconds if seen else None
        ),
    )


def _told(by: PlacementRecord | Placement) -> _Prediction:
    return _Prediction(
        predicted_p50_milliseconds=by.predicted_p50_milliseconds,
        predicted_p90_milliseconds=by.predicted_p90_milliseconds,
        bound_milliseconds=by.bound_milliseconds,
        source=by.source,
        latency_model_version=by.latency_model_version,
        data_age_seconds=by.data_age_seconds,
    )


def _predicted(record: PlacementRecord, before: Placement | None, standing: Standing | None) -> _Prediction:
    """What is predicted under the load of now; what was decided on while nothing newer is known.

    Figures change together or not at all, and only by more than noise: each change is a write.
    """
    told = _told(record)
    if before is not None and before.predicted_p90_milliseconds is not None:
        told = _told(before)
    if standing is None:
        return told
    p90 = told["predicted_p90_milliseconds"]
    renewed = max(1, round(standing.p90_milliseconds))
    by_whom = (told["source"], told["latency_model_version"])
    if (
        p90 is not None
        and abs(renewed - p90) <= _PREDICTED_STEP * p90
        and by_whom == (standing.source, standing.version)
    ):
        return told
    return _Prediction(
        predicted_p50_milliseconds=max(1, round(standing.p50_milliseconds)),
        predicted_p90_milliseconds=renewed,
        bound_milliseconds=max(1, math.ceil(standing.bound_milliseconds)),
        source=standing.source,
        latency_model_version=standing.version,
        data_age_seconds=None if standing.age_seconds is None else round(standing.age_seconds),
    )


def _observed(before: int | None, observation: LatencyObservation | None) -> int | None:
    latency = observation.workload if observation else None
    return _steady(before, latency.milliseconds if latency else None)


def _steady(before: int | None, value: float | None) -> int | None:
    """The new value, or the one before where the difference is noise or nothing is seen any more."""
    if value is None:
        return before
    rounded = max(1, round(value))
    if before is not None and abs(rounded - before) <= _OBSERVED_STEP * before:
        return before
    return rounded
