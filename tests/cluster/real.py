"""The size `real`: real kubelets on hosts made of network namespaces, a control plane in one, Prometheus.

Comes in: a name and the nodes' shapes. Goes out: a kubeconfig that works as it is from the machine's own
network, every node Ready, and nothing left after `down`. What differs from a cluster elsewhere: there is no
kube-proxy and no DNS, so pods find each other by pod IP and only the API server's cluster IP answers; images
are imported, never pulled.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import (
    base_images,
    binaries,
    cgroups,
    controlplane,
    debian,
    hosts,
    images,
    machine_limits,
    node_accounting,
    node_runtime,
    node_shapes,
    paths,
    probes,
    processes,
    prometheus,
    scraping,
)
from tests.cluster.locks import Progress, exclusive, say
from tests.cluster.node_shapes import NodeShape
from tests.cluster.real_node import KUBELET_PORT, RealNode, cluster_group

API_PORT = 443
_READY_SECONDS = 120.0
_RECORD = "real.json"


class RealClusterError(RuntimeError):
    """The cluster cannot be brought up as asked; the message says why and the way out."""


@dataclass(frozen=True, slots=True)
class RealCluster:
    """A running cluster of real nodes."""

    name: str
    kubeconfig: Path
    control_plane: controlplane.ControlPlane
    network: hosts.HostNetwork
    nodes: tuple[RealNode, ...]
    kubectl: Path

    @property
    def prometheus_url(self) -> str:
        """Prometheus, as reached from pods and from the machine's own network alike."""
        return f"http://{self.network.control_plane_address}:{scraping.PORT}"

    def node(self, name: str) -> RealNode:
        """The node of this name; KeyError if there is none."""
        return {node.name: node for node in self.nodes}[name]

    def load_images(self, archives: Iterable[Path], progress: Progress = say) -> None:
        """Import docker-archives into every node that has not the same already."""
        for archive in archives:
            images.load(archive, self.nodes, progress)

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return what it printed.

        Raises:
            RealClusterError: with what kubectl said.
        """
        return _kubectl(self.kubectl, self.kubeconfig, arguments, stdin)


def up(
    name: str = "real",
    shapes: Sequence[NodeShape] | None = None,
    progress: Progress = say,
    *,
    images: Iterable[Path] = (),
) -> RealCluster:
    """Bring the cluster up or heal it; returns when every node is Ready. Needs root.

    `images` are docker-archives that every node has from the start: in seconds where it is new, by import
    where it stands already.

    Raises:
        RealClusterError: when the cluster stands with other nodes.
        MissingProgramsError: without root, or where a Debian package is missing and cannot be installed.
        DaemonError: when something does not become ready; the message quotes its log.
    """
    shapes = tuple(shapes or node_shapes.load())
    debian.ensure((*debian.NODE_PROGRAMS, *debian.IMAGE_PROGRAMS), progress)
    if os.geteuid() != 0:
        raise RealClusterError("real nodes need root: namespaces, mounts and control groups are made")
    programs = binaries.ensure("kubernetes", ("kubelet", "kubectl"), progress=progress)
    with _lock(name, progress):
        began = time.monotonic()
        machine_limits.raise_for_kubelets(progress)
        network = _network(name, shapes, progress)
        hosts.up(name, network, [shape.name for shape in shapes])
        nodes = _nodes(name, network, shapes)
        control_plane = _start_control_plane_and_runtimes(name, network, nodes, tuple(images), progress)
        kubelets = [
            node_runtime.start_kubelet(node, programs / "kubelet", control_plane.authority, progress)
            for node in nodes
        ]
        _start_accounting(nodes, progress)
        _start_prometheus(control_plane, network, progress)
        cluster = RealCluster(
            name, control_plane.kubeconfig, control_plane, network, nodes, programs / "kubectl"
        )
        _wait_for_nodes(cluster, kubelets, progress)
        for node in nodes:
            if node.cpus:
                cgroups.confine(node.group, node.cpus)
        seconds = time.monotonic() - began
        progress(f"cluster {name}: {len(nodes)} nodes Ready in {seconds:.0f} s")
        progress(f"  export KUBECONFIG={cluster.kubeconfig}")
        progress(f"  Prometheus: {cluster.prometheus_url}")
    return cluster


def down(name: str = "real", progress: Progress = say) -> None:
    """End the cluster and remove everything of it but its logs; works from whatever a crash left."""
    with _lock(name, progress, remove=True):
        record = _read_record(name)
        network = hosts.HostNetwork(record["network"]) if record else None
        shapes = _recorded_shapes(record) if record else ()
        if network is not None:
            nodes = _nodes(name, network, shapes)
            processes.stop_all(_directory(name), [_ACCOUNTING], grace_seconds=2.0, progress=progress)
            _at_once(lambda node: node_runtime.stop(node, progress), nodes)
        controlplane.down(name, progress)
        hosts.down(name, network, [shape.name for shape in shapes])
        cgroups.remove(cluster_group(name))
        if not _names():
            node_runtime.forget_borrowed_directories()
            machine_limits.put_back()


def clean(progress: Progress = say) -> None:
    """Take every cluster of real nodes down, whatever state it is in."""
    for name in _names():
        down(name, progress)


def end_unrecorded(progress: Progress = say) -> None:
    """End the pods and namespaces of clusters whose record is gone.

    They are told by their names alone, so clusters of another state directory are taken for lost too: this
    is for a person who asks for a clean machine.
    """
    for name in {*cgroups.clusters(), *hosts.clusters()}.difference(paths.cluster_names()):
        progress(f"cluster {name}: ending what is left without a record")
        cgroups.remove(cluster_group(name))
        hosts.remove_all(name)


def get(name: str = "real") -> RealCluster | None:
    """Return the cluster of this name if its control plane runs and its nodes are recorded, else None."""
    control_plane = controlplane.get(name)
    record = _read_record(name)
    if control_plane is None or record is None:
        return None
    network = hosts.HostNetwork(record["network"])
    shapes = _recorded_shapes(record)
    kubectl = binaries.ensure("kubernetes", ("kubectl",)) / "kubectl"
    return RealCluster(
        name, control_plane.kubeconfig, control_plane, network, _nodes(name, network, shapes), kubectl
    )


# ---- parts


def _start_control_plane_and_runtimes(
    name: str,
    network: hosts.HostNetwork,
    nodes: Sequence[RealNode],
    archives: Sequence[Path],
    progress: Progress,
) -> controlplane.ControlPlane:
    """etcd to scheduler on one side, and containerd with its images on every node, at the same time."""
    wanted = (base_images.pause(progress), *archives)

    def start_runtimes() -> None:
        if archives:  # the pause image alone is imported sooner than a seed is made
            images.seed(wanted, nodes, progress)
        _at_once(lambda node: node_runtime.start_containerd(node, progress), nodes)

    spec = controlplane.ControlPlaneSpec(
        name=name,
        bind_address="0.0.0.0",  # noqa: S104 - all addresses of the control plane's own namespace
        advertise_address=str(network.control_plane_address),
        secure_port=API_PORT,
        service_cidr=str(hosts.SERVICE_RANGE),
        command_prefix=hosts.inside(hosts.control_plane_namespace(name)),
    )
    with ThreadPoolExecutor(max_workers=1) as beside:
        runtimes = beside.submit(start_runtimes)
        control_plane = controlplane.up(spec, progress)
        runtimes.result()
    for archive in wanted:
        images.load(archive, nodes, progress)
    return control_plane


_ACCOUNTING = "node-accounting"


def _start_accounting(nodes: Sequence[RealNode], progress: Progress) -> None:
    accounts = [
        node_accounting.Account(
            group=node.group,
            cores=node.shape.offered_millicores / 1000,
            memory_bytes=node.shape.offered_mebibytes * 2**20,
            file=str(node.metrics_file),
        )
        for node in nodes
    ]
    directory = nodes[0].directory
    content = json.dumps([dataclasses.asdict(account) for account in accounts])
    file = node_runtime.write_named_by_content(directory / "accounting.json", content)
    root = Path(__file__).resolve().parents[2]
    processes.start(
        directory,
        _ACCOUNTING,
        [sys.executable, "-m", "tests.cluster.node_accounting", str(file)],
        logs=nodes[0].logs,
        environment={"PYTHONPATH": str(root)},
        progress=progress,
    )


def _start_prometheus(
    control_plane: controlplane.ControlPlane, network: hosts.HostNetwork, progress: Progress
) -> None:
    spec = prometheus.PrometheusSpec(
        configuration=scraping.configuration(control_plane, network, API_PORT),
        address=str(network.control_plane_address),
        port=scraping.PORT,
        command_prefix=hosts.inside(hosts.control_plane_namespace(control_plane.name)),
    )
    prometheus.up(control_plane.directory, control_plane.logs, spec, progress)


def _wait_for_nodes(cluster: RealCluster, kubelets: Sequence[processes.Daemon], progress: Progress) -> None:
    wanted = {node.name for node in cluster.nodes}
    control_plane = cluster.control_plane

    def probe() -> str | None:
        # A node's condition outlives its kubelet by most of a minute, so kubelets are asked themselves too.
        for node in cluster.nodes:
            url = f"https://{node.address}:{KUBELET_PORT}/healthz"
            silent = probes.ask(url, control_plane.authority.certificate, control_plane.admin)
            if silent is not None:
                return f"{node.name}: {silent}"
        listed = json.loads(cluster.run_kubectl("get", "nodes", "--output=json"))["items"]
        lacking = sorted(wanted - {node["metadata"]["name"] for node in listed if _is_ready(node)})
        return f"not Ready: {', '.join(lacking)}" if lacking else None

    processes.wait_until_ready(
        f"cluster {cluster.name}: nodes",
        probe,
        daemons=kubelets,
        timeout_seconds=_READY_SECONDS,
        progress=progress,
    )


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _nodes(name: str, network: hosts.HostNetwork, shapes: Sequence[NodeShape]) -> tuple[RealNode, ...]:
    cpus = node_shapes.cpus_of(shapes, sorted(os.sched_getaffinity(0)))
    return tuple(
        RealNode(
            cluster=name,
            directory=_directory(name),
            logs=paths.logs_directory(name),
            shape=shape,
            number=number,
            address=network.node_address(number),
            pods=network.pod_range(number),
            api_server=f"https://{network.control_plane_address}:{API_PORT}",
            cpus=cpus.get(shape.name, ()),
        )
        for number, shape in enumerate(shapes, start=1)
    )


def _at_once(do: Callable[[RealNode], object], nodes: Sequence[RealNode]) -> None:
    if nodes:
        with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            list(pool.map(do, nodes))


def _kubectl(kubectl: Path, kubeconfig: Path, arguments: Sequence[str], stdin: str | None = None) -> str:
    # No proxy of the environment's: it would be asked for a cluster that only this machine knows.
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    finished = subprocess.run(
        [str(kubectl), f"--kubeconfig={kubeconfig}", *arguments],
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RealClusterError(f"kubectl {' '.join(arguments)}: {finished.stderr.strip()}")
    return finished.stdout


# ---- what is written down before anything is made


def _network(name: str, shapes: Sequence[NodeShape], progress: Progress) -> hosts.HostNetwork:
    """The cluster's addresses, chosen once; the record names all that `down` will have to remove."""
    record = _read_record(name)
    if record is not None:
        known, wanted = ([shape.name for shape in some] for some in (_recorded_shapes(record), shapes))
        if known != wanted:
            raise RealClusterError(
                f"cluster {name} has the nodes {', '.join(known)}, not {', '.join(wanted)}: "
                f"take it down first, or use another name"
            )
    if record is not None:
        _write_record(name, hosts.HostNetwork(record["network"]), shapes)
        return hosts.HostNetwork(record["network"])
    others = [other["network"] for other in map(_read_record, _names()) if other is not None]
    network = hosts.free_network(others)
    progress(f"cluster {name}: hosts {network.hosts}, pods {network.pods}")
    _write_record(name, network, shapes)
    return network


def _write_record(name: str, network: hosts.HostNetwork, shapes: Sequence[NodeShape]) -> None:
    file = _directory(name) / _RECORD
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"network": network.index, "shapes": [dataclasses.asdict(shape) for shape in shapes]}
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(content))
    temporary.replace(file)


def _recorded_shapes(record: Mapping[str, Any]) -> tuple[NodeShape, ...]:
    return tuple(NodeShape(**{**shape, "taints": tuple(shape["taints"])}) for shape in record["shapes"])


def _read_record(name: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((_directory(name) / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record


def _directory(name: str) -> Path:
    return paths.cluster_directory(name)


def _names() -> tuple[str, ...]:
    return tuple(name for name in paths.cluster_names() if (_directory(name) / _RECORD).exists())


def _lock(name: str, progress: Progress, *, remove: bool = False) -> AbstractContextManager[None]:
    path = paths.clusters_directory() / f".{name}.real.lock"
    return exclusive(path, f"cluster {name}", progress, remove=remove)
