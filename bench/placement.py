"""How fast pods get their nodes: kube-scheduler alone against Tailwise before it, and instead of it.

    python -m bench placement [--nodes 1000] [--pods 1000] [--rounds 3] [--pods-per-second 20]
                              [--waiting 10000] [--churn] [--resume FILE] [--minutes 12] [--report FILE]

The sides place the same pods on the same simulated cluster in turn, so that what else the machine does meets
all. kube-scheduler: pods for it alone, no operator. tailwise: pods labelled for InferenceWorkloads, gated by
the chart's MutatingAdmissionPolicy, placed by the operator's process, then bound by kube-scheduler.
tailwise-binds: the same pods with ``schedulerName: tailwise``, bound by the operator. No side's client is
held back. Everything, the watch that takes the times included, shares this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine, placement_stage
from bench.placement_stage import Maker, OperatorProcess, Stage
from bench.pod_watch import PodWatch, Seen, watching
from tailwise.cluster import apply
from tailwise.cluster.client import PODS, connect
from tests.cluster import simulated

_IN_FLIGHT = 32
_SHARES = (50, 90, 99)
_CHURN_LIFETIME_SECONDS = 15.0


class Side(StrEnum):
    """Who decides where pods go."""

    SCHEDULER = "kube-scheduler"
    TAILWISE = "tailwise"
    TAILWISE_BINDS = "tailwise-binds"


@dataclass(frozen=True, slots=True)
class Delays:
    """Milliseconds over all pods, nearest rank."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. ``arrivals_per_second`` 0: all at once. ``waiting``: pods that are gated meanwhile.
    ``lifetime_seconds``: each pod is deleted so long after its creation; None: none is.
    ``operator_arguments`` are added to the operator's command line."""

    nodes: int
    pods: int
    rounds: int = 1
    sides: tuple[Side, ...] = (Side.SCHEDULER, Side.TAILWISE)
    arrivals_per_second: float = 0.0
    waiting: int = 0
    lifetime_seconds: float | None = None
    timeout_seconds: float = 600.0
    cprofile: Path | None = None
    operator_arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Round:
    """One side placing all pods once. ``pods_per_second`` is from the first request to the last binding;
    ``lost`` were deleted before they had a node; ``cpu_seconds`` and ``peak_mebibytes`` are by process, of
    this round alone. Loads are one-minute averages."""

    nodes: int
    pods: int
    side: Side
    number: int
    arrivals_per_second: float
    waiting: int
    lifetime_seconds: float | None
    seconds_to_create: float
    pods_per_second: float
    lost: int
    created_to_ungated_milliseconds: Delays | None
    created_to_bound_milliseconds: Delays
    cpu_seconds: dict[str, float]
    peak_mebibytes: dict[str, float]
    others_cores: float
    load_before: float
    load_after: float


_ALL = tuple(Side)
QUICK = (Plan(100, 300, sides=_ALL), Plan(100, 200, arrivals_per_second=20))


def _full(nodes: int) -> tuple[Plan, ...]:
    return (
        Plan(nodes, 5000, rounds=3, sides=_ALL),
        Plan(nodes, 400, arrivals_per_second=20),
        Plan(nodes, 2000, waiting=10_000),
        Plan(nodes, 30_000, arrivals_per_second=100, lifetime_seconds=_CHURN_LIFETIME_SECONDS),
    )


FULL = (*_full(1000), *_full(5000))


def measure(
    plans: Sequence[Plan],
    cluster: str,
    keep: bool,
    write: Callable[[str], object],
    *,
    resume: Path | None = None,
    minutes: float | None = None,
) -> list[dict[str, Any]]:
    """Run the plans' rounds on the cluster of this name, which grows, and write each as it ends.

    Rounds in the file ``resume`` are not run again, and each new one is added to it at once. No round begins
    after so many ``minutes``.
    """
    found: list[dict[str, Any]] = json.loads(resume.read_text()) if resume and resume.exists() else []
    known = {_identity(each) for each in found}
    wanted = [(plan, side, number) for plan in plans for side, number in order(plan.sides, plan.rounds)]
    wanted = [each for each in wanted if _identity(_marks(*each)) not in known]
    until = time.monotonic() + minutes * 60 if minutes else None
    with placement_stage.alone(cluster):
        write(HEADER)
        try:
            for done, (plan, side, number) in enumerate(wanted):
                if until is not None and time.monotonic() > until:
                    write(f"{len(wanted) - done} rounds are left: run this again to go on")
                    break
                print(f"round {done + 1} of {len(wanted)}: {plan.nodes} nodes, {side}", flush=True)
                stage = placement_stage.bring_up(cluster, plan.nodes)
                found.append(asdict(_round(stage, plan, side, number, write)))
                if resume is not None:
                    resume.parent.mkdir(parents=True, exist_ok=True)
                    resume.write_text(json.dumps(found, indent=1) + "\n")
        finally:
            if not keep:
                simulated.down(cluster)
    return found


