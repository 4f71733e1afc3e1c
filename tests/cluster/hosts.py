"""Hosts out of network namespaces: one for the control plane with a bridge, one for each node, all on it.

Comes in: a cluster's name and its nodes' names in order. Goes out: namespaces, links, addresses and routes.

    root namespace 10.89.K.254 --- tailwiseK
                                      |
    control plane  10.89.K.1   --- bridge ------- node 1  10.89.K.11, pods 10.(244-K).1.0/24
                   10.96.0.1                 `--- node 2  10.89.K.12, pods 10.(244-K).2.0/24

10.96.0.1 is the API server's cluster IP: it lies on the bridge itself, so pods reach the API without
kube-proxy. The root namespace has one link to the bridge and routes to hosts and pods, never to services.
K is the first number whose ranges no route or address of the root namespace touches.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

NAMESPACES = Path("/run/netns")
API_CLUSTER_IP = IPv4Address("10.96.0.1")
SERVICE_RANGE = IPv4Network("10.96.0.0/16")
_MOST_NETWORKS = 16
_FIRST_NODE_HOST_NUMBER = 10


class HostNetworkError(RuntimeError):
    """A namespace, link or route could not be made; the message holds the command and its answer."""


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """Addresses of one cluster; `index` is K of the picture above."""

    index: int

    @property
    def hosts(self) -> IPv4Network:
        """Range of the hosts' own addresses."""
        return IPv4Network(f"10.89.{self.index}.0/24")

    @property
    def pods(self) -> IPv4Network:
        """Range of all pods."""
        return IPv4Network(f"10.{244 - self.index}.0.0/16")

    @property
    def control_plane_address(self) -> IPv4Address:
        """Where the API server, etcd and Prometheus listen."""
        return self.hosts[1]

    @property
    def root_address(self) -> IPv4Address:
        """The root namespace's own address on the bridge."""
        return self.hosts[254]

    @property
    def root_link(self) -> str:
        """Name of the one link in the root namespace."""
        return f"tailwise{self.index}"

    def node_address(self, number: int) -> IPv4Address:
        """Address of the node with this number, counted from 1."""
        return self.hosts[_FIRST_NODE_HOST_NUMBER + number]

    def pod_range(self, number: int) -> IPv4Network:
        """Addresses of the pods on the node with this number, counted from 1."""
        return IPv4Network(f"10.{244 - self.index}.{number}.0/24")


def control_plane_namespace(cluster: str) -> str:
    """Name of the control plane's network namespace."""
    return f"{cluster}-control-plane"


def node_namespace(cluster: str, node: str) -> str:
    """Name of a node's network namespace."""
    return f"{cluster}-node-{node}"


def inside(namespace: str) -> tuple[str, ...]:
    """Words to put before a command so that it runs in the network namespace."""
    return ("nsenter", f"--net={NAMESPACES / namespace}")


def free_network(taken: Sequence[int] = ()) -> HostNetwork:
    """The first network that nothing in the root namespace and none of `taken` uses.

    Raises:
        HostNetworkError: when every candidate touches a route of this machine.
    """
    in_use = _ranges_of_this_machine()
    for index in range(_MOST_NETWORKS):
        network = HostNetwork(index)
        ranges = (network.hosts, network.pods)
        if index not in taken and not any(mine.overlaps(theirs) for mine in ranges for theirs in in_use):
            return network
    raise HostNetworkError(
        f"each of {HostNetwork(0).hosts} to {HostNetwork(_MOST_NETWORKS - 1).hosts} and of the pod ranges "
        f"{HostNetwork(_MOST_NETWORKS - 1).pods} to {HostNetwork(0).pods} touches a route of this machine"
    )


def up(cluster: str, network: HostNetwork, nodes: Sequence[str]) -> None:
    """Make what is missing of the cluster's hosts; what stands already is left as it is."""
    control_plane = control_plane_namespace(cluster)
    _ensure_namespace(control_plane)
    if "bridge" not in _links(control_plane):
        _ip(control_plane, "link add bridge type bridge")
    _ip(control_plane, f"address replace {network.control_plane_address}/24 dev bridge")
    _ip(control_plane, f"address replace {API_CLUSTER_IP}/32 dev bridge")
    _ip(control_plane, "link set bridge up")
    _connect_root(control_plane, network)
    for number, node in enumerate(nodes, start=1):
        _ensure_namespace(node_namespace(cluster, node))
        _connect_node(control_plane, node_namespace(cluster, node), network, number)
    _route_pods(cluster, network, nodes)


