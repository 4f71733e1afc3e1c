"""One real node running: a holder of its namespaces, containerd, kubelet, node-exporter, a control group.

The holder sleeps in the node's network namespace and in a mount namespace of the node's own, in which /run is
empty, and /var/log, /var/lib/kubelet and /var/lib/cni are the node's directories. So every default path of
containerd, CNI and kubelet is the node's own, and none of their mounts or files is ever seen by the machine.
The others join the holder's namespaces. Daemons live in the caller's control group; only pods live under the
node's, which is the one that is limited.
"""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from tests.cluster import cgroups, hosts, node_configuration, pki, probes, processes
from tests.cluster.locks import Progress
from tests.cluster.node_shapes import machine_cores
from tests.cluster.real_node import RealNode

_BORROWED_DIRECTORIES = ("kubelet", "cni")  # below /var/lib
_KILL_SECONDS = 10.0


def start_containerd(node: RealNode, progress: Progress) -> processes.Daemon:
    """Start what images can be loaded into: control group, namespaces, containerd. Waits until it answers."""
    cgroups.ensure(node.group, cores=node.shape.cores)
    holder = _start_holder(node, progress)
    configuration = write_named_by_content(
        node.files / "containerd.toml", node_configuration.containerd(node)
    )
    _write(node.files / "cni.d" / "10-tailwise.conflist", node_configuration.cni(node))
    containerd = _start_inside(
        node, holder, "containerd", ["containerd", "--config", str(configuration)], progress
    )
    processes.wait_until_ready(
        f"{node.name}: containerd",
        probes.succeeds(inside(node, "ctr", "version")),
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
        node.files / "kubelet.yaml", yaml.safe_dump(node_configuration.kubelet(node, authority, serving))
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
    node.metrics_file.parent.mkdir(parents=True, exist_ok=True)
    _start_inside(
        node, holder, "node-exporter", node_configuration.node_exporter(node.metrics_file.parent), progress
    )
    _start_neighbour(node, progress)
    return _start_inside(node, holder, "kubelet", command, progress)


def inside(node: RealNode, *command: str) -> list[str]:
    """The command with a prefix that runs it in the node's network and mount namespaces."""
    return [*_prefix(_running_holder(node)), *command]


def stop(node: RealNode, progress: Progress) -> None:
    """End everything of the node, pods included, and remove its control group and files; logs stay.

    Works from whatever a crash left: daemons by their records, pods by the control group, shims by the
    namespace.
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
    """Remove the directories below /var/lib that nodes were mounted over, if they are empty."""
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
    """Write `content` under a name that changes with it, so that a daemon given it starts again."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return _write(path.with_stem(f"{path.stem}-{digest}"), content)


def _write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path
