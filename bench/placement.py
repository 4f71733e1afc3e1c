"""How fast pods get their nodes: kube-scheduler alone against Tailwise before kube-scheduler.

    python -m bench placement [--nodes 1000] [--pods 1000] [--rounds 2] [--pods-per-second 20]

Both sides place the same pods on the same simulated cluster in turn (A B B A ...), so that what else the
machine does meets both. A: plain pods, no operator. B: pods labelled for InferenceWorkloads, gated by the
chart's MutatingAdmissionPolicy, placed by the operator's process, then bound by kube-scheduler. Neither
side's client is held back. Everything, the watch that takes the times included, shares this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from bench import machine, placement_stage
from bench.placement_stage import OperatorProcess, Stage
from bench.pod_watch import PodWatch, Seen, watching
from tailwise.cluster.client import connect
from tests.cluster import simulated

_IN_FLIGHT = 32
_DELAY_METRIC = "tailwise_placement_delay_seconds"
_DECISION_METRIC = "tailwise_placement_decision_duration_seconds"


class Side(StrEnum):
    """Who decides where pods go."""

    SCHEDULER = "kube-scheduler"
    TAILWISE = "tailwise"


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds over all pods, nearest rank."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class OperatorFigures:
    """The operator in one round. ``delay_bucket_seconds`` and ``decision_bucket_milliseconds`` are upper
    bounds of the buckets of its own histograms that hold P50 and P99; its delay counts from the pod's
    creationTimestamp, which has whole seconds."""

    cpu_seconds: float
    peak_mebibytes: float
    delay_bucket_seconds: Delays
    decision_bucket_milliseconds: Delays


@dataclass(frozen=True, slots=True)
class Round:
    """One side placing all pods once. ``pods_per_second`` is from the first request to the last binding;
    ``arrivals_per_second`` what was asked for, 0 for all at once. Loads are one-minute averages."""

    nodes: int
    pods: int
    side: Side
    arrivals_per_second: float
    seconds_to_create: float
    pods_per_second: float
    created_to_patched_milliseconds: Delays | None
    created_to_bound_milliseconds: Delays
    operator: OperatorFigures | None
    cpu_seconds: dict[str, float]
    api_server_mebibytes: float
    others_cores: float
    load_before: float
    load_after: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure; ``operator_arguments`` are added to the operator's command line."""

    nodes: int
    pods: int
    rounds: int = 1
    arrivals_per_second: float = 0.0
    timeout_seconds: float = 600.0
    cprofile: Path | None = None
    operator_arguments: tuple[str, ...] = ()


QUICK = (Plan(100, 300), Plan(100, 200, arrivals_per_second=20))
FULL = (
    Plan(1000, 1000, rounds=2),
    Plan(1000, 400, arrivals_per_second=20),
    Plan(5000, 2000, rounds=2),
    Plan(5000, 400, arrivals_per_second=20),
)


def measure(plans: Sequence[Plan], cluster: str, keep: bool, write: Callable[[str], object]) -> list[Round]:
    """Run the plans on the cluster of this name, which grows, and write each round as it ends."""
    found: list[Round] = []
    with placement_stage.alone(cluster):
        write(HEADER)
        try:
            for plan in plans:
                stage = placement_stage.bring_up(cluster, plan.nodes)
                for number, side in enumerate(_order(plan.rounds)):
                    found.append(_round(stage, plan, side, number, write))
        finally:
            if not keep:
                simulated.down(cluster)
    return found


def _order(rounds: int) -> list[Side]:
    """A B, B A, A B ...: neither side is always the first on a machine that warms up or fills."""
    pair = [Side.SCHEDULER, Side.TAILWISE]
    return [side for number in range(rounds) for side in (pair if number % 2 == 0 else pair[::-1])]


# ---- one round


def _round(stage: Stage, plan: Plan, side: Side, number: int, write: Callable[[str], object]) -> Round:
    name = f"bench-{plan.nodes}-{plan.pods}-{side.value}-{number}-{int(time.time())}"
    with placement_stage.namespace(stage, name):
        if side is Side.SCHEDULER:
            found = _measured(stage, plan, name, (), None)
        else:
            placement_stage.await_gate(stage, name)
            workloads = placement_stage.make_workloads(stage, name)
            with placement_stage.operator(stage, plan.cprofile, plan.operator_arguments) as process:
                found = _measured(stage, plan, name, workloads, process)
        # Before the namespace goes: that may fail, and what was measured should not go with it.
        write(row(found))
    return found


def _measured(
    stage: Stage, plan: Plan, name: str, workloads: tuple[str, ...], operator: OperatorProcess | None
) -> Round:
    side = Side.SCHEDULER if operator is None else Side.TAILWISE
    what = f"{plan.nodes} nodes, {side}"
    _warm_up(stage, name, workloads, plan.timeout_seconds)
    names = [f"pod-{number:05d}" for number in range(plan.pods)]
    with watching(stage.cluster.plane, name, len(names)) as watch:
        taking_part = _taking_part(stage, operator, watch)
        load, before = machine.load(), machine.reading(taking_part)
        began, created = asyncio.run(_create_all(stage, name, names, workloads, plan.arrivals_per_second))
        seen = watch.wait(plan.timeout_seconds, what)
        used = machine.usage(before, machine.reading(taking_part))
    return Round(
        nodes=plan.nodes,
        pods=plan.pods,
        side=side,
        arrivals_per_second=plan.arrivals_per_second,
        seconds_to_create=created - began,
        pods_per_second=len(seen) / (max(_bound(pod) for pod in seen.values()) - began),
        created_to_patched_milliseconds=None if operator is None else _delays(seen, _ungated),
        created_to_bound_milliseconds=_delays(seen, _bound),
        operator=None if operator is None else _operator_figures(operator, used.cpu_seconds["operator"]),
        cpu_seconds=used.cpu_seconds,
        api_server_mebibytes=machine.resident_mebibytes(stage.parts["kube-apiserver"]),
        others_cores=used.others_cores,
        load_before=load,
        load_after=machine.load(),
    )


