"""Versions as the cluster holds them, and the one of each LatencyModel that this process answers by.

Every replica loads what ``status.activeVersion`` names, checks its digest, has its tables worked out and then
exchanged; the leader alone decides which version that is. A version that cannot be loaded leaves the one
before it in place; a process that has none yet takes the newest that served before, and the prior at last.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tailwise.api.labels import LATENCY_MODEL_LABEL, LATENCY_MODEL_VERSION_LABEL
from tailwise.api.latency_model_status import ModelVersion, VersionOutcome
from tailwise.cluster.artefacts import DIGEST_KEY, URL_KEY, read_version
from tailwise.cluster.client import Client
from tailwise.controllers.prediction_tables import PredictionTables
from tailwise.controllers.registry import KnownLatencyModel, Registry
from tailwise.domain.learning_facts import VersionFacts, prior_version
from tailwise.domain.promotion import PRIOR_VERSION, Standing
from tailwise.domain.record import parse_time
from tailwise.prediction.artefact import Artefact, ArtefactError
from tailwise.prediction.learned import LearnedPredictor
from tailwise.prediction.manifest import MANIFEST_FILE, Manifest
from tailwise.prediction.predictor import Predictor
from tailwise.training.request import REPORT_KEY, RunReport

_LOGGER = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0


def version_facts(obj: Mapping[str, Any]) -> VersionFacts | None:
    """A version by its index ConfigMap; None where that is not one of ours, or cannot be read."""
    metadata, data = obj["metadata"], obj.get("data") or {}
    latency_model = (metadata.get("annotations") or {}).get(LATENCY_MODEL_LABEL)
    number = metadata.get("labels", {}).get(LATENCY_MODEL_VERSION_LABEL, "")
    made_at = parse_time(metadata.get("creationTimestamp"))
    if not latency_model or not number.isdigit() or made_at is None or "deletionTimestamp" in metadata:
        return None
    try:
        manifest = Manifest.model_validate_json(data.get(MANIFEST_FILE) or "")
        report = RunReport.model_validate_json(data.get(REPORT_KEY) or "") if REPORT_KEY in data else None
    except ValidationError as error:
        _LOGGER.warning("ConfigMap %s is no version: %s", metadata["name"], error.errors()[0]["msg"])
        return None
    heldout, learned_from = manifest.heldout, manifest.provenance
    judged = report.judged if report is not None else ()
    return VersionFacts(
        latency_model=latency_model,
        version=int(number),
        algorithm=manifest.algorithm,
        digest=str(data.get(DIGEST_KEY) or ""),
        artifact=data.get(URL_KEY) or metadata["name"],
        trained_at=made_at,
        samples=learned_from.training_rows + learned_from.calibration_rows,
        rmse=_decimal(heldout.rmse_milliseconds, 3),
        coverage_percent=_decimal(None if heldout.coverage is None else 100 * heldout.coverage, 1),
        mape=heldout.mape,
        evaluations=manifest.evaluations,
        dataset=report.dataset if report is not None else None,
        faults=report.faults if report is not None else (),
        standings={
            each.version: Standing(each.version, each.error, each.coverage, each.samples) for each in judged
        },
    )


@dataclass(frozen=True, slots=True)
class Served:
    """What this process answers by; ``fault`` says why that is not what it should be."""

    version: int
    digest: str
    fault: str = ""


class ServedVersions:
    """Loads versions and has them take over; ``reconcile`` is what the queue calls, in every replica."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        registry: Registry,
        tables: PredictionTables,
        changed: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._registry = registry
        self._tables = tables
        self._changed = changed
        self._served: dict[str, Served] = {}
        # The one that was opened last for each LatencyModel: what was checked is what takes over.
        self._opened: dict[str, tuple[int, Artefact]] = {}

    def get(self, name: str) -> Served | None:
        """What answers for a LatencyModel in this process; None while that is not settled."""
        return self._served.get(name)

    async def check(self, name: str, version: ModelVersion) -> str | None:
        """Why a version cannot be run; None where it can."""
        try:
            await self._open(name, version)
        except ArtefactError as error:
            return str(error)
        return None

    async def reconcile(self, name: str) -> float | None:
        """Have the version answer that the status names; returns when to try again."""
        known = self._registry.latency_models.get(name)
        if known is None:
            if self._served.pop(name, None) is not None:
                await self._tables.exchange(name, self._tables.fallback)
            self._opened.pop(name, None)
            return None
        wanted = _wanted(known)
        served = self._served.get(name)
        if served is not None and (served.version, served.digest) == (wanted.version, wanted.digest):
            if served.fault:
                self._serves(name, Served(served.version, served.digest))
            return None
        fault = await self._serve(name, wanted)
        if not fault:
            return None
        _LOGGER.warning("LatencyModel %s: %s", name, fault)
        if served is None:
            await self._serve_another(name, known, fault)
        else:
            self._serves(name, Served(served.version, served.digest, fault))
        return _RETRY_SECONDS

    async def _serve(self, name: str, version: ModelVersion) -> str:
        """Have a version take over; why not, where it cannot."""
        predictor: Predictor = self._tables.fallback
        if version.version != PRIOR_VERSION:
            try:
                predictor = LearnedPredictor(await self._open(name, version), version.version)
            except ArtefactError as error:
                return str(error)
        await self._tables.exchange(name, predictor)
        _LOGGER.info("LatencyModel %s: version %d answers", name, version.version)
        self._serves(name, Served(version.version, version.digest))
        return ""

    async def _serve_another(self, name: str, known: KnownLatencyModel, fault: str) -> None:
        for version in _before(known):
            if not await self._serve(name, version):
                self._serves(name, Served(version.version, version.digest, fault))
                return

    async def _open(self, name: str, version: ModelVersion) -> Artefact:
        number, artefact = self._opened.get(name, (PRIOR_VERSION, None))
        if artefact is None or number != version.version or artefact.digest != version.digest:
            artefact = await read_version(
                self._client, self._namespace, name, version.version, version.digest or None
            )
            self._opened[name] = (version.version, artefact)
        return artefact

    def _serves(self, name: str, served: Served) -> None:
        if self._served.get(name) != served:
            self._served[name] = served
            self._changed(name)


async def serve_all(versions: ServedVersions, registry: Registry) -> list[str]:
    """Have all LatencyModels' versions answer, once; what is wrong with any, as sentences."""
    faults = []
    for name in tuple(registry.latency_models):
        await versions.reconcile(name)
        served = versions.get(name)
        if served is not None and served.fault:
            faults.append(f"LatencyModel {name}: {served.fault}")
    return faults


def _wanted(known: KnownLatencyModel) -> ModelVersion:
    active = known.status.active_version
    found = [each for each in known.status.history if each.version == active]
    if not found and known.status.champion is not None and known.status.champion.version == active:
        found = [known.status.champion]
    return found[0] if found else _bare(active)


def _before(known: KnownLatencyModel) -> Iterator[ModelVersion]:
    """Who answers where the version of the status cannot: those that served before it, then the prior."""
    active = known.status.active_version
    for each in sorted(known.status.history, key=lambda each: each.version, reverse=True):
        if each.version != active and each.outcome is VersionOutcome.RETIRED and each.promoted_at is not None:
            yield each
    yield _bare(PRIOR_VERSION)


def _bare(number: int) -> ModelVersion:
    return prior_version().model_copy(update={"version": number})


def _decimal(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"
