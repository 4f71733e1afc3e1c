"""Keeps the node's ConfigMap true: reads at an interval, applies what changed, probes rarely.

The ConfigMap is owned by the Node, so it goes with it. ``/healthz`` answers 200 while the last round
succeeded within three intervals, 503 otherwise; before the first success it is 503 too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web

from tailwise.agent.probe import ProbeError, measure
from tailwise.agent.reading import Roots, lasting_facts, online_cores, read_hardware
from tailwise.api.hardware import NodeHardware
from tailwise.api.labels import AGENT_FIELD_MANAGER
from tailwise.cluster.client import CONFIG_MAPS, NODES, ApiError, Client, ContentType
from tailwise.cluster.hardware import config_map

REPROBE_AFTER = timedelta(hours=24)
RETRY_SECONDS = 15.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class AgentState:
    """What one round leaves for the next: the last reading, and what the API server was last told."""

    hardware: NodeHardware | None = None
    published: NodeHardware | None = None
    succeeded_at: float | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)


def needs_probe(last: NodeHardware | None, cores: int, cpu_model: str, now: datetime) -> bool:
    """Whether speeds must be measured anew: never measured, another machine, or a day old."""
    if last is None:
        return True
    return (last.cores, last.cpu_model) != (cores, cpu_model) or now - last.measured_at >= REPROBE_AFTER


async def read_node(node: str, roots: Roots, last: NodeHardware | None) -> NodeHardware:
    """Read the hardware, with the last reading's speeds unless they must be measured anew.

    Raises:
        ProbeError: the probe failed and there are no earlier speeds.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    cores = online_cores(roots)
    if last is not None:
        current = read_hardware(node, roots, last.measured, last.measured_at)
        if not needs_probe(last, current.cores, current.cpu_model, now):
            return current
    measured = await asyncio.to_thread(measure, cores)
    return read_hardware(node, roots, measured, now)


async def publish(client: Client, namespace: str, hardware: NodeHardware) -> None:
    """Apply the node's ConfigMap, owned by its Node.

    Raises:
        ApiError: the Node does not exist or the write was refused.
    """
    node = await client.request("GET", NODES.path(name=hardware.node))
    manifest = config_map(hardware, namespace)
    manifest["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Node", "name": hardware.node, "uid": node["metadata"]["uid"]}
    ]
    await client.request(
        "PATCH",
        CONFIG_MAPS.path(namespace, manifest["metadata"]["name"]),
        query={"fieldManager": AGENT_FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"},
        body=manifest,
        content_type=ContentType.APPLY,
    )


async def run(
    connect: Callable[[], Awaitable[Client]],
    node: str,
    namespace: str,
    roots: Roots,
    interval_seconds: float,
    state: AgentState,
) -> None:
    """Read and publish until ``state.stop`` is set; what fails is logged and tried again."""
    client = await connect()
    try:
        while not state.stop.is_set():
            pause = interval_seconds
            try:
                state.hardware = await read_node(node, roots, state.hardware)
                if state.published is None or lasting_facts(state.hardware) != lasting_facts(state.published):
                    await publish(client, namespace, state.hardware)
                    state.published = state.hardware
                    _log.info("node %s: hardware published to namespace %s", node, namespace)
                state.succeeded_at = time.monotonic()
            except (ApiError, ProbeError, aiohttp.ClientError, TimeoutError, OSError) as error:
                pause = min(RETRY_SECONDS, interval_seconds)
                _log.warning("node %s: %s; trying again in %.0f s", node, error, pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await state.stop.wait()
    finally:
        await client.close()


async def serve_health(state: AgentState, port: int, interval_seconds: float) -> web.AppRunner:
    """Serve ``/healthz`` on a port; the caller cleans the runner up."""

    async def healthz(_: web.Request) -> web.Response:
        age = None if state.succeeded_at is None else time.monotonic() - state.succeeded_at
        if age is not None and age <= 3 * interval_seconds:
            return web.Response(text="ok\n")
        said = "nothing published yet" if age is None else f"last success {age:.0f} s ago"
        return web.Response(status=503, text=said + "\n")

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
