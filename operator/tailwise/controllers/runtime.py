"""The operator put together: what runs, in which order it starts, and what its end means.

Started: connection, the first lists of both kinds, reflectors, polls of Prometheus. These run in every
replica, so that one that takes over has everything in memory. Workers and the observer run in the leader
only; kopf's events and the reflectors fill the queues meanwhile. Whatever ends that should not have ended,
the Lease above all, ends the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import aiohttp

from tailwise.api.labels import LEASE_NAME
from tailwise.api.placement_policy import PlacementPolicy
from tailwise.api.profile import ModelProfile
from tailwise.cluster.client import INFERENCE_WORKLOADS, LATENCY_MODELS, ApiError, Resource, connect
from tailwise.cluster.events import Recorder
from tailwise.cluster.lease import Lease
from tailwise.cluster.queue import WorkQueue
from tailwise.cluster.reflector import Key
from tailwise.controllers.askers import Askers
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.decision_sink import sink_of
from tailwise.controllers.inference_workload import InferenceWorkloadController
from tailwise.controllers.learning import Learning
from tailwise.controllers.live_accuracy import LiveAccuracyLedger
from tailwise.controllers.live_load import take_samples
from tailwise.controllers.observation import Observer
from tailwise.controllers.options import OperatorOptions
from tailwise.controllers.placement import PlacementController
from tailwise.controllers.profiles import ProfileQuestion, ProfileStore, job_reader, read_by_job
from tailwise.controllers.registry import Registry, latency_model_from_object, workload_from_object
from tailwise.controllers.relocation import relocation_by
from tailwise.controllers.residents import Standing
from tailwise.controllers.view import ClusterView, cluster_view
from tailwise.domain.objects import Pod
from tailwise.domain.refusal import is_refused
from tailwise.models.addresses import AddressPolicy
from tailwise.models.inspection import InspectionRequest, identify_async, inspect_async
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.metrics import DataSource, OperatorMetrics, serve
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.utilisation import UtilisationPoller

_LOGGER = logging.getLogger(__name__)

# The API server sends something at least each minute; a replica this deaf is better started anew.
_DEAF_SECONDS = 300.0
_CRD_RETRY_SECONDS = 2.0
_LASTING = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
# A node that frees a core frees it for many waiting pods: they are tried again together.
_CAPACITY_DELAY_SECONDS = 0.5
# Of the 30 s that a pod has to end: a burst of a thousand placements is a thousand events.
_DRAIN_SECONDS = 15.0


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = tuple(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Runtime:
    """One operator. ``ended`` is set when it should stop; ``failure`` says why if that is a failure."""

    def __init__(self, options: OperatorOptions) -> None:
        self.options = options
        self.ended = asyncio.Event()
        self.failure: str | None = None
        self.metrics = OperatorMetrics()
        self.registry = Registry()
        self._askers = Askers()
        self._pods: WorkQueue[Key] = WorkQueue("pods", self.metrics)
        self._workloads: WorkQueue[Key] = WorkQueue("inferenceworkloads", self.metrics)
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._closing: list[Callable[[], None]] = []
        self._capacity_timer: asyncio.TimerHandle | None = None
        self._lease: Lease | None = None
        self._started = False

    # ---- start and stop

    async def start(self) -> None:
        """Connect, fill the memory, and stand for leader; returns before it is leader."""
        options = self.options
        self._client = await connect(kubeconfig=options.kubeconfig)
        if options.metrics_port:
            self._closing.append(serve(self.metrics, options.metrics_port))
        self._recorder = Recorder(self._client, options.identity)
        self._view = cluster_view(
            self._client, options.namespace, self.registry, self.metrics.watch_restarted
        )
        self._closing.append(self._view.storage.close)
        self._assessor = Assessor(self._view, PriorPredictor())
        self._profiles = ProfileStore(
            self._inspect,
            self._profile_answered,
            self.metrics,
            retry_seconds=options.model_retry_seconds,
            identify=lambda question: identify_async(self._inspection(question)),
        )
        self._jobs = job_reader(self._client, options)
        self._workload = InferenceWorkloadController(
            self._client, self._view, self._profiles, self._recorder.record, self._standing
        )
        self._placement = PlacementController(
            self._client,
            self._view,
            self._assessor,
            self._workload,
            self._recorder.record,
            self.metrics,
            self._workloads.add,
        )
        self.accuracy = LiveAccuracyLedger(self._view, self._assessor, self._workload.profile, self.metrics)
        self._placement.decided = self.accuracy.decided
        self._sink = sink_of(options.decisions_to, options.identity)
        self._learning = Learning(
            self._client,
            options,
            self._view,
            self._workload.profile,
            self._assessor.tables,
            self.accuracy,
            self._recorder.record,
            self.metrics,
        )
        self._reflectors = (*self._view.reflectors, *self._learning.reflectors)
        self._follow(self._view)
        try:
            await self._first_lists()
        except BaseException:
            await self._client.close()
            raise
        self.metrics.data_age(DataSource.HARDWARE, self._hardware_age)
        for number, reflector in enumerate(self._reflectors):
            self._run(f"reflector {number} {reflector.selection.resource.plural}", reflector.run())
        self._run("events", self._recorder.run())
        self._run("tables of residents", self._assessor.prepare_residents())
        self._run("versions", self._learning.loading())
        self._start_polling()
        self._run("leader", self._lead())
        self._started = True

    async def stop(self) -> None:
        """End the work, then the Lease, tell the events that wait, then end the connections."""
        self.ended.set()
        if not self._started:
            return
        recorder = self._tasks.pop("events")
        await _cancelled(self._tasks.values())
        if self._lease is not None:
            await self._lease.release()
        # Another replica leads while what this one did is still told.
        await self._recorder.drain(_DRAIN_SECONDS)
        await _cancelled([recorder])
        await self._profiles.close()
        for close in self._closing:
            close()
        await self._client.close()

    async def _first_lists(self) -> None:
        """Both kinds before any pod is judged: an empty registry must mean that there is no workload."""
        for resource, see in (
            (LATENCY_MODELS, self.saw_latency_model),
            (INFERENCE_WORKLOADS, self.saw_workload),
        ):
            for item in await self._list_when_served(resource):
                see(None, {"apiVersion": resource.api_version, "kind": resource.kind, **item})

    async def _list_when_served(self, resource: Resource) -> list[dict[str, Any]]:
        """All objects of a kind, once its CRD is installed and the API server answers."""
        told = ""
        while True:
            try:
                return list((await self._client.request("GET", resource.path())).get("items") or ())
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                # Not found: the CRD comes later. 429: it came a moment ago. Neither is worth a restart.
                if isinstance(error, ApiError) and error.code in _LASTING:
                    raise
                if (why := str(error) or type(error).__name__) != told:
                    _LOGGER.warning("waiting for %s to be served: %s", resource.plural, why)
                    told = why
            await asyncio.sleep(_CRD_RETRY_SECONDS)

    async def _lead(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()
        await self._learning.ready()
        if self._poller is not None:
            self._assessor.sampled(await self._poller.first_poll())
        if self.options.leader_elect:
            lease = Lease(self._client, self.options.namespace, LEASE_NAME, self.options.identity)
            self._lease = lease
            await lease.acquire()
            self._run("lease", lease.keep())
        self.metrics.leading(True)
        _LOGGER.info(
            "leading: %d nodes, %d pods, %d workloads, hardware of %d nodes",
            len(self._view.nodes),
            len(self._view.pods),
            len(self.registry.workloads),
            len(self._view.hardware),
        )
        self._workload.rests.recover(self.registry.workloads.values())
        self._placement.standing.recover(datetime.now(UTC))
        self._run(
            "placement workers", self._pods.run(self.options.placement_workers, self._placement.reconcile)
        )
        self._run(
            "workload workers", self._workloads.run(self.options.workload_workers, self._workload.reconcile)
        )
        if self._sink is not None:
            self.accuracy.sink = self._sink.told
            self._run("decisions", self._sink.run())
        self._run("latency model workers", self._learning.deciding())
        if self._prometheus is not None:
            seen, changed = self._workload.observe, self._workloads.add
            observer = Observer(self._prometheus, self._view, self.metrics, self.accuracy, seen, changed)
            self._run("observer", observer.run(self.options.observe_seconds))
            self._run("relocation", relocation_by(self._placement).run())
        await self._resync()

    def _run(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks[name] = task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self.ended.is_set():
            return
        error = task.exception()
        self.failure = f"{task.get_name()}: {error or 'ended'}"
        _LOGGER.critical("%s; the operator ends", self.failure, exc_info=error)
        # At once, and not when kopf has ended everything in order: another replica may lead by then.
        for other in self._tasks.values():
            other.cancel()
        self.ended.set()

    # ---- what is told

    def saw_workload(self, event: str | None, obj: Mapping[str, Any]) -> None:
        """An InferenceWorkload came, changed or went."""
        known = workload_from_object(obj)
        if event == "DELETED":
            self.registry.workloads.pop(known.key, None)
        else:
            before = self.registry.workloads.get(known.key)
            self.registry.workloads[known.key] = known
            if before is not None and (before.uid, before.generation) == (known.uid, known.generation):
                return  # the status that was just written
        self._workloads.add(known.key)
        self._add_gated(known.key)
        if self._started:
            self._placement.standing.workload_known(known.key)
        asks = None
        if known.workload is not None and event != "DELETED":
            asks = ProfileQuestion.of(known.workload.spec, known.key.namespace)
        if (forgotten := self._askers.put(known.key, asks)) is not None:
            self._profiles.forget(forgotten)

    def saw_latency_model(self, event: str | None, obj: Mapping[str, Any]) -> None:
        """A LatencyModel came, changed or went."""
        known = latency_model_from_object(obj)
        if event == "DELETED":
            self.registry.latency_models.pop(known.name, None)
        else:
            self.registry.latency_models[known.name] = known
        self._learning.saw(known.name)
        for key, each in self.registry.workloads.items():
            reference = each.workload.spec.latency_model_ref if each.workload else None
            if reference is not None and reference.name == known.name:
                self._workloads.add(key)

    def check_health(self) -> float:
        """Seconds since the API server was last heard; raises RuntimeError when the operator is stuck."""
        if self.failure is not None:
            raise RuntimeError(self.failure)
        if not self._started:
            return 0.0  # waiting for the CRDs, which a restart would not bring
        silence = max(reflector.silence_seconds for reflector in self._reflectors)
        if silence > _DEAF_SECONDS:
            raise RuntimeError(f"the API server has not been heard for {silence:.0f} s")
        return round(silence, 1)

    def _follow(self, view: ClusterView) -> None:
        self._placement.try_again = self._pods.add
        view.interests.undecided_pod = self._pods.add
        view.interests.workload_pods = self._workloads.add
        view.interests.capacity = self._capacity_changed
        view.interests.hardware = self._placement.standing.hardware_changed
        view.interests.event = self._recorder.record
        view.interests.pod = self._pod_changed

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._placement.pod_changed(old, new)
        self.accuracy.pod_changed(old, new)
        self._learning.pod_changed(old, new)
        if old is not None and new is None and old.occupied_node:
            self._capacity_changed()

    def _capacity_changed(self) -> None:
        if self._capacity_timer is None:
            loop = asyncio.get_running_loop()
            self._capacity_timer = loop.call_later(_CAPACITY_DELAY_SECONDS, self._add_waiting)

    def _add_waiting(self) -> None:
        self._capacity_timer = None
        for key in self._placement.waiting.firsts():
            self._pods.add(key)

    def _add_gated(self, workload: Key) -> None:
        for pod in self._view.pods_of(workload):
            if pod.waits:
                self._pods.add(Key(pod.namespace, pod.name))

    def _profile_answered(self, question: ProfileQuestion) -> None:
        for key in self._askers.of(question):
            self._workloads.add(key)
            self._add_gated(key)
            self._placement.standing.workload_known(key)

    def _standing(self, pods: Sequence[Pod], policy: PlacementPolicy) -> Mapping[str, Standing]:
        return self._assessor.standing(pods, datetime.now(UTC), policy.max_data_age_seconds)

    async def _inspect(self, question: ProfileQuestion) -> ModelProfile:
        if question.access is not None:
            return await read_by_job(self._jobs, question)
        return await inspect_async(self._inspection(question))

    def _inspection(self, question: ProfileQuestion) -> InspectionRequest:
        """What the operator itself reads: with no credentials, from where its options allow."""
        networks = self.options.model_networks
        return InspectionRequest(
            url=question.url,
            input_shapes=dict(question.input_shapes),
            batch_size=question.batch_size,
            sha256=question.sha256,
            addresses=AddressPolicy(networks, self.options.model_refused_networks),
            allow_http=bool(networks),
            allow_files=self.options.model_files,
        )

    # ---- what runs by time

    def _start_polling(self) -> None:
        self._prometheus: Prometheus | None = None
        self._poller: UtilisationPoller | None = None
        if self.options.prometheus_url is None:
            _LOGGER.warning("no Prometheus: utilisation counts as unknown, and predictions as Stale")
            return
        self._prometheus = Prometheus(
            self.options.prometheus_url, token_file=self.options.prometheus_token_file
        )
        self._closing.append(self._prometheus.close)
        self._poller = UtilisationPoller(
            self._prometheus,
            self.options.utilisation,
            interval_seconds=self.options.poll_seconds,
            metrics=self.metrics,
        )
        self._run("utilisation", self._poller.run())
        self._run("samples", self._take_samples(self._prometheus, self._poller))

    async def _take_samples(self, prometheus: Prometheus, poller: UtilisationPoller) -> None:
        seen = None
        while True:
            await asyncio.sleep(1.0)
            if (current := poller.current()) is not seen:
                seen = current
                await take_samples(self._assessor, prometheus, current)

    def _hardware_age(self) -> float | None:
        # A copy: scrapes come on a thread of their own.
        measured = [each.measured_at for each in tuple(self._view.hardware.values())]
        return (datetime.now(UTC) - min(measured)).total_seconds() if measured else None

    async def _resync(self) -> None:
        """Look at everything again now and then: what no event told, time may have changed."""
        while True:
            self._profiles.check_all()
            for key in self.registry.workloads:
                self._workloads.add(key)
            for pod in self._view.pods.values():
                if pod.workload and (pod.waits or is_refused(pod)):
                    self._pods.add(Key(pod.namespace, pod.name))
            await asyncio.sleep(self.options.resync_seconds)
