"""The test clusters themselves: they come up once, heal, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import (
    api,
    binaries,
    controlplane,
    lifecycle,
    paths,
    pki,
    probes,
    processes,
    prometheus,
    simulated,
)
from tests.cluster.controlplane import ControlPlane, ControlPlaneSpec
from tests.cluster.locks import Progress
from tests.cluster.simulated import SimulatedCluster
from tests.cluster.simulated_nodes import read
from tests.cluster.sizes import Size
from tests.cluster.utilisation import Pattern, Segment, Utilisation, busy_seconds, share_at

THREE_NODES = """
nodes:
  - {name: idle, cores: 2, utilisation: 5}
  - {name: busy, cores: 4, megahertz: 3000, node_class: fast, utilisation: 80, labels: {zone: a}}
  - {name: tainted, cores: 2, taints: ["dedicated=batch:NoSchedule"]}
"""
# controller-manager makes it where it may, unless it is told another.
_DEFAULT_VOLUME_PLUGINS = Path("/usr/libexec/kubernetes")


def _daemon_ids(plane: ControlPlane) -> dict[str, int]:
    return {daemon.name: daemon.pid for daemon in processes.recorded(plane.directory)}


# ---- control plane


@pytest.fixture(scope="module")
def own_control_plane(progress: Progress) -> Iterator[ControlPlane]:
    name = f"harness-{os.getpid()}"
    yield lifecycle.up(Size.CONTROL_PLANE, name, owned=True, progress=progress)
    lifecycle.down(Size.CONTROL_PLANE, name, progress)


def test_up_twice_is_one_cluster(own_control_plane: ControlPlane, progress: Progress) -> None:
    before = _daemon_ids(own_control_plane)
    again = controlplane.up(ControlPlaneSpec(own_control_plane.name), progress)
    assert again == own_control_plane
    assert _daemon_ids(again) == before


def test_the_api_server_has_the_pinned_version_and_serves_admission_policies(
    own_control_plane: ControlPlane,
) -> None:
    client = api.connect(own_control_plane)
    assert client.request("GET", "/version")["gitVersion"] == binaries.module_version("kubernetes")
    resources = client.request("GET", "/apis/admissionregistration.k8s.io/v1")["resources"]
    served = {resource["name"] for resource in resources}
    assert {"mutatingadmissionpolicies", "validatingadmissionpolicies"} <= served


@pytest.mark.parametrize("component", controlplane.COMPONENTS)
def test_a_killed_component_comes_back_with_up_and_no_object_is_lost(
    own_control_plane: ControlPlane, component: str, progress: Progress
) -> None:
    client = api.connect(own_control_plane)
    kept = f"kept-through-{component}"
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kept}})
    before = _daemon_ids(own_control_plane)
    os.kill(before[component], signal.SIGKILL)
    assert controlplane.up(ControlPlaneSpec(own_control_plane.name), progress) == own_control_plane
    after = _daemon_ids(own_control_plane)
    assert after[component] != before[component]
    assert set(after) == set(controlplane.COMPONENTS)
    assert all(processes.is_alive(daemon) for daemon in processes.recorded(own_control_plane.directory))
    assert client.request("GET", f"/api/v1/namespaces/{kept}")["metadata"]["name"] == kept


def test_another_version_under_the_same_name_is_refused(own_control_plane: ControlPlane) -> None:
    (record := own_control_plane.directory / "controlplane.json").write_text(
        record.read_text().replace('"1.37"', '"1.99"')
    )
    try:
        with pytest.raises(ValueError, match=r"is of Kubernetes 1\.99, not 1\.37: take it down first"):
            controlplane.up(ControlPlaneSpec(own_control_plane.name))
    finally:
        record.write_text(record.read_text().replace('"1.99"', '"1.37"'))


def test_a_size_does_not_take_the_name_of_another_size(own_control_plane: ControlPlane) -> None:
    with pytest.raises(ValueError, match="is control-plane, not simulated"):
        lifecycle.up(Size.SIMULATED, own_control_plane.name, nodes="1")


def test_down_leaves_no_process_and_no_state_but_the_logs(progress: Progress) -> None:
    name = f"harness-down-{os.getpid()}"
    had_plugins = _DEFAULT_VOLUME_PLUGINS.exists()
    plane = lifecycle.up(Size.CONTROL_PLANE, name, owned=True, progress=progress)
    ids = _daemon_ids(plane).values()
    lifecycle.down(Size.CONTROL_PLANE, name, progress)
    assert processes.marked(plane.directory) == ()
    assert [pid for pid in ids if processes.start_ticks(pid) is not None] == []
    assert not plane.directory.exists()
    assert _DEFAULT_VOLUME_PLUGINS.exists() == had_plugins
    assert (plane.logs / "kube-apiserver.log").stat().st_size > 0
    lifecycle.down(Size.CONTROL_PLANE, name, progress)


# ---- simulated nodes


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Iterator[SimulatedCluster]:
    file = tmp_path_factory.mktemp("shapes") / "nodes.yaml"
    file.write_text(THREE_NODES)
    name = f"harness-sim-{os.getpid()}"
    yield lifecycle.up(Size.SIMULATED, name, nodes=str(file), owned=True, progress=progress)
    lifecycle.down(Size.SIMULATED, name, progress)


def test_simulated_nodes_are_ready_with_the_size_labels_and_taints_of_their_shapes(
    three_nodes: SimulatedCluster,
) -> None:
    nodes = {
        node["metadata"]["name"]: node
        for node in api.connect(three_nodes.plane).request("GET", "/api/v1/nodes")["items"]
    }
    assert sorted(nodes) == ["busy-0", "idle-0", "tainted-0"]
    for node in nodes.values():
        conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
    assert nodes["busy-0"]["status"]["allocatable"]["cpu"] == "4"
    assert nodes["busy-0"]["metadata"]["labels"]["zone"] == "a"
    assert nodes["busy-0"]["metadata"]["labels"]["node.kubernetes.io/instance-type"] == "fast"
    taints = [taint for taint in nodes["tainted-0"]["spec"]["taints"] if taint["key"] == "dedicated"]
    assert taints == [{"key": "dedicated", "value": "batch", "effect": "NoSchedule"}]


def test_each_simulated_node_has_the_hardware_document_an_agent_would_write(
    three_nodes: SimulatedCluster,
) -> None:
    selector = "labelSelector=tailwise.dev%2Fnode-hardware%3Dtrue"
    path = f"/api/v1/namespaces/tailwise-system/configmaps?{selector}"
    maps = api.connect(three_nodes.plane).request("GET", path)["items"]
    assert {each["metadata"]["name"] for each in maps} == {
        f"tailwise-hardware-{name}" for name in three_nodes.nodes
    }
    assert all("gflopsPerCore" in each["data"]["hardware.yaml"] for each in maps)


def test_prometheus_answers_the_scripted_utilisation_and_follows_a_change(
    three_nodes: SimulatedCluster, progress: Progress
) -> None:
    busy_share = '1 - avg by (node) (rate(node_cpu_seconds_total{mode="idle"}[10s]))'

    def shares() -> dict[str, float]:
        vector = prometheus.query(three_nodes.prometheus_url, busy_share)
        return {each["metric"]["node"]: float(each["value"][1]) for each in vector}

    def waiting_for(expected: dict[str, float]) -> None:
        def missing() -> str | None:
            seen = shares()
            agree = all(seen.get(node) == pytest.approx(share, abs=0.02) for node, share in expected.items())
            return None if agree else f"{seen} instead of {expected}"

        processes.wait_until_ready("utilisation", missing, timeout_seconds=60, progress=progress)

    waiting_for({"idle-0": 0.05, "busy-0": 0.80, "tainted-0": 0.0})
    simulated.set_utilisation(three_nodes, "idle-0", Utilisation(percent=60))
    waiting_for({"idle-0": 0.60, "busy-0": 0.80})
    clock = "node_cpu_scaling_frequency_hertz / node_cpu_frequency_max_hertz"
    vector = prometheus.query(three_nodes.prometheus_url, f"max by (node) ({clock})")
    clocks = {each["metric"]["node"]: float(each["value"][1]) for each in vector}
    assert clocks["busy-0"] == pytest.approx(1.0)
    assert clocks["tainted-0"] < clocks["idle-0"] < clocks["busy-0"]


def test_a_pod_runs_on_a_simulated_node(three_nodes: SimulatedCluster, progress: Progress) -> None:
    client = api.connect(three_nodes.plane)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "none"}], "nodeSelector": {"zone": "a"}},
    }
    processes.wait_until_ready(
        "default service account",
        lambda: _missing(client, "/api/v1/namespaces/default/serviceaccounts/default"),
    )
    client.apply(pod)

    def missing() -> str | None:
        seen = client.request("GET", "/api/v1/namespaces/default/pods/probe")
        phase = seen["status"]["phase"]
        return None if phase == "Running" and seen["spec"]["nodeName"] == "busy-0" else f"pod is {phase}"

    processes.wait_until_ready("pod", missing, progress=progress)


def _missing(client: api.Api, path: str) -> str | None:
    try:
        client.request("GET", path)
    except api.ApiError as error:
        return str(error)
    return None


# ---- processes


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of the test's own, in which nothing may be left running."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield tmp_path
    left = processes.marked(paths.clusters_directory())
    processes.end_marked(paths.clusters_directory())
    assert left == ()


def test_an_id_that_went_to_another_process_is_not_ended(state: Path) -> None:
    directory = state / "cluster"
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        time.sleep(0.05)  # start times count in hundredths of a second
        daemon = processes.start(directory, "sleeper", ["sleep", "60"])
        os.kill(daemon.pid, signal.SIGKILL)
        record = directory / "run" / "sleeper.json"
        record.write_text(record.read_text().replace(str(daemon.pid), str(bystander.pid)))
        assert processes.running(directory, "sleeper") is None
        processes.stop(directory, "sleeper")
        assert bystander.poll() is None
        assert not record.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_daemon_whose_record_was_lost_is_still_ended(state: Path) -> None:
    directory = paths.cluster_directory("lost")
    daemon = processes.start(directory, "sleeper", ["sleep", "60"])
    (directory / "run" / "sleeper.json").unlink()
    assert processes.marked(directory) == (daemon.pid,)
    lifecycle.clean(lambda _line: None)
    assert not processes.is_alive(daemon)
    assert paths.cluster_names() == ()
    assert state.exists()


def test_a_daemon_that_ignores_term_is_killed(state: Path) -> None:
    program = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    daemon = processes.start(state, "stubborn", ["sh", "-c", program])
    processes.wait_until_ready("stubborn", lambda: None if "ready\n" in daemon.log.read_text() else "not yet")
    said: list[str] = []
    processes.stop(state, "stubborn", grace_seconds=0.3, progress=said.append)
    assert not processes.is_alive(daemon)
    assert any("killing process" in line for line in said)
    processes.end_marked(state, grace_seconds=0.3)


def test_other_arguments_start_a_daemon_again_and_the_same_do_not(state: Path) -> None:
    first = processes.start(state, "sleeper", ["sleep", "60"])
    assert processes.start(state, "sleeper", ["sleep", "60"]) == first
    second = processes.start(state, "sleeper", ["sleep", "61"])
    assert second.pid != first.pid
    assert not processes.is_alive(first)
    assert processes.stop_all(state) == 1


def test_a_daemon_that_ends_while_it_should_become_ready_shows_its_log(state: Path) -> None:
    # On a busy machine it may be gone before `start` has looked: that is told the same way.
    with pytest.raises(processes.DaemonError, match="no such flag"):
        daemon = processes.start(state, "broken", ["sh", "-c", "echo no such flag >&2; exit 3"])
        processes.wait_until_ready("broken", lambda: "no answer", daemons=(daemon,))


def test_a_client_that_fails_or_hangs_is_no_answer_yet_and_no_error() -> None:
    assert probes.succeeds(["true"])() is None
    assert probes.succeeds(["sh", "-c", "echo refused >&2; exit 1"])() == "sh: refused"
    assert probes.succeeds(["sleep", "30"], timeout_seconds=0.2)() == "sleep: no answer in 0.2 s"


def test_the_cluster_of_a_killed_session_is_ended_by_the_next(state: Path) -> None:
    program = (
        "from tests.cluster import lifecycle, paths, processes; from tests.cluster.sizes import Size\n"
        "lifecycle.claim(Size.CONTROL_PLANE, 'orphan', owned=True)\n"
        "print(processes.start(paths.cluster_directory('orphan'), 'sleeper', ['sleep', '60']).pid)"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    pid = int(done.stdout)
    lifecycle.claim(Size.CONTROL_PLANE, "mine", owned=True)
    lifecycle.claim(Size.CONTROL_PLANE, "everybodys", owned=False)
    assert processes.start_ticks(pid) is not None
    lifecycle.end_orphans(lambda _line: None)
    assert processes.start_ticks(pid) is None
    assert paths.cluster_names() == ("everybodys", "mine")
    assert state.exists()


# ---- certificates, shapes, scripts


def test_openssl_accepts_a_serving_certificate_for_its_hosts_and_a_changed_host_renews_it(
    tmp_path: Path,
) -> None:
    authority = pki.certificate_authority(tmp_path)
    pair = pki.serving(tmp_path, "server", authority, ["127.0.0.1", "localhost"])
    subprocess.run(
        [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            str(authority.certificate),
            "-verify_ip",
            "127.0.0.1",
            str(pair.certificate),
        ],
        capture_output=True,
        check=True,
    )
    first = pair.certificate.read_bytes()
    pki.serving(tmp_path, "server", authority, ["localhost", "127.0.0.1"])
    assert pair.certificate.read_bytes() == first
    pki.serving(tmp_path, "server", authority, ["10.0.0.1"])
    assert pair.certificate.read_bytes() != first
    assert pair.key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nodes: []", "no list `nodes`"),
        ("nodes: [{name: a, cores: 0}]", "shape a: cores is 0, use more than 0"),
        ("nodes: [{name: a, sockets: 2}]", "shape a: .*sockets"),
        ("nodes: [{name: a}, {name: a}]", "names must be there and differ"),
        ("nodes: [{name: a, utilisation: 120}]", "percent is 120"),
    ],
)
def test_a_wrong_shapes_file_names_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "nodes.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read(file)


utilisations = st.builds(
    Utilisation,
    pattern=st.sampled_from(Pattern),
    percent=st.floats(0, 100),
    low_percent=st.floats(0, 100),
    period_seconds=st.floats(1, 100),
)


@given(st.lists(st.tuples(st.floats(1, 300), utilisations), min_size=1, max_size=4), st.floats(0, 500))
def test_counters_are_the_integral_of_the_script(
    script: list[tuple[float, Utilisation]], seconds: float
) -> None:
    start, segments = 1_000.0, []
    for length, utilisation in script:
        segments.append(Segment(start, utilisation))
        start += length
    steps = 2_000
    width = seconds / steps
    numeric = sum(share_at(segments, 1_000.0 + (step + 0.5) * width) for step in range(steps)) * width
    # Each jump of the script falls into one step at most, and there are at most two jumps a second.
    assert busy_seconds(segments, 1_000.0 + seconds) == pytest.approx(
        numeric, abs=width * (2 * seconds + 4) + 1e-6
    )


@given(utilisations, st.floats(0, 1_000), st.floats(0, 1_000))
def test_counters_never_go_back_and_never_run_faster_than_the_clock(
    utilisation: Utilisation, at: float, later: float
) -> None:
    segments = [Segment(0.0, utilisation)]
    step = busy_seconds(segments, at + later) - busy_seconds(segments, at)
    assert -1e-6 <= step <= later + 1e-6


def test_counters_go_on_where_they_were_when_the_script_changes() -> None:
    now = time.time()
    before = [Segment(now - 100, Utilisation(percent=50))]
    after = [*before, Segment(now, Utilisation(percent=90))]
    assert busy_seconds(after, now) == busy_seconds(before, now) == pytest.approx(50)
    assert busy_seconds(after, now + 10) == pytest.approx(59)


def test_a_cluster_goes_down_as_the_size_it_was_made_with(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Real:
        @staticmethod
        def down(name: str, _progress: object) -> None:
            asked.append(name)

    lifecycle.claim(Size.REAL, "mistaken", owned=False)
    monkeypatch.setattr(lifecycle, "_late", lambda _name: Real)
    lifecycle.down(Size.SIMULATED, "mistaken", lambda _line: None)
    assert asked == ["mistaken"]
    assert state.exists()
