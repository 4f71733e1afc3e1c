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
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.api.serving_metrics import ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.observed import MILLISECONDS, BoundQueries, bound_queries
from tailwise.telemetry.prometheus import Prometheus, PrometheusError
from tailwise.telemetry.queries import PART_LABEL, CpuUnit, UtilisationQueries
from tailwise.telemetry.ranges import Series, Span, read_range
from tailwise.training.rows import DropReason

LEAST_SCRAPED = 0.7
"""Share of the scrapes of a full window below which a window has a gap."""

Told = Callable[[str, int, int], object]
"""What is being read, chunks done, of how many."""


@dataclass(frozen=True, slots=True)
class Served:
    """A workload whose past is wanted.

    ``pods_pattern`` matches the names its pods had, also of those that are gone. ``serving`` is how it was
    asked to serve: its rate says whether queries arrived of themselves; what was observed replaces its value.
    """

    namespace: str
    workload: str
    pods_pattern: str
    metrics: ServingMetrics
    profile: ModelProfile
    serving: Serving
    family: str = ""

    @property
    def name(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.workload}"


@dataclass(frozen=True, slots=True)
class History:
    """Raw rows, in no order; ``faults`` says for a workload (or ``nodes``) why there are none or fewer."""

    rows: tuple[Mapping[str, Any], ...]
    dropped: Mapping[DropReason, int]
    faults: Mapping[str, str]


class _Part(StrEnum):
    P90 = "p90"
    HIGHEST = "highest"
    RATE = "rate"
    SAMPLES = "samples"
    RESETS = "resets"
    CONCURRENCY = "concurrency"
    CPU = "cpu"
    FREQUENCY = "frequency"
    THROTTLED = "throttled"
    LIMIT = "limit"


_Values = dict[tuple[str, float], dict[_Part, float]]
"""By (pod or node, time)."""


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
    named = _Names(hardware, addresses or {})
    faults: dict[str, str] = {}
    dropped: Counter[DropReason] = Counter()
    rows: list[Mapping[str, Any]] = []
    try:
        nodes = await _nodes(prometheus, utilisation, span, named, told)
    except PrometheusError as error:
        return History((), {}, {"nodes": str(error)})
    if not nodes:
        fault = f"Prometheus {prometheus.url} has no CPU utilisation by {utilisation.name} in this time"
        return History((), {}, {"nodes": f"{fault}: check that the nodes are scraped"})
    for each in served:
        try:
            read = await _pods(prometheus, each, span, named, told)
        except (PrometheusError, ValueError) as error:
            faults[each.name] = str(error)
            continue
        if not any(_Part.P90 in values for values in read.values.values()):
            faults[each.name] = read.nothing
            continue
        made = _rows(each, read, nodes, hardware, utilisation.cpu_unit, span, dropped)
        if not made:
            faults[each.name] = f"no window of {each.name} can be used: see what was dropped"
        rows += made
    return History(tuple(rows), dict(dropped), faults)


@dataclass(frozen=True, slots=True)
class _Names:
    hardware: Mapping[str, NodeHardware]
    addresses: Mapping[str, str]

    def node(self, labels: Mapping[str, str]) -> str | None:
        """The node a series is of: by its label, else by the address it was scraped at."""
        named = labels.get("node")
        if named:
            return named
        instance = labels.get("instance", "")
        host = instance.rpartition(":")[0] or instance
        for known in (instance, host):
            if known in self.hardware:
                return known
        return self.addresses.get(host) or self.addresses.get(instance)


@dataclass(frozen=True, slots=True)
class _Read:
    values: _Values
    node_of: Mapping[tuple[str, float], str]
    scale: float
    has_counter: bool
    nothing: str


async def _nodes(
    prometheus: Prometheus, utilisation: UtilisationQueries, span: Span, named: _Names, told: Told
) -> _Values:
    parts = [(_Part.CPU, utilisation.cpu.value)]
    if utilisation.frequency is not None:
        parts.append((_Part.FREQUENCY, utilisation.frequency.value))
    series = await read_range(
        prometheus,
        _union(parts),
        span,
        "utilisation",
        lambda done, of: told("utilisation of nodes", done, of),
    )
    return _by_key(series, named.node)


