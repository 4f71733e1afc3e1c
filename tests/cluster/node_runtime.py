"""One real node: a holder of its namespaces, containerd, kubelet and node-exporter, and the control group of its pods.

The holder sleeps in the node's network namespace and in a mount namespace of the node's own, in which /run is empty, and
/var/log, /var/lib/kubelet and /var/lib/cni are the node's directories. So every default path of containerd, CNI and kubelet
is the node's own, and none of their mounts or files is ever seen by the machine. The others join the holder's namespaces.
Daemons live in the caller's control group; only pods live under the node's, which is the one that is limited.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import cgroups, hosts, pki, processes
from tests.cluster.locks import Progress
from tests.cluster.node_shapes import NodeShape, machine_cores, machine_mebibytes

PAUSE_IMAGE = "localhost/tailwise/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
NODE_EXPORTER_PORT = 9100
KUBELET_PORT = 10250
_CNI_PROGRAMS = "/usr/lib/cni"
_BORROWED_DIRECTORIES = ("kubelet", "cni")  # below /var/lib
_KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RealNode:
    """What is fixed about one node of one cluster. `directory` is the cluster's, `number` counts from 1."""

    cluster: str
    directory: Path
    logs: Path
    shape: NodeShape
    number: int
    address: IPv4Address
    pods: IPv4Network
    api_server: str

    @property
    def name(self) -> str:
        """The node's name in Kubernetes."""
        return self.shape.name

    @property
    def group(self) -> str:
        """Control group under which all its pods live."""
        return f"{cluster_group(self.cluster)}/{self.name}"

    @property
    def namespace(self) -> str:
        """Its network namespace."""
        return hosts.node_namespace(self.cluster, self.name)

    @property
    def files(self) -> Path:
        """Its own directory: configuration, images, volumes."""
        return self.directory / "nodes" / self.name

    def daemon(self, program: str) -> str:
        """Name of one of its daemons, for records and logs."""
        return f"node-{self.name}-{program}"


def metrics_file(node: RealNode) -> Path:
    """Text file of the node's own CPU and memory, which its node-exporter shows."""
    return node.files / "metrics" / "node.prom"


def cluster_group(cluster: str) -> str:
    """Control group that holds all nodes of a cluster."""
    return f"/tailwise-{cluster}"


def start_containerd(node: RealNode, progress: Progress) -> processes.Daemon:
    """Start what images can be loaded into: control group, namespaces, containerd. Waits until it answers."""
    cgroups.ensure(node.group, cores=node.shape.cores)
    holder = _start_holder(node, progress)
    configuration = write_named_by_content(node.files / "containerd.toml", _containerd_configuration(node))
    _write(node.files / "cni.d" / "10-tailwise.conflist", _cni_configuration(node))
    containerd = _start_inside(
        node, holder, "containerd", ["containerd", "--config", str(configuration)], progress
    )
    client = inside(node, "ctr", "version")
    processes.wait_until_ready(
        f"{node.name}: containerd",
        lambda: None if _succeeds(client) else "no answer on its socket",
        daemons=[holder, containerd],
        progress=progress,
    )
    return containerd


def start_kubelet(
    node: RealNode, kubelet: Path, authority: pki.KeyPair, progress: Progress
) -> processes.Daemon:
    """Start kubelet and node-exporter beside a running containerd; does not wait until the node is Ready.

    `authority` signs the node's client and serving certificates and those of whoever calls kubelet.
    """
    holder = _running_holder(node)
    keys = node.files / "pki"
    serving = pki.serving(keys, "kubelet-serving", authority, [node.name, str(node.address)])
    client = pki.client(keys, "kubelet", authority, f"system:node:{node.name}", ["system:nodes"])
    kubeconfig = pki.kubeconfig(node.files / "kubeconfig", node.api_server, authority, client)
    configuration = write_named_by_content(
        node.files / "kubelet.yaml", yaml.safe_dump(_kubelet_configuration(node, authority, serving))
    )
    labels = ",".join(f"{key}={value}" for key, value in node.shape.labels.items())
    command = [
        str(kubelet),
        f"--config={configuration}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={labels}",
    ]
    metrics_file(node).parent.mkdir(parents=True, exist_ok=True)
    _start_inside(node, holder, "node-exporter", _node_exporter_command(metrics_file(node).parent), progress)
    _start_neighbour(node, progress)
    return _start_inside(node, holder, "kubelet", command, progress)


