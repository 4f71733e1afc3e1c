"""Inspects a model in a process of its own, which may use little memory and time, and may die.

The file is untrusted: a parser that crashes, loops or swallows memory takes the child down and becomes an
error with a reason. The child gets the request as JSON on its standard input, an environment without the
parent's secrets, and answers with one line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.profile import ModelProfile
from tailwise.models.addresses import AddressPolicy
from tailwise.models.errors import InspectionCrashed, InspectionError, InspectionTimeout, error_for
from tailwise.models.http_connection import HttpAccess
from tailwise.models.sources import Identity

_MOST_ANSWER_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class InspectionLimits:
    """What the child may use. ``memory_mebibytes`` is address space, of which libraries reserve most."""

    memory_mebibytes: int = 2048
    cpu_seconds: int = 60
    wall_seconds: float = 120.0
    open_files: int = 64
    read_mebibytes: int = 256
    stream_mebibytes: int = 2048
    graph_mebibytes: int = 64


@dataclass(frozen=True, slots=True)
class InspectionRequest:
    """Which model, at which sizes, and what may be done to read it.

    ``input_shapes`` maps an input's name to its sizes (or an axis' name to one size); ``batch_size`` binds
    the batch axis. The profile lists as many as ``listed_operators`` of the heaviest. ``addresses`` judges
    the URL's own host, ``redirect_addresses`` the hops after it
    (None: the same). ``environment`` holds credentials (``credentials.credentials``); None: there are none.
    """

    url: str
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch_size: int | None = None
    listed_operators: int = 10
    sha256: str | None = None
    addresses: AddressPolicy = field(default_factory=AddressPolicy)
    redirect_addresses: AddressPolicy | None = None
    allow_http: bool = False
    allow_files: bool = False
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    limits: InspectionLimits = InspectionLimits()


class AddressRules(Document):
    """An ``AddressPolicy`` on the pipe to the child."""

    allowed_networks: tuple[str, ...] = ()
    refused_networks: tuple[str, ...] = ()
    allow_local: bool = False

    @classmethod
    def of(cls, policy: AddressPolicy) -> AddressRules:
        """Write a policy."""
        return cls(
            allowed_networks=tuple(map(str, policy.allowed_networks)),
            refused_networks=tuple(map(str, policy.refused_networks)),
            allow_local=policy.allow_local,
        )

    def policy(self) -> AddressPolicy:
        """Read a policy."""
        return AddressPolicy(
            allowed_networks=tuple(map(ipaddress.ip_network, self.allowed_networks)),
            refused_networks=tuple(map(ipaddress.ip_network, self.refused_networks)),
            allow_local=self.allow_local,
        )


class ChildRequest(Document):
    """An ``InspectionRequest`` on the pipe to the child; the process limits were set before."""

    url: str
    input_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    batch_size: int | None = None
    listed_operators: int = 10
    sha256: str | None = None
    addresses: AddressRules = AddressRules()
    redirect_addresses: AddressRules | None = None
    allow_http: bool = False
    allow_files: bool = False
    environment: dict[str, str] | None = None
    identity_only: bool = False
    read_mebibytes: int = 256
    stream_mebibytes: int = 2048
    graph_mebibytes: int = 64


def http_access(request: ChildRequest) -> HttpAccess:
    """What the child may open for a request."""
    redirects = request.redirect_addresses
    return HttpAccess(
        addresses=request.addresses.policy(),
        allow_http=request.allow_http,
        redirect_addresses=None if redirects is None else redirects.policy(),
    )


class ChildAnswer(Document):
    """What the child says: a profile, a file's identity, or an error's reason, field and message."""

    profile: ModelProfile | None = None
    identity: str = ""
    identity_source: str = ""
    reason: str = ""
    field: str = ""
    message: str = ""


def inspect(request: InspectionRequest) -> ModelProfile:
    """Profile a model; raises ``InspectionError``. Blocks: the operator uses ``inspect_async``."""
    with subprocess.Popen(
        _command(request.limits),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        close_fds=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(_written(request), timeout=request.limits.wall_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise _timed_out(request) from None
        except BaseException:
            process.kill()
            raise
    return _profile(_answer(process.returncode, out, err, request))


async def inspect_async(request: InspectionRequest) -> ModelProfile:
    """Profile a model without holding up the event loop; cancelling it ends the child."""
    return _profile(await _ask(request, identity_only=False))


async def identify_async(request: InspectionRequest) -> Identity:
    """What the store says identifies the file now: some kilobytes, and no look into the file.

    Empty where the store says nothing. Raises ``InspectionError``.
    """
    answer = await _ask(request, identity_only=True)
    if answer.reason:
        raise error_for(answer.reason, answer.message, answer.field or "spec.model.url")
    return Identity(answer.identity, answer.identity_source)


async def _ask(request: InspectionRequest, *, identity_only: bool) -> ChildAnswer:
    process = await asyncio.create_subprocess_exec(
        *_command(request.limits),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        close_fds=True,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(request.limits.wall_seconds):
            out, err = await process.communicate(_written(request, identity_only=identity_only))
    except TimeoutError:
        raise _timed_out(request) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _answer(process.returncode or 0, out, err, request)


def _command(limits: InspectionLimits) -> list[str]:
    """The child sets its own limits before it imports anything that could need them."""
    return [
        sys.executable,
        "-P",
        "-m",
        "tailwise.models.child",
        str(limits.memory_mebibytes),
        str(limits.cpu_seconds),
        str(limits.open_files),
    ]


def _environment() -> dict[str, str]:
    """No tokens, proxies or addresses of the parent; only what Python, TLS and names need."""
    kept = {
        name: os.environ[name]
        for name in ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "TMPDIR")
        if name in os.environ
    }
    source_root = str(Path(__file__).resolve().parents[2])
    return {
        "PATH": os.defpath,
        "PYTHONPATH": source_root,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Threads of numerical libraries would reserve memory for nothing.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        **kept,
    }


def _written(request: InspectionRequest, *, identity_only: bool = False) -> bytes:
    redirects = request.redirect_addresses
    written = ChildRequest(
        url=request.url,
        input_shapes={name: tuple(sizes) for name, sizes in request.input_shapes.items()},
        batch_size=request.batch_size,
        listed_operators=request.listed_operators,
        sha256=request.sha256,
        addresses=AddressRules.of(request.addresses),
        redirect_addresses=None if redirects is None else AddressRules.of(redirects),
        allow_http=request.allow_http,
        allow_files=request.allow_files,
        environment=None if request.environment is None else dict(request.environment),
        identity_only=identity_only,
        read_mebibytes=request.limits.read_mebibytes,
        stream_mebibytes=request.limits.stream_mebibytes,
        graph_mebibytes=request.limits.graph_mebibytes,
    )
    return written.model_dump_json().encode()


def _answer(code: int, out: bytes, err: bytes, request: InspectionRequest) -> ChildAnswer:
    """The child's answer; raises what its end amounts to where it gave none."""
    if code != 0 or len(out) > _MOST_ANSWER_BYTES:
        raise _ended(code, err, request)
    try:
        return ChildAnswer.model_validate_json(out)
    except ValueError:
        return ChildAnswer(reason=InspectionCrashed.reason, message="its answer cannot be read")


def _profile(answer: ChildAnswer) -> ModelProfile:
    """The profile of an answer, or the error it names."""
    if answer.profile is not None:
        return answer.profile
    raise error_for(answer.reason, answer.message, answer.field or "spec.model.url")


def _ended(code: int, err: bytes, request: InspectionRequest) -> InspectionError:
    """What the end of a child without an answer means."""
    last = err.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
    limits = request.limits
    if code == -signal.SIGXCPU:
        return InspectionTimeout(f"counting took more than {limits.cpu_seconds} s of CPU")
    if "MemoryError" in last or "bad_alloc" in last or "out of memory" in last.lower():
        return InspectionCrashed(
            f"reading it needs more than {limits.memory_mebibytes} MiB of memory; "
            "give spec.model.profile by hand"
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return InspectionCrashed(f"the process that read it ended with {how}: {last or 'no message'}")


def _timed_out(request: InspectionRequest) -> InspectionTimeout:
    return InspectionTimeout(
        f"reading and counting took more than {request.limits.wall_seconds:.0f} s; use a nearer or faster "
        "store, or give spec.model.profile by hand"
    )
