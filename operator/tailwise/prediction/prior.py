"""Physics first: the time of a graph on a core, the quota played over its period, then the queue.

1. CPU time of one query on one core: a sum over the profile's work terms, each with the cost a unit that was
   measured on a reference node (``coefficients.json``), scaled by this node's own measured speeds.
2. Threads: parallel shares and a price of forking for each operator. Waiting threads spin, so a query of
   T threads burns T times its wall clock time.
3. Capacity: what the node has left, equations (6) to (8) (``capacity``), beside others that come and go
   (``neighbours``).
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
from tailwise.prediction.capacity import Met, met_share, pod_quota
from tailwise.prediction.coefficients import Coefficients, Scale
from tailwise.prediction.prediction import Serving
from tailwise.prediction.queueing import QUERIES, open_loop_latencies
from tailwise.prediction.quota import FloatArray, Quota, sustained_cores, wall_milliseconds

PHASES = 100
NOISES = 21
_GOLDEN = (math.sqrt(5.0) - 1) / 2

MEETINGS = 210
"""Places in others' comings and goings at which queries begin."""

_MET = ((np.arange(PHASES * NOISES) * 97) % MEETINGS).reshape(PHASES, NOISES)

BESIDES = 0.03
"""CPU time burnt between queries, as a share of theirs: the client's loop, the server's bookkeeping."""

BETWEEN = 0.6
"""Way from client to server and back, as a part of what the server itself spends on a query: both grow with
what is sent. 1.1 ms beside 1.9 ms for images of 600 KB between pods of one machine."""

COLD = 0.05
"""More CPU time beside a neighbour that computes: a turn begins with caches full of the neighbour's data."""

TICK_MILLISECONDS = 4.0
"""Clock tick of the usual 250 Hz kernels, at which the kernel notices that a quota is spent."""

UTILISATION_GRID: FloatArray = np.concatenate(
    [np.linspace(0.0, 1.0, 21), [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0]]
)
"""Fractions of a node's capacity at which latencies are played; tables are kept at these.

Above 1 it is demand: pods that were placed want more than there is, and share it."""


