"""Effective capacity of nodes (equations 6 to 8), with the load of pods that were placed a moment ago.

All arrays have shape (nodes,), or (loads,) where one node is asked for at several loads. NaN is unknown and
stays unknown: a node that nobody measured is not idle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EffectiveCapacity:
    """Equation (8): cores and clock that are left, each of the utilisation's shape."""

    cores: Floats
    megahertz: Floats


def effective_capacity(
    capacity_cores: Floats, utilisation: Floats, megahertz: Floats, frequency_utilisation: Floats
) -> EffectiveCapacity:
    """CPU_eff = CPU x (1 - U_C) and FREQ_eff = FREQ x (1 - U_F), equations (6) and (7).

    ``utilisation`` and ``frequency_utilisation`` are fractions; what is measured past 1 counts as 1. A node's
    own figures may be scalars.
    """
    return EffectiveCapacity(
        cores=capacity_cores * (1.0 - np.clip(utilisation, 0.0, 1.0)),
        megahertz=megahertz * (1.0 - np.clip(frequency_utilisation, 0.0, 1.0)),
    )


def known_load(utilisation: Floats, age_seconds: Floats, oldest_seconds: float) -> tuple[Floats, Floats]:
    """Utilisation that may still be used, and how doubtful it is by its age; each (nodes,).

    Doubt is 0 up to ``oldest_seconds`` and grows to 1 at twice that; past it the utilisation is NaN, for then
    it says no more than none.
    """
    with np.errstate(invalid="ignore"):
        doubt = np.clip((age_seconds - oldest_seconds) / oldest_seconds, 0.0, 1.0)
        known = np.where(age_seconds <= 2 * oldest_seconds, utilisation, np.nan)
    return known, np.where(np.isnan(known), 0.0, doubt)


def assumed_utilisation(assumed_cores: Floats, capacity_cores: Floats) -> Floats:
    """What assumed pods add to U_C, as a fraction of the node's cores.

    With it U_C is demand and may pass 1: the more is wanted, the less each gets. It counts on a node of
    unknown utilisation too, on top of what is taken for it there: else a burst of pods would see none of
    itself, and herd.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return assumed_cores / capacity_cores
