"""A cluster in memory as a command would have read it, and the command's answer about it."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from tailwise.cli.cluster_now import ClusterNow
from tailwise.cli.main import parser_of
from tailwise.cli.what_if import what_if
from tailwise.cluster.reflector import Key
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.registry import workload_from_object
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation
from tests.operator.stage import NodeShape, memory_view, pod_spec, workload

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
W = Key("default", "w")
# Half a second of one core; its figures are given by hand, so that no model is read.
PROFILE = {"flops": 2_000_000_000, "parameterBytes": 100_000_000}


def a_workload(**spec: Any) -> dict[str, Any]:
    """``default/w``, of one pod with a CPU limit of 1; ``spec`` replaces whole members of its spec."""
    template = pod_spec(cpu="500m", limit="1")
    made = workload(
        "default", "w", "https://models.example/m.onnx", replicas=1, spec=template, profile=PROFILE
    )
    made["metadata"] |= {"uid": "w", "generation": 1}
    made["spec"] |= spec
    return made


@asynccontextmanager
async def cluster_of(
    shapes: Iterable[NodeShape], *workloads: dict[str, Any], utilisation: Mapping[str, float] | None = None
) -> AsyncIterator[ClusterNow]:
    """Nodes of these shapes and these workloads; ``utilisation`` by node as a fraction, sampled now."""
    async with memory_view(shapes) as view:
        for each in workloads or (a_workload(),):
            known = workload_from_object(each)
            view.registry.workloads[known.key] = known
        assessor = Assessor(view, PriorPredictor())
        if utilisation is not None:
            readings = {node: NodeUtilisation(Reading(value, NOW)) for node, value in utilisation.items()}
            assessor.sampled(Utilisation(CpuUnit.FRACTION, 60.0, readings))
        yield ClusterNow(view, assessor, NOW)


def arguments_of(command: str, *words: str) -> argparse.Namespace:
    """A command's arguments, for the workload ``w`` of the namespace ``default``."""
    parser = parser_of(command)
    assert parser is not None
    return parser.parse_args(["w", "--namespace", "default", *words])


async def asked_what_if(cluster: ClusterNow, *words: str) -> dict[str, Any]:
    """The answer of ``tailwise what-if w WORD...``."""
    return await what_if(cluster, W, arguments_of("what-if", *words))
