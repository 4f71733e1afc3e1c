"""A local copy of objects of one kind, kept true by a list and a watch.

A list in pages gives every object and a resource version; a watch goes on from there. When the watch ends
(server's timeout, lost connection, silence) it is resumed from the last version seen, bookmarks included;
when that version is gone (410) the list is taken again and compared with the copy, so that a deletion that
nobody saw is still told. Objects are trimmed by ``transform`` before they are kept: at 10,000 pods the raw
JSON would be hundreds of MiB.

kubernetes-asyncio has a watch but no such copy; kopf filters on the client's side and keeps whole bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import aiohttp

from tailwise.cluster.client import ApiError, Client, Resource

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")
Raw = Mapping[str, Any]

# Bookmarks come about once a minute; a stream silent for longer is dead though its socket may not know.
_INACTIVITY_SECONDS = 75.0
_WATCH_SECONDS = 290
_PAGE_SIZE = 500
_LISTS_TRIED = 3
_LONGEST_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Key:
    """Namespace and name; the namespace is empty for cluster-scoped kinds."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Selection:
    """What is watched; selectors are applied by the API server."""

    resource: Resource
    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The selectors as query parameters."""
        selectors = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {name: value for name, value in selectors.items() if value}


def _ignore(*_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Listener(Generic[T]):
    """What is called, in the event loop and in order, when the copy changes; it must not block."""

    on_added: Callable[[Key, T], None] = _ignore
    on_modified: Callable[[Key, T, T], None] = _ignore  # key, old, new
    on_deleted: Callable[[Key, T], None] = _ignore


class _GoneError(Exception):
    """The resource version is too old to resume from."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    uid: str
    resource_version: str
    value: T


