"""Predictions tabled over utilisation, so that a decision over thousands of nodes is a gather.

In: one table a node class (same hardware, same serving). Out: P90 and bound for N nodes by linear
interpolation in utilisation. Unknown utilisation (NaN) is an entry of its own: never read as no load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tailwise.prediction.prediction import Source
from tailwise.prediction.prior import UTILISATION_GRID
from tailwise.prediction.quota import FloatArray


@dataclass(frozen=True, slots=True)
class UnknownLoad:
    """The entry for a node whose load nobody knows: at a stated utilisation, with a wider bound."""

    p50: float
    p90: float
    bound: float


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """Milliseconds over ``UTILISATION_GRID``, its shape, for one profile, serving and node class."""

    p50: FloatArray
    p90: FloatArray
    bound: FloatArray
    unknown: UnknownLoad
    source: Source
    version: int

    def at(self, utilisation: float | None) -> tuple[float, float, float]:
        """P50, P90 and bound in milliseconds at one utilisation; None: the entry for unknown load."""
        if utilisation is None or np.isnan(utilisation):
            return self.unknown.p50, self.unknown.p90, self.unknown.bound
        p50, p90, bound = (
            float(np.interp(utilisation, UTILISATION_GRID, values))
            for values in (self.p50, self.p90, self.bound)
        )
        return p50, p90, bound


@dataclass(frozen=True, slots=True)
class TableSet:
    """Tables of several node classes, stacked; row i of each array belongs to class i."""

    p90: FloatArray
    bound: FloatArray
    unknown_p90: FloatArray
    unknown_bound: FloatArray

    @classmethod
    def stack(cls, tables: Sequence[PredictionTable]) -> TableSet:
        """Stack tables; a node's class index is its table's place in ``tables``."""
        return cls(
            p90=np.stack([table.p90 for table in tables]),
            bound=np.stack([table.bound for table in tables]),
            unknown_p90=np.array([table.unknown.p90 for table in tables]),
            unknown_bound=np.array([table.unknown.bound for table in tables]),
        )

    def lookup(self, class_index: NDArray[np.intp], utilisation: FloatArray) -> tuple[FloatArray, FloatArray]:
        """P90 and bound in milliseconds of N nodes: arrays of shape (N,).

        ``class_index``: shape (N,), rows of the tables. ``utilisation``: shape (N,), fractions of the node's
        capacity, clipped to the grid's ends; NaN where unknown.
        """
        known = ~np.isnan(utilisation)
        steps = len(UTILISATION_GRID) - 1
        place = np.clip(np.where(known, utilisation, 0.0), UTILISATION_GRID[0], UTILISATION_GRID[-1])
        low = np.clip(np.searchsorted(UTILISATION_GRID, place, side="right") - 1, 0, steps - 1)
        weight = (place - UTILISATION_GRID[low]) / (UTILISATION_GRID[low + 1] - UTILISATION_GRID[low])
        flat = class_index * (steps + 1) + low

        def gathered(values: FloatArray, unknown: FloatArray) -> FloatArray:
            left, right = values.ravel()[flat], values.ravel()[flat + 1]
            return np.where(known, left + (right - left) * weight, unknown[class_index])

        return gathered(self.p90, self.unknown_p90), gathered(self.bound, self.unknown_bound)
