"""The size `real` of the cluster harness: what a test on real kubelets may rely on."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster import (
    cgroups,
    hosts,
    images,
    node_accounting,
    node_runtime,
    node_shapes,
    paths,
    probes,
    processes,
    prometheus,
    real,
)
from tests.cluster.locks import Progress
from tests.cluster.node_shapes import NodeShape
from tests.cluster.real import RealCluster
from tests.cluster.real_node import PAUSE_IMAGE, cluster_group

_DOCKERFILE = Path(__file__).parent / "cluster" / "real_nodes" / "image" / "Dockerfile"
_MEASURED_SECONDS = 5.0
_ALLOWANCE = 1.1  # a quota is handed to CPUs in slices: some of the last period's may be used in the next


def _pod(
    name: str,
    node: str,
    *command: str,
    image: str = PAUSE_IMAGE,
    cpu_limit: str | None = None,
    once: bool = False,
) -> str:
    """A pod manifest for one node, past the scheduler, whose end is not waited for."""
    container: dict[str, object] = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    if command:
        container["command"] = list(command)
    if cpu_limit:
        container["resources"] = {"requests": {"cpu": "10m"}, "limits": {"cpu": cpu_limit}}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never" if once else "Always",
        "containers": [container],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@pytest.fixture
def run(real_cluster: RealCluster) -> Iterator[Callable[[str], None]]:
    """Create pods and wait until they run (or, if they run once, have succeeded); they end with the test."""
    names: list[str] = []

    def create(manifest: str) -> None:
        pod = json.loads(manifest)
        names.append(pod["metadata"]["name"])
        real_cluster.run_kubectl("create", "--filename=-", stdin=manifest)
        phase = "Succeeded" if pod["spec"]["restartPolicy"] == "Never" else "Running"
        condition = f"--for=jsonpath={{.status.phase}}={phase}"
        real_cluster.run_kubectl("wait", f"pod/{names[-1]}", condition, "--timeout=120s")

    yield create
    if names:
        real_cluster.run_kubectl("delete", "pod", *names, "--force", "--ignore-not-found")


@pytest.mark.real_nodes
def test_every_node_is_ready_and_offers_cores_in_proportion_to_its_shape(real_cluster: RealCluster) -> None:
    listed = json.loads(real_cluster.run_kubectl("get", "nodes", "--output=json"))["items"]
    offered = {node["metadata"]["name"]: node["status"]["allocatable"]["cpu"] for node in listed}
    measured = {node.name: node.shape for node in real_cluster.nodes if node.shape.cores is not None}
    assert {name: offered[name] for name in measured} == {
        name: f"{shape.offered_millicores}m" for name, shape in measured.items()
    }
    paper_cores = [int(shape.labels["tailwise.dev/paper-cores"]) for shape in measured.values()]
    shares = [
        shape.offered_millicores / paper for shape, paper in zip(measured.values(), paper_cores, strict=True)
    ]
    assert max(shares) == pytest.approx(min(shares), rel=0.02)


@pytest.mark.real_nodes
def test_a_pod_reaches_a_pod_on_another_node_and_the_machine_reaches_both(
    real_cluster: RealCluster, run: Callable[[str], None], progress: Progress
) -> None:
    serve = "echo from the other node > /tmp/index.html && exec httpd -f -p 8080 -h /tmp"
    run(_pod("served", "large", "sh", "-c", serve))
    run(_pod("asking", "medium"))
    address = real_cluster.run_kubectl("get", "pod", "served", "--output=jsonpath={.status.podIP}")
    fetch = ("wget", "-qO-", f"http://{address}:8080/")
    processes.wait_until_ready("the served pod", lambda: _refused(real_cluster, fetch), progress=progress)
    assert real_cluster.run_kubectl("exec", "asking", "--", *fetch) == "from the other node\n"
    assert probes.ask(f"http://{address}:8080/") is None


def _refused(cluster: RealCluster, command: Sequence[str]) -> str | None:
    try:
        cluster.run_kubectl("exec", "asking", "--", *command)
    except real.RealClusterError as error:
        return str(error)
    return None


@pytest.mark.real_nodes
def test_a_pod_of_a_built_image_reaches_the_api_as_its_service_account(
    real_cluster: RealCluster, run: Callable[[str], None], progress: Progress
) -> None:
    archive = images.build(_DOCKERFILE, "localhost/tailwise/who-am-i:dev", progress=progress)
    images.load(archive, [real_cluster.node("infra")], progress)
    run(_pod("asks-api", "infra", image="localhost/tailwise/who-am-i:dev", once=True))
    printed = real_cluster.run_kubectl("logs", "asks-api")
    assert f"address: {hosts.API_CLUSTER_IP}:443" in printed
    assert "username: system:serviceaccount:default:default" in printed


@pytest.mark.real_nodes
def test_all_pods_of_a_node_together_get_no_more_than_its_cores(
    real_cluster: RealCluster, run: Callable[[str], None]
) -> None:
    node = real_cluster.node("small")
    assert node.shape.cores is not None
    loops = "while :; do :; done & while :; do :; done"
    run(_pod("busy-1", node.name, "sh", "-c", loops))
    run(_pod("busy-2", node.name, "sh", "-c", loops))
    began, used_before = time.monotonic(), cgroups.cpu_seconds(node.group)
    time.sleep(_MEASURED_SECONDS)
    used = (cgroups.cpu_seconds(node.group) - used_before) / (time.monotonic() - began)
    assert 0 < used <= node.shape.cores * _ALLOWANCE
    daemons = {processes.running(node.directory, node.daemon(name)) for name in ("containerd", "kubelet")}
    assert not {daemon.pid for daemon in daemons if daemon} & cgroups.processes(node.group)


@pytest.mark.real_nodes
def test_a_limit_above_the_nodes_cores_starts_and_is_the_nodes(
    real_cluster: RealCluster, run: Callable[[str], None]
) -> None:
    run(_pod("generous", "small", "sleep", "infinity", cpu_limit="1"))
    assert (
        real_cluster.run_kubectl("get", "pod", "generous", "--output=jsonpath={.status.phase}") == "Running"
    )


@pytest.mark.real_nodes
def test_prometheus_scrapes_every_node_under_its_name(real_cluster: RealCluster, progress: Progress) -> None:
    names = {node.name for node in real_cluster.nodes}

    def lacking() -> str | None:
        for job in ("kubelet", "cadvisor", "node-exporter"):
            up = prometheus.query(real_cluster.prometheus_url, f'up{{job="{job}"}} == 1')
            missing = names - {series["metric"]["node"] for series in up}
            if missing:
                return f"{job} of {', '.join(sorted(missing))}"
        query = 'count by (node) (node_cpu_seconds_total{mode="idle"})'
        seen = {series["metric"]["node"] for series in prometheus.query(real_cluster.prometheus_url, query)}
        return None if seen == names else "CPU seconds of every node"

    processes.wait_until_ready("scraping", lacking, progress=progress)


@pytest.mark.real_nodes
def test_a_killed_kubelet_and_containerd_are_healed_by_up_and_pods_live_on(
    real_cluster: RealCluster, run: Callable[[str], None], progress: Progress
) -> None:
    node = real_cluster.node("medium")
    run(_pod("survivor", node.name))
    for program in ("kubelet", "containerd"):
        daemon = processes.running(node.directory, node.daemon(program))
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
    healed = real.up(real_cluster.name, [each.shape for each in real_cluster.nodes], progress)

    def not_answering() -> str | None:
        """A kubelet that starts is Ready before it has heard of all its pods."""
        try:
            said = healed.run_kubectl("exec", "survivor", "--", "sh", "-c", "echo here")
        except real.RealClusterError as error:
            return str(error)
        return None if said == "here\n" else f"said {said!r}"

    processes.wait_until_ready("the pod that was there before", not_answering, progress=progress)
    restarts = "--output=jsonpath={.status.containerStatuses[0].restartCount}"
    assert healed.run_kubectl("get", "pod", "survivor", restarts) == "0"


@pytest.mark.real_nodes
def test_down_leaves_no_process_namespace_mount_or_control_group_even_after_a_crash(
    progress: Progress,
) -> None:
    name = f"leaves-{os.getpid()}"
    try:
        cluster = real.up(name, [NodeShape("only", cores=0.5)], progress)
        node = cluster.node("only")
        cluster.run_kubectl("create", "--filename=-", stdin=_pod("left-behind", node.name))
        cluster.run_kubectl("wait", "pod/left-behind", "--for=condition=Ready", "--timeout=60s")
        assert _traces(name)  # else the look for them proves nothing
        holder = processes.running(node.directory, node.daemon("holder"))
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        real.down(name, progress)
    assert _traces(name) == []


def _traces(name: str) -> list[str]:
    """Everything of a cluster that can be seen on the machine."""
    directory = str(paths.cluster_directory(name))
    found = [f"process {pid}" for pid in processes.marked(Path(directory))]
    found += [f"namespace {path.name}" for path in hosts.NAMESPACES.glob(f"{name}-*")]
    group = cluster_group(name).strip("/")
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{group}")]
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            found += [f"mount in {table}" for line in table.read_text().splitlines() if directory in line]
        except OSError:
            continue
    found += [str(path) for path in paths.clusters_directory().glob(f".{name}.*")]
    return found + ([directory] if Path(directory).exists() else [])


@pytest.mark.real_nodes
def test_a_pod_ends_with_its_node_also_when_only_the_holder_died(progress: Progress) -> None:
    name = f"heals-{os.getpid()}"
    shapes = [NodeShape("only", cores=0.5)]
    try:
        cluster = real.up(name, shapes, progress)
        node = cluster.node("only")
        holder = processes.running(node.directory, node.daemon("holder"))
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        healed = real.up(name, shapes, progress)
        healed.run_kubectl("create", "--filename=-", stdin=_pod("after", node.name))
        healed.run_kubectl("wait", "pod/after", "--for=condition=Ready", "--timeout=60s")
        assert node_runtime.inside(node, "true")[1] != f"--target={holder.pid}"
    finally:
        real.down(name, progress)


# ---- pure parts


@pytest.mark.parametrize(
    ("cores", "used_seconds", "busy_part"),
    [
        pytest.param(0.15, 0.15, 1.0, id="all of a small node's quota"),
        pytest.param(0.15, 0.075, 0.5, id="half of it"),
        pytest.param(0.60, 0.0, 0.0, id="idle"),
        pytest.param(2.0, 1.0, 0.5, id="one of two whole cores"),
        pytest.param(0.15, 0.2, 1.0, id="a slice above the quota counts as busy, not as more than all"),
    ],
)
def test_a_nodes_cpu_seconds_are_busy_in_the_part_of_its_own_cores(
    cores: float, used_seconds: float, busy_part: float
) -> None:
    account = node_accounting.Account(group="/g", cores=cores, memory_bytes=1, file="unused")
    totals = node_accounting.advance(node_accounting.Totals(), account, 1.0, used_seconds, 0.0)
    everything = totals.user + totals.system + totals.idle
    assert everything == pytest.approx(account.shown_cpus)
    assert totals.user / everything == pytest.approx(busy_part)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("{name: a, cores: 0.05}", "cores 0.05"),
        ("{name: a, core: 1}", "core"),
        ("{name: a, slowdown: 0.5}", "slowdown 0.5"),
        ("{name: a}, {name: a}", "two nodes are named a"),
        ("{name: a, memory_mebibytes: 999999999}", "memory_mebibytes"),
    ],
)
def test_an_impossible_shape_is_refused_with_file_node_and_field(
    tmp_path: Path, entry: str, complaint: str
) -> None:
    file = tmp_path / "shapes.yaml"
    file.write_text(f"nodes: [{entry}]")
    with pytest.raises(node_shapes.ShapeError, match=complaint) as caught:
        node_shapes.load(file)
    assert str(file) in str(caught.value)


def test_a_network_that_another_cluster_has_is_not_handed_out_again() -> None:
    first = hosts.free_network()
    assert hosts.free_network([first.index]).index != first.index
