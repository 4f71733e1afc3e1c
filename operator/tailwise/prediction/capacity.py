"""What of a node a pod can use: a fair share where its threads do not fit in what is left.

Equation (6) leaves ``CPU (1 - U_C)`` cores (``domain.capacity``). Where the pod's threads fit in that, they
run at full speed. Where they do not, the kernel shares by weight, not by who came first: among ``T`` threads
of the pod and others that keep ``CPU U_C`` cores busy the pod gets ``CPU T / (T + CPU U_C)`` (a thread beside
a busy loop on one core takes 2.03 times as long, not for ever). The same holds for a quota above the pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.prediction.neighbours import activity
from tailwise.prediction.prediction import Serving
from tailwise.prediction.quota import FloatArray, Quota, sustained_cores


@dataclass(frozen=True, slots=True)
class Share:
    """What a pod gets: cores it may use at once, and every quota that binds it; arrays over utilisation."""

    rate_cores: FloatArray
    quotas: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class Met:
    """What each query meets, arrays over queries: the pod's share, and the part of the CPUs, 0 to 1, that
    others compute on beside it."""

    share: Share
    contended: FloatArray


def busy_threads(capacity_cores: float, utilisation: FloatArray) -> FloatArray:
    """Threads of others that want to run at once, shape of ``utilisation``.

    A node that is used up has at least one thread that never rests, however small a part of a core the node
    is: 0.15 core used up is a whole thread to share with. It is faded in above a utilisation of 0.8.
    """
    never_rests = np.interp(utilisation, (0.8, 1.0), (0.0, 1.0))
    return np.maximum(capacity_cores * np.maximum(utilisation, 0.0), never_rests)


def pod_share(hardware: NodeHardware, serving: Serving, utilisation: FloatArray) -> Share:
    """The pod's share of a node in the mean at each utilisation, fractions of ``capacity_cores``, shape (n,).

    Utilisation above 1 is demand: what others would use if the node had it. The shapes of ``rate_cores`` and
    of each node-level quota are (n,); the pod's own limit is a scalar.
    """
    others = busy_threads(hardware.capacity_cores, utilisation)
    mean = _share(
        hardware.cores,
        [(quota.cores, quota.period_microseconds / 1000) for quota in hardware.cpu_quotas],
        float(min(serving.threads, hardware.cores)),
        serving.cpu_request_millicores / 1000,
        others,
    )
    return Share(mean.rate_cores, (*mean.quotas, *pod_quota(serving)))


def met_share(
    hardware: NodeHardware,
    serving: Serving,
    utilisation: float,
    cpu_milliseconds: float,
    queries: int,
    *,
    in_turn: bool = False,
) -> Met:
    """The pod's share as queries meet it: others come and go (``neighbours``), each query has its own mean.

    ``cpu_milliseconds``: what a query burns. Queries begin evenly spread over all that the pod computes, or
    ``in_turn``: each where the one before it ended. ``rate_cores``, each node-level quota and ``contended``
    have the shape (queries,), or (1,) where all queries meet the same.
    """
    course = _course(
        hardware.cores,
        tuple((quota.cores, quota.period_microseconds / 1000) for quota in hardware.cpu_quotas),
        float(min(serving.threads, hardware.cores)),
        serving.cpu_request_millicores / 1000,
        utilisation,
    )
    if course.computed is None:
        return Met(course.share(course.values), course.values[-1])
    computed, times = course.computed, course.times
    begin = (
        np.arange(queries) * cpu_milliseconds % computed[-1]
        if in_turn
        else (np.arange(queries) + 0.5) / queries * computed[-1]
    )
    whole, rest = np.divmod(begin + cpu_milliseconds, computed[-1])
    began, last = np.interp(begin, computed, times), np.interp(rest, computed, times)
    lasted = last + whole * times[-1] - began
    means = [
        (np.interp(last, times, total) + whole * total[-1] - np.interp(began, times, total)) / lasted
        for total in course.values
    ]
    return Met(course.share(means), means[-1])


@dataclass(frozen=True, slots=True)
class _Course:
    """The pod's share over time beside others, whatever it computes.

    ``values``: the CPU rate, each quota of the node, and the part of the CPUs others compute on: one number
    each where they stay as they are (``computed`` is None), else their integrals at ``times``. ``computed``
    is what the pod has computed by then, milliseconds.
    """

    times: FloatArray
    values: tuple[FloatArray, ...]
    periods_milliseconds: tuple[float, ...]
    computed: FloatArray | None

    def share(self, values: Sequence[FloatArray]) -> Share:
        """Rate and quotas among values in the order of ``values``."""
        quotas = (
            Quota(value, period)
            for value, period in zip(values[1:-1], self.periods_milliseconds, strict=True)
        )
        return Share(values[0], tuple(quotas))


@lru_cache(maxsize=512)
def _course(
    cores: int,
    quotas: tuple[tuple[float, float], ...],
    threads: float,
    request_cores: float,
    utilisation: float,
) -> _Course:
    """``quotas``: cores and period in milliseconds of each quota of the node."""
    capacity = min([float(cores), *(quota_cores for quota_cores, _ in quotas)])
    others = activity(capacity, cores, threads, utilisation)
    pieces = _share(cores, quotas, threads, request_cores, others.active)
    crowded = np.clip((others.active + threads) / cores - 1, 0.0, 1.0)
    moving = (pieces.rate_cores, *(np.asarray(quota.quota_milliseconds) for quota in pieces.quotas), crowded)
    periods = tuple(quota.period_milliseconds for quota in pieces.quotas)
    if all(np.all(each == each[0]) for each in moving):
        return _Course(others.times, tuple(each[:1] for each in moving), periods, None)
    lengths = np.diff(others.times)
    return _Course(
        others.times,
        tuple(_cumulated(each * lengths) for each in moving),
        periods,
        _cumulated(sustained_cores(pieces.rate_cores, pieces.quotas) * lengths),
    )


def pod_quota(serving: Serving) -> tuple[Quota, ...]:
    """The pod's own limit, if it has one."""
    if not serving.cpu_limit_millicores:
        return ()
    return (Quota(serving.cpu_limit_millicores / 1000 * POD_PERIOD, POD_PERIOD),)


def _cumulated(amounts: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(amounts)])


def _share(
    node_cores: int,
    node_quotas: Sequence[tuple[float, float]],
    threads: float,
    request_cores: float,
    others: FloatArray,
) -> Share:
    """The share beside ``others`` threads that compute; without the pod's own limit."""

    def fair(cores: float) -> FloatArray:
        return np.minimum(np.maximum(cores - others, cores * threads / (threads + others)), cores)

    def spends(cores: float) -> FloatArray:
        # All CPUs at once cannot use up a quota of as many cores: what is shared then are the CPUs.
        return fair(cores) if cores < node_cores else np.full_like(others, cores)

    # A request is a weight on each CPU; a quota of the whole node is spent by whoever runs.
    guaranteed = np.maximum(fair(float(node_cores)), request_cores)
    quotas = tuple(
        Quota(spends(cores) * period_milliseconds, period_milliseconds)
        for cores, period_milliseconds in node_quotas
    )
    return Share(np.minimum(threads, guaranteed), quotas)


POD_PERIOD = 100.0
"""Period of a container's CPU limit in milliseconds: the kubelet's --cpu-cfs-quota-period by default."""
