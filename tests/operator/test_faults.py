"""Killed, paused, cut off: whatever happens, each pod is placed once and none is forgotten.

Judged by the API server's audit log. The control plane is this module's own, for its API server is ended too.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import urllib3

from tailwise.api.labels import NODE_ANNOTATION, SOURCE_ANNOTATION
from tailwise.cluster import apply
from tailwise.cluster.client import INFERENCE_WORKLOADS, LEASES, NODES, Client, ContentType, connect
from tailwise.cluster.client import PODS as POD_OBJECTS
from tests.cluster import api as cluster_api
from tests.cluster import controlplane, crds, lifecycle, processes
from tests.cluster import prometheus as prometheus_daemon
from tests.cluster.clients import api_client, fresh_namespace
from tests.cluster.controlplane import ControlPlane, ControlPlaneSpec
from tests.cluster.locks import Progress
from tests.cluster.paths import cluster_directory
from tests.cluster.prometheus import PrometheusSpec
from tests.cluster.sizes import Size
from tests.operator import audit
from tests.operator.conftest import NAMESPACES
from tests.operator.model_server import model_server
from tests.operator.process import Operator
from tests.operator.stage import Look, NodeShape, gated, nodes, until, workload
from tests.telemetry.exporter import Node, exporting
from tests.telemetry.scraped import configuration

AGENTS = "operator-under-test"
SHAPES = tuple(NodeShape(f"f{number}", cores=64, gflops_per_core=50.0 + number) for number in range(4))
KILLS = int(os.environ.get("TAILWISE_KILLS", "8"))
PODS = 120


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane that writes an audit log, and how to start it again."""

    spec: ControlPlaneSpec
    running: ControlPlane
    audit: Path


