"""An operator that is killed at any moment loses no pod and places none twice."""

import asyncio
from pathlib import Path
from typing import Any

from tailwise.api.labels import NODE_ANNOTATION
from tailwise.cluster.client import INFERENCE_WORKLOADS
from tests.cluster.controlplane import ControlPlane
from tests.operator.stage import Look, NodeShape, Operator, gated, nodes, until, workload

SHAPES = (
    NodeShape("restart-fast", cores=32, gflops_per_core=80.0),
    NodeShape("restart-slow", cores=32, gflops_per_core=20.0),
)
PODS = 30


async def test_killed_in_the_middle_and_started_again_it_loses_and_doubles_none(
    control_plane: ControlPlane, look: Look, stage_nodes: None, models: str, tmp_path: Path
) -> None:
    _ = stage_nodes
    log = tmp_path / "operator.log"
    # The Lease of the one that is killed must run out first, which costs the second its duration.
    operator = Operator(control_plane.kubeconfig, look.namespace, log)
    async with nodes(look.client, SHAPES, look.namespace):
        await operator.start()
        made = workload(
            look.namespace, "w", f"{models}/good.onnx", replicas=PODS, timeout_seconds=600, fallback="Hold"
        )
        await look.create(INFERENCE_WORKLOADS, made)

        async def some_open() -> bool:
            pods = await look.pods()
            return len(pods) > 0 and any(not gated(pod) for pod in pods)

        await until(some_open, "the first placement", 120)
        await operator.kill()
        opened = {
            pod["metadata"]["name"]: pod["metadata"]["annotations"][NODE_ANNOTATION]
            for pod in await look.pods()
            if not gated(pod)
        }
        await asyncio.sleep(1)
        try:
            await operator.start()
            pods = await until(lambda: look.bound_pods(PODS), f"{PODS} bound pods", 120)
            for pod in pods:
                assert pod["metadata"]["annotations"][NODE_ANNOTATION] == pod["spec"]["nodeName"]
            now = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
            assert opened.items() <= now.items()

            async def told() -> dict[str, Any]:
                status = (await look.workload("w")).get("status", {})
                placements = {each["pod"]: each["node"] for each in status.get("placements", [])}
                return placements if len(placements) == PODS else {}

            assert await until(told, "all placements in status") == now
        finally:
            assert await operator.stop() == 0
            print(log.read_text())
