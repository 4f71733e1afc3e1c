"""What of a node a pod can use: a fair share where its threads do not fit in what is left.

Equation (6) leaves ``CPU (1 - U_C)`` cores (``domain.capacity``). Where the pod's threads fit in that, they
run at full speed. Where they do not, the kernel shares by weight, not by who came first: among ``T`` threads
of the pod and others that keep ``CPU U_C`` cores busy the pod gets ``CPU T / (T + CPU U_C)`` (a thread beside
a busy loop on one core takes 2.03 times as long, not for ever). The same holds for a quota above the pods.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    mean = _share(hardware, serving, others)
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
    threads = float(min(serving.threads, hardware.cores))
    others = activity(hardware.capacity_cores, hardware.cores, threads, utilisation)
    pieces = _share(hardware, serving, others.active)
    crowded = np.clip((others.active + threads) / hardware.cores - 1, 0.0, 1.0)
    moving = (pieces.rate_cores, *(np.asarray(quota.quota_milliseconds) for quota in pieces.quotas), crowded)
    if all(np.all(each == each[0]) for each in moving):
        same = tuple(
            Quota(values[:1], quota.period_milliseconds)
            for values, quota in zip(moving[1:-1], pieces.quotas, strict=True)
        )
        return Met(Share(pieces.rate_cores[:1], same), crowded[:1])
    lengths = np.diff(others.times)
    computed = _cumulated(sustained_cores(pieces.rate_cores, pieces.quotas) * lengths)
    begin = (
        np.arange(queries) * cpu_milliseconds % computed[-1]
        if in_turn
        else (np.arange(queries) + 0.5) / queries * computed[-1]
    )
    whole, rest = np.divmod(begin + cpu_milliseconds, computed[-1])
    began = np.interp(begin, computed, others.times)
    ended = np.interp(rest, computed, others.times) + whole * others.times[-1]

    def mean(values: FloatArray) -> FloatArray:
        total = _cumulated(np.broadcast_to(values, lengths.shape) * lengths)
        until = np.interp(ended - whole * others.times[-1], others.times, total) + whole * total[-1]
        return np.asarray((until - np.interp(began, others.times, total)) / (ended - began))

    quotas = tuple(
        Quota(mean(np.asarray(quota.quota_milliseconds)), quota.period_milliseconds)
        for quota in pieces.quotas
    )
    return Met(Share(mean(pieces.rate_cores), quotas), mean(crowded))


def pod_quota(serving: Serving) -> tuple[Quota, ...]:
    """The pod's own limit, if it has one."""
    if not serving.cpu_limit_millicores:
        return ()
    return (Quota(serving.cpu_limit_millicores / 1000 * POD_PERIOD, POD_PERIOD),)


def _cumulated(amounts: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(amounts)])


def _share(hardware: NodeHardware, serving: Serving, others: FloatArray) -> Share:
    """The share beside ``others`` threads that compute; without the pod's own limit."""
    threads = float(min(serving.threads, hardware.cores))

    def fair(cores: float) -> FloatArray:
        return np.minimum(np.maximum(cores - others, cores * threads / (threads + others)), cores)

    def spends(cores: float) -> FloatArray:
        # All CPUs at once cannot use up a quota of as many cores: what is shared then are the CPUs.
        return fair(cores) if cores < hardware.cores else np.full_like(others, cores)

    # A request is a weight on each CPU; a quota of the whole node is spent by whoever runs.
    guaranteed = np.maximum(fair(float(hardware.cores)), serving.cpu_request_millicores / 1000)
    quotas = tuple(
        Quota(spends(quota.cores) * quota.period_microseconds / 1000, quota.period_microseconds / 1000)
        for quota in hardware.cpu_quotas
    )
    return Share(np.minimum(threads, guaranteed), quotas)


POD_PERIOD = 100.0
"""Period of a container's CPU limit in milliseconds: the kubelet's --cpu-cfs-quota-period by default."""
