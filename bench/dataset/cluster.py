"""The cluster that the dataset is measured on: real nodes, a server for each model, clients, neighbours.

All pods stand before the measuring begins, so that a window costs no start. A server's CPU limit is written
into its control groups (its pod's and its container's, 100 ms period, as kubelet does).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.dataset.groups import PodGroup, pod_group, put_shares_back, raise_shares
from bench.dataset.plan import FAMILIES, LANES, MeasuredNode
from tailwise.api.hardware import NodeHardware
from tests.cluster import lifecycle, paths, real
from tests.cluster.real import RealCluster
from tests.cluster.sizes import Size
from tests.demo.clusters import OPERATOR_IMAGE, SERVING_IMAGE, build_images
from tests.demo.kubectl import Kubectl, wait_for
from tests.demo.target import role
from tests.models import rehydrate

NODES = Path(__file__).parent / "nodes.yaml"
NAMESPACE = "tailwise-dataset"
SERVING_PORT = 8080
_CLIENT_PORT, _NEIGHBOUR_PORT = 8090, 8091
_PROGRAMS = "programs"
_PROGRAM_FILES = ("load_client.py", "neighbour.py")
_LABEL = "tailwise.dev/dataset"
_READY_SECONDS = 600.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
Report = Callable[[str], None]
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Server:
    """One model server: where it is asked, and its control groups."""

    pod: str
    url: str
    group: PodGroup


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that stands while windows are measured.

    ``servers`` by node, model and threads; ``clients`` and ``neighbours`` are URLs by node.
    """

    servers: Mapping[tuple[str, str, int], Server]
    clients: Mapping[str, str]
    neighbours: Mapping[str, str]
    hardware: Mapping[str, NodeHardware]
    node_groups: Mapping[str, str]


def up(name: str, nodes: Path = NODES, progress: Report = print) -> RealCluster:
    """The cluster's nodes, with both images; one that stands is taken as it is."""
    standing = real.get(name)
    if standing is not None:
        return standing
    cluster: RealCluster = lifecycle.up(
        Size.REAL, name, nodes=str(nodes), images=build_images(progress), progress=progress
    )
    return cluster


def down(name: str, progress: Report = print) -> None:
    """End it."""
    lifecycle.down(Size.REAL, name, progress)


def remove(cluster: RealCluster) -> None:
    """Everything that ``prepare`` made, so that the cluster can be used for something else."""
    Kubectl(cluster.kubectl, cluster.kubeconfig).delete(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    )
    put_shares_back(cluster.name, [node.name for node in cluster.nodes])


def prepare(
    cluster: RealCluster,
    report: Report,
    models: Sequence[str] = tuple(FAMILIES),
    lanes: Sequence[Sequence[MeasuredNode]] = LANES,
) -> Stage:
    """Bring every pod up that is not there yet, have the agent measure each node, and return who is where."""
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig)
    nodes = [node for lane in lanes for node in lane]
    directory = paths.cluster_directory(cluster.name) / "models"
    directory.mkdir(exist_ok=True)
    for model in models:
        if not (directory / f"{model}.onnx").exists():
            rehydrate.write(model, directory / f"{model}.onnx")
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    hardware = _measured_hardware(kubectl, nodes, report)
    kubectl.apply([_programs()])
    kubectl.apply(_pods(nodes, models, directory))
    wait_for("pods", lambda: _missing(kubectl), timeout_seconds=_READY_SECONDS, report=report)
    pods = {
        pod["metadata"]["name"]: pod
        for pod in kubectl.get("pods", "--namespace", NAMESPACE, "--selector", _LABEL)["items"]
    }
    stage = Stage(
        servers={
            (node.name, model, threads): _server(cluster, pods[_server_name(node.name, model, threads)])
            for node in nodes
            for model in models
            for threads in node.threads
        },
        clients={
            node.name: f"http://{pods[f'client-{node.name}']['status']['podIP']}:{_CLIENT_PORT}"
            for node in nodes
        },
        neighbours={
            node.name: f"http://{pods[f'neighbour-{node.name}']['status']['podIP']}:{_NEIGHBOUR_PORT}"
            for node in nodes
        },
        hardware=hardware,
        node_groups={node.name: cluster.node(node.name).group for node in nodes},
    )
    raise_shares(cluster.name, [node.name for node in nodes] + ["client"])
    for node in nodes:
        for name in (
            f"neighbour-{node.name}",
            *(s.pod for (n, _, _), s in stage.servers.items() if n == node.name),
        ):
            group = pod_group(cluster.node(node.name).group, pods[name]["metadata"]["uid"])
            group.request(node.request_millicores)
    _wait_until_served(stage, report)
    return stage


def ask(url: str, document: Mapping[str, Any], timeout_seconds: float) -> Any:
    """POST a document and return the answer's, if it has one."""
    request = urllib.request.Request(url, json.dumps(document).encode(), method="POST")  # noqa: S310 - http
    try:
        with _OPENER.open(request, timeout=timeout_seconds) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url}: {error.read()[:300].decode(errors='replace')}") from error
    return json.loads(body) if body else None


