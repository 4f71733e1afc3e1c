"""The join document: which model ran in which pod on which node, when and how, so that metrics become rows.

Prometheus knows latencies and load by the names of pods and nodes; the cluster knows what those names stood
for. The operator writes what it knows into this document (``controllers.dataset_join``), a training Job or a
person reads a dataset with it: ``tailwise dataset --join FILE``. It is JSON or YAML, gzipped or not.
"""

from __future__ import annotations

import gzip
import zlib
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from tailwise.api.document import Document
from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.api.serving_metrics import ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.queries import CpuUnit, UtilisationQueries, cadvisor, custom, node_exporter

JOIN_VERSION: Literal[1] = 1
JOIN_FILE = "join.json.gz"
"""Name of the file, and key of ``binaryData``, under which the operator keeps the document."""

MOST_BYTES = 700 * 1024
"""Compressed: with base64 below the limits of a ConfigMap and of a request to etcd."""

_MOST_UNPACKED_BYTES = 256 * 1024 * 1024
_GZIP = b"\x1f\x8b"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class JoinError(ValueError):
    """The document cannot be used; the message names the file, the field and the way out."""


class UtilisationPreset(StrEnum):
    """Whose series tell how busy nodes were."""

    NODE_EXPORTER = "NodeExporter"
    CADVISOR = "CAdvisor"
    CUSTOM = "Custom"


class UtilisationSource(Document):
    """How U_C and U_F of equations (6) and (7) are read for all nodes."""

    preset: UtilisationPreset = Field(UtilisationPreset.CADVISOR, description="Whose series are read.")
    selector: str = Field("", description='Matchers that narrow the series, such as job="node".')
    cpu_query: str | None = Field(None, min_length=1, description="PromQL of U_C by node; preset Custom.")
    cpu_unit: CpuUnit = Field(CpuUnit.FRACTION, description="Unit of cpuQuery's answer.")
    frequency_query: str | None = Field(None, min_length=1, description="PromQL of U_F by node, if any.")

    @model_validator(mode="after")
    def _queries_belong_to_custom(self) -> Self:
        if (self.preset is UtilisationPreset.CUSTOM) != (self.cpu_query is not None):
            raise ValueError("cpuQuery belongs to preset Custom: give it with Custom, else leave it out")
        return self

    def queries(self, window_seconds: int) -> UtilisationQueries:
        """The queries for windows of this length; queries of one's own stand as they are."""
        if self.cpu_query is not None:
            return custom(
                cpu=self.cpu_query,
                cpu_unit=self.cpu_unit,
                frequency=self.frequency_query,
                window_seconds=window_seconds,
            )
        preset = node_exporter if self.preset is UtilisationPreset.NODE_EXPORTER else cadvisor
        return preset(window_seconds, self.selector)

    @classmethod
    def of(cls, queries: UtilisationQueries) -> UtilisationSource:
        """The source that an operator with these queries reads."""
        if queries.name != UtilisationPreset.CUSTOM:
            return cls(preset=UtilisationPreset(queries.name), selector=queries.selector)
        frequency = queries.frequency.value if queries.frequency is not None else None
        return cls(
            preset=UtilisationPreset.CUSTOM,
            cpu_query=queries.cpu.value,
            cpu_unit=queries.cpu_unit,
            frequency_query=frequency,
        )


class ServingSettings(Document):
    """How pods served, as ``prediction.Serving``; what Prometheus saw of limit, rate and clients replaces it.

    ``requests_per_second`` None: a closed loop of ``concurrency`` clients, and the rate seen is a result.
    """

    cpu_limit_millicores: int | None = Field(None, ge=1, description="CPU limit; none: unlimited.")
    cpu_request_millicores: int = Field(0, ge=0, description="CPU request.")
    threads: int = Field(1, ge=1, description="Threads that one query runs on.")
    concurrency: int = Field(1, ge=1, description="Queries in flight in a closed loop.")
    requests_per_second: float | None = Field(
        None, gt=0, description="Rate at which queries arrived of themselves; none: a closed loop."
    )
    overhead_milliseconds: float = Field(
        0.0, ge=0, description="CPU time of a query beside the model's own, on the reference node."
    )

    @classmethod
    def of(cls, serving: Serving) -> ServingSettings:
        """The settings of a pod as predictions take them."""
        return cls(
            cpu_limit_millicores=serving.cpu_limit_millicores or None,
            cpu_request_millicores=serving.cpu_request_millicores,
            threads=serving.threads,
            concurrency=serving.concurrency,
            requests_per_second=serving.requests_per_second,
            overhead_milliseconds=serving.overhead_milliseconds,
        )

    def serving(self, batch_size: int) -> Serving:
        """The same as predictions take them; the batch size is the profile's."""
        return Serving(
            cpu_limit_millicores=self.cpu_limit_millicores,
            threads=self.threads,
            batch_size=batch_size,
            concurrency=self.concurrency,
            requests_per_second=self.requests_per_second,
            cpu_request_millicores=self.cpu_request_millicores,
            overhead_milliseconds=self.overhead_milliseconds,
        )


