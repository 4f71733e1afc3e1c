"""Whether the serving version still holds: its bound against what was observed after its placements.

An exceedance is a placement whose observed P90 lay above its bound. Of a bound that covers a share ``c`` the
exceedances of ``n`` placements are binomial, ``Bin(n, 1 - c)``: so many that chance explains them less often
than one in a hundred (``confidencePercent``) mean that coverage fell. Few samples say nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tailwise.api.conditions import Reason
from tailwise.api.training_policy import Drift


@dataclass(frozen=True, slots=True)
class LiveWindow:
    """Placements of the serving version whose latency was observed; ``mape`` as a fraction, None without."""

    samples: int
    exceedances: int
    mape: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.exceedances <= self.samples:
            raise ValueError(f"{self.exceedances} exceedances of {self.samples} samples")

    @property
    def coverage(self) -> float | None:
        """Share that the bound covered."""
        return None if not self.samples else 1 - self.exceedances / self.samples


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """``reason`` is that of condition Drifting; ``message`` tells the figures behind it."""

    is_drifting: bool
    reason: Reason
    message: str


def binomial_tail(count: int, samples: int, share: float) -> float:
    """``P(X >= count)`` of ``X ~ Bin(samples, share)``, summed exactly in logarithms."""
    if count <= 0:
        return 1.0
    if count > samples or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    logs = (math.log(share), math.log1p(-share))
    total, largest = 0.0, -math.inf
    terms = []
    for hits in range(count, samples + 1):
        choose = math.lgamma(samples + 1) - math.lgamma(hits + 1) - math.lgamma(samples - hits + 1)
        term = choose + hits * logs[0] + (samples - hits) * logs[1]
        largest = max(largest, term)
        terms.append(term)
        # Beyond the mode terms fall ever faster: what follows no longer adds.
        if hits > samples * share and term < largest - 50:
            break
    total = math.fsum(math.exp(term - largest) for term in terms)
    return min(1.0, math.exp(largest) * total)


def judge_drift(live: LiveWindow, heldout_mape: float | None, policy: Drift) -> DriftVerdict:
    """Judge the newest ``windowSamples`` placements.

    Coverage fell where more exceeded than chance explains at ``minCoveragePercent``; the error rose where it
    is ``maxErrorIncreasePercent`` above ``heldout_mape``, a fraction, None where none is known.
    """
    least = policy.min_coverage_percent / 100
    if live.samples < policy.window_samples:
        message = f"{live.samples} placements were observed, {policy.window_samples} are judged together"
        return DriftVerdict(False, Reason.NOT_ENOUGH_OBSERVATIONS, message)
    chance = binomial_tail(live.exceedances, live.samples, 1 - least)
    told = f"{live.exceedances} of {live.samples} placements exceeded their bound"
    if chance < 1 - policy.confidence_percent / 100:
        message = f"{told}: at a coverage of {least:.0%} chance explains that with {chance:.2g}"
        return DriftVerdict(True, Reason.COVERAGE_FELL, message)
    if live.mape is not None and heldout_mape is not None:
        most = heldout_mape * (1 + policy.max_error_increase_percent / 100)
        if live.mape > most:
            message = f"the live error is {live.mape:.1%}, held-out rows had {heldout_mape:.1%}"
            return DriftVerdict(True, Reason.ERROR_ROSE, f"{message} and {most:.1%} is allowed")
    return DriftVerdict(False, Reason.STABLE, f"{told}; {live.samples} placements are judged")
