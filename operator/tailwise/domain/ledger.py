"""What was promised for each placement and what came of it: the ledger's entries, samples and their figures.

An *entry* is one placement: the node, what was predicted there and on the best other nodes when it was
decided, and its outcome, the P90 of the first whole window after the pod was ready. A *sample* is one whole
window of one pod: the P90 that was observed, what the serving version predicts for the load of that window,
and what it predicts for the best other node. Entries judge decisions, samples judge versions: a pod that runs
for a week is one decision, and tells every few minutes whether the version still holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median
from typing import Any

import numpy as np

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.domain.drift import LiveWindow
from tailwise.domain.scoring import SOURCES, Decision, PredictedLatencies

ALTERNATIVES = 3
"""Other nodes that an entry remembers."""

LEAST_REQUESTS = 10
"""A P90 of fewer is their maximum; datasets ask for as many."""

JUDGED = frozenset({PredictionSource.LEARNED, PredictionSource.PRIOR})
"""Sources by which a version is judged: it does not speak for what it calls Stale or OutOfDistribution."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another node and what is predicted there, in milliseconds."""

    node: str
    p90_milliseconds: float
    bound_milliseconds: float
    source: PredictionSource


@dataclass(frozen=True, slots=True)
class Outcome:
    """The P90 that a pod was seen to have over a window; ``requests`` None where the server does not tell."""

    p90_milliseconds: float
    requests: float | None
    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A placement. ``is_restored``: read back from the pod's annotations, which tell no alternatives."""

    uid: str
    namespace: str
    pod: str
    workload: str
    node: str
    decided_at: datetime
    latency_model: str
    version: int
    source: PredictionSource | None
    predicted_p90_milliseconds: float | None
    bound_milliseconds: float | None
    slo_milliseconds: float
    alternatives: tuple[Alternative, ...] = ()
    is_restored: bool = False
    outcome: Outcome | None = None
    ended_at: datetime | None = None

    @property
    def error(self) -> float | None:
        """Observed over predicted, less 1: 0.1 is ten per cent slower than promised; None without both."""
        if self.outcome is None or not self.predicted_p90_milliseconds:
            return None
        return self.outcome.p90_milliseconds / self.predicted_p90_milliseconds - 1

    @property
    def exceeded(self) -> bool | None:
        """Whether the outcome lay above the bound; None without both."""
        if self.outcome is None or self.bound_milliseconds is None:
            return None
        return self.outcome.p90_milliseconds > self.bound_milliseconds


