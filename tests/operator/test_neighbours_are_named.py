"""A node where a newcomer would push a resident over its SLO is refused, and the answer says whose."""

from datetime import UTC, datetime

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.serving import serving_of
from tailwise.domain.scoring import Decision, DecisionOutcome
from tailwise.prediction.predictor import PriorPredictor
from tailwise.telemetry.queries import CpuUnit
from tailwise.telemetry.utilisation import NodeUtilisation, Reading, Utilisation
from tests.operator.stage import NodeShape, memory_pod, memory_view
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


async def _decided(resident_slo_factor: float, neighbours: str) -> Decision:
    """A second pod asks for the one node; the resident's SLO is so many times what it has now."""
    async with memory_view([NodeShape("n")]) as view:
        assessor = Assessor(view, PriorPredictor())
        reading = Reading(0.0, NOW)
        assessor.sampled(Utilisation(CpuUnit.FRACTION, 60.0, {"n": NodeUtilisation(cpu=reading)}))
        first, generous = memory_pod("first", "settled"), _spec(60_000)
        await assessor.prepare(MODEL, serving_of(first, generous))
        best = assessor.assess(first, generous, MODEL, NOW).decision.best
        assert best is not None
        tight = _spec(round(best.bound_milliseconds * resident_slo_factor))
        assessor.assume(first, "n", (tight, MODEL), NOW)
        second = memory_pod("second", "new")
        decision = assessor.assess(second, _spec(60_000, neighbours), MODEL, NOW).decision
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
