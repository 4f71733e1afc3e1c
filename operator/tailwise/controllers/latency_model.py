"""LatencyModels: in this version each serves version 0, the physics prior, and says what is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tailwise.api.conditions import LATENCY_MODEL_CONDITIONS, ConditionType, EventReason, Reason
from tailwise.api.latency_model import LatencyModel
from tailwise.api.latency_model_status import Algorithm, LatencyModelStatus, ModelVersion, VersionOutcome
from tailwise.api.not_implemented import unimplemented_latency_model_fields
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import LATENCY_MODELS, Client
from tailwise.cluster.events import Event, Regarding, warning
from tailwise.controllers.conditions import Finding, bad, good, turned_up, unknown
from tailwise.controllers.registry import KnownLatencyModel, Registry
from tailwise.domain.conditions import with_findings

_PRIOR = ModelVersion(version=0, algorithm=Algorithm.PRIOR, outcome=VersionOutcome.CHAMPION)


def latency_model_findings(model: LatencyModel | None, fault: str) -> tuple[Finding, ...]:
    """All conditions: the prior needs no data, and training has not come yet."""
    never = "this version does not train; the physics prior answers"
    if model is None:
        supported = bad(
            ConditionType.SPEC_SUPPORTED,
            Reason.SPEC_INVALID,
            f"{fault}; correct it, or install the CRDs of this operator's version",
        )
    elif fields := unimplemented_latency_model_fields(model.spec):
        message = f"this version does not act upon {', '.join(fields)}; it goes on as if they were left out"
        supported = bad(ConditionType.SPEC_SUPPORTED, Reason.NOT_IMPLEMENTED, message)
    else:
        message = "every field that the spec uses is acted upon"
        supported = good(ConditionType.SPEC_SUPPORTED, Reason.ALL_FIELDS_SUPPORTED, message)
    return (
        good(ConditionType.READY, Reason.SERVING_PRIOR, "version 0, the physics prior, answers"),
        supported,
        unknown(ConditionType.DATASET_SUFFICIENT, Reason.NOT_IMPLEMENTED, never),
        bad(ConditionType.TRAINED, Reason.NEVER_TRAINED, never, alarming=False),
        bad(ConditionType.PROMOTED, Reason.NO_CHALLENGER, "there is only version 0", alarming=False),
        unknown(ConditionType.DRIFTING, Reason.NOT_IMPLEMENTED, never),
    )


def latency_model_status(
    known: KnownLatencyModel, findings: tuple[Finding, ...], now: datetime
) -> LatencyModelStatus:
    """The status to write."""
    return LatencyModelStatus(
        observed_generation=known.generation,
        conditions=with_findings(
            known.status.conditions,
            findings,
            generation=known.generation,
            now=now,
            order=LATENCY_MODEL_CONDITIONS,
        ),
        active_version=0,
        champion=_PRIOR,
    )


class LatencyModelController:
    """Works on one LatencyModel at a time; ``reconcile`` is what the queue calls."""

    def __init__(self, client: Client, registry: Registry, record: Callable[[Event], None]) -> None:
        self._client = client
        self._registry = registry
        self._record = record

    async def reconcile(self, name: str) -> None:
        """Bring a LatencyModel's status up to date."""
        known = self._registry.latency_models.get(name)
        if known is None:
            return
        findings = latency_model_findings(known.model, known.fault)
        status = latency_model_status(known, findings, datetime.now(UTC))
        if _document(status) != _document(known.status):
            written = await apply.apply_status(
                self._client,
                LATENCY_MODELS,
                namespace=None,
                name=name,
                uid=known.uid,
                status=_document(status),
            )
            if written.outcome is Outcome.NOT_FOUND:
                return
            if not written.done:
                raise RuntimeError(f"status of LatencyModel {name} refused: {written.message}")
        about = Regarding.of(LATENCY_MODELS, "", name, known.uid)
        for finding in turned_up(known.status.conditions, findings):
            reason = (
                EventReason.SPEC_NOT_SUPPORTED
                if finding.reason is Reason.NOT_IMPLEMENTED
                else finding.reason.value
            )
            self._record(warning(about, reason, finding.message, finding.reason.value))


def _document(status: LatencyModelStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