@dataclass(frozen=True, slots=True)
class Reading:
    """What a version predicted for a pod where it stands, at one time within a window."""

    at: datetime
    version: int
    p90_milliseconds: float
    bound_milliseconds: float
    source: PredictionSource


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of one pod; see the module. ``alternative`` is None where no other node would do."""

    uid: str
    version: int
    source: PredictionSource
    predicted_p90_milliseconds: float
    bound_milliseconds: float
    outcome: Outcome
    alternative: Alternative | None = None

    @property
    def relative_error(self) -> float:
        """Distance of the predicted from the observed P90, in parts of the observed (as MAPE)."""
        observed = self.outcome.p90_milliseconds
        return abs(self.predicted_p90_milliseconds - observed) / observed

    @property
    def exceeded(self) -> bool:
        """Whether the observed P90 lay above the bound."""
        return self.outcome.p90_milliseconds > self.bound_milliseconds

    @property
    def regret(self) -> float | None:
        """Share of the observed P90 that the best other node would have saved; None without one."""
        if self.alternative is None:
            return None
        return regret_share(self.predicted_p90_milliseconds, self.alternative.p90_milliseconds)


def regret_share(here_milliseconds: float, there_milliseconds: float) -> float:
    """What a move would save of the P90, as a share: ``max(0, 1 - there / here)``.

    Both are predictions of one version under the load of now. Of the observed P90 the same share is saved:
    what the version gets wrong about this pod, it gets wrong on both nodes alike.
    """
    if here_milliseconds <= 0:
        return 0.0
    return max(0.0, 1.0 - there_milliseconds / here_milliseconds)


def best_alternatives(
    decision: Decision, predicted: PredictedLatencies, node: str, count: int = ALTERNATIVES
) -> tuple[Alternative, ...]:
    """The nodes beside ``node`` that would do, by predicted P90, the least first."""
    allowed = decision.verdicts.fits & ~np.isnan(predicted.p90_milliseconds)
    positions = np.flatnonzero(allowed)
    if len(positions) > count + 1:
        # One more than is wanted: the node itself may be among them.
        least = np.argpartition(predicted.p90_milliseconds[positions], count)[: count + 1]
        positions = positions[least]
    positions = positions[np.argsort(predicted.p90_milliseconds[positions], kind="stable")]
    others = [
        Alternative(
            decision.verdicts.names[place],
            float(predicted.p90_milliseconds[place]),
            float(predicted.bound_milliseconds[place]),
            SOURCES[int(predicted.source_codes[place])],
        )
        for place in positions
        if decision.verdicts.names[place] != node
    ]
    return tuple(others[:count])


def is_whole(outcome: Outcome, ready_at: datetime | None, last_end: datetime | None) -> bool:
    """Whether a window tells of this pod alone and of nothing that was counted before.

    It must begin when the pod was ready, and after the last window that was taken: overlapping windows share
    their queries. Below ``LEAST_REQUESTS`` it tells nothing.
    """
    if ready_at is None or outcome.begin < ready_at or not outcome.p90_milliseconds > 0:
        return False
    if outcome.requests is not None and outcome.requests < LEAST_REQUESTS:
        return False
    return last_end is None or outcome.begin >= last_end


def sample_of(
    uid: str, readings: Sequence[Reading], outcome: Outcome, alternative: Alternative | None
) -> Sample | None:
    """A window's sample: the median of what its newest version predicted within it; None without readings.

    The load within a window moves, and its P90 is of all of it: one reading at its end would judge the
    version by a moment. Readings of a version that was replaced meanwhile, or from another source, are left
    out.
    """
    within = [each for each in readings if outcome.begin <= each.at <= outcome.end]
    if not within:
        return None
    newest = max(within, key=lambda each: each.at)
    alike = [each for each in within if (each.version, each.source) == (newest.version, newest.source)]
    return Sample(
        uid=uid,
        version=newest.version,
        source=newest.source,
        predicted_p90_milliseconds=median(each.p90_milliseconds for each in alike),
        bound_milliseconds=median(each.bound_milliseconds for each in alike),
        outcome=outcome,
        alternative=alternative,
    )


@dataclass(frozen=True, slots=True)
class LiveFacts:
    """A version against what was observed. ``window`` is what ``drift.judge_drift`` takes.

    ``regret`` is the mean share of the observed P90 that the best other nodes would have saved, None where
    no sample has one. ``since`` is the begin of the oldest window, ``newest_at`` the end of the newest.
    """

    version: int
    window: LiveWindow
    regret: float | None = None
    since: datetime | None = None
    newest_at: datetime | None = None


def live_facts(version: int, samples: Sequence[Sample]) -> LiveFacts:
    """Figures of one version's samples, in any order; those of another version or unjudged are left out."""
    judged = [each for each in samples if each.version == version and each.source in JUDGED]
    if not judged:
        return LiveFacts(version, LiveWindow(0, 0))
    regrets = [each.regret for each in judged if each.regret is not None]
    return LiveFacts(
        version=version,
        window=LiveWindow(
            samples=len(judged),
            exceedances=sum(each.exceeded for each in judged),
            mape=fmean(each.relative_error for each in judged),
        ),
        regret=fmean(regrets) if regrets else None,
        since=min(each.outcome.begin for each in judged),
        newest_at=max(each.outcome.end for each in judged),
    )


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry as a line of a file holds it: JSON, camelCase, units in the names, no nulls."""
    outcome = entry.outcome
    values = {
        "decidedAt": entry.decided_at.isoformat(),
        "namespace": entry.namespace,
        "workload": entry.workload,
        "pod": entry.pod,
        "uid": entry.uid,
        "node": entry.node,
        "latencyModel": entry.latency_model,
        "version": entry.version,
        "source": entry.source.value if entry.source else None,
        "sloMilliseconds": entry.slo_milliseconds,
        "predictedP90Milliseconds": entry.predicted_p90_milliseconds,
        "boundMilliseconds": entry.bound_milliseconds,
        "alternatives": [
            {
                "node": each.node,
                "predictedP90Milliseconds": each.p90_milliseconds,
                "boundMilliseconds": each.bound_milliseconds,
                "source": each.source.value,
            }
            for each in entry.alternatives
        ],
        "observedP90Milliseconds": outcome.p90_milliseconds if outcome else None,
        "observedRequests": outcome.requests if outcome else None,
        "observedFrom": outcome.begin.isoformat() if outcome else None,
        "observedTo": outcome.end.isoformat() if outcome else None,
        "error": entry.error,
        "exceeded": entry.exceeded,
        "endedAt": entry.ended_at.isoformat() if entry.ended_at else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def percent(share: float | None) -> str | None:
    """A share as a status holds it: per cent with one decimal, as text; None stays None."""
    if share is None or not math.isfinite(share):
        return None
    return f"{100 * share:.1f}"