async def _pods(prometheus: Prometheus, each: Served, span: Span, named: _Names, told: Told) -> _Read:
    seconds = int(span.step.total_seconds())
    metrics = each.metrics.model_copy(update={"window_seconds": seconds})
    server = bound_queries(metrics, each.namespace, each.workload, each.pods_pattern, 90)
    own = metrics.queries if metrics.preset is ServingPreset.CUSTOM else None
    concurrency = _filled(own.concurrency if own else None, each, seconds)
    latency = await read_range(
        prometheus, _union(_latency_parts(server, concurrency)), span, f"latency of {each.name}",
        lambda done, of: told(f"latency of {each.name}", done, of),
    )  # fmt: skip
    usage = await read_range(
        prometheus, _union(_usage_parts(each, seconds)), span, f"CPU of {each.name}",
        lambda done, of: told(f"CPU of {each.name}", done, of),
    )  # fmt: skip
    values = _by_key([*latency, *usage], lambda labels: labels.get("pod"))
    node_of = {}
    for series in usage:
        node = named.node(series.labels)
        if node is not None and "pod" in series.labels and series.labels[PART_LABEL] == _Part.CPU:
            node_of.update({(series.labels["pod"], time): node for time, _ in series.points})
    nothing = (
        f"Prometheus has no {metrics.preset} latency of {each.name} with labels namespace and pod in this "
        f"time: {server.hint}"
    )
    return _Read(values, node_of, MILLISECONDS[server.unit], server.samples is not None, nothing)


def _latency_parts(server: BoundQueries, concurrency: str | None) -> list[tuple[_Part, str]]:
    parts = []
    if server.buckets is not None:
        # Of one pod, buckets summed over its models and paths; the quantile of 1 tells what lies beyond.
        summed = f"sum by (pod, le) ({server.buckets})"
        parts += [
            (_Part.P90, f"histogram_quantile(0.9, {summed})"),
            (_Part.HIGHEST, f"histogram_quantile(1, {summed})"),
        ]
    elif server.quantile is not None:
        parts.append((_Part.P90, f"max by (pod) ({server.quantile})"))
    if server.counted is not None:
        parts.append((_Part.RATE, server.counted))
    for part, query in ((_Part.SAMPLES, server.samples), (_Part.RESETS, server.resets)):
        if query is not None:
            parts.append((part, f"max by (pod) ({query})"))
    if concurrency is not None:
        parts.append((_Part.CONCURRENCY, f"max by (pod) ({concurrency})"))
    return parts


def _usage_parts(each: Served, seconds: int) -> list[tuple[_Part, str]]:
    """By cAdvisor: the pod's own CPU, its node by a label of that series, its throttling and its limit."""
    pods = f'namespace="{each.namespace}",pod=~"{each.pods_pattern}",container!="",container!="POD"'
    used = (
        f"sum by (pod, node, instance, job) (rate(container_cpu_usage_seconds_total{{{pods}}}[{seconds}s]))"
    )

    def periods(name: str) -> str:
        return f"sum by (pod) (rate(container_cpu_cfs_{name}_total{{{pods}}}[{seconds}s]))"

    return [
        (_Part.CPU, f"max by (pod, node, instance) ({used})"),
        (_Part.THROTTLED, f"{periods('throttled_periods')} / {periods('periods')}"),
        (
            _Part.LIMIT,
            f"sum by (pod) (max by (pod, container) (container_spec_cpu_quota{{{pods}}}"
            f" / container_spec_cpu_period{{{pods}}}))",
        ),
    ]


def _filled(template: str | None, each: Served, seconds: int) -> str | None:
    if template is None:
        return None
    values = {"namespace": each.namespace, "workload": each.workload, "pods": each.pods_pattern}
    for name, value in (values | {"window": f"{seconds}s"}).items():
        template = template.replace(f"${name}", value)
    return template


