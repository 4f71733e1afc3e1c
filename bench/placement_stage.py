"""What a round of the placement benchmark needs: cluster, gate, workloads, pods, the operator's process."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tailwise.api.labels import PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS, PODS, Client
from tests.cluster import api, binaries, crds, ports, processes, simulated
from tests.cluster.hardware_maps import NAMESPACE as SYSTEM_NAMESPACE
from tests.cluster.locks import exclusive
from tests.cluster.paths import cluster_directory
from tests.models.rehydrate import reference

ROOT = Path(__file__).resolve().parents[1]
_GATE_TEMPLATE = "templates/admission/placement-gate.yaml"
# Models of which every simulated node can answer a query a second: what is measured is placing, not waiting.
MODELS = (
    "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1", "shufflenet_v2_x1_0",
    "mobilenet_v3_small", "densenet121", "inception_v3", "mlp_512_2048",
)  # fmt: skip
# The daemons of the harness that take part, by the names of their records.
PARTS = ("kube-apiserver", "etcd", "kube-scheduler", "kube-controller-manager", "kwok")
_READY_SECONDS, _EMPTY_SECONDS = 120.0, 300.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A simulated cluster with the CRDs and the gate's policy of the chart."""

    cluster: simulated.SimulatedCluster
    client: api.Api

    @property
    def parts(self) -> dict[str, int]:
        """Ids of the control plane's processes."""
        directory = self.cluster.plane.directory
        running = {name: processes.running(directory, name) for name in PARTS}
        return {name: daemon.pid for name, daemon in running.items() if daemon is not None}


@contextmanager
def alone(cluster: str) -> Iterator[None]:
    """Wait until no other benchmark has the cluster: each changes its nodes and ends the other's operator."""
    lock = cluster_directory(cluster).parent / f".{cluster}.benchmark.lock"
    with exclusive(lock, f"benchmark on cluster {cluster}"):
        yield


def bring_up(name: str, nodes: int) -> Stage:
    """Bring the cluster up, or change the one that is there into this."""
    cluster = simulated.up(name, nodes)
    # One that a crash left would place pods in the rounds that are without.
    processes.stop(cluster.plane.directory, "operator")
    client = api.connect(cluster.plane)
    crds.apply(client)
    for manifest in _gate_policy():
        client.apply(manifest)
    return Stage(cluster, client)


