"""Predictions tabled over utilisation, so that a decision over thousands of nodes is a gather.

In: one table a node class (same hardware, same serving). Out: P90 and bound for N nodes by linear
interpolation in utilisation. Unknown utilisation (NaN) is taken as high, with a wider bound: never as none.
What pods placed a moment ago will use comes on top of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.prediction.prior import UTILISATION_GRID, on_grid
from tailwise.prediction.quota import FloatArray


@dataclass(frozen=True, slots=True)
class UnknownLoad:
    """How a node is read whose load nobody knows: as at this utilisation, with a bound so much wider."""

    utilisation: float
    bound_factor: float


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """Milliseconds over ``UTILISATION_GRID``, its shape, for one profile, serving and node class.

    ``bound`` is that of ``Serving.bound_percentile``.
    """

    p50: FloatArray
    p90: FloatArray
    bound: FloatArray
    unknown: UnknownLoad
    source: PredictionSource
    version: int

    def at(self, utilisation: float | None, assumed: float = 0.0) -> tuple[float, float, float]:
        """P50, P90 and bound in milliseconds at one utilisation (None or NaN: unknown) plus ``assumed``."""
        unknown = utilisation is None or np.isnan(utilisation)
        load = (self.unknown.utilisation if utilisation is None or unknown else utilisation) + assumed
        p50, p90, bound = (
            float(np.interp(load, UTILISATION_GRID, values)) for values in (self.p50, self.p90, self.bound)
        )
        return p50, p90, bound * (self.unknown.bound_factor if unknown else 1.0)

    def widened(self, factor: float) -> PredictionTable:
        """The same with the bound so many times as wide."""
        return self if factor == 1.0 else replace(self, bound=self.bound * factor)


@dataclass(frozen=True, slots=True)
class TableSet:
    """Tables of several node classes, stacked; row i of each array belongs to class i."""

    p90: FloatArray
    bound: FloatArray
    unknown_utilisation: FloatArray
    unknown_bound_factor: FloatArray

    @classmethod
    def stack(cls, tables: Sequence[PredictionTable]) -> TableSet:
        """Stack tables; a node's class index is its table's place in ``tables``."""
        return cls(
            p90=np.stack([table.p90 for table in tables]),
            bound=np.stack([table.bound for table in tables]),
            unknown_utilisation=np.array([table.unknown.utilisation for table in tables]),
            unknown_bound_factor=np.array([table.unknown.bound_factor for table in tables]),
        )

    def lookup(
        self,
        class_index: NDArray[np.intp],
        utilisation: FloatArray,
        assumed: FloatArray | float = 0.0,
    ) -> tuple[FloatArray, FloatArray]:
        """P90 and bound in milliseconds of N nodes: arrays of shape (N,).

        ``class_index``: shape (N,), rows of the tables. ``utilisation``: shape (N,), measured, fractions of
        the node's capacity, NaN where unknown. ``assumed``: shape (N,), the same of pods that no sample
        shows yet. Their sum is clipped to the grid's ends.
        """
        unknown = np.isnan(utilisation)
        load = np.where(unknown, self.unknown_utilisation[class_index], utilisation) + assumed
        place, low = on_grid(load)
        weight = (place - UTILISATION_GRID[low]) / (UTILISATION_GRID[low + 1] - UTILISATION_GRID[low])
        flat = class_index * len(UTILISATION_GRID) + low

        def gathered(values: FloatArray) -> FloatArray:
            left, right = values.ravel()[flat], values.ravel()[flat + 1]
            return np.asarray(left + (right - left) * weight)

        widened = np.where(unknown, self.unknown_bound_factor[class_index], 1.0)
        return gathered(self.p90), gathered(self.bound) * widened
