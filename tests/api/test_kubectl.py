"""What a user of kubectl sees of the two kinds."""

import subprocess
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient, CustomObjectsApi

from tailwise.api.labels import GROUP, VERSION
from tests.api.test_schema_refusals import MINIMAL, create_workload
from tests.cluster import binaries
from tests.cluster.controlplane import ControlPlane


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


async def test_kubectl_get_shows_the_columns_of_the_design(
    control_plane: ControlPlane, kubectl_program: str, api: ApiClient, namespace: str
) -> None:
    await create_workload(api, namespace, MINIMAL, "resnet50")
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
    custom: Any = CustomObjectsApi(api)
    await custom.patch_namespaced_custom_object_status(
        GROUP,
        VERSION,
        namespace,
        "inferenceworkloads",
        "resnet50",
        {"status": status},
        _content_type="application/merge-patch+json",
    )
    head, row = kubectl(kubectl_program, control_plane, "-n", namespace, "get", "iw").splitlines()
    columns = ["NAME", "READY", "REPLICAS", "PLACED", "SLO(MS)", "PREDICTED(MS)", "OBSERVED(MS)", "AGE"]
    assert head.split() == columns
    assert row.split()[:-1] == ["resnet50", "True", "3", "2", "100", "81", "84"]


async def test_both_kinds_are_listed_by_their_category(
    control_plane: ControlPlane, kubectl_program: str, api: ApiClient, namespace: str
) -> None:
    await create_workload(api, namespace, MINIMAL, "resnet50")
    listed = kubectl(kubectl_program, control_plane, "-n", namespace, "get", "tailwise", "-o", "name")
    assert "inferenceworkload.tailwise.dev/resnet50" in listed.splitlines()
