"""`tailwise bench` on real kubelets: two pods placed by two policies, really asked, reported, and gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tailwise.benchmark.kubectl import Kubectl
from tailwise.benchmark.manifests import NAMESPACE
from tailwise.benchmark.records import RunDirectory
from tailwise.cli.main import main as tailwise
from tests.benchmark import proving_ground
from tests.cluster.locks import Progress
from tests.cluster.real import RealCluster
from tests.demo import clusters

pytestmark = pytest.mark.real_nodes

EXAMPLE = Path(__file__).parents[2] / "examples" / "bench" / "tiny.yaml"


@pytest.fixture(scope="module")
def cluster(real_cluster: RealCluster, progress: Progress) -> RealCluster:
    """The chart installed on real nodes, every node measured, the example server's image on all of them."""
    clusters.on_real_nodes(real_cluster, progress)
    proving_ground.install(real_cluster, progress)
    return real_cluster


def test_a_scenario_is_measured_reported_and_leaves_nothing_and_is_not_measured_twice(
    cluster: RealCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(cluster.kubectl.parent), prepend=":")
    scenario = {**yaml.safe_load(EXAMPLE.read_text()), "image": clusters.SERVING_IMAGE}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(scenario))
    out = tmp_path / "run"
    words = ["bench", f"--scenario={file}", f"--out={out}", f"--kubeconfig={cluster.kubeconfig}"]
    words += [f"--prometheus-url={cluster.prometheus_url}"]

    assert tailwise(words) == 0

    steps = {step.policy: step for step in RunDirectory(out).steps()}
    assert steps.keys() == {"default", "tailwise"}
    assert all(pod.valid and pod.queries == 64 for step in steps.values() for pod in step.pods)
    assert all(pod.predicted_p90_milliseconds for pod in steps["tailwise"].pods)
    assert {pod.node for step in steps.values() for pod in step.pods} <= {
        node["name"] for node in scenario["nodes"]
    }
    document = json.loads((out / "results.json").read_text())
    assert [each["policy"] for each in document["policies"]] == ["default", "tailwise"]
    assert (out / "report.html").exists()
    namespaces = Kubectl(cluster.kubectl, cluster.kubeconfig).get("namespaces")["items"]
    assert NAMESPACE not in {each["metadata"]["name"] for each in namespaces}

    # Again: every step is there already, and nothing is made on the cluster.
    begun = [step.begin for step in RunDirectory(out).steps()]
    assert tailwise(words) == 0
    assert [step.begin for step in RunDirectory(out).steps()] == begun
    assert "2 of them done before" in capsys.readouterr().err
