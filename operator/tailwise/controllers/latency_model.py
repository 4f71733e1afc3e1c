"""LatencyModels: collect what their runs, versions and placements tell, take one step, do what follows.

What there is to decide is decided by ``domain.life_cycle``. A run is a Job; its number is its version's. All
that must be known is in the API server: Jobs, versions and the status, so that whoever is killed goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from tailwise.api.conditions import LATENCY_MODEL_CONDITIONS, EventReason, Reason
from tailwise.api.latency_model import LatencyModel
from tailwise.api.latency_model_status import LatencyModelStatus, LiveAccuracy
from tailwise.api.training_policy import Drift
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.artefacts import delete_version
from tailwise.cluster.client import LATENCY_MODELS, Client
from tailwise.cluster.events import Event, EventType, Regarding, warning
from tailwise.controllers.conditions import Finding, turned_up
from tailwise.controllers.latency_model_findings import (
    Serving,
    latency_model_findings,
    unreadable,
    without_figures,
)
from tailwise.controllers.registry import KnownLatencyModel, Registry
from tailwise.controllers.stored_versions import ServedVersions
from tailwise.controllers.training_runs import TrainingRuns
from tailwise.domain.conditions import with_findings
from tailwise.domain.drift import LiveWindow
from tailwise.domain.learning_facts import Facts, Step, Told, run_number
from tailwise.domain.life_cycle import advance

_LOGGER = logging.getLogger(__name__)

# What no watch tells (time, live accuracy, a pod that does not start) is looked at this often.
_AGAIN_SECONDS = 10.0
_FIGURES_SECONDS = 30.0
_MOST_REFUSALS = 5


class Live(Protocol):
    """What was observed of versions that serve; see ``live_accuracy``."""

    def window(self, latency_model: str, version: int, newest: int) -> LiveWindow:
        """The newest samples of a version, as drift is judged by."""

    def status(self, latency_model: str, version: int, newest: int | None = None) -> LiveAccuracy | None:
        """The same for the status; None without a sample."""


@dataclass(slots=True)
class _Written:
    """The status last written, which the watch may not have told back yet, and when."""

    uid: str
    status: LatencyModelStatus
    at: float


@dataclass(slots=True)
class LatencyModelController:
    """Works on one LatencyModel at a time; ``reconcile`` is what the queue calls."""

    client: Client
    registry: Registry
    runs: TrainingRuns
    served: ServedVersions
    live: Live
    record: Callable[[Event], None]
    _written: dict[str, _Written] = field(default_factory=dict)

    async def reconcile(self, name: str) -> float | None:
        """Take a step of a LatencyModel's life; returns when to look again."""
        known = self.registry.latency_models.get(name)
        if known is None:
            self._written.pop(name, None)
            return None
        known = self._as_written(known)
        if known.model is None:
            await self._write(known, known.status, unreadable(known.fault))
            return None
        facts = await self._collect(known, known.model)
        step = await self._step(name, facts)
        status = step.status.model_copy(update={"live": self._live(name, step, facts)})
        serving = Serving(self.served.get(name), step.serve == 0 or step.serve in facts.versions)
        findings = latency_model_findings(known.model.spec, replace(step, status=status), serving)
        if step.start is not None:
            await self.runs.start(known, known.model.spec, step.start, status)
        # Afterwards: a run that another one replaces has not failed.
        for job in step.end_jobs:
            await self.runs.end(job)
        await self._write(known, status, findings)
        self._tell(known, step.told)
        for version in step.delete_versions:
            await delete_version(self.client, self.runs.namespace, name, version)
        await self.runs.tidy(name, status)
        if step.due_again_at is not None:
            until = (step.due_again_at - datetime.now(UTC)).total_seconds()
            return max(0.05, min(_AGAIN_SECONDS, until))
        return _AGAIN_SECONDS

    # ---- collect

    def _as_written(self, known: KnownLatencyModel) -> KnownLatencyModel:
        written = self._written.get(known.name)
        if written is None or written.uid != known.uid:
            return known
        return replace(known, status=written.status)

    async def _collect(self, known: KnownLatencyModel, model: LatencyModel) -> Facts:
        status, spec = known.status, model.spec
        window = (spec.drift or Drift()).window_samples
        live = self.live.window(known.name, status.active_version, window)
        facts = Facts(
            spec=spec,
            status=status,
            created_at=known.created_at,
            now=datetime.now(UTC),
            annotation=known.retrain_request,
            jobs=self.runs.jobs_of(known.name),
            versions=self.runs.versions_of(known.name),
            cannot_train=self.runs.why_not(spec),
            live={status.active_version: live},
        )
        return await self.runs.with_run(facts)

    async def _step(self, name: str, facts: Facts) -> Step:
        """A step to a version that can be run, as far as one can know before it runs."""
        step = advance(facts)
        for _ in range(_MOST_REFUSALS):
            if step.serve in (0, facts.status.active_version):
                break
            version = next(each for each in step.status.history if each.version == step.serve)
            fault = await self.served.check(name, version)
            if fault is None:
                break
            facts = replace(facts, refused={**facts.refused, step.serve: fault})
            step = advance(facts)
        return step

    def _live(self, name: str, step: Step, facts: Facts) -> LiveAccuracy | None:
        return self.live.status(name, step.serve, (facts.spec.drift or Drift()).window_samples)

    # ---- apply

    async def _write(
        self, known: KnownLatencyModel, status: LatencyModelStatus, findings: tuple[Finding, ...]
    ) -> None:
        before = known.status
        status = status.model_copy(
            update={
                "observed_generation": known.generation,
                "conditions": with_findings(
                    before.conditions,
                    findings,
                    generation=known.generation,
                    now=datetime.now(UTC),
                    order=LATENCY_MODEL_CONDITIONS,
                ),
            }
        )
        if _document(status) == _document(before):
            return
        written = self._written.get(known.name)
        soon = written is not None and time.monotonic() - written.at < _FIGURES_SECONDS
        if soon and _document(without_figures(status)) == _document(without_figures(before)):
            return
        result = await apply.apply_status(
            self.client,
            LATENCY_MODELS,
            namespace=None,
            name=known.name,
            uid=known.uid,
            status=_document(status),
        )
        if result.outcome is Outcome.NOT_FOUND:
            return
        if not result.done:
            raise RuntimeError(f"status of LatencyModel {known.name} refused: {result.message}")
        self._written[known.name] = _Written(known.uid, status, time.monotonic())
        about = _about(known)
        for finding in turned_up(before.conditions, findings):
            reason = (
                EventReason.SPEC_NOT_SUPPORTED
                if finding.reason is Reason.NOT_IMPLEMENTED
                else finding.reason.value
            )
            self.record(warning(about, reason, finding.message, finding.reason.value))

    def _tell(self, known: KnownLatencyModel, told: tuple[Told, ...]) -> None:
        for each in told:
            kind = EventType.WARNING if each.alarming else EventType.NORMAL
            # A version may come to serve more than once: the run that led to it tells them apart.
            run = run_number(known.status.last_run)
            key = f"{each.key}/{run}"
            self.record(Event(_about(known), kind, each.reason, "Reconcile", each.message, key))
            _LOGGER.info("LatencyModel %s: %s: %s", known.name, each.reason.value, each.message)


def _about(known: KnownLatencyModel) -> Regarding:
    return Regarding.of(LATENCY_MODELS, "", known.name, known.uid)


def _document(status: LatencyModelStatus) -> Mapping[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