def _gate_policy() -> list[dict[str, Any]]:
    """The policy that gates labelled pods, as the chart has it."""
    command = [str(binaries.program("helm")), "template", "tailwise", str(ROOT / "helm/tailwise")]
    command += ["--set=placementGate.policy=Enabled", f"--show-only={_GATE_TEMPLATE}"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


# ---- a namespace for each round


@contextmanager
def namespace(stage: Stage, name: str) -> Iterator[str]:
    """A namespace in which pods can be made; at the end it is emptied and gone, so that rounds are alike."""
    client, path = stage.client, f"/api/v1/namespaces/{name}"
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        # A pod is refused until controller-manager has made the namespace's service account.
        _until(lambda: _holds(client, f"{path}/serviceaccounts/default"), _READY_SECONDS, f"{name}: account")
        yield name
    finally:
        _delete_pods(client, f"{path}/pods")
        client.request("DELETE", path)
        _until(lambda: not _holds(client, path), _EMPTY_SECONDS, f"{name}: end")


def _delete_pods(client: api.Api, path: str) -> None:
    """One request a pod: a thousand in one took over a minute, and no client waits that long."""

    def delete(name: str) -> None:
        try:
            client.request("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
        except api.ApiError as error:
            if error.status != 404:
                raise

    api.for_each(delete, [pod["metadata"]["name"] for pod in client.request("GET", path)["items"]])


def await_gate(stage: Stage, name: str) -> None:
    """Return once the API server gates labelled pods; a new policy takes effect after a moment."""
    path = f"/api/v1/namespaces/{name}/pods?dryRun=All"

    def gated() -> bool:
        made = stage.client.request("POST", path, pod(name, "probe", "nobody"))
        return any(gate["name"] == PLACEMENT_GATE for gate in made["spec"].get("schedulingGates") or ())

    _until(gated, _READY_SECONDS, "the gate's MutatingAdmissionPolicy")


def make_workloads(stage: Stage, name: str) -> tuple[str, ...]:
    """One label-only InferenceWorkload for each of MODELS, its figures given so that no model is read."""
    figures = reference()
    for model in MODELS:
        known = figures[model]
        profile = {
            "flops": known["convolutionAndMatmulFlops"],
            "parameters": known["parameters"],
            "parameterBytes": 4 * known["parameters"],
        }
        url = f"https://models.invalid/{model}.onnx"
        spec = {
            "model": {"url": url, "profile": profile},
            "slo": {"latencyMilliseconds": 60_000},
            "load": {"requestsPerSecond": 1},
        }
        stage.client.apply(
            {
                "apiVersion": INFERENCE_WORKLOADS.api_version,
                "kind": INFERENCE_WORKLOADS.kind,
                "metadata": {"name": _object_name(model), "namespace": name},
                "spec": spec,
            }
        )
    return tuple(_object_name(model) for model in MODELS)


def pod(namespace: str, name: str, workload: str | None) -> dict[str, Any]:
    """A pod that asks for next to nothing, so that room on the nodes is no matter."""
    resources = {"requests": {"cpu": "10m", "memory": "8Mi"}}
    container = {"name": "server", "image": "registry.invalid/server:1", "resources": resources}
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": {"app": "bench"}}
    if workload is not None:
        metadata["labels"][WORKLOAD_LABEL] = workload
    spec = {"containers": [container], "automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def create(client: Client, manifest: dict[str, Any]) -> None:
    """Create a pod; raises RuntimeError when the API server refuses it."""
    written = await apply.create(client, PODS, manifest)
    if not written.done:
        raise RuntimeError(f"Pod {manifest['metadata']['name']} was not created: {written.message}")


# ---- the operator


@dataclass(frozen=True, slots=True)
class OperatorProcess:
    """The operator as its own process, leading."""

    pid: int
    metrics_port: int

    def metrics(self) -> str:
        """What it serves to Prometheus."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())


@contextmanager
def operator(stage: Stage, cprofile: Path | None, arguments: Iterable[str]) -> Iterator[OperatorProcess]:
    """Run the operator until the end of the block; it leads, with all in memory, when this returns.

    ``cprofile`` is a file for its profile, which makes it slower. The process is recorded with the
    cluster's, so that ``make clean-cluster`` ends it too after a crash.
    """
    plane = stage.cluster.plane
    port = ports.free_port("127.0.0.1", set())
    profiler = ["-m", "cProfile", "-o", str(cprofile)] if cprofile else []
    command = [
        sys.executable, *profiler, "-m", "tailwise", "operator", f"--namespace={SYSTEM_NAMESPACE}",
        f"--kubeconfig={plane.kubeconfig}", f"--prometheus-url={stage.cluster.prometheus_url}",
        "--utilisation-preset=NodeExporter", "--no-leader-elect", "--health-port=0",
        f"--metrics-port={port}", *arguments,
    ]  # fmt: skip
    daemon = processes.start(plane.directory, "operator", command, logs=plane.logs)
    running = OperatorProcess(daemon.pid, port)
    try:
        processes.wait_until_ready(
            "operator", lambda: _not_leading(running), daemons=(daemon,), timeout_seconds=_READY_SECONDS
        )
        yield running
    finally:
        processes.stop(plane.directory, "operator", grace_seconds=30)


def histogram(text: str, name: str) -> dict[float, float]:
    """Cumulative counts of a histogram without labels by upper bound, from what a metrics port serves."""
    counts = {}
    for line in text.splitlines():
        if line.startswith(f"{name}_bucket{{"):
            labels, value = line.rsplit(" ", 1)
            counts[float(labels.split('le="')[1].split('"')[0])] = float(value)
    return counts


def bucket_bound(counts: dict[float, float], quantile: float) -> float:
    """Upper bound of the bucket that holds the quantile: all that a histogram knows for sure."""
    wanted = quantile * max(counts.values(), default=0.0)
    return next((bound for bound in sorted(counts) if counts[bound] >= wanted), float("nan"))


def _not_leading(running: OperatorProcess) -> str | None:
    try:
        leading = "\ntailwise_leader 1.0" in running.metrics()
    except OSError as error:
        return f"no metrics yet ({error})"
    return None if leading else "does not lead yet"


def _holds(client: api.Api, path: str) -> bool:
    try:
        client.request("GET", path)
    except api.ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _until(true: Callable[[], bool], timeout_seconds: float, what: str) -> None:
    probe = lambda: None if true() else "not yet"  # noqa: E731
    processes.wait_until_ready(what, probe, timeout_seconds=timeout_seconds, interval_seconds=0.3)


def _object_name(model: str) -> str:
    return model.replace("_", "-")