def inside(node: RealNode, *command: str) -> list[str]:
    """The command with a prefix that runs it in the node's network and mount namespaces."""
    return [*_prefix(_running_holder(node)), *command]


def stop(node: RealNode, progress: Progress) -> None:
    """End everything of the node, pods included, and remove its control group and its files; logs stay.

    Works from whatever a crash left: daemons by their records, pods by the control group, shims by the namespace.
    """
    kill(node, progress)
    cgroups.remove(node.group)
    shutil.rmtree(node.files, ignore_errors=True)


def kill(node: RealNode, progress: Progress) -> None:
    """End everything of the node at once and keep its files."""
    names = [node.daemon(program) for program in ("kubelet", "node-exporter", "neighbour")]
    processes.stop_all(node.directory, names, grace_seconds=2.0, progress=progress)
    cgroups.kill(node.group)
    processes.stop_all(node.directory, [node.daemon("containerd")], grace_seconds=2.0, progress=progress)
    _kill_all_in(node.namespace)
    processes.stop_all(node.directory, [node.daemon("holder")], grace_seconds=1.0, progress=progress)


def forget_borrowed_directories() -> None:
    """Remove the empty directories below /var/lib that nodes were mounted over, unless something uses them."""
    for name in _BORROWED_DIRECTORIES:
        with suppress(OSError):
            Path("/var/lib", name).rmdir()


# ---- namespaces


def _start_holder(node: RealNode, progress: Progress) -> processes.Daemon:
    running = processes.running(node.directory, node.daemon("holder"))
    if running is None:
        kill(node, progress)  # what a dead holder left behind has namespaces that nothing can join any more
    for name in _BORROWED_DIRECTORIES:
        Path("/var/lib", name).mkdir(exist_ok=True)
        (node.files / name).mkdir(parents=True, exist_ok=True)
    (node.files / "var-log").mkdir(parents=True, exist_ok=True)
    ready = node.files / "namespaces-of"
    mounts = [f"mount --bind {node.files / name} /var/lib/{name}" for name in _BORROWED_DIRECTORIES]
    script = " && ".join(
        [
            "mount --make-rshared /",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            *mounts,
            f"mount --bind {node.files / 'var-log'} /var/log",
            f"echo $$ > {ready}",
            "exec sleep infinity",
        ]
    )
    command = [*hosts.inside(node.namespace), "unshare", "--mount", "sh", "-c", script]
    holder = processes.start(
        node.directory, node.daemon("holder"), command, logs=node.logs, progress=progress
    )
    processes.wait_until_ready(
        f"{node.name}: namespaces",
        lambda: (
            None if ready.exists() and ready.read_text().strip() == str(holder.pid) else "mounts not made"
        ),
        daemons=[holder],
        progress=progress,
    )
    return holder


def _running_holder(node: RealNode) -> processes.Daemon:
    holder = processes.running(node.directory, node.daemon("holder"))
    if holder is None:
        raise processes.DaemonError(f"node {node.name} is not up: bring the cluster up again")
    return holder


def _prefix(holder: processes.Daemon) -> list[str]:
    return ["nsenter", f"--target={holder.pid}", "--mount", "--net", "--"]


def _start_inside(
    node: RealNode, holder: processes.Daemon, program: str, command: Sequence[str], progress: Progress
) -> processes.Daemon:
    return processes.start(
        node.directory,
        node.daemon(program),
        [*_prefix(holder), *command],
        logs=node.logs,
        progress=progress,
    )


