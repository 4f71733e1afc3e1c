"""Pods land where the operator decided, and where status says."""

from tailwise.api.labels import BOUND_ANNOTATION, NODE_ANNOTATION, PREDICTED_P90_ANNOTATION
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS
from tests.operator.conftest import FAST
from tests.operator.process import Operator
from tests.operator.stage import Look, labelled_deployment, until, workload


async def test_ten_pods_of_a_template_run_on_the_nodes_that_status_names(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=10))
    pods = await until(lambda: look.bound_pods(10), "ten bound pods")
    assert operator.running

    async def told() -> dict[str, str]:
        status = (await look.workload("w")).get("status", {})
        placements = {each["pod"]: each["node"] for each in status.get("placements", [])}
        return placements if len(placements) == 10 else {}

    placements = await until(told, "ten placements in status")
    assert placements == {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
    status = (await look.workload("w"))["status"]
    assert status["pods"] == {"pending": 0, "placed": 10, "fallback": 0}
    assert status["profile"]["flops"] > 0
    assert (await look.condition("w", "Placed"))["status"] == "True"
    assert (await look.condition("w", "ModelProfiled"))["reason"] == "ProfileComplete"
    assert (await look.condition("w", "SLOAttainable"))["status"] == "True"
    for pod in pods:
        annotations = pod["metadata"]["annotations"]
        assert annotations[NODE_ANNOTATION] == pod["spec"]["nodeName"]
        assert int(annotations[BOUND_ANNOTATION]) >= int(annotations[PREDICTED_P90_ANNOTATION]) > 0


async def test_the_fastest_of_idle_nodes_wins(look: Look, operator: Operator, models: str) -> None:
    await look.nobody_elses_pods()
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", replicas=1))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod")
    assert operator.running
    assert pod["spec"]["nodeName"] == FAST
    (event,) = await until(lambda: look.events("Placed"), "the event Placed")
    assert FAST in event["note"]


async def test_pods_of_a_users_own_deployment_are_placed_by_their_label(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(DEPLOYMENTS, labelled_deployment(look.namespace, "mine", "w", 3))
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    pods = await until(lambda: look.bound_pods(3), "three bound pods")
    assert operator.running
    assert all(NODE_ANNOTATION in pod["metadata"]["annotations"] for pod in pods)

    async def placed() -> bool:
        status = (await look.workload("w")).get("status", {})
        return bool(status.get("pods", {}).get("placed") == 3)

    await until(placed, "three placed pods in status")
