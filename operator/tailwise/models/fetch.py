"""A URL becomes an open source of bytes; one function, so that a new store is one new case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from tailwise.models.credentials import docker_config, http_headers
from tailwise.models.errors import InvalidUrl
from tailwise.models.http_source import HttpAccess, HttpSource
from tailwise.models.hub import open_hub
from tailwise.models.sources import ByteSource, FileSource, Identity

_OBJECT_STORES = ("s3", "gs", "az")
_MOST_UNPACKED_BYTES = 2 * 2**30


def open_source(
    url: str, access: HttpAccess, *, allow_files: bool, environment: Mapping[str, str] | None = None
) -> ByteSource:
    """Open what a URL names; raises InvalidUrl, and what the store raises.

    ``allow_files`` opens file:// URLs: on a machine of one's own, not in the operator, whose files are
    not the workload's. ``environment`` holds credentials as ``credentials.credentials`` finds them; None:
    there are none, and object stores, whose library looks for an identity itself, are not opened.
    """
    parts = _parts(url)
    given = environment or {}
    if parts.scheme in ("http", "https"):
        return HttpSource(url, access, http_headers(given, parts.hostname or ""))
    if parts.scheme == "hf":
        return open_hub(url, access, given)
    if parts.scheme == "oci":
        from tailwise.models.registry import open_artefact  # noqa: PLC0415 - few need it

        return open_artefact(url, access, docker_config(given), _MOST_UNPACKED_BYTES)
    if parts.scheme in _OBJECT_STORES and environment is not None:
        from tailwise.models.object_store import ObjectSource  # noqa: PLC0415 - few need it

        return ObjectSource(url, environment)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidUrl(f"file:// URLs name no host; write file:///{parts.netloc}{parts.path}")
        if not allow_files:
            raise InvalidUrl("file:// is for development; enable it with the operator's --allow-model-files")
        return FileSource(Path(unquote(parts.path)))
    if parts.scheme in (*_OBJECT_STORES, "pvc"):
        raise InvalidUrl(f"{parts.scheme}:// is read by an inspection Job in the workload's namespace only")
    raise InvalidUrl(
        f"the scheme {parts.scheme!r} is none of https, http, hf, oci, s3, gs, az, pvc, file: {url[:200]!r}"
    )


def identify(
    url: str, access: HttpAccess, *, allow_files: bool, environment: Mapping[str, str] | None = None
) -> Identity:
    """What the store says identifies the file now, for the price of a request or two.

    Empty where it says nothing: then only reading can tell whether the file is another.
    """
    parts = _parts(url)
    given = environment or {}
    if parts.scheme == "oci":
        from tailwise.models.registry import artefact_identity  # noqa: PLC0415 - few need it

        return artefact_identity(url, access, docker_config(given))
    if parts.scheme in ("http", "https"):
        # One byte and not HEAD: signed URLs are signed for GET alone.
        source: ByteSource = HttpSource(url, access, http_headers(given, parts.hostname or ""), head_bytes=1)
    elif parts.scheme == "hf":
        source = open_hub(url, access, given, head_bytes=1)
    else:
        source = open_source(url, access, allow_files=allow_files, environment=environment)
    try:
        return source.identity
    finally:
        source.close()


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidUrl(f"{url[:200]!r} is not a URL ({error})") from error
