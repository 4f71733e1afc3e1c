"""The objects of the two kinds as kopf last showed them, read into the API's models.

What cannot be read stays in the registry with its fault: its pods must still be let go, and a condition
must still say which field is to blame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.inference_workload_status import InferenceWorkloadStatus
from tailwise.api.labels import RETRAIN_ANNOTATION
from tailwise.api.latency_model import LatencyModel
from tailwise.api.latency_model_status import MAX_REQUEST, LatencyModelStatus
from tailwise.cluster.client import INFERENCE_WORKLOADS
from tailwise.cluster.events import Regarding
from tailwise.cluster.reflector import Key
from tailwise.domain.record import parse_time

Raw = Mapping[str, Any]
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
S = TypeVar("S", InferenceWorkloadStatus, LatencyModelStatus)


@dataclass(frozen=True, slots=True)
class KnownWorkload:
    """An InferenceWorkload; ``workload`` is None where its spec cannot be read, and ``fault`` says why."""

    key: Key
    uid: str
    generation: int
    workload: InferenceWorkload | None
    status: InferenceWorkloadStatus
    fault: str = ""

    @property
    def regarding(self) -> Regarding:
        """The workload as what an event is about."""
        return Regarding.of(INFERENCE_WORKLOADS, self.key.namespace, self.key.name, self.uid)


@dataclass(frozen=True, slots=True)
class KnownLatencyModel:
    """A LatencyModel; ``model`` is None where its spec cannot be read, and ``fault`` says why."""

    name: str
    uid: str
    generation: int
    model: LatencyModel | None
    status: LatencyModelStatus
    fault: str = ""
    created_at: datetime = _LONG_AGO
    # Value of the annotation by which somebody asks for a training run.
    retrain_request: str = ""


def workload_from_object(obj: Raw) -> KnownWorkload:
    """Read an InferenceWorkload; never raises for what its author wrote."""
    metadata = obj["metadata"]
    workload, fault = None, ""
    try:
        workload = InferenceWorkload.model_validate({**_plain(obj), "status": {}})
    except ValidationError as error:
        fault = describe(error)
    return KnownWorkload(
        Key(metadata.get("namespace", ""), metadata["name"]),
        metadata["uid"],
        int(metadata.get("generation") or 0),
        workload,
        _status(InferenceWorkloadStatus, obj),
        fault,
    )


def latency_model_from_object(obj: Raw) -> KnownLatencyModel:
    """Read a LatencyModel; never raises for what its author wrote."""
    metadata = obj["metadata"]
    model, fault = None, ""
    try:
        model = LatencyModel.model_validate({**_plain(obj), "status": {}})
    except ValidationError as error:
        fault = describe(error)
    return KnownLatencyModel(
        metadata["name"],
        metadata["uid"],
        int(metadata.get("generation") or 0),
        model,
        _status(LatencyModelStatus, obj),
        fault,
        parse_time(metadata.get("creationTimestamp")) or datetime.now(UTC),
        (metadata.get("annotations") or {}).get(RETRAIN_ANNOTATION, "")[:MAX_REQUEST],
    )


def describe(error: ValidationError) -> str:
    """The faults of a document as one sentence a fault, each with its field."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        path = ".".join(str(part) for part in fault["loc"])
        faults.append(f"{path}: {fault['msg']}")
    return "; ".join(faults)


@dataclass(slots=True)
class Registry:
    """All objects of the two kinds that there are now."""

    workloads: dict[Key, KnownWorkload] = field(default_factory=dict)
    latency_models: dict[str, KnownLatencyModel] = field(default_factory=dict)

    def in_namespace(self, namespace: str) -> Iterator[KnownWorkload]:
        """The workloads of a namespace."""
        return (known for key, known in self.workloads.items() if key.namespace == namespace)


def _plain(obj: Raw) -> dict[str, Any]:
    return {name: obj[name] for name in ("apiVersion", "kind", "metadata", "spec") if name in obj}


def _status(kind: type[S], obj: Raw) -> S:
    try:
        return kind.model_validate(obj.get("status") or {})
    except ValidationError:  # written by another version; it will be written anew
        return kind()