def order(sides: Sequence[Side], rounds: int) -> Iterator[tuple[Side, int]]:
    """A B C, C B A, A B C ...: no side is always the first on a machine that warms up or fills."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            yield side, number


_MARKS = ("nodes", "pods", "side", "number", "arrivals_per_second", "waiting", "lifetime_seconds")


def _identity(found: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(found[mark] for mark in _MARKS)


def _marks(plan: Plan, side: Side, number: int) -> dict[str, Any]:
    return {**asdict(plan), "side": side, "number": number}


# ---- one round


def _round(stage: Stage, plan: Plan, side: Side, number: int, write: Callable[[str], object]) -> Round:
    name = f"bench-{plan.nodes}-{plan.pods}-{side.value}-{number}-{int(time.time())}"
    alone = side is Side.SCHEDULER
    with placement_stage.namespace(stage, name), _waiting(stage, name, plan, side):
        makers = placement_stage.make_makers(
            stage, name, workloads=not alone, binds=side is Side.TAILWISE_BINDS
        )
        if alone:
            found = _measured(stage, plan, (name, side, number), makers, None)
        else:
            placement_stage.await_gate(stage, name)
            with placement_stage.operator(stage, plan.cprofile, plan.operator_arguments) as process:
                if plan.waiting:
                    placement_stage.await_waiting(process, plan.waiting)
                found = _measured(stage, plan, (name, side, number), makers, process)
        # Before the namespace goes: that may fail, and what was measured should not go with it.
        write(row(found))
    return found


@contextmanager
def _waiting(stage: Stage, name: str, plan: Plan, side: Side) -> Iterator[None]:
    if not plan.waiting:
        yield
        return
    with placement_stage.namespace(stage, f"{name}-waiting") as elsewhere:
        ours = side is not Side.SCHEDULER
        if ours:
            placement_stage.await_gate(stage, elsewhere)
        placement_stage.make_waiting(stage, elsewhere, plan.waiting, gated_by_tailwise=ours)
        yield


def _measured(
    stage: Stage,
    plan: Plan,
    which: tuple[str, Side, int],
    makers: Sequence[Maker],
    operator: OperatorProcess | None,
) -> Round:
    name, side, number = which
    _warm_up(stage, name, makers, plan.timeout_seconds)
    names = [f"pod-{number:05d}" for number in range(plan.pods)]
    with watching(stage.cluster.plane, name, len(names)) as watch:
        taking_part = _taking_part(stage, operator, watch)
        for _, pid in taking_part:
            machine.forget_peak(pid)
        load, before = machine.load(), machine.reading(taking_part)
        began, created = asyncio.run(_create_all(stage, name, names, makers, plan))
        seen = watch.wait(plan.timeout_seconds, f"{plan.nodes} nodes, {side}")
        used = machine.usage(before, machine.reading(taking_part))
        peaks = {part: machine.peak_mebibytes(pid) for part, pid in taking_part}
    bound = [pod for pod in seen.values() if pod.bound is not None]
    return Round(
        nodes=plan.nodes,
        pods=plan.pods,
        side=side,
        number=number,
        arrivals_per_second=plan.arrivals_per_second,
        waiting=plan.waiting,
        lifetime_seconds=plan.lifetime_seconds,
        seconds_to_create=created - began,
        pods_per_second=len(bound) / (max(pod.bound or 0.0 for pod in bound) - began),
        lost=len(seen) - len(bound),
        created_to_ungated_milliseconds=_ungated(bound) if side is Side.TAILWISE else None,
        created_to_bound_milliseconds=_delays([(pod.bound or 0.0) - pod.created for pod in bound]),
        cpu_seconds=used.cpu_seconds,
        peak_mebibytes=peaks,
        others_cores=used.others_cores,
        load_before=load,
        load_after=machine.load(),
    )


def _warm_up(stage: Stage, name: str, makers: Sequence[Maker], timeout_seconds: float) -> None:
    """One pod for each maker: connections, tables and caches are there afterwards."""
    names = [f"warm-up-{number}" for number in range(len(makers))]
    with watching(stage.cluster.plane, name, len(names)) as watch:
        asyncio.run(_create_all(stage, name, names, makers, Plan(0, 0)))
        watch.wait(timeout_seconds, "warming up")


def _taking_part(stage: Stage, operator: OperatorProcess | None, watch: PodWatch) -> list[tuple[str, int]]:
    own = {"creating pods": os.getpid(), "watching pods": watch.pid}
    return [*stage.parts.items(), *own.items(), *([("operator", operator.pid)] if operator else ())]


async def _create_all(
    stage: Stage, namespace: str, names: Sequence[str], makers: Sequence[Maker], plan: Plan
) -> tuple[float, float]:
    """Create the pods, the makers in turn, and delete those that live but a while; returns when the first was
    asked for and the last was there."""
    client = await connect(kubeconfig=str(stage.cluster.kubeconfig), connections=_IN_FLIGHT)
    slots = asyncio.Semaphore(_IN_FLIGHT)
    # One answer first: what opening the connection takes is no part of the figures.
    await client.request("GET", "/version")
    began = time.monotonic()
    created = 0.0

    async def one(number: int) -> None:
        nonlocal created
        if plan.arrivals_per_second:
            await asyncio.sleep(began + number / plan.arrivals_per_second - time.monotonic())
        manifest = placement_stage.pod(namespace, names[number], makers[number % len(makers)])
        async with slots:
            await placement_stage.create(client, manifest)
        created = time.monotonic()
        if plan.lifetime_seconds is not None:
            await asyncio.sleep(plan.lifetime_seconds)
            async with slots:
                await apply.delete(client, PODS, namespace, names[number])

    # Tasks by the thousand are made as they are due, not all at once.
    pending: set[asyncio.Task[None]] = set()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(len(names)):
                if plan.arrivals_per_second:
                    due = began + number / plan.arrivals_per_second
                    await asyncio.sleep(max(0.0, due - time.monotonic() - 0.1))
                task = group.create_task(one(number))
                pending.add(task)
                task.add_done_callback(pending.discard)
        return began, created
    finally:
        await client.close()


# ---- figures


def _ungated(pods: Sequence[Seen]) -> Delays:
    return _delays([pod.ungated - pod.created for pod in pods if pod.ungated is not None])


def _delays(seconds: Sequence[float]) -> Delays:
    milliseconds = np.array(seconds) * 1000
    return Delays(*(float(each) for each in np.percentile(milliseconds, _SHARES, method="inverted_cdf")))


HEADER = (
    "                                               | created to ungated        | created to bound          |"
    " CPU seconds                | MiB   | others | load\n"
    " nodes  pods load        side            pods/s |  p50 ms    p90     p99    |  p50 ms    p90     p99"
    "    |"
    " API srv  schedul. operator |  oper.|  cores | before after"
)


def load_word(found: Mapping[str, Any]) -> str:
    """The kind of load of a round in a word or two."""
    if found["lifetime_seconds"] is not None:
        return f"churn {found['arrivals_per_second']:g}/s"
    if found["waiting"]:
        return f"{found['waiting']} wait"
    return f"{found['arrivals_per_second']:g}/s" if found["arrivals_per_second"] else "at once"


def row(found: Round) -> str:
    """A line under HEADER."""
    spent = found.cpu_seconds
    operator = f"{spent['operator']:8.1f}" if "operator" in spent else f"{'-':>8}"
    memory = f"{found.peak_mebibytes['operator']:5.0f}" if "operator" in spent else f"{'-':>5}"
    lost = f"; {found.lost} had no node when they were deleted" if found.lost else ""
    return (
        f"{found.nodes:6d} {found.pods:5d} {load_word(asdict(found)):<11} {found.side:<14} "
        f"{found.pods_per_second:7.1f} | {_shown(found.created_to_ungated_milliseconds)} | "
        f"{_shown(found.created_to_bound_milliseconds)} | {spent['kube-apiserver']:7.1f} "
        f"{spent['kube-scheduler']:9.1f} {operator} | {memory} | {found.others_cores:6.2f} | "
        f"{found.load_before:5.1f} {found.load_after:5.1f}{lost}"
    )


def _shown(delays: Delays | None) -> str:
    return (
        f"{delays.p50:7.0f} {delays.p90:8.0f} {delays.p99:8.0f}" if delays else f"{'-':>7} {'-':>8} {'-':>8}"
    )


# ---- options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench placement``."""
    parser.add_argument("--nodes", type=int, help="one plan of one's own instead of the set's plans")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each side")
    parser.add_argument(
        "--sides", nargs="+", type=Side, default=[Side.SCHEDULER, Side.TAILWISE], choices=list(Side)
    )
    parser.add_argument(
        "--pods-per-second", type=float, default=0.0, metavar="RATE", help="arrivals; default: all at once"
    )
    parser.add_argument("--waiting", type=int, default=0, metavar="PODS", help="so many are gated meanwhile")
    parser.add_argument(
        "--churn", action="store_true", help=f"each pod is deleted after {_CHURN_LIFETIME_SECONDS:.0f} s"
    )
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on with the rounds of this file")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no round after so long")
    parser.add_argument("--report", type=Path, metavar="PAGE", help="put the figures into this page's JSON")
    parser.add_argument("--cluster", default="bench", metavar="NAME", help="whose nodes become the plan's")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up for the next run")
    parser.add_argument("--cprofile", type=Path, metavar="FILE", help="profile the operator, which slows it")
    parser.add_argument(
        "--operator-argument", action="append", default=[], metavar="ARGUMENT", help="repeatable"
    )


def run(options: argparse.Namespace, write: Callable[[str], object]) -> list[dict[str, Any]]:
    """What the options ask for."""
    found = measure(
        plans(options),
        options.cluster,
        options.keep,
        write,
        resume=options.resume,
        minutes=options.minutes,
    )
    return found


def plans(options: argparse.Namespace) -> tuple[Plan, ...]:
    """The plans that the options ask for."""
    if options.nodes is None:
        return FULL if options.full else QUICK
    return (
        Plan(
            options.nodes,
            options.pods,
            options.rounds,
            tuple(options.sides),
            options.pods_per_second,
            options.waiting,
            _CHURN_LIFETIME_SECONDS if options.churn else None,
            cprofile=options.cprofile,
            operator_arguments=tuple(options.operator_argument),
        ),
    )