class Reflector(Generic[T]):
    """The copy. ``run`` keeps it until cancelled; ``synced`` is set once the first list is complete.

    ``transform`` turns an object's JSON into what is kept, or None for an object that does not count. An
    exception in it, or in the listener, is logged with the object's name and costs that change only.
    ``restarted`` is told resource and reason (expired, error, closed) whenever a watch ended.
    """

    def __init__(
        self,
        client: Client,
        selection: Selection,
        transform: Callable[[Raw], T | None],
        listener: Listener[T] | None = None,
        *,
        inactivity_seconds: float = _INACTIVITY_SECONDS,
        watch_seconds: int = _WATCH_SECONDS,
        page_size: int = _PAGE_SIZE,
        restarted: Callable[[str, str], None] = _ignore,
    ) -> None:
        self._client = client
        self.selection = selection
        self._transform = transform
        self._listener: Listener[T] = listener or Listener()
        self._inactivity_seconds = inactivity_seconds
        self._watch_seconds = watch_seconds
        self._page_size = page_size
        self._restarted = restarted
        self._entries: dict[Key, _Entry[T]] = {}
        self._resource_version = ""
        self._last_contact = time.monotonic()
        self.synced = asyncio.Event()

    # ---- what readers use

    def get(self, namespace: str, name: str) -> T | None:
        """The object of this name, if the copy has it."""
        entry = self._entries.get(Key(namespace, name))
        return entry.value if entry else None

    def values(self) -> Iterator[T]:
        """All objects; the copy may not change while they are iterated."""
        return (entry.value for entry in self._entries.values())

    def items(self) -> Iterator[tuple[Key, T]]:
        """All keys and objects."""
        return ((key, entry.value) for key, entry in self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def silence_seconds(self) -> float:
        """How long ago the API server was last heard; a probe fails when it is long."""
        return time.monotonic() - self._last_contact

    # ---- the loop

    async def read(self) -> None:
        """Take the list once, with no watch after it: for commands that answer and end.

        Raises:
            ApiError: the API server refused, or the list changed faster than it could be read.
            aiohttp.ClientError, TimeoutError: it did not answer.
        """
        for _ in range(_LISTS_TRIED):
            with contextlib.suppress(_GoneError):
                await self._list()
                return
        plural = self.selection.resource.plural
        raise ApiError(HTTPStatus.GONE, "Expired", f"{plural}: no list was complete before it was too old")

    async def run(self) -> None:
        """List and watch until cancelled; every failure is logged, waited for and tried again."""
        failures = 0
        while True:
            try:
                if not self._resource_version:
                    await self._list()
                    failures = 0
                await self._watch()
                self._restarted(self.selection.resource.plural, "closed")
                failures = 0
            except _GoneError:
                self._restarted(self.selection.resource.plural, "expired")
                _LOGGER.info("%s: watch too old, listing again", self.selection.resource.plural)
                self._resource_version = ""
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failures += 1
                self._restarted(self.selection.resource.plural, "error")
                delay = min(0.2 * 2**failures, _LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311
                level = logging.INFO if failures == 1 else logging.WARNING
                _LOGGER.log(
                    level,
                    "%s: %s; trying again in %.1f s",
                    self.selection.resource.plural,
                    _sentence(error),
                    delay,
                )
                await asyncio.sleep(delay)

    async def _list(self) -> None:
        path = self.selection.resource.path(self.selection.namespace)
        query = {**self.selection.query, "limit": str(self._page_size)}
        seen: set[Key] = set()
        while True:
            try:
                page = await self._client.request("GET", path, query=query, timeout_seconds=60)
            except ApiError as error:
                if error.code == HTTPStatus.GONE:  # the continue token expired: take the list from its start
                    raise _GoneError from None
                raise
            self._last_contact = time.monotonic()
            for item in page.get("items") or ():
                seen.add(_key(item))
                self._put(item)
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        for key in [key for key in self._entries if key not in seen]:
            self._remove(key)
        self._resource_version = metadata["resourceVersion"]
        self.synced.set()

    async def _watch(self) -> None:
        query = {
            **self.selection.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._resource_version,
            "timeoutSeconds": str(self._watch_seconds),
        }
        path = self.selection.resource.path(self.selection.namespace)
        try:
            async with self._client.stream(path, query=query) as lines:
                while True:
                    async with asyncio.timeout(self._inactivity_seconds):
                        line = await lines.readline()
                    if not line:
                        return
                    self._last_contact = time.monotonic()
                    self._event(json.loads(line))
        except ApiError as error:
            if error.code == HTTPStatus.GONE:
                raise _GoneError from None
            raise

    def _event(self, event: Raw) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            code = int(item.get("code", 0))
            if code == HTTPStatus.GONE:
                raise _GoneError
            raise ApiError(code, str(item.get("reason", "")), str(item.get("message", "")))
        if kind == "DELETED":
            self._remove(_key(item))
        elif kind in ("ADDED", "MODIFIED"):
            self._put(item)
        self._resource_version = item["metadata"]["resourceVersion"]

    def _put(self, item: Raw) -> None:
        key = _key(item)
        metadata = item["metadata"]
        uid, version = metadata["uid"], metadata["resourceVersion"]
        old = self._entries.get(key)
        if old is not None and old.resource_version == version:
            return
        if old is not None and old.uid != uid:  # deleted and made again while nobody watched
            self._remove(key)
            old = None
        try:
            value = self._transform(item)
        except Exception:
            _LOGGER.exception("%s %s cannot be read; ignored", self.selection.resource.kind, key)
            value = None
        if value is None:
            self._remove(key)
            return
        self._entries[key] = _Entry(uid, version, value)
        if old is None:
            self._tell(self._listener.on_added, key, value)
        else:
            self._tell(self._listener.on_modified, key, old.value, value)

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._tell(self._listener.on_deleted, key, entry.value)

    def _tell(self, callback: Callable[..., None], key: Key, *values: T) -> None:
        try:
            callback(key, *values)
        except Exception:
            _LOGGER.exception("%s %s: a listener failed", self.selection.resource.kind, key)


def _key(item: Raw) -> Key:
    metadata = item["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def _sentence(error: BaseException) -> str:
    return str(error) or type(error).__name__
