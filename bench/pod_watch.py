"""A process that watches a namespace and notes when each pod appeared, lost its gate, got a node and went.

All times come from one watch, so that its own lag is in each of them and falls out of their differences. A
process of its own, because creating the pods keeps an interpreter busy that should note times.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tailwise.api.labels import PLACEMENT_GATE
from tests.cluster import api
from tests.cluster.controlplane import ControlPlane

_PROGRESS_SECONDS = 5.0


@dataclass(slots=True)
class Seen:
    """One pod's times (time.monotonic, the same clock in all processes); None: it has not happened."""

    created: float
    ungated: float | None = None
    bound: float | None = None
    gone: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the pods have got; ``lost`` went without ever having a node."""

    created: int = 0
    bound: int = 0
    lost: int = 0


class PodWatchError(RuntimeError):
    """The pods were not all bound in time."""


@dataclass(frozen=True, slots=True)
class PodWatch:
    """The parent's end of a running watch. ``pid`` is the process."""

    pid: int
    connection: Connection

    def wait(self, timeout_seconds: float, what: str) -> dict[str, Seen]:
        """Times of all pods by name, once each has had a node or is gone; shows how far they are."""
        deadline = time.monotonic() + timeout_seconds
        said: Progress | None = None
        while self.connection.poll(max(0.0, deadline - time.monotonic())):
            try:
                message = self.connection.recv()
            except EOFError:
                raise PodWatchError(f"{what}: the watch ended; the last seen was {said}") from None
            if isinstance(message, Progress):
                said = message
                print(f"  {what}: {said.created} created, {said.bound} bound", flush=True)
            else:
                times: dict[str, Seen] = message
                return times
        raise PodWatchError(f"{what}: not all pods were bound in {timeout_seconds:.0f} s: {said}")


@contextmanager
def watching(plane: ControlPlane, namespace: str, expected: int) -> Iterator[PodWatch]:
    """Watch a namespace without pods until ``expected`` of them are bound; it is open when this returns."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(plane, namespace, expected, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(30) or not isinstance(ours.recv(), Progress) or process.pid is None:
            raise PodWatchError(f"namespace {namespace}: the watch did not open")
        yield PodWatch(process.pid, ours)
    finally:
        ours.close()
        process.kill()
        process.join()


def _watch(plane: ControlPlane, namespace: str, expected: int, parent: Connection) -> None:
    client = api.connect(plane)
    path = f"/api/v1/namespaces/{namespace}/pods"
    version = client.request("GET", f"{path}?limit=1")["metadata"]["resourceVersion"]
    seen: dict[str, Seen] = {}
    shown, bound, lost = time.monotonic(), 0, 0
    parent.send(Progress())
    for event in _events(client, path, version):
        now = time.monotonic()
        was_bound, was_lost = _note(seen, event, now)
        bound, lost = bound + was_bound, lost + was_lost
        if bound + lost == expected:
            parent.send(seen)
            # Until the parent has read what this process used, and ends it.
            parent.poll(None)
            return
        if now - shown > _PROGRESS_SECONDS:
            shown = now
            parent.send(Progress(len(seen), bound, lost))


def _events(client: api.Api, path: str, version: str) -> Iterator[dict[str, Any]]:
    """Events from a version on. The API server ends watches that fall behind: they go on where they were."""
    while True:
        url = f"{client.server}{path}?watch=true&resourceVersion={version}"
        response = client.pool.request("GET", url, preload_content=False)
        for line in _lines(response.stream(2**16)):
            event: dict[str, Any] = json.loads(line)
            if event["type"] == "ERROR":
                raise PodWatchError(f"the watch failed: {event['object'].get('message')}")
            version = event["object"]["metadata"]["resourceVersion"]
            yield event
        response.release_conn()


def _note(seen: dict[str, Seen], event: dict[str, Any], now: float) -> tuple[bool, bool]:
    """Take one event of the watch; returns whether it bound its pod, and whether the pod went without."""
    metadata, spec = event["object"]["metadata"], event["object"]["spec"]
    if event["type"] == "ADDED":
        seen[metadata["name"]] = Seen(now)
    if (pod := seen.get(metadata["name"])) is None:  # there before the watch was
        return False, False
    if event["type"] == "DELETED":
        pod.gone = now
        return False, pod.bound is None
    gates = [gate["name"] for gate in spec.get("schedulingGates") or ()]
    if pod.ungated is None and PLACEMENT_GATE not in gates:
        pod.ungated = now
    if pod.bound is None and spec.get("nodeName"):
        pod.bound = now
        return True, False
    return False, False


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *complete, rest = (rest + chunk).split(b"\n")
        yield from complete
