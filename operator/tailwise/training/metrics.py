"""How far predictions are off, and how sure a coverage is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailwise.api.training_policy import SelectionMetric
from tailwise.prediction.quota import FloatArray


@dataclass(frozen=True, slots=True)
class Errors:
    """RMSE in milliseconds, RMSLE of milliseconds, MAPE as a fraction, R2; NaN of no rows."""

    rmse: float
    rmsle: float
    mape: float
    r2: float
    rows: int

    def by(self, metric: SelectionMetric) -> float:
        """The error that decides; less is better."""
        return {
            SelectionMetric.RMSE: self.rmse,
            SelectionMetric.RMSLE: self.rmsle,
            SelectionMetric.MAPE: self.mape,
        }[metric]


def errors(measured: FloatArray, predicted: FloatArray) -> Errors:
    """Errors of predictions in milliseconds, both of shape (rows,).

    ``RMSLE = sqrt(mean((log(1 + predicted) - log(1 + measured))^2))``, as the paper's Table III has it.
    """
    if not len(measured):
        return Errors(np.nan, np.nan, np.nan, np.nan, 0)
    difference = predicted - measured
    logs = np.log1p(np.maximum(predicted, 0.0)) - np.log1p(measured)
    spread = float(np.sum((measured - measured.mean()) ** 2))
    return Errors(
        rmse=float(np.sqrt(np.mean(difference**2))),
        rmsle=float(np.sqrt(np.mean(logs**2))),
        mape=float(np.mean(np.abs(difference) / measured)),
        r2=1 - float(np.sum(difference**2)) / spread if spread > 0 else np.nan,
        rows=len(measured),
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of rows at or below their bound, with its exact binomial interval (Clopper and Pearson, 95 %)."""

    share: float
    low: float
    high: float
    rows: int


def coverage(covered: NDArray[np.bool_]) -> Coverage:
    """Coverage of ``covered``, shape (rows,): whether each row lay at or below its bound."""
    rows, hits = len(covered), int(np.sum(covered))
    low, high = binomial_interval(hits, rows)
    return Coverage(hits / rows if rows else np.nan, low, high, rows)


def binomial_interval(hits: int, rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share; (0, 1) of no rows."""
    from scipy.stats import beta  # noqa: PLC0415 - half a second, and wanted once a run

    if not rows:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    quantile: Any = beta.ppf
    low = float(quantile(tail, hits, rows - hits + 1)) if hits else 0.0
    high = float(quantile(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return low, high
