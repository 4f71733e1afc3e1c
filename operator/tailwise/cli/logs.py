"""Logs of long-running commands: one line an entry to stderr, as text or as JSON with the object's key."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class LogFormat(StrEnum):
    """How an entry is written."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """An entry as one JSON object; ``object`` is what it is about, where that is known."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the entry; exceptions stand in ``error`` with their traceback."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = _object(record)
        if about:
            entry["object"] = about
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """An entry for eyes."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")


def configure(level: str, log_format: LogFormat) -> None:
    """Send all logs to stderr. Libraries speak from WARNING on, since they log each request below it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("aiohttp", "asyncio", "kopf", "kubernetes_asyncio", "urllib3", "client"):
        logging.getLogger(library).setLevel(logging.WARNING)


def _object(record: logging.LogRecord) -> str | None:
    about = getattr(record, "object", None)
    if about is not None:
        return str(about)
    reference = getattr(record, "k8s_ref", None)  # kopf's own
    if isinstance(reference, Mapping):
        parts = (reference.get("kind"), reference.get("namespace"), reference.get("name"))
        return "/".join(str(part) for part in parts if part)
    return None
