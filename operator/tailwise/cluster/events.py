"""What users read in ``kubectl describe`` and ``kubectl events``: one small constructor an event.

An event is told once. What makes two the same is its key (object, reason, and what the constructor adds),
not its sentence, since figures in it change. A repetition raises the count of the first one's series, at
most once in five minutes, and because names are made from keys this holds across restarts too.

What happens to pods by the thousand is told of each of a workload's first few, and of the rest in one event
on the workload now and then: an event costs the API server as much as half a placement.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import aiohttp

from tailwise.api.conditions import EventReason
from tailwise.api.labels import SCHEDULER_NAME, WORKLOAD_LABEL
from tailwise.cluster import apply
from tailwise.cluster.client import EVENTS, ApiError, Client, Resource

_LOGGER = logging.getLogger(__name__)

_COMPONENT = "tailwise.dev/operator"
_LONGEST_NOTE = 1024  # the API's limit
_SERIES_INTERVAL_SECONDS = 300.0
# Of a workload's placements so many are told one by one, then one in so long; the rest now and then together.
_TOLD_SINGLY, _SINGLE_REFILL_SECONDS, _CROWD_SECONDS = 10, 30.0, 10.0
_QUEUE_LENGTH = 2000
_REMEMBERED = 20_000
# As client-go's spam filter: an object may have 25 events at once, then one in five minutes.
_BURST, _REFILL_SECONDS = 25, 300.0


class EventType(StrEnum):
    """Whether somebody should look."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @staticmethod
    def of(resource: Resource, namespace: str, name: str, uid: str) -> Regarding:
        """The reference to an object of a resource."""
        return Regarding(resource.api_version, resource.kind, namespace, name, uid)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell. ``key`` tells apart events of one reason on one object."""

    regarding: Regarding
    type: EventType
    reason: str
    action: str
    note: str
    key: str = ""
    # The workload that is told of many of these in one piece.
    crowd: Regarding | None = None

    @property
    def name(self) -> str:
        """Name of the Event object, the same for all repetitions."""
        identity = "\0".join((self.regarding.uid, self.regarding.name, self.reason, self.key))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return f"{self.regarding.name[:200].rstrip('.-')}.{digest}"


# ---- one constructor an event: pods


def placed(pod: Regarding, sentence: str, workload: Regarding) -> Event:
    """A pod got its node, which ``sentence`` begins with."""
    note = f"Placed on {sentence}"
    return Event(pod, EventType.NORMAL, EventReason.PLACED, "Place", note, crowd=workload)


def no_feasible_node(pod: Regarding, sentence: str, workload: Regarding) -> Event:
    """No node fits a pod now; it is tried again when the cluster changes."""
    reason = EventReason.NO_FEASIBLE_NODE
    return Event(pod, EventType.WARNING, reason, "Place", sentence, crowd=workload)


def fell_back(pod: Regarding, why: str, workload: Regarding) -> Event:
    """A pod was let go without a placement."""
    note = f"Left to the default scheduler without a placement: {why}"
    return Event(pod, EventType.WARNING, EventReason.FELL_BACK, "Place", note, crowd=workload)


def held(pod: Regarding, why: str, workload: Regarding, *, to_bind: bool = False) -> Event:
    """A pod stays gated because its workload says so, or unbound because nobody else may bind it."""
    if to_bind:
        note = f"Not bound, and no other scheduler takes a pod of schedulerName {SCHEDULER_NAME}: {why}"
    else:
        note = f"Held at the gate, because spec.placement.fallback is Hold: {why}"
    return Event(pod, EventType.WARNING, EventReason.HELD, "Place", note, crowd=workload)


def refused(pod: Regarding, node: str, why: str) -> Event:
    """A pod that its node would not take was deleted, so that its controller makes another."""
    note = f"Deleted, so that its successor is placed elsewhere than on {node}: {why}"
    return Event(pod, EventType.WARNING, EventReason.UNSCHEDULABLE_AFTER_PLACEMENT, "Replace", note)


def moved(pod: Regarding, node: str, why: str) -> Event:
    """A pod that ran was evicted, so that its successor runs on a better node."""
    return Event(pod, EventType.NORMAL, EventReason.MOVED, "Move", f"Moved off {node}: {why}")


def unknown_workload(pod: Regarding, workload: str, *, to_bind: bool = False) -> Event:
    """A pod's label names no workload of its namespace."""
    fate = "waits, for no other scheduler takes it" if to_bind else "is left to the default scheduler"
    note = (
        f"metadata.labels[{WORKLOAD_LABEL}]: namespace {pod.namespace} has no InferenceWorkload {workload}, "
        f"so the pod {fate}; create it, or correct the label"
    )
    return Event(pod, EventType.WARNING, EventReason.UNKNOWN_WORKLOAD, "Place", note, workload)


