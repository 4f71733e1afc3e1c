"""The question a predictor is asked and the answer it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.profile import ModelProfile

BOUND_PERCENTILE = 90
"""The percentile that the paper is about, that versions learn, and that bounds are calibrated for."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served: what its pod may use and what is asked of it.

    ``cpu_limit_millicores`` is None where the pod has no limit; ``requests_per_second`` None means a closed
    loop of ``concurrency`` clients. ``overhead_milliseconds`` is the CPU time of a query that the server
    spends beside the model, on a core of the reference node. ``bound_percentile`` is the percentile of
    queries that the bound is asked for, 50 to 99: the P90 unless a workload's SLO says otherwise.
    """

    cpu_limit_millicores: int | None
    threads: int = 1
    batch_size: int = 1
    concurrency: int = 1
    requests_per_second: float | None = None
    cpu_request_millicores: int = 0
    overhead_milliseconds: float = 0.0
    bound_percentile: int = BOUND_PERCENTILE


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """Utilisation of a node: fractions in [0, 1]; None where nothing is known, never 0 for unknown.

    ``cpu`` is U_C of equation (6), relative to ``NodeHardware.capacity_cores``; ``frequency`` is U_F of
    equation (7).
    """

    cpu: float | None
    frequency: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latency of one query in milliseconds.

    ``bound_milliseconds`` is one-sided, for ``Serving.bound_percentile``.
    """

    p50_milliseconds: float
    p90_milliseconds: float
    bound_milliseconds: float
    source: PredictionSource
    terms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Question:
    """One prediction that is wanted: this model, served so, on this node under this load."""

    profile: ModelProfile
    serving: Serving
    hardware: NodeHardware
    load: NodeLoad