@pytest.fixture(scope="module")
def plane(progress: Progress, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    name = f"test-{os.getpid()}-faults"
    log = tmp_path_factory.mktemp("audit")
    spec = ControlPlaneSpec(name, extra_arguments={"kube-apiserver": audit.arguments(log)})
    lifecycle.claim(Size.CONTROL_PLANE, name, owned=True)
    try:
        running = controlplane.up(spec, progress)
        crds.apply(cluster_api.connect(running), progress)
        yield Plane(spec, running, log)
    finally:
        lifecycle.down(Size.CONTROL_PLANE, name, progress)


@pytest_asyncio.fixture
async def fault_client(plane: Plane) -> AsyncIterator[Client]:
    connected = await connect(kubeconfig=str(plane.running.kubeconfig))
    await apply.create(connected, NAMESPACES, {"metadata": {"name": AGENTS}})
    async with nodes(connected, SHAPES, AGENTS):
        yield connected
    await connected.close()


@pytest_asyncio.fixture
async def stage(plane: Plane, fault_client: Client) -> AsyncIterator[Look]:
    async with (
        api_client(plane.running.kubeconfig) as api,
        fresh_namespace(api, "faults") as namespace,
    ):
        yield Look(fault_client, namespace)


@pytest_asyncio.fixture
async def model() -> AsyncIterator[str]:
    async with model_server() as url:
        yield f"{url}/good.onnx"


def _operator(plane: Plane, log: Path, *arguments: str) -> Operator:
    return Operator(plane.running.kubeconfig, AGENTS, log, *arguments)


async def _create(
    look: Look, model: str, pods: int = PODS, *, timeout_seconds: int = 600, fallback: str = "Hold"
) -> None:
    made = workload(
        look.namespace, "w", model, replicas=pods, timeout_seconds=timeout_seconds, fallback=fallback
    )
    await look.create(INFERENCE_WORKLOADS, made)


async def _scale(look: Look, pods: int) -> None:
    path = INFERENCE_WORKLOADS.path(look.namespace, "w")
    body = {"spec": {"replicas": pods}}
    await look.client.request("PATCH", path, body=body, content_type=ContentType.MERGE_PATCH)


async def _all_bound(look: Look, pods: int) -> None:
    placed = await until(lambda: look.bound_pods(pods), f"{pods} bound pods", 240)
    assert not [pod for pod in placed if gated(pod)]


async def test_killed_again_and_again_in_the_middle_of_placements(
    plane: Plane, stage: Look, model: str, tmp_path: Path
) -> None:
    chance = random.Random(20260101)  # noqa: S311 - a test's choice of moments
    operator = _operator(plane, tmp_path / "operator.log", "--no-leader-elect")
    await operator.start()
    try:
        await _create(stage, model, 10)
        await _all_bound(stage, 10)
        for kill in range(KILLS):
            wanted = 10 + (kill + 1) * (PODS - 10) // KILLS
            await _scale(stage, wanted)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await operator.kill()
            await operator.start()
            # Until it is at work again: the next kill shall meet placements too.
            await until(partial(_some_bound, stage, wanted - 5), "the operator at work again", 60)
        await _all_bound(stage, PODS)
    finally:
        await operator.stop()
    audit.check_placed_once(plane.audit, stage.namespace, least=PODS)


async def _some_bound(look: Look, least: int) -> bool:
    return sum(bool(pod["spec"].get("nodeName")) for pod in await look.pods()) >= least


async def test_the_api_server_restarts_during_placements(
    plane: Plane, stage: Look, model: str, tmp_path: Path, progress: Progress
) -> None:
    operator = _operator(plane, tmp_path / "operator.log")
    await operator.start()
    try:
        await _create(stage, model)
        await until(lambda: _some_bound(stage, 1), "the first placement")
        await _restarted(plane, progress)
        if not operator.running:  # it could not keep its Lease; a kubelet would start it again
            await operator.start()
        await _all_bound(stage, PODS)
        held = {
            pod["metadata"]["uid"]: pod["metadata"]["annotations"][NODE_ANNOTATION]
            for pod in await stage.pods()
        }
    finally:
        await operator.stop()
    audit.check_placed_once(plane.audit, stage.namespace, least=PODS, unlogged=held)


async def test_watches_that_expired_tell_of_pods_that_came_and_went_unseen(
    plane: Plane, stage: Look, model: str, tmp_path: Path, progress: Progress
) -> None:
    operator = _operator(plane, tmp_path / "operator.log", "--no-leader-elect")
    await operator.start()
    assert operator.process is not None
    try:
        await _create(stage, model, PODS // 2)
        await _all_bound(stage, PODS // 2)
        unseen = [pod["metadata"]["name"] for pod in await stage.pods()][: PODS // 4]
        os.kill(operator.process.pid, signal.SIGSTOP)
        try:
            # First of all its connections end: what they bring to a process that is stopped is read later.
            await _restarted(plane, progress)
            for name in unseen:
                await apply.delete(stage.client, POD_OBJECTS, stage.namespace, name)
            await _scale(stage, PODS)

            async def made_anew() -> bool:
                return sum(map(gated, await stage.pods())) == len(unseen)

            await until(made_anew, "the successors of the pods that went")
            await _restarted(plane, progress, meanwhile=_compact)
        finally:
            os.kill(operator.process.pid, signal.SIGCONT)
        await _all_bound(stage, PODS)
        assert operator.log_text.count("pods: watch too old, listing again") == 1
    finally:
        await operator.stop()
    audit.check_placed_once(plane.audit, stage.namespace, least=PODS + len(unseen))


async def _restarted(
    plane: Plane, progress: Progress, meanwhile: Callable[[Path], None] = lambda _directory: None
) -> None:
    """End the API server and start it again."""
    directory = cluster_directory(plane.spec.name)
    await asyncio.to_thread(processes.stop, directory, "kube-apiserver", grace_seconds=0.5, progress=progress)
    await asyncio.to_thread(meanwhile, directory)
    await asyncio.to_thread(controlplane.up, plane.spec, progress)


def _compact(directory: Path) -> None:
    """Have etcd forget all that is not of now, through its JSON gateway."""
    daemon = processes.running(directory, "etcd")
    assert daemon is not None
    (url,) = [word.partition("=")[2] for word in daemon.command if word.startswith("--listen-client-urls=")]
    found = urllib3.request("POST", f"{url}/v3/kv/range", json={"key": "YQ=="}, timeout=10.0).json()
    wanted = {"revision": found["header"]["revision"], "physical": True}
    answer = urllib3.request("POST", f"{url}/v3/kv/compaction", json=wanted, timeout=60.0)
    assert answer.status == 200, answer.data


async def test_prometheus_is_away_at_the_start_and_goes_again_during_placements(
    plane: Plane, stage: Look, model: str, tmp_path: Path, progress: Progress
) -> None:
    """What is known of the load changes; that each pod is placed once and in time does not."""
    busy = [Node({"node": shape.name}, cpus=4, idle=0.75) for shape in SHAPES]
    with exporting(busy) as target:
        spec = PrometheusSpec(configuration(("nodes", target, {})))
        start = partial(prometheus_daemon.up, tmp_path, tmp_path / "logs", spec, progress)
        end = partial(
            processes.stop, tmp_path, prometheus_daemon.DAEMON, grace_seconds=0.5, progress=progress
        )
        url = await asyncio.to_thread(start)
        await asyncio.to_thread(end)
        watches = ("--prometheus-url", url, "--utilisation-preset", "NodeExporter")
        often = ("--utilisation-window-seconds", "10", "--poll-seconds", "1")
        operator = _operator(plane, tmp_path / "operator.log", *watches, *often)
        await operator.start()
        try:
            # Nobody may be left to the default scheduler: the audit log would show a gate opened to no node.
            await _create(stage, model, 10, timeout_seconds=300, fallback="DefaultScheduler")
            await _all_bound(stage, 10)
            assert set(_sources(await stage.pods())) == {"Stale"}
            await asyncio.to_thread(start)
            pods = await _until_load_is_known(stage, 10)
            await _scale(stage, pods + 30)
            await until(lambda: _some_bound(stage, pods + 5), "the first placements of many")
            await asyncio.to_thread(end)
            await _all_bound(stage, pods + 30)
            await _scale(stage, pods + 60)
            await until(lambda: _some_bound(stage, pods + 35), "placements while Prometheus is away")
            await asyncio.to_thread(start)
            await _all_bound(stage, pods + 60)
        finally:
            await operator.stop()
            await asyncio.to_thread(processes.stop_all, tmp_path)
    audit.check_placed_once(plane.audit, stage.namespace, least=pods + 60)
    audit.check_opened_within(plane.audit, stage.namespace, timedelta(seconds=300))


async def _until_load_is_known(look: Look, pods: int) -> int:
    """Place more pods until one is placed by the load that its node has; how many there are then."""
    for more in range(pods + 2, pods + 60, 2):
        await _scale(look, more)
        await _all_bound(look, more)
        if "Prior" in _sources(await look.pods()):
            return more
        await asyncio.sleep(1.0)
    raise AssertionError("no pod was placed by the load that Prometheus tells of")


def _sources(pods: list[dict[str, Any]]) -> list[str]:
    return [pod["metadata"]["annotations"][SOURCE_ANNOTATION] for pod in pods]


async def test_a_leader_that_was_paused_past_its_lease_places_nothing_when_it_wakes(
    plane: Plane, stage: Look, model: str, tmp_path: Path
) -> None:
    first, second = (_operator(plane, tmp_path / f"{name}.log") for name in ("first", "second"))
    await first.start()
    try:
        await _create(stage, model, 20)
        await _all_bound(stage, 20)
        await second.start()
        assert first.process is not None
        await _scale(stage, PODS)
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            await _all_bound(stage, PODS)
            assert "leading:" in second.log_text
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        await _scale(stage, PODS + 20)
        await _all_bound(stage, PODS + 20)

        async def given_up() -> bool:
            return not first.running

        await until(given_up, "the end of the leader that lost its Lease", 60)
    finally:
        await first.stop()
        await second.stop()
    audit.check_placed_once(plane.audit, stage.namespace, least=PODS + 20)


async def test_a_node_goes_between_decision_and_binding(
    plane: Plane, stage: Look, model: str, tmp_path: Path
) -> None:
    """Pods that were sent to it are refused by kube-scheduler and made anew; the rest never sees it."""
    operator = _operator(plane, tmp_path / "operator.log")
    await operator.start()
    try:
        await _create(stage, model)
        await until(lambda: _some_bound(stage, 5), "some placements")
        gone = SHAPES[-1].name
        await apply.delete(stage.client, NODES, None, gone)

        async def elsewhere() -> bool:
            pods = await stage.bound_pods(PODS)
            return bool(pods) and all(pod["spec"]["nodeName"] != gone for pod in pods)

        await until(elsewhere, "all pods on nodes that are there", 240)
    finally:
        await operator.stop()
    audit.check_placed_once(plane.audit, stage.namespace, least=PODS)


@pytest_asyncio.fixture(autouse=True)
async def free_lease(fault_client: Client) -> AsyncIterator[None]:
    """Each test begins without a holder: what an operator that was killed still holds is taken away."""
    yield
    with contextlib.suppress(OSError):
        await apply.delete(fault_client, LEASES, AGENTS, "tailwise-operator")
