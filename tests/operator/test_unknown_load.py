"""Without Prometheus a burst of pods still sees itself: load that is coming counts on unmeasured nodes."""

from datetime import UTC, datetime

import numpy as np

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.serving import serving_of
from tailwise.prediction.predictor import PriorPredictor
from tests.operator.stage import NodeShape, memory_pod, memory_view

MODEL = ModelProfile(
    flops=10**9,
    flops_by_kind=FlopsByKind(),
    parameters=1,
    parameter_bytes=4,
    work=WorkTerms(dense_flops=10**9),
)
SPEC = InferenceWorkloadSpec.model_validate(
    {"model": {"url": "https://models.example/m.onnx"}, "slo": {"latencyMilliseconds": 60_000}}
)


async def placed(shapes: list[NodeShape], pods: int) -> dict[str, int]:
    """Pods on each node after so many were placed at once, with no utilisation known; nothing is sent."""
    async with memory_view(shapes) as view:
        assessor = Assessor(view, PriorPredictor())
        counts = {shape.name: 0 for shape in shapes}
        now = datetime.now(UTC)
        for number in range(pods):
            pod = memory_pod(f"p{number}", "w")
            await assessor.prepare(MODEL, serving_of(pod, SPEC))
            assessment = assessor.assess(pod, SPEC, MODEL, now)
            node = assessment.decision.node
            assert node is not None
            assert np.isnan(assessment.utilisation).all()
            assert assessment.decision.best is not None
            assert assessment.decision.best.source.value == "Stale"
            assessor.assume(pod, node, (SPEC, MODEL), now)
            counts[node] += 1
    return counts


async def test_twelve_pods_at_once_on_four_equal_nodes_spread_three_to_each() -> None:
    shapes = [NodeShape(f"n{number}") for number in range(4)]
    assert await placed(shapes, 12) == {shape.name: 3 for shape in shapes}


async def test_a_burst_does_not_herd_onto_the_fastest_node() -> None:
    shapes = [NodeShape("fast", gflops_per_core=60.0), NodeShape("slow", gflops_per_core=50.0)]
    counts = await placed(shapes, 12)
    assert counts["fast"] >= counts["slow"] >= 4
