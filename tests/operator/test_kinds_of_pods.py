"""Pods are placed whoever makes them, and a scale-down takes them from the slowest nodes first."""

from functools import partial
from typing import Any

import pytest

from tailwise.api.labels import NODE_ANNOTATION, PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, JOBS, PODS, ContentType, Resource
from tests.operator.conftest import BARE, FAST, MIDDLE, SLOW
from tests.operator.process import Operator
from tests.operator.stage import Look, gated_pod, labelled_deployment, pod_spec, until, workload

STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")


def _template(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "mine", WORKLOAD_LABEL: "w"}},
        "spec": pod_spec(schedulingGates=[{"name": PLACEMENT_GATE}], **spec),
    }


def _made_by(kind: str, namespace: str) -> tuple[Resource, dict[str, Any]]:
    metadata = {"name": "mine", "namespace": namespace}
    selector = {"matchLabels": {"app": "mine"}}
    if kind == "StatefulSet":
        spec = {
            "serviceName": "mine",
            "replicas": 2,
            "podManagementPolicy": "Parallel",
            "selector": selector,
            "template": _template(),
        }
        return STATEFUL_SETS, {"metadata": metadata, "spec": spec}
    if kind == "Job":
        spec = {"parallelism": 2, "completions": 2, "template": _template(restartPolicy="Never")}
        return JOBS, {"metadata": metadata, "spec": spec}
    return DEPLOYMENTS, labelled_deployment(namespace, "mine", "w", 2)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Job"])
async def test_pods_are_placed_whatever_controller_makes_them(
    look: Look, operator: Operator, models: str, kind: str
) -> None:
    await look.create(*_made_by(kind, look.namespace))
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    pods = await until(lambda: look.bound_pods(2), "two bound pods")
    assert operator.running
    for pod in pods:
        assert pod["metadata"]["annotations"][NODE_ANNOTATION] == pod["spec"]["nodeName"]


async def test_bare_pods_are_placed_by_their_label(look: Look, operator: Operator, models: str) -> None:
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    for name in ("one", "two"):
        await look.create(PODS, gated_pod(look.namespace, name, "w"))
    pods = await until(lambda: look.bound_pods(2), "two bound pods")
    assert operator.running
    assert all(NODE_ANNOTATION in pod["metadata"]["annotations"] for pod in pods)


async def test_a_scale_down_takes_pods_from_the_slowest_nodes_first(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    made = labelled_deployment(look.namespace, "mine", "w", 3)
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    described = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [BARE]}
    made["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {required: {"nodeSelectorTerms": [{"matchExpressions": [described]}]}},
        "podAntiAffinity": {
            required: [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {WORKLOAD_LABEL: "w"}},
                }
            ]
        },
    }
    await look.create(DEPLOYMENTS, made)
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    pods = await until(lambda: look.bound_pods(3), "three bound pods")
    assert {pod["spec"]["nodeName"] for pod in pods} == {FAST, MIDDLE, SLOW}
    for left in ({FAST, MIDDLE}, {FAST}):
        await look.client.request(
            "PATCH",
            DEPLOYMENTS.path(look.namespace, "mine"),
            body={"spec": {"replicas": len(left)}},
            content_type=ContentType.MERGE_PATCH,
        )
        pods = await until(partial(look.bound_pods, len(left)), f"{len(left)} pods")
        assert {pod["spec"]["nodeName"] for pod in pods} == left
    assert operator.running
