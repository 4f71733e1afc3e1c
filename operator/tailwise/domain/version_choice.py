"""Which version of a LatencyModel serves: rollback, pins, and the challenger against the champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tailwise.api.conditions import EventReason, Reason
from tailwise.api.latency_model_status import LatencyModelStatus, ModelVersion, VersionOutcome
from tailwise.api.training_policy import Drift
from tailwise.domain.drift import DriftVerdict, LiveWindow, judge_drift
from tailwise.domain.learning_facts import Facts, Step, Told
from tailwise.domain.promotion import (
    PRIOR_VERSION,
    PromotionVerdict,
    Standing,
    judge_challenger,
    pinned,
    rollback_to,
)


def drift_of(facts: Facts) -> DriftVerdict:
    """Whether the serving version still holds."""
    active = facts.status.active_version
    known = facts.versions.get(active)
    live = facts.live.get(active) or LiveWindow(0, 0)
    return judge_drift(live, known.mape if known is not None else None, facts.spec.drift or Drift())


def choose(facts: Facts, step: Step) -> Step:
    """Which version serves: taken back, pinned, or the challenger where it is better."""
    policy = facts.spec.promotion
    back = rollback_to(policy, step.drift, step.serve, _runnable(facts, step.status.history))
    if back is not None:
        message = f"version {step.serve} was taken back: {step.drift.message}; version {back} answers again"
        step = _serve(facts, step, back, VersionOutcome.ROLLED_BACK)
        told = Told(EventReason.ROLLED_BACK, message, f"{facts.status.active_version}", alarming=True)
        step = replace(
            step,
            promotion=PromotionVerdict(False, Reason.ROLLED_BACK, message),
            told=(*step.told, told),
        )
    wanted = pinned(policy, step.status.history, step.serve)
    if wanted != step.serve:
        return _pin(facts, step, wanted)
    if policy.pinned_version is not None and policy.pinned_version != step.serve:
        message = (
            f"spec.promotion.pinnedVersion: there is no version {policy.pinned_version}; version "
            f"{step.serve} goes on answering"
        )
        return replace(step, promotion=PromotionVerdict(False, Reason.AWAITING_APPROVAL, message))
    challenger = challenger_of(step.status)
    return step if challenger is None else _judge(facts, step, challenger)


def _pin(facts: Facts, step: Step, wanted: int) -> Step:
    if wanted in facts.refused:
        message = f"version {wanted} cannot serve: {facts.refused[wanted]}"
        return replace(step, promotion=PromotionVerdict(False, Reason.ARTIFACT_INVALID, message))
    message = f"spec.promotion pins version {wanted}"
    step = _serve(facts, step, wanted)
    return replace(step, promotion=PromotionVerdict(True, Reason.VERSION_PINNED, message))


def _judge(facts: Facts, step: Step, challenger: ModelVersion) -> Step:
    number = challenger.version
    known = facts.versions.get(number)
    own = known.standings.get(number) if known is not None else None
    why_not = facts.refused.get(number)
    if known is None or own is None:
        why_not = f"{challenger.artifact or 'its artefact'} is gone, or does not say how good it is"
    if why_not is not None or known is None or own is None:
        message = f"version {number} cannot serve: {why_not}; train a new version"
        return _reject(step, challenger, PromotionVerdict(False, Reason.ARTIFACT_INVALID, message))
    against = known.standings.get(step.serve) or known.standings.get(PRIOR_VERSION)
    if against is None:
        against = Standing(PRIOR_VERSION, own.error, None, 0)
    verdict = judge_challenger(against, own, facts.spec.promotion)
    if verdict.promoted:
        step = _serve(facts, step, number)
        return replace(step, promotion=verdict)
    if verdict.reason is Reason.AWAITING_APPROVAL:
        before = facts.status.challenger
        if before is None or before.version != number:
            told = Told(EventReason.VERSION_WAITS, verdict.message, str(number))
            step = replace(step, told=(*step.told, told))
        return replace(step, promotion=verdict)
    return _reject(step, challenger, verdict)


def _reject(step: Step, challenger: ModelVersion, verdict: PromotionVerdict) -> Step:
    status = _with_version(step.status, became(challenger, VersionOutcome.REJECTED))
    invalid = verdict.reason is Reason.ARTIFACT_INVALID
    told = Told(EventReason.VERSION_REJECTED, verdict.message, str(challenger.version), alarming=invalid)
    return replace(step, status=status, promotion=verdict, told=(*step.told, told))


def _serve(facts: Facts, step: Step, version: int, before: VersionOutcome = VersionOutcome.RETIRED) -> Step:
    """Have a version serve; the one before becomes ``before``."""
    history = []
    for each in step.status.history:
        if each.version == version:
            served = facts.now.replace(microsecond=0)
            history.append(
                each.model_copy(update={"outcome": VersionOutcome.CHAMPION, "promoted_at": served})
            )
        elif each.version == step.serve:
            history.append(became(each, before))
        else:
            history.append(each)
    name = "the physics prior" if version == PRIOR_VERSION else f"version {version}"
    told = Told(EventReason.VERSION_SERVING, f"{name} answers now, version {step.serve} did", f"{version}")
    status = step.status.model_copy(update={"history": tuple(history), "active_version": version})
    return replace(step, status=status, serve=version, told=(*step.told, told))


def _runnable(facts: Facts, history: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The versions that could serve again: whole as far as one knows."""
    return [each for each in history if each.version in facts.versions and each.version not in facts.refused]


def challenger_of(status: LatencyModelStatus) -> ModelVersion | None:
    """The newest version that waits to be judged or approved."""
    waiting = [each for each in status.history if each.outcome is VersionOutcome.CHALLENGER]
    return max(waiting, key=lambda each: each.version, default=None)


def became(version: ModelVersion, outcome: VersionOutcome) -> ModelVersion:
    """The version with another outcome."""
    return version.model_copy(update={"outcome": outcome})


def _with_version(status: LatencyModelStatus, version: ModelVersion) -> LatencyModelStatus:
    history = tuple(version if each.version == version.version else each for each in status.history)
    return status.model_copy(update={"history": history})
