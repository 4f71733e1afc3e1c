"""A CFS quota played over its period: what a CPU limit does to the latency of back-to-back queries.

A limit of ``q`` microseconds every period ``P`` does not make the processor slower: the pod runs at full
speed until the quota is used up, then not at all until the next period begins. T threads burn it T times
as fast, and the threads of the runtime's pool spin while they wait, so they burn it all the time. A
server that is never idle therefore has used ``c`` of CPU time at a wall clock time ``W(c)`` that is known in
closed form, and a query that takes the CPU time from ``a`` to ``b`` has the latency ``W(b) - W(a)``:

    W(c) = k P + (c - k q) / T,   k = ceil(c / q) - 1 periods used up before        (one quota)

Quotas nest (the node's cgroup above the pod's): within one period of the outer, the inner map runs from
its start, so ``W_outer(c) = k P + W_inner(c - k q)`` as long as the inner leaves time to use up ``q``.
Checked against runs in real cgroups: ``bench/prior``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quota:
    """CPU time that a cgroup may use in each period; both in milliseconds.

    ``quota_milliseconds`` may be an array: one quota for each utilisation of a table.
    """

    quota_milliseconds: float | FloatArray
    period_milliseconds: float


def wall_milliseconds(
    cpu_milliseconds: FloatArray, rate_cores: float | FloatArray, quotas: Sequence[Quota]
) -> FloatArray:
    """Wall clock time at which a busy pod has used so much CPU time since a period began.

    ``cpu_milliseconds``: any shape, not negative. ``rate_cores``: CPU time burnt a unit of wall clock time
    while it may run; broadcasts against it, as do the quotas. Result: milliseconds, the broadcast shape.
    """
    ordered = sorted(quotas, key=lambda quota: quota.period_milliseconds)
    return _wall(np.asarray(cpu_milliseconds, dtype=np.float64), rate_cores, ordered)


def _wall(cpu: FloatArray, rate: float | FloatArray, quotas: Sequence[Quota]) -> FloatArray:
    if not quotas:
        return np.asarray(cpu / rate, dtype=np.float64)
    *inner, outer = quotas
    allowed = np.asarray(outer.quota_milliseconds, dtype=np.float64)
    # Work that just uses a quota up ends with it; what comes next, if only a nanosecond, waits.
    periods = np.maximum(np.ceil(cpu / allowed - 1e-9) - 1, 0.0)
    used_up = _wall(allowed, rate, inner)
    played = periods * outer.period_milliseconds + _wall(cpu - periods * allowed, rate, inner)
    # Where the inner limits never let it use the quota up within a period, the outer one does not bind.
    return np.where(used_up < outer.period_milliseconds, played, _wall(cpu, rate, inner))


def sustained_cores(rate_cores: float | FloatArray, quotas: Sequence[Quota]) -> FloatArray:
    """Cores that a busy pod gets on average: the least of its rate and all quotas."""
    cores = np.asarray(rate_cores, dtype=np.float64)
    for quota in quotas:
        cores = np.minimum(cores, np.asarray(quota.quota_milliseconds) / quota.period_milliseconds)
    return cores


def back_to_back_latencies(
    cpu_milliseconds: FloatArray, rate_cores: FloatArray, quotas: Sequence[Quota], concurrency: int = 1
) -> FloatArray:
    """Latencies of a closed loop of ``concurrency`` clients, in milliseconds.

    ``cpu_milliseconds``: shape (..., queries), the CPU time of each query in the order of service. Queries
    are served one at a time; each client sends its next one when its last is answered, so a query waits for
    the ``concurrency - 1`` before it. ``rate_cores`` and quotas broadcast as (..., 1). Result: as the input.
    """
    ends = wall_milliseconds(np.cumsum(cpu_milliseconds, axis=-1), rate_cores, quotas)
    starts = np.zeros_like(ends)
    starts[..., concurrency:] = ends[..., :-concurrency]
    return (ends - starts)[..., concurrency - 1 :]


def nearest_rank(values: FloatArray, share: float) -> FloatArray:
    """Percentile by nearest rank, equation (10): element ceil(share x n) of the sorted last axis."""
    count = values.shape[-1]
    rank = max(1, int(np.ceil(share * count - 1e-9)))
    return np.asarray(np.partition(values, rank - 1, axis=-1)[..., rank - 1], dtype=np.float64)
