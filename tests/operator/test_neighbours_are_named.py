"""A node where a newcomer would push a resident over its SLO is refused, and the answer says whose."""

from datetime import UTC, datetime

from kubernetes_asyncio.client import ApiClient, Configuration

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.cluster.client import Client
from tailwise.cluster.hardware import config_map
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.registry import Registry
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import cluster_view
from tailwise.domain.objects import Pod
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.scoring import Decision, DecisionOutcome
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation
from tests.operator.stage import NodeShape, gated_pod, node_manifest, node_status
from tests.operator.test_unknown_load import MODEL

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _spec(slo_milliseconds: int, neighbours: str = "Respect") -> InferenceWorkloadSpec:
    return InferenceWorkloadSpec.model_validate(
        {
            "model": {"url": "https://models.example/m.onnx"},
            "slo": {"latencyMilliseconds": slo_milliseconds},
            "load": {"concurrency": 4},
            "placement": {"neighbours": neighbours},
        }
    )


def _pod(name: str, workload: str) -> Pod:
    manifest = gated_pod("default", name, workload)
    manifest["metadata"] |= {"uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return pod_from_object(manifest)


async def _decided(resident_slo_factor: float, neighbours: str) -> Decision:
    """A second pod asks for the one node; the resident's SLO is so many times what it has now."""
    client = Client(ApiClient(Configuration()))
    view = cluster_view(client, "agents", Registry())
    shape = NodeShape("n")
    view.state.put_node(node_from_object({**node_manifest(shape), **node_status(shape)}))
    described = config_map(shape.hardware, "agents")
    described["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    view.hardware._put(described)
    assessor = Assessor(view, PriorPredictor())
    reading = Reading(0.0, NOW)
    assessor.sampled(Utilisation(CpuUnit.FRACTION, 60.0, {"n": NodeUtilisation(cpu=reading)}))
    first, generous = _pod("first", "settled"), _spec(60_000)
    await assessor.prepare(MODEL, serving_of(first, generous))
    best = assessor.assess(first, generous, MODEL, NOW).decision.best
    assert best is not None
    tight = _spec(round(best.bound_milliseconds * resident_slo_factor))
    assessor.assume(first, "n", (tight, MODEL), NOW)
    second = _pod("second", "new")
    decision = assessor.assess(second, _spec(60_000, neighbours), MODEL, NOW).decision
    await client.close()
    return decision


async def test_the_workload_that_would_miss_its_slo_is_named() -> None:
    decision = await _decided(1.1, "Respect")
    assert decision.outcome is DecisionOutcome.OVER_NEIGHBOURS
    assert decision.neighbours == ("default/settled",)
    assert "and there default/settled would then miss theirs" in decision.message()


async def test_a_resident_with_room_to_spare_refuses_nobody() -> None:
    assert (await _decided(100.0, "Respect")).outcome is DecisionOutcome.PLACED


async def test_neighbours_may_be_ignored() -> None:
    assert (await _decided(1.1, "Ignore")).outcome is DecisionOutcome.PLACED
