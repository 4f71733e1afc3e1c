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
from numpy.typing import NDArray

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.prediction.capacity import Share, pod_share
from tailwise.prediction.coefficients import Coefficients, Scale
from tailwise.prediction.prediction import Serving
from tailwise.prediction.queueing import open_loop_latencies
from tailwise.prediction.quota import FloatArray, Quota, nearest_rank, sustained_cores, wall_milliseconds

PHASES = 100
NOISES = 21
_GOLDEN = (math.sqrt(5.0) - 1) / 2

BESIDES = 0.03
"""CPU time burnt between queries, as a share of theirs: the client's loop, the server's bookkeeping."""

TICK_MILLISECONDS = 4.0
"""Clock tick of the usual 250 Hz kernels, at which the kernel notices that a quota is spent."""

UTILISATION_GRID: FloatArray = np.concatenate(
    [np.linspace(0.0, 1.0, 21), [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0]]
)
"""Fractions of a node's capacity at which latencies are played; tables are kept at these.

Above 1 it is demand: pods that were placed want more than there is, and share it."""


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


def served_cost(
    profile: ModelProfile, hardware: NodeHardware, serving: Serving, known: Coefficients
) -> QueryCost:
    """``query_cost`` and what the server spends on a query besides, in one thread of its own."""
    cost = query_cost(profile, hardware, serving.threads, known)
    own = serving.overhead_milliseconds * known.reference.slowdown(hardware.measured)[Scale.OVERHEAD]
    if not own:
        return cost
    by_scale = {**cost.by_scale, Scale.OVERHEAD: cost.by_scale[Scale.OVERHEAD] + own}
    return QueryCost(cost.cpu_one_thread + own, cost.wall + own, cost.burnt + own, by_scale)


def query_cost(profile: ModelProfile, hardware: NodeHardware, threads: int, known: Coefficients) -> QueryCost:
    """Steps 1 and 2: the cost of one query of ``profile`` (at its batch size) on free cores of a node."""
    slowdown = known.reference.slowdown(hardware.measured)
    by_scale = dict.fromkeys(Scale, 0.0)
    for name, units in work_units(profile, hardware).items():
        term = known.terms.get(name)
        if term is not None:
            by_scale[term.scale] += units * term.nanoseconds_per_unit / 1e6
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


def work_units(profile: ModelProfile, hardware: NodeHardware) -> dict[str, float]:
    """Units of every term; weights of products of few rows by whether they stay in the last-level cache.

    A model whose parameters fit in three quarters of it finds them there at the next query; from there to the
    whole of it ever fewer, so that no byte more is a jump. An unknown cache keeps nothing.
    """
    units = {name: float(amount) for name, amount in profile.work.model_dump(by_alias=False).items()}
    cache = hardware.l3_cache_bytes
    kept = min(1.0, max(0.0, 4 * (1 - profile.parameter_bytes / cache))) if cache else 0.0
    vectors = units["matrix_vector_bytes"]
    return units | {
        "matrix_vector_bytes": vectors * (1 - kept),
        "cached_matrix_vector_bytes": vectors * kept,
    }


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
    points, place = np.unique(np.concatenate([utilisation, lower]), return_inverse=True)
    share, back = _distinct(pod_share(hardware, serving, points))
    if serving.requests_per_second:
        samples = _open_loop(cost, serving, share, sigma)
    else:
        samples = _closed_loop(cost, serving, share, sigma)
    wanted = place[: len(utilisation)]
    p50, p90 = (
        np.maximum.accumulate(nearest_rank(samples, percentile)[back])[wanted] for percentile in (0.5, 0.9)
    )
    return Latencies(p50, p90)


def _distinct(share: Share) -> tuple[Share, NDArray[np.intp]]:
    """Each share once, and its place for every load: while others leave enough, all are the same."""
    columns = np.stack(
        [
            share.rate_cores,
            *(np.broadcast_to(quota.quota_milliseconds, share.rate_cores.shape) for quota in share.quotas),
        ]
    )
    kept, back = np.unique(columns, axis=1, return_inverse=True)
    quotas = tuple(
        Quota(row, quota.period_milliseconds) for row, quota in zip(kept[1:], share.quotas, strict=True)
    )
    return Share(kept[0], quotas), back.reshape(-1)


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
    ordered = sorted(share.quotas, key=lambda quota: quota.period_milliseconds)
    quotas = [
        Quota(
            np.broadcast_to(np.asarray(quota.quota_milliseconds, dtype=np.float64), share.rate_cores.shape)[
                :, np.newaxis, np.newaxis
            ],
            quota.period_milliseconds,
        )
        for quota in ordered
    ]
    # The start's place in the quota of the longest period that binds. The shorter ones lie within it and must
    # be met at every phase too: even steps may be multiples of theirs, those of the golden ratio never are.
    longest = quotas[-1]
    even = np.arange(PHASES) + 0.5
    places: FloatArray = even / PHASES if len(quotas) == 1 else np.mod(even * _GOLDEN, 1.0)
    starts = places[:, np.newaxis] * longest.quota_milliseconds
    before = wall_milliseconds(starts, rate, quotas)
    taken = wall_milliseconds(starts + work, rate, quotas) - before
    # A little more is burnt than the queries themselves take; it decides where a tenth is throttled.
    shade = BESIDES * cost.burnt * concurrency
    with_shade = wall_milliseconds(starts + work + shade, rate, quotas) - before - shade / rate
    throttled = np.maximum(taken, with_shade) + _tick_jitter(starts + work + shade, longest, quotas, rate)
    return np.asarray(throttled.reshape(len(share.rate_cores), -1))


def _tick_jitter(used: FloatArray, longest: Quota, quotas: list[Quota], rate: FloatArray) -> FloatArray:
    """How much sooner or later than its quota says a throttled query ends.

    The kernel notices at a clock tick that a quota is spent, and takes the excess off the next period's: the
    pause lasts ``P - q`` plus one excess minus another, both even over a tick.
    """
    allowed = np.asarray(longest.quota_milliseconds, dtype=np.float64)
    pause = longest.period_milliseconds - wall_milliseconds(allowed, rate, quotas[:-1])
    width = np.clip(pause, 0.0, TICK_MILLISECONDS)
    return np.where(used > allowed, width * _triangular_strata(), 0.0)


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
def _triangular_strata() -> FloatArray:
    """The difference of two even draws from [0, 1], spread evenly over all phases and noises.

    Shape (PHASES, NOISES); multiples of the golden ratio leave no pattern between a phase and its jitter.
    """
    even = (np.arange(PHASES * NOISES) * _GOLDEN + 0.5) % 1.0
    difference = np.where(even < 0.5, np.sqrt(2 * even) - 1, 1 - np.sqrt(2 * (1 - even)))
    return np.asarray(difference.reshape(PHASES, NOISES))


@cache
def _normal_strata() -> FloatArray:
    """Midpoints of NOISES equally likely strata of the standard normal distribution."""
    from statistics import NormalDist  # noqa: PLC0415 - used once

    return np.array([NormalDist().inv_cdf((i + 0.5) / NOISES) for i in range(NOISES)])
