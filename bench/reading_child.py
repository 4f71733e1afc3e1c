"""The reader's process of ``bench.reading``: KIND URL ROUNDS; prints its figures as JSON, times in ms."""

from __future__ import annotations

import http.client
import json
import re
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tailwise.models.addresses import AddressPolicy
from tailwise.models.graph import parse_skeleton, walk_graph
from tailwise.models.http_source import HttpAccess, HttpSource
from tailwise.models.inspection import AddressRules, ChildRequest
from tailwise.models.reading import profile_of
from tailwise.models.sources import Identity, Pace

_ACCESS = HttpAccess(AddressPolicy(allow_local=True), allow_http=True)


class _Memory:
    """A file that has been received."""

    seekable = True

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.pace = Pace(round_trip_seconds=1e-5, bytes_per_second=1e9)
        self.bytes_read = 0
        self.size = len(content)
        self.identity = Identity()

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]

    def close(self) -> None:
        """Nothing to close."""


def _near(url: str) -> dict[str, float]:
    """One reading and counting, as the operator's child does it; the graph alone is timed apart."""
    rules = AddressRules(allow_local=True)
    begin = time.perf_counter()
    source = HttpSource(url, _ACCESS)
    walk_graph(source)
    read = time.perf_counter() - begin
    source.close()
    begin = time.perf_counter()
    profile = profile_of(ChildRequest(url=url, addresses=rules, allow_http=True))
    whole = time.perf_counter() - begin
    return {
        "bytes": profile.bytes_read,
        "read": 1000 * read,
        "all": 1000 * whole,
        "resident": _peak_mebibytes(),
    }


def _peak_mebibytes() -> float:
    """The process's own peak; ru_maxrss also knows the parent that it was forked from."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def _far(url: str, rounds: int) -> dict[str, float]:
    """Readings and downloads in turn, so that both see the same neighbours; medians."""
    parts = urlsplit(url)
    reads, wholes, count = [], [], 0
    for _ in range(rounds):
        begin = time.perf_counter()
        source = HttpSource(url, _ACCESS)
        parse_skeleton(walk_graph(source))
        source.close()
        reads.append(time.perf_counter() - begin)
        count = source.bytes_read
        begin = time.perf_counter()
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        connection.request("GET", parts.path)
        parse_skeleton(walk_graph(_Memory(connection.getresponse().read())))
        connection.close()
        wholes.append(time.perf_counter() - begin)
    middle = rounds // 2
    return {"bytes": count, "read": 1000 * sorted(reads)[middle], "whole": 1000 * sorted(wholes)[middle]}


if __name__ == "__main__":
    kind, url, rounds = sys.argv[1:4]
    print(json.dumps(_near(url) if kind == "near" else _far(url, int(rounds))))