def _union(parts: Sequence[tuple[_Part, str]]) -> str:
    return " or ".join(f'label_replace({query}, "{PART_LABEL}", "{part}", "", "")' for part, query in parts)


def _by_key(series: Sequence[Series], key: Callable[[Mapping[str, str]], str | None]) -> _Values:
    values: _Values = defaultdict(dict)
    for each in series:
        name = key(each.labels)
        if name is None:
            continue
        part = _Part(each.labels[PART_LABEL])
        for time, value in each.points:
            known = values[name, time].get(part)
            # Two jobs that scrape the same node are not added up.
            values[name, time][part] = value if known is None or math.isnan(known) else max(known, value)
    return values


def _rows(
    each: Served,
    read: _Read,
    nodes: _Values,
    hardware: Mapping[str, NodeHardware],
    cpu_unit: CpuUnit,
    span: Span,
    dropped: Counter[DropReason],
) -> list[Mapping[str, Any]]:
    full: dict[str, float] = defaultdict(float)
    for (pod, _), values in read.values.items():
        full[pod] = max(full[pod], values.get(_Part.SAMPLES, 0.0))
    documents = {"profile": each.profile.model_dump_json(by_alias=True)}
    described = {name: known.model_dump_json(by_alias=True) for name, known in hardware.items()}
    rows: list[Mapping[str, Any]] = []
    for (pod, time), values in sorted(read.values.items()):
        if _Part.P90 not in values:
            continue
        reason = _unusable(values, full[pod] if read.has_counter else None)
        node = read.node_of.get((pod, time))
        load = nodes.get((node, time)) if node is not None else None
        if reason is None and (node not in hardware or load is None or _Part.CPU not in load):
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
                "cpu_utilisation": _share_of_capacity(load[_Part.CPU], hardware[node], cpu_unit),
                "frequency_utilisation": load.get(_Part.FREQUENCY),
                "pod_cpu_cores": values.get(_Part.CPU),
                "p90_milliseconds": values[_Part.P90] * read.scale,
                "throttled_share": _finite(values.get(_Part.THROTTLED)),
            }
            | _served(each.serving, values, span)
        )
    return rows


def _unusable(values: Mapping[_Part, float], full: float | None) -> DropReason | None:
    if values.get(_Part.RESETS, 0.0) > 0:
        return DropReason.RESET
    if full is not None and values.get(_Part.SAMPLES, 0.0) < LEAST_SCRAPED * full:
        return DropReason.GAP
    if math.isnan(values[_Part.P90]) and not values.get(_Part.RATE, 0.0) > 0:
        return DropReason.TOO_FEW_QUERIES  # a histogram without requests answers NaN
    if values[_Part.P90] == values.get(_Part.HIGHEST):
        return DropReason.ABOVE_BUCKETS
    return None


def _served(serving: Serving, values: Mapping[_Part, float], span: Span) -> dict[str, Any]:
    """How the pod served: the limit it had, the rate and clients that were seen."""
    rate = _finite(values.get(_Part.RATE))
    limit = _finite(values.get(_Part.LIMIT))
    clients = _finite(values.get(_Part.CONCURRENCY))
    return {
        "cpu_limit_millicores": serving.cpu_limit_millicores
        if not limit or limit < 0
        else round(limit * 1000),
        "cpu_request_millicores": serving.cpu_request_millicores,
        "threads": serving.threads,
        "server_overhead_milliseconds": serving.overhead_milliseconds or None,
        "concurrency": serving.concurrency if clients is None else max(1, round(clients)),
        "requests_per_second": rate if serving.requests_per_second is not None else None,
        "queries": None if rate is None else round(rate * span.step.total_seconds()),
    }


def _share_of_capacity(value: float, hardware: NodeHardware, unit: CpuUnit) -> float:
    cores = value if unit is CpuUnit.CORES else value * hardware.cores
    # Rates extrapolate to the window's edges: a full node may read a little above 1.
    return min(1.0, cores / hardware.capacity_cores) if math.isfinite(value) else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