def claimed_twice(pod: Regarding, labelled: str, owner: str) -> Event:
    """A pod's label names one workload while another's template made it."""
    note = (
        f"metadata.labels[{WORKLOAD_LABEL}]: names InferenceWorkload {labelled}, but the pod was made by the "
        f"template of {owner}, which counts; remove the label from spec.template of {owner}"
    )
    return Event(pod, EventType.WARNING, EventReason.CLAIMED_TWICE, "Place", note, f"{labelled}/{owner}")


# ---- one constructor an event: workloads, latency models, hardware


def crowd(last: Event, count: int, key: str) -> Event:
    """So many more of a workload's pods met with what ``last`` says of one of them."""
    workload = last.crowd or last.regarding
    note = f"{count} more pods: {last.reason}, the last of them {last.regarding.name}: {last.note}"
    return Event(workload, last.type, last.reason, last.action, note, key)


def warning(regarding: Regarding, reason: str, message: str, key: str = "") -> Event:
    """Something about a workload or latency model needs its author; the condition says the same."""
    return Event(regarding, EventType.WARNING, reason, "Reconcile", message, key)


def hardware_unreadable(config_map: Regarding, message: str) -> Event:
    """A node's hardware ConfigMap cannot be read."""
    return Event(config_map, EventType.WARNING, "HardwareUnreadable", "Read", message)


# ---- posting


@dataclass(slots=True)
class _Told:
    count: int
    told_at: float
    untold: int = 0
    # Told of as one of its workload's crowd, and never by itself.
    counted: bool = False


@dataclass(slots=True)
class _Crowd:
    """Events of one reason that a workload has not been told of yet."""

    last: Event
    count: int = 0


