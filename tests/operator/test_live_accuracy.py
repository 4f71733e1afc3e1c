"""An operator beside a real Prometheus: what it promised for a pod is joined with what the pod then had."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tailwise.cluster.client import INFERENCE_WORKLOADS, PODS, connect
from tests.cluster.hardware_maps import NAMESPACE
from tests.cluster.locks import Progress
from tests.cluster.ports import free_port
from tests.cluster.simulated import SimulatedCluster
from tests.operator.process import Operator
from tests.operator.stage import Look, gated_pod, until, workload
from tests.telemetry.exporter import Latencies, Node, exporting
from tests.telemetry.scraped import FAST, pod, scraping

POD = "iris-1"
# Of the window that is observed (30 s is the least), a scrape a second, and an operator that starts.
LONGEST_SECONDS = 240


@pytest.fixture
def prometheus_url(
    simulated_cluster: SimulatedCluster, simulated_namespace: str, tmp_path: Path, progress: Progress
) -> Iterator[str]:
    """A Prometheus of the simulated nodes' load, and of a server in the pod whose P90 is 90 ms."""
    nodes = [Node({"node": name}, cpus=4, idle=0.9) for name in simulated_cluster.nodes]
    server = Latencies("request_predict_seconds", pod(POD, simulated_namespace, model_name="m"), 500, FAST)
    with exporting([*nodes, server]) as target, scraping(tmp_path, progress, ("all", target, {})) as url:
        yield url


def told(file: Path) -> dict[str, dict[str, Any]]:
    """Lines of kept decisions, the last of each event."""
    if not file.exists():
        return {}
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["event"]: line for line in found if line["pod"] == POD}


def samples(port: int) -> dict[str, float]:
    """The operator's metrics of live accuracy, summed over their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


async def test_a_pods_latency_is_joined_with_its_promise_also_by_the_operator_after_this_one(
    simulated_cluster: SimulatedCluster,
    simulated_namespace: str,
    prometheus_url: str,
    models: str,
    tmp_path: Path,
) -> None:
    port = free_port("127.0.0.1", set())

    def operator(name: str) -> Operator:
        watches = ("--prometheus-url", prometheus_url, "--utilisation-preset", "NodeExporter")
        often = ("--poll-seconds", "1", "--observe-seconds", "1", "--utilisation-window-seconds", "10")
        kept = ("--decisions-to", str(tmp_path / f"{name}.jsonl"), "--metrics-port", str(port))
        log = tmp_path / f"{name}.log"
        return Operator(simulated_cluster.kubeconfig, NAMESPACE, log, *watches, *often, *kept)

    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    look = Look(client, simulated_namespace)
    first, second = operator("first"), operator("second")

    async def observed(name: str) -> dict[str, Any] | None:
        return told(tmp_path / f"{name}.jsonl").get("Observed")

    await first.start()
    try:
        made = workload(simulated_namespace, "iris", f"{models}/good.onnx")
        made["spec"]["metrics"] = {"preset": "KServe", "windowSeconds": 30}
        await look.create(INFERENCE_WORKLOADS, made)
        await look.create(PODS, gated_pod(simulated_namespace, POD, "iris"))
        await until(lambda: look.bound_pods(1), "a bound pod", LONGEST_SECONDS)
        line = await until(lambda: observed("first"), "the pod's outcome", LONGEST_SECONDS)
        assert line["observedP90Milliseconds"] == pytest.approx(90, abs=3)
        assert line["predictedP90Milliseconds"] > 0
        assert line["exceeded"] == (line["observedP90Milliseconds"] > line["boundMilliseconds"])
        decided = told(tmp_path / "first.jsonl")["Decided"]
        assert decided["node"] == line["node"]
        assert decided["alternatives"]
        counted = await asyncio.to_thread(samples, port)
        assert counted["tailwise_live_samples_total"] >= 1
        assert counted["tailwise_placement_outcomes_total"] == 1
        assert counted["tailwise_ledger_entries"] >= 1
        assert await first.stop() == 0
        await second.start()
        again = await until(lambda: observed("second"), "the same by the next operator", LONGEST_SECONDS)
        assert again["uid"] == line["uid"]
        assert again["decidedAt"][:19] == line["decidedAt"][:19]
        assert again["alternatives"] == []  # annotations do not tell them
    finally:
        for each in (first, second):
            await each.stop() if each.process is not None else None
            print(each.log_text if each.process is not None else "")
        await client.close()
