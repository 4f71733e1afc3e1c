"""A store of files over HTTP on loopback, well or badly behaved, for tests of reading models."""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Store:
    """What the server has and how it behaves; counters say what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    endless: frozenset[str] = frozenset()
    cut_after: int | None = None
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    close_each: bool = False
    requests: int = 0
    connections: int = 0
    sent: int = 0
    wanted: str = ""
    authorizations: set[str] = field(default_factory=set)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    store: Store

    def setup(self) -> None:
        super().setup()
        self.store.connections += 1

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's own name
        """Say nothing."""

    def do_GET(self) -> None:
        store = self.store
        store.requests += 1
        store.authorizations.add(self.headers.get("Authorization", ""))
        time.sleep(store.delay_seconds)
        if store.wanted and self.headers.get("Authorization") != store.wanted:
            self._empty(401)
        elif self.path in store.statuses:
            self._empty(store.statuses[self.path])
        elif self.path in store.redirects:
            self._empty(302, {"Location": store.redirects[self.path]})
        elif self.path in store.endless:
            self._endless(store.files[self.path])
        elif self.path in store.files:
            self._file(store.files[self.path])
        else:
            self._empty(404)

    def _empty(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = 0, len(content)
        if asked and self.store.ranges:
            begin, end = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
            if begin >= len(content):
                self._empty(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.store.etags:
            self.send_header("ETag", f'"{hashlib.md5(content[:4096]).hexdigest()}"')  # noqa: S324 -- a tag
        self.send_header("Content-Length", str(end - begin))
        if self.store.close_each:
            self.send_header("Connection", "close")
        self.end_headers()
        limit = self.store.cut_after
        if limit is not None:
            self._send(memoryview(content)[begin : min(end, limit)])
            self.close_connection = True
        else:
            self._send(memoryview(content)[begin:end])

    def _endless(self, head: bytes) -> None:
        """A file that never ends, of unknown length."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            chunk = head
            while True:
                self.wfile.write(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
                self.store.sent += len(chunk)
                chunk = bytes(64 * 1024)

    def _send(self, data: memoryview) -> None:
        """Send at the store's pace, in pieces of about a millisecond: a link has no lumps."""
        pace = self.store.bytes_per_second
        piece = 64 * 1024 if pace is None else min(max(int(pace / 1000), 4 * 1024), 64 * 1024)
        began = time.perf_counter()
        for begin in range(0, len(data), piece):
            part = data[begin : begin + piece]
            if pace is not None:
                time.sleep(max(0.0, began + (begin + len(part)) / pace - time.perf_counter()))
            try:
                self.wfile.write(part)
            except ConnectionError:
                self.close_connection = True
                return
            self.store.sent += len(part)


@contextlib.contextmanager
def serving(store: Store, tls: ssl.SSLContext | None = None) -> Iterator[Store]:
    """Serve a store on a free port of loopback; sets its ``url`` (without a trailing slash)."""
    handler = type("Handler", (_Handler,), {"store": store})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    scheme = "http" if tls is None else "https"
    store.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