class Recorder:
    """Takes events without waiting and posts them in the background; losing one harms nobody but readers."""

    def __init__(self, client: Client, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._instance = instance[:128]
        self._clock = clock
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE_LENGTH)
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._crowds: dict[str, _Crowd] = {}
        self._crowded = asyncio.Event()
        self.dropped = 0

    def record(self, event: Event) -> None:
        """Have an event told, unless it was told lately or its object has had too many."""
        now = self._clock()
        identity = f"{event.regarding.namespace}/{event.name}"
        told = self._told.get(identity)
        if told is not None and (told.counted or now - told.told_at < _SERIES_INTERVAL_SECONDS):
            told.untold += 1
            return
        if told is None and event.crowd is not None and not self._told_singly(event, event.crowd, now):
            self._remember(identity, _Told(0, now, counted=True))
            return
        if told is None and not self._allowed(event.regarding.uid, now, _BURST, _REFILL_SECONDS):
            self.dropped += 1
            return
        if told is None:
            told = self._remember(identity, _Told(0, now))
        told.told_at = now
        told.untold += 1
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self, workers: int = 8) -> None:
        """Post until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_crowds(), name="events-crowds")
            for number in range(workers):
                group.create_task(self._post_all(), name=f"events-{number}")

    async def drain(self, seconds: float) -> None:
        """Wait for what is queued to be posted, no longer than so long, before the process ends."""
        self._queue_crowds()
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            _LOGGER.info("%d events left untold", self._queue.qsize())

    def _remember(self, identity: str, told: _Told) -> _Told:
        self._told[identity] = told
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return told

    def _told_singly(self, event: Event, workload: Regarding, now: float) -> bool:
        """Whether an event is told by itself; else it is counted as one of its workload's crowd."""
        key = f"{workload.uid}/{event.reason}"
        if self._allowed(key, now, _TOLD_SINGLY, _SINGLE_REFILL_SECONDS):
            return True
        known = self._crowds.setdefault(key, _Crowd(event))
        known.last, known.count = event, known.count + 1
        self._crowded.set()
        return False

    async def _tell_crowds(self) -> None:
        while True:
            await self._crowded.wait()
            await asyncio.sleep(_CROWD_SECONDS)
            self._queue_crowds()

    def _queue_crowds(self) -> None:
        """One event for each crowd; the time in its key makes it another than those before."""
        crowds, self._crowds = self._crowds, {}
        self._crowded.clear()
        for each in crowds.values():
            try:
                self._queue.put_nowait(crowd(each.last, each.count, _now()))
            except asyncio.QueueFull:
                self.dropped += each.count

    async def _post_all(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._post(event)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                self.dropped += 1
                _LOGGER.info("event %s on %s not told: %s", event.reason, event.regarding.name, error)
            except Exception:
                _LOGGER.exception("event %s on %s not told", event.reason, event.regarding.name)
            finally:
                self._queue.task_done()

    async def _post(self, event: Event) -> None:
        namespace = event.regarding.namespace or "default"
        told = self._told.get(f"{event.regarding.namespace}/{event.name}") or _Told(0, self._clock(), 1)
        count, told.untold = told.untold, 0
        if told.count == 0:
            written = await apply.create(
                self._client, EVENTS, self.manifest(event, namespace), read_answer=False
            )
            if written.outcome is not apply.Outcome.CONFLICT:
                if not written.done:
                    _LOGGER.info(
                        "event %s on %s refused: %s", event.reason, event.regarding.name, written.message
                    )
                told.count += count
                return
            # Told by a process before this one: a restart is no news, so only the count goes on.
            stored = await self._client.request("GET", EVENTS.path(namespace, event.name))
            told.count = int((stored.get("series") or {}).get("count") or 1)
        told.count += count
        series = {"count": max(told.count, 2), "lastObservedTime": _now()}
        written = await apply.merge_patch(self._client, EVENTS, namespace, event.name, {"series": series})
        if written.outcome is apply.Outcome.NOT_FOUND:  # the API server keeps events for an hour
            told.count = count
            await apply.create(self._client, EVENTS, self.manifest(event, namespace))

    def manifest(self, event: Event, namespace: str) -> dict[str, Any]:
        """The Event object that tells of an event."""
        note = event.note if len(event.note) <= _LONGEST_NOTE else event.note[: _LONGEST_NOTE - 1] + "…"
        regarding = {
            "apiVersion": event.regarding.api_version,
            "kind": event.regarding.kind,
            "name": event.regarding.name,
            "uid": event.regarding.uid,
        }
        if event.regarding.namespace:
            regarding["namespace"] = event.regarding.namespace
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": event.name, "namespace": namespace},
            "eventTime": _now(),
            "type": event.type.value,
            "reason": str(event.reason),
            "action": event.action,
            "note": note,
            "regarding": regarding,
            "reportingController": _COMPONENT,
            "reportingInstance": self._instance,
        }

    def _allowed(self, key: str, now: float, burst: int, refill_seconds: float) -> bool:
        """Take a token of the key's bucket, if it has one: so many at once, then one in so long."""
        tokens, since = self._tokens.get(key, (float(burst), now))
        tokens = min(float(burst), tokens + (now - since) / refill_seconds)
        allowed = tokens >= 1
        self._tokens[key] = (tokens - 1 if allowed else tokens, now)
        self._tokens.move_to_end(key)
        if len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        return allowed


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
