"""Runs that come to nothing: each says why in a condition, and what served goes on serving."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tailwise.cluster import apply
from tailwise.cluster.artefacts import index_name
from tailwise.cluster.client import CONFIG_MAPS, JOBS, LATENCY_MODELS, Resource
from tailwise.prediction.prediction import Serving
from tests.cluster.controlplane import ControlPlane
from tests.models.store import Store, serving
from tests.operator.conftest import OPERATOR_NAMESPACE
from tests.operator.learning_stage import (
    NOWHERE,
    QUICK,
    TrainingKubelet,
    ask,
    condition_of,
    json_lines,
    latency_model,
    leave_nothing,
    measured,
    other,
    serves,
    status_of,
    the_condition,
    training_kubelet,
)
from tests.operator.process import Operator
from tests.operator.stage import Look, until
from tests.unit.prediction.builders import node, profile

QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
MODEL = profile(dense_flops=10**9, operator_count=60)
NODES = (node(cores=4, cpu_model="fast"), node(cores=8, cpu_model="slow"))

Rows = list[dict[str, Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kubelet(
    control_plane: ControlPlane,
    operator: Operator,
    stage_client: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[TrainingKubelet]:
    assert operator.running
    directory = tmp_path_factory.mktemp("kubelet")
    kubeconfig = control_plane.kubeconfig
    async with training_kubelet(stage_client, OPERATOR_NAMESPACE, kubeconfig, directory) as made:
        yield made


def good(**how: Any) -> Rows:
    return measured([MODEL, other(MODEL, 2)], NODES, Serving(None), **how)


def _one_model() -> Rows:
    return measured([MODEL], NODES, Serving(None))


def _constant() -> Rows:
    return [{**row, "p90_milliseconds": 12.0} for row in good()]


def _senseless() -> Rows:
    worse = ("NaN", -3.0, None)
    return [{**row, "p90_milliseconds": worse[place % 3]} for place, row in enumerate(good())]


@pytest.mark.parametrize(
    ("rows", "reason", "words"),
    [
        (lambda: None, "DatasetUnreadable", "spec.dataset.files[0].url"),
        (lambda: good(rows=20), "TooFewSamples", "20 rows, 50 are the least"),
        (_one_model, "TooLittleVariety", "all rows are of one model"),
        (_constant, "TooLittleVariety", "a metric that does not move"),
        (_senseless, "TooFewSamples", "0 rows"),
    ],
    ids=["no file", "too few", "one model", "constant", "NaN and negative"],
)
async def test_data_that_nothing_can_be_learned_from_is_a_condition_with_its_reason(
    kubelet: TrainingKubelet,
    look: Look,
    namespace: str,
    rows: Callable[[], Rows | None],
    reason: str,
    words: str,
) -> None:
    name, store, made = f"bad-{namespace}", Store(), rows()
    if made is not None:
        store.files["/rows.jsonl"] = json_lines(made)
    with serving(store):
        await look.create(LATENCY_MODELS, latency_model(name, f"{store.url}/rows.jsonl"))
        await ask(look.client, name, "once")
        assert await kubelet.run(name) != 0
    found = await the_condition(look.client, name, "DatasetSufficient", status="False", reason=reason)
    assert words in found["message"]
    trained = await condition_of(look.client, name, "Trained")
    assert (trained["status"], trained["reason"]) == ("False", "TrainingFailed")
    assert words in trained["message"]
    status = await serves(look.client, name, 0)
    assert (status["lastRun"]["result"], status.get("history", [])) == ("Failed", [])
    await leave_nothing(look.client, OPERATOR_NAMESPACE, name)


async def test_a_run_that_is_killed_leaves_no_version_and_the_next_one_makes_it(
    kubelet: TrainingKubelet, look: Look, namespace: str
) -> None:
    name, store = f"killed-{namespace}", Store()
    store.files["/rows.jsonl"] = json_lines(good())
    store.delay_seconds = 20.0
    with serving(store):
        await look.create(LATENCY_MODELS, latency_model(name, f"{store.url}/rows.jsonl"))
        await ask(look.client, name, "first")
        run = await kubelet.begin(name)
        # The file comes so slowly that the run is at work on it for certain.
        await the_condition(look.client, name, "Trained", reason="TrainingRunning", message="Fetch")
        await kubelet.kill(run)
        store.delay_seconds = 0.0
        found = await the_condition(look.client, name, "Trained", reason="TrainingFailed")
        assert "OOMKilled" in found["message"]
        assert "spec.trainingJob.memoryLimitMebibytes" in found["message"]
        await ask(look.client, name, "second")
        assert await kubelet.run(name) == 0
    status = await serves(look.client, name, 2)
    assert [each["version"] for each in status["history"]] == [2]

    # Approval, a pin to what there is not, and the way back to the prior.
    for promotion, version in (
        ({"mode": "Manual", "pinnedVersion": 0}, 0),
        ({"mode": "Manual", "pinnedVersion": 2}, 2),
    ):
        patch = {"spec": {"promotion": {**QUICK["promotion"], **promotion}}}
        assert (await apply.merge_patch(look.client, LATENCY_MODELS, None, name, patch)).done
        await serves(look.client, name, version)
    patch = {"spec": {"promotion": {"mode": "Manual", "pinnedVersion": 9}}}
    assert (await apply.merge_patch(look.client, LATENCY_MODELS, None, name, patch)).done
    await the_condition(look.client, name, "Promoted", message="there is no version 9")
    assert (await status_of(look.client, name))["activeVersion"] == 2
    reasons = {each["reason"] for each in await _events(look, name)}
    assert {"TrainingStarted", "TrainingFailed", "TrainingSucceeded", "VersionServing"} <= reasons
    await leave_nothing(look.client, OPERATOR_NAMESPACE, name)


async def test_versions_that_may_not_be_written_or_were_tampered_with_never_serve(
    kubelet: TrainingKubelet, look: Look, namespace: str
) -> None:
    name, store = f"full-{namespace}", Store()
    store.files["/rows.jsonl"] = json_lines(good())
    promotion = {**QUICK["promotion"], "mode": "Manual"}
    with serving(store):
        made = latency_model(name, f"{store.url}/rows.jsonl", promotion=promotion)
        await look.create(LATENCY_MODELS, made)
        await ask(look.client, name, "first")
        run = await kubelet.begin(name)
        # No room for one more ConfigMap, from the moment that the run is under way.
        quota = {
            "metadata": {"name": "full", "namespace": OPERATOR_NAMESPACE},
            "spec": {"hard": {"count/configmaps": "0"}},
        }
        await look.create(QUOTAS, quota)
        try:
            assert await kubelet.end(run) == 1
            await the_condition(look.client, name, "Trained", reason="TrainingFailed", message="quota")
        finally:
            await apply.delete(look.client, QUOTAS, OPERATOR_NAMESPACE, "full")
        await ask(look.client, name, "second")
        assert await kubelet.run(name) == 0
    await the_condition(look.client, name, "Promoted", reason="AwaitingApproval")
    index = index_name(name, 2)
    whole = await look.client.request("GET", CONFIG_MAPS.path(OPERATOR_NAMESPACE, index))
    part = whole["data"]["parts"].split("\n")[0]
    await apply.delete(look.client, CONFIG_MAPS, OPERATOR_NAMESPACE, part)
    pin = {"spec": {"promotion": {**promotion, "pinnedVersion": 2}}}
    assert (await apply.merge_patch(look.client, LATENCY_MODELS, None, name, pin)).done
    found = await the_condition(look.client, name, "Promoted", reason="ArtifactInvalid")
    assert part in found["message"]
    assert (await serves(look.client, name, 0))["activeVersion"] == 0
    await leave_nothing(look.client, OPERATOR_NAMESPACE, name)


async def test_a_run_past_its_deadline_or_whose_job_was_deleted_failed(
    kubelet: TrainingKubelet, look: Look, namespace: str
) -> None:
    name = f"gone-{namespace}"
    job = {"nodeSelector": NOWHERE, "deadlineSeconds": 60}
    await look.create(LATENCY_MODELS, latency_model(name, "http://127.0.0.1:9/rows.jsonl", trainingJob=job))
    await ask(look.client, name, "first")
    pod = await kubelet.pod(name)
    # Nobody runs it, and the condition says what the scheduler says.
    await the_condition(look.client, name, "Trained", reason="TrainingRunning", message="Unschedulable")
    job_name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    await apply.delete(look.client, JOBS, OPERATOR_NAMESPACE, job_name, with_dependents=True)
    await the_condition(look.client, name, "Trained", reason="TrainingFailed", message="deleted before")
    await leave_nothing(look.client, OPERATOR_NAMESPACE, name)


async def test_a_request_that_nothing_can_be_learned_by_is_said_once(look: Look, operator: Operator) -> None:
    assert operator.running
    name = f"nothing-{look.namespace}"
    schedule = {"cron": "99 3 * * *"}
    await look.create(LATENCY_MODELS, latency_model(name, schedule=schedule))
    found = await the_condition(look.client, name, "SpecSupported", status="False", reason="SpecInvalid")
    assert "spec.schedule.cron" in found["message"]
    await leave_nothing(look.client, OPERATOR_NAMESPACE, name)


async def _events(look: Look, name: str) -> list[dict[str, Any]]:
    async def there() -> Any:
        listed = await look.client.request("GET", "/apis/events.k8s.io/v1/namespaces/default/events")
        own = [each for each in listed["items"] if each["regarding"].get("name") == name]
        return own if any(each["reason"] == "VersionServing" for each in own) else []

    found: list[dict[str, Any]] = await until(there, f"events of LatencyModel {name}")
    return found
