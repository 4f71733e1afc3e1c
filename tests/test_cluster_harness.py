"""The test clusters themselves: they come up once, heal, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import (
    api,
    binaries,
    controlplane,
    lifecycle,
    paths,
    pki,
    probes,
    processes,
)
from tests.cluster.controlplane import ControlPlane, ControlPlaneSpec
from tests.cluster.locks import Progress
from tests.cluster.sizes import Size

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


# ---- certificates


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
