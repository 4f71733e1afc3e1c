"""Policies, objectives and refusals on a real control plane: what pods are given, and what comes of it."""

from typing import Any

from tailwise.api.labels import NODE_ANNOTATION, PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, PODS, Resource
from tests.operator.conftest import BARE, FAST, MIDDLE, SLOW
from tests.operator.process import Operator
from tests.operator.stage import Look, gated_pod, labelled_deployment, pod_spec, until, workload

VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _required(pod: dict[str, Any]) -> list[dict[str, Any]]:
    terms: list[dict[str, Any]] = pod["spec"]["affinity"]["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"]
    return terms


def _weights(pod: dict[str, Any]) -> dict[str, int]:
    preferred = pod["spec"]["affinity"]["nodeAffinity"][_PREFERRED]
    return {each["preference"]["matchFields"][0]["values"][0]: each["weight"] for each in preferred}


def _with_placement(manifest: dict[str, Any], **placement: Any) -> dict[str, Any]:
    manifest["spec"]["placement"] |= placement
    return manifest


# ---- policies


async def test_policy_feasible_allows_all_nodes_that_meet_the_slo_and_prefers_by_headroom(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1)
    await look.create(INFERENCE_WORKLOADS, _with_placement(made, policy="Feasible"))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod")
    assert operator.running
    ((requirement,),) = [term["matchExpressions"] for term in _required(pod)]
    assert requirement["key"] == "kubernetes.io/hostname"
    assert set(requirement["values"]) == {FAST, MIDDLE, SLOW}
    weights = _weights(pod)
    assert weights[FAST] == 100
    assert weights[FAST] > weights[MIDDLE] >= weights[SLOW]

    async def told() -> bool:
        status = (await look.workload("w")).get("status", {})
        return [each["node"] for each in status.get("placements", [])] == [pod["spec"]["nodeName"]]

    await until(told, "the node in status that kube-scheduler chose")
    supported = await look.condition("w", "SpecSupported")
    assert supported["status"] == "True", supported


async def test_objective_tightest_keeps_the_fast_node_free(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1)
    await look.create(INFERENCE_WORKLOADS, _with_placement(made, objective="Tightest"))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod")
    assert operator.running
    assert pod["spec"]["nodeName"] == SLOW


async def test_a_pod_that_nobody_makes_again_may_go_to_any_feasible_node_and_prefers_the_winner(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    await look.create(PODS, gated_pod(look.namespace, "alone", "w"))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod")
    assert operator.running
    assert _weights(pod) == {FAST: 100}
    (term,) = pod["spec"]["affinity"]["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"]
    (names,) = term["matchExpressions"]
    assert set(names["values"]) == {FAST, MIDDLE, SLOW}
    assert pod["spec"]["nodeName"] == pod["metadata"]["annotations"][NODE_ANNOTATION] == FAST


# ---- what pods bring


async def test_each_term_that_a_pod_brings_is_narrowed_and_none_is_lost(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    not_fast = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [FAST]}
    linux = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    own = [{"matchExpressions": [not_fast]}, {"matchExpressions": [not_fast, linux]}]
    made = labelled_deployment(look.namespace, "mine", "w", 1)
    made["spec"]["template"]["spec"]["affinity"] = {
        "nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": own}},
    }
    await look.create(DEPLOYMENTS, made)
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    (pod,) = await until(lambda: look.bound_pods(1), "a bound pod")
    assert operator.running
    assert pod["spec"]["nodeName"] == MIDDLE
    by_name = [{"key": "metadata.name", "operator": "In", "values": [MIDDLE]}]
    assert _required(pod) == [{**term, "matchFields": by_name} for term in own]


async def test_pods_that_must_spread_are_placed_on_different_nodes(
    look: Look, operator: Operator, models: str
) -> None:
    spread = {
        "topologyKey": "kubernetes.io/hostname",
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {WORKLOAD_LABEL: "w"}},
    }
    without_agent = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [BARE]}
    affinity = {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [without_agent]}]}}}
    made = labelled_deployment(look.namespace, "mine", "w", 6)
    made["spec"]["template"]["spec"] |= {"topologySpreadConstraints": [spread], "affinity": affinity}
    await look.create(DEPLOYMENTS, made)
    await look.create(INFERENCE_WORKLOADS, workload(look.namespace, "w", f"{models}/good.onnx"))
    pods = await until(lambda: look.bound_pods(6), "six bound pods")
    assert operator.running
    nodes = [pod["spec"]["nodeName"] for pod in pods]
    assert {node: nodes.count(node) for node in set(nodes)} == {FAST: 2, MIDDLE: 2, SLOW: 2}


# ---- refusals


