"""The operator's ways in and out of Kubernetes, each against a real API server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tailwise.api.hardware import MeasuredSpeed, NodeHardware
from tailwise.cluster import apply, events
from tailwise.cluster.client import (
    CONFIG_MAPS,
    EVENTS,
    INFERENCE_WORKLOADS,
    LEASES,
    PODS,
    ApiError,
    Client,
    connect,
)
from tailwise.cluster.hardware import HardwareError, config_map, hardware_from_object
from tailwise.cluster.lease import Lease, LeaseLostError, LeaseTimes
from tailwise.cluster.reflector import Key, Listener, Reflector, Selection
from tests.cluster.controlplane import ControlPlane

QUICK = LeaseTimes(duration_seconds=2, renew_deadline_seconds=1.0, retry_seconds=0.2)


@pytest_asyncio.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[Client]:
    connected = await connect(kubeconfig=str(control_plane.kubeconfig))
    yield connected
    await connected.close()


@contextlib.asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for is no event of ours
            await asyncio.sleep(0.02)


def note(namespace: str, name: str, text: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "data": {"text": text},
    }


def texts(client: Client, namespace: str, **options: Any) -> Reflector[str]:
    selection = Selection(CONFIG_MAPS, namespace, label_selector="kept=true")
    return Reflector(client, selection, lambda item: item["data"]["text"], **options)


def hardware(node: str = "node-a") -> NodeHardware:
    speed = MeasuredSpeed(gflops_per_core=50.0, copy_gigabytes_per_second_per_core=10.0)
    return NodeHardware(node=node, cores=4, measured=speed, measured_at=datetime(2026, 1, 1, tzinfo=UTC))


# ---- reflector


async def test_the_copy_follows_additions_changes_and_deletions_and_keeps_what_transform_returns(
    client: Client, namespace: str
) -> None:
    told: list[str] = []
    listener: Listener[str] = Listener(
        on_added=lambda key, value: told.append(f"+{key.name}={value}"),
        on_modified=lambda key, old, new: told.append(f"{key.name}:{old}>{new}"),
        on_deleted=lambda key, value: told.append(f"-{key.name}={value}"),
    )
    await apply.create(client, CONFIG_MAPS, note(namespace, "first", "1", kept="true"))
    await apply.create(client, CONFIG_MAPS, note(namespace, "other", "1", kept="false"))
    reflector: Reflector[str] = Reflector(
        client, Selection(CONFIG_MAPS, namespace, "kept=true"), lambda item: item["data"]["text"], listener
    )
    async with running(reflector.run()):
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert dict(reflector.items()) == {Key(namespace, "first"): "1"}
        await apply.create(client, CONFIG_MAPS, note(namespace, "second", "2", kept="true"))
        await apply.merge_patch(client, CONFIG_MAPS, namespace, "first", {"data": {"text": "one"}})
        await apply.delete(client, CONFIG_MAPS, namespace, "second")
        await until(lambda: len(told) == 4)
    assert told == ["+first=1", "+second=2", "first:1>one", "-second=2"]


async def test_an_object_whose_label_no_longer_matches_leaves_the_copy(
    client: Client, namespace: str
) -> None:
    await apply.create(client, CONFIG_MAPS, note(namespace, "first", "1", kept="true"))
    reflector = texts(client, namespace)
    async with running(reflector.run()):
        await until(lambda: len(reflector) == 1)
        label = {"metadata": {"labels": {"kept": "false"}}}
        await apply.merge_patch(client, CONFIG_MAPS, namespace, "first", label)
        await until(lambda: len(reflector) == 0)


async def test_a_long_list_arrives_in_pages_and_whole(client: Client, namespace: str) -> None:
    for number in range(7):
        await apply.create(client, CONFIG_MAPS, note(namespace, f"n{number}", str(number), kept="true"))
    reflector = texts(client, namespace, page_size=3)
    async with running(reflector.run()):
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert sorted(reflector.values()) == [str(number) for number in range(7)]


async def test_a_watch_that_ends_or_falls_silent_is_taken_up_again(client: Client, namespace: str) -> None:
    reflector = texts(client, namespace, watch_seconds=1, inactivity_seconds=0.5)
    async with running(reflector.run()):
        await asyncio.wait_for(reflector.synced.wait(), 20)
        for number in range(4):
            await asyncio.sleep(0.8)
            await apply.create(client, CONFIG_MAPS, note(namespace, f"n{number}", "x", kept="true"))
        await until(lambda: len(reflector) == 4)


async def test_after_a_version_too_old_the_copy_is_listed_again_and_missed_deletions_are_told(
    client: Client, namespace: str
) -> None:
    await apply.create(client, CONFIG_MAPS, note(namespace, "goes", "1", kept="true"))
    await apply.create(client, CONFIG_MAPS, note(namespace, "stays", "1", kept="true"))
    deleted: list[str] = []
    reflector: Reflector[str] = Reflector(
        client,
        Selection(CONFIG_MAPS, namespace, "kept=true"),
        lambda item: item["data"]["text"],
        Listener(on_deleted=lambda key, _: deleted.append(key.name)),
    )
    async with running(reflector.run()):
        await until(lambda: len(reflector) == 2)
    await apply.delete(client, CONFIG_MAPS, namespace, "goes")
    reflector._resource_version = (
        "1"  # compacted or not, etcd's first revisions are gone from the watch cache
    )
    async with running(reflector.run()):
        await until(lambda: deleted == ["goes"])
        assert [key.name for key, _ in reflector.items()] == ["stays"]


async def test_an_object_that_cannot_be_read_costs_that_object_only(client: Client, namespace: str) -> None:
    broken = note(namespace, "broken", "x", kept="true")
    del broken["data"]
    await apply.create(client, CONFIG_MAPS, broken)
    await apply.create(client, CONFIG_MAPS, note(namespace, "good", "1", kept="true"))
    reflector = texts(client, namespace)
    async with running(reflector.run()):
        await asyncio.wait_for(reflector.synced.wait(), 20)
        assert [key.name for key, _ in reflector.items()] == ["good"]


# ---- writes


async def test_a_write_that_lost_a_race_or_its_object_answers_with_a_value(
    client: Client, namespace: str
) -> None:
    gone = await apply.merge_patch(client, CONFIG_MAPS, namespace, "nobody", {"data": {"a": "b"}})
    assert gone.outcome is apply.Outcome.NOT_FOUND
    made = await apply.create(client, CONFIG_MAPS, note(namespace, "first", "1"))
    assert made.done
    twice = await apply.create(client, CONFIG_MAPS, note(namespace, "first", "1"))
    assert twice.outcome is apply.Outcome.CONFLICT
    stale = [
        {"op": "test", "path": "/metadata/uid", "value": "another"},
        {"op": "add", "path": "/data/text", "value": "2"},
    ]
    lost = await apply.patch_json(client, CONFIG_MAPS, namespace, "first", stale)
    assert lost.outcome is apply.Outcome.CONFLICT
    old = await apply.delete(client, CONFIG_MAPS, namespace, "first", uid="another")
    assert old.outcome is apply.Outcome.CONFLICT
    refused = await apply.apply(
        client, CONFIG_MAPS, {**note(namespace, "first", "1"), "nonsense": 1}, force=True
    )
    assert refused.outcome is apply.Outcome.REFUSED
    assert "nonsense" in refused.message


async def test_applying_a_manifest_whose_uid_is_gone_does_not_make_it_anew(
    client: Client, namespace: str
) -> None:
    manifest = note(namespace, "first", "1")
    manifest["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    assert (await apply.apply(client, CONFIG_MAPS, manifest, force=True)).outcome is apply.Outcome.CONFLICT
    with pytest.raises(ApiError, match="404"):
        await client.request("GET", CONFIG_MAPS.path(namespace, "first"))


# ---- events


async def test_an_event_is_told_once_however_often_it_happens_and_by_however_many_processes(
    client: Client, namespace: str
) -> None:
    pod = events.Regarding.of(PODS, namespace, "p", "uid-1")
    about = events.Regarding.of(INFERENCE_WORKLOADS, namespace, "w", "uid-w")
    for process in ("one", "two"):
        recorder = events.Recorder(client, process)
        async with running(recorder.run()):
            for attempt in range(20):
                recorder.record(events.no_feasible_node(pod, f"0/3 nodes fit: attempt {attempt}", about))
            recorder.record(events.unknown_workload(pod, "nobody"))
            await recorder.drain(20)
            assert recorder.dropped == 0
    listed = await client.request("GET", EVENTS.path(namespace))
    told = {item["reason"]: item for item in listed["items"]}
    assert len(listed["items"]) == 2
    assert told["NoFeasibleNode"]["note"] == "0/3 nodes fit: attempt 0"
    assert told["NoFeasibleNode"]["series"]["count"] >= 2
    assert "nobody" in told["UnknownWorkload"]["note"]


async def test_a_burst_of_events_is_told_before_the_process_ends(client: Client, namespace: str) -> None:
    recorder = events.Recorder(client, "one")
    async with running(recorder.run()):
        for number in range(300):
            pod = events.Regarding.of(PODS, namespace, f"p{number}", f"uid-{number}")
            recorder.record(events.unknown_workload(pod, "nobody"))
        await recorder.drain(60)
    assert recorder.dropped == 0
    listed = await client.request("GET", EVENTS.path(namespace))
    assert len({item["regarding"]["name"] for item in listed["items"]}) == 300


async def test_of_a_workloads_many_placements_the_first_are_told_and_the_rest_are_counted(
    client: Client, namespace: str
) -> None:
    recorder = events.Recorder(client, "one")
    workloads = [events.Regarding.of(INFERENCE_WORKLOADS, namespace, name, name) for name in ("big", "small")]
    async with running(recorder.run()):
        for number in range(103):
            about = workloads[number >= 100]
            pod = events.Regarding.of(PODS, namespace, f"p{number}", f"uid-{number}")
            recorder.record(events.placed(pod, f"node-{number}", about))
        await recorder.drain(60)
    assert recorder.dropped == 0
    items = (await client.request("GET", EVENTS.path(namespace)))["items"]
    told = {item["regarding"]["name"]: item["note"] for item in items}
    assert {f"p{number}" for number in (*range(10), 100, 101, 102)} == told.keys() - {"big"}
    assert told["big"] == "90 more pods: Placed, the last of them p99: Placed on node-99"


async def test_events_that_cannot_be_told_do_not_hold_the_process_up(client: Client) -> None:
    recorder = events.Recorder(client, "one")  # nobody posts, as when the API server has gone first
    recorder.record(events.unknown_workload(events.Regarding.of(PODS, "default", "p", "uid"), "nobody"))
    await asyncio.wait_for(recorder.drain(0.1), 20)


# ---- lease


async def test_one_of_two_candidates_leads_and_the_other_follows_when_it_lets_go(
    client: Client, namespace: str
) -> None:
    first, second = (Lease(client, namespace, "l", name, QUICK) for name in ("first", "second"))
    await asyncio.wait_for(first.acquire(), 20)
    async with running(first.keep()):
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(3)
        assert not waiting.done()
    await first.release()
    await asyncio.wait_for(waiting, 20)
    assert second.held
    assert not first.held
    stored = await client.request("GET", LEASES.path(namespace, "l"))
    assert stored["spec"]["holderIdentity"] == "second"


async def test_a_leader_that_was_overtaken_learns_it(client: Client, namespace: str) -> None:
    first, second = (Lease(client, namespace, "l", name, QUICK) for name in ("first", "second"))
    await asyncio.wait_for(first.acquire(), 20)
    await asyncio.wait_for(second.acquire(), 20)  # first does not renew: its lease runs out
    with pytest.raises(LeaseLostError, match="held by second"):
        await asyncio.wait_for(first.keep(), 20)


# ---- hardware


def test_hardware_survives_its_config_map() -> None:
    assert hardware_from_object(config_map(hardware(), "tailwise")) == hardware()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "no key hardware.yaml"),
        ({"hardware.yaml": "a: [1"}, "not YAML"),
        ({"hardware.yaml": "just words"}, "hardware.yaml"),
        ({"hardware.yaml": "node: node-a\ncores: 0"}, "cores"),
    ],
)
def test_a_malformed_config_map_is_named_with_its_field(data: dict[str, str], says: str) -> None:
    broken = {**config_map(hardware(), "tailwise"), "data": data}
    with pytest.raises(HardwareError, match=says) as raised:
        hardware_from_object(broken)
    assert "tailwise/tailwise-hardware-node-a" in str(raised.value)


def test_a_config_map_may_not_speak_for_another_node() -> None:
    lying = config_map(hardware("node-b"), "tailwise")
    lying["metadata"]["name"] = "tailwise-hardware-node-a"
    with pytest.raises(HardwareError, match="node-b"):
        hardware_from_object(lying)
