"""What is asked of Prometheus for a dataset, and its answers by pod or node and window.

Several figures stand in one query, told apart by a label, so that a window's figures are of one moment.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tailwise.api.hardware import NodeHardware
from tailwise.telemetry.observed import BoundQueries
from tailwise.telemetry.queries import PART_LABEL
from tailwise.telemetry.ranges import Series
from tailwise.telemetry.utilisation import host_of

CPU_METRIC = "container_cpu_usage_seconds_total"


class Part(StrEnum):
    """What an element of an answer is."""

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


Values = dict[tuple[str, float], dict[Part, float]]
"""By (pod or node, time)."""


def latency_parts(server: BoundQueries, concurrency: str | None) -> list[tuple[Part, str]]:
    """The server's own figures, each by pod."""
    parts = []
    if server.buckets is not None:
        # Of one pod, buckets summed over its models and paths; the quantile of 1 tells what lies beyond.
        summed = f"sum by (pod, le) ({server.buckets})"
        parts += [
            (Part.P90, f"histogram_quantile(0.9, {summed})"),
            (Part.HIGHEST, f"histogram_quantile(1, {summed})"),
        ]
    elif server.quantile is not None:
        parts.append((Part.P90, f"max by (pod) ({server.quantile})"))
    if server.counted is not None:
        parts.append((Part.RATE, server.counted))
    for part, query in ((Part.SAMPLES, server.samples), (Part.RESETS, server.resets)):
        if query is not None:
            parts.append((part, f"max by (pod) ({query})"))
    if concurrency is not None:
        parts.append((Part.CONCURRENCY, f"max by (pod) ({concurrency})"))
    return parts


def usage_parts(
    namespace: str, pods_pattern: str, container: str | None, seconds: int
) -> list[tuple[Part, str]]:
    """By cAdvisor: the pod's own CPU, its node by a label of that series, its throttling and its limit."""
    pods = f'namespace="{namespace}",pod=~"{pods_pattern}",container!="",container!="POD"'
    used = f"sum by (pod, node, instance, job) (rate({CPU_METRIC}{{{pods}}}[{seconds}s]))"
    # A side-car's limit is not the server's.
    server = pods if container is None else f'{pods},container="{container}"'

    def periods(name: str) -> str:
        return f"sum by (pod) (rate(container_cpu_cfs_{name}_total{{{server}}}[{seconds}s]))"

    return [
        (Part.CPU, f"max by (pod, node, instance) ({used})"),
        (Part.THROTTLED, f"{periods('throttled_periods')} / {periods('periods')}"),
        (
            Part.LIMIT,
            f"sum by (pod) (max by (pod, container) (container_spec_cpu_quota{{{server}}}"
            f" / container_spec_cpu_period{{{server}}}))",
        ),
    ]


def union(parts: Sequence[tuple[Part, str]]) -> str:
    """All of them as one query."""
    return " or ".join(f'label_replace({query}, "{PART_LABEL}", "{part}", "", "")' for part, query in parts)


def by_key(series: Sequence[Series], key: Callable[[Mapping[str, str]], str | None]) -> Values:
    """Answers by what ``key`` reads from their labels; those it cannot name are left out."""
    values: Values = defaultdict(dict)
    for each in series:
        name = key(each.labels)
        if name is None:
            continue
        part = Part(each.labels[PART_LABEL])
        for time, value in each.points:
            known = values[name, time].get(part)
            # Two jobs that scrape the same node are not added up.
            values[name, time][part] = value if known is None or math.isnan(known) else max(known, value)
    return values


@dataclass(frozen=True, slots=True)
class NodeNames:
    """Nodes by what their series carry; ``hardware`` has those that are known by name."""

    hardware: Mapping[str, NodeHardware]
    addresses: Mapping[str, str]

    def node(self, labels: Mapping[str, str]) -> str | None:
        """The node a series is of: by its label, else by the address it was scraped at."""
        named = labels.get("node")
        if named:
            return named
        instance = labels.get("instance", "")
        host = host_of(instance)
        for known in (instance, host):
            if known in self.hardware:
                return known
        return self.addresses.get(host) or self.addresses.get(instance)
