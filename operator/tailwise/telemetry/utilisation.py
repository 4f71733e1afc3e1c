"""Utilisation of all nodes: polled in the background, read at once, never older than it says.

Two queries each poll for the whole cluster. A value that does not come keeps its place and its time, so its
age grows; nothing is ever filled in. Ages are differences of Prometheus' own times, so that a clock here that
goes ahead or behind does not make data young or old.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from tailwise.api.hardware import NodeHardware
from tailwise.prediction.prediction import NodeLoad
from tailwise.telemetry.metrics import DataSource, OperatorMetrics
from tailwise.telemetry.prometheus import Prometheus, PrometheusError, Sample, Vector
from tailwise.telemetry.queries import (
    NODE_LABELS,
    PART_LABEL,
    PART_TIME,
    CpuUnit,
    NodeQuery,
    UtilisationQueries,
)

_LOGGER = logging.getLogger(__name__)

POLL_INTERVAL_SECONDS = 15.0
# A node that is gone, or that nobody scrapes any more, leaves the snapshot after this.
_FORGET_AFTER = timedelta(hours=1)
# rate() extrapolates to the window's edges, so an idle node's figure may come out a little below zero.
_ROUNDING = 0.05


class Dropped(StrEnum):
    """Why a value that Prometheus gave is not used."""

    NOT_A_NUMBER = "NotANumber"
    NEGATIVE = "Negative"
    ABOVE_ONE = "AboveOne"
    NO_TIME = "NoTime"
    UNKNOWN_NODE = "UnknownNode"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value and when it was sampled, by this process's clock."""

    value: float
    sampled_at: datetime

    def age_seconds(self, now: datetime) -> float:
        """Age at ``now``, never below 0."""
        return max(0.0, (now - self.sampled_at).total_seconds())


@dataclass(frozen=True, slots=True)
class NodeUtilisation:
    """What is known of one node; ``cpu`` is in ``Utilisation.cpu_unit``, ``frequency`` a fraction."""

    cpu: Reading | None = None
    frequency: Reading | None = None


_NO_NODE = NodeUtilisation()


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A snapshot of all nodes.

    ``polled_at`` is when Prometheus last answered everything that was asked, None before that;
    ``last_error`` says why the newest poll did not, None when it did. ``dropped`` counts the newest poll's
    values that were not used.
    """

    cpu_unit: CpuUnit
    window_seconds: float
    nodes: Mapping[str, NodeUtilisation] = field(default_factory=lambda: MappingProxyType({}))
    polled_at: datetime | None = None
    last_error: str | None = None
    dropped: Mapping[Dropped, int] = field(default_factory=lambda: MappingProxyType({}))

    def node(self, name: str) -> NodeUtilisation:
        """Return what is known of a node, which may be nothing."""
        return self.nodes.get(name, _NO_NODE)

    def used_cores(self, hardware: NodeHardware) -> float | None:
        """Cores in use on a node; None where unknown."""
        reading = self.node(hardware.node).cpu
        if reading is None:
            return None
        return reading.value if self.cpu_unit is CpuUnit.CORES else reading.value * hardware.cores

    def load(self, hardware: NodeHardware, now: datetime, oldest_seconds: float = math.inf) -> NodeLoad:
        """Return U_C (of ``hardware.capacity_cores``) and U_F; None for what is unknown or older."""
        known = self.node(hardware.node)
        cores = self.used_cores(hardware) if _fresh(known.cpu, now, oldest_seconds) else None
        frequency = known.frequency if _fresh(known.frequency, now, oldest_seconds) else None
        return NodeLoad(
            cpu=None if cores is None else min(1.0, cores / hardware.capacity_cores),
            frequency=None if frequency is None else frequency.value,
        )

    def cpu_age_seconds(self, node: str, now: datetime) -> float | None:
        """Age of a node's CPU value; None where there is none."""
        reading = self.node(node).cpu
        return None if reading is None else reading.age_seconds(now)

    def oldest_age_seconds(self, now: datetime) -> float | None:
        """Age of the oldest CPU value of all nodes; None where there is none."""
        ages = [known.cpu.age_seconds(now) for known in self.nodes.values() if known.cpu is not None]
        return max(ages, default=None)


