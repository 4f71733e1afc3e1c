"""``tailwise train --run DIRECTORY``: a training run of a LatencyModel, as its Job in the cluster.

In: the request that the operator put before the Job. Out: a version in immutable ConfigMaps, the index last,
so that a run that is killed leaves nothing half a version; how far it is, and why it failed, in the ConfigMap
of training's progress. Exit codes: 0 the version stands, 1 it may do better another time, 3 it would not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import ValidationError

from tailwise.api.conditions import Reason
from tailwise.api.labels import TRAINING_PROGRESS_NAME
from tailwise.api.latency_model_status import DatasetStatus, DroppedRows
from tailwise.cli.training_rows import MOST_FAULTS, RunError, files_of, history_of
from tailwise.cluster import apply
from tailwise.cluster.artefacts import config_maps, has_version, read_version, write_version
from tailwise.cluster.client import CONFIG_MAPS, ApiError, Client, ConfigurationError, connect
from tailwise.controllers.training_job import owner
from tailwise.prediction import artefact_urls
from tailwise.prediction.artefact import Artefact, ArtefactError
from tailwise.training.candidates import CandidateError
from tailwise.training.cleaning import Cleaned
from tailwise.training.request import (
    FAILED_FOR_GOOD,
    REPORT_KEY,
    REQUEST_FILE,
    Failure,
    RunProgress,
    RunReport,
    RunRequest,
)
from tailwise.training.rows import Dataset, DatasetError, DropReason, joined
from tailwise.training.run import Progress, Trained, TrainingError, train
from tailwise.training.standing import standings

_LOGGER = logging.getLogger(__name__)

_TERMINATION_LOG = Path("/dev/termination-log")
_TOLD_EVERY_SECONDS, _TOLD_AT_LEAST_SECONDS = 1.0, 5.0


def run_training(directory: Path, threads: int) -> int:
    """Run what ``directory`` asks for; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    path = directory / REQUEST_FILE
    try:
        request = RunRequest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        print(f"tailwise train: --run {path}: this is no training run: {error}", file=sys.stderr)
        return FAILED_FOR_GOOD
    try:
        return asyncio.run(_run(request, directory, threads))
    except ConfigurationError as error:
        print(f"tailwise train: {error}", file=sys.stderr)
        return 1


async def _run(request: RunRequest, directory: Path, threads: int) -> int:
    client = await connect()
    teller = _Teller(client, request)
    telling = asyncio.create_task(teller.run())
    failure: RunError | None = None
    try:
        await _train(client, request, directory, threads, teller)
    except RunError as error:
        failure = error
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    try:
        if failure is None:
            await teller.end(RunProgress(stage="Done"))
            return 0
        told = Failure(reason=failure.reason.value, message=str(failure)[:1000])
        _LOGGER.error("%s: %s", told.reason, told.message)
        _leave(told)
        await teller.end(RunProgress(stage="Failed", failure=told))
        return FAILED_FOR_GOOD if failure.for_good else 1
    finally:
        await client.close()


def _leave(failure: Failure) -> None:
    """Also as the pod's last words, for an operator that cannot read the ConfigMap."""
    if _TERMINATION_LOG.exists():
        _TERMINATION_LOG.write_text(f"{failure.reason}: {failure.message}", encoding="utf-8")


async def _train(client: Client, request: RunRequest, directory: Path, threads: int, teller: _Teller) -> None:
    try:
        if await has_version(client, request.namespace, request.latency_model, request.version):
            _LOGGER.info("version %d stands already: a try before this one has written it", request.version)
            return
        serving = await _serving(client, request)
        files, report, digest = await asyncio.to_thread(
            _version, request, directory, threads, serving, teller.told
        )
        teller.told(RunProgress(stage="Write", what=digest[:19]))
        url = _url(request, digest)
        if url is not None:
            await asyncio.to_thread(artefact_urls.write_version, url, files)
        await write_version(client, _config_maps(request, files, report, url))
    except ArtefactError as error:
        raise RunError(Reason.TRAINING_FAILED, str(error), for_good=False) from error
    except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
        message = f"no answer of the API server: {str(error) or type(error).__name__}"
        raise RunError(Reason.TRAINING_FAILED, message, for_good=False) from error


async def _serving(client: Client, request: RunRequest) -> tuple[int, Artefact] | None:
    """The version to compare with; without it the prior is what must be beaten."""
    if request.serving is None:
        return None
    number, digest = request.serving.version, request.serving.digest
    try:
        return number, await read_version(client, request.namespace, request.latency_model, number, digest)
    except ArtefactError as error:
        _LOGGER.warning("not compared with version %d: %s", number, error)
        return None


