"""Simulated nodes: what their shapes and scripts say is what the cluster and Prometheus show."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import (
    api,
    lifecycle,
    processes,
    prometheus,
    simulated,
)
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


# ---- shapes, scripts


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
