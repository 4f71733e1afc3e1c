"""Latencies are no longer what a version learned: seen by a real Prometheus, said, and learned anew.

Simulated nodes; the pods' latencies come from a histogram that Prometheus scrapes. What version 1 learned
from was measured when the same model took milliseconds; now its P90 is 90 ms.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailwise.cluster.client import INFERENCE_WORKLOADS, LATENCY_MODELS, PODS, connect
from tests.cluster.hardware_maps import NAMESPACE
from tests.cluster.locks import Progress
from tests.cluster.simulated import SimulatedCluster
from tests.models.store import Store, serving
from tests.operator.learning_stage import (
    QUICK,
    ask,
    json_lines,
    latency_model,
    leave_nothing,
    profile_of,
    rows_about,
    serves,
    status_of,
    the_condition,
    training_kubelet,
)
from tests.operator.process import Operator
from tests.operator.stage import Look, gated_pod, until, workload
from tests.telemetry.exporter import Container, Latencies, Node, exporting
from tests.telemetry.scraped import FAST, pod, scraping

# As many as are judged together at least: one window of each is a sample.
PODS_OBSERVED = tuple(f"iris-{number}" for number in range(30))
LONGEST_SECONDS = 240


@pytest.fixture
def prometheus_url(
    simulated_cluster: SimulatedCluster, simulated_namespace: str, tmp_path: Path, progress: Progress
) -> Iterator[str]:
    """A Prometheus of the nodes' load and of a server in each pod, whose P90 is 90 ms."""
    nodes = [Node({"node": name}, cpus=4, idle=0.9) for name in simulated_cluster.nodes]
    servers = [
        Latencies("request_predict_seconds", pod(name, simulated_namespace, model_name="m"), 500, FAST)
        for name in PODS_OBSERVED
    ]
    used = [Container(pod(name, simulated_namespace, container="server"), 0.05) for name in PODS_OBSERVED]
    with (
        exporting([*nodes, *servers, *used]) as target,
        scraping(tmp_path, progress, ("all", target, {})) as url,
    ):
        yield url


async def test_latencies_shift_coverage_falls_and_a_version_learned_from_now_on_restores_it(
    simulated_cluster: SimulatedCluster,
    simulated_namespace: str,
    prometheus_url: str,
    models: str,
    tmp_path: Path,
) -> None:
    watches = ("--prometheus-url", prometheus_url, "--utilisation-preset", "NodeExporter")
    often = ("--poll-seconds", "1", "--observe-seconds", "1", "--utilisation-window-seconds", "10")
    training = ("--training-image", "registry.invalid/training:1")
    log = tmp_path / "operator.log"
    operator = Operator(simulated_cluster.kubeconfig, NAMESPACE, log, *watches, *often, *training)
    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    look = Look(client, simulated_namespace)
    name, store = f"drifts-{simulated_namespace}", Store()
    spec: dict[str, Any] = {
        # The other way out of drift, back to the version before, is not what is shown here.
        "promotion": {**QUICK["promotion"], "rollback": "Never"},
        "drift": {"windowSamples": 30, "cooldownSeconds": 60, "maxErrorIncreasePercent": 1000},
    }
    await operator.start()
    try:
        with serving(store):
            async with training_kubelet(client, NAMESPACE, simulated_cluster.kubeconfig, tmp_path) as kubelet:
                made = workload(simulated_namespace, "iris", f"{models}/good.onnx")
                made["spec"]["latencyModelRef"] = {"name": name}
                made["spec"]["metrics"] = {"preset": "KServe", "windowSeconds": 30}
                await look.create(INFERENCE_WORKLOADS, made)
                profile = await profile_of(look, "iris")
                dataset = {
                    "files": [{"url": f"{store.url}/rows.jsonl"}],
                    "windowSeconds": 30,
                    "lookbackHours": 1,
                }
                await look.create(LATENCY_MODELS, latency_model(name, dataset=dataset, **spec))
                store.files["/rows.jsonl"] = json_lines(await rows_about(client, profile))
                await ask(client, name, "once")
                assert await kubelet.run(name) == 0
                await serves(client, name, 1)

                for each in PODS_OBSERVED:
                    await look.create(PODS, gated_pod(simulated_namespace, each, "iris"))
                await until(lambda: look.bound_pods(len(PODS_OBSERVED)), "bound pods", LONGEST_SECONDS)
                now = np.random.default_rng(1).normal(0, 0.03, 240)
                rows = await rows_about(client, profile)
                store.files["/rows.jsonl"] = json_lines(
                    [
                        {**row, "p90_milliseconds": 90 * float(np.exp(noise))}
                        for row, noise in zip(rows, now, strict=True)
                    ]
                )
                found = await the_condition(
                    client, name, "Drifting", seconds=LONGEST_SECONDS, status="True", reason="CoverageFell"
                )
                assert "of 30 placements exceeded their bound" in found["message"]
                status = await status_of(client, name)
                assert status["activeVersion"] == 1
                assert float(status["live"]["coveragePercent"]) < 50

                # The run that drift asks for, with what Prometheus has of the pods by now beside the file.
                assert await kubelet.run(name) == 0
                status = await serves(client, name, 2)
                assert status["dataset"]["rows"] >= 240
                assert status["lastRetrainRequest"] == "once"
                await the_condition(
                    client, name, "Drifting", seconds=LONGEST_SECONDS, status="False", reason="Stable"
                )
                live = (await status_of(client, name))["live"]
                assert float(live["coveragePercent"]) > 85
    finally:
        await leave_nothing(client, NAMESPACE, name)
        code = await operator.stop()
        print(operator.log_text)
        await client.close()
    assert code == 0
    assert "Traceback" not in operator.log_text