def _version(
    request: RunRequest,
    directory: Path,
    threads: int,
    serving: tuple[int, Artefact] | None,
    told: Callable[[RunProgress], None],
) -> tuple[Mapping[str, bytes], RunReport, str]:
    """The version's files, what is told of them, and the artefact's digest. Raises RunError."""
    spec = request.spec
    try:
        with tempfile.TemporaryDirectory() as scratch:
            read = files_of(request, Path(scratch), told)
        history = history_of(request, directory, told)
        read += history.read
        dataset = joined([each.dataset for each in read])
        counted = _Counted(told, len(dataset))
        trained = train(dataset, spec, threads=threads, told=counted)
        judged = standings(trained, request.version, dataset, spec, serving)
    except TrainingError as error:
        raise RunError(Reason(error.reason.value), str(error)) from error
    except CandidateError as error:
        raise RunError(Reason.SPEC_INVALID, f"spec.algorithms: {error}") from error
    except DatasetError as error:
        raise RunError(Reason.DATASET_UNREADABLE, str(error)) from error
    except MemoryError as error:
        message = "memory ran out; raise spec.trainingJob.memoryLimitMebibytes, or lower spec.dataset.maxRows"
        raise RunError(Reason.TRAINING_FAILED, message) from error
    report = RunReport(
        job=request.job,
        dataset=_status(dataset, read, trained),
        judged=judged,
        faults=history.faults[:MOST_FAULTS],
    )
    return trained.files, report, trained.digest


def _url(request: RunRequest, digest: str) -> str | None:
    """Where the version's files go; by what they hold, so that a try before this one is not in the way."""
    store = request.spec.artifact_store
    if store.url is None:
        return None
    place = artefact_urls.version_url(store.url, request.latency_model, request.version)
    return f"{place}-{digest.removeprefix('sha256:')[:12]}"


def _config_maps(
    request: RunRequest, files: Mapping[str, bytes], report: RunReport, url: str | None
) -> list[dict[str, Any]]:
    return config_maps(
        files,
        latency_model=request.latency_model,
        version=request.version,
        namespace=request.namespace,
        owners=(owner(request.latency_model, request.uid),),
        notes={REPORT_KEY: report.model_dump_json(by_alias=True, exclude_none=True)},
        url=url,
    )


def _status(dataset: Dataset, read: list[Cleaned], trained: Trained) -> DatasetStatus:
    dropped: dict[DropReason, int] = {}
    for counts in (*(each.dropped for each in read), trained.dropped):
        for reason, count in counts.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return DatasetStatus(
        rows=len(dataset),
        workloads=len(set(dataset.workload.tolist())),
        node_classes=len({each.node_class for each in dataset.hardware}),
        dropped=tuple(
            DroppedRows(reason=reason.value, rows=count) for reason, count in sorted(dropped.items()) if count
        ),
        newest_at=datetime.fromtimestamp(float(dataset.time.max()), UTC),
        fingerprint=trained.manifest.provenance.dataset_fingerprint,
    )


# ---- what is told


@dataclass(slots=True)
class _Counted:
    """Progress of the training, with the time that a stage still takes by its pace."""

    told: Callable[[RunProgress], None]
    rows: int
    stage: str = ""
    began: float = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage.value != self.stage:
            self.stage, self.began = progress.stage.value, now
        left = None
        if progress.done:
            left = (now - self.began) / progress.done * max(0, progress.total - progress.done)
        self.told(
            RunProgress(
                stage=self.stage,
                done=progress.done,
                total=progress.total,
                what=progress.what[:200],
                rows=self.rows,
                # In steps, so that what is told does not change with each second.
                remaining_seconds=30 * round(left / 30) if left is not None and left >= 15 else None,
            )
        )


@dataclass(slots=True)
class _Teller:
    """Writes the newest progress under the Job's name; what cannot be written is told the next time."""

    client: Client
    request: RunRequest
    _newest: RunProgress = field(default_factory=lambda: RunProgress(stage="Start"))
    _written: RunProgress | None = None
    _written_at: float = 0.0

    def told(self, progress: RunProgress) -> None:
        """Take progress, from any thread."""
        if progress.stage != self._newest.stage:
            _LOGGER.info("%s", progress.words())
        self._newest = progress

    async def run(self) -> None:
        """Write until cancelled: a new stage soon, steps within one every few seconds."""
        while True:
            newest, now = self._newest, time.monotonic()
            news = self._written is None or newest.stage != self._written.stage
            if newest != self._written and (news or now - self._written_at >= _TOLD_AT_LEAST_SECONDS):
                await self._write(newest)
            await asyncio.sleep(_TOLD_EVERY_SECONDS)

    async def end(self, progress: RunProgress, tries: int = 5) -> None:
        """Write the last word."""
        for attempt in range(tries):
            if await self._write(progress):
                return
            await asyncio.sleep(0.5 * 2**attempt)

    async def _write(self, progress: RunProgress) -> bool:
        text = json.dumps(progress.model_dump(mode="json", by_alias=True, exclude_none=True))
        patch = {"data": {self.request.job: text}}
        try:
            written = await apply.merge_patch(
                self.client, CONFIG_MAPS, self.request.namespace, TRAINING_PROGRESS_NAME, patch
            )
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOGGER.info("progress not told: %s", str(error) or type(error).__name__)
            return False
        if not written.done:
            _LOGGER.info("progress not told: %s", written.message)
        else:
            self._written, self._written_at = progress, time.monotonic()
        return written.done
