"""The rows of a training run: files of measurements, fetched, and what Prometheus has."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tailwise.api.conditions import Reason
from tailwise.models.addresses import AddressPolicy
from tailwise.models.credentials import credentials
from tailwise.models.errors import InspectionError, InvalidUrl
from tailwise.models.fetch import open_source
from tailwise.models.http_source import HttpAccess
from tailwise.telemetry import dataset as telemetry
from tailwise.telemetry.history import FaultKind
from tailwise.telemetry.join import JOIN_FILE, JoinError, read_join
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.ranges import windows_before
from tailwise.training.cleaning import Cleaned
from tailwise.training.files import read_dataset
from tailwise.training.request import RunProgress, RunRequest

_MOST_FILE_BYTES = 2 * 2**30
_PIECE_BYTES = 2**20
MOST_FAULTS = 5
_SUFFIXES = (".parquet", ".jsonl")


_REASONS = {
    FaultKind.UNREACHABLE: Reason.PROMETHEUS_UNAVAILABLE,
    FaultKind.REFUSED: Reason.QUERY_REFUSED,
}


class RunError(Exception):
    """There is no version; ``for_good``: the same run would fail the same way again."""

    def __init__(self, reason: Reason, message: str, *, for_good: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class History:
    """Cleaned rows, and why there are none or fewer, by workload."""

    read: tuple[Cleaned, ...]
    faults: tuple[str, ...]


def files_of(request: RunRequest, scratch: Path, told: Callable[[RunProgress], None]) -> list[Cleaned]:
    """The files of ``spec.dataset.files``, fetched and cleaned. Raises RunError."""
    read = []
    for place, each in enumerate(request.spec.dataset.files):
        field_name = f"spec.dataset.files[{place}].url"
        name = PurePosixPath(unquote(urlsplit(each.url).path)).name
        if not name.endswith(_SUFFIXES):
            message = f"{field_name}: {each.url[:200]} ends in neither .parquet nor .jsonl"
            raise RunError(Reason.DATASET_UNREADABLE, message)
        told(RunProgress(stage="Fetch", what=name))
        path = scratch / f"{place}-{name}"
        try:
            _fetch(request, each.url, path)
        except InspectionError as error:
            message = f"{field_name}: {str(error).replace('model', 'file')}"
            raise RunError(Reason.DATASET_UNREADABLE, message, for_good=False) from error

        def reading(done: int, of: int | None, name: str = name) -> None:
            told(RunProgress(stage="Read", done=done, total=of, what=name))

        read.append(read_dataset(path, now=datetime.now(UTC), progress=reading))
    return read


def _fetch(request: RunRequest, url: str, path: Path) -> None:
    """Copy what a URL names; raises InspectionError."""
    allow_files = request.allow_files
    parts = urlsplit(url)
    if parts.scheme == "pvc":
        if request.volume is None:
            raise InvalidUrl("pvc:// needs the claim's volume, which training Jobs mount")
        inside = unquote(parts.path).strip("/")
        if not parts.netloc or not inside or ".." in inside.split("/"):
            raise InvalidUrl(f"a file on a volume is pvc://CLAIM/PATH, not {url[:200]!r}")
        url, allow_files = f"file://{request.volume}/{parts.netloc}/{inside}", True
    networks = tuple(ipaddress.ip_network(each) for each in request.networks)
    refused = tuple(ipaddress.ip_network(each) for each in request.refused_networks)
    access = HttpAccess(addresses=AddressPolicy(networks, refused), allow_http=bool(networks))
    source = open_source(url, access, allow_files=allow_files, environment=credentials(os.environ))
    try:
        with path.open("wb") as file:
            while piece := source.read(file.tell(), _PIECE_BYTES):
                file.write(piece)
                if file.tell() > _MOST_FILE_BYTES:
                    raise InvalidUrl(f"{url[:200]} is larger than {_MOST_FILE_BYTES / 2**30:.0f} GiB")
    finally:
        source.close()


def history_of(request: RunRequest, directory: Path, told: Callable[[RunProgress], None]) -> History:
    """What Prometheus has of the workloads that the join document names; nothing without either."""
    path = directory / JOIN_FILE
    if request.prometheus_url is None or not path.is_file():
        return History((), ())
    dataset = request.spec.dataset
    try:
        join = read_join(path)
    except JoinError as error:
        raise RunError(Reason.TRAINING_FAILED, str(error)) from error
    now = datetime.now(UTC)
    span = windows_before(now, dataset.window_seconds, timedelta(hours=dataset.lookback_hours))

    def reading(what: str, done: int, of: int) -> None:
        told(RunProgress(stage="Collect", done=done, total=of, what=what[:200]))

    prometheus = Prometheus(request.prometheus_url)
    try:
        # In a thread of its own, which has no loop.
        read = asyncio.run(telemetry.read_dataset(prometheus, join, span, now=now, told=reading))
    finally:
        prometheus.close()
    faults = tuple(f"{name}: {fault.message}" for name, fault in sorted(read.faults.items()))
    kind = read.fault()
    if kind is not None and not dataset.files:
        reason = _REASONS.get(kind, Reason.NO_SAMPLES)
        message = "; ".join(faults[:MOST_FAULTS]) or "no workload has metrics: set spec.metrics of one"
        raise RunError(reason, message, for_good=kind is not FaultKind.UNREACHABLE)
    return History((read.cleaned,), faults)
