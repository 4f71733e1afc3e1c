"""What the cluster measured, as rows of a dataset: latency, load and limits of every pod in every window.

In: workloads with their profiles and metrics, nodes' hardware, a span of time. Out: raw rows in the dataset's
schema, which ``training.cleaning`` reads; what was dropped here, by reason; and what went wrong, by workload.
A window that was scraped too seldom is a gap, one in which a counter fell is a reset: neither becomes a row.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.api.serving_metrics import ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.history_queries import (
    CPU_METRIC,
    NodeNames,
    Part,
    Values,
    by_key,
    latency_parts,
    union,
    usage_parts,
)
from tailwise.telemetry.join import JoinedPod
from tailwise.telemetry.observed import MILLISECONDS, bound_queries, filled
from tailwise.telemetry.prometheus import Prometheus, PrometheusError, QueryRefusedError
from tailwise.telemetry.queries import PART_LABEL, CpuUnit, UtilisationQueries
from tailwise.telemetry.ranges import Span, read_range
from tailwise.telemetry.served import Served, life_of, who_was
from tailwise.training.rows import DropReason

LEAST_SCRAPED = 0.7
"""Share of the scrapes of a full window below which a window has a gap."""

_VANISHED_WINDOWS = 3

Told = Callable[[str, int, int], object]
"""What is being read, chunks done, of how many."""


class FaultKind(StrEnum):
    """What went wrong, so that a caller can tell what to do about it."""

    UNREACHABLE = "Unreachable"
    """Prometheus gave no answer."""
    REFUSED = "Refused"
    """Prometheus would not evaluate a query; the message has its own words."""
    NO_SERIES = "NoSeries"
    """A metric is not there in all of the time."""
    VANISHED = "Vanished"
    """A metric is no longer there, and the pods were."""
    NO_ROWS = "NoRows"
    """There are series, and no window of them can be used."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there are no rows of a workload, or fewer than there might be."""

    kind: FaultKind
    message: str


@dataclass(frozen=True, slots=True)
class History:
    """Raw rows, in no order; ``faults`` says for a workload (or ``nodes``) why there are none or fewer."""

    rows: tuple[Mapping[str, Any], ...]
    dropped: Mapping[DropReason, int]
    faults: Mapping[str, Fault]


async def read_history(
    prometheus: Prometheus,
    served: Sequence[Served],
    hardware: Mapping[str, NodeHardware],
    utilisation: UtilisationQueries,
    span: Span,
    *,
    addresses: Mapping[str, str] | None = None,
    told: Told = lambda _what, _done, _of: None,
) -> History:
    """Read every workload's windows, joined with its nodes' load.

    ``hardware`` by node; rows on nodes without are gaps. ``utilisation`` must be made for windows as long as
    ``span.step``. ``addresses`` gives nodes' names by address. What Prometheus refuses is a fault with its
    own words; the other workloads are read all the same. Raises nothing for what Prometheus does.
    """
    named = NodeNames(hardware, addresses or {})
    faults: dict[str, Fault] = {}
    dropped: Counter[DropReason] = Counter()
    rows: list[Mapping[str, Any]] = []
    try:
        nodes = await _nodes(prometheus, utilisation, span, named, told)
    except PrometheusError as error:
        return History((), {}, {"nodes": _fault_of(error)})
    if not nodes:
        told_of = f"Prometheus {prometheus.url} has no CPU utilisation by {utilisation.name} in this time"
        fault = Fault(FaultKind.NO_SERIES, f"{told_of}: check that the nodes are scraped")
        return History((), {}, {"nodes": fault})
    for each in served:
        life = life_of(each, span)
        if life is None:
            continue
        try:
            read = await _pods(prometheus, each, life, named, told)
        except (PrometheusError, ValueError) as error:
            faults.setdefault(each.name, _fault_of(error))
            continue
        made = _rows(each, read, nodes, hardware, utilisation.cpu_unit, span, dropped)
        fault_of_it = _fault_in(each.name, read, span.step, any_rows=bool(made))
        if fault_of_it is not None:
            faults.setdefault(each.name, fault_of_it)
        rows += made
    # Of pods in several pieces some are older than what Prometheus keeps: no fault while others tell enough.
    complete = {row["workload"] for row in rows}
    faults = {
        name: fault
        for name, fault in faults.items()
        if name not in complete or fault.kind not in (FaultKind.NO_ROWS, FaultKind.NO_SERIES)
    }
    return History(tuple(rows), dict(dropped), faults)


