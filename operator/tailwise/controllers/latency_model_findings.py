"""A LatencyModel's conditions, from what a step of its life came to."""

from __future__ import annotations

from dataclasses import dataclass

from tailwise.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import LatencyModelStatus, RunResult
from tailwise.api.not_implemented import unimplemented_latency_model_fields
from tailwise.controllers.conditions import Finding, bad, good, unknown
from tailwise.controllers.stored_versions import Served
from tailwise.domain.learning_facts import Step, run_number

_OF_THE_DATASET = frozenset(
    {
        Reason.TOO_FEW_SAMPLES,
        Reason.TOO_LITTLE_VARIETY,
        Reason.DATASET_UNREADABLE,
        Reason.NO_SAMPLES,
        Reason.QUERY_REFUSED,
        Reason.PROMETHEUS_UNAVAILABLE,
    }
)
_ASK = (
    "ask for one with kubectl annotate latencymodel NAME --overwrite "
    "tailwise.dev/retrain-requested-at=$(date -Is), or set spec.schedule"
)


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers in this process, and whether the version that should is still stored."""

    served: Served | None
    is_stored: bool


def unreadable(fault: str) -> tuple[Finding, ...]:
    """Conditions of a LatencyModel whose spec cannot be read: what answered goes on."""
    message = f"{fault}; correct it, or install the CRDs of this operator's version"
    return (bad(ConditionType.SPEC_SUPPORTED, Reason.SPEC_INVALID, message),)


def latency_model_findings(spec: LatencyModelSpec, step: Step, serving: Serving) -> tuple[Finding, ...]:
    """All conditions; one of which there is no news stays as it stands."""
    before = {each.type: each for each in step.status.conditions}
    return (
        _ready(step, serving, before.get(ConditionType.READY)),
        _supported(spec, step),
        _dataset(step, before.get(ConditionType.DATASET_SUFFICIENT)),
        _trained(step, before.get(ConditionType.TRAINED)),
        _promoted(step, before.get(ConditionType.PROMOTED)),
        _drifting(step, before.get(ConditionType.DRIFTING)),
    )


def _ready(step: Step, serving: Serving, before: Condition | None) -> Finding:
    served, wanted = serving.served, step.status.active_version
    if served is not None and served.fault:
        told = f"version {wanted} should answer, version {served.version} does: {served.fault}"
        return bad(ConditionType.READY, Reason.ARTIFACT_INVALID, told)
    if wanted == 0:
        return good(ConditionType.READY, Reason.SERVING_PRIOR, "version 0, the physics prior, answers")
    if not serving.is_stored:
        told = (
            f"version {wanted} is stored no more: it answers until the operator restarts; train a new version"
        )
        return bad(ConditionType.READY, Reason.ARTIFACT_INVALID, told)
    if served is None and before is not None:
        return _kept(before)
    champion = step.status.champion
    what = f", {champion.algorithm.value}," if champion is not None else ""
    return good(ConditionType.READY, Reason.SERVING_VERSION, f"version {wanted}{what} answers")


def _supported(spec: LatencyModelSpec, step: Step) -> Finding:
    if step.schedule_fault:
        return bad(ConditionType.SPEC_SUPPORTED, Reason.SPEC_INVALID, step.schedule_fault)
    if fields := unimplemented_latency_model_fields(spec):
        message = f"this version does not act upon {', '.join(fields)}; it goes on as if they were left out"
        return bad(ConditionType.SPEC_SUPPORTED, Reason.NOT_IMPLEMENTED, message)
    message = "every field that the spec uses is acted upon"
    return good(ConditionType.SPEC_SUPPORTED, Reason.ALL_FIELDS_SUPPORTED, message)


def _dataset(step: Step, before: Condition | None) -> Finding:
    kind, last, dataset = ConditionType.DATASET_SUFFICIENT, step.status.last_run, step.status.dataset
    if step.failure is not None and step.failure.reason in _OF_THE_DATASET:
        # The event of the run tells it already.
        return bad(kind, step.failure.reason, step.failure.message, alarming=False)
    if before is not None and step.made is None:
        return _kept(before)
    if last is not None and last.result is RunResult.SUCCEEDED and dataset is not None:
        dropped = ", ".join(f"{each.rows} {each.reason}" for each in dataset.dropped)
        message = (
            f"{dataset.rows} rows of {dataset.workloads} workloads on {dataset.node_classes} classes of nodes"
        )
        faults = step.made.faults if step.made is not None else ()
        parts = [message, f"dropped: {dropped}" if dropped else "", *faults]
        return good(kind, Reason.DATASET_READY, "; ".join(filter(None, parts)))
    return unknown(kind, Reason.NEVER_TRAINED, "no run has looked yet")


def _trained(step: Step, before: Condition | None) -> Finding:
    kind, last = ConditionType.TRAINED, step.status.last_run
    if last is None:
        return bad(kind, Reason.NEVER_TRAINED, f"there was no run yet; {_ASK}", alarming=False)
    if last.result is RunResult.RUNNING:
        message = f"version {run_number(last)}: {last.message or f'Job {last.job} starts'}"
        status = before.status if before is not None else ConditionStatus.UNKNOWN
        return Finding(kind, status, Reason.TRAINING_RUNNING, message)
    if last.result is RunResult.SUCCEEDED:
        return good(kind, Reason.TRAINING_SUCCEEDED, last.message)
    return bad(kind, Reason.TRAINING_FAILED, last.message, alarming=False)


def _promoted(step: Step, before: Condition | None) -> Finding:
    kind, verdict = ConditionType.PROMOTED, step.promotion
    if verdict is not None:
        status = ConditionStatus.TRUE if verdict.promoted else ConditionStatus.FALSE
        return Finding(kind, status, verdict.reason, verdict.message)
    if before is not None:
        return _kept(before)
    return bad(kind, Reason.NO_CHALLENGER, "there is only version 0", alarming=False)


def _drifting(step: Step, before: Condition | None) -> Finding:
    kind, verdict = ConditionType.DRIFTING, step.drift
    if verdict.is_drifting:
        return Finding(kind, ConditionStatus.TRUE, verdict.reason, verdict.message, alarming=True)
    if verdict.reason is not Reason.NOT_ENOUGH_OBSERVATIONS:
        return Finding(kind, ConditionStatus.FALSE, verdict.reason, verdict.message)
    promoted = step.promotion is not None and step.promotion.promoted
    if before is not None and before.status is ConditionStatus.TRUE and not promoted:
        return _kept(before)  # until enough was seen of the version that answers now
    return unknown(kind, verdict.reason, verdict.message)


def _kept(before: Condition) -> Finding:
    return Finding(before.type, before.status, _reason(before.reason), before.message)


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:  # of another operator's version
        return Reason.NEVER_TRAINED


def without_figures(status: LatencyModelStatus) -> LatencyModelStatus:
    """The status without what changes with each observation: too little to write for at once."""
    conditions = tuple(
        each.model_copy(update={"message": ""}) if each.type is ConditionType.DRIFTING else each
        for each in status.conditions
    )
    return status.model_copy(update={"conditions": conditions, "live": None})
