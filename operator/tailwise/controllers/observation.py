"""The observed latency of all workloads that say where to read it, one after the other, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tailwise.cluster.reflector import Key
from tailwise.controllers.live_accuracy import LiveAccuracyLedger
from tailwise.controllers.view import ClusterView
from tailwise.telemetry.metrics import DataSource, OperatorMetrics
from tailwise.telemetry.observed import LatencyObservation, observe_latency
from tailwise.telemetry.prometheus import Prometheus


@dataclass(slots=True)
class Observer:
    """Reads, and passes on what was read: to ``seen`` and to the live accuracy; ``changed`` hears of whom."""

    prometheus: Prometheus
    view: ClusterView
    metrics: OperatorMetrics
    accuracy: LiveAccuracyLedger
    seen: Callable[[Key, LatencyObservation], None]
    changed: Callable[[Key], None]
    _observed_at: datetime | None = None

    async def run(self, interval_seconds: float) -> None:
        """Observe until cancelled."""
        self.metrics.data_age(DataSource.OBSERVED_LATENCY, self._age_seconds)
        while True:
            await self.once()
            await asyncio.sleep(interval_seconds)

    async def once(self) -> None:
        """One pass over all workloads."""
        async for key, observation in observe_all(self.prometheus, self.view):
            now = datetime.now(UTC)
            self.metrics.observed(observation.reason.value if observation.reason else "Observed")
            if observation.workload is not None:
                self._observed_at = now
            self.accuracy.observed(key, observation, now)
            self.seen(key, observation)
            self.changed(key)

    def _age_seconds(self) -> float | None:
        if self._observed_at is None:
            return None
        return (datetime.now(UTC) - self._observed_at).total_seconds()


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
            model_name=workload.spec.serving.model_name if workload.spec.serving else None,
        )
        yield key, observation
