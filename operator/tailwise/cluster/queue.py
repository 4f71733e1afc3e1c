"""A queue of keys: each waits once, is worked on by one worker at a time, and backs off by itself.

A key that is added while a worker has it is worked on once more afterwards, so that no change is missed and
none is handled by two at once. A handler that raises has its key tried again after a delay that doubles;
one that returns seconds has it come back after them (a timer that survives nothing else: whoever restarts
lists everything anyway).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

_LOGGER = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
_FIRST_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 60.0


class Gauges(Protocol):
    """Where a queue reports to (``tailwise.telemetry.metrics`` makes them)."""

    def depth(self, queue: str, keys: int) -> None:
        """Keys that wait now."""

    def waited(self, queue: str, seconds: float) -> None:
        """How long a key waited until a worker took it."""

    def worked(self, queue: str, seconds: float, failed: bool) -> None:
        """How long a worker had it, and whether it raised."""


class NoGauges:
    """Reports nothing."""

    def depth(self, queue: str, keys: int) -> None:
        """Ignore."""

    def waited(self, queue: str, seconds: float) -> None:
        """Ignore."""

    def worked(self, queue: str, seconds: float, failed: bool) -> None:
        """Ignore."""


class WorkQueue(Generic[K]):
    """The queue; all of it lives in one event loop."""

    def __init__(self, name: str, gauges: Gauges | None = None) -> None:
        self.name = name
        self._gauges: Gauges = gauges or NoGauges()
        self._ready: deque[K] = deque()
        self._since: dict[K, float] = {}  # keys that wait, and since when
        self._working: set[K] = set()
        self._again: set[K] = set()  # added while being worked on
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}  # keys to be added later, and when
        self._timers: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()  # a key is ready
        self._rearm = asyncio.Event()  # an earlier timer was set

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Have a key worked on as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            self._ready.append(key)
            self._gauges.depth(self.name, len(self._ready))
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a delay; of several delays for one key the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        due = time.monotonic() + seconds
        known = self._due.get(key)
        if key in self._since or (known is not None and known <= due):
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, next(self._order), key))
        self._rearm.set()

    async def run(self, workers: int, handle: Callable[[K], Awaitable[float | None]]) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name=f"{self.name}-timers")
            for number in range(workers):
                group.create_task(self._work(handle), name=f"{self.name}-{number}")

    async def _tick(self) -> None:
        while True:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:  # not overtaken by an earlier add
                    self.add(key)
            self._rearm.clear()
            timeout = self._timers[0][0] - now if self._timers else None
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with what it waits for,
            # and this would tick on in a process that must end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._rearm.wait()

    async def _work(self, handle: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key = self._ready.popleft()
            began = time.monotonic()
            self._gauges.depth(self.name, len(self._ready))
            self._gauges.waited(self.name, began - self._since.pop(key))
            self._working.add(key)
            failed, delay = True, None
            try:
                delay = await handle(key)
                failed = False
            except Exception as error:
                delay = self._back_off(key, error)
            finally:
                self._working.discard(key)
                self._gauges.worked(self.name, time.monotonic() - began, failed)
            if not failed:
                self._failures.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                # What arrived meanwhile does not cut a back-off short, or a failing key would spin.
                if not failed:
                    self.add(key)
                    continue
            if delay is not None:
                self.add_after(key, delay)

    def _back_off(self, key: K, error: Exception) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(_FIRST_DELAY_SECONDS * 2.0**failures, _LONGEST_DELAY_SECONDS)
        # The first failure is often a passing one; from the third on somebody should read why.
        if failures >= 2:
            _LOGGER.warning(
                "%s %s: failed %d times; again in %.1f s", self.name, key, failures + 1, delay, exc_info=error
            )
        else:
            _LOGGER.info("%s %s: %s: %s; again in %.2f s", self.name, key, type(error).__name__, error, delay)
        return delay
