"""The README's commands for a cluster of one's own, run as they are written."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tailwise.api.labels import PLACEMENT_GATE, WORKLOAD_LABEL
from tests.cluster import api as cluster_api
from tests.cluster import binaries
from tests.cluster.api import Api
from tests.cluster.controlplane import ControlPlane

ROOT = Path(__file__).parents[2]
_BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def commands(first_words: str) -> str:
    """From the line that begins with these words to the end of its block."""
    (block,) = (block for block in _BLOCKS if f"\n{first_words}" in f"\n{block}")
    return f"{first_words}{block.partition(first_words)[2]}"


def run(plane: ControlPlane, script: str) -> None:
    kubectl = Path(binaries.program("kubectl")).parent
    environment = os.environ | {
        "KUBECONFIG": str(plane.kubeconfig),
        "PATH": f"{kubectl}:{os.environ['PATH']}",
    }
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, check=True, timeout=120
    )


@pytest.fixture
def server(control_plane: ControlPlane) -> Api:
    return cluster_api.connect(control_plane)


def test_the_first_workload_and_its_store_are_applied_with_the_users_own_image(
    control_plane: ControlPlane, server: Api, namespace: str
) -> None:
    loop = commands("for file in").partition("\nkubectl")[0]
    run(control_plane, loop.replace("--namespace default", f"--namespace {namespace}"))
    path = f"/apis/tailwise.dev/v1alpha1/namespaces/{namespace}/inferenceworkloads/resnet50"
    template = server.request("GET", path)["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["image"] == "REGISTRY/tailwise-serving:0.1.0"
    store = server.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/model-store")
    (container,) = store["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "REGISTRY/tailwise-serving:0.1.0"
    assert server.request("GET", f"/api/v1/namespaces/{namespace}/services/model-store")


def test_the_last_command_of_uninstalling_opens_the_gates_of_tailwises_pods_alone(
    control_plane: ControlPlane, server: Api, namespace: str
) -> None:
    gates = [{"name": PLACEMENT_GATE}]
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    server.apply(account | {"metadata": {"name": "default", "namespace": namespace}})
    for name, labels in (("waits", {WORKLOAD_LABEL: "w"}), ("anothers", {})):
        server.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}], "schedulingGates": gates},
            }
        )
    run(control_plane, commands("kubectl get pods --all-namespaces"))
    pods = server.request("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    left = {pod["metadata"]["name"]: pod["spec"].get("schedulingGates", []) for pod in pods}
    assert left == {"waits": [], "anothers": gates}
