"""The probe fails when the operator is stuck; whoever loses the Lease ends with exit code 1."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import kopf
import pytest_asyncio
from kopf._core.engines import indexing, probing
from kubernetes_asyncio.client import ApiClient, Configuration

from tailwise import handlers
from tailwise.api.labels import LEASE_NAME
from tailwise.cluster import apply
from tailwise.cluster.client import LEASES, Client
from tailwise.controllers.options import OperatorOptions
from tailwise.controllers.runtime import Runtime
from tailwise.controllers.view import cluster_view
from tests.cluster.controlplane import ControlPlane
from tests.cluster.ports import free_port
from tests.operator.conftest import NAMESPACES
from tests.operator.process import Operator
from tests.operator.stage import until


@contextlib.asynccontextmanager
async def probed(runtime: Runtime) -> AsyncIterator[str]:
    """The URL of the probe of this operator, as kopf serves it."""
    assert handlers.fresh
    url = f"http://127.0.0.1:{free_port('127.0.0.1', set())}/healthz"
    ready = asyncio.Event()
    serving = asyncio.create_task(
        probing.health_reporter(
            endpoint=url,
            memo=cast(Any, kopf.Memo(runtime=runtime)),
            registry=kopf.get_default_registry(),
            settings=kopf.OperatorSettings(),
            indices=indexing.OperatorIndexers().indices,
            ready_flag=ready,
        )
    )
    try:
        await asyncio.wait_for(ready.wait(), 10)
        yield url
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def answer(url: str) -> int:
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
        return response.status


@pytest_asyncio.fixture
async def runtime() -> AsyncIterator[Runtime]:
    """An operator that has started and whose reflectors have just heard from the API server."""
    made = Runtime(OperatorOptions("nowhere", "me"))
    client = Client(ApiClient(Configuration()))
    made._view = cluster_view(client, "nowhere", made.registry)
    made._reflectors = made._view.reflectors
    made._started = True
    yield made
    await client.close()


async def test_the_probe_answers_while_the_api_server_is_heard(runtime: Runtime) -> None:
    async with probed(runtime) as url:
        assert await answer(url) == 200


async def test_the_probe_fails_when_one_watch_has_been_silent_for_long(runtime: Runtime) -> None:
    runtime._view.nodes._last_contact -= 1000
    async with probed(runtime) as url:
        assert await answer(url) == 500


async def test_the_probe_fails_once_a_part_of_the_operator_has_ended(runtime: Runtime) -> None:
    runtime.failure = "placement workers: ended"
    async with probed(runtime) as url:
        assert await answer(url) == 500


async def test_an_operator_that_waits_for_its_crds_is_not_restarted() -> None:
    async with probed(Runtime(OperatorOptions("nowhere", "me"))) as url:
        assert await answer(url) == 200


async def test_an_operator_whose_lease_was_taken_ends_with_exit_code_1(
    control_plane: ControlPlane, client: Client, tmp_path: Path
) -> None:
    namespace = "operator-that-loses"
    await apply.create(client, NAMESPACES, {"metadata": {"name": namespace}})
    operator = Operator(control_plane.kubeconfig, namespace, tmp_path / "operator.log")
    await operator.start()

    async def lease() -> dict[str, Any]:
        listed = await client.request("GET", LEASES.path(namespace))
        return next((each for each in listed["items"] if each["metadata"]["name"] == LEASE_NAME), {})

    try:
        await until(lease, "the Lease to be taken")
        spec = {"holderIdentity": "a thief", "leaseDurationSeconds": 60}
        stolen = await apply.merge_patch(client, LEASES, namespace, LEASE_NAME, {"spec": spec})
        assert stolen.done, stolen.message
        assert operator.process is not None
        code = await asyncio.wait_for(operator.process.wait(), 60)
    finally:
        await operator.stop()
    print(operator.log_text)
    assert code == 1
    assert "a thief" in operator.log_text
    assert (await lease())["spec"]["holderIdentity"] == "a thief"
