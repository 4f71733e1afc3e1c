"""From what a step saw on the cluster to its record: pure, but for the name of this machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailwise.api.labels import PREDICTED_P90_ANNOTATION, SOURCE_ANNOTATION
from tailwise.benchmark.answers import Measured
from tailwise.benchmark.change import windows
from tailwise.benchmark.following import Followed
from tailwise.benchmark.records import PodRecord, StepRecord, percentiles
from tailwise.benchmark.scenario import Change, Policy, Workload


def pod_record(
    pod: Mapping[str, Any],
    slot: str,
    workload: Workload,
    measured: Mapping[str, Measured],
    delays: Mapping[str, float],
    predictions: Mapping[str, Mapping[str, Any]],
    decided: Mapping[str, float],
) -> PodRecord:
    """One pod's record; ``measured`` and ``predictions`` by its name, ``delays`` and ``decided`` by slot."""
    name = pod["metadata"]["name"]
    answers = measured.get(name, Measured(error="the clients said nothing of it"))
    latencies = answers.latencies_milliseconds
    annotations = pod["metadata"].get("annotations", {})
    at_decision = decided.get(slot, annotations.get(PREDICTED_P90_ANNOTATION))
    predicted = predictions.get(name, {}).get("predictedP90Milliseconds", decided.get(slot))
    return PodRecord(
        slot=slot,
        workload=workload.name,
        node=pod["spec"]["nodeName"],
        slo_milliseconds=workload.slo_milliseconds,
        placement_seconds=delays.get(slot),
        predicted_p90_milliseconds=None if predicted is None else float(predicted),
        decided_p90_milliseconds=None if at_decision is None else float(at_decision),
        prediction_source=annotations.get(SOURCE_ANNOTATION),
        queries=len(latencies),
        valid=answers.valid,
        begin=answers.begin or None,
        end=answers.end or None,
        percentiles_milliseconds=percentiles(latencies) if latencies else (),
        slow_queries=sum(each > workload.slo_milliseconds for each in latencies),
        error=answers.error,
    )


def machine() -> str:
    """Processor, cores and memory of this machine, and its kernel."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError):
        return f"{platform.machine()}, {os.cpu_count()} cores"
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"
    )


def step_record(
    number: int,
    policy: Policy,
    pods: tuple[PodRecord, ...],
    measured: Mapping[str, Measured],
    utilisation: Mapping[str, float],
) -> StepRecord:
    """The step's record; who writes it knows when it began."""
    spans = [(each.begin, each.end) for each in measured.values() if each.latencies_milliseconds]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    return StepRecord(
        round=number,
        policy=policy.name,
        kind=policy.kind,
        begin=begin,
        end=end,
        measured_seconds=end - begin,
        pods=pods,
        utilisation=dict(utilisation),
    )


def of_followed(followed: Followed, served: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    """All answers of each pod that was followed, by the name that it began with."""
    found = {}
    for slot, pod in served.items():
        answers = followed.answers.get(slot, ())
        found[pod["metadata"]["name"]] = (
            Measured(
                begin=followed.began,
                end=followed.began + answers[-1][0],
                valid=True,
                latencies_milliseconds=tuple(took for _, took in answers),
            )
            if answers
            else Measured(error="it answered no query")
        )
    return found


def with_change(step: StepRecord, followed: Followed, change: Change) -> StepRecord:
    """With what happened before and after a node slowed down."""
    seconds = change.after_seconds + change.follow_seconds
    first_nodes = {pod.slot: pod.node for pod in step.pods}
    return step.model_copy(
        update={
            "changed_at_seconds": followed.changed_at_seconds,
            "moves": followed.moves,
            "windows": windows(followed.answers, first_nodes, followed.moves, seconds),
        }
    )
