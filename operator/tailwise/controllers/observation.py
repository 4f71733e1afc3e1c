"""The observed latency of all workloads that say where to read it, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tailwise.cluster.reflector import Key
from tailwise.controllers.view import ClusterView
from tailwise.telemetry.observed import LatencyObservation, observe_latency
from tailwise.telemetry.prometheus import Prometheus


async def observe_all(
    prometheus: Prometheus, view: ClusterView
) -> AsyncIterator[tuple[Key, LatencyObservation]]:
    """Read each workload's latency; one that has no pods on nodes is left out."""
    for key, known in tuple(view.registry.workloads.items()):
        workload = known.workload
        if workload is None or workload.spec.metrics is None:
            continue
        pods = [pod.name for pod in view.pods_of(key) if pod.node_name and pod.workload == key.name]
        if not pods:
            continue
        observation = await observe_latency(
            prometheus,
            workload.spec.metrics,
            namespace=key.namespace,
            workload=key.name,
            pods=pods,
            percentile=workload.spec.slo.percentile,
        )
        yield key, observation
