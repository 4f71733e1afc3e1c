"""Profiles, nodes and ways of serving with defaults, for tests of prediction."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tailwise.api.hardware import CpuQuota, MeasuredSpeed, NodeHardware
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.prediction.coefficients import coefficients

REFERENCE = coefficients().reference


def profile(**work: int) -> ModelProfile:
    """A model with this work; a gigaFLOP of dense convolution when nothing is said."""
    terms = WorkTerms(**(work or {"dense_flops": 10**9}))
    return ModelProfile(
        flops=terms.dense_flops, flops_by_kind=FlopsByKind(), parameters=1, parameter_bytes=4, work=terms
    )


def profile_of(cpu_milliseconds: float) -> ModelProfile:
    """A model that costs this much CPU time on one core of the reference node."""
    cost = coefficients().terms["dense_flops"].nanoseconds_per_unit
    return profile(dense_flops=round(cpu_milliseconds * 1e6 / cost))


def node(cores: int = 4, quotas: tuple[tuple[int, int], ...] = (), **fields: Any) -> NodeHardware:
    """A node as fast as the reference; quotas as (microseconds, period in microseconds)."""
    speeds = {
        "gflops_per_core": REFERENCE.runtime_gflops_per_core,
        "runtime_gflops_per_core": REFERENCE.runtime_gflops_per_core,
        "copy_gigabytes_per_second_per_core": REFERENCE.copy_gigabytes_per_second_per_core,
        "operator_overhead_nanoseconds": REFERENCE.operator_overhead_nanoseconds,
    }
    return NodeHardware(
        node="n1",
        cores=cores,
        cpu_quotas=tuple(CpuQuota(quota_microseconds=q, period_microseconds=p) for q, p in quotas),
        measured=MeasuredSpeed(**speeds | fields.pop("measured", {})),
        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
        **fields,
    )
