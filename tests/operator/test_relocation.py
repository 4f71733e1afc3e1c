"""A pod whose node got slow is moved through the Eviction API, and stays where a budget says so."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from tailwise.api.labels import WORKLOAD_LABEL
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS, Resource, connect
from tests.cluster.simulated import SimulatedCluster, set_utilisation
from tests.cluster.utilisation import Utilisation
from tests.operator.process import Operator, operator_beside_prometheus
from tests.operator.stage import Look, labelled_deployment, pod_spec, until, workload

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")


def _budget(namespace: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "all-stay", "namespace": namespace},
        "spec": {"minAvailable": "100%", "selector": {"matchLabels": {"tailwise.dev/workload": "w"}}},
    }


RELOCATION = {"mode": "WhenBetter", "minGainPercent": 5, "forSeconds": 30, "cooldownSeconds": 3600}


def _sensitive(made: dict[str, Any]) -> dict[str, Any]:
    """Eight threads feel a full node: by the prior an eighth slower than one that is half full."""
    made["spec"] |= {"serving": {"threads": 8}, "load": {"requestsPerSecond": 1}}
    made["spec"]["placement"]["relocation"] = RELOCATION
    return made


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest_asyncio.fixture
async def moving(
    simulated_cluster: SimulatedCluster, simulated_namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[Look, Operator]]:
    """An operator beside Prometheus on simulated nodes; what a test filled is emptied after it."""
    running = operator_beside_prometheus(simulated_cluster, tmp_path / "operator.log")
    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    look = Look(client, simulated_namespace)
    await look.nobody_elses_pods()
    await running.start()
    try:
        yield look, running
    finally:
        for node in (await client.request("GET", "/api/v1/nodes"))["items"]:
            set_utilisation(simulated_cluster, node["metadata"]["name"], Utilisation(percent=0))
        code = await running.stop()
        await client.close()
        print(running.log_text)
    assert code == 0


async def test_a_pod_leaves_a_node_that_filled_up_once_its_successor_serves(
    simulated_cluster: SimulatedCluster, moving: tuple[Look, Operator], models: str
) -> None:
    look, _ = moving
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=2, spec=pod_spec(cpu="500m"))
    await look.create(INFERENCE_WORKLOADS, _sensitive(made))
    first = await until(lambda: look.bound_pods(2), "two bound pods", 120)
    await until(lambda: _serving(look, 2), "two ready pods", 120)
    before = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in first}
    filled = next(iter(before.values()))
    set_utilisation(simulated_cluster, filled, Utilisation(percent=99))
    crowd = sum(node == filled for node in before.values())
    fewest = 2

    async def moved() -> list[dict[str, Any]]:
        nonlocal fewest
        serving = await _serving(look, 0)
        fewest = min(fewest, len(serving))
        there = sum(pod["spec"]["nodeName"] == filled for pod in serving)
        # A workload moves one pod an hour here.
        return serving if len(serving) == 2 == len(await look.pods()) and there == crowd - 1 else []

    after = await until(moved, f"one pod off {filled}, and as many as before", 300)
    assert fewest == 2
    assert len({pod["metadata"]["name"] for pod in after} & before.keys()) == 1
    (event,) = await until(lambda: look.events("Moved"), "the event Moved")
    assert f"Moved off {filled}" in event["note"]

    async def kept() -> str:
        return str((await look.workload("w")).get("status", {}).get("lastMovedAt", ""))

    await until(kept, "the time of the move in status")


async def _serving(look: Look, count: int) -> list[dict[str, Any]]:
    """Pods that are ready and not on their way out, once there are as many."""
    ready = [pod for pod in await look.pods() if _ready(pod)]
    return ready if len(ready) >= count else []


async def test_a_budget_keeps_a_pod_where_it_is_and_the_pod_of_anothers_deployment_is_evicted_at_once(
    simulated_cluster: SimulatedCluster, moving: tuple[Look, Operator], models: str
) -> None:
    look, operator = moving
    await look.create(BUDGETS, _budget(look.namespace))
    made = workload(look.namespace, "w", f"{models}/good.onnx", replicas=1, spec=pod_spec(cpu="500m"))
    await look.create(INFERENCE_WORKLOADS, _sensitive(made))
    await look.create(DEPLOYMENTS, labelled_deployment(look.namespace, "mine", "theirs", 1))
    theirs = workload(look.namespace, "theirs", f"{models}/good.onnx")
    await look.create(INFERENCE_WORKLOADS, _sensitive(theirs))
    first = await until(lambda: look.bound_pods(2), "two bound pods", 120)
    before = {pod["metadata"]["labels"][WORKLOAD_LABEL]: pod for pod in first}
    for node in {pod["spec"]["nodeName"] for pod in first}:
        set_utilisation(simulated_cluster, node, Utilisation(percent=99))

    async def evicted() -> bool:
        uids = [pod["metadata"]["uid"] for pod in await look.pods()]
        return before["theirs"]["metadata"]["uid"] not in uids and "not moved off" in operator.log_text

    await until(evicted, "one eviction that was done and one that a budget refused", 300)
    (event,) = await until(lambda: look.events("Moved"), "the event Moved")
    assert event["regarding"]["name"] == before["theirs"]["metadata"]["name"]

    async def as_before() -> bool:
        pods = [pod for pod in await look.pods() if pod["metadata"]["labels"][WORKLOAD_LABEL] == "w"]
        return [pod["metadata"]["uid"] for pod in pods] == [before["w"]["metadata"]["uid"]]

    await until(as_before, "the pod that more was made for, alone again", 120)