class JoinedPod(Document):
    """A pod that there is or was. Names come again (StatefulSets): a pod counts within its own time only."""

    name: str = Field(min_length=1, max_length=253, description="Name of the pod.")
    node: str = Field("", max_length=253, description="Its node; empty: the node label of cAdvisor's series.")
    since: datetime | None = Field(None, description="When it began to serve; none: at any time.")
    until: datetime | None = Field(None, description="When it ended; none: it did not.")

    def lived(self, begin: float, end: float) -> bool:
        """Whether it stood for the whole window, in Unix seconds."""
        born = self.since is None or _unix(self.since) <= begin
        return born and (self.until is None or end <= _unix(self.until))


class ServedPods(Document):
    """Pods of one workload that served one model in one way, and where their latency is read."""

    namespace: str = Field(min_length=1, max_length=63, description="Namespace of the pods.")
    workload: str = Field(min_length=1, max_length=253, description="Name of the InferenceWorkload.")
    family: str = Field("", max_length=253, description="Family of the model; left out whole in evaluation.")
    profile: str = Field(description="Key of the model's profile in profiles.")
    metrics: ServingMetrics = Field(description="The server's metrics, as in an InferenceWorkload's spec.")
    serving: ServingSettings = Field(default_factory=ServingSettings, description="How the pods served.")
    container: str | None = Field(
        None, min_length=1, max_length=63, description="The server's container; none: all of the pod's."
    )
    model_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        description="The one of the server's models that counts; none: all.",
    )
    pods: tuple[JoinedPod, ...] = Field(default=(), description="The pods, also those that are gone.")
    pods_pattern: str | None = Field(
        None, min_length=1, description="Instead of pods: a regular expression of their names."
    )

    @model_validator(mode="after")
    def _pods_in_one_way(self) -> Self:
        if bool(self.pods) == (self.pods_pattern is not None):
            raise ValueError("give either pods or podsPattern")
        if (self.metrics.preset is ServingPreset.CUSTOM) != (self.metrics.queries is not None):
            raise ValueError("metrics.queries belongs to preset Custom: give it with Custom, else leave it")
        return self

    @property
    def name(self) -> str:
        """NAMESPACE/NAME of the workload."""
        return f"{self.namespace}/{self.workload}"


ProfileKey = Annotated[str, Field(min_length=1, max_length=253)]


class DatasetJoin(Document):
    """All of it; see the module. ``addresses`` gives nodes' names by the address they are scraped at."""

    version: Literal[1] = Field(JOIN_VERSION, description="Version of this document's form.")
    made_at: datetime | None = Field(None, description="When the operator made it.")
    utilisation: UtilisationSource = Field(
        default_factory=UtilisationSource, description="How nodes' utilisation is read."
    )
    profiles: dict[ProfileKey, ModelProfile] = Field(
        default_factory=dict,
        description="Models' profiles, as tailwise inspect MODEL --output json has them.",
    )
    hardware: tuple[NodeHardware, ...] = Field(
        default=(), description="Nodes, as tailwise agent --print has them, also those that are gone."
    )
    addresses: dict[str, str] = Field(default_factory=dict, description="Names of nodes by address.")
    served: tuple[ServedPods, ...] = Field(default=(), description="Who served what.")

    @model_validator(mode="after")
    def _profiles_are_there(self) -> Self:
        for place, each in enumerate(self.served):
            if each.profile not in self.profiles:
                raise ValueError(f"served[{place}].profile: profiles has no {each.profile!r}")
        return self