class UtilisationPoller:
    """Keeps a snapshot fresh.

    ``addresses`` gives nodes' names by address or host name, for series that tell their node only by
    ``instance``; it is called at each poll.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        queries: UtilisationQueries,
        *,
        addresses: Callable[[], Mapping[str, str]] = dict,
        interval_seconds: float = POLL_INTERVAL_SECONDS,
        metrics: OperatorMetrics | None = None,
    ) -> None:
        self._prometheus = prometheus
        self._queries = queries
        self._addresses = addresses
        self._interval_seconds = interval_seconds
        self._metrics = metrics
        self._current = Utilisation(queries.cpu_unit, queries.window_seconds)
        self._first = asyncio.Event()
        if metrics is not None:
            # The age grows while Prometheus is away, so it is worked out when it is scraped.
            metrics.data_age(
                DataSource.UTILISATION, lambda: self._current.oldest_age_seconds(datetime.now(UTC))
            )

    def current(self) -> Utilisation:
        """Return the newest snapshot; it never changes once returned."""
        return self._current

    async def first_poll(self) -> Utilisation:
        """Return the snapshot once a poll has ended, well or not."""
        await self._first.wait()
        return self._current

    async def run(self) -> None:
        """Poll until cancelled, at a fixed rate; a poll longer than the interval delays the next."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.poll()
            await asyncio.sleep(max(0.0, self._interval_seconds - (loop.time() - began)))

    async def poll(self) -> Utilisation:
        """Ask once and return the new snapshot. Errors stand in ``last_error``, none is raised."""
        addresses = self._addresses()
        asked = [("CPU utilisation", self._queries.cpu, self._queries.cpu_unit is CpuUnit.FRACTION)]
        if self._queries.frequency is not None:
            asked.append(("frequency utilisation", self._queries.frequency, True))
        answers = await asyncio.gather(*(self._ask(purpose, query) for purpose, query, _ in asked))
        dropped: Counter[Dropped] = Counter()
        errors = [answer for answer in answers if isinstance(answer, str)]
        fresh = [
            _readings(answer, fraction, query.sampled_at is not None, addresses, dropped)
            if isinstance(answer, Vector)
            else {}
            for answer, (_, query, fraction) in zip(answers, asked, strict=True)
        ]
        if not errors and not fresh[0]:
            errors.append(self._nothing(dropped))
        self._publish(fresh[0], fresh[1] if len(fresh) > 1 else {}, errors, dropped)
        return self._current

    async def _ask(self, purpose: str, query: NodeQuery) -> Vector | str:
        try:
            return await self._prometheus.instant(query.with_time(), purpose)
        except PrometheusError as error:
            return str(error)

    def _nothing(self, dropped: Mapping[Dropped, int]) -> str:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "no series"
        return (
            f"Prometheus {self._prometheus.url}: CPU utilisation by {self._queries.name}: no usable value "
            f"({told}); check that its targets are scraped at least twice in {self._queries.window_seconds} s"
        )

    def _publish(
        self,
        cpu: Mapping[str, Reading],
        frequency: Mapping[str, Reading],
        errors: list[str],
        dropped: Counter[Dropped],
    ) -> None:
        before, now = self._current, datetime.now(UTC)
        nodes = {}
        for name in before.nodes.keys() | cpu.keys() | frequency.keys():
            known = before.node(name)
            merged = NodeUtilisation(
                _newest(known.cpu, cpu.get(name), now), _newest(known.frequency, frequency.get(name), now)
            )
            if merged != _NO_NODE:
                nodes[name] = merged
        error = "; ".join(errors) or None
        self._current = Utilisation(
            before.cpu_unit,
            before.window_seconds,
            MappingProxyType(nodes),
            before.polled_at if error else now,
            error,
            MappingProxyType(dict(dropped)),
        )
        self._first.set()
        self._report(before.last_error, error, dropped)

    def _report(self, error_before: str | None, error: str | None, dropped: Counter[Dropped]) -> None:
        if error is not None and error_before is None:
            _LOGGER.warning("%s; the last values keep their age", error)
        elif error is None and error_before is not None:
            _LOGGER.info("Prometheus %s answers again", self._prometheus.url)
        if self._metrics is not None:
            self._metrics.polled(failed=error is not None)
            for reason, count in dropped.items():
                self._metrics.samples_dropped(reason, count)


def _fresh(reading: Reading | None, now: datetime, oldest_seconds: float) -> bool:
    return reading is not None and reading.age_seconds(now) <= oldest_seconds


def _newest(known: Reading | None, fresh: Reading | None, now: datetime) -> Reading | None:
    reading = fresh if fresh is not None else known
    return reading if reading is not None and now - reading.sampled_at <= _FORGET_AFTER else None


def _readings(
    vector: Vector,
    fraction: bool,
    timed: bool,
    addresses: Mapping[str, str],
    dropped: Counter[Dropped],
) -> dict[str, Reading]:
    """Values by node. Where two series tell of one node the newer counts, and the higher of equally new."""
    times = {
        _key(sample): sample.value for sample in vector.samples if sample.labels.get(PART_LABEL) == PART_TIME
    }
    names = frozenset(addresses.values())
    found: dict[str, Reading] = {}
    for sample in vector.samples:
        if sample.labels.get(PART_LABEL) == PART_TIME:
            continue
        name = _node(sample.labels, addresses, names)
        sampled_at = times.get(_key(sample)) if timed else vector.evaluated_at
        fault = _fault(sample.value, fraction)
        if fault is None and name is None:
            fault = Dropped.UNKNOWN_NODE
        if fault is None and (sampled_at is None or math.isnan(sampled_at)):
            fault = Dropped.NO_TIME
        if fault is not None or name is None or sampled_at is None or vector.evaluated_at is None:
            dropped[fault or Dropped.NO_TIME] += 1
            continue
        value = max(0.0, min(1.0, sample.value) if fraction else sample.value)
        # Exporters that stamp their samples themselves may be ahead of Prometheus: that is age 0.
        age = timedelta(seconds=max(0.0, vector.evaluated_at - sampled_at))
        reading = Reading(value, vector.asked_at - age)
        rival = found.get(name)
        if rival is None or (reading.sampled_at, reading.value) > (rival.sampled_at, rival.value):
            found[name] = reading
    return found


def _fault(value: float, fraction: bool) -> Dropped | None:
    if not math.isfinite(value):
        return Dropped.NOT_A_NUMBER
    if value < -_ROUNDING:
        return Dropped.NEGATIVE
    if fraction and value > 1 + _ROUNDING:
        return Dropped.ABOVE_ONE
    return None


def _key(sample: Sample) -> tuple[str | None, ...]:
    return tuple(sample.labels.get(label) for label in NODE_LABELS)


def _node(labels: Mapping[str, str], addresses: Mapping[str, str], names: frozenset[str]) -> str | None:
    if node := labels.get("node"):
        return node
    instance = labels.get("instance", "")
    for candidate in (instance, host_of(instance)):
        if candidate in addresses:
            return addresses[candidate]
        if candidate in names:
            return candidate
    return None


def host_of(instance: str) -> str:
    """The host of HOST:PORT; IPv6 addresses stand in brackets, as Prometheus writes them."""
    host, colon, port = instance.rpartition(":")
    return (host if colon and port.isdigit() else instance).strip("[]")
