"""Adaptive calibration: how much wider the bound must be by what was observed lately.

A version's bound is calibrated on rows that are exchangeable with what follows. Under drift they are not, and
a retraining takes its time; meanwhile the bound is widened by a conformal quantile over a sliding window (see
Gibbs and Candes, "Adaptive Conformal Inference Under Distribution Shift", with the window in place of the
step). It only ever widens, and what judges the version (``domain.drift``) counts against the bound as the
version gave it, so that adapting hides no drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

WINDOW_SAMPLES = 200
LEAST_SAMPLES = 30
"""Fewer say little: of 30 the bound's coverage of 0.9 is known within 0.11 at 95 % confidence."""

MOST_WIDER = 4.0
"""A bound wider than this says nothing any more; the version drifts by then."""

STEP = 0.05
"""Lesser changes are not worth exchanging tables for."""


def bound_factor(exceedance_ratios: Sequence[float], coverage: float, now: float = 1.0) -> float:
    """By what the version's own bound is to be multiplied, from 1 to ``MOST_WIDER``.

    ``exceedance_ratios``: observed P90 over the version's own bound, the newest last; the newest
    ``WINDOW_SAMPLES`` count. ``coverage``: the share that the bound promises, in (0, 1). ``now``: the factor
    in use, which is kept while it is within ``STEP`` of what is wanted.

    The ``ceil((n + 1) coverage)``-th smallest ratio covers the next one with that probability, if the window
    is exchangeable with it; where n is too small for that rank, the greatest.
    """
    window = sorted(exceedance_ratios[-WINDOW_SAMPLES:])
    if len(window) < LEAST_SAMPLES:
        return 1.0
    rank = min(len(window), math.ceil((len(window) + 1) * coverage - 1e-9))
    wanted = min(MOST_WIDER, max(1.0, window[rank - 1]))
    return now if abs(wanted - now) <= STEP * now and wanted != 1.0 else wanted
