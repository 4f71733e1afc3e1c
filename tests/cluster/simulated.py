"""A control plane with simulated nodes (kwok), their hardware, their utilisation and a Prometheus.

Pods on these nodes become Running at once and do nothing. All else is real: API, scheduling, time series.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tailwise.cluster.hardware import config_map
from tests.cluster import (
    api,
    binaries,
    controlplane,
    exporter,
    hardware_maps,
    ports,
    probes,
    processes,
    prometheus,
)
from tests.cluster.controlplane import ControlPlane, ControlPlaneSpec
from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.paths import cluster_directory
from tests.cluster.simulated_nodes import SimulatedNode, read
from tests.cluster.utilisation import Segment, Utilisation

_LOOPBACK = "127.0.0.1"
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
_SHAPE_ANNOTATION = "tailwise.dev/simulated-shape"
_MANAGED_ANNOTATION = {"kwok.x-k8s.io/node": "fake"}
_MANY_NODES = 500
_LEASE_SECONDS = 200
# kwok renews a lease after a quarter of its duration, 50 s: just what controller-manager waits by default
# before it calls a node NotReady, so that nodes came and went as soon as the machine was busy.
_PATIENCE = (f"--node-monitor-grace-period={_LEASE_SECONDS}s",)


@dataclass(frozen=True, slots=True)
class SimulatedCluster:
    """A running simulated cluster: its control plane, Prometheus' URL and the nodes' names."""

    plane: ControlPlane
    prometheus_url: str
    nodes: tuple[str, ...]

    @property
    def kubeconfig(self) -> Path:
        """The control plane's kubeconfig."""
        return self.plane.kubeconfig


# ---- what callers use


def up(
    name: str,
    nodes: str | int | Path = 12,
    *,
    kubernetes_version: str = binaries.DEFAULT_KUBERNETES,
    controllers: str | None = None,
    progress: Progress = say,
) -> SimulatedCluster:
    """Bring the cluster up with exactly these nodes, or change the one of this name into that.

    `nodes` is a number or a YAML file of shapes (simulated_nodes.read); `controllers` is
    kube-controller-manager's own option. Returns when all nodes are Ready and Prometheus has scraped them
    twice, so that a rate can be asked for.
    """
    wanted = read(nodes)
    for program in ("kwok", "prometheus"):
        binaries.program(program, progress=progress)
    manager = _PATIENCE if controllers is None else (*_PATIENCE, f"--controllers={controllers}")
    spec = ControlPlaneSpec(
        name, kubernetes_version=kubernetes_version, extra_arguments={"kube-controller-manager": manager}
    )
    plane = controlplane.up(spec, progress)
    with exclusive(plane.directory.parent / f".{name}.lock", f"cluster {name}", progress):
        began = time.monotonic()
        exported = _start_exporter(plane, wanted, progress)
        url = prometheus.up(plane.directory, plane.logs, _prometheus_spec(exported, wanted), progress)
        kwok = _start_kwok(plane, progress)
        client = api.connect(plane)
        _make_nodes(client, wanted, progress)
        processes.wait_until_ready(
            f"cluster {name}: nodes",
            lambda: _not_ready(client, wanted),
            daemons=(kwok,),
            timeout_seconds=300,
            # Each look lists all nodes: thousands of them are not to be listed ten times a second.
            interval_seconds=max(0.1, len(wanted) / 500),
            progress=progress,
        )
        processes.wait_until_ready(
            f"cluster {name}: utilisation",
            lambda: _not_scraped(url, wanted),
            timeout_seconds=120,
            progress=progress,
        )
        progress(
            f"cluster {name}: {len(wanted)} simulated nodes ready, Prometheus at {url}, "
            f"in {time.monotonic() - began:.1f} s"
        )
    cluster = SimulatedCluster(plane, url, tuple(node.name for node in wanted))
    record = {"prometheus_url": url, "nodes": cluster.nodes}
    (plane.directory / "simulated.json").write_text(json.dumps(record))
    return cluster


