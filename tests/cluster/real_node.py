"""What is fixed about one real node of one cluster: its names, addresses and places."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster import hosts
from tests.cluster.cgroups import CLUSTER_PREFIX
from tests.cluster.node_shapes import NodeShape

PAUSE_IMAGE = "localhost/tailwise/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
NODE_EXPORTER_PORT = 9100
KUBELET_PORT = 10250


@dataclass(frozen=True, slots=True)
class RealNode:
    """What is fixed about one node of one cluster. `directory` is the cluster's, `number` counts from 1.

    `cpus` are those of the machine that its pods may run on; none named: all.
    """

    cluster: str
    directory: Path
    logs: Path
    shape: NodeShape
    number: int
    address: IPv4Address
    pods: IPv4Network
    api_server: str
    cpus: tuple[int, ...] = ()

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

    @property
    def image_store(self) -> Path:
        """Root of its containerd: images, unpacked layers and the databases of both."""
        return self.files / "containerd"

    @property
    def metrics_file(self) -> Path:
        """Text file of its own CPU and memory, which its node-exporter shows."""
        return self.files / "metrics" / "node.prom"

    def daemon(self, program: str) -> str:
        """Name of one of its daemons, for records and logs."""
        return f"node-{self.name}-{program}"


def cluster_group(cluster: str) -> str:
    """Control group that holds all nodes of a cluster."""
    return f"/{CLUSTER_PREFIX}{cluster}"