def _kill_all_in(namespace: str) -> None:
    """Shims are nobody's children any more when containerd is gone, but stay in the network namespace."""
    deadline = time.monotonic() + _KILL_SECONDS
    while pids := hosts.processes_in(namespace):
        if time.monotonic() > deadline:
            raise processes.DaemonError(f"processes {list(pids)} in {namespace} survive SIGKILL")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


# ---- configuration


def _containerd_configuration(node: RealNode) -> str:
    """Settings of the CRI plugin, each needed where AppArmor, hugetlb or a lower oom_score_adj are out of reach."""
    return f"""\
version = 2
root = "{node.files / "containerd"}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PROGRAMS}"
    conf_dir = "{node.files / "cni.d"}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _cni_configuration(node: RealNode) -> str:
    """A bridge with host-local addresses and no masquerade: pods are seen under their own addresses everywhere."""
    address_management = {
        "type": "host-local",
        "ranges": [[{"subnet": str(node.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/var/lib/cni/networks",
    }
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": address_management,
    }
    return json.dumps({"cniVersion": "0.4.0", "name": "tailwise", "plugins": [bridge]}, indent=2)


def _kubelet_configuration(node: RealNode, authority: pki.KeyPair, serving: pki.KeyPair) -> Mapping[str, Any]:
    """kubelet's own file: cgroup v1 is allowed, and what the machine has beyond the node's shape is reserved."""
    reserved_millicores = 1000 * machine_cores() - node.shape.offered_millicores
    reserved_mebibytes = machine_mebibytes() - node.shape.offered_mebibytes
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",  # noqa: S104 - all addresses of the node's own namespace
        "authentication": {
            "x509": {"clientCAFile": str(authority.certificate)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.group,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "registerWithTaints": [_taint(taint) for taint in node.shape.taints],
        "systemReserved": {"cpu": f"{reserved_millicores}m", "memory": f"{reserved_mebibytes}Mi"},
        # The disk is the machine's: its fill level says nothing about the node, and images come by import only.
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "shutdownGracePeriod": "0s",
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 64,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 0,
        "registryPullQPS": 0,
    }


def _taint(text: str) -> Mapping[str, str]:
    key_and_value, _, effect = text.rpartition(":")
    key, _, value = key_and_value.partition("=")
    return {"key": key, "value": value, "effect": effect}


def _node_exporter_command(textfiles: Path) -> list[str]:
    """Collectors that would show the machine instead of the node are off; node_accounting writes theirs as text."""
    off = ("cpu", "meminfo", "stat", "systemd", "nvme", "diskstats", "zfs", "xfs", "btrfs", "mdadm", "rapl")
    return [
        "prometheus-node-exporter",
        f"--web.listen-address=:{NODE_EXPORTER_PORT}",
        f"--collector.textfile.directory={textfiles}",
        *(f"--no-collector.{name}" for name in off),
    ]


# ---- slowdown by a neighbour


def _start_neighbour(node: RealNode, progress: Progress) -> None:
    """Busy loops, one a CPU, whose CPU shares leave 1/slowdown of the node's time to its pods."""
    if node.shape.slowdown <= 1:
        return
    group = f"{node.group}/neighbour"
    cgroups.ensure(group)
    pod_shares = max(2, node.shape.offered_millicores * 1024 // 1000)  # as kubelet gives them to kubepods
    cgroups.set_shares(group, round(pod_shares * (node.shape.slowdown - 1)))
    join = " && ".join(f"echo $$ > {file}" for file in cgroups.membership_files(group))
    loops = "while :; do :; done & " * (machine_cores() - 1) + "while :; do :; done"
    command = ["sh", "-c", f"{join} && {loops}"]
    processes.start(node.directory, node.daemon("neighbour"), command, logs=node.logs, progress=progress)


def write_named_by_content(path: Path, content: str) -> Path:
    """Write `content` beside `path` under a name that changes with it, so that a daemon given it starts again."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return _write(path.with_stem(f"{path.stem}-{digest}"), content)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0