def get(name: str) -> SimulatedCluster | None:
    """Return the simulated cluster of this name if it is up, else None."""
    plane = controlplane.get(name)
    path = cluster_directory(name) / "simulated.json"
    if plane is None or not path.exists():
        return None
    record = json.loads(path.read_text())
    return SimulatedCluster(plane, record["prometheus_url"], tuple(record["nodes"]))


def set_utilisation(cluster: SimulatedCluster, node: str, utilisation: Utilisation) -> None:
    """Give a node another utilisation from now on; its counters go on from where they are."""
    _change_script(
        cluster,
        node,
        lambda scripted: replace(
            scripted, segments=(*scripted.segments, Segment(time.time(), utilisation)), silent=False
        ),
    )


def silence(cluster: SimulatedCluster, node: str) -> None:
    """Make a node's exporter stop answering, until set_utilisation; its counters go on unseen."""
    _change_script(cluster, node, lambda scripted: replace(scripted, silent=True))


def down(name: str, progress: Progress = say) -> None:
    """End the cluster and remove its state; the logs stay."""
    controlplane.down(name, progress)


# ---- utilisation


def _script_path(plane: ControlPlane) -> Path:
    return plane.directory / "utilisation.json"


def _change_script(cluster: SimulatedCluster, node: str, change: Any) -> None:
    path = _script_path(cluster.plane)
    with exclusive(path.with_suffix(".lock"), "utilisation"):
        script = exporter.read_script(path)
        if node not in {scripted.name for scripted in script}:
            raise ValueError(f"cluster {cluster.plane.name} has no simulated node {node!r}: {cluster.nodes}")
        exporter.write_script(path, tuple(change(each) if each.name == node else each for each in script))


def _start_exporter(plane: ControlPlane, nodes: Sequence[SimulatedNode], progress: Progress) -> str:
    """Start the exporter and return its address; nodes that were there keep their counters."""
    path = _script_path(plane)
    known = {node.name: node for node in exporter.read_script(path)} if path.exists() else {}
    exporter.write_script(path, tuple(_scripted(node, known.get(node.name)) for node in nodes))
    port = ports.keep(plane.directory, {"exporter": "exporter"}, _LOOPBACK)["exporter"]
    command = [sys.executable, "-m", "tests.cluster.exporter", f"--script={path}", f"--port={port}"]
    roots = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
    daemon = processes.start(
        plane.directory, "exporter", command, logs=plane.logs, environment=environment, progress=progress
    )
    probe = probes.answers(f"http://{_LOOPBACK}:{port}/metrics")
    processes.wait_until_ready("utilisation exporter", probe, daemons=(daemon,), progress=progress)
    return f"{_LOOPBACK}:{port}"


def _scripted(node: SimulatedNode, known: exporter.ScriptedNode | None) -> exporter.ScriptedNode:
    shape = node.shape
    segments = known.segments if known is not None else ()
    if not segments or segments[-1].utilisation != shape.utilisation:
        segments = (*segments, Segment(time.time(), shape.utilisation))
    return exporter.ScriptedNode(node.name, shape.cores, shape.megahertz, segments)


def _prometheus_spec(exported: str, nodes: Sequence[SimulatedNode]) -> prometheus.PrometheusSpec:
    # Thousands of nodes are a scrape of megabytes: the operator asks every 15 s anyway.
    interval = "2s" if len(nodes) <= _MANY_NODES else "15s"
    configuration = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [
            {"job_name": "node-exporter", "honor_labels": True, "static_configs": [{"targets": [exported]}]}
        ],
    }
    return prometheus.PrometheusSpec(yaml.safe_dump(configuration, sort_keys=False))


