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
from tailwise.prediction.prediction import Serving
from tailwise.prediction.quota import FloatArray, Quota


@dataclass(frozen=True, slots=True)
class Share:
    """What a pod gets: cores it may use at once, and every quota that binds it; arrays over utilisation."""

    rate_cores: FloatArray
    quotas: tuple[Quota, ...]


def busy_threads(capacity_cores: float, utilisation: FloatArray) -> FloatArray:
    """Threads of others that want to run at once, shape of ``utilisation``.

    A node that is used up has at least one thread that never rests, however small a part of a core the node
    is: 0.15 core used up is a whole thread to share with. It is faded in above a utilisation of 0.8.
    """
    never_rests = np.interp(utilisation, (0.8, 1.0), (0.0, 1.0))
    return np.maximum(capacity_cores * np.maximum(utilisation, 0.0), never_rests)


def pod_share(hardware: NodeHardware, serving: Serving, utilisation: FloatArray) -> Share:
    """The pod's share of a node at each utilisation (fractions of ``capacity_cores``, shape (n,)).

    Utilisation above 1 is demand: what others would use if the node had it. The shapes of ``rate_cores`` and
    of each node-level quota are (n,); the pod's own limit is a scalar.
    """
    others = busy_threads(hardware.capacity_cores, utilisation)
    threads = float(min(serving.threads, hardware.cores))

    def fair(cores: float) -> FloatArray:
        left = np.maximum(cores - others, cores * threads / (threads + others))
        return np.minimum(np.maximum(left, min(cores, serving.cpu_request_millicores / 1000)), cores)

    quotas = [
        Quota(fair(quota.cores) * quota.period_microseconds / 1000, quota.period_microseconds / 1000)
        for quota in hardware.cpu_quotas
    ]
    if serving.cpu_limit_millicores:
        quotas.append(Quota(serving.cpu_limit_millicores / 1000 * POD_PERIOD, POD_PERIOD))
    return Share(np.minimum(threads, fair(float(hardware.cores))), tuple(quotas))


POD_PERIOD = 100.0
"""Period of a container's CPU limit in milliseconds: the kubelet's --cpu-cfs-quota-period by default."""
