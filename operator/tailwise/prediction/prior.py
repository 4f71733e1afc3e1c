"""Physics first: the time of a graph on a core, the quota played over its period, then the queue.

1. CPU time of one query on one core: a sum over the profile's work terms, each with the cost a unit that was
   measured on a reference node (``coefficients.json``), scaled by this node's own measured speeds.
2. Threads: parallel shares and a price of forking for each operator. Waiting threads spin, so a query of
   T threads burns T times its wall clock time.
3. Capacity: what the node has left, equations (6) to (8) (``capacity``).
4. Quotas: the pod's and the node's, played over their periods (``quota``).
5. Queue: closed loop of clients, or arrivals at random (``queueing``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.prediction.capacity import Share, pod_share
from tailwise.prediction.coefficients import Coefficients, Scale
from tailwise.prediction.prediction import Serving
from tailwise.prediction.queueing import open_loop_latencies
from tailwise.prediction.quota import FloatArray, nearest_rank, sustained_cores, wall_milliseconds

PHASES = 100
NOISES = 21

UTILISATION_GRID: FloatArray = np.linspace(0.0, 1.0, 21)
"""Fractions of a node's capacity at which latencies are played; tables are kept at these."""


@dataclass(frozen=True, slots=True)
class QueryCost:
    """What one query costs when nothing limits it; milliseconds.

    ``cpu_one_thread`` is the CPU time with one thread, ``wall`` the wall clock time with the threads asked
    for on free cores, ``burnt`` the CPU time that all threads use in it, spinning included.
    """

    cpu_one_thread: float
    wall: float
    burnt: float
    by_scale: Mapping[Scale, float]


@dataclass(frozen=True, slots=True)
class Latencies:
    """P50 and P90 in milliseconds at each utilisation, shape (n,)."""

    p50: FloatArray
    p90: FloatArray


def query_cost(profile: ModelProfile, hardware: NodeHardware, threads: int, known: Coefficients) -> QueryCost:
    """Steps 1 and 2: the cost of one query of ``profile`` (at its batch size) on free cores of a node."""
    slowdown = known.reference.slowdown(hardware.measured)
    by_scale = dict.fromkeys(Scale, 0.0)
    for name, term in known.terms.items():
        by_scale[term.scale] += getattr(profile.work, name) * term.nanoseconds_per_unit / 1e6
    by_scale = {scale: cost * slowdown[scale] for scale, cost in by_scale.items()}
    one_thread = sum(by_scale.values())
    running = min(threads, hardware.cores)
    if running == 1:
        return QueryCost(one_thread, one_thread, one_thread, by_scale)
    costs = known.threads
    wall = (
        _shared(by_scale[Scale.COMPUTE], costs.compute_parallel_share, running)
        + _shared(by_scale[Scale.MEMORY], costs.memory_parallel_share, running)
        + by_scale[Scale.OVERHEAD]
        + profile.work.operator_count
        * costs.synchronisation_nanoseconds_per_operator
        / 1e6
        * slowdown[Scale.OVERHEAD]
    )
    return QueryCost(one_thread, wall, running * wall, by_scale)


def _shared(cost: float, parallel_share: float, threads: int) -> float:
    """Amdahl's law."""
    return cost * (1 - parallel_share + parallel_share / threads)


def latencies(
    cost: QueryCost, serving: Serving, hardware: NodeHardware, utilisation: FloatArray, sigma: float
) -> Latencies:
    """Steps 3 to 5 for every utilisation in ``utilisation``, shape (n,).

    A pod slowed down by others spends less time throttled by its own limit, so the steady state can be
    faster at more load. Load comes and goes: at its quieter moments the pod is throttled as at less
    load. So the answer is the worst at this or any lower utilisation.
    """
    lower = UTILISATION_GRID[utilisation.max() > UTILISATION_GRID]
    points = np.concatenate([lower, utilisation])
    share = pod_share(hardware, serving, points)
    if serving.requests_per_second:
        samples = _open_loop(cost, serving, share, sigma)
    else:
        samples = _closed_loop(cost, serving, share, sigma)
    order = np.argsort(points, kind="stable")
    place = np.argsort(order, kind="stable")[len(lower) :]
    p50, p90 = (
        np.maximum.accumulate(nearest_rank(samples, percentile)[order])[place] for percentile in (0.5, 0.9)
    )
    return Latencies(p50, p90)


def _closed_loop(cost: QueryCost, serving: Serving, share: Share, sigma: float) -> FloatArray:
    """Latencies in the long run, as if every start within a period were as likely as every other.

    A run of many queries with a little noise each visits all of a period's quota evenly; taking them in
    strata instead of at random gives the percentiles of an endless run, without the noise of a short one.
    """
    concurrency = max(1, serving.concurrency)
    noise = np.exp(sigma / math.sqrt(concurrency) * _normal_strata())
    work = concurrency * cost.burnt * noise
    rate = share.rate_cores[:, np.newaxis, np.newaxis]
    if not share.quotas:
        return np.asarray((work / rate).reshape(len(share.rate_cores), -1))
    quotas = [
        type(quota)(
            np.broadcast_to(np.asarray(quota.quota_milliseconds, dtype=np.float64), share.rate_cores.shape)[
                :, np.newaxis, np.newaxis
            ],
            quota.period_milliseconds,
        )
        for quota in share.quotas
    ]
    # The start's place in the quota of the longest period that binds; the shorter ones lie within it.
    longest = max(quotas, key=lambda quota: quota.period_milliseconds)
    starts = (np.arange(PHASES) + 0.5)[:, np.newaxis] / PHASES * longest.quota_milliseconds
    taken = wall_milliseconds(starts + work, rate, quotas) - wall_milliseconds(starts, rate, quotas)
    return np.asarray(taken.reshape(len(share.rate_cores), -1))


def _open_loop(cost: QueryCost, serving: Serving, share: Share, sigma: float) -> FloatArray:
    count = len(share.rate_cores)
    burnt = np.full(count, cost.burnt)
    if not share.quotas:
        period, allowed, rate = 100.0, np.full(count, np.inf), share.rate_cores
    else:
        *inner, outer = sorted(share.quotas, key=lambda quota: quota.period_milliseconds)
        period = outer.period_milliseconds
        allowed = np.broadcast_to(np.asarray(outer.quota_milliseconds, dtype=np.float64), (count,))
        rate = sustained_cores(share.rate_cores, inner)
    return open_loop_latencies(burnt, rate, allowed, period, float(serving.requests_per_second or 0), sigma)


@cache
def _normal_strata() -> FloatArray:
    """Midpoints of NOISES equally likely strata of the standard normal distribution."""
    from statistics import NormalDist  # noqa: PLC0415 - used once

    return np.array([NormalDist().inv_cdf((i + 0.5) / NOISES) for i in range(NOISES)])
