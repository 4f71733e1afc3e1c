"""Algorithm 1 of the paper and the product's own rules after it: which node, and how good the answer is.

The paper takes the node of least predicted P90 among those that pass the filters. Here the SLO filters too
(the calibrated bound must meet it), ties are spread, and where no node will do the best one is named all
the same, with what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.placement_policy import Objective
from tailwise.domain.capacity import Floats
from tailwise.domain.snapshot import Bools, Counts
from tailwise.domain.verdicts import Filter, Refusal, Verdicts

SOURCES = tuple(PredictionSource)
SourceCodes = NDArray[np.int8]

# Predictions closer than this are one: the prior errs by several times as much (4 % in the median).
TIE_TOLERANCE = 0.01

_NAMED = 3  # neighbours that a sentence names


@dataclass(frozen=True, slots=True)
class PredictedLatencies:
    """Predictions for all nodes, each array (nodes,); NaN where nothing could be predicted.

    ``source_codes`` index into SOURCES. ``age_seconds`` is the age of each node's utilisation, NaN where
    there is none. ``has_hardware`` is False for nodes whose agent has not spoken.
    """

    p50_milliseconds: Floats
    p90_milliseconds: Floats
    bound_milliseconds: Floats
    age_seconds: Floats
    source_codes: SourceCodes
    has_hardware: Bools
    # Of the LatencyModel that answered; 0 is the prior.
    version: int = 0


@dataclass(frozen=True, slots=True)
class Preferences:
    """What breaks ties, in this order: pods of the workload, assumed cores, and the turn of the nodes.

    ``workload_pods`` and ``assumed_cores`` are (nodes,). ``rotation`` turns the order of names, so that
    many workloads in a cluster of equals do not all begin with the same node.
    """

    workload_pods: Counts
    assumed_cores: Floats
    rotation: int = 0
    tie_tolerance: float = TIE_TOLERANCE


@dataclass(frozen=True, slots=True)
class NeighbourEffects:
    """What the pod would do to those that a node already has, each (nodes,).

    ``added_milliseconds`` is what it adds to their P90s, summed; ``over`` marks nodes where one of them holds
    its SLO now and would not with the pod.
    """

    added_milliseconds: Floats
    over: Bools


class DecisionOutcome(StrEnum):
    """What became of the question where a pod should go."""

    PLACED = "Placed"
    # Every node was refused before anything was predicted.
    NO_NODE_FITS = "NoNodeFits"
    # Nodes fit, and no agent has spoken for any of them.
    NO_HARDWARE = "NoHardware"
    # Nodes fit and have hardware data; none has a prediction.
    NO_PREDICTION = "NoPrediction"
    # Nodes have predictions; none meets the SLO. The best is named.
    SLO_UNATTAINABLE = "SLOUnattainable"
    # Nodes meet the SLO; on each of them a resident would then miss its own. The best is named.
    OVER_NEIGHBOURS = "OverNeighbours"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node and what is predicted there, in milliseconds; ``age_seconds`` is None without utilisation."""

    node: str
    position: int
    p50_milliseconds: float
    p90_milliseconds: float
    bound_milliseconds: float
    source: PredictionSource
    age_seconds: float | None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. ``best`` is the winner, or with SLOUnattainable the node that comes nearest.

    ``verdicts`` are those of the filters with Tailwise's own refusals added; ``fits`` of them are the nodes
    that meet the SLO. ``runner_up`` is the next best of these, if there is one.
    """

    outcome: DecisionOutcome
    slo_milliseconds: float
    verdicts: Verdicts
    best: Candidate | None = None
    runner_up: Candidate | None = None
    # With OverNeighbours: the workloads, as namespace/name, that would miss their SLO on the best node.
    neighbours: tuple[str, ...] = ()
    # What the bounds are for: they are what the SLO is compared with.
    slo_percentile: int = 90

    @property
    def node(self) -> str | None:
        """Where the pod goes; None when it goes nowhere."""
        return self.best.node if self.best and self.outcome is DecisionOutcome.PLACED else None

    @property
    def headroom_milliseconds(self) -> float | None:
        """SLO less bound on the best node; negative where it is missed."""
        return self.slo_milliseconds - self.best.bound_milliseconds if self.best else None

    def message(self) -> str:
        """The decision as a sentence, with the numbers that led to it."""
        summary = self.verdicts.summary()
        if self.best is None:
            return summary
        best = self.best
        if self.outcome is DecisionOutcome.PLACED:
            return (
                f"{best.node}: predicted P90 {_figure(best.p90_milliseconds)} ms, "
                f"{self._bound_of(best)}, SLO {_figure(self.slo_milliseconds)} ms "
                f"({_SOURCE_WORDS[best.source].format(best.version)}); {summary}"
            )
        if self.outcome is DecisionOutcome.OVER_NEIGHBOURS:
            return (
                f"{summary}; {best.node} would hold the SLO of {_figure(self.slo_milliseconds)} ms "
                f"({self._bound_of(best)}), and there {self._whose()} would then miss theirs"
            )
        return (
            f"{summary}; best is {_figure(best.bound_milliseconds)} ms on {best.node}, "
            f"SLO is {_figure(self.slo_milliseconds)} ms"
        )

    def _bound_of(self, best: Candidate) -> str:
        of_what = "" if self.slo_percentile == 90 else f" of the P{self.slo_percentile}"
        return f"bound{of_what} {_figure(best.bound_milliseconds)} ms"

    def _whose(self) -> str:
        if not self.neighbours:
            return "residents"
        named = ", ".join(self.neighbours[:_NAMED])
        more = len(self.neighbours) - _NAMED
        return f"{named} and {more} more" if more > 0 else named


def decide(
    verdicts: Verdicts,
    predicted: PredictedLatencies,
    preferences: Preferences,
    *,
    slo_milliseconds: float,
    slo_percentile: int = 90,
    objective: Objective = Objective.LOWEST_LATENCY,
    effects: NeighbourEffects | None = None,
) -> Decision:
    """Choose a node among those that passed the filters.

    Without ``effects`` this is Algorithm 1: the node of least predicted P90. With them it is the node where
    the pod's P90 and what it adds to the residents' are least together, for the next pod's gain may be less
    than what ten others lose; and a node where it breaks a resident's SLO is refused.
    """

    def decided(
        outcome: DecisionOutcome,
        verdicts: Verdicts,
        best: Candidate | None = None,
        runner_up: Candidate | None = None,
    ) -> Decision:
        return Decision(outcome, slo_milliseconds, verdicts, best, runner_up, slo_percentile=slo_percentile)

    if not verdicts.fits.any():
        return decided(DecisionOutcome.NO_NODE_FITS, verdicts)
    verdicts = verdicts.refuse(~predicted.has_hardware, Refusal(Filter.NO_HARDWARE))
    if not verdicts.fits.any():
        return decided(DecisionOutcome.NO_HARDWARE, verdicts)
    verdicts = verdicts.refuse(
        np.isnan(predicted.p90_milliseconds) | np.isnan(predicted.bound_milliseconds),
        Refusal(Filter.NO_PREDICTION),
    )
    if not (predictable := verdicts.fits).any():
        return decided(DecisionOutcome.NO_PREDICTION, verdicts)
    verdicts = verdicts.refuse(predicted.bound_milliseconds > slo_milliseconds, Refusal(Filter.SLO))
    attaining = verdicts.fits
    if effects is not None:
        verdicts = verdicts.refuse(effects.over, Refusal(Filter.NEIGHBOURS))
    if not (feasible := verdicts.fits).any():
        over = bool(attaining.any())
        outcome = DecisionOutcome.OVER_NEIGHBOURS if over else DecisionOutcome.SLO_UNATTAINABLE
        nearest = _choose(attaining if over else predictable, predicted.bound_milliseconds, preferences)
        return decided(outcome, verdicts, _candidate(verdicts.names, predicted, nearest))
    score = predicted.p90_milliseconds
    if effects is not None:
        score = score + effects.added_milliseconds
    if objective is Objective.TIGHTEST:
        # Least headroom first. The bound itself, for two of them are alike by their own size, not the SLO's.
        score = -predicted.bound_milliseconds
    winner = _choose(feasible, score, preferences)
    others = feasible.copy()
    others[winner] = False
    second = _choose(others, score, preferences) if others.any() else None
    return decided(
        DecisionOutcome.PLACED,
        verdicts,
        _candidate(verdicts.names, predicted, winner),
        None if second is None else _candidate(verdicts.names, predicted, second),
    )


def _choose(allowed: Bools, score: Floats, preferences: Preferences) -> int:
    """Position of the least score among the allowed nodes (at least one), ties broken by preference."""
    positions = np.flatnonzero(allowed)
    scores = score[positions]
    least = scores.min()
    tied = positions[scores <= least + abs(least) * preferences.tie_tolerance]
    pods = preferences.workload_pods[tied]
    tied = tied[pods == pods.min()]
    assumed = preferences.assumed_cores[tied]
    tied = tied[assumed <= assumed.min() + 1e-9]
    turned = (tied - preferences.rotation) % len(allowed)
    return int(tied[turned.argmin()])


def _candidate(names: tuple[str, ...], predicted: PredictedLatencies, position: int) -> Candidate:
    age = float(predicted.age_seconds[position])
    return Candidate(
        node=names[position],
        position=position,
        p50_milliseconds=float(predicted.p50_milliseconds[position]),
        p90_milliseconds=float(predicted.p90_milliseconds[position]),
        bound_milliseconds=float(predicted.bound_milliseconds[position]),
        source=SOURCES[int(predicted.source_codes[position])],
        age_seconds=None if np.isnan(age) else age,
        version=predicted.version,
    )


_SOURCE_WORDS = {
    PredictionSource.LEARNED: "Learned, version {}",
    PredictionSource.PRIOR: "by the physics prior",
    PredictionSource.STALE: "Stale: the node's load is not known",
    PredictionSource.OUT_OF_DISTRIBUTION: "OutOfDistribution: by the physics prior",
}


def _figure(milliseconds: float) -> str:
    """Two digits below 10 ms, whole milliseconds above: no reader has use for more."""
    return f"{milliseconds:.1f}" if milliseconds < 10 else f"{milliseconds:.0f}"
