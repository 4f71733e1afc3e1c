"""A file on an HTTP server, read by range requests.

The first request asks for the head of the file and tells three things: whether the server honours
ranges (206) or sends the whole file (200, then it can only be streamed), the file's size, and the pace.

On a short way each read is one bounded range over one kept connection. On a long way an answer is a flow:
it is asked for up to the end of the file and read for as long as reading on is cheaper than a jump. So a
short file costs what its download costs, and a long one never waits for what it goes on to read.
"""

from __future__ import annotations

import http.client
import re
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from tailwise.models.errors import (
    InspectionError,
    ModelForbidden,
    ModelNotFound,
    ModelTruncated,
    ModelUnreachable,
)
from tailwise.models.http_connection import (
    ANSWER_SECONDS,
    DROPPED,
    MOST_REDIRECTS,
    REDIRECTS,
    Connection,
    HttpAccess,
    answer,
    dial,
    judged,
    origin,
    redirected,
    send,
)
from tailwise.models.sources import Identity, Pace

__all__ = ["HttpAccess", "HttpSource"]

HEAD_BYTES = 32 * 1024
STREAM_BYTES = 256 * 1024
# A connection that takes this long to make tells by itself that the way is long.
LONG_CONNECT_SECONDS = 0.005
# What is left of an answer is read to its end, to keep the connection, up to this size.
DRAIN_BYTES = 16 * 1024
LUMP_BYTES = 32 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(slots=True)
class _Flow:
    """An answer that is being read: its connection, and the bytes of the file that are still to come."""

    connection: Connection
    response: http.client.HTTPResponse
    offset: int
    end: int
    began: float
    marked: float = 0.0

    @property
    def left(self) -> int:
        return self.end - self.offset


