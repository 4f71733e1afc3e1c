"""A pod whose node got slow is moved through the Eviction API, and stays where a budget says so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tailwise.cluster.client import INFERENCE_WORKLOADS, Resource, connect
from tests.cluster.simulated import SimulatedCluster, set_utilisation
from tests.cluster.utilisation import Utilisation
from tests.operator.stage import Look, operator_beside_prometheus, pod_spec, until, workload

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")


def _budget(namespace: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "all-stay", "namespace": namespace},
        "spec": {"minAvailable": "100%", "selector": {"matchLabels": {"tailwise.dev/workload": "w"}}},
    }


@pytest.mark.parametrize("forbidden", [False, True])
async def test_a_pod_leaves_a_node_that_filled_up_unless_a_budget_forbids_it(
    simulated_cluster: SimulatedCluster,
    simulated_namespace: str,
    models: str,
    tmp_path: Path,
    forbidden: bool,
) -> None:
    operator = operator_beside_prometheus(simulated_cluster, tmp_path / "operator.log")
    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    look = Look(client, simulated_namespace)
    await look.nobody_elses_pods()
    await operator.start()
    filled = ""
    try:
        made = workload(
            simulated_namespace, "w", f"{models}/good.onnx", replicas=2, spec=pod_spec(cpu="500m")
        )
        # Eight threads feel a full node: by the prior a third slower.
        made["spec"]["serving"] = {"threads": 8}
        made["spec"]["load"] = {"requestsPerSecond": 1}
        made["spec"]["placement"]["relocation"] = {
            "mode": "WhenBetter",
            "minGainPercent": 15,
            "forSeconds": 30,
            "cooldownSeconds": 3600,
        }
        if forbidden:
            await look.create(BUDGETS, _budget(simulated_namespace))
        await look.create(INFERENCE_WORKLOADS, made)
        first = await until(lambda: look.bound_pods(2), "two bound pods", 120)
        before = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in first}
        filled = next(iter(before.values()))
        set_utilisation(simulated_cluster, filled, Utilisation(percent=99))

        async def off_the_node() -> list[dict[str, Any]]:
            pods = await look.bound_pods(2)
            return pods if pods and filled not in [pod["spec"]["nodeName"] for pod in pods] else []

        if forbidden:

            async def refused() -> bool:
                return "not moved off" in operator.log_text

            await until(refused, "an eviction that the budget refuses", 240)
            await asyncio.sleep(3)
            assert {pod["metadata"]["name"] for pod in await look.pods()} == before.keys()
            return
        crowd = sum(node == filled for node in before.values())
        if crowd == 1:  # a workload moves one pod an hour here
            await until(off_the_node, f"both pods off {filled}", 240)
        events = await until(lambda: look.events("Moved"), "the event Moved", 240)
        assert len(events) == 1
        assert f"Moved off {filled}" in events[0]["note"]
        assert len({pod["metadata"]["name"] for pod in await look.pods()} & before.keys()) == 1
    finally:
        if filled:
            set_utilisation(simulated_cluster, filled, Utilisation(percent=0))
        code = await operator.stop()
        await client.close()
        print(operator.log_text)
    assert code == 0
