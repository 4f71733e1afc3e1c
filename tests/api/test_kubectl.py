"""What a user of kubectl sees of the two kinds."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from kubernetes_asyncio.client import ApiClient

from tailwise.api.labels import GROUP, VERSION
from tests.api.test_schema_refusals import MINIMAL, create_workload
from tests.cluster import api as cluster_api
from tests.cluster import binaries, crds, processes
from tests.cluster.controlplane import ControlPlane
from tests.cluster.locks import Progress
from tests.operator.stage import until


@pytest.fixture(scope="session")
def kubectl_program() -> str:
    return str(binaries.program("kubectl"))


def kubectl(program: str, plane: ControlPlane, *words: str) -> str:
    run = subprocess.run(
        [program, f"--kubeconfig={plane.kubeconfig}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return run.stdout


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("inferenceworkload.spec", "The latency that is promised."),
        ("iw.spec.slo.latencyMilliseconds", "must not exceed, in milliseconds"),
        ("iw.spec.placement.fallback", "DefaultScheduler: it is let go without affinity. Hold: it waits"),
        ("iw.status.placements", "Where the prediction comes from"),
        ("latencymodel.spec", "What makes training due before its time."),
        ("lm.spec.algorithms.grid", "Values to try, each as text"),
    ],
)
def test_kubectl_explain_teaches(
    control_plane: ControlPlane, kubectl_program: str, field: str, words: str
) -> None:
    told = " ".join(kubectl(kubectl_program, control_plane, "explain", field).split())
    assert words in told
    assert "<no description>" not in told


@pytest.fixture
def unserved(control_plane: ControlPlane, progress: Progress) -> Iterator[str]:
    """The kind under another group, by name: an operator of the session would write the status itself."""
    api = cluster_api.connect(control_plane)
    kind = yaml.safe_load((crds.DIRECTORY / f"{GROUP}_inferenceworkloads.yaml").read_text())
    name = "inferenceworkloads.columns.example.com"
    kind["metadata"]["name"], kind["spec"]["group"] = name, "columns.example.com"
    for shared in ("shortNames", "categories"):
        del kind["spec"]["names"][shared]
    api.apply(kind)
    try:
        processes.wait_until_ready("the copy", lambda: crds.not_served(api, (name,)), progress=progress)
        yield name
    finally:
        api.request("DELETE", api.path(kind))


async def test_kubectl_get_shows_the_columns_of_the_design(
    control_plane: ControlPlane, kubectl_program: str, namespace: str, unserved: str
) -> None:
    api = cluster_api.connect(control_plane)
    plural, _, group = unserved.partition(".")
    made = {
        "apiVersion": f"{group}/{VERSION}",
        "kind": "InferenceWorkload",
        "metadata": {"name": "resnet50", "namespace": namespace},
        "spec": MINIMAL,
    }
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "",
                "lastTransitionTime": "2030-01-01T00:00:00Z",
            }
        ],
        "replicas": 3,
        "pods": {"placed": 2},
        "predictedP90Milliseconds": 81,
        "observedP90Milliseconds": 84,
    }
    path = f"/apis/{group}/{VERSION}/namespaces/{namespace}/{plural}"

    async def created() -> bool:
        # A kind that is established is served a moment later.
        with contextlib.suppress(cluster_api.ApiError):
            api.request("POST", path, made)
            return True
        return False

    await until(created, "an object of the copied kind")
    api.request("PATCH", f"{path}/resnet50/status", {"status": status}, "application/merge-patch+json")
    head, row = kubectl(kubectl_program, control_plane, "-n", namespace, "get", unserved).splitlines()
    columns = ["NAME", "READY", "REPLICAS", "PLACED", "SLO(MS)", "PREDICTED(MS)", "OBSERVED(MS)", "AGE"]
    assert head.split() == columns
    assert row.split()[:-1] == ["resnet50", "True", "3", "2", "100", "81", "84"]


async def test_both_kinds_are_listed_by_their_category(
    control_plane: ControlPlane, kubectl_program: str, api: ApiClient, namespace: str
) -> None:
    await create_workload(api, namespace, MINIMAL, "resnet50")
    listed = kubectl(kubectl_program, control_plane, "-n", namespace, "get", "tailwise", "-o", "name")
    assert "inferenceworkload.tailwise.dev/resnet50" in listed.splitlines()
