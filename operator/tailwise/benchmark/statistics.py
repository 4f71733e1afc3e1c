"""Means and ratios with bootstrapped intervals. Pure; the same seed gives the same interval.

What is resampled are pods, within each round and the same ones for both sides of a ratio (a slot is the same
model, arriving at the same place in the order). Pods of one step share nodes, so they are not independent
and the interval is on the narrow side; the difference of two measurements of one placement (A/A) stands
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
_LEVEL = 95.0

Key = tuple[int, str]
"""Round and slot."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def words(self, digits: int = 1) -> str:
        """``371.0 (350.1 to 392.4)``."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def mean_interval(values: Mapping[Key, float], seed: int = 0) -> Interval:
    """Mean over all pods.

    Raises:
        ValueError: there are none.
    """
    keys = _keys(values)
    column = np.array([values[key] for key in keys])
    means = column[_resampled(keys, seed)].mean(axis=1)
    return _interval(float(column.mean()), means)


def ratio_interval(over: Mapping[Key, float], under: Mapping[Key, float], seed: int = 0) -> Interval:
    """Mean of one over mean of the other, over the pods that both have measured.

    Raises:
        ValueError: there are none.
    """
    keys = _keys(over.keys() & under.keys())
    first = np.array([over[key] for key in keys])
    second = np.array([under[key] for key in keys])
    chosen = _resampled(keys, seed)
    ratios = first[chosen].mean(axis=1) / second[chosen].mean(axis=1)
    return _interval(float(first.mean() / second.mean()), ratios)


def _keys(keys: object) -> list[Key]:
    ordered = sorted(keys)  # type: ignore[call-overload]
    if not ordered:
        raise ValueError("no pod was measured")
    return list(ordered)


def _resampled(keys: Sequence[Key], seed: int) -> NDArray[np.intp]:
    """Places of pods, shape (RESAMPLES, pods): of each round as many as it has."""
    random = np.random.default_rng(seed)
    rounds = np.array([number for number, _ in keys])
    parts = []
    for number in np.unique(rounds):
        places = np.flatnonzero(rounds == number)
        parts.append(places[random.integers(0, len(places), (RESAMPLES, len(places)))])
    return np.concatenate(parts, axis=1)


def _interval(value: float, estimates: NDArray[np.float64]) -> Interval:
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return Interval(value, min(value, float(low)), max(value, float(high)))
