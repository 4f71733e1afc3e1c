"""A file on an HTTP server, read by range requests over one kept connection.

The first request asks for the head of the file and tells three things: whether the server honours
ranges (206) or sends the whole file (200, then it can only be streamed), the file's size, and the pace.
Redirects are followed here and not by a library, because each hop's address is judged anew.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from tailwise.models.addresses import Address, AddressPolicy, resolve
from tailwise.models.errors import (
    InvalidUrl,
    ModelForbidden,
    ModelNotFound,
    ModelTruncated,
    ModelUnreachable,
)
from tailwise.models.sources import Identity, Pace

HEAD_BYTES = 32 * 1024
STREAM_BYTES = 256 * 1024
MOST_REDIRECTS = 5
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_DROPPED = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    http.client.CannotSendRequest,
)


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """What may be opened: addresses by the policy, plain http only where allowed.

    ``redirect_addresses`` judges the hops after the first; by default as the first.
    """

    addresses: AddressPolicy
    allow_http: bool = False
    redirect_addresses: AddressPolicy | None = None


class _Connection(http.client.HTTPConnection):
    """A connection to one address that was judged, whatever the name would resolve to by now."""

    def __init__(self, url: SplitResult, address: Address) -> None:
        secure = url.scheme == "https"
        super().__init__(url.hostname or "", url.port or (443 if secure else 80), timeout=CONNECT_SECONDS)
        self._address = address
        self._tls = ssl.create_default_context() if secure else None
        if secure:
            self.default_port = 443

    def connect(self) -> None:
        connection = socket.create_connection((str(self._address), self.port), CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            # The certificate is checked against the name, though the connection goes to the address.
            connection = self._tls.wrap_socket(connection, server_hostname=self.host)
        connection.settimeout(ANSWER_SECONDS)
        self.sock = connection


class HttpSource:
    """A file at an http(s) URL; see ``ByteSource``. Raises ``InspectionError`` from everything it does."""

    def __init__(self, url: str, access: HttpAccess) -> None:
        self.bytes_read = 0
        self.pace = Pace()
        self.seekable = True
        self._access = access
        self._size: int | None = None
        self._identity = Identity()
        self._head = b""
        self._stream: http.client.HTTPResponse | None = None
        self._stream_offset = 0
        self._host = ""
        self._url, self._connection = self._open(url)

    @property
    def size(self) -> int | None:
        """Size of the file in bytes, None where the server does not tell."""
        return self._size

    @property
    def identity(self) -> Identity:
        """The ETag without its quotes, or what a hub of models says the file's sha256 is."""
        return self._identity

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from ``offset`` on; fewer than ``length`` only at the end or when streaming."""
        if self._stream is not None:
            return self._read_stream(offset, length)
        if offset < len(self._head):
            return self._head[offset : offset + length]
        if self._size is not None:
            length = min(length, self._size - offset)
        return self._read_range(offset, length) if length > 0 else b""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _open(self, url: str) -> tuple[SplitResult, _Connection]:
        """Follow redirects to the file and read its head; returns where it was found."""
        for hop in range(MOST_REDIRECTS + 1):
            parts = self._judged(url, first=hop == 0)
            policy = self._access.addresses
            if hop and self._access.redirect_addresses is not None:
                policy = self._access.redirect_addresses
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
            connection, response = self._first_answer(parts, resolve(host, port, policy))
            if response.status not in (301, 302, 303, 307, 308):
                self._learn(connection, response)
                return parts, connection
            location = response.headers.get("Location")
            self._learn_hub(response)
            connection.close()
            if not location:
                raise ModelUnreachable(f"{host} redirects without saying where to")
            url = urljoin(url, location)
        raise ModelUnreachable(f"more than {MOST_REDIRECTS} redirects; give the URL they end at")

    def _judged(self, url: str, *, first: bool) -> SplitResult:
        """The URL's parts, when its scheme may be opened."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise InvalidUrl(f"{url!r} is not a URL ({error})") from error
        what = "this URL" if first else "the redirect's target"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidUrl(f"{what} must be http(s)://host/path, not {url[:200]!r}")
        if parts.scheme == "http" and not self._access.allow_http:
            raise InvalidUrl(f"{what} is plain http, which anybody on the way can change; use https")
        return parts

    def _first_answer(
        self, url: SplitResult, addresses: tuple[Address, ...]
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        """The answer of the first address that takes a connection."""
        failure: Exception | None = None
        for address in addresses:
            connection = _Connection(url, address)
            try:
                connection.connect()
            except ssl.SSLCertVerificationError as error:
                raise ModelUnreachable(
                    f"{url.hostname} has no valid certificate ({error.verify_message})"
                ) from error
            except (OSError, ValueError) as error:
                failure = error
                continue
            return connection, self._request(url, connection, 0, HEAD_BYTES)
        raise ModelUnreachable(f"{url.hostname} does not take a connection ({failure})") from failure

    def _request(
        self, url: SplitResult, connection: _Connection, offset: int, length: int
    ) -> http.client.HTTPResponse:
        """Ask for a range and wait for the answer's headers, which is one round trip."""
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {
            "Range": f"bytes={offset}-{offset + length - 1}",
            "Accept-Encoding": "identity",
            "User-Agent": "tailwise",
        }
        if self._identity.source == "ETag":
            headers["If-Range"] = f'"{self._identity.value}"'
        begin = time.perf_counter()
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
        except _DROPPED:
            raise
        except TimeoutError as error:
            raise ModelUnreachable(f"{url.hostname} did not answer in {ANSWER_SECONDS:.0f} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ModelUnreachable(f"{url.hostname} gave no HTTP answer ({error!r})") from error
        self.pace.waited(time.perf_counter() - begin)
        return response

    def _learn(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        """Take size, identity and the head of the file from the first answer."""
        _raise_for(response.status, connection.host)
        self._host = connection.host
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ModelUnreachable(f"{connection.host} sends the file compressed, although asked not to")
        self._learn_hub(response)
        tag = response.headers.get("ETag", "")
        if not self._identity.value and re.fullmatch(r'"[\x21\x23-\x7e]{1,180}"', tag):
            self._identity = Identity(tag.strip('"'), "ETag")
        if response.status == 416:  # An empty file has no first byte to give.
            response.read(STREAM_BYTES)
            self._size = 0
        elif response.status == 206:
            start, self._size = _content_range(response, connection.host)
            if start != 0:
                raise ModelUnreachable(f"{connection.host} answers with another range than asked")
            self._head = self._body(response, HEAD_BYTES)
        else:
            self.seekable = False
            self._size = response.length
            self._stream = response

    def _learn_hub(self, response: http.client.HTTPResponse) -> None:
        """Hubs name the file's sha256 on the answer that redirects to their storage."""
        linked = Identity(response.headers.get("X-Linked-ETag", "").strip('"'), "HubSha256")
        if linked.sha256:
            self._identity = linked

    def _read_range(self, offset: int, length: int) -> bytes:
        """One range; the connection is opened again, once, where the server has dropped it."""
        try:
            response = self._request(self._url, self._connection, offset, length)
        except _DROPPED:
            self._connection.close()
            try:
                response = self._request(self._url, self._connection, offset, length)
            except _DROPPED as error:
                raise ModelUnreachable(f"{self._url.hostname} drops the connection ({error!r})") from error
        if response.status == 200:
            raise ModelUnreachable(f"the file at {self._url.hostname} changed while it was read; try again")
        _raise_for(response.status, self._url.hostname or "")
        start, _ = _content_range(response, self._url.hostname or "")
        if start != offset:
            raise ModelUnreachable(f"{self._url.hostname} answers with another range than asked")
        return self._body(response, length)

    def _body(self, response: http.client.HTTPResponse, length: int) -> bytes:
        """The whole body of a range, and what it tells about the bandwidth."""
        begin = time.perf_counter()
        try:
            data = response.read(length)
        except http.client.IncompleteRead as error:
            self.bytes_read += len(error.partial)
            raise ModelTruncated("the connection ended before the answer did") from error
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnreachable(f"reading stopped ({error!r})") from error
        self.bytes_read += len(data)
        if response.length and len(data) < length:
            raise ModelTruncated("the connection ended before the answer did")
        if response.length:
            raise ModelUnreachable(f"{self._host} sends more than was asked for")
        self.pace.transferred(len(data), time.perf_counter() - begin)
        return data

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
