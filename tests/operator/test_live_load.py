"""With Prometheus there, live utilisation moves the decision; on simulated nodes and a real Prometheus."""

from pathlib import Path
from typing import Any

from tailwise.cluster.client import INFERENCE_WORKLOADS, connect
from tests.cluster.simulated import SimulatedCluster
from tests.operator.process import operator_beside_prometheus
from tests.operator.stage import Look, until, workload


async def test_predictions_follow_live_utilisation_and_say_how_old_it_was(
    simulated_cluster: SimulatedCluster, simulated_namespace: str, models: str, tmp_path: Path
) -> None:
    operator = operator_beside_prometheus(simulated_cluster, tmp_path / "operator.log")
    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    look = Look(client, simulated_namespace)
    await operator.start()
    try:
        made = workload(simulated_namespace, "w", f"{models}/good.onnx", replicas=10)
        made["spec"]["load"] = {"concurrency": 4}
        await look.create(INFERENCE_WORKLOADS, made)
        await until(lambda: look.bound_pods(10), "ten bound pods", 120)

        async def told() -> list[dict[str, Any]]:
            status = (await look.workload("w")).get("status", {})
            placements = list(status.get("placements", []))
            return placements if len(placements) == 10 else []

        placements = await until(told, "ten placements in status")
        assert {each["source"] for each in placements} == {"Prior"}
        assert all(each["dataAgeSeconds"] <= 120 for each in placements)
        # Load that is coming counts: a burst does not herd onto the one node that is best when idle.
        assert len({each["node"] for each in placements}) > 1
    finally:
        code = await operator.stop()
        await client.close()
        print(operator.log_text)
    assert code == 0
