"""A LatencyModel learns: a run, a version, its promotion, placements by it, and others that the prior serves.

Simulated nodes, a real Prometheus for their load, a real API server; the trainer is the Job's own command.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from tailwise.cluster import apply
from tailwise.cluster.artefacts import index_name
from tailwise.cluster.client import CONFIG_MAPS, INFERENCE_WORKLOADS, LATENCY_MODELS, connect
from tests.cluster.hardware_maps import NAMESPACE
from tests.cluster.simulated import SimulatedCluster
from tests.models.store import Store, serving
from tests.operator.learning_stage import (
    TrainingKubelet,
    ask,
    condition_of,
    json_lines,
    latency_model,
    leave_nothing,
    profile_of,
    rows_about,
    serves,
    the_condition,
    training_kubelet,
)
from tests.operator.process import Operator, operator_beside_prometheus, running
from tests.operator.stage import Look, until, workload

TRAINING = ("--training-image", "registry.invalid/training:1")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def learner(
    simulated_cluster: SimulatedCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Operator]:
    """One operator beside Prometheus for the tests of this file."""
    log = tmp_path_factory.mktemp("learner") / "operator.log"
    async with running(operator_beside_prometheus(simulated_cluster, log, *TRAINING)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kubelet(
    simulated_cluster: SimulatedCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TrainingKubelet]:
    client = await connect(kubeconfig=str(simulated_cluster.kubeconfig))
    directory = tmp_path_factory.mktemp("kubelet")
    async with training_kubelet(client, NAMESPACE, simulated_cluster.kubeconfig, directory) as made:
        yield made
    await client.close()


async def placed(look: Look, name: str, source: str) -> dict[str, str]:
    """The annotations of a new pod of a workload that was placed by this source."""
    before = {each["metadata"]["name"] for each in await look.pods()}
    replicas = (await look.workload(name))["spec"]["replicas"] + 1
    patch = {"spec": {"replicas": replicas}}
    assert (await apply.merge_patch(look.client, INFERENCE_WORKLOADS, look.namespace, name, patch)).done

    async def there() -> Any:
        new = [each for each in await look.pods() if each["metadata"]["name"] not in before]
        told = [each["metadata"].get("annotations", {}) for each in new]
        return [each for each in told if each.get("tailwise.dev/prediction-source")]

    (annotations,) = await until(there, f"a new pod of {name}")
    assert annotations["tailwise.dev/prediction-source"] == source
    return dict(annotations)


async def test_a_run_makes_a_version_that_is_promoted_and_places_without_a_restart(
    learner: Operator,
    kubelet: TrainingKubelet,
    simulated_namespace: str,
    models: str,
) -> None:
    assert learner.running
    client = kubelet.client
    look = Look(client, simulated_namespace)
    name = f"learns-{simulated_namespace}"
    for workload_name, reference in (("w", name), ("v", None)):
        made = workload(simulated_namespace, workload_name, f"{models}/good.onnx", replicas=0)
        if reference is not None:
            made["spec"]["latencyModelRef"] = {"name": reference}
        await look.create(INFERENCE_WORKLOADS, made)
    store = Store()
    with serving(store):
        await look.create(LATENCY_MODELS, latency_model(name, f"{store.url}/rows.jsonl"))
        store.files["/rows.jsonl"] = json_lines(await rows_about(client, await profile_of(look, "w")))
        before = await placed(look, "w", "Prior")
        assert before["tailwise.dev/latency-model-version"] == "0"
        await ask(client, name, "once")
        run = await kubelet.begin(name)
        await the_condition(client, name, "Trained", reason="TrainingRunning")
        assert await kubelet.end(run) == 0
    status = await serves(client, name, 1)
    champion = status["champion"]
    assert (champion["version"], champion["algorithm"], champion["outcome"]) == (1, "LightGBM", "Champion")
    assert (status["lastRun"]["result"], status["lastRetrainRequest"]) == ("Succeeded", "once")
    assert {each["algorithm"] for each in status["evaluations"]} == {"Prior", "LightGBM"}
    assert status["dataset"]["rows"] == 240
    learned, prior = (
        float(each["rmse"]) for each in sorted(status["evaluations"], key=lambda e: e["algorithm"])
    )
    assert learned < prior / 2
    for kind, reason in (
        ("Ready", "ServingVersion"),
        ("SpecSupported", "AllFieldsSupported"),
        ("DatasetSufficient", "DatasetReady"),
        ("Trained", "TrainingSucceeded"),
        ("Promoted", "PromotedAutomatically"),
    ):
        found = await condition_of(client, name, kind)
        assert (found["status"], found["reason"]) == ("True", reason)

    # A pod that comes now is placed by what was learned; other LatencyModels' workloads are not.
    after = await placed(look, "w", "Learned")
    assert after["tailwise.dev/latency-model-version"] == "1"
    ratio = int(after["tailwise.dev/predicted-p90-milliseconds"]) / int(
        before["tailwise.dev/predicted-p90-milliseconds"]
    )
    assert ratio > 1.3
    assert (await placed(look, "v", "Prior"))["tailwise.dev/latency-model-version"] == "0"

    # Its ConfigMap goes: said aloud, and what is in memory goes on answering.
    index = CONFIG_MAPS.path(NAMESPACE, index_name(name, 1))
    await client.request("DELETE", index)
    await the_condition(client, name, "Ready", status="False", reason="ArtifactInvalid")
    assert (await placed(look, "w", "Learned"))["tailwise.dev/latency-model-version"] == "1"
    await leave_nothing(client, NAMESPACE, name)
    assert datetime.fromisoformat(champion["trainedAt"])
