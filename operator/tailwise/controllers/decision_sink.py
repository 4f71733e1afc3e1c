"""Decisions and what came of them as JSON Lines, for those who keep them: a file, or objects of a bucket.

A file is appended to, and moved aside when it is large. A bucket's objects cannot be appended to: each holds
what happened since the one before. What cannot be written waits, bounded; placements never wait for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tailwise.controllers.ledger import Happened
from tailwise.domain.ledger import Entry, entry_document
from tailwise.models.errors import InspectionError

_LOGGER = logging.getLogger(__name__)

SCHEMES = ("s3", "gs", "az")
FLUSH_SECONDS = 5.0
MOST_WAITING = 20_000
MOST_FILE_BYTES = 64 * 2**20

Write = Callable[[str, bytes], None]
"""Writes lines; the name says when they are from. Raises OSError or InspectionError. Off the event loop."""


def writer_of(target: str, environment: Mapping[str, str] = os.environ) -> Write:
    """What writes to a path, a file:// URL, or beneath an s3://, gs:// or az:// prefix.

    Raises ValueError: the target is neither.
    """
    scheme, separator, _ = target.partition("://")
    if not separator or scheme == "file":
        path = Path(unquote(urlsplit(target).path) if separator else target)
        return lambda _name, lines: _append(path, lines)
    if scheme not in SCHEMES:
        raise ValueError(f"{target!r} is neither a file nor an s3://, gs:// or az:// URL")
    return lambda name, lines: _put(f"{target.rstrip('/')}/{name}", lines, environment)


def sink_of(target: str | None, identity: str) -> DecisionSink | None:
    """The sink for an operator's option; None without one. Raises ValueError as ``writer_of``."""
    return None if target is None else DecisionSink(writer_of(target), identity)


@dataclass(slots=True)
class DecisionSink:
    """``told`` is what a ledger calls; ``run`` writes until cancelled, ``flush`` once."""

    write: Write
    identity: str
    flush_seconds: float = FLUSH_SECONDS
    lost: int = 0
    _waiting: deque[str] = field(default_factory=deque)
    _fault: str = ""

    def told(self, what: Happened, entry: Entry) -> None:
        """Take a line; the oldest gives way when nothing can be written for long."""
        self._waiting.append(json.dumps({"event": what.value, **entry_document(entry)}))
        self._forget()

    async def run(self) -> None:
        """Write what waits, every few seconds; what still waits at the end is written then."""
        try:
            while True:
                await asyncio.sleep(self.flush_seconds)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> bool:
        """Write what waits; False where that could not be done, and it waits on."""
        if not self._waiting:
            return True
        lines = tuple(self._waiting)
        self._waiting.clear()
        name = f"decisions-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{self.identity}.jsonl"
        try:
            await asyncio.to_thread(self.write, name, ("\n".join(lines) + "\n").encode())
        except (OSError, InspectionError) as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _LOGGER.warning("decisions cannot be written: %s; they wait", error)
            self._waiting.extendleft(reversed(lines))
            self._forget()
            return False
        if self._fault:
            _LOGGER.info("decisions are written again, %d were lost", self.lost)
            self._fault = ""
        return True

    def _forget(self) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1


def _append(path: Path, lines: bytes) -> None:
    if path.exists() and path.stat().st_size + len(lines) > MOST_FILE_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines)


def _put(url: str, lines: bytes, environment: Mapping[str, str]) -> None:
    import obstore  # noqa: PLC0415 - a library that most operators do without
    from obstore.exceptions import BaseError  # noqa: PLC0415

    from tailwise.models.object_store import store_of  # noqa: PLC0415

    store, path, where = store_of(url, environment)
    try:
        obstore.put(store, path, lines)
    except (BaseError, OSError) as error:
        words = " ".join(str(error).partition("Debug source")[0].split())[:300]
        raise OSError(f"{where}: {words}") from error