def _fault_of(error: Exception) -> Fault:
    unreachable = isinstance(error, PrometheusError) and not isinstance(error, QueryRefusedError)
    return Fault(FaultKind.UNREACHABLE if unreachable else FaultKind.REFUSED, str(error))


def _fault_in(name: str, read: _Read, step: timedelta, *, any_rows: bool) -> Fault | None:
    """A metric that is not there, or no longer: the pods went on, and it did not."""
    served = [time for (_, time), values in read.values.items() if Part.P90 in values]
    used = [time for (_, time), values in read.values.items() if Part.CPU in values]
    if not served:
        return Fault(FaultKind.NO_SERIES, read.nothing)
    if not used:
        message = (
            f"Prometheus has no {CPU_METRIC} of {name} in this time, from which the pods' own use is "
            "read: check that the kubelets' cAdvisor is scraped, with labels namespace and pod"
        )
        return Fault(FaultKind.NO_SERIES, message)
    if max(used) - max(served) > _VANISHED_WINDOWS * step.total_seconds():
        since = datetime.fromtimestamp(max(served), UTC).isoformat(timespec="seconds")
        message = f"{read.metric} of {name} has vanished: its last value is of {since}; the pods ran on"
        return Fault(FaultKind.VANISHED, message)
    if not any_rows:
        message = f"no window of {name} can be used: see what was dropped"
        return Fault(FaultKind.NO_ROWS, message)
    return None


@dataclass(frozen=True, slots=True)
class _Read:
    values: Values
    node_of: Mapping[tuple[str, float], str]
    scale: float
    has_counter: bool
    draws: bool
    metric: str
    nothing: str


async def _nodes(
    prometheus: Prometheus, utilisation: UtilisationQueries, span: Span, named: NodeNames, told: Told
) -> Values:
    parts = [(Part.CPU, utilisation.cpu.value)]
    if utilisation.frequency is not None:
        parts.append((Part.FREQUENCY, utilisation.frequency.value))
    series = await read_range(
        prometheus,
        union(parts),
        span,
        "utilisation",
        lambda done, of: told("utilisation of nodes", done, of),
    )
    return by_key(series, named.node)


async def _pods(prometheus: Prometheus, each: Served, span: Span, named: NodeNames, told: Told) -> _Read:
    seconds = int(span.step.total_seconds())
    metrics = each.metrics.model_copy(update={"window_seconds": seconds})
    server = bound_queries(metrics, each.namespace, each.workload, each.pods_pattern, 90, each.model_name)
    own = metrics.queries if metrics.preset is ServingPreset.CUSTOM else None
    concurrency = filled(own.concurrency, server.values) if own and own.concurrency else None
    latency = await read_range(
        prometheus, union(latency_parts(server, concurrency)), span, f"latency of {each.name}",
        lambda done, of: told(f"latency of {each.name}", done, of),
    )  # fmt: skip
    used = usage_parts(each.namespace, each.pods_pattern, each.container, seconds)
    usage = await read_range(
        prometheus, union(used), span, f"CPU of {each.name}",
        lambda done, of: told(f"CPU of {each.name}", done, of),
    )  # fmt: skip
    values = by_key([*latency, *usage], lambda labels: labels.get("pod"))
    node_of = {}
    for series in usage:
        node = named.node(series.labels)
        if node is not None and "pod" in series.labels and series.labels[PART_LABEL] == Part.CPU:
            node_of.update({(series.labels["pod"], time): node for time, _ in series.points})
    nothing = (
        f"Prometheus has no {metrics.preset} latency ({server.metric}) of {each.name} with labels namespace "
        f"and pod in this time: {server.hint}"
    )
    return _Read(
        values,
        node_of,
        MILLISECONDS[server.unit],
        server.samples is not None,
        server.draws,
        server.metric,
        nothing,
    )