def down(cluster: str, network: HostNetwork | None, nodes: Sequence[str]) -> None:
    """Remove the namespaces and the root namespace's link; absent ones are no error.

    Processes inside must have ended before, else the kernel keeps an unnamed namespace alive with them.
    """
    if network is not None and network.root_link in _links(None):
        _ip(None, f"link delete {network.root_link}")
    for namespace in (control_plane_namespace(cluster), *(node_namespace(cluster, node) for node in nodes)):
        if (NAMESPACES / namespace).exists():
            _ip(None, f"netns delete {namespace}")


def clusters() -> frozenset[str]:
    """Names of the clusters that have a control plane's or a node's namespace."""
    names = [path.name for path in NAMESPACES.glob("*")] if NAMESPACES.exists() else []
    found = (re.fullmatch(r"(.+)-(?:control-plane|node-.+)", name) for name in names)
    return frozenset(match[1] for match in found if match is not None and _owns(match[1], match[0]))


def remove_all(cluster: str) -> None:
    """End every process in a cluster's namespaces and remove them, whatever nodes it had."""
    for path in sorted(NAMESPACES.glob(f"{cluster}-*")):
        if not _owns(cluster, path.name):
            continue
        for pid in processes_in(path.name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _ip(None, f"netns delete {path.name}")


def _owns(cluster: str, namespace: str) -> bool:
    """Whether the namespace's name is one that this module gives for the cluster."""
    node = namespace.removeprefix(node_namespace(cluster, ""))
    return namespace in (control_plane_namespace(cluster), node_namespace(cluster, node))


def processes_in(namespace: str) -> tuple[int, ...]:
    """Ids of all processes in the network namespace; none when it does not exist."""
    if not _is_namespace(namespace):
        return ()
    return tuple(int(pid) for pid in _ip(None, f"netns pids {namespace}").split())


def _ensure_namespace(namespace: str) -> None:
    if not _is_namespace(namespace):
        (NAMESPACES / namespace).unlink(missing_ok=True)  # a name left by a machine that went down
        _ip(None, f"netns add {namespace}")
    _ip(namespace, "link set lo up")
    # Hosts forward between pods and bridge. Redirects would teach pods a way past their own node.
    settings = (
        "net.ipv4.ip_forward=1",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.all.rp_filter=0",
    )
    for setting in settings:
        key, value = setting.split("=")
        path = Path("/proc/sys") / key.replace(".", "/")
        _run([*inside(namespace), "sh", "-c", f"echo {value} > {path}"])


def _is_namespace(namespace: str) -> bool:
    path = NAMESPACES / namespace
    return path.exists() and str(path) in Path("/proc/self/mounts").read_text()


def _connect_root(control_plane: str, network: HostNetwork) -> None:
    if network.root_link not in _links(None):
        _ip(None, f"link add {network.root_link} type veth peer name root netns {control_plane}")
    _ip(control_plane, "link set root master bridge up")
    _ip(None, f"address replace {network.root_address}/24 dev {network.root_link}")
    _ip(None, f"link set {network.root_link} up")
    _ip(None, f"route replace {network.pods} via {network.control_plane_address} dev {network.root_link}")


def _connect_node(control_plane: str, node: str, network: HostNetwork, number: int) -> None:
    port = f"node{number}"
    if "eth0" not in _links(node):
        if port in _links(control_plane):
            _ip(control_plane, f"link delete {port}")
        _ip(control_plane, f"link add {port} type veth peer name eth0 netns {node}")
    _ip(control_plane, f"link set {port} master bridge up")
    _ip(node, f"address replace {network.node_address(number)}/24 dev eth0")
    _ip(node, "link set eth0 up")
    _ip(node, f"route replace default via {network.control_plane_address}")


def _route_pods(cluster: str, network: HostNetwork, nodes: Sequence[str]) -> None:
    ways = {number: network.node_address(number) for number in range(1, len(nodes) + 1)}
    for number, address in ways.items():
        _ip(control_plane_namespace(cluster), f"route replace {network.pod_range(number)} via {address}")
    for number, node in enumerate(nodes, start=1):
        for other, address in ways.items():
            if other != number:
                route = f"route replace {network.pod_range(other)} via {address}"
                _ip(node_namespace(cluster, node), route)


def _links(namespace: str | None) -> frozenset[str]:
    return frozenset(link["ifname"] for link in json.loads(_ip(namespace, "-json link show") or "[]"))


def _ranges_of_this_machine() -> tuple[IPv4Network, ...]:
    routes = json.loads(_ip(None, "-json -4 route show table all") or "[]")
    destinations = (route["dst"] for route in routes if route["dst"] not in {"default", "0.0.0.0/0"})
    return tuple(IPv4Network(destination, strict=False) for destination in destinations)


def _ip(namespace: str | None, arguments: str) -> str:
    words = arguments.split()
    return _run(["ip", *(["-n", namespace] if namespace else []), *words])


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise HostNetworkError(f"{' '.join(command)}: {finished.stderr.strip() or finished.returncode}")
    return finished.stdout
