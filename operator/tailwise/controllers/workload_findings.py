"""What each condition of a workload says: one pure function a condition, the words beside their rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tailwise.api.conditions import ConditionStatus, ConditionType, Reason
from tailwise.api.inference_workload import InferenceWorkloadSpec, Slo
from tailwise.api.inference_workload_status import PodCounts
from tailwise.api.profile import Completeness
from tailwise.controllers.conditions import Finding, bad, good, unknown
from tailwise.controllers.profiles import Answer, ProfileFailure
from tailwise.models import errors
from tailwise.telemetry.observed import LatencyObservation, NoLatency

# A workload is often applied just before what makes its pods.
NO_PODS_GRACE = timedelta(seconds=10)
_NAMED = 3

_MODEL_REASONS: dict[str, Reason] = {
    errors.InvalidUrl.reason: Reason.MODEL_UNREADABLE,
    errors.ModelUnreachable.reason: Reason.MODEL_UNREACHABLE,
    errors.ModelNotFound.reason: Reason.MODEL_NOT_FOUND,
    errors.ModelForbidden.reason: Reason.MODEL_FORBIDDEN,
    errors.ModelTruncated.reason: Reason.MODEL_INVALID,
    errors.NotAModel.reason: Reason.MODEL_INVALID,
    errors.ModelTooLarge.reason: Reason.MODEL_TOO_LARGE,
    errors.AddressRefused.reason: Reason.ADDRESS_REFUSED,
    errors.DynamicShape.reason: Reason.INPUT_SHAPES_MISSING,
    errors.DigestMismatch.reason: Reason.DIGEST_MISMATCH,
    errors.InspectionTimeout.reason: Reason.MODEL_READ_TIMED_OUT,
    errors.InspectionCrashed.reason: Reason.MODEL_UNREADABLE,
    errors.InspectionJobFailed.reason: Reason.INSPECTION_JOB_FAILED,
}


_BY_HAND = "give spec.model.profile by hand"
_MODEL_WAYS_OUT: dict[Reason, str] = {
    Reason.MODEL_UNREACHABLE: "check the host, and that the operator's pod may reach it",
    Reason.MODEL_FORBIDDEN: "name a Secret in spec.model.secretRef, or a service account in "
    f"spec.model.serviceAccountName, that may read it, or {_BY_HAND}",
    Reason.MODEL_INVALID: "give the URL of a whole ONNX file",
    Reason.MODEL_TOO_LARGE: _BY_HAND,
    Reason.DIGEST_MISMATCH: "correct it, or the file",
    Reason.MODEL_UNREADABLE: _BY_HAND,
}


def supported(fault: str, unsupported: Sequence[str]) -> Finding:
    """SpecSupported: the spec can be read, and every field in use has its behaviour."""
    if fault:
        message = f"{fault}; correct it, or install the CRDs of this operator's version"
        return bad(ConditionType.SPEC_SUPPORTED, Reason.SPEC_INVALID, message)
    if unsupported:
        message = (
            f"this version does not act upon {', '.join(unsupported)}; it goes on as if they were left out"
        )
        return bad(ConditionType.SPEC_SUPPORTED, Reason.NOT_IMPLEMENTED, message)
    message = "every field that the spec uses is acted upon"
    return good(ConditionType.SPEC_SUPPORTED, Reason.ALL_FIELDS_SUPPORTED, message)


def unreadable(fault: Finding) -> tuple[Finding, ...]:
    """All conditions of a workload whose spec cannot be read."""
    message = "the spec cannot be read, see SpecSupported"
    return (
        bad(ConditionType.READY, Reason.SPEC_INVALID, fault.message, alarming=False),
        fault,
        unknown(ConditionType.MODEL_PROFILED, Reason.SPEC_INVALID, message),
        unknown(ConditionType.PLACED, Reason.SPEC_INVALID, message),
        unknown(ConditionType.SLO_ATTAINABLE, Reason.NOT_PREDICTED, message),
        unknown(ConditionType.OBSERVED, Reason.SPEC_INVALID, message),
    )


def profiled(given: bool, answer: Answer | None) -> Finding:
    """ModelProfiled: the graph was read and counted, or its figures were given."""
    kind = ConditionType.MODEL_PROFILED
    if given:
        return good(kind, Reason.PROFILE_GIVEN, "spec.model.profile stands in for the graph")
    if answer is None:
        return unknown(kind, Reason.PROFILING, "the graph is being read")
    if isinstance(answer, ProfileFailure):
        reason, message = describe_failure(answer)
        return bad(kind, reason, message)
    if answer.completeness is Completeness.PARTIAL:
        named = "; ".join(
            f"{each.operator} {each.node}: {each.reason}".strip() for each in answer.unresolved[:_NAMED]
        )
        message = (
            f"{answer.unresolved_count or len(answer.unresolved)} of the graph's operators could not be "
            f"counted ({answer.counted_percent} % were): {named}. The prediction is too low by what they "
            "cost; give the missing figures in spec.model.profile"
        )
        return Finding(kind, ConditionStatus.TRUE, Reason.PROFILE_PARTIAL, message, alarming=True)
    return good(kind, Reason.PROFILE_COMPLETE, "every operator of the graph was counted")


def describe_failure(failure: ProfileFailure) -> tuple[Reason, str]:
    """Reason and sentence of a model that could not be read; the sentence names the field."""
    reason = _MODEL_REASONS.get(failure.error.reason, Reason.MODEL_UNREADABLE)
    way_out = _MODEL_WAYS_OUT.get(reason, "")
    told = str(failure.error)
    return reason, told if way_out in told else f"{told}; {way_out}"


def placed(  # noqa: PLR0911 - one rule a return, the first that holds counts
    *,
    counts: PodCounts,
    reason: Reason | None,
    message: str,
    claimed_twice: Sequence[str],
    without_gate: Sequence[str],
    unschedulable: Sequence[str],
) -> Finding:
    """Placed: no pod waits for a decision, and none was let go without one."""
    kind = ConditionType.PLACED
    total = counts.pending + counts.placed + counts.fallback
    if claimed_twice:
        text = (
            f"two workloads claim {_some(claimed_twice)}: the label spec.template.metadata.labels"
            "[tailwise.dev/workload] names another than the template's own; remove it"
        )
        return bad(kind, Reason.PODS_CLAIMED_TWICE, text)
    if counts.pending:
        text = f"{counts.pending} of {total} pods wait"
        if reason in (None, Reason.ALL_PODS_PLACED):
            return bad(kind, Reason.PODS_PENDING, text, alarming=False)
        # A model that cannot be read has its event already, by ModelProfiled.
        alarming = reason not in (Reason.PODS_PENDING, Reason.WAITING_FOR_PROFILE, *_MODEL_REASONS.values())
        return bad(kind, reason, f"{text}: {message}", alarming=alarming)
    if unschedulable:
        text = f"kube-scheduler does not bind {_some(unschedulable)}"
        return bad(kind, Reason.UNSCHEDULABLE_AFTER_PLACEMENT, text)
    if without_gate:
        text = (
            f"{_some(without_gate)} came without the gate tailwise.dev/placement and went to the default "
            "scheduler; add it to schedulingGates of their template"
        )
        return bad(kind, Reason.FELL_BACK, text)
    if counts.fallback:
        text = f"{counts.fallback} of {total} pods were left to the default scheduler"
        # Each of these pods has its own event.
        return bad(kind, Reason.FELL_BACK, f"{text}: {message}" if message else text, alarming=False)
    if total == 0:
        return unknown(kind, Reason.NO_PODS, "there are no pods")
    return good(kind, Reason.ALL_PODS_PLACED, f"a node was chosen for {counts.placed} of {total} pods")


def attainable(slo: Slo, bounds: Sequence[int], reason: Reason | None, message: str) -> Finding:
    """SLOAttainable: the bounds of what is placed, or could be, meet the SLO."""
    kind = ConditionType.SLO_ATTAINABLE
    if reason is Reason.NO_NODE_MEETS_SLO:
        return bad(kind, Reason.NO_NODE_MEETS_SLO, message)
    if not bounds:
        return unknown(kind, Reason.NOT_PREDICTED, "nothing has been predicted yet")
    worst = max(bounds)
    text = f"the highest bound on a pod's P{slo.percentile} is {worst} ms"
    limit = f"spec.slo.latencyMilliseconds ({slo.latency_milliseconds})"
    if worst > slo.latency_milliseconds:
        text = f"{text}, over {limit}; raise it, or give the pods more CPU or faster nodes"
        return bad(kind, Reason.NO_NODE_MEETS_SLO, text)
    return good(kind, Reason.WITHIN_SLO, f"{text}, within {limit}")


_OBSERVED_REASONS: dict[NoLatency, Reason] = {
    NoLatency.NO_PODS: Reason.NO_PODS,
    NoLatency.NO_SERIES: Reason.NO_SAMPLES,
    NoLatency.NO_REQUESTS: Reason.NO_SAMPLES,
    NoLatency.ABOVE_BUCKETS: Reason.SLO_MISSED,
    NoLatency.UNAVAILABLE: Reason.PROMETHEUS_UNAVAILABLE,
}


def observed(spec: InferenceWorkloadSpec, observation: LatencyObservation | None) -> Finding:
    """Observed: the latency was read from Prometheus and meets the SLO."""
    kind = ConditionType.OBSERVED
    if spec.metrics is None:
        message = "spec.metrics is not given, so the latency of served queries is not read"
        return unknown(kind, Reason.METRICS_NOT_CONFIGURED, message)
    if observation is None:
        return unknown(kind, Reason.NO_SAMPLES, "the latency has not been read yet")
    if observation.workload is None:
        reason = _OBSERVED_REASONS[observation.reason or NoLatency.NO_SERIES]
        if reason in (Reason.NO_SAMPLES, Reason.NO_PODS):
            return unknown(kind, reason, observation.message)
        return bad(kind, reason, observation.message)
    slo = spec.slo.latency_milliseconds
    met = observation.workload.milliseconds <= slo
    # The figure itself stands in its own field: here it would be a write each time it moves.
    if met:
        return good(kind, Reason.SLO_MET, f"the observed P{spec.slo.percentile} is within {slo} ms")
    text = (
        f"the observed P{spec.slo.percentile} is over spec.slo.latencyMilliseconds ({slo}); raise it, or "
        "give the pods more CPU, more replicas or faster nodes"
    )
    return bad(kind, Reason.SLO_MISSED, text)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Pods of a workload; ``wanted`` is None where it does not own what makes them."""

    wanted: int | None
    present: int
    ready: int


