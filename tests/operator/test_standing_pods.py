"""Who stands on a node counts by what is known now, and is not counted anew for each word of the watch."""

from typing import Any

from tailwise.api.profile import ModelProfile
from tailwise.cluster.hardware import config_map
from tailwise.controllers.assessment import Assessor
from tailwise.controllers.inference_workload import InferenceWorkloadController
from tailwise.controllers.profiles import ProfileQuestion, ProfileStore
from tailwise.controllers.registry import workload_from_object
from tailwise.controllers.standing_pods import StandingPods
from tailwise.controllers.view import ClusterView
from tailwise.prediction.predictor import PriorPredictor
from tests.operator.stage import NodeShape, gated_pod, memory_view, workload

SHAPE = NodeShape("n", cores=16, agent=False)
KEY = ("default", "p")


class Counting(Assessor):
    """An assessor that counts how often it is told of a pod that stands."""

    told = 0

    def reside(self, *arguments: Any) -> None:
        self.told += 1
        super().reside(*arguments)


async def _not_read(_: ProfileQuestion) -> ModelProfile:
    raise AssertionError("the workload brings its profile")


def _follow(view: ClusterView) -> Counting:
    """Have the pods of a workload that brings its profile counted."""
    made = workload("default", "w", "https://models.example/m.onnx")
    made["spec"]["model"]["profile"] = {"flops": 4_000_000_000, "parameterBytes": 100_000_000}
    made["spec"]["load"] = {"requestsPerSecond": 2}
    made["metadata"] |= {"uid": "w", "generation": 1}
    known = workload_from_object(made)
    assert known.workload is not None, known.fault
    view.registry.workloads[known.key] = known
    assessor = Counting(view, PriorPredictor())
    workloads = InferenceWorkloadController(
        view.pods._client, view, ProfileStore(_not_read, lambda _: None), lambda _: None, lambda *_: {}
    )
    standing = StandingPods(view, assessor, workloads)
    view.interests.pod = standing.pod_changed
    view.interests.hardware = standing.hardware_changed
    return assessor


def _see_pod(view: ClusterView, version: int, *, status: Any = None, cpu: str = "100m") -> None:
    """The watch tells of the pod, which stands on the node."""
    made = gated_pod(*KEY, "w")
    made["metadata"] |= {"uid": "p", "resourceVersion": str(version)}
    made["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    del made["spec"]["schedulingGates"]
    made["spec"]["nodeName"] = "n"
    made["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu
    view.pods._put({**made, "status": status or {}})


def _see_hardware(view: ClusterView, version: int) -> None:
    described = config_map(SHAPE.hardware, "agents")
    described["metadata"] |= {"uid": "h", "resourceVersion": str(version)}
    view.hardware._put(described)


async def test_a_status_that_changes_is_no_reason_to_count_a_pod_anew_and_its_resources_are() -> None:
    async with memory_view([SHAPE]) as view:
        assessor = _follow(view)
        _see_hardware(view, 1)
        _see_pod(view, 1)
        assert assessor.told == 1
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}
        _see_pod(view, 2, status={"phase": "Running"})
        _see_pod(view, 3, status={"phase": "Running", "conditions": [ready]})
        assert assessor.told == 1
        _see_pod(view, 4, cpu="2")
        assert assessor.told == 2


async def test_a_resident_counts_as_soon_as_its_nodes_hardware_comes() -> None:
    async with memory_view([SHAPE]) as view:
        assessor = _follow(view)
        _see_pod(view, 1)
        resident = assessor.residents.get("p")
        assert resident is not None
        assert resident.millicores == 0
        _see_hardware(view, 1)
        resident = assessor.residents.get("p")
        assert resident is not None
        assert resident.millicores > 0


async def test_a_pod_that_goes_counts_no_more() -> None:
    async with memory_view([SHAPE]) as view:
        assessor = _follow(view)
        _see_pod(view, 1)
        assert len(assessor.residents) == 1
        view.pods._remove(next(key for key, _ in view.pods.items()))
        assert len(assessor.residents) == 0