def _not_scraped(url: str, nodes: Sequence[SimulatedNode]) -> str | None:
    query = 'count(count by (node) (rate(node_cpu_seconds_total{mode="idle"}[1m])))'
    found = prometheus.query(url, query)
    count = int(float(found[0]["value"][1])) if found else 0
    return None if count >= len(nodes) else f"Prometheus knows {count} of {len(nodes)} nodes' utilisation"


# ---- nodes


def _start_kwok(plane: ControlPlane, progress: Progress) -> processes.Daemon:
    stages = plane.directory / "kwok"
    stages.mkdir(exist_ok=True)
    source = binaries.module_directory("kwok", "sigs.k8s.io/kwok") / "kustomize" / "stage"
    for stage in _STAGES:
        # Copies, because Go's module cache may be emptied while the cluster lives.
        shutil.copyfile(source / stage, stages / Path(stage).name)
    command = [
        str(binaries.program("kwok", progress=progress)),
        f"--kubeconfig={plane.kubeconfig}",
        "--manage-all-nodes=false",
        "--v=WARN",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        # Long leases keep the heartbeats of thousands of nodes cheap.
        f"--node-lease-duration-seconds={_LEASE_SECONDS}",
        *(f"--config={stages / Path(stage).name}" for stage in _STAGES),
    ]
    return processes.start(plane.directory, "kwok", command, logs=plane.logs, progress=progress)


def _make_nodes(client: api.Api, nodes: Sequence[SimulatedNode], progress: Progress) -> None:
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": hardware_maps.NAMESPACE}})
    present = {
        node["metadata"]["name"]: node["metadata"].get("annotations", {}).get(_SHAPE_ANNOTATION)
        for node in client.request("GET", "/api/v1/nodes")["items"]
    }
    wanted = {node.name: node for node in nodes}
    gone = [name for name, shape in present.items() if name not in wanted or shape != _digest(wanted[name])]
    new = [node for node in nodes if node.name not in present or node.name in gone]
    if gone:
        progress(f"removing {len(gone)} nodes that are not wanted any more or changed their shape")
    api.for_each(lambda name: client.request("DELETE", f"/api/v1/nodes/{name}"), gone)
    map_path = f"/api/v1/namespaces/{hardware_maps.NAMESPACE}/configmaps/tailwise-hardware-"
    api.for_each(
        lambda name: client.request("DELETE", map_path + name), [name for name in gone if name not in wanted]
    )
    progress(f"creating {len(new)} nodes")
    api.for_each(lambda node: client.create(_node(node)), new)

    def write(node: SimulatedNode) -> None:
        client.apply(config_map(hardware_maps.hardware(node), hardware_maps.NAMESPACE))

    api.for_each(write, new)


def _node(node: SimulatedNode) -> dict[str, Any]:
    shape = node.shape
    amounts = {"cpu": str(shape.cores), "memory": f"{shape.memory_mebibytes}Mi", "pods": "110"}
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": shape.node_class,
        **shape.labels,
    }
    annotations = {**_MANAGED_ANNOTATION, _SHAPE_ANNOTATION: _digest(node)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels, "annotations": annotations},
        "spec": {"taints": [_taint(taint) for taint in shape.taints]},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.rpartition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}


def _digest(node: SimulatedNode) -> str:
    """Name what of a shape a node is made of; its utilisation may change without a new node."""
    made_of = {**asdict(node.shape), "utilisation": None, "count": None}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def _not_ready(client: api.Api, nodes: Sequence[SimulatedNode]) -> str | None:
    ready = 0
    for node in client.request("GET", "/api/v1/nodes")["items"]:
        conditions = node.get("status", {}).get("conditions", [])
        # The not-ready taint leaves a moment after the condition, and pods are kept off until then.
        taints = {taint["key"] for taint in node["spec"].get("taints", [])}
        is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        ready += is_ready and "node.kubernetes.io/not-ready" not in taints
    return None if ready >= len(nodes) else f"{ready} of {len(nodes)} are Ready"