async def test_a_pod_that_its_node_refuses_is_made_anew_elsewhere_and_the_next_operator_knows_it(
    look: Look, operator: Operator, models: str
) -> None:
    """Pods to keep away from, in namespaces named by label: kube-scheduler sees them, the filters do not."""
    await look.nobody_elses_pods()
    here = {"matchLabels": {"kubernetes.io/metadata.name": look.namespace}}
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "shunned"}},
        "namespaceSelector": here,
    }
    for node in (FAST, MIDDLE):
        shunned = {"name": f"on-{node}", "namespace": look.namespace, "labels": {"app": "shunned"}}
        await look.create(PODS, {"metadata": shunned, "spec": pod_spec(nodeName=node)})
    spec = pod_spec(affinity={"podAntiAffinity": {_REQUIRED: [term]}})
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1, spec=spec)
    await look.create(INFERENCE_WORKLOADS, made)
    (pod,) = await until(lambda: _bound(look), "a bound pod", 120)
    assert operator.running
    assert pod["spec"]["nodeName"] == SLOW
    refused = await look.events("UnschedulableAfterPlacement")
    gone = {event["regarding"]["name"] for event in refused if event["regarding"]["kind"] == "Pod"}
    assert len(gone) == 2
    assert pod["metadata"]["name"] not in gone

    async def kept() -> bool:
        avoided = (await look.workload("w")).get("status", {}).get("avoidedNodes", [])
        return {each["node"] for each in avoided} == {FAST, MIDDLE}

    await until(kept, "the nodes set aside in status")
    await operator.stop()
    await operator.start()
    await apply.delete(look.client, PODS, look.namespace, pod["metadata"]["name"])

    async def successor() -> list[dict[str, Any]]:
        return [each for each in await _bound(look) if each["metadata"]["uid"] != pod["metadata"]["uid"]]

    (pod,) = await until(successor, "its successor", 120)
    assert pod["spec"]["nodeName"] == SLOW
    assert len(await look.events("UnschedulableAfterPlacement")) == len(refused)


async def _bound(look: Look) -> list[dict[str, Any]]:
    """The workload's pods that have a node."""
    return [
        pod
        for pod in await look.pods()
        if pod["spec"].get("nodeName") and WORKLOAD_LABEL in pod["metadata"]["labels"]
    ]


# ---- volumes


def _volume(name: str, storage_class: str, node: str) -> dict[str, Any]:
    reach = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": storage_class,
            "hostPath": {"path": "/nowhere"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [reach]}]}},
        },
    }


def _claim(look: Look, name: str, storage_class: str, **spec: Any) -> dict[str, Any]:
    wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "metadata": {"name": name, "namespace": look.namespace},
        "spec": wanted | {"storageClassName": storage_class} | spec,
    }


async def test_a_pod_goes_where_its_volumes_are_or_will_be_and_waits_for_claims_that_are_missing(
    look: Look, operator: Operator, models: str
) -> None:
    await look.nobody_elses_pods()
    bound_to, found_at = f"bound-{look.namespace}", f"found-{look.namespace}"
    waits = {
        "metadata": {"name": found_at},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    await look.create(CLASSES, waits)
    await look.create(VOLUMES, _volume(bound_to, "by-hand", SLOW))
    await look.create(VOLUMES, _volume(found_at, found_at, MIDDLE))
    try:
        for name, claim in (("bound", "b"), ("found", "f")):
            volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
            spec = pod_spec(volumes=[volume])
            made = workload(look.namespace, name, f"{models}/good.onnx", replicas=1, spec=spec)
            await look.create(INFERENCE_WORKLOADS, made)

        async def waiting() -> bool:
            told = [(await look.condition(name, "Placed")).get("message", "") for name in ("bound", "found")]
            return 'persistentvolumeclaim "b" not found' in told[0] and '"f" not found' in told[1]

        await until(waiting, "the claims that are missing in the condition")
        await look.create(CLAIMS, _claim(look, "b", "by-hand", volumeName=bound_to))
        await look.create(CLAIMS, _claim(look, "f", found_at))
        pods = await until(lambda: look.bound_pods(2), "two bound pods", 120)
        assert operator.running
        nodes = {pod["metadata"]["labels"][WORKLOAD_LABEL]: pod["spec"]["nodeName"] for pod in pods}
        assert nodes == {"bound": SLOW, "found": MIDDLE}
        assert not await look.events("UnschedulableAfterPlacement")
    finally:
        for kind, name in ((VOLUMES, bound_to), (VOLUMES, found_at), (CLASSES, found_at)):
            await apply.delete(look.client, kind, None, name)


async def test_an_slo_that_no_node_meets_says_what_would_have_to_change(
    look: Look, operator: Operator, models: str
) -> None:
    spec = pod_spec(cpu="200m", limit="200m")
    made = workload(
        look.namespace,
        "w",
        f"{models}/good.onnx",
        replicas=1,
        spec=spec,
        slo_milliseconds=150,
        fallback="Hold",
    )
    made["spec"]["load"] = {"requestsPerSecond": 500}
    await look.create(INFERENCE_WORKLOADS, made)

    async def told() -> str:
        message: str = (await look.condition("w", "Placed")).get("message", "")
        return message if "SLO is" in message else ""

    message = await until(told, "a decision without a node")
    assert operator.running
    assert "would hold" in message, message
    assert PLACEMENT_GATE in str(await look.pods())