def _warm_up(stage: Stage, name: str, workloads: tuple[str, ...], timeout_seconds: float) -> None:
    """One pod for each workload, and as many without: connections, tables and caches are there afterwards."""
    names = [f"warm-up-{number}" for number in range(len(workloads) or len(placement_stage.MODELS))]
    with watching(stage.cluster.plane, name, len(names)) as watch:
        asyncio.run(_create_all(stage, name, names, workloads, 0.0))
        watch.wait(timeout_seconds, "warming up")


def _taking_part(stage: Stage, operator: OperatorProcess | None, watch: PodWatch) -> list[tuple[str, int]]:
    own = {"creating pods": os.getpid(), "watching pods": watch.pid}
    return [*stage.parts.items(), *own.items(), *([("operator", operator.pid)] if operator else ())]


async def _create_all(
    stage: Stage, namespace: str, names: Sequence[str], workloads: tuple[str, ...], arrivals_per_second: float
) -> tuple[float, float]:
    """Create the pods, the workloads in turn; returns when the first was asked for and the last was there."""
    client = await connect(kubeconfig=str(stage.cluster.kubeconfig), connections=_IN_FLIGHT)
    slots = asyncio.Semaphore(_IN_FLIGHT)
    # One answer first: what opening the connection takes is no part of the figures.
    await client.request("GET", "/version")
    began = time.monotonic()

    async def one(number: int) -> None:
        if arrivals_per_second:
            await asyncio.sleep(began + number / arrivals_per_second - time.monotonic())
        workload = workloads[number % len(workloads)] if workloads else None
        async with slots:
            await placement_stage.create(client, placement_stage.pod(namespace, names[number], workload))

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(len(names)):
                group.create_task(one(number))
        return began, time.monotonic()
    finally:
        await client.close()


# ---- figures


def _ungated(pod: Seen) -> float:
    assert pod.ungated is not None  # noqa: S101 - the watch ends when all pods have a node
    return pod.ungated


def _bound(pod: Seen) -> float:
    assert pod.bound is not None  # noqa: S101 - as above
    return pod.bound


def _delays(seen: dict[str, Seen], until: Callable[[Seen], float]) -> Delays:
    milliseconds = [(until(pod) - pod.created) * 1000 for pod in seen.values()]
    p50, p99 = np.percentile(milliseconds, [50, 99], method="inverted_cdf")
    return Delays(float(p50), float(p99))


def _operator_figures(operator: OperatorProcess, cpu_seconds: float) -> OperatorFigures:
    text = operator.metrics()

    def buckets(name: str, factor: float) -> Delays:
        counts = placement_stage.histogram(text, name)
        return Delays(*(placement_stage.bucket_bound(counts, share) * factor for share in (0.5, 0.99)))

    return OperatorFigures(
        cpu_seconds=cpu_seconds,
        peak_mebibytes=machine.peak_mebibytes(operator.pid),
        delay_bucket_seconds=buckets(_DELAY_METRIC, 1),
        decision_bucket_milliseconds=buckets(_DECISION_METRIC, 1000),
    )


HEADER = (
    "                                                  | created to patched | created to bound   |"
    " operator      | CPU s of         | others | load\n"
    " nodes  pods arrivals side            created pods/s |  p50 ms    p99 ms  |  p50 ms    p99 ms  |"
    "  CPU s    MiB | API srv  schedul. |  cores | before after"
)


def row(found: Round) -> str:
    """A line under HEADER."""
    arrivals = f"{found.arrivals_per_second:g}/s" if found.arrivals_per_second else "at once"
    operator = found.operator
    used = f"{operator.cpu_seconds:7.1f} {operator.peak_mebibytes:6.0f}" if operator else f"{'-':>7} {'-':>6}"
    spent = found.cpu_seconds
    return (
        f"{found.nodes:6d} {found.pods:5d} {arrivals:>8} {found.side:<15} {found.seconds_to_create:5.1f} s "
        f"{found.pods_per_second:6.1f} | {_shown(found.created_to_patched_milliseconds)} | "
        f"{_shown(found.created_to_bound_milliseconds)} | {used} | {spent['kube-apiserver']:7.1f} "
        f"{spent['kube-scheduler']:8.1f}  | {found.others_cores:6.2f} | "
        f"{found.load_before:5.1f} {found.load_after:5.1f}"
    )


def _shown(delays: Delays | None) -> str:
    return f"{delays.p50:8.0f} {delays.p99:9.0f}" if delays else f"{'-':>8} {'-':>9}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench placement``."""
    parser.add_argument("--nodes", type=int, help="one plan of one's own instead of the set's plans")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each side")
    parser.add_argument(
        "--pods-per-second", type=float, default=0.0, metavar="RATE", help="arrivals; default: all at once"
    )
    parser.add_argument("--cluster", default="bench", metavar="NAME", help="whose nodes become the plan's")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up for the next run")
    parser.add_argument("--cprofile", type=Path, metavar="FILE", help="profile the operator, which slows it")
    parser.add_argument(
        "--operator-argument", action="append", default=[], metavar="ARGUMENT", help="repeatable"
    )


def plans(options: argparse.Namespace) -> tuple[Plan, ...]:
    """The plans that the options ask for."""
    if options.nodes is None:
        return FULL if options.full else QUICK
    return (
        Plan(
            options.nodes,
            options.pods,
            options.rounds,
            options.pods_per_second,
            cprofile=options.cprofile,
            operator_arguments=tuple(options.operator_argument),
        ),
    )
