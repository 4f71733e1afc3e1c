"""Rows for LatencyModels from what a step measured, in the schema of docs/dataset.md.

A pod's latencies are cut into a few windows, so that a run of one evening holds rows enough to learn from;
all of them are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from tailwise.api.hardware import NodeHardware
from tailwise.api.profile import ModelProfile
from tailwise.benchmark.answers import Measured
from tailwise.benchmark.choosing import quantity
from tailwise.benchmark.manifests import NAMESPACE
from tailwise.benchmark.records import PodRecord
from tailwise.benchmark.scenario import Load, LoadKind, Scenario

WINDOWS = 4
_LEAST_QUERIES = 16


def rows(
    scenario: Scenario,
    pods: Mapping[str, tuple[PodRecord, Measured]],
    profiles: Mapping[str, ModelProfile],
    hardware: Mapping[str, NodeHardware],
    node_utilisation: Mapping[str, float],
    pod_cores: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Raw rows of one step. ``pods`` by the pod's own name; what lacks a required figure is left out."""
    found = []
    for name, (pod, measured) in pods.items():
        known = (
            pod.workload in profiles
            and pod.node in hardware
            and pod.node in node_utilisation
            and name in pod_cores
        )
        if not known or not measured.latencies_milliseconds:
            continue
        workload = scenario.workload(pod.workload)
        common = {
            "profile": profiles[pod.workload].model_dump_json(by_alias=True),
            "hardware": hardware[pod.node].model_dump_json(by_alias=True),
            "workload": f"{NAMESPACE}/{workload.name}",
            "pod": name,
            "family": workload.family,
            "source": "LoadGen",
            "cpu_utilisation": node_utilisation[pod.node],
            "pod_cpu_cores": pod_cores[name],
            "cpu_limit_millicores": round(1000 * quantity(workload.cpu_limit)),
            "cpu_request_millicores": round(1000 * quantity(workload.cpu_request)),
            "threads": max(1, -(-round(1000 * quantity(workload.cpu_limit)) // 1000)),
            "server_overhead_milliseconds": workload.overhead_microseconds / 1000,
            **_load(scenario.load),
        }
        found += [{**common, **window} for window in _windows(measured)]
    return found


def _load(load: Load) -> dict[str, Any]:
    if load.kind is LoadKind.SERVER:
        return {"requests_per_second": load.queries_per_second}
    return {"concurrency": 1}


def _windows(measured: Measured) -> Iterator[dict[str, Any]]:
    latencies = measured.latencies_milliseconds
    count = max(1, min(WINDOWS, len(latencies) // _LEAST_QUERIES))
    edges = [len(latencies) * place // count for place in range(count + 1)]
    spent = measured.end - measured.begin
    total = sum(latencies)
    so_far = 0.0
    for first, end in pairwise(edges):
        part = latencies[first:end]
        so_far += sum(part)
        yield {
            "time": datetime.fromtimestamp(measured.begin + spent * so_far / total, UTC),
            "window_seconds": spent * sum(part) / total,
            "queries": len(part),
            "latencies_milliseconds": list(part),
        }
