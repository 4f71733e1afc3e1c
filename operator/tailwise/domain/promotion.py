"""Which version serves: champion against challenger, a pinned version, and the way back.

Both are judged on the same newest rows, which neither was trained on. A version that serves badly gives way
to the one before it, and is not promoted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tailwise.api.conditions import Reason
from tailwise.api.latency_model import Promotion, PromotionMode, RollbackMode
from tailwise.api.latency_model_status import ModelVersion, VersionOutcome
from tailwise.domain.drift import DriftVerdict

PRIOR_VERSION = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A version on the newest rows: its error (the less the better), its coverage, the rows it learned from.

    ``coverage`` is a fraction, None for the prior, whose bound is its own.
    """

    version: int
    error: float
    coverage: float | None
    samples: int


@dataclass(frozen=True, slots=True)
class PromotionVerdict:
    """Whether the challenger serves; ``reason`` is that of condition Promoted."""

    promoted: bool
    reason: Reason
    message: str


def judge_challenger(champion: Standing, challenger: Standing, policy: Promotion) -> PromotionVerdict:
    """Judge a challenger by ``spec.promotion``: samples, coverage, gain; then who decides."""
    least = policy.min_coverage_percent / 100
    name = f"version {challenger.version}"
    if challenger.samples < policy.min_samples:
        message = f"{name} learned from {challenger.samples} rows, {policy.min_samples} are the least"
        return PromotionVerdict(False, Reason.TOO_FEW_SAMPLES, message)
    if challenger.coverage is None or challenger.coverage < least:
        covered = "nothing" if challenger.coverage is None else f"{challenger.coverage:.1%}"
        message = f"{name} covers {covered} of the newest rows, {least:.0%} is the least"
        return PromotionVerdict(False, Reason.COVERAGE_TOO_LOW, message)
    gain = 1 - challenger.error / champion.error if champion.error > 0 else 0.0
    told = f"{name} errs by {challenger.error:.4g}, version {champion.version} by {champion.error:.4g}"
    # A champion that no longer covers is no measure: whoever covers is better.
    champion_covers = champion.coverage is None or champion.coverage >= least
    if champion_covers and gain < policy.min_gain_percent / 100:
        message = f"{told}: a gain of {gain:.1%}, {policy.min_gain_percent} % is the least"
        return PromotionVerdict(False, Reason.GAIN_TOO_SMALL, message)
    if policy.mode is PromotionMode.MANUAL:
        if policy.pinned_version == challenger.version:
            return PromotionVerdict(True, Reason.VERSION_PINNED, f"spec.promotion pins {name}")
        message = f"{told}; set spec.promotion.pinnedVersion to {challenger.version} to let it serve"
        return PromotionVerdict(False, Reason.AWAITING_APPROVAL, message)
    return PromotionVerdict(True, Reason.PROMOTED_AUTOMATICALLY, f"{told}: a gain of {gain:.1%}")


def pinned(policy: Promotion, known: Sequence[ModelVersion], active: int) -> int:
    """The version that is to serve by the spec alone: the pinned one if it is known, else what serves now."""
    wanted = policy.pinned_version if policy.mode is PromotionMode.MANUAL else None
    versions = {each.version for each in known} | {PRIOR_VERSION}
    return wanted if wanted is not None and wanted in versions else active


def rollback_to(
    policy: Promotion, drift: DriftVerdict, active: int, history: Sequence[ModelVersion]
) -> int | None:
    """The version to go back to, None where the serving one stays.

    The newest that served before and was not taken back itself; the prior where there is none. A pinned
    version stays: somebody decided.
    """
    stays = policy.rollback is RollbackMode.NEVER or policy.mode is PromotionMode.MANUAL
    if stays or active == PRIOR_VERSION or not drift.is_drifting:
        return None
    served = [
        each.version
        for each in history
        if each.outcome is VersionOutcome.RETIRED and each.promoted_at is not None and each.version < active
    ]
    return max(served, default=PRIOR_VERSION)


def kept(
    history: Sequence[ModelVersion], active: int, limit: int
) -> tuple[tuple[ModelVersion, ...], tuple[int, ...]]:
    """History within its limit, newest first, and the versions whose artefacts may go.

    The version that serves never goes and does not count.
    """
    newest = sorted(history, key=lambda each: each.version, reverse=True)
    others = [each for each in newest if each.version != active]
    gone = {each.version for each in others[limit:]}
    return tuple(each for each in newest if each.version not in gone), tuple(sorted(gone))
