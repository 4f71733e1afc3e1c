"""binding: NodeName: Tailwise is the scheduler of its pods, and their binding carries the decision."""

from typing import Any

from tailwise.api.labels import BOUND_ANNOTATION, NODE_ANNOTATION, SCHEDULER_NAME, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import (
    INFERENCE_WORKLOADS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STORAGE_CLASSES,
)
from tests.operator.conftest import FAST, MIDDLE, SLOW
from tests.operator.process import Operator
from tests.operator.stage import Look, pod_spec, until, workload


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


async def test_a_pod_that_asks_for_what_only_kube_scheduler_does_is_not_bound(
    look: Look, operator: Operator, models: str
) -> None:
    await look.create(
        INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx", timeout_seconds=1)
    )
    name = f"late-{look.namespace}"
    storage = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    await look.create(STORAGE_CLASSES, {"metadata": {"name": name}, **storage})
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {
        "metadata": {"name": "c", "namespace": look.namespace},
        "spec": {**wanted, "storageClassName": name},
    }
    await look.create(PERSISTENT_VOLUME_CLAIMS, claim)
    asks: dict[str, dict[str, Any]] = {
        "claims": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
        "devices": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}]},
    }
    try:
        for pod, spec in asks.items():
            metadata = {"name": pod, "namespace": look.namespace, "labels": {WORKLOAD_LABEL: "w"}}
            made = pod_spec(schedulerName=SCHEDULER_NAME, **spec)
            await look.create(PODS, {"metadata": metadata, "spec": made})

            async def told(pod: str = pod) -> list[str]:
                return [each["note"] for each in await look.told_of("Held", pod)]

            (note,) = await until(told, f"why {pod} waits")
            assert "which only kube-scheduler" in note
            assert "binding: NodeAffinity" in note
        assert all("nodeName" not in pod["spec"] for pod in await look.pods())
        assert operator.running
    finally:
        await apply.delete(look.client, STORAGE_CLASSES, None, name)


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
