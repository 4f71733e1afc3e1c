"""A run as its files would hold it, with figures that are easily checked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from tailwise.api.hardware import CpuQuota, MeasuredSpeed, NodeHardware
from tailwise.benchmark.records import PodRecord, RunRecord, StepRecord, percentiles
from tailwise.benchmark.scenario import Policy, PolicyKind, Scenario, Workload

POLICIES = (
    Policy(name="default", kind=PolicyKind.DEFAULT),
    Policy(name="round-robin", kind=PolicyKind.ROUND_ROBIN),
    Policy(name="again", kind=PolicyKind.SAME, same_as="round-robin"),
    Policy(name="tailwise", kind=PolicyKind.TAILWISE),
    Policy(name="oracle", kind=PolicyKind.ORACLE),
)


def workload(name: str = "resnet50", replicas: int = 2, slo_milliseconds: int = 100) -> Workload:
    return Workload(
        name=name, family="f", model="m.onnx", replicas=replicas, slo_milliseconds=slo_milliseconds
    )


def scenario(*workloads: Workload, rounds: int = 1) -> Scenario:
    return Scenario(
        description="A scenario.", workloads=workloads or (workload(),), policies=POLICIES, rounds=rounds
    )


def pod(
    slot: str, node: str, p90: float, *, predicted: float | None = None, workload: str = "resnet50"
) -> PodRecord:
    """A pod each of whose queries took ``p90`` milliseconds."""
    return PodRecord(
        slot=slot,
        workload=workload,
        node=node,
        slo_milliseconds=100,
        placement_seconds=0.5,
        predicted_p90_milliseconds=predicted,
        queries=100,
        valid=True,
        begin=1000.0,
        end=1010.0,
        percentiles_milliseconds=percentiles([p90] * 100),
        slow_queries=100 if p90 > 100 else 0,
    )


def unmeasured(slot: str, node: str) -> PodRecord:
    return PodRecord(slot=slot, workload="resnet50", node=node, slo_milliseconds=100, error="it was away")


def step(policy: str, *pods: PodRecord, number: int = 1, begin: float = 0.0) -> StepRecord:
    kind = next(each.kind for each in POLICIES if each.name == policy)
    return StepRecord(
        round=number, policy=policy, kind=kind, begin=begin, end=begin + 10, measured_seconds=10, pods=pods
    )


def run(of: Scenario | None = None, cores: Mapping[str, float] | None = None) -> RunRecord:
    of = of or scenario()
    return RunRecord(
        scenario=of,
        digest=of.digest,
        release="0",
        began=0.0,
        context="",
        hardware=tuple(hardware(node, count) for node, count in (cores or {}).items()),
    )


def hardware(node: str, cores: float) -> NodeHardware:
    return NodeHardware(
        node=node,
        cores=1,
        cpu_quotas=(CpuQuota(quota_microseconds=round(10_000 * cores), period_microseconds=10_000),),
        measured=MeasuredSpeed(gflops_per_core=100, copy_gigabytes_per_second_per_core=10),
        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
