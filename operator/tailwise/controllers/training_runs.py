"""Training runs in the cluster: which Jobs and versions there are, how far a run is, starting and ending one.

Three watches of the operator's namespace: training Jobs, the indexes of versions, and the one ConfigMap in
which Jobs tell their progress. Whatever they tell concerns a LatencyModel, which is then looked at.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from tailwise.api.conditions import Reason
from tailwise.api.labels import (
    ARTEFACT_INDEX,
    ARTEFACT_LABEL,
    LATENCY_MODEL_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    TRAINING_PROGRESS_NAME,
)
from tailwise.api.latency_dataset import Dataset
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import LatencyModelStatus, RunResult
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import CONFIG_MAPS, JOBS, PODS, Client
from tailwise.cluster.reflector import Key, Listener, Reflector, Selection
from tailwise.controllers.registry import KnownLatencyModel
from tailwise.controllers.stored_versions import version_facts
from tailwise.controllers.training_job import (
    TRAINING_NAME,
    VOLUME_DIRECTORY,
    TrainingSettings,
    job_facts,
    job_manifest,
    job_name,
    pod_trouble,
    request_config_map,
)
from tailwise.domain.learning_facts import Facts, JobFacts, JobState, RunFailure, RunToStart, VersionFacts
from tailwise.training.request import RunProgress, RunRequest, ServingVersion

_LOGGER = logging.getLogger(__name__)

# A Job that tells nothing for so long may have a pod that does not start.
_SILENT = timedelta(seconds=10)
_WAYS_OUT = (
    ("OOMKilled", "raise spec.trainingJob.memoryLimitMebibytes, or lower spec.dataset.maxRows"),
    ("DeadlineExceeded", "raise spec.trainingJob.deadlineSeconds, or shorten spec.algorithms"),
    ("ErrImagePull", "check the operator's --training-image and the nodes' access to it"),
    ("ImagePullBackOff", "check the operator's --training-image and the nodes' access to it"),
    ("Unschedulable", "check spec.trainingJob.nodeSelector and limits"),
)


@dataclass(frozen=True, slots=True)
class _Progress:
    by_job: Mapping[str, RunProgress]


@dataclass(slots=True)
class TrainingRuns:
    """What there is of runs; ``reflectors`` keep it true. ``changed`` hears whom it concerns."""

    client: Client
    settings: TrainingSettings
    changed: Callable[[str], None] = lambda _name: None
    # Writes what names in Prometheus stood for, and tells the ConfigMap's name; None: nothing is read there.
    publish_join: Callable[[KnownLatencyModel, Dataset], Awaitable[str]] | None = None
    jobs: Reflector[JobFacts] = field(init=False)
    versions: Reflector[VersionFacts] = field(init=False)
    progress: Reflector[_Progress] = field(init=False)
    _tidied: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        of_training = f"{LATENCY_MODEL_LABEL},app.kubernetes.io/name={TRAINING_NAME}"
        indexes = f"{LATENCY_MODEL_LABEL},{ARTEFACT_LABEL}={ARTEFACT_INDEX}"
        space = self.namespace
        self.jobs = Reflector(self.client, Selection(JOBS, space, of_training), job_facts, self._told())
        self.versions = Reflector(
            self.client, Selection(CONFIG_MAPS, space, indexes), version_facts, self._told()
        )
        self.progress = Reflector(
            self.client,
            Selection(CONFIG_MAPS, space, field_selector=f"metadata.name={TRAINING_PROGRESS_NAME}"),
            _progress,
            Listener(lambda *_: self._all(), lambda *_: self._all()),
        )

    @property
    def namespace(self) -> str:
        """Where Jobs run and versions are kept."""
        return self.settings.namespace

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        """All that must run, and be synced before a LatencyModel is looked at."""
        return (self.jobs, self.versions, self.progress)

    # ---- what there is

    def jobs_of(self, latency_model: str) -> tuple[JobFacts, ...]:
        """Training Jobs of a LatencyModel."""
        return tuple(each for each in self.jobs.values() if each.latency_model == latency_model)

    def versions_of(self, latency_model: str) -> dict[int, VersionFacts]:
        """Versions of a LatencyModel that are stored, by number."""
        return {each.version: each for each in self.versions.values() if each.latency_model == latency_model}

    def why_not(self, spec: LatencyModelSpec) -> str:
        """Why there can be no run; empty where there can."""
        if self.settings.image is None:
            return (
                "this operator starts no training Jobs: give it --training-image (the chart's value "
                "training.image)"
            )
        if not spec.dataset.files and self.settings.prometheus_url is None:
            return (
                "there is nothing to learn from: list measurements in spec.dataset.files, or give the "
                "operator --prometheus-url"
            )
        url = spec.artifact_store.url or ""
        if url.startswith("file:") and not self.settings.allow_files:
            return (
                f"spec.artifactStore.url: {url} is on this operator's own disk, which is for development "
                "(--allow-model-files); name a bucket, or leave artifactStore out"
            )
        return ""

    async def with_run(self, facts: Facts) -> Facts:
        """The facts with what the last run told: its progress, or why it failed."""
        for job in sorted(facts.jobs, key=lambda each: each.number, reverse=True)[:1]:
            told = self._progress_of(job.name)
            if job.state is JobState.RUNNING:
                silent = told is None and facts.now - job.created_at > _SILENT
                trouble = await self._trouble(job) if silent else ""
                return replace(facts, progress=trouble or (told.words() if told is not None else ""))
            if job.state is JobState.FAILED and job.number not in facts.versions:
                return replace(facts, failures={job.number: await self._failure(job, told)})
        return facts

    # ---- what is done

    async def start(
        self, known: KnownLatencyModel, spec: LatencyModelSpec, run: RunToStart, status: LatencyModelStatus
    ) -> None:
        """Make the Job, what it is to do first. The watch tells that it is there."""
        settings = self.settings
        champion = status.champion
        serving = None
        if champion is not None and champion.version and champion.digest:
            serving = ServingVersion(version=champion.version, digest=champion.digest)
        request = RunRequest(
            latency_model=known.name,
            uid=known.uid,
            version=run.number,
            namespace=self.namespace,
            job=job_name(known.name, run.number),
            spec=spec,
            serving=serving,
            prometheus_url=settings.prometheus_url,
            networks=settings.networks,
            refused_networks=settings.refused_networks,
            allow_files=settings.allow_files,
            volume=VOLUME_DIRECTORY,
        )
        # Looked at again before the watch has told of the Job: what it mounts must not be made anew.
        if await self._is_there(request.job):
            return
        self._tidied.discard(request.job)
        await self._create_progress()
        wanted = request_config_map(request)
        made = await apply.create(self.client, CONFIG_MAPS, wanted)
        if made.outcome is Outcome.CONFLICT:  # of an operator that was killed before it made the Job
            await apply.delete(self.client, CONFIG_MAPS, self.namespace, request.job)
            made = await apply.create(self.client, CONFIG_MAPS, wanted)
        if made.outcome is Outcome.REFUSED:
            _LOGGER.warning("ConfigMap %s/%s is refused: %s", self.namespace, request.job, made.message)
        join = await self.publish_join(known, spec.dataset) if self.publish_join is not None else None
        written = await apply.create(self.client, JOBS, job_manifest(request, run, settings, join))
        if not written.done and written.outcome is not Outcome.CONFLICT:
            raise RuntimeError(f"training Job {request.job} is refused: {written.message}")

    async def _is_there(self, job: str) -> bool:
        query = {"fieldSelector": f"metadata.name={job}"}
        listed = await self.client.request("GET", JOBS.path(self.namespace), query=query)
        return bool(listed.get("items"))

    async def end(self, job: JobFacts) -> None:
        """End a Job and its pods."""
        await apply.delete(self.client, JOBS, self.namespace, job.name, uid=job.uid, with_dependents=True)

    async def tidy(self, name: str, status: LatencyModelStatus) -> None:
        """Remove what ended runs were asked and what they told; the status holds what matters."""
        last = status.last_run
        ended = {each.name for each in self.jobs_of(name) if each.state is not JobState.RUNNING}
        if last is not None and last.result is RunResult.RUNNING:
            ended.discard(last.job)
        elif last is not None and last.job:
            ended.add(last.job)
        held = self.progress.get(self.namespace, TRAINING_PROGRESS_NAME)
        for job in ended:
            if held is not None and job in held.by_job:
                gone = {"data": {job: None}}
                await apply.merge_patch(
                    self.client, CONFIG_MAPS, self.namespace, TRAINING_PROGRESS_NAME, gone
                )
            if job not in self._tidied:
                await apply.delete(self.client, CONFIG_MAPS, self.namespace, job)
                self._tidied.add(job)

    # ---- its parts

    def _told(self) -> Listener[Any]:
        def told(_key: Key, *versions: JobFacts | VersionFacts) -> None:
            self.changed(versions[-1].latency_model)

        return Listener(told, told, told)

    def _all(self) -> None:
        for name in {each.latency_model for each in self.jobs.values() if each.state is JobState.RUNNING}:
            self.changed(name)

    def _progress_of(self, job: str) -> RunProgress | None:
        held = self.progress.get(self.namespace, TRAINING_PROGRESS_NAME)
        return held.by_job.get(job) if held is not None else None

    async def _create_progress(self) -> None:
        if self.progress.get(self.namespace, TRAINING_PROGRESS_NAME) is not None:
            return
        metadata = {
            "name": TRAINING_PROGRESS_NAME,
            "namespace": self.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY},
        }
        await apply.create(
            self.client, CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        )

    async def _failure(self, job: JobFacts, told: RunProgress | None) -> RunFailure:
        if told is not None and told.failure is not None:
            return RunFailure(_reason(told.failure.reason), told.failure.message)
        trouble = await self._trouble(job)
        detail = f"; its pod: {trouble}" if trouble else ""
        message = f"Job {job.name} failed ({job.message}{detail})"
        for sign, way_out in _WAYS_OUT:
            if sign in message:
                message = f"{message}; {way_out}"
                break
        return RunFailure(Reason.TRAINING_FAILED, message)

    async def _trouble(self, job: JobFacts) -> str:
        query = {"labelSelector": f"batch.kubernetes.io/job-name={job.name}"}
        listed = await self.client.request("GET", PODS.path(self.namespace), query=query)
        return pod_trouble(listed.get("items") or ())


def _progress(obj: Mapping[str, Any]) -> _Progress:
    by_job = {}
    for job, text in (obj.get("data") or {}).items():
        try:
            by_job[job] = RunProgress.model_validate(json.loads(text))
        except (ValueError, ValidationError):
            continue
    return _Progress(by_job)


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.TRAINING_FAILED


async def synced(runs: TrainingRuns) -> None:
    """Wait for the first lists."""
    await asyncio.gather(*(each.synced.wait() for each in runs.reflectors))