class HttpSource:
    """A file at an http(s) URL; see ``ByteSource``. Raises ``InspectionError`` from everything it does.

    ``headers`` (credentials) are sent to the URL's own host and to no other. ``head_bytes`` is what the
    first request asks for: 1 where only size and identity are wanted.
    """

    def __init__(
        self,
        url: str,
        access: HttpAccess,
        headers: Mapping[str, str] | None = None,
        *,
        head_bytes: int = HEAD_BYTES,
    ) -> None:
        self.bytes_read = 0
        self.pace = Pace()
        self.seekable = True
        self._access = access
        self._meant_for = origin(judged(url, access, first=True))
        self._secrets = dict(headers or {})
        self._head_bytes = head_bytes
        self._size: int | None = None
        self._identity = Identity()
        self._head = b""
        self._stream: http.client.HTTPResponse | None = None
        self._stream_offset = 0
        self._flow: _Flow | None = None
        self._idle: Connection | None = None
        self._first = self._open(url)

    @property
    def size(self) -> int | None:
        """Size of the file in bytes, None where the server does not tell."""
        return self._size

    @property
    def identity(self) -> Identity:
        """What a hub of models says the file's sha256 is, else the ETag, else time of change and size."""
        return self._identity

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only at the end or when streaming."""
        if self._stream is not None:
            return self._read_stream(offset, length)
        if offset < len(self._head):
            return self._head[offset : offset + length]
        if self._size is not None:
            length = min(length, self._size - offset)
        if length <= 0:
            return b""
        if self._flow is None or self._flow.offset != offset or not self._flow.left:
            self._leave_flow()
            self._flow = self._ask(offset, length)
        return self._from_flow(self._flow, length)

    def close(self) -> None:
        """Close the connections."""
        for connection in (self._first, self._idle, self._flow.connection if self._flow else None):
            if connection is not None:
                connection.close()

    # ---- the first answer

    def _open(self, url: str) -> Connection:
        """Follow redirects to the file and read its head; returns the connection it was found on."""
        for hop in range(MOST_REDIRECTS + 1):
            parts = judged(url, self._access, first=hop == 0)
            connection = dial(parts, self._access.policy(first=hop == 0))
            hedge: Connection | None = None
            try:
                whole = self._head_bytes == HEAD_BYTES and connection.connect_seconds >= LONG_CONNECT_SECONDS
                begin = time.perf_counter()
                self._send(connection, 0, None if whole else self._head_bytes)
                if not whole:
                    hedge = self._hedged(connection)
                response = self._answer(connection, begin)
                if response.status not in REDIRECTS:
                    self._learn(connection, response)
                    self._take_hedge(hedge)
                    return connection
                self._learn_hub(response)
                url = redirected(url, response)
            except DROPPED as error:
                connection.close()
                raise ModelUnreachable(f"{parts.hostname} drops the connection ({error!r})") from error
            except BaseException:
                connection.close()
                raise
            finally:
                if hedge is not None and (self._flow is None or self._flow.connection is not hedge):
                    hedge.close()
            connection.close()
        raise ModelUnreachable(f"more than {MOST_REDIRECTS} redirects; give the URL they end at")

    def _hedged(self, connection: Connection) -> Connection | None:
        """A second connection on which the rest was asked for, when the first answer is long in coming."""
        wait = self._access.hedge_seconds
        if (
            wait is None
            or self._head_bytes != HEAD_BYTES
            or select.select([connection.sock], [], [], wait)[0]
        ):
            return None
        try:
            hedge = connection.again()
            self._send(hedge, HEAD_BYTES, None)
        except (InspectionError, *DROPPED):
            return None
        return hedge

    def _take_hedge(self, hedge: Connection | None) -> None:
        """Go on with the second answer where the way has proved long; else it is given up."""
        if hedge is None or self._size is None or self._size <= HEAD_BYTES or not self.seekable:
            return
        if not self.pace.long or len(self._head) != HEAD_BYTES:
            return
        with suppress(InspectionError, *DROPPED):
            response = answer(hedge)
            if response.status == 206 and _content_range(response, hedge.host) == (HEAD_BYTES, self._size):
                self._flow = _Flow(hedge, response, HEAD_BYTES, self._size, time.perf_counter())

    def _learn(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        """Take size, identity and the head of the file from the first answer."""
        host = connection.host
        _raise_for(response.status, host)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ModelUnreachable(f"{host} sends the file compressed, although asked not to")
        self._learn_hub(response)
        if response.status == 416:  # An empty file has no first byte to give.
            response.read(STREAM_BYTES)
            self._size = 0
        elif response.status == 206:
            start, self._size = _content_range(response, host)
            if start != 0:
                raise ModelUnreachable(f"{host} answers with another range than asked")
            length = response.length or 0
            if length > self._head_bytes:
                self._flow = _Flow(connection, response, 0, length, time.perf_counter())
            else:
                flow = _Flow(connection, response, 0, length, time.perf_counter())
                self._head = self._all_of(flow)
                self._idle = connection
        else:
            self.seekable = False
            self._size = response.length
            self._stream = response
        self._learn_tag(response)

    def _learn_tag(self, response: http.client.HTTPResponse) -> None:
        """What the server says identifies the file, the surest first."""
        if self._identity.value:
            return
        tag, changed = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        if re.fullmatch(r'(W/)?"[\x21\x23-\x7e]{1,180}"', tag):
            kind = "WeakETag" if tag.startswith("W/") else "ETag"
            self._identity = Identity(tag.removeprefix("W/").strip('"'), kind)
        elif changed:
            self._identity = Identity(f"{changed[:60]}, {self._size} bytes", "LastModified")

    def _learn_hub(self, response: http.client.HTTPResponse) -> None:
        """Hubs name the file's sha256 on the answer that redirects to their storage."""
        linked = Identity(response.headers.get("X-Linked-ETag", "").strip('"'), "HubSha256")
        if linked.sha256:
            self._identity = linked

    # ---- ranges

    def _send(self, connection: Connection, offset: int, length: int | None) -> None:
        """Ask for bytes from ``offset`` on: so many, or all."""
        last = "" if length is None else str(offset + length - 1)
        headers = {"Range": f"bytes={offset}-{last}"}
        if self._identity.source == "ETag":
            headers["If-Range"] = f'"{self._identity.value}"'
        if origin(connection.url) == self._meant_for:
            headers |= self._secrets
        send(connection, headers)

    def _answer(self, connection: Connection, begin: float) -> http.client.HTTPResponse:
        """The answer's headers; that was one round trip."""
        response = answer(connection)
        self.pace.waited(time.perf_counter() - begin)
        return response

    def _ask(self, offset: int, length: int) -> _Flow:
        """Ask for a range on the connection that is free; one that was dropped is made again, once."""
        end = self._stretched(offset, length)
        connection, self._idle = self._idle or self._first.again(), None
        for attempt in (1, 2):
            try:
                begin = time.perf_counter()
                self._send(connection, offset, end - offset)
                response = self._answer(connection, begin)
                break
            except DROPPED as error:
                connection.close()
                if attempt == 2:
                    raise ModelUnreachable(f"{connection.host} drops the connection ({error!r})") from error
                connection = self._first.again()
        host = connection.host
        if response.status == 200:
            raise ModelUnreachable(f"the file at {host} changed while it was read; try again")
        _raise_for(response.status, host)
        start, _ = _content_range(response, host)
        if start != offset:
            raise ModelUnreachable(f"{host} answers with another range than asked")
        return _Flow(connection, response, offset, min(end, self._size or end), time.perf_counter())

    def _stretched(self, offset: int, length: int) -> int:
        """Where the next answer is to end.

        On a short way where the reader says. On a long one at the end of the file if breaking an answer off
        is cheap, as a connection is made much quicker than a request is answered; else a part of what a
        round trip could transfer.
        """
        if not self.pace.long or self._size is None:
            return offset + length
        if self._first.connect_seconds < self.pace.round_trip_seconds / 4:
            return self._size
        return min(self._size, offset + max(length, self.pace.jump_bytes // 8))

    def _from_flow(self, flow: _Flow, length: int) -> bytes:
        """The next bytes of an answer: all that are left where they are few, else as they come.

        What is looked at while the rest is on its way costs no time, and what is skipped is never joined.
        """
        if flow.left <= min(length, STREAM_BYTES):
            data = self._all_of(flow)
            self._idle, self._flow = self._idle or flow.connection, None
            return data
        data = self._received(flow, lambda: flow.response.read1(min(length, STREAM_BYTES)))
        if not data:
            raise ModelTruncated("the connection ended before the answer did")
        if not flow.left:
            flow.response.close()
            self._idle, self._flow = self._idle or flow.connection, None
        self._reconnecting()
        return data

    def _leave_flow(self) -> None:
        """Give up an answer; its connection is kept where little of it is left."""
        flow, self._flow = self._flow, None
        if flow is None:
            return
        if flow.left <= DRAIN_BYTES and self._idle is None:
            with suppress(InspectionError):
                self._all_of(flow)
                self._idle = flow.connection
                return
        flow.connection.close()

    def _reconnecting(self) -> None:
        """A jump out of an answer costs a connection as well, where no other is open."""
        self.pace.reconnect_seconds = 0.0 if self._idle is not None else self._first.connect_seconds

    def _all_of(self, flow: _Flow) -> bytes:
        """What is left of an answer."""
        left = flow.left
        data = self._received(flow, lambda: flow.response.read(left))
        if len(data) < left:
            raise ModelTruncated("the connection ended before the answer did")
        if flow.response.length:
            raise ModelUnreachable(f"{flow.connection.host} sends more than was asked for")
        return data

    def _received(self, flow: _Flow, receive: Callable[[], bytes]) -> bytes:
        """What ``receive`` gives, with what it tells about the bandwidth."""
        try:
            data = receive()
        except http.client.IncompleteRead as error:
            self.bytes_read += len(error.partial)
            raise ModelTruncated("the connection ended before the answer did") from error
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnreachable(f"reading stopped ({error!r})") from error
        now = time.perf_counter()
        if flow.marked or len(data) >= LUMP_BYTES:  # a short first piece was mostly waited for
            self.pace.transferred(len(data), now - (flow.marked or flow.began))
        flow.marked = now
        flow.offset += len(data)
        self.bytes_read += len(data)
        return data

    # ---- whole

    def _read_stream(self, offset: int, length: int) -> bytes:
        """The next bytes of a file that is sent whole."""
        if offset != self._stream_offset:
            raise AssertionError("a streamed file is read in order")
        if self._stream is None:
            return b""
        try:
            data = self._stream.read1(min(length, STREAM_BYTES))
        except TimeoutError as error:
            raise ModelUnreachable(f"no more data for {ANSWER_SECONDS:.0f} s") from error
        except http.client.IncompleteRead as error:
            raise ModelTruncated("the connection ended before the file did") from error
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnreachable(f"reading stopped ({error!r})") from error
        self._stream_offset += len(data)
        self.bytes_read += len(data)
        return data


def _content_range(response: http.client.HTTPResponse, host: str) -> tuple[int, int | None]:
    """First offset and whole size from a Content-Range header."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        raise ModelUnreachable(f"{host} sends a part of the file without saying which")
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _raise_for(status: int, host: str) -> None:
    """Turn a status that is no answer into an error; 416 is left to the caller."""
    if status in (200, 206, 416):
        return
    if status in (404, 410):
        raise ModelNotFound(f"{host} has no file at this path (HTTP {status}); check the path")
    if status in (401, 403, 407):
        raise ModelForbidden(f"{host} refuses to hand it out (HTTP {status}); it needs credentials")
    raise ModelUnreachable(f"{host} answers HTTP {status}")
