"""A placement as the pod's own annotations keep it: what the next operator knows of this one's decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tailwise.api.inference_workload_status import PlacementResult, PredictionSource
from tailwise.api.labels import (
    BOUND_ANNOTATION,
    DATA_AGE_ANNOTATION,
    DECIDED_AT_ANNOTATION,
    LATENCY_MODEL_VERSION_ANNOTATION,
    NODE_ANNOTATION,
    PLACEMENT_RESULT_ANNOTATION,
    PREDICTED_P50_ANNOTATION,
    PREDICTED_P90_ANNOTATION,
    SOURCE_ANNOTATION,
)


@dataclass(frozen=True, slots=True)
class PlacementRecord:
    """What was decided for a pod, when, and on what grounds; ``node`` is empty after a fallback."""

    result: PlacementResult
    decided_at: datetime | None = None
    node: str = ""
    predicted_p50_milliseconds: int | None = None
    predicted_p90_milliseconds: int | None = None
    bound_milliseconds: int | None = None
    source: PredictionSource | None = None
    data_age_seconds: int | None = None
    latency_model_version: int | None = None


def annotations_from_record(record: PlacementRecord) -> dict[str, str]:
    """The annotations to write; what is unknown is left out, never written as 0."""
    values = {
        PLACEMENT_RESULT_ANNOTATION: str(record.result),
        NODE_ANNOTATION: record.node or None,
        PREDICTED_P50_ANNOTATION: record.predicted_p50_milliseconds,
        PREDICTED_P90_ANNOTATION: record.predicted_p90_milliseconds,
        BOUND_ANNOTATION: record.bound_milliseconds,
        SOURCE_ANNOTATION: record.source,
        LATENCY_MODEL_VERSION_ANNOTATION: record.latency_model_version,
        DATA_AGE_ANNOTATION: record.data_age_seconds,
        DECIDED_AT_ANNOTATION: _rfc3339(record.decided_at) if record.decided_at else None,
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def record_from_annotations(annotations: Mapping[str, str]) -> PlacementRecord | None:
    """Read a record back; None where there is none. Values that anybody else broke are passed over."""
    try:
        result = PlacementResult(annotations.get(PLACEMENT_RESULT_ANNOTATION, ""))
    except ValueError:
        return None
    try:
        source = PredictionSource(annotations.get(SOURCE_ANNOTATION, ""))
    except ValueError:
        source = None
    return PlacementRecord(
        result=result,
        decided_at=parse_time(annotations.get(DECIDED_AT_ANNOTATION)),
        node=annotations.get(NODE_ANNOTATION, ""),
        predicted_p50_milliseconds=_count(annotations.get(PREDICTED_P50_ANNOTATION)),
        predicted_p90_milliseconds=_count(annotations.get(PREDICTED_P90_ANNOTATION)),
        bound_milliseconds=_count(annotations.get(BOUND_ANNOTATION)),
        source=source,
        latency_model_version=_count(annotations.get(LATENCY_MODEL_VERSION_ANNOTATION)),
        data_age_seconds=_count(annotations.get(DATA_AGE_ANNOTATION)),
    )


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time in UTC; None where it is absent or unreadable."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None
