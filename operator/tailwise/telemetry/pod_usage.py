"""What single pods use of the CPU, asked for pods on nodes that are used up.

A full node's utilisation is 1 whatever is wanted of it. What each of its pods gets tells how many share it.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tailwise.telemetry.prometheus import Prometheus, PrometheusError

_LOGGER = logging.getLogger(__name__)

PodName = tuple[str, str]
"""Namespace and name."""

_PODS_A_QUERY = 500


def usage_query(namespace: str, pods: Sequence[str], window_seconds: int) -> str:
    """PromQL for the cores that each of these pods used, by label ``pod``."""
    # Names of pods are lower-case letters, digits, hyphens and dots: only the dot is special.
    names = "|".join(pod.replace(".", "[.]") for pod in pods)
    selector = f'container!="",container!="POD",namespace="{namespace}",pod=~"{names}"'
    rates = f"rate(container_cpu_usage_seconds_total{{{selector}}}[{window_seconds}s])"
    # Two jobs that scrape the same kubelet are not added up.
    return f"max by (pod) (sum by (pod, job, instance) ({rates}))"


async def used_cores(
    prometheus: Prometheus, pods: Iterable[PodName], window_seconds: int
) -> dict[PodName, float]:
    """Cores in use by each pod, a mean over the window; a pod that cAdvisor does not tell of is left out.

    Raises nothing: without an answer nothing is known of any pod.
    """
    by_namespace: dict[str, list[str]] = defaultdict(list)
    for namespace, name in pods:
        by_namespace[namespace].append(name)
    found: dict[PodName, float] = {}
    for namespace, names in by_namespace.items():
        for first in range(0, len(names), _PODS_A_QUERY):
            query = usage_query(namespace, sorted(names)[first : first + _PODS_A_QUERY], window_seconds)
            try:
                vector = await prometheus.instant(query, f"CPU usage of pods in namespace {namespace}")
            except PrometheusError as error:
                _LOGGER.info("%s; what pods of full nodes want is taken from their limits", error)
                return {}
            for sample in vector.samples:
                if "pod" in sample.labels and math.isfinite(sample.value) and sample.value >= 0:
                    found[namespace, sample.labels["pod"]] = sample.value
    return found
