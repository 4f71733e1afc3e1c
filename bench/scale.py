"""The operator in a large cluster: cold start, memory, idling, thousands of workloads at once, fail-over.

    python -m bench scale [--nodes 5000] [--workloads 10000] [--burst 15000] [--idle-seconds 60]
                          [--failovers 3] [--keep]

Nodes are simulated, the API server and the operator's processes are real. Workloads have their figures given,
so that no model is read. Settled means that each workload's status says what is known of its latest version.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import machine, placement_stage
from bench.placement_stage import MODELS, Maker, OperatorProcess, Stage
from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS, connect
from tests.cluster import api, simulated

_IN_FLIGHT = 16
_PAGE = 500
_SETTLE_SECONDS = 1800.0
_PLACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. ``cold_start_seconds`` is from the process' start to the patch that places a pod that
    waited; ``settled_seconds`` from then until all statuses are written. ``burst_*`` are of workloads created
    at once in a running operator: from the first request to the last, and to the last status."""

    nodes: int
    workloads: int
    leading_seconds: float
    cold_start_seconds: float
    settled_seconds: float
    resident_mebibytes: float
    peak_mebibytes: float
    idle_seconds: float
    idle_cores: float
    burst: int = 0
    burst_created_seconds: float = 0.0
    burst_settled_seconds: float = 0.0
    burst_cpu_seconds: dict[str, float] | None = None
    burst_resident_mebibytes: float = 0.0
    burst_peak_mebibytes: float = 0.0
    failover_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to measure."""

    nodes: int
    workloads: int
    burst: int
    idle_seconds: float
    failovers: int


QUICK = Sizes(nodes=200, workloads=300, burst=500, idle_seconds=20, failovers=1)
FULL = Sizes(nodes=5000, workloads=10_000, burst=15_000, idle_seconds=60, failovers=3)


def measure(sizes: Sizes, cluster: str, keep: bool, write: Callable[[str], object]) -> Figures:
    """Measure on the cluster of this name, whose nodes become these."""
    with placement_stage.alone(cluster):
        try:
            stage = placement_stage.bring_up(cluster, sizes.nodes)
            with _populated(stage, "standing", sizes.workloads) as standing:
                figures = _alone(stage, standing, sizes, write)
                if sizes.failovers:
                    seconds = tuple(_failovers(stage, standing, sizes.failovers, write))
                    figures = replace(figures, failover_seconds=seconds)
                return figures
        finally:
            if not keep:
                simulated.down(cluster)


def _alone(stage: Stage, standing: str, sizes: Sizes, write: Callable[[str], object]) -> Figures:
    """One process: its start, its rest, and the burst."""
    maker = _maker(stage, standing)
    _create_pod(stage, standing, "first", maker)
    began = time.monotonic()
    with placement_stage.replica(stage, "operator", ("--no-leader-elect",)) as process:
        placement_stage.await_leader(process)
        leading = time.monotonic() - began
        placed = _await_placed(stage, standing, "first") - began
        write(f"leading after {leading:.1f} s, a pod that waited placed after {placed:.1f} s")
        settled = _await_settled(stage, process, standing, sizes.workloads) - began
        before = machine.reading([("operator", process.pid)])
        time.sleep(sizes.idle_seconds)
        used = machine.usage(before, machine.reading([("operator", process.pid)]))
        figures = Figures(
            nodes=sizes.nodes,
            workloads=sizes.workloads,
            leading_seconds=leading,
            cold_start_seconds=placed,
            settled_seconds=settled,
            resident_mebibytes=machine.resident_mebibytes(process.pid),
            peak_mebibytes=machine.peak_mebibytes(process.pid),
            idle_seconds=used.seconds,
            idle_cores=used.cpu_seconds["operator"] / used.seconds,
        )
        write(
            f"{sizes.workloads} workloads on {sizes.nodes} nodes: settled after {settled:.0f} s, "
            f"{figures.resident_mebibytes:.0f} MiB resident ({figures.peak_mebibytes:.0f} at most), idle "
            f"{figures.idle_cores * 100:.1f} % of a core"
        )
        if sizes.burst:
            figures = _with_burst(stage, process, figures, sizes.burst)
            write(
                f"{sizes.burst} more at once: created in {figures.burst_created_seconds:.0f} s, settled in "
                f"{figures.burst_settled_seconds:.0f} s, {figures.burst_resident_mebibytes:.0f} MiB"
            )
    return figures


def _with_burst(stage: Stage, process: OperatorProcess, figures: Figures, burst: int) -> Figures:
    parts = [*stage.parts.items(), ("operator", process.pid)]
    machine.forget_peak(process.pid)
    before, began = machine.reading(parts), time.monotonic()
    with _populated(stage, "burst", burst) as namespace:
        created = time.monotonic() - began
        settled = _await_settled(stage, process, namespace, burst) - began
        used = machine.usage(before, machine.reading(parts))
        return replace(
            figures,
            burst=burst,
            burst_created_seconds=created,
            burst_settled_seconds=settled,
            burst_cpu_seconds=used.cpu_seconds,
            burst_resident_mebibytes=machine.resident_mebibytes(process.pid),
            burst_peak_mebibytes=machine.peak_mebibytes(process.pid),
        )


def _failovers(stage: Stage, standing: str, count: int, write: Callable[[str], object]) -> Iterator[float]:
    """Seconds from the leader's death (SIGKILL) to the placement of a pod that was created right after."""
    maker = _maker(stage, standing)
    with ExitStack() as replicas:
        leader = replicas.enter_context(placement_stage.replica(stage, "operator-0"))
        placement_stage.await_leader(leader)
        for number in range(count):
            standby = replicas.enter_context(placement_stage.replica(stage, f"operator-{number + 1}"))
            _await_standby(standby)
            os.kill(leader.pid, signal.SIGKILL)
            died = time.monotonic()
            name = f"orphan-{number}"
            _create_pod(stage, standing, name, maker)
            seconds = _await_placed(stage, standing, name) - died
            write(f"fail-over {number + 1}: a pod created after the leader's death placed in {seconds:.1f} s")
            yield seconds
            leader = standby