def on_grid(utilisation: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Loads within the ends of UTILISATION_GRID, and the point below each that has one above it; as given."""
    place = np.clip(utilisation, UTILISATION_GRID[0], UTILISATION_GRID[-1])
    below = np.searchsorted(UTILISATION_GRID, place, side="right") - 1
    return place, np.clip(below, 0, len(UTILISATION_GRID) - 2)


@dataclass(frozen=True, slots=True)
class QueryCost:
    """What one query costs when nothing limits it; milliseconds.

    ``cpu_one_thread`` is the CPU time with one thread, ``wall`` the wall clock time with the threads asked
    for on free cores, ``burnt`` the CPU time that all threads use in it, spinning included. ``between`` is
    the time in which the pod does not compute: the way from client to server and back.
    """

    cpu_one_thread: float
    wall: float
    burnt: float
    by_scale: Mapping[Scale, float]
    between: float = 0.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """P50 and P90 in milliseconds at each utilisation, shape (n,); another percentile where one is asked."""

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
    return QueryCost(
        cost.cpu_one_thread + own, cost.wall + own, cost.burnt + own, by_scale, between=BETWEEN * own
    )


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
    cost: QueryCost,
    serving: Serving,
    hardware: NodeHardware,
    utilisation: FloatArray,
    sigma: float,
    percentile: int = 90,
) -> Latencies:
    """Steps 3 to 5 for every utilisation in ``utilisation``, shape (n,): what is measured at that load.

    Played at the nearest points of UTILISATION_GRID and taken between them in proportion. A pod slowed down
    by others spends less time throttled by its own limit, so more load can mean a lower P90.
    """
    place, low = on_grid(utilisation)
    used = np.unique(np.concatenate([low, np.where(place > UTILISATION_GRID[low], low + 1, low)]))
    grid = UTILISATION_GRID[used]
    if serving.requests_per_second:
        played = _open_loop(cost, serving, hardware, grid, sigma)
    else:
        played = _closed_loop(cost, serving, hardware, grid, sigma)
    ranks = [max(0, math.ceil(share * played.shape[1] - 1e-9) - 1) for share in (0.5, percentile / 100)]
    ordered = np.partition(played, ranks, axis=1)
    p50, p90 = (np.interp(place, grid, ordered[:, rank]) for rank in ranks)
    return Latencies(p50, p90)


def worst_latencies(
    cost: QueryCost,
    serving: Serving,
    hardware: NodeHardware,
    utilisation: FloatArray,
    sigma: float,
    percentile: int = 90,
) -> Latencies:
    """The worst at this or any lower load: what a pod is promised where it is placed.

    Load comes and goes. At its quieter moments a pod is throttled by its own limit as at less load, and no
    node may look better for being busier.
    """
    last = int(np.searchsorted(UTILISATION_GRID, min(utilisation.max(), UTILISATION_GRID[-1])))
    grid = UTILISATION_GRID[: last + 1]
    at_load = latencies(cost, serving, hardware, grid, sigma, percentile)
    p50, p90 = (
        np.interp(utilisation, grid, np.maximum.accumulate(each)) for each in (at_load.p50, at_load.p90)
    )
    return Latencies(p50, p90)


def _closed_loop(
    cost: QueryCost, serving: Serving, hardware: NodeHardware, grid: FloatArray, sigma: float
) -> FloatArray:
    """Latencies of clients that each wait for their answers; shape (loads, PHASES x NOISES).

    While others leave enough, all loads are the same and are played once.
    """
    burnt = max(1, serving.concurrency) * cost.burnt
    known: dict[bytes, FloatArray] = {}
    played = []
    for load in grid:
        met = met_share(hardware, serving, float(load), burnt, MEETINGS)
        moving = (
            met.share.rate_cores,
            *(quota.quota_milliseconds for quota in met.share.quotas),
            met.contended,
        )
        key = b"".join(np.asarray(each).tobytes() for each in moving)
        if key not in known:
            known[key] = _back_to_back(cost, serving, hardware, met, sigma)
        played.append(known[key])
    return np.stack(played)


def _back_to_back(
    cost: QueryCost, serving: Serving, hardware: NodeHardware, met: Met, sigma: float
) -> FloatArray:
    """Latencies in the long run, as if every start within a period were as likely as every other.

    A run of many queries with a little noise each visits all of a period's quota evenly; taking them in
    strata instead of at random gives the percentiles of an endless run, without the noise of a short one.
    Shape (PHASES x NOISES,).
    """

    def spread(values: float | FloatArray) -> FloatArray:
        # What each start meets, (PHASES, NOISES); (1, 1) where all meet the same.
        array = np.asarray(values, dtype=np.float64)
        return array[_MET] if array.size > 1 else array.reshape(1, 1)

    concurrency = max(1, serving.concurrency)
    noise = np.exp(sigma / math.sqrt(concurrency) * _normal_strata())
    contended = spread(met.contended)
    work = np.broadcast_to(concurrency * cost.burnt * noise * (1 + COLD * contended), (PHASES, NOISES))
    rate, own = spread(met.share.rate_cores), pod_quota(serving)
    after = 0.0
    if concurrency == 1:
        # One client: the pod rests while its query is on the way, and uses its quota up more slowly.
        rate = work / (work / rate + cost.between)
    else:
        after = cost.between
    ordered = sorted(
        (
            *(Quota(spread(q.quota_milliseconds), q.period_milliseconds) for q in met.share.quotas),
            *own,
        ),
        key=lambda quota: quota.period_milliseconds,
    )
    waits = _waits(hardware, contended) + after
    if not ordered:
        return np.asarray((work / rate + waits).ravel())
    # The start's place in the quota of the longest period that binds. The shorter ones lie within it and must
    # be met at every phase too: even steps may be multiples of theirs, those of the golden ratio never are.
    longest = ordered[-1]
    even = np.arange(PHASES) + 0.5
    places: FloatArray = even / PHASES if len(ordered) == 1 else np.mod(even * _GOLDEN, 1.0)
    starts = places[:, np.newaxis] * longest.quota_milliseconds
    before = wall_milliseconds(starts, rate, ordered)
    taken = wall_milliseconds(starts + work, rate, ordered) - before
    # A little more is burnt than the queries themselves take; it decides where a tenth is throttled.
    shade = BESIDES * cost.burnt * concurrency
    with_shade = wall_milliseconds(starts + work + shade, rate, ordered) - before - shade / rate
    throttled = np.maximum(taken, with_shade) + _tick_jitter(starts + work + shade, longest, ordered, rate)
    return np.asarray((throttled + waits).ravel())


def _waits(hardware: NodeHardware, contended: FloatArray) -> FloatArray:
    """How much longer queries take beside others than their share says, in milliseconds.

    Who wakes beside a neighbour that computes waits for the next clock tick, and turns are whole ticks: a
    query has half a tick less or one and a half more than its share, evenly in each of two ways. On a node
    that is part of a core the turns stretch as all else does.
    """
    stretched = TICK_MILLISECONDS * hardware.cores / hardware.capacity_cores
    return np.asarray(stretched * contended * _turns())


def _tick_jitter(used: FloatArray, longest: Quota, quotas: list[Quota], rate: FloatArray) -> FloatArray:
    """How much sooner or later than its quota says a throttled query ends.

    The kernel notices at a clock tick that a quota is spent, and takes the excess off the next period's: the
    pause lasts ``P - q`` plus one excess minus another, both even over a tick.
    """
    allowed = np.asarray(longest.quota_milliseconds, dtype=np.float64)
    pause = longest.period_milliseconds - wall_milliseconds(allowed, rate, quotas[:-1])
    width = np.clip(pause, 0.0, TICK_MILLISECONDS)
    return np.where(used > allowed, width * _triangular_strata(), 0.0)


def _open_loop(
    cost: QueryCost, serving: Serving, hardware: NodeHardware, grid: FloatArray, sigma: float
) -> FloatArray:
    """Latencies of arrivals at random, which meet others' bursts in turn; shape (loads, QUERIES)."""
    period, allowed, rates = 100.0, [], []
    for load in grid:
        met = met_share(hardware, serving, float(load), cost.burnt, QUERIES, in_turn=True)
        ordered = sorted(
            (*met.share.quotas, *pod_quota(serving)), key=lambda quota: quota.period_milliseconds
        )
        *inner, outer = ordered or [Quota(np.inf, period)]
        period = outer.period_milliseconds
        allowed.append(np.broadcast_to(np.asarray(outer.quota_milliseconds, dtype=np.float64), (QUERIES,)))
        rates.append(np.broadcast_to(sustained_cores(met.share.rate_cores, inner), (QUERIES,)))
    return cost.between + open_loop_latencies(
        cost.burnt, np.stack(rates), np.stack(allowed), period, float(serving.requests_per_second or 0), sigma
    )


@cache
def _turns() -> FloatArray:
    """The sum of two even draws from [0, 1] less a half, spread evenly over all phases and noises."""
    even = (np.arange(PHASES * NOISES) * _GOLDEN**2 + 0.5) % 1.0
    both = np.where(even < 0.5, np.sqrt(2 * even), 2 - np.sqrt(2 * (1 - even)))
    return np.asarray((both - 0.5).reshape(PHASES, NOISES))


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
