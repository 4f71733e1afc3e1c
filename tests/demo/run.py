"""The demonstration's steps on a cluster that is up: install, default scheduler, Tailwise."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailwise.benchmark.kubectl import wait_for
from tests.cluster.paths import logs_directory
from tests.demo import chart, loadgen, manifests
from tests.demo.local_operator import local_operator
from tests.demo.manifests import NAMESPACE, SYSTEM_NAMESPACE
from tests.demo.report import PodResult
from tests.demo.stages import Stages
from tests.demo.target import Target

SERVING_PORT = 8080
_UTILISATION_SECONDS = 75  # a window, a scrape and a poll
_LEFT_BEHIND = "tailwise-demo/policy"


@dataclass(slots=True)
class Run:
    """One run of the demonstration."""

    target: Target
    stages: Stages
    queries: int
    neighbour_node: str | None = None
    model_base_url: str = ""
    _model_store_address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None

    def install(self, neighbour: bool = True) -> None:
        """Namespaces, the chart, the store of models, every node measured, and a busy neighbour if wanted."""
        kubectl, target = self.target.kubectl, self.target
        for namespace in (NAMESPACE, SYSTEM_NAMESPACE):
            kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
        if target.runs_containers:
            kubectl.apply([manifests.model_store(target)])
            # Before the chart: on a cluster whose pod networks are not known its address is what is allowed.
            wait_for("model store", self._model_store, timeout_seconds=180, report=self.stages.report)
        chart.install(target, list(target.pod_networks) or self._model_store_network(), self.stages.report)
        self._remove_workloads()
        if not target.runs_containers:
            self.model_base_url = manifests.local_model_store(logs_directory("demo").parent / "demo-models")
            return
        chart.wait_until_it_serves(target, self.stages.report)
        if neighbour:
            self._start_neighbour()

    def default_scheduler(self) -> list[PodResult]:
        """The examples' pods as Deployments that Tailwise does not see, and what LoadGen measured there."""
        deployments = [manifests.by_default_scheduler(workload) for workload in self.workloads()]
        self.target.kubectl.apply(deployments)
        selector = "tailwise-demo/policy=default"
        pods = self.ready_pods(selector)
        latencies = self.measure("default", pods)
        self.target.kubectl.delete(deployments)
        self.wait_gone(selector)
        # Both policies find the same cluster: the neighbour, and nothing of the run before.
        self._let_utilisation_settle()
        return [self._result(pod, latencies, {}) for pod in pods]

    def tailwise(self) -> list[PodResult]:
        """The examples applied as a user would; every pod must run on the node that status names."""
        workloads = self.workloads()
        with local_operator(self.target, self.stages.report), self._watching():
            self.target.kubectl.apply(workloads)
            selector = "tailwise.dev/workload"
            pods = self.ready_pods(selector)
            placements = self.placements(pods)
        latencies = self.measure("tailwise", pods) if self.target.runs_containers else {}
        if latencies:
            # Prometheus has the last samples one scrape later, status shows them at the next resync.
            time.sleep(20)
        print(self.target.kubectl.run("get", "inferenceworkloads,latencymodels", "--all-namespaces"))
        return [self._result(pod, latencies, placements) for pod in pods]

    # ---- parts

    def _remove_workloads(self) -> None:
        """End what an earlier run of the demonstration left on a cluster that was kept."""
        kubectl = self.target.kubectl
        in_demo = ("--namespace", NAMESPACE)
        kubectl.run("delete", "deployments", *in_demo, "--selector", _LEFT_BEHIND, timeout_seconds=300)
        kubectl.run("delete", "inferenceworkloads", *in_demo, "--all", timeout_seconds=300)
        for selector in ("tailwise.dev/workload", _LEFT_BEHIND):
            self.wait_gone(selector)

    def workloads(self) -> list[dict[str, Any]]:
        """The examples as this cluster needs them."""
        return [
            manifests.adapted(example, self.target, self.model_base_url) for example in manifests.examples()
        ]

    def _model_store(self) -> str | None:
        pods = self.pods(manifests.MODEL_STORE_SELECTOR)
        if not pods or not _is_ready(pods[0]):
            return "not ready"
        self._model_store_address = ipaddress.ip_address(pods[0]["status"]["podIP"])
        host = self._model_store_address
        name = f"[{host}]" if host.version == 6 else str(host)
        self.model_base_url = f"http://{name}:{manifests.MODEL_STORE_PORT}"
        return None

    def _model_store_network(self) -> list[str]:
        address = self._model_store_address
        return [] if address is None else [str(ipaddress.ip_network(address))]

    def _start_neighbour(self) -> None:
        node = self.neighbour_node or self._largest_node()
        if node is None:
            return
        self.stages.report(f"a busy neighbour runs on node {node}")
        self.target.kubectl.apply([manifests.neighbour(self.target, node)])
        self._let_utilisation_settle()

    def _let_utilisation_settle(self) -> None:
        """Utilisation is a mean over a window: what began must be wholly in it, what ended out of it."""
        time.sleep(_UTILISATION_SECONDS)

    def _largest_node(self) -> str | None:
        if not self.target.serving_nodes:
            return None
        return max(self.target.serving_nodes, key=lambda name: float(self.target.serving_nodes[name] or 0))

    def ready_pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods of all examples, once every one of them is ready and no other is there."""
        expected = sum(workload["spec"]["replicas"] for workload in self.workloads())

        def missing() -> str | None:
            pods = self.pods(selector)
            ready = sum(_is_ready(pod) for pod in pods)
            return None if ready == len(pods) == expected else f"{ready} of {expected} pods ready"

        wait_for("pods", missing, timeout_seconds=900, report=self.stages.report)
        return self.pods(selector)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods that are not ending."""
        pods: list[dict[str, Any]] = self.target.kubectl.get(
            "pods", "--namespace", NAMESPACE, "--selector", selector
        )["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def wait_gone(self, selector: str) -> None:
        """Wait until no pod is left, ending ones included."""

        def left() -> str | None:
            pods = self.target.kubectl.get("pods", "--namespace", NAMESPACE, "--selector", selector)["items"]
            return f"{len(pods)} pods are ending" if pods else None

        wait_for("pods", left, timeout_seconds=180, report=self.stages.report)

    def measure(self, run: str, pods: Sequence[Mapping[str, Any]]) -> Mapping[str, loadgen.Latency]:
        """LoadGen at all of them at once; latencies by pod."""
        asked = [
            loadgen.Query(
                pod=pod["metadata"]["name"],
                address=pod["status"]["podIP"],
                port=SERVING_PORT,
                model=_model_name(pod),
            )
            for pod in pods
        ]
        return loadgen.measure(self.target, NAMESPACE, run, asked, self.queries, self.stages.report)

    def placements(self, pods: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Status' placements by pod, once they are complete; a pod elsewhere than status says is an error."""

        def read() -> dict[str, Mapping[str, Any]]:
            workloads = self.target.kubectl.get("inferenceworkloads", "--namespace", NAMESPACE)["items"]
            return {
                placement["pod"]: placement
                for workload in workloads
                for placement in workload.get("status", {}).get("placements", ())
            }

        names = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods}
        wait_for(
            "status",
            lambda: None if names.keys() <= read().keys() else "placements are not complete yet",
            timeout_seconds=60,
            report=self.stages.report,
        )
        placements = read()
        elsewhere = {
            name: f"{name} on {node}, status: {placements[name].get('node') or placements[name]['result']}"
            for name, node in names.items()
            if placements[name].get("node") != node
        }
        agree = len(names) - len(elsewhere)
        self.stages.report(f"{agree} of {len(names)} pods run on the node that status names")
        if elsewhere:
            why = "; ".join(self._not_placed())
            told = f" ({why})" if why else ""
            raise TimeoutError(
                f"pods on another node than status names: {'; '.join(elsewhere.values())}{told}"
            )
        return placements

    def _not_placed(self) -> list[str]:
        """What workloads say of pods that were let go without a decision."""
        workloads = self.target.kubectl.get("inferenceworkloads", "--namespace", NAMESPACE)["items"]
        return [
            f"{workload['metadata']['name']}: {condition['message']}"
            for workload in workloads
            for condition in workload.get("status", {}).get("conditions", ())
            if condition["type"] == "Placed" and condition["status"] == "False"
        ]

    def _result(
        self,
        pod: Mapping[str, Any],
        latencies: Mapping[str, loadgen.Latency],
        placements: Mapping[str, Mapping[str, Any]],
    ) -> PodResult:
        name = pod["metadata"]["name"]
        model = _model_name(pod)
        workload = next(w for w in self.workloads() if model == _model_name(w["spec"]["template"]))
        predicted = placements.get(name, {}).get("predictedP90Milliseconds")
        latency = latencies.get(name)
        return PodResult(
            workload=workload["metadata"]["name"],
            pod=name,
            node=pod["spec"]["nodeName"],
            slo_milliseconds=workload["spec"]["slo"]["latencyMilliseconds"],
            predicted_p90_milliseconds=None if predicted is None else float(predicted),
            measured_p90_milliseconds=None if latency is None else latency.p90_milliseconds,
            latencies_milliseconds=() if latency is None else latency.latencies_milliseconds,
        )

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """``kubectl get inferenceworkloads --watch`` on standard output while the workloads settle."""
        watch = subprocess.Popen(
            [
                str(self.target.kubectl.binary),
                "get",
                "inferenceworkloads",
                "--namespace",
                NAMESPACE,
                "--watch",
            ],
            env={**os.environ, **self.target.kubectl.environment},
        )
        try:
            yield
        finally:
            watch.terminate()
            watch.wait(timeout=10)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _model_name(pod_or_template: Mapping[str, Any]) -> str:
    """The model a pod serves: MODEL_NAME of its first container, else its model file's name."""
    variables = {
        variable["name"]: variable.get("value", "")
        for variable in pod_or_template["spec"]["containers"][0].get("env", ())
    }
    return str(variables.get("MODEL_NAME") or Path(variables["MODEL_PATH"]).stem)
