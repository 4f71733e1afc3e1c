"""What a pod does to those that a node already has: the latency it adds to theirs, and whose SLO it breaks.

Algorithm 1 of the paper looks at the new pod alone, so a burst crowds the fast nodes until all are slow. Here
each resident brings its own curve: its latency by the load that others put on its node. Residents' curves on
one grid add up, so what a newcomer adds to all of them together is one difference, at all nodes at once.

Loads are fractions of a node's cores; past 1 they are demand that shares what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tailwise.domain.capacity import Floats
from tailwise.domain.snapshot import Bools

# Measured utilisation says little of demand from here on, and nothing at 1: a full node shows 1 with two
# pods that never rest as with twenty.
FILLING, _FULL = 0.8, 1.0

# A neighbour's demand cannot be told apart from that of pods without traffic when pods that never rest would
# have got this much more than they were seen to use.
_IDLE = 4.0


@dataclass(frozen=True, slots=True)
class ResidentCurve:
    """One resident by the load of its node, its own part of that included.

    ``p90_milliseconds``: shape (grid,). ``slo_reached_at``: load past which its bound misses its SLO;
    infinite where it never does or always does, for then no newcomer makes the difference.
    """

    p90_milliseconds: Floats
    slo_reached_at: float


def resident_curve(
    grid: Floats, p90_milliseconds: Floats, bound_milliseconds: Floats, demand: float, slo_milliseconds: float
) -> ResidentCurve:
    """The curve of a pod that itself puts the load ``demand`` on its node.

    ``p90_milliseconds`` and ``bound_milliseconds``, shape (grid,), are predictions by the load of others.
    """
    others = np.maximum(grid - demand, 0.0)
    bound = np.interp(others, grid, bound_milliseconds)
    held = np.flatnonzero(bound <= slo_milliseconds)
    if not len(held) or held[-1] == len(grid) - 1:
        return ResidentCurve(np.interp(others, grid, p90_milliseconds), np.inf)
    last = int(held[-1])
    share = (slo_milliseconds - bound[last]) / (bound[last + 1] - bound[last])
    reached = float(grid[last] + share * (grid[last + 1] - grid[last]))
    return ResidentCurve(np.interp(others, grid, p90_milliseconds), reached)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Residents of all nodes. ``summed``: (nodes, grid), milliseconds; ``slo_reached_at``: (nodes, most)."""

    grid: Floats
    summed: Floats
    slo_reached_at: Floats

    def added_milliseconds(self, load: Floats, extra: Floats) -> Floats:
        """What a newcomer that adds ``extra`` to ``load`` adds to the P90s of a node's residents, (nodes,).

        Zero where nothing is known of load or residents.
        """
        added = _at(self.grid, self.summed, load + extra) - _at(self.grid, self.summed, load)
        return np.where(np.isnan(added), 0.0, np.maximum(added, 0.0))

    def pushed_over(self, load: Floats, extra: Floats) -> Bools:
        """Nodes (nodes,) where a resident holds its SLO now and would not with the newcomer."""
        before, after = load[:, np.newaxis], (load + extra)[:, np.newaxis]
        crossed = (self.slo_reached_at >= before) & (self.slo_reached_at < after)
        return np.asarray(crossed.any(axis=1))


def _at(grid: Floats, rows: Floats, load: Floats) -> Floats:
    """Each row's value at its own load, between the points of the grid on a straight line."""
    place = np.clip(load, grid[0], grid[-1])
    low = np.clip(np.searchsorted(grid, place, side="right") - 1, 0, len(grid) - 2)
    weight = (place - grid[low]) / (grid[low + 1] - grid[low])
    flat = np.arange(len(rows)) * len(grid) + low
    values = rows.ravel()
    return np.asarray(values[flat] + (values[flat + 1] - values[flat]) * weight)


def demanded(utilisation: Floats, residents: Floats) -> Floats:
    """U_C of equation (6) as demand: what residents want counts where a node is used up.

    ``utilisation`` is measured, NaN where unknown; ``residents`` is the demand of pods that the measurement
    includes, as ``seen_demand`` knows it better where it was asked. Shapes (nodes,).
    """
    fullness = np.interp(utilisation, (FILLING, _FULL), (0.0, 1.0))
    return utilisation + fullness * np.maximum(residents - utilisation, 0.0)


def seen_demand(used_cores: float, residents: Sequence[tuple[float, float]]) -> float | None:
    """Cores that a full node's pods want, from what each resident was seen to use; None: no telling.

    ``residents`` has for each pod the cores it may keep busy and the cores it used, over the same time as
    ``used_cores``. On a full node all that never rest get the same for each core they want; whoever else is
    there takes the rest, and so wants as many times that. Residents without traffic say nothing.
    """
    wanted = sum(demand for demand, _ in residents)
    share = max((used / demand for demand, used in residents if demand > 0), default=0.0)
    if wanted <= 0 or share < used_cores / (_IDLE * (wanted + 1.0)):
        return None
    return used_cores / min(share, 1.0)
