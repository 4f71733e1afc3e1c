"""Connections to HTTP servers that a rule lets through, and small documents read over them.

Redirects are followed here and not by a library, because each hop's address is judged anew, and because a
header with credentials is for the host it was meant for and for no other.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from tailwise.api.release import USER_AGENT
from tailwise.models.addresses import Address, AddressPolicy, resolve
from tailwise.models.errors import InvalidUrl, ModelUnreachable

MOST_REDIRECTS = 5
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})
DROPPED = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    http.client.CannotSendRequest,
)


@dataclass(frozen=True, slots=True)
class HttpAccess:
    """What may be opened: addresses by the policy, plain http only where allowed.

    ``redirect_addresses`` judges the hops after the first; by default as the first. An answer that takes
    longer than ``hedge_seconds`` to begin is taken for a long way: then the rest of the file is asked for
    on a second connection before the first answer is there. None never does.
    """

    addresses: AddressPolicy
    allow_http: bool = False
    redirect_addresses: AddressPolicy | None = None
    hedge_seconds: float | None = 0.001

    def policy(self, *, first: bool) -> AddressPolicy:
        """The policy for the URL's own host, or for a hop after it."""
        return self.addresses if first or self.redirect_addresses is None else self.redirect_addresses


class Connection(http.client.HTTPConnection):
    """A connection to one address that was judged, whatever the name would resolve to by now."""

    def __init__(self, url: SplitResult, address: Address) -> None:
        secure = url.scheme == "https"
        super().__init__(url.hostname or "", url.port or (443 if secure else 80), timeout=CONNECT_SECONDS)
        self.url = url
        self.address = address
        self.connect_seconds = 0.0
        self._tls = ssl.create_default_context() if secure else None
        if secure:
            self.default_port = 443

    def connect(self) -> None:
        """Connect to the address; the certificate is checked against the name."""
        begin = time.perf_counter()
        connection = socket.create_connection((str(self.address), self.port), CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_hostname=self.host)
        connection.settimeout(ANSWER_SECONDS)
        self.sock = connection
        self.connect_seconds = time.perf_counter() - begin

    def again(self) -> Connection:
        """Another connection to the same address."""
        other = Connection(self.url, self.address)
        _connect(other)
        return other


def judged(url: str, access: HttpAccess, *, first: bool) -> SplitResult:
    """The URL's parts, when its scheme may be opened; raises InvalidUrl."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidUrl(f"{url[:200]!r} is not a URL ({error})") from error
    what = "this URL" if first else "the redirect's target"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidUrl(f"{what} must be http(s)://host/path, not {url[:200]!r}")
    if parts.scheme == "http" and not access.allow_http:
        raise InvalidUrl(f"{what} is plain http, which anybody on the way can change; use https")
    return parts


def dial(url: SplitResult, policy: AddressPolicy) -> Connection:
    """Connect to the first address of the URL's host that the policy lets through and that answers."""
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    failure: ModelUnreachable | None = None
    for address in resolve(host, port, policy):
        connection = Connection(url, address)
        try:
            _connect(connection)
        except ModelUnreachable as error:
            failure = error
            continue
        return connection
    assert failure is not None  # noqa: S101 - resolve gives at least one address
    raise failure


def _connect(connection: Connection) -> None:
    host = connection.host
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise ModelUnreachable(f"{host} has no valid certificate ({error.verify_message})") from error
    except (OSError, ValueError) as error:
        raise ModelUnreachable(f"{host} does not take a connection ({error})") from error


def send(connection: Connection, headers: Mapping[str, str]) -> None:
    """Send a GET for the connection's URL. Raises one of DROPPED, or ModelUnreachable."""
    url = connection.url
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.request(
            "GET", target, headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers}
        )
    except DROPPED:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnreachable(f"{url.hostname} takes no request ({error!r})") from error


def answer(connection: Connection) -> http.client.HTTPResponse:
    """Wait for the headers of the answer. Raises one of DROPPED, or ModelUnreachable."""
    host = connection.url.hostname
    try:
        return connection.getresponse()
    except DROPPED:
        raise
    except TimeoutError as error:
        raise ModelUnreachable(f"{host} did not answer in {ANSWER_SECONDS:.0f} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ModelUnreachable(f"{host} gave no HTTP answer ({error!r})") from error


def origin(url: str | SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port: what credentials are bound to."""
    parts = urlsplit(url) if isinstance(url, str) else url
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def redirected(url: str, response: http.client.HTTPResponse) -> str:
    """Where a redirect leads."""
    location = response.headers.get("Location")
    if not location:
        raise ModelUnreachable(f"{urlsplit(url).hostname} redirects without saying where to")
    return urljoin(url, location)


@dataclass(frozen=True, slots=True)
class Document:
    """A small answer, read whole; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch_document(
    url: str, access: HttpAccess, headers: Mapping[str, str], most_bytes: int, *, first: bool = True
) -> Document:
    """Read a small document; ``headers`` go to the URL's own host only. Raises ``InspectionError``.

    ``first`` False: the URL came from an answer, and is judged like a redirect.
    """
    meant_for = origin(url)
    for hop in range(MOST_REDIRECTS + 1):
        parts = judged(url, access, first=first and hop == 0)
        connection = dial(parts, access.policy(first=first and hop == 0))
        try:
            send(connection, headers if origin(parts) == meant_for else {})
            response = answer(connection)
            if response.status in REDIRECTS:
                url = redirected(url, response)
                continue
            body = response.read(most_bytes + 1)
        except (OSError, http.client.HTTPException) as error:
            raise ModelUnreachable(f"{parts.hostname} broke off its answer ({error!r})") from error
        finally:
            connection.close()
        if len(body) > most_bytes:
            raise ModelUnreachable(f"{parts.hostname} sends a document of more than {most_bytes} bytes")
        return Document(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
    raise ModelUnreachable(f"more than {MOST_REDIRECTS} redirects; give the URL they end at")