# ---- parts


def _server_name(node: str, model: str, threads: int) -> str:
    return f"{model.replace('_', '-')}-t{threads}-{node}"


def _server(cluster: RealCluster, pod: Manifest) -> Server:
    group = pod_group(cluster.node(pod["spec"]["nodeName"]).group, pod["metadata"]["uid"])
    return Server(pod["metadata"]["name"], f"http://{pod['status']['podIP']}:{SERVING_PORT}", group)


def _programs() -> Manifest:
    sources = {name: (Path(__file__).parent / name).read_text(encoding="utf-8") for name in _PROGRAM_FILES}
    metadata = {"name": _PROGRAMS, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": sources}


def _pods(nodes: Sequence[MeasuredNode], models: Sequence[str], directory: Path) -> list[Manifest]:
    made = []
    for node in nodes:
        here = {"nodeSelector": {"kubernetes.io/hostname": node.name}}
        made.append(_pod(f"neighbour-{node.name}", here, _program("neighbour.py")))
        made.append(_pod(f"client-{node.name}", role("client").spec(), _program("load_client.py")))
        for model in models:
            for threads in node.threads:
                environment = {"MODEL_PATH": f"/dataset-models/{model}.onnx", "THREADS": str(threads)}
                parts = {
                    "env": [{"name": key, "value": value} for key, value in environment.items()],
                    "volumeMounts": [{"name": "models", "mountPath": "/dataset-models", "readOnly": True}],
                }
                volumes = [{"name": "models", "hostPath": {"path": str(directory)}}]
                made.append(_pod(_server_name(node.name, model, threads), here, parts, volumes))
    return made


def _program(name: str) -> Manifest:
    return {
        "command": ["python", f"/programs/{name}"],
        "volumeMounts": [{"name": "programs", "mountPath": "/programs", "readOnly": True}],
    }


def _pod(
    name: str, where: Manifest, container: Manifest, volumes: Sequence[Manifest] | None = None
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {_LABEL: "true"}},
        "spec": {
            **where,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": SERVING_IMAGE,
                    "imagePullPolicy": "Never",
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                    **container,
                }
            ],
            "volumes": list(volumes or [{"name": "programs", "configMap": {"name": _PROGRAMS}}]),
        },
    }


def _missing(kubectl: Kubectl) -> str | None:
    pods = kubectl.get("pods", "--namespace", NAMESPACE, "--selector", _LABEL)["items"]
    ready = sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in pods
        for condition in pod.get("status", {}).get("conditions", ())
    )
    return None if ready == len(pods) else f"{ready} of {len(pods)} run"


def _wait_until_served(stage: Stage, report: Report) -> None:
    """A server's port opens when its model is loaded and has run once."""
    urls = [
        *(f"{server.url}/v2/models/{model}/ready" for (_, model, _), server in stage.servers.items()),
        *stage.clients.values(),
        *stage.neighbours.values(),
    ]

    def unready() -> str | None:
        with ThreadPoolExecutor(8) as pool:
            answered = sum(pool.map(_answers, urls))
        return None if answered == len(urls) else f"{answered} of {len(urls)} answer"

    wait_for("servers", unready, timeout_seconds=_READY_SECONDS, report=report)


def _answers(url: str) -> bool:
    try:
        with _OPENER.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _measured_hardware(
    kubectl: Kubectl, nodes: Sequence[MeasuredNode], report: Report
) -> dict[str, NodeHardware]:
    """What the product's own agent says of each node, one node after another."""
    measured = {}
    for node in nodes:
        name = f"agent-{node.name}"
        kubectl.apply([_agent(name, node.name)])

        def unfinished(name: str = name) -> str | None:
            phase = kubectl.get("pod", name, "--namespace", NAMESPACE)["status"].get("phase")
            if phase == "Failed":
                said = kubectl.run("logs", name, "--namespace", NAMESPACE)
                raise RuntimeError(f"pod {name}: {said.strip()[-300:]}")
            return None if phase == "Succeeded" else str(phase)

        wait_for(f"agent on {node.name}", unfinished, timeout_seconds=240, report=report)
        printed = kubectl.run("logs", name, "--namespace", NAMESPACE)
        document = printed[printed.index("node:") :]
        measured[node.name] = NodeHardware.model_validate(yaml.safe_load(document))
    return measured


def _agent(name: str, node: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "agent",
                    "image": OPERATOR_IMAGE,
                    "imagePullPolicy": "Never",
                    "args": [
                        "agent",
                        "--print",
                        f"--node-name={node}",
                        "--host-cgroup-root=/host/sys/fs/cgroup",
                    ],
                    "env": [
                        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    ],
                    "volumeMounts": [
                        {"name": "cgroup", "mountPath": "/host/sys/fs/cgroup", "readOnly": True},
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
                    ],
                }
            ],
            "volumes": [
                {"name": "cgroup", "hostPath": {"path": "/sys/fs/cgroup"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
