"""The main job on real kubelets: real model servers, placed by the chart's own operator, really asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tailwise.benchmark.kubectl import wait_for
from tests.cluster.locks import Progress
from tests.cluster.real import RealCluster
from tests.demo import clusters
from tests.demo.manifests import NAMESPACE, SYSTEM_NAMESPACE
from tests.demo.run import Run
from tests.demo.stages import Stages

pytestmark = pytest.mark.real_nodes

_SELECTOR = "tailwise.dev/workload"
# LoadGen calls a P90 of fewer than 64 queries invalid.
_QUERIES = 72


@pytest.fixture(scope="module")
def run(real_cluster: RealCluster, progress: Progress) -> Run:
    """The chart installed on real nodes, every node measured."""
    target = clusters.on_real_nodes(real_cluster, progress)
    run = Run(target, Stages(write=progress), queries=_QUERIES)
    run.install(neighbour=False)
    return run


@pytest.fixture
def applied(run: Run) -> Iterator[Run]:
    """The examples applied, and gone with all their pods afterwards."""
    run.target.kubectl.apply(_patient(run))
    try:
        yield run
    finally:
        run.target.kubectl.delete(run.workloads())
        run.wait_gone(_SELECTOR)


def _patient(run: Run) -> list[dict[str, Any]]:
    """The examples, whose pods wait for a decision however long this machine takes to start an operator."""
    workloads = run.workloads()
    for workload in workloads:
        workload["spec"]["placement"] = {"fallback": "Hold"}
    return workloads


def _status(run: Run, workload: str) -> dict[str, Any]:
    found: dict[str, Any] = run.target.kubectl.get("inferenceworkload", workload, "--namespace", NAMESPACE)
    status: dict[str, Any] = found.get("status", {})
    return status


def _condition(status: dict[str, Any], kind: str) -> str | None:
    return next((c["status"] for c in status.get("conditions", ()) if c["type"] == kind), None)


def test_ten_pods_run_where_status_says_serve_and_are_observed(applied: Run) -> None:
    pods = applied.ready_pods(_SELECTOR)
    placements = applied.placements(pods)
    assert len(pods) == len(placements) == 10
    assert all(placement["result"] == "Placed" for placement in placements.values())
    assert all(placement["predictedP90Milliseconds"] > 0 for placement in placements.values())

    latencies = applied.measure("end-to-end", pods)
    assert latencies.keys() == {pod["metadata"]["name"] for pod in pods}
    assert all(latency.valid and latency.queries == _QUERIES for latency in latencies.values())

    def unobserved() -> str | None:
        missing = [
            name
            for name in ("resnet50", "mobilenet-v2")
            if not _status(applied, name).get("observedP90Milliseconds")
        ]
        return f"no observed P90 in status of {', '.join(missing)}" if missing else None

    wait_for("status", unobserved, timeout_seconds=120, report=applied.stages.report)
    for name in ("resnet50", "mobilenet-v2"):
        status = _status(applied, name)
        assert _condition(status, "Ready") == "True", status["conditions"]
        served = [latencies[p["pod"]].p90_milliseconds for p in status["placements"]]
        # The server's own histogram and the client's clock must tell of the same requests.
        assert 0.5 * min(served) < status["observedP90Milliseconds"] < 2 * max(served)


def test_killing_the_operator_in_the_middle_loses_and_doubles_no_pod(run: Run) -> None:
    kubectl = run.target.kubectl
    in_system = ("--namespace", SYSTEM_NAMESPACE)
    kubectl.apply(_patient(run))
    try:
        deadline = time.monotonic() + 120
        while not any(_placed_annotation(pod) for pod in run.pods(_SELECTOR)):
            assert time.monotonic() < deadline, "no pod was placed"
            time.sleep(0.05)
        kubectl.run(
            "delete",
            "pods",
            *in_system,
            "--selector",
            "app.kubernetes.io/component=operator",
            "--grace-period=0",
            "--force",
        )
        pods = run.ready_pods(_SELECTOR)
        assert len(pods) == 10
        placements = run.placements(pods)
        assert {name: p["node"] for name, p in placements.items()} == {
            pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in pods
        }
        decided = [pod["metadata"]["annotations"] for pod in pods]
        assert all(annotations["tailwise.dev/placement-result"] == "Placed" for annotations in decided)
    finally:
        kubectl.delete(run.workloads())
        run.wait_gone(_SELECTOR)


def test_a_model_that_names_a_secret_is_read_by_a_job_on_a_kubelet(run: Run) -> None:
    """The whole way: image, Secret, restricted pod, termination message, and nothing left behind."""
    kubectl = run.target.kubectl
    url = next(each["spec"]["model"]["url"] for each in run.workloads() if "template" in each["spec"])
    metadata = {"name": "by-a-job", "namespace": NAMESPACE}
    content = {"https-host": "models.example", "headers": '{"Authorization": "Bearer nothing"}'}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": content}
    workload = {
        "apiVersion": "tailwise.dev/v1alpha1",
        "kind": "InferenceWorkload",
        "metadata": metadata,
        "spec": {
            "model": {"url": url, "secretRef": {"name": "by-a-job"}},
            "slo": {"latencyMilliseconds": 1000},
        },
    }
    kubectl.apply([secret, workload])
    try:

        def unread() -> str | None:
            status = _status(run, "by-a-job")
            if _condition(status, "ModelProfiled") == "True":
                return None
            return next(
                (c["message"] for c in status.get("conditions", ()) if c["type"] == "ModelProfiled"),
                "nothing yet",
            )

        wait_for("the profile", unread, timeout_seconds=240, report=run.stages.report)
        profile = _status(run, "by-a-job")["profile"]
        assert profile["flops"] > 10**8
        assert profile["bytesRead"] < profile["fileBytes"]

        def left() -> str | None:
            jobs = kubectl.get("jobs", "--namespace", NAMESPACE)["items"]
            return ", ".join(job["metadata"]["name"] for job in jobs) or None

        wait_for("the Job's end", left, timeout_seconds=60, report=run.stages.report)
    finally:
        kubectl.delete([workload, secret])


def _placed_annotation(pod: dict[str, Any]) -> bool:
    return "tailwise.dev/placement-result" in pod["metadata"].get("annotations", {})
