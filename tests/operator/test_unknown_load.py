"""Without Prometheus a burst of pods still sees itself: load that is coming counts on unmeasured nodes."""

from datetime import UTC, datetime

import numpy as np
from kubernetes_asyncio.client import ApiClient, Configuration

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.profile import FlopsByKind, ModelProfile, WorkTerms
from tailwise.cluster.client import Client
from tailwise.cluster.hardware import config_map
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.registry import Registry
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import cluster_view
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.prediction.predictor import PriorPredictor
from tests.operator.stage import NodeShape, gated_pod, node_manifest, node_status

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
    client = Client(ApiClient(Configuration()))
    view = cluster_view(client, "agents", Registry())
    for number, shape in enumerate(shapes):
        view.state.put_node(node_from_object({**node_manifest(shape), **node_status(shape)}))
        described = config_map(shape.hardware, "agents")
        described["metadata"] |= {"uid": f"u{number}", "resourceVersion": "1"}
        view.hardware._put(described)
    assessor = Assessor(view, PriorPredictor())
    counts = {shape.name: 0 for shape in shapes}
    now = datetime.now(UTC)
    for number in range(pods):
        manifest = gated_pod("default", f"p{number}", "w")
        manifest["metadata"] |= {"uid": f"p{number}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        pod = pod_from_object(manifest)
        await assessor.prepare(MODEL, serving_of(pod, SPEC))
        assessment = assessor.assess(pod, SPEC, MODEL, now)
        node = assessment.decision.node
        assert node is not None
        assert np.isnan(assessment.utilisation).all()
        assert assessment.decision.best is not None
        assert assessment.decision.best.source.value == "Stale"
        assessor.assume(pod, node, (SPEC, MODEL), now)
        counts[node] += 1
    await client.close()
    return counts


async def test_twelve_pods_at_once_on_four_equal_nodes_spread_three_to_each() -> None:
    shapes = [NodeShape(f"n{number}") for number in range(4)]
    assert await placed(shapes, 12) == {shape.name: 3 for shape in shapes}


async def test_a_burst_does_not_herd_onto_the_fastest_node() -> None:
    shapes = [NodeShape("fast", gflops_per_core=60.0), NodeShape("slow", gflops_per_core=50.0)]
    counts = await placed(shapes, 12)
    assert counts["fast"] >= counts["slow"] >= 4
