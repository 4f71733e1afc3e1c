"""The prior's measured numbers, with where they come from; ``bench/prior/fit.py`` writes the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from tailwise.api.hardware import MeasuredSpeed


class Scale(StrEnum):
    """Which measured speed of a node a term's cost goes with."""

    COMPUTE = "Compute"
    MEMORY = "Memory"
    OVERHEAD = "Overhead"


@dataclass(frozen=True, slots=True)
class TermCost:
    """What one unit of a term costs on one core of the reference node."""

    nanoseconds_per_unit: float
    scale: Scale


@dataclass(frozen=True, slots=True)
class Reference:
    """Speeds the agent's probe measured on the node where the coefficients were fitted."""

    runtime_gflops_per_core: float
    copy_gigabytes_per_second_per_core: float
    operator_overhead_nanoseconds: float

    def slowdown(self, measured: MeasuredSpeed) -> Mapping[Scale, float]:
        """How many times longer each kind of cost takes on a node with these speeds."""
        gflops = measured.runtime_gflops_per_core or measured.gflops_per_core
        compute = self.runtime_gflops_per_core / gflops
        overhead = measured.operator_overhead_nanoseconds
        return {
            Scale.COMPUTE: compute,
            Scale.MEMORY: self.copy_gigabytes_per_second_per_core
            / measured.copy_gigabytes_per_second_per_core,
            # An agent that could not run the runtime leaves the overhead out: the clock is the best guess.
            Scale.OVERHEAD: compute if overhead is None else overhead / self.operator_overhead_nanoseconds,
        }


@dataclass(frozen=True, slots=True)
class ThreadCosts:
    """How the work shares out over threads: parallel shares, and what each operator pays to fork and join."""

    compute_parallel_share: float
    memory_parallel_share: float
    synchronisation_nanoseconds_per_operator: float


@dataclass(frozen=True, slots=True)
class ErrorQuantiles:
    """What the bound allows for: one-sided 90 % quantiles of measured over predicted.

    ``cpu_time_factor`` is for the CPU time of models whose family was left out of the fit, ``run_factor`` for
    the P90 of one run against that of many.
    """

    cpu_time_factor: float
    run_factor: float
    unknown_load_utilisation: float
    unknown_load_factor: float


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Everything that was measured for the prior."""

    provenance: str
    reference: Reference
    terms: Mapping[str, TermCost]
    threads: ThreadCosts
    query_sigma: float
    errors: ErrorQuantiles


@cache
def coefficients() -> Coefficients:
    """The coefficients that ship with this version."""
    text = resources.files(__package__).joinpath("coefficients.json").read_text(encoding="utf-8")
    return parse(json.loads(text))


def parse(document: Mapping[str, Any]) -> Coefficients:
    """Read the coefficients' document."""
    reference, threads, errors = document["reference"], document["threads"], document["errors"]
    return Coefficients(
        provenance=document["provenance"],
        reference=Reference(
            runtime_gflops_per_core=reference["runtimeGflopsPerCore"],
            copy_gigabytes_per_second_per_core=reference["copyGigabytesPerSecondPerCore"],
            operator_overhead_nanoseconds=reference["operatorOverheadNanoseconds"],
        ),
        terms={
            name: TermCost(cost["nanosecondsPerUnit"], Scale(cost["scale"]))
            for name, cost in document["terms"].items()
        },
        threads=ThreadCosts(
            compute_parallel_share=threads["computeParallelShare"],
            memory_parallel_share=threads["memoryParallelShare"],
            synchronisation_nanoseconds_per_operator=threads["synchronisationNanosecondsPerOperator"],
        ),
        query_sigma=document["noise"]["querySigma"],
        errors=ErrorQuantiles(
            cpu_time_factor=errors["cpuTimeFactor"],
            run_factor=errors["runFactor"],
            unknown_load_utilisation=errors["unknownLoadUtilisation"],
            unknown_load_factor=errors["unknownLoadFactor"],
        ),
    )
