"""binding: NodeName: Tailwise is the scheduler of its pods, and their binding carries the decision."""

from tailwise.api.labels import BOUND_ANNOTATION, NODE_ANNOTATION, SCHEDULER_NAME, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS, PODS
from tests.operator.conftest import FAST, MIDDLE, SLOW
from tests.operator.stage import Look, Operator, pod_spec, until, workload


async def test_ten_pods_of_a_template_are_bound_without_kube_scheduler(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=10)
    made["spec"]["placement"]["binding"] = "NodeName"
    await look.create(INFERENCE_WORKLOADS, made)
    pods = await until(lambda: look.bound_pods(10), "ten bound pods")
    assert operator.running
    for pod in pods:
        assert pod["spec"]["schedulerName"] == SCHEDULER_NAME
        assert "affinity" not in pod["spec"]
        annotations = pod["metadata"]["annotations"]
        assert annotations[NODE_ANNOTATION] == pod["spec"]["nodeName"]
        assert int(annotations[BOUND_ANNOTATION]) > 0

    async def told() -> bool:
        status = (await look.workload("w")).get("status", {})
        placed = {each["pod"]: each["node"] for each in status.get("placements", [])}
        return placed == {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}

    await until(told, "ten placements in status")
    assert (await look.condition("w", "SpecSupported"))["status"] == "True"
    assert (await look.workload("w"))["status"]["pods"] == {"pending": 0, "placed": 10, "fallback": 0}


async def test_a_pod_that_asks_for_what_only_kube_scheduler_checks_is_not_bound(
    look: Look, operator: Operator, models: str
) -> None:
    spec = pod_spec(
        schedulerName=SCHEDULER_NAME,
        volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
    )
    await look.create(
        INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", timeout_seconds=1)
    )
    labels = {WORKLOAD_LABEL: "w"}
    await look.create(
        PODS, {"metadata": {"name": "p", "namespace": look.namespace, "labels": labels}, "spec": spec}
    )

    async def told() -> str:
        message: str = (await look.condition("w", "Placed")).get("message", "")
        return message if "only kube-scheduler checks" in message else ""

    await until(told, "the reason")
    (event,) = await look.told_of("Held", "p")
    assert "NodeAffinity" in event["note"]
    (pod,) = await look.pods()
    assert "nodeName" not in pod["spec"]
    assert operator.running


async def test_a_pod_is_bound_once_and_only_if_it_is_still_the_same(look: Look, operator: Operator) -> None:
    manifest = {
        "metadata": {"name": "p", "namespace": look.namespace},
        "spec": pod_spec(schedulerName=SCHEDULER_NAME),
    }
    made = await look.create(PODS, manifest)
    uid = made["metadata"]["uid"]

    async def bind(node: str, of: str) -> apply.Outcome:
        written = await apply.bind(
            look.client, look.namespace, "p", uid=of, node=node, annotations={NODE_ANNOTATION: node}
        )
        return written.outcome

    other = uid[:-1] + ("0" if uid[-1] != "0" else "1")
    assert await bind(FAST, other) is apply.Outcome.CONFLICT
    assert await bind(MIDDLE, uid) is apply.Outcome.DONE
    assert await bind(SLOW, uid) is apply.Outcome.CONFLICT
    (pod,) = await look.pods()
    assert pod["spec"]["nodeName"] == pod["metadata"]["annotations"][NODE_ANNOTATION] == MIDDLE
    missing = await apply.bind(look.client, look.namespace, "q", uid=uid, node=FAST, annotations={})
    assert missing.outcome is apply.Outcome.NOT_FOUND
    assert operator.running
