"""The demonstration's two measurements as the benchmark's report: the same figures and pictures of both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from tailwise.api.release import RELEASE
from tailwise.benchmark.outcome import machine
from tailwise.benchmark.records import PodRecord, RunDirectory, RunRecord, StepRecord, percentiles
from tailwise.benchmark.report import write_report
from tailwise.benchmark.scenario import Load, Policy, PolicyKind, Scenario, Workload
from tests.demo.report import PodResult

_KINDS = {"default": PolicyKind.DEFAULT, "tailwise": PolicyKind.TAILWISE}


def write(results: Mapping[str, Sequence[PodResult]], queries: int, directory: Path) -> str:
    """Write the report of a demonstration; ``results`` by policy. Returns the report's text."""
    scenario = _scenario(results, queries)
    shutil.rmtree(directory, ignore_errors=True)
    run = RunDirectory(directory)
    run.begin(
        RunRecord(
            scenario=scenario,
            digest=scenario.digest,
            release=RELEASE,
            began=time.time(),
            context="demo",
            machine=machine(),
        )
    )
    for place, (policy, pods) in enumerate(results.items()):
        run.finish(
            StepRecord(
                round=1,
                policy=policy,
                kind=_KINDS[policy],
                begin=float(place),
                end=float(place),
                measured_seconds=0.0,
                pods=tuple(_record(pod) for pod in pods),
            )
        )
    return write_report(run)


def _scenario(results: Mapping[str, Sequence[PodResult]], queries: int) -> Scenario:
    pods = next(iter(results.values()))
    names = sorted({pod.workload for pod in chain.from_iterable(results.values())})
    return Scenario(
        description="The demonstration: the same pods by the default scheduler and by Tailwise.",
        workloads=tuple(
            Workload(
                name=name,
                family=name,
                model=f"{name}.onnx",
                replicas=sum(pod.workload == name for pod in pods),
                slo_milliseconds=next(pod.slo_milliseconds for pod in pods if pod.workload == name),
            )
            for name in names
        ),
        load=Load(queries=max(64, queries)),
        policies=tuple(Policy(name=name, kind=_KINDS[name]) for name in results),
        rounds=1,
    )


def _record(pod: PodResult) -> PodRecord:
    latencies = pod.latencies_milliseconds
    return PodRecord(
        slot=pod.pod,
        workload=pod.workload,
        node=pod.node,
        slo_milliseconds=pod.slo_milliseconds,
        predicted_p90_milliseconds=pod.predicted_p90_milliseconds,
        queries=len(latencies),
        valid=bool(latencies),
        begin=0.0,
        end=sum(latencies) / 1000,
        percentiles_milliseconds=percentiles(latencies) if latencies else (),
        slow_queries=sum(each > pod.slo_milliseconds for each in latencies),
    )