def _rows(
    each: Served,
    read: _Read,
    nodes: Values,
    hardware: Mapping[str, NodeHardware],
    cpu_unit: CpuUnit,
    span: Span,
    dropped: Counter[DropReason],
) -> list[Mapping[str, Any]]:
    full: dict[str, float] = defaultdict(float)
    for (pod, _), values in read.values.items():
        full[pod] = max(full[pod], values.get(Part.SAMPLES, 0.0))
    known_pods: dict[str, list[JoinedPod]] = defaultdict(list)
    for joined in each.pods:
        known_pods[joined.name].append(joined)
    documents = {"profile": each.profile.model_dump_json(by_alias=True)}
    described = {name: known.model_dump_json(by_alias=True) for name, known in hardware.items()}
    rows: list[Mapping[str, Any]] = []
    for (pod, time), values in sorted(read.values.items()):
        who = who_was(known_pods, pod, time - span.step.total_seconds(), time)
        if who is None or (Part.P90 not in values and Part.CPU not in values):
            continue  # before its time, or after
        if Part.P90 not in values:
            dropped[DropReason.GAP] += 1
            continue
        reason = _unusable(values, full[pod] if read.has_counter else None)
        node = who.node or read.node_of.get((pod, time))
        load = nodes.get((node, time)) if node is not None else None
        known = node in hardware and load is not None and Part.CPU in load and Part.CPU in values
        if reason is None and not known:
            reason = DropReason.GAP
        if reason is not None or node is None or load is None:
            dropped[reason or DropReason.GAP] += 1
            continue
        rows.append(
            documents
            | {
                "hardware": described[node],
                "time": datetime.fromtimestamp(time, UTC),
                "window_seconds": span.step.total_seconds(),
                "workload": each.name,
                "pod": pod,
                "family": each.family,
                "source": f"Prometheus:{each.metrics.preset}",
                "cpu_utilisation": _share_of_capacity(load[Part.CPU], hardware[node], cpu_unit),
                "frequency_utilisation": load.get(Part.FREQUENCY),
                "pod_cpu_cores": values.get(Part.CPU),
                "p90_milliseconds": values[Part.P90] * read.scale,
                "throttled_share": _finite(values.get(Part.THROTTLED)),
            }
            | _served(each.serving, values, span, read.draws)
        )
    return rows


def _unusable(values: Mapping[Part, float], full: float | None) -> DropReason | None:
    if values.get(Part.RESETS, 0.0) > 0:
        return DropReason.RESET
    if full is not None and values.get(Part.SAMPLES, 0.0) < LEAST_SCRAPED * full:
        return DropReason.GAP
    if math.isnan(values[Part.P90]) and not values.get(Part.RATE, 0.0) > 0:
        return DropReason.TOO_FEW_QUERIES  # a histogram without requests answers NaN
    if values[Part.P90] == values.get(Part.HIGHEST):
        return DropReason.ABOVE_BUCKETS
    return None


def _served(serving: Serving, values: Mapping[Part, float], span: Span, draws: bool) -> dict[str, Any]:
    """How the pod served: the limit it had, the rate and clients that were seen."""
    rate = _finite(values.get(Part.RATE))
    queries = None if rate is None else round(rate * span.step.total_seconds())
    if draws and queries is not None:
        queries = min(queries, round(values.get(Part.SAMPLES, 0.0)))
    limit = _finite(values.get(Part.LIMIT))
    clients = _finite(values.get(Part.CONCURRENCY))
    return {
        "cpu_limit_millicores": serving.cpu_limit_millicores
        if not limit or limit < 0
        else round(limit * 1000),
        "cpu_request_millicores": serving.cpu_request_millicores,
        "threads": serving.threads,
        "server_overhead_milliseconds": serving.overhead_milliseconds or None,
        "concurrency": serving.concurrency if clients is None else max(1, round(clients)),
        "requests_per_second": rate if serving.requests_per_second is not None else None,
        "queries": queries,
    }


def _share_of_capacity(value: float, hardware: NodeHardware, unit: CpuUnit) -> float:
    cores = value if unit is CpuUnit.CORES else value * hardware.cores
    # Rates extrapolate to the window's edges: a full node may read a little above 1.
    return min(1.0, cores / hardware.capacity_cores) if math.isfinite(value) else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
