"""Learning put together: watches and the loading of versions in every replica, decisions in the leader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tailwise.api.latency_dataset import Dataset
from tailwise.api.latency_model_status import LiveAccuracy
from tailwise.cluster.client import Client
from tailwise.cluster.events import Event
from tailwise.cluster.queue import WorkQueue
from tailwise.cluster.reflector import Reflector
from tailwise.controllers.dataset_join import DatasetJoins
from tailwise.controllers.latency_model import LatencyModelController
from tailwise.controllers.live_accuracy import LiveAccuracyLedger
from tailwise.controllers.options import OperatorOptions
from tailwise.controllers.prediction_tables import PredictionTables
from tailwise.controllers.registry import KnownLatencyModel, KnownWorkload
from tailwise.controllers.stored_versions import ServedVersions
from tailwise.controllers.training_job import TrainingSettings, owner
from tailwise.controllers.training_runs import TrainingRuns
from tailwise.controllers.view import ClusterView
from tailwise.domain.drift import LiveWindow
from tailwise.domain.objects import Pod
from tailwise.telemetry.metrics import OperatorMetrics

_FIRST_VERSIONS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Observed:
    """The ledger of live accuracy, as drift asks it."""

    ledger: LiveAccuracyLedger

    def window(self, latency_model: str, version: int, newest: int) -> LiveWindow:
        return self.ledger.facts(latency_model, version, newest).window

    def status(self, latency_model: str, version: int, newest: int | None = None) -> LiveAccuracy | None:
        return self.ledger.status(latency_model, version, newest)


class Learning:
    """The parts of one operator that learn and serve what was learned."""

    def __init__(
        self,
        client: Client,
        options: OperatorOptions,
        view: ClusterView,
        profile: Callable[[KnownWorkload], object],
        tables: PredictionTables,
        accuracy: LiveAccuracyLedger,
        record: Callable[[Event], None],
        metrics: OperatorMetrics,
    ) -> None:
        registry = self._registry = view.registry
        self._client = client
        self._namespace = options.namespace
        self._joins = DatasetJoins(view, profile, options.utilisation)
        self._decisions: WorkQueue[str] = WorkQueue("latencymodels", metrics)
        self._loads: WorkQueue[str] = WorkQueue("versions", metrics)
        self._runs = TrainingRuns(
            client,
            training_settings(options),
            self._decisions.add,
            self._publish_join if options.prometheus_url is not None else None,
        )
        self._served = ServedVersions(client, options.namespace, registry, tables, self._decisions.add)
        self._controller = LatencyModelController(
            client, registry, self._runs, self._served, _Observed(accuracy), record
        )

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """What must run in every replica."""
        return self._runs.reflectors

    def saw(self, name: str) -> None:
        """A LatencyModel came, changed or went."""
        self._loads.add(name)
        self._decisions.add(name)

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Follow pods: what one that goes has served is asked of Prometheus later."""
        self._joins.pod_changed(old, new)

    async def ready(self) -> None:
        """Wait until versions answer that can be loaded now: no placement shall be made by less."""
        try:
            async with asyncio.timeout(_FIRST_VERSIONS_SECONDS):
                # Once in a process's life, and LatencyModels may come and go meanwhile.
                while any(self._served.get(name) is None for name in self._registry.latency_models):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return

    def loading(self) -> Coroutine[Any, Any, None]:
        """Load versions until cancelled, in every replica."""
        return self._loads.run(1, self._served.reconcile)

    def deciding(self) -> Coroutine[Any, Any, None]:
        """Take LatencyModels' steps until cancelled, in the leader."""
        return self._decisions.run(1, self._controller.reconcile)

    async def _publish_join(self, known: KnownLatencyModel, dataset: Dataset) -> str:
        return await self._joins.publish(
            self._client,
            self._namespace,
            known.name,
            dataset,
            datetime.now(UTC),
            (owner(known.name, known.uid),),
        )


def training_settings(options: OperatorOptions) -> TrainingSettings:
    """The operator's part of a training Job."""
    return TrainingSettings(
        namespace=options.namespace,
        image=options.training_image,
        service_account=options.training_service_account,
        pull_secrets=options.training_pull_secrets,
        prometheus_url=options.prometheus_url,
        networks=tuple(map(str, options.model_networks)),
        refused_networks=tuple(map(str, options.model_refused_networks)),
        allow_files=options.model_files,
    )