def packed(join: DatasetJoin) -> bytes:
    """The document as gzipped JSON; the same document gives the same bytes."""
    text = join.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def unpacked(content: bytes, name: str) -> DatasetJoin:
    """Read the document; ``name`` is what errors call its origin.

    Raises:
        JoinError: neither JSON nor YAML, or a field is missing or wrong.
    """
    way_out = "docs/dataset.md shows a join document"
    try:
        if content.startswith(_GZIP):
            content = _decompressed(content)
        if content.lstrip().startswith(b"{"):
            return DatasetJoin.model_validate_json(content)
        return DatasetJoin.model_validate(yaml.load(content, _LOADER))  # noqa: S506 - a safe loader
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise JoinError(f"{name}: {field + ': ' if field else ''}{first['msg']}; {way_out}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError, EOFError, zlib.error) as error:
        raise JoinError(f"{name}: this is neither JSON nor YAML, gzipped or not; {way_out}") from error


def read_join(path: Path) -> DatasetJoin:
    """Read a file; raises JoinError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise JoinError(f"{path}: {error.strerror or error}") from error
    return unpacked(content, str(path))


def merged(join: DatasetJoin, before: DatasetJoin, oldest: datetime) -> DatasetJoin:
    """The document with the pods of an earlier one that are gone since and ended after ``oldest``.

    A pod's name and ``since`` say who it is. What both tell, ``join`` tells as it is now. A pod that
    ``before`` saw alive and ``join`` does not know counts as ended when ``before`` was made: then it was seen
    last. Nodes that are gone are kept as long as one of these pods stood on them.
    """
    groups = {_group(each): each for each in join.served}
    known = {(each.namespace, pod.name, pod.since) for each in join.served for pod in each.pods}
    profiles, wanted = dict(join.profiles), set[str]()
    for each in before.served:
        gone = tuple(
            pod
            if pod.until is not None
            else pod.model_copy(update={"until": before.made_at or join.made_at or datetime.now(UTC)})
            for pod in each.pods
            if (each.namespace, pod.name, pod.since) not in known
        )
        gone = tuple(pod for pod in gone if pod.until is not None and _unix(pod.until) > _unix(oldest))
        if not gone:
            continue
        group = groups.get(_group(each), each.model_copy(update={"pods": (), "pods_pattern": None}))
        groups[_group(each)] = group.model_copy(update={"pods": (*group.pods, *gone)})
        profiles.setdefault(each.profile, before.profiles[each.profile])
        wanted |= {pod.node for pod in gone}
    nodes = {each.node for each in join.hardware}
    hardware = (*join.hardware, *(each for each in before.hardware if each.node in wanted - nodes))
    return join.model_copy(
        update={"profiles": profiles, "hardware": hardware, "served": tuple(groups.values())}
    )


def bounded(join: DatasetJoin, most_bytes: int = MOST_BYTES) -> tuple[DatasetJoin, int]:
    """The document within so many compressed bytes, and how many pods were left out for it.

    Pods that ended longest ago go first. What is left when all of those are gone stays, however large.
    """
    ended = sorted(_unix(pod.until) for each in join.served for pod in each.pods if pod.until is not None)
    low, high = 0, len(ended)
    while low < high:
        middle = (low + high) // 2
        if len(packed(_ended_after(join, ended, middle))) <= most_bytes:
            high = middle
        else:
            low = middle + 1
    kept = _ended_after(join, ended, low)
    return kept, _pods(join) - _pods(kept)


def _ended_after(join: DatasetJoin, ended: list[float], left_out: int) -> DatasetJoin:
    if not left_out:
        return join
    oldest = ended[left_out - 1]
    served = []
    for each in join.served:
        pods = tuple(pod for pod in each.pods if pod.until is None or _unix(pod.until) > oldest)
        if pods or each.pods_pattern is not None:
            served.append(each.model_copy(update={"pods": pods}))
    wanted = {each.profile for each in served}
    profiles = {key: profile for key, profile in join.profiles.items() if key in wanted}
    return join.model_copy(update={"served": tuple(served), "profiles": profiles})


def _pods(join: DatasetJoin) -> int:
    return sum(len(each.pods) for each in join.served)


def _group(each: ServedPods) -> str:
    return each.model_copy(update={"pods": (), "pods_pattern": None}).model_dump_json()


def _decompressed(content: bytes) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    text = unpacking.decompress(content, _MOST_UNPACKED_BYTES)
    if not unpacking.eof:
        raise EOFError
    return text


def _unix(time: datetime) -> float:
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
