"""The join document as the operator makes it: pods that stand, pods that it saw go, what a restart forgot."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tailwise.api.latency_dataset import Dataset, LabelSelector, NamedQueries
from tailwise.api.serving_metrics import ServingPreset
from tailwise.cluster import apply
from tailwise.cluster.client import CONFIG_MAPS, Client
from tailwise.controllers.dataset_join import JOIN_LABEL, DatasetJoins, join_config_map
from tailwise.telemetry.join import JOIN_FILE, DatasetJoin, UtilisationPreset, unpacked
from tailwise.telemetry.queries import node_exporter
from tests.operator.live_stage import MODEL, LiveStage, live_stage

DAY = timedelta(days=1)


def joins_of(stage: LiveStage) -> DatasetJoins:
    joins = DatasetJoins(stage.view, lambda _: MODEL, node_exporter(60, 'job="node"'))
    stage.view.interests.pod = joins.pod_changed
    return joins


def pods(join: DatasetJoin) -> dict[str, tuple[str, bool]]:
    """Node of each pod, and whether it ended."""
    return {pod.name: (pod.node, pod.until is not None) for group in join.served for pod in group.pods}


async def test_pods_that_stand_are_told_of_with_what_they_serve_and_where() -> None:
    async with live_stage(serving={"threads": 3}, load={"requestsPerSecond": 20}) as stage:
        joins = joins_of(stage)
        await stage.place("iris-1")
        await stage.place("iris-2", node="slow")
        join = joins.join(Dataset(), stage.now)
    (group,) = join.served
    assert (group.name, group.container, group.metrics.preset) == ("default/iris", "server", "KServe")
    assert pods(join) == {"iris-1": ("fast", False), "iris-2": ("slow", False)}
    assert group.serving.threads == 3
    assert group.serving.requests_per_second == 20
    assert group.serving.cpu_request_millicores == 100
    assert join.profiles[group.profile] == MODEL
    assert [each.node for each in join.hardware] == ["fast", "slow"]  # nodes without such pods tell nothing
    assert join.utilisation.preset is UtilisationPreset.NODE_EXPORTER
    assert join.utilisation.selector == 'job="node"'


async def test_a_pod_that_goes_is_remembered_as_long_as_its_rows_may_be_asked_for() -> None:
    async with live_stage() as stage:
        joins = joins_of(stage)
        gone = await stage.place("iris-1")
        await stage.place("iris-2")
        stage.remove(gone)
        now = datetime.now(UTC)
        assert pods(joins.join(Dataset(lookback_hours=24), now))["iris-1"] == ("fast", True)
        assert set(pods(joins.join(Dataset(lookback_hours=24), now + 2 * DAY))) == {"iris-2"}


async def test_a_pod_that_never_was_ready_is_not_told_of() -> None:
    async with live_stage() as stage:
        joins = joins_of(stage)
        manifest, *_ = await stage.decide("iris-1")
        assert not joins.join(Dataset(), stage.now).served
        stage.remove(manifest)
        assert not joins.join(Dataset(), stage.now).served


async def test_what_a_restart_forgot_is_taken_from_the_document_before() -> None:
    async with live_stage() as stage:
        joins = joins_of(stage)
        gone = await stage.place("iris-1")
        before = joins.join(Dataset(), stage.now)
        stage.view.interests.pod = lambda *_: None  # the operator is away
        stage.remove(gone)
        await stage.place("iris-2")
        join = joins_of(stage).join(Dataset(), stage.now + timedelta(hours=1), before)
    assert pods(join) == {"iris-1": ("fast", True), "iris-2": ("fast", False)}


@pytest.mark.parametrize(
    ("dataset", "presets"),
    [
        (Dataset(), [ServingPreset.KSERVE]),
        (Dataset(presets=(ServingPreset.TRITON,)), []),
        (Dataset(workload_selector=LabelSelector(match_labels={"team": "vision"})), [ServingPreset.KSERVE]),
        (Dataset(workload_selector=LabelSelector(match_labels={"team": "speech"})), []),
    ],
)
async def test_workloads_are_chosen_by_label_and_by_server(
    dataset: Dataset, presets: list[ServingPreset]
) -> None:
    async with live_stage(labels={"team": "vision"}) as stage:
        joins = joins_of(stage)
        await stage.place("iris-1")
        join = joins.join(dataset, stage.now)
    assert [each.metrics.preset for each in join.served] == presets
    assert bool(join.profiles) == bool(presets)


async def test_a_workload_that_names_no_server_is_read_by_the_datasets_own_queries() -> None:
    queries = (NamedQueries(name="mine", buckets='rate(mine{pod=~"$pods"}[$window])'),)
    async with live_stage(metrics=None) as stage:
        joins = joins_of(stage)
        await stage.place("iris-1")
        assert not joins.join(Dataset(), stage.now).served
        (group,) = joins.join(Dataset(queries=queries), stage.now).served
    assert group.metrics.preset is ServingPreset.CUSTOM
    assert group.metrics.queries is not None
    assert group.metrics.queries.buckets == queries[0].buckets


async def test_pods_that_serve_in_another_way_are_a_group_of_their_own() -> None:
    async with live_stage() as stage:
        joins = joins_of(stage)
        manifest = await stage.place("iris-1")
        container = {**manifest["spec"]["containers"][0], "resources": {"limits": {"cpu": "500m"}}}
        other: dict[str, Any] = {**manifest, "spec": {**manifest["spec"], "containers": [container]}}
        other["metadata"] = {**manifest["metadata"], "name": "iris-2", "uid": "uid-iris-2"}
        stage.put(other)
        join = joins.join(Dataset(), stage.now)
    limits = {group.pods[0].name: group.serving.cpu_limit_millicores for group in join.served}
    assert limits == {"iris-1": None, "iris-2": 500}


async def test_the_document_is_written_where_training_jobs_read_it_and_grows_from_run_to_run(
    client: Client, namespace: str
) -> None:
    async def held() -> dict[str, DatasetJoin]:
        found = (await client.request("GET", CONFIG_MAPS.path(namespace)))["items"]
        return {
            each["metadata"]["name"]: unpacked(base64.b64decode(each["binaryData"][JOIN_FILE]), "x")
            for each in found
            if JOIN_FILE in each.get("binaryData", {})
        }

    async with live_stage() as stage:
        joins = joins_of(stage)
        gone = await stage.place("iris-1")
        first = await joins.publish(client, namespace, "default", Dataset(), stage.now)
        other = await joins.publish(client, namespace, "other", Dataset(), stage.now)
        assert set(await held()) == {first, other}
        stage.remove(gone)
        await stage.place("iris-2")
        # Another process, which saw nothing of the first pod.
        later = stage.now + timedelta(minutes=1)
        second = await joins_of(stage).publish(client, namespace, "default", Dataset(), later)
        written = await held()
        assert set(written) == {second, other}
        assert pods(written[second]) == {"iris-1": ("fast", True), "iris-2": ("fast", False)}
        # Tried again: the same document under the same name is no error.
        assert await joins.publish(client, namespace, "default", Dataset(), later) == second


async def test_a_document_that_somebody_broke_is_made_anew(client: Client, namespace: str) -> None:
    async with live_stage() as stage:
        joins = joins_of(stage)
        await stage.place("iris-1")
        broken = join_config_map(DatasetJoin(), "default", namespace, stage.now - DAY)
        broken["binaryData"] = {JOIN_FILE: base64.b64encode(b"broken: [").decode()}
        assert (await apply.create(client, CONFIG_MAPS, broken)).done
        name = await joins.publish(client, namespace, "default", Dataset(), stage.now)
    found = await client.request("GET", CONFIG_MAPS.path(namespace, name))
    assert pods(unpacked(base64.b64decode(found["binaryData"][JOIN_FILE]), name))


def test_the_config_map_has_a_name_and_a_label_that_the_api_server_takes() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    long = [f"{'m' * 251}{number}" for number in range(2)]
    made = [join_config_map(DatasetJoin(), each, "operators", now)["metadata"] for each in long]
    assert len(made[0]["name"]) <= 253
    assert len(made[0]["labels"][JOIN_LABEL]) <= 63
    assert made[0]["labels"][JOIN_LABEL] != made[1]["labels"][JOIN_LABEL]
