"""What every predictor can be asked, and the one that needs no training: the prior, version 0."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.profile import ModelProfile
from tailwise.prediction.coefficients import Coefficients, coefficients
from tailwise.prediction.prediction import Prediction, Question, Serving
from tailwise.prediction.prior import UTILISATION_GRID, Latencies, QueryCost, served_cost, worst_latencies
from tailwise.prediction.quota import FloatArray
from tailwise.prediction.tables import PredictionTable, UnknownLoad


class Predictor(Protocol):
    """Predicts latency from a profile, a way of serving, a node's hardware and its load."""

    @property
    def version(self) -> int:
        """Version of the LatencyModel this predictor is; 0 is the prior."""

    def predict(self, question: Question) -> Prediction:
        """Answer one question."""

    def table(self, profile: ModelProfile, serving: Serving, hardware: NodeHardware) -> PredictionTable:
        """Tabulate over utilisation for one class of nodes."""


class PriorPredictor:
    """Physics only: ``prior`` with measured coefficients, and a bound from its validated errors."""

    def __init__(self, known: Coefficients | None = None) -> None:
        self._known = known or coefficients()

    @property
    def version(self) -> int:
        """The prior is version 0."""
        return 0

    def predict(self, question: Question) -> Prediction:
        """Predict from physics; an unknown load is taken as high, bounded more widely, called Stale."""
        known, serving, hardware = self._known, question.serving, question.hardware
        cost = served_cost(question.profile, hardware, serving, known)
        unknown = question.load.cpu is None
        utilisation = (
            known.errors.unknown_load_utilisation if question.load.cpu is None else question.load.cpu
        )
        result = worst_latencies(cost, serving, hardware, np.array([utilisation]), known.query_sigma)
        widened = self._bound(cost, serving, hardware, np.array([utilisation]))
        return Prediction(
            p50_milliseconds=float(result.p50[0]),
            p90_milliseconds=float(result.p90[0]),
            bound_milliseconds=float(widened[0]) * (known.errors.unknown_load_factor if unknown else 1.0),
            source=PredictionSource.STALE if unknown else PredictionSource.PRIOR,
            terms=_terms(cost, utilisation),
        )

    def table(self, profile: ModelProfile, serving: Serving, hardware: NodeHardware) -> PredictionTable:
        """Tabulate the prior over utilisation; tens of milliseconds at most."""
        known = self._known
        cost = served_cost(profile, hardware, serving, known)
        result: Latencies = worst_latencies(cost, serving, hardware, UTILISATION_GRID, known.query_sigma)
        return PredictionTable(
            p50=result.p50,
            p90=result.p90,
            bound=self._bound(cost, serving, hardware, UTILISATION_GRID),
            unknown=UnknownLoad(
                utilisation=known.errors.unknown_load_utilisation,
                bound_factor=known.errors.unknown_load_factor,
            ),
            source=PredictionSource.PRIOR,
            version=self.version,
        )

    def _bound(
        self, cost: QueryCost, serving: Serving, hardware: NodeHardware, utilisation: FloatArray
    ) -> FloatArray:
        """P90, or another percentile, of a query that costs as much more as nine in ten unseen models do.

        Played again, not multiplied: a little more CPU time can mean one more throttled period. The spread
        from run to run was measured for the P90, and is taken for the others.
        """
        errors = self._known.errors
        dearer = replace(
            cost, wall=cost.wall * errors.cpu_time_factor, burnt=cost.burnt * errors.cpu_time_factor
        )
        played = worst_latencies(
            dearer, serving, hardware, utilisation, self._known.query_sigma, serving.bound_percentile
        )
        return played.p90 * errors.run_factor


def _terms(cost: QueryCost, utilisation: float) -> dict[str, float]:
    return {
        "cpuMillisecondsOneThread": cost.cpu_one_thread,
        "wallMillisecondsUnlimited": cost.wall,
        "cpuMillisecondsBurnt": cost.burnt,
        "utilisation": utilisation,
    } | {f"{scale.value.lower()}Milliseconds": value for scale, value in cost.by_scale.items()}
