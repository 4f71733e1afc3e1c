"""An operator that is killed at any moment loses no pod and places none twice."""

from typing import Any

from tailwise.api.labels import DECIDED_AT_ANNOTATION, NODE_ANNOTATION
from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.operator.process import Operator
from tests.operator.stage import Look, gated, until, workload

PODS = 150


async def test_killed_in_the_middle_and_started_again_it_loses_and_doubles_none(
    look: Look, operator: Operator, models: str
) -> None:
    made = workload(
        look.namespace, "w", f"{models}/good.onnx", replicas=PODS, timeout_seconds=600, fallback="Hold"
    )
    await look.create(INFERENCE_WORKLOADS, made)

    async def some_open() -> bool:
        return any(not gated(pod) for pod in await look.pods())

    await until(some_open, "the first placement", 120)
    await operator.kill()
    opened = {
        pod["metadata"]["name"]: pod["metadata"]["annotations"] for pod in await look.pods() if not gated(pod)
    }
    await operator.start()
    assert 0 < len(opened) < PODS, "it was killed before the first placement or after the last"
    # The Lease of the one that was killed runs out first.
    pods = await until(lambda: look.bound_pods(PODS), f"{PODS} bound pods", 180)
    for pod in pods:
        annotations = pod["metadata"]["annotations"]
        assert annotations[NODE_ANNOTATION] == pod["spec"]["nodeName"]
        before = opened.get(pod["metadata"]["name"])
        if before is not None:
            assert annotations[NODE_ANNOTATION] == before[NODE_ANNOTATION]
            assert annotations[DECIDED_AT_ANNOTATION] == before[DECIDED_AT_ANNOTATION]

    async def told() -> dict[str, Any]:
        status = (await look.workload("w")).get("status", {})
        return dict(status) if status.get("pods", {}).get("placed") == PODS else {}

    status = await until(told, "all placements in status")
    now = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
    listed = {each["pod"]: each["node"] for each in status["placements"]}
    assert len(listed) == 100  # the list is bounded
    assert listed.items() <= now.items()
    assert operator.running

    # What the workload owns goes with it, by the garbage collector.
    await apply.delete(look.client, INFERENCE_WORKLOADS, look.namespace, "w")

    async def gone() -> bool:
        return not await look.pods()

    await until(gone, "the pods to be collected")
