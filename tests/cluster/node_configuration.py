"""Configuration of a real node's programs: containerd with CNI and runc, kubelet, node-exporter.

Comes in: one node. Goes out: texts, and command lines; nothing is started here.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, pki
from tests.cluster.node_shapes import machine_cores, machine_mebibytes
from tests.cluster.real_node import CONTAINERD_SOCKET, NODE_EXPORTER_PORT, PAUSE_IMAGE, RealNode

_CNI_PROGRAMS = "/usr/lib/cni"


def containerd(node: RealNode) -> str:
    """containerd's file: the CRI settings needed without AppArmor, hugetlb and a lower oom_score_adj."""
    return f"""\
version = 2
root = "{node.image_store}"
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
      BinaryName = "{_runc(node)}"
"""


def _runc(node: RealNode) -> str:
    """Path of the runtime: runc, behind a script where the node has a quota on cgroup v1.

    There a group's quota may not exceed its parent's, so a container with a higher limit than its whole node
    has would not start; on a real small machine it starts and gets what there is. The script lowers such a
    limit to the node's.
    """
    runc = shutil.which("runc") or "runc"
    if node.shape.cores is None or cgroups.is_v2():
        return runc
    text = (Path(__file__).parent / "real_nodes" / "limiting-runc.sh").read_text()
    script = node.files / "runc"
    script.write_text(
        text.replace("@RUNC@", runc).replace("@MILLICORES@", str(node.shape.offered_millicores))
    )
    script.chmod(0o755)
    return str(script)


def cni(node: RealNode) -> str:
    """A bridge with host-local addresses, no masquerade: pods are seen under their own addresses."""
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


def kubelet(node: RealNode, authority: pki.KeyPair, serving: pki.KeyPair) -> Mapping[str, Any]:
    """kubelet's file: cgroup v1 is allowed; what the machine has beyond the node's shape is reserved."""
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
        # The disk is the machine's: its fill level says nothing about the node, and images come by import
        # only.
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


def node_exporter(textfiles: Path) -> list[str]:
    """Collectors that would show the machine, not the node, are off; node_accounting writes theirs."""
    off = ("cpu", "meminfo", "stat", "systemd", "nvme", "diskstats", "zfs", "xfs", "btrfs", "mdadm", "rapl")
    return [
        "prometheus-node-exporter",
        f"--web.listen-address=:{NODE_EXPORTER_PORT}",
        f"--collector.textfile.directory={textfiles}",
        *(f"--no-collector.{name}" for name in off),
    ]
