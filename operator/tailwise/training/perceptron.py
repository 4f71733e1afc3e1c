"""A multi-layer perceptron on logarithms: features and latencies span six orders of magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tailwise.prediction.quota import FloatArray
from tailwise.training.matrix import Float32Array

FARTHEST = 4.0
"""Standard deviations beyond which a feature is cut off: a network has no sense of what it never saw."""


class Perceptron:
    """scikit-learn's MLPRegressor between standardised logarithms and a standardised target.

    Learned, in the order they are applied: ``mean_``, ``scale_`` of ``log(1 + max(0, x))``, (features,) each;
    ``network_``; ``target_mean_`` and ``target_scale_``.
    """

    def __init__(self, parameters: Mapping[str, Any], seed: int) -> None:
        self.parameters = parameters
        self.seed = seed

    def fit(self, values: Float32Array, targets: FloatArray) -> Perceptron:
        """Fit to ``targets``, shape (rows,)."""
        from sklearn.neural_network import MLPRegressor  # noqa: PLC0415

        logs = _logs(values)
        self.mean_ = logs.mean(axis=0)
        spread = logs.std(axis=0)
        # A column that never changes tells nothing, and must not shout when it does.
        self.scale_ = np.where(spread > 1e-6, spread, 1.0)
        self.target_mean_ = float(targets.mean())
        self.target_scale_ = float(targets.std()) or 1.0
        settings: dict[str, Any] = {"max_iter": 200, "tol": 1e-5, **self.parameters}
        self.network_ = MLPRegressor(
            **settings, random_state=self.seed, early_stopping=len(values) >= 2000, n_iter_no_change=12
        )
        # One thread: sums of several come in an order that the machine chooses.
        with threadpool_limits(1), np.errstate(all="ignore"), _quietly():
            self.network_.fit(self._standard(logs), (targets - self.target_mean_) / self.target_scale_)
        return self

    def predict(self, values: Float32Array) -> FloatArray:
        """Answers in target space, (rows,)."""
        answer = self.network_.predict(self._standard(_logs(values)))
        return np.asarray(answer * self.target_scale_ + self.target_mean_, dtype=np.float64)

    def _standard(self, logs: FloatArray) -> FloatArray:
        standard = (logs - self.mean_) / self.scale_
        return np.asarray(np.clip(standard, -FARTHEST, FARTHEST), dtype=np.float64)


def _logs(values: Float32Array) -> FloatArray:
    return np.log1p(np.maximum(values, 0.0), dtype=np.float64)


def _quietly() -> Any:
    """Not having converged after the given rounds is no news: the error on held-out rows judges."""
    import warnings  # noqa: PLC0415

    return warnings.catch_warnings(action="ignore")
