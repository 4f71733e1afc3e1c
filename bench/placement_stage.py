"""What a round of the placement benchmark needs: cluster, gate, workloads, pods, the operator's process.

Pods belong to ReplicaSets, as those of Deployments do, and ask for a kind of node by required affinity, as in
scheduler_perf's SchedulingNodeAffinity. The controller of ReplicaSets is switched off: the benchmark makes
the pods itself, at the rate that it wants.
"""

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

from tailwise.api.labels import PLACEMENT_GATE, SCHEDULER_NAME, WORKLOAD_LABEL
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
CONTROLLERS = "*,-replicaset-controller"
# Three of the four kinds of simulated nodes; the kind is required, the node is not.
_NODE_KINDS = ("medium", "large", "xlarge")
_KIND_LABEL = "node.kubernetes.io/instance-type"
_FOREIGN_GATE = "bench.tailwise.dev/waits"
_TOKEN_SECONDS = 86_400
_READY_SECONDS, _EMPTY_SECONDS, _SETTLED_SECONDS = 120.0, 300.0, 300.0


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
    cluster = simulated.up(name, nodes, controllers=CONTROLLERS)
    # One that a crash left would place pods in the rounds that are without.
    for daemon in processes.recorded(cluster.plane.directory):
        if daemon.name.startswith("operator"):
            processes.stop(cluster.plane.directory, daemon.name)
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
        until(lambda: _holds(client, f"{path}/serviceaccounts/default"), _READY_SECONDS, f"{name}: account")
        yield name
    finally:
        _delete_pods(client, f"{path}/pods")
        client.request("DELETE", path)
        until(lambda: not _holds(client, path), _EMPTY_SECONDS, f"{name}: end")


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
    labelled = pod(name, "probe", None)
    labelled["metadata"]["labels"][WORKLOAD_LABEL] = "nobody"

    def gated() -> bool:
        made = stage.client.request("POST", path, labelled)
        return any(gate["name"] == PLACEMENT_GATE for gate in made["spec"].get("schedulingGates") or ())

    until(gated, _READY_SECONDS, "the gate's MutatingAdmissionPolicy")


@dataclass(frozen=True, slots=True)
class Maker:
    """What pods of a round are made for: a workload's name, None where nobody but kube-scheduler places."""

    owner: dict[str, Any]
    workload: str | None = None
    binds: bool = False


def make_makers(stage: Stage, name: str, *, workloads: bool, binds: bool = False) -> tuple[Maker, ...]:
    """A ReplicaSet for each of MODELS, and with ``workloads`` its InferenceWorkload, whose figures are given
    so that no model is read. ``binds``: the pods are bound by Tailwise."""
    makers = []
    for model in MODELS:
        workload = _object_name(model)
        if workloads:
            make_workload(stage, name, workload, model)
        makers.append(Maker(replica_set(stage, name, workload), workload if workloads else None, binds))
    return tuple(makers)


def make_workload(stage: Stage, namespace: str, name: str, model: str, **slo_and_placement: Any) -> None:
    """A label-only InferenceWorkload that every node can serve, unless told otherwise."""
    manifest = workload_manifest(namespace, name, model)
    manifest["spec"] |= slo_and_placement
    stage.client.apply(manifest)


def workload_manifest(namespace: str, name: str, model: str) -> dict[str, Any]:
    """The InferenceWorkload with the figures of one of MODELS."""
    known = reference()[model]
    profile = {
        "flops": known["convolutionAndMatmulFlops"],
        "parameters": known["parameters"],
        "parameterBytes": 4 * known["parameters"],
    }
    return {
        "apiVersion": INFERENCE_WORKLOADS.api_version,
        "kind": INFERENCE_WORKLOADS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"url": f"https://models.invalid/{model}.onnx", "profile": profile},
            "slo": {"latencyMilliseconds": 60_000},
            "load": {"requestsPerSecond": 1},
        },
    }


def replica_set(stage: Stage, namespace: str, name: str) -> dict[str, Any]:
    """Make a ReplicaSet and return the owner reference of its pods."""
    labels = {"app": "bench"}
    template = {"metadata": {"labels": labels}, "spec": pod_spec()}
    made = stage.client.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name}
    return {**reference, "uid": made["metadata"]["uid"], "controller": True}


