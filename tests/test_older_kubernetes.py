"""The chart on older control planes: TAILWISE_KUBERNETES=1.34,1.36 runs these, building each first."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tailwise.api.labels import PLACEMENT_GATE, WORKLOAD_LABEL
from tests.cluster import api, binaries, crds, lifecycle, processes
from tests.cluster.api import Api, ApiError
from tests.cluster.controlplane import ControlPlane
from tests.cluster.locks import Progress
from tests.cluster.sizes import Size

CHART = Path(__file__).parents[1] / "helm" / "tailwise"
_NAMESPACE = "chart-test"
_VERSIONS = [version for version in os.environ.get("TAILWISE_KUBERNETES", "").split(",") if version]

pytestmark = pytest.mark.older_kubernetes


@pytest.fixture(scope="module", params=_VERSIONS or ["none chosen"])
def plane(request: pytest.FixtureRequest, progress: Progress) -> Iterator[ControlPlane]:
    """A control plane of the older version, with the product's CRDs."""
    name = f"older-{os.getpid()}-{request.param.replace('.', '-')}"
    try:
        started = lifecycle.up(
            Size.CONTROL_PLANE, name, kubernetes_version=request.param, owned=True, progress=progress
        )
        crds.apply(api.connect(started), progress)
        yield started
    finally:
        lifecycle.down(Size.CONTROL_PLANE, name, progress)


def test_the_chart_is_taken_and_its_gate_holds_a_workloads_pods(
    plane: ControlPlane, progress: Progress
) -> None:
    server = api.connect(plane)
    version = server.request("GET", "/version")["gitVersion"]
    assert version == binaries.module_version(f"kubernetes-{plane.kubernetes_version}")
    server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}})
    for document in _rendered(server, version):
        path = f"{server.path(document)}?fieldManager=test&force=true&fieldValidation=Strict"
        server.request("PATCH", path, document, "application/apply-patch+yaml")
    processes.wait_until_ready("gate", lambda: _ungated(server), progress=progress)


def _rendered(server: Api, version: str) -> list[dict[str, object]]:
    """The chart as helm renders it for this server: with the policy version that it serves."""
    group = "admissionregistration.k8s.io"
    served = [each["version"] for each in server.request("GET", f"/apis/{group}")["versions"]]
    kinds = [
        f"{group}/{each}/{resource['kind']}"
        for each in served
        for resource in server.request("GET", f"/apis/{group}/{each}")["resources"]
    ]
    command = [
        *(str(binaries.program("helm")), "template", "tailwise", str(CHART)),
        *(f"--namespace={_NAMESPACE}", "--set=crds.enabled=false", f"--kube-version={version}"),
        *(f"--api-versions={kind}" for kind in kinds),
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    documents = [document for document in yaml.safe_load_all(text) if document]
    assert "MutatingAdmissionPolicy" in {document["kind"] for document in documents}
    return documents


def _ungated(server: Api) -> str | None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "labelled", "namespace": _NAMESPACE, "labels": {WORKLOAD_LABEL: "w"}},
        "spec": {"containers": [{"name": "server", "image": "serving"}]},
    }
    try:
        made = server.request("POST", f"/api/v1/namespaces/{_NAMESPACE}/pods?dryRun=All", pod)
    except ApiError as error:  # the namespace's service account comes a moment later
        return str(error)
    gates = made["spec"].get("schedulingGates", [])
    return None if gates == [{"name": PLACEMENT_GATE}] else f"gates are {json.dumps(gates)}"
