"""Open loop: queries that arrive at random at a given rate, one server, a quota that idle time does not save.

A Lindley recursion played with the quota: a query starts when it has arrived and the server is free; what
the pod did not use of a period is lost when the period ends. All loads of a table are played at once with
the same random numbers, so more load is never faster by chance.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tailwise.prediction.quota import FloatArray

QUERIES = 1500
"""Length of the played run. An overloaded server's queue grows without end; this run's length caps it."""


@cache
def _random_numbers() -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(20)
    gaps = rng.exponential(1.0, QUERIES)
    return gaps / gaps.mean(), rng.standard_normal(QUERIES)


def open_loop_latencies(
    cpu_milliseconds: float,
    rate_cores: FloatArray,
    quota_milliseconds: FloatArray,
    period_milliseconds: float,
    requests_per_second: float,
    sigma: float,
) -> FloatArray:
    """Latencies in milliseconds of Poisson arrivals, shape (n, QUERIES).

    ``rate_cores`` and ``quota_milliseconds`` (infinite: none) are what each query meets: shape (n, QUERIES).
    CPU time varies by a lognormal factor of ``sigma``.
    """
    gaps, normal = _random_numbers()
    arrivals = np.cumsum(gaps) * 1000 / requests_per_second
    noise = np.exp(sigma * normal)
    count = len(rate_cores)
    possible = np.minimum(quota_milliseconds, rate_cores * period_milliseconds)
    free, used, period = np.zeros(count), np.zeros(count), np.zeros(count)
    latencies = np.empty((count, QUERIES))
    for index in range(QUERIES):
        rate, allowed = rate_cores[:, index], possible[:, index]
        start = np.maximum(arrivals[index], free)
        begun = np.floor(start / period_milliseconds)
        used = np.where(begun > period, 0.0, used)
        period = begun
        work = cpu_milliseconds * noise[index]
        offset = start - period * period_milliseconds
        left = np.minimum(allowed - used, (period_milliseconds - offset) * rate)
        left = np.maximum(left, 0.0)
        beyond = work - left
        whole = np.maximum(np.ceil(beyond / allowed), 1.0)
        rest = beyond - (whole - 1) * allowed
        fits = beyond <= 0
        free = np.where(fits, start + work / rate, (period + whole) * period_milliseconds + rest / rate)
        used = np.where(fits, used + work, rest)
        period = np.where(fits, period, period + whole)
        latencies[:, index] = free - arrivals[index]
    return latencies