def pod(namespace: str, name: str, maker: Maker | None) -> dict[str, Any]:
    """A pod that asks for next to nothing, so that room on the nodes is no matter."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": {"app": "bench"}}
    spec = pod_spec()
    if maker is not None:
        metadata["ownerReferences"] = [maker.owner]
        if maker.workload is not None:
            metadata["labels"][WORKLOAD_LABEL] = maker.workload
        if maker.binds:
            spec["schedulerName"] = SCHEDULER_NAME
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def pod_spec() -> dict[str, Any]:
    """One container, and the kinds of nodes that the pod may go to."""
    resources = {"requests": {"cpu": "10m", "memory": "8Mi"}}
    container = {"name": "server", "image": "registry.invalid/server:1", "resources": resources}
    kinds = {"key": _KIND_LABEL, "operator": "In", "values": list(_NODE_KINDS)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [kinds]}]}
    return {
        "containers": [container],
        "automountServiceAccountToken": False,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    }


# ---- pods that wait


def make_waiting(stage: Stage, namespace: str, pods: int, *, gated_by_tailwise: bool) -> None:
    """So many pods at a gate: at somebody else's, or at Tailwise's for an SLO that no node holds."""
    maker = None
    if gated_by_tailwise:
        make_workload(
            stage,
            namespace,
            "hopeless",
            MODELS[0],
            slo={"latencyMilliseconds": 1},
            placement={"fallback": "Hold"},
        )
        maker = Maker(replica_set(stage, namespace, "hopeless"), "hopeless")
    path = f"/api/v1/namespaces/{namespace}/pods"

    def make(number: int) -> None:
        manifest = pod(namespace, f"waits-{number:05d}", maker)
        if maker is None:
            manifest["spec"]["schedulingGates"] = [{"name": _FOREIGN_GATE}]
        stage.client.request("POST", path, manifest)

    for first in range(0, pods, 1000):
        api.for_each(make, range(first, min(first + 1000, pods)))
        print(f"  {min(first + 1000, pods)} of {pods} waiting pods made", flush=True)


def await_waiting(running: OperatorProcess, pods: int) -> None:
    """Return once the operator has looked at so many pods and has nothing to do."""

    def settled() -> bool:
        return running.metrics().get("tailwise_gated_pods", 0) >= pods and not running.queued("pods")

    until(settled, _SETTLED_SECONDS, f"{pods} pods known to wait")


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

    def metrics(self) -> dict[str, float]:
        """What it serves to Prometheus, by name and labels."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in series}

    def queued(self, queue: str) -> int:
        """Keys that wait in one of its queues."""
        return int(self.metrics().get(f'tailwise_queue_depth{{queue="{queue}"}}', 0))


@contextmanager
def operator(
    stage: Stage, cprofile: Path | None = None, arguments: Iterable[str] = ()
) -> Iterator[OperatorProcess]:
    """Run the operator until the end of the block; it leads, with all in memory, when this returns.

    ``cprofile`` is a file for its profile, which makes it slower. The process is recorded with the
    cluster's, so that ``make clean-cluster`` ends it too after a crash.
    """
    profiler = ("-m", "cProfile", "-o", str(cprofile)) if cprofile else ()
    with replica(stage, "operator", ("--no-leader-elect", *arguments), profiler) as running:
        await_leader(running)
        yield running


def operator_kubeconfig(stage: Stage) -> Path:
    """As a pod's: a service account's token. The API server verifies certificates anew for each request: that
    takes it a third of a millisecond, and no operator in a cluster has one."""
    path = stage.cluster.plane.directory / "operator.kubeconfig"
    account = {"name": "bench-operator", "namespace": SYSTEM_NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    stage.client.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    stage.client.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": account["name"]},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **account}],
        }
    )
    url = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts/{account['name']}/token"
    request = {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
    token = stage.client.request("POST", url, request)["status"]["token"]
    document = yaml.safe_load(stage.cluster.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def replica(
    stage: Stage, name: str, arguments: Iterable[str] = (), profiler: Iterable[str] = ()
) -> Iterator[OperatorProcess]:
    """One process of the operator, begun when this returns; ``name`` tells it from others of the cluster."""
    plane = stage.cluster.plane
    port = ports.free_port("127.0.0.1", set())
    command = [
        sys.executable, *profiler, "-m", "tailwise", "operator", f"--namespace={SYSTEM_NAMESPACE}",
        f"--kubeconfig={operator_kubeconfig(stage)}", f"--prometheus-url={stage.cluster.prometheus_url}",
        "--utilisation-preset=NodeExporter", "--health-port=0", f"--metrics-port={port}", *arguments,
    ]  # fmt: skip
    daemon = processes.start(plane.directory, name, command, logs=plane.logs)
    try:
        yield OperatorProcess(daemon.pid, port)
    finally:
        processes.stop(plane.directory, name, grace_seconds=30)


def await_leader(running: OperatorProcess) -> None:
    """Return once a process has all in memory and leads."""
    processes.wait_until_ready(
        "operator", lambda: _not_leading(running), timeout_seconds=_READY_SECONDS, interval_seconds=0.1
    )


def _not_leading(running: OperatorProcess) -> str | None:
    try:
        leading = running.metrics().get("tailwise_leader") == 1
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


def until(
    true: Callable[[], bool], timeout_seconds: float, what: str, *, interval_seconds: float = 0.3
) -> None:
    """Wait for what is true in the end, and say so every few seconds."""
    probe = lambda: None if true() else "not yet"  # noqa: E731
    processes.wait_until_ready(
        what, probe, timeout_seconds=timeout_seconds, interval_seconds=interval_seconds
    )


def _object_name(model: str) -> str:
    return model.replace("_", "-")