def ready(  # noqa: PLR0911 - one rule a return, the first that holds counts
    replicas: Replicas,
    *,
    deployment_reason: Reason | None,
    deployment_message: str,
    latency_model_missing: str | None,
    age: timedelta,
    label: str,
    others: Sequence[Finding],
) -> Finding:
    """Ready: the pods are placed and serving. What is wrong elsewhere is told again, without an event."""
    kind = ConditionType.READY
    if deployment_reason is not None:
        return bad(kind, deployment_reason, deployment_message)
    if latency_model_missing:
        text = (
            f"spec.latencyModelRef.name: there is no LatencyModel {latency_model_missing}; the physics prior "
            "answers meanwhile. Create it, or leave the field out"
        )
        return bad(kind, Reason.LATENCY_MODEL_NOT_FOUND, text)
    if replicas.wanted == 0 and replicas.present == 0:
        return good(kind, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    if replicas.present == 0 and replicas.wanted is None:
        if age < NO_PODS_GRACE:
            return bad(kind, Reason.PROGRESSING, "no pod yet", alarming=False)
        text = f"no pod of the namespace carries the label {label}, and spec.template is not given; do either"
        return bad(kind, Reason.NO_PODS, text)
    for other in others:
        if other.status is ConditionStatus.FALSE and other.reason is not Reason.PODS_PENDING:
            return bad(kind, other.reason, other.message, alarming=False)
    wanted = replicas.present if replicas.wanted is None else replicas.wanted
    if replicas.ready < max(wanted, 1):
        return bad(kind, Reason.PROGRESSING, f"{replicas.ready} of {wanted} pods are ready", alarming=False)
    return good(kind, Reason.SERVING, f"{replicas.ready} pods are ready")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