def _await_standby(process: OperatorProcess) -> None:
    """Return once a replica answers and has its copy of the cluster."""

    def there() -> bool:
        try:
            return "tailwise_leader" in process.metrics()
        except OSError:
            return False

    placement_stage.until(there, _PLACE_SECONDS, "the standby")
    # It lists nodes and pods before it stands for leader, and serves nothing of that: as long as it is busy.
    used = machine.cpu_seconds(process.pid)

    def quiet() -> bool:
        nonlocal used
        time.sleep(1.0)
        before, used = used, machine.cpu_seconds(process.pid)
        return used - before < 0.2

    placement_stage.until(quiet, 4 * _PLACE_SECONDS, "the standby's copy of the cluster")


# ---- workloads and pods


@contextmanager
def _populated(stage: Stage, name: str, workloads: int) -> Iterator[str]:
    """A namespace of so many workloads, at the end of the block gone."""
    namespace = f"bench-{name}-{int(time.time())}"
    with placement_stage.namespace(stage, namespace):
        asyncio.run(_create_workloads(stage, namespace, workloads))
        yield namespace


async def _create_workloads(stage: Stage, namespace: str, workloads: int) -> None:
    client = await connect(kubeconfig=str(stage.cluster.kubeconfig), connections=_IN_FLIGHT)
    numbers = iter(range(workloads))
    made, shown = 0, time.monotonic()

    async def work() -> None:
        nonlocal made, shown
        for number in numbers:
            manifest = _workload(namespace, number)
            written = await apply.create(client, INFERENCE_WORKLOADS, manifest, read_answer=False)
            if not written.done:
                raise RuntimeError(f"InferenceWorkload {_name(number)} was not created: {written.message}")
            made += 1
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                print(f"  {made} of {workloads} workloads created", flush=True)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_IN_FLIGHT):
                group.create_task(work())
    finally:
        await client.close()


def _workload(namespace: str, number: int) -> dict[str, Any]:
    return placement_stage.workload_manifest(namespace, _name(number), MODELS[number % len(MODELS)])


def _name(number: int) -> str:
    return f"w-{number:05d}"


def _maker(stage: Stage, namespace: str) -> Maker:
    return Maker(placement_stage.replica_set(stage, namespace, "standing"), _name(0))


def _create_pod(stage: Stage, namespace: str, name: str, maker: Maker) -> None:
    placement_stage.await_gate(stage, namespace)
    path = f"/api/v1/namespaces/{namespace}/pods"
    stage.client.request("POST", path, placement_stage.pod(namespace, name, maker))


def _await_placed(stage: Stage, namespace: str, name: str) -> float:
    """When a pod's gate was seen open (time.monotonic)."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"

    def placed() -> bool:
        return not stage.client.request("GET", path)["spec"].get("schedulingGates")

    placement_stage.until(placed, 5 * _PLACE_SECONDS, f"{name}: placement", interval_seconds=0.05)
    return time.monotonic()


def _await_settled(stage: Stage, process: OperatorProcess, namespace: str, workloads: int) -> float:
    """When all statuses of a namespace were written (time.monotonic); the list is long, so it is taken only
    while the operator's queue is empty."""

    def settled() -> bool:
        return not process.queued("inferenceworkloads") and _observed(stage.client, namespace) >= workloads

    placement_stage.until(settled, _SETTLE_SECONDS, f"{workloads} statuses", interval_seconds=1.0)
    return time.monotonic()


def _observed(client: api.Api, namespace: str) -> int:
    path = f"{INFERENCE_WORKLOADS.path(namespace)}?limit={_PAGE}"
    found, token = 0, ""
    while True:
        page = client.request("GET", path + (f"&continue={token}" if token else ""))
        for item in page["items"]:
            found += item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
        token = page["metadata"].get("continue", "")
        if not token:
            return found


# ---- options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench scale``; what is not given is the set's."""
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--workloads", type=int, help="that stand before the operator starts")
    parser.add_argument("--burst", type=int, help="created at once while it runs; 0: none")
    parser.add_argument("--idle-seconds", type=float)
    parser.add_argument("--failovers", type=int, help="deaths of a leader; 0: none")
    parser.add_argument("--report", type=Path, metavar="PAGE", help="put the figures into this page's JSON")
    parser.add_argument("--cluster", default="bench", metavar="NAME", help="whose nodes become these")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up for the next run")


def sizes(options: argparse.Namespace) -> Sizes:
    """The sizes that the options ask for."""
    known = FULL if options.full else QUICK
    given = {name: getattr(options, name) for name in Sizes.__slots__}
    return replace(known, **{name: value for name, value in given.items() if value is not None})
