"""A URL becomes an open source of bytes; one function, so that a new store is one new case."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tailwise.models.errors import InvalidUrl
from tailwise.models.http_source import HttpAccess, HttpSource
from tailwise.models.sources import ByteSource, FileSource


def open_source(url: str, access: HttpAccess, *, allow_files: bool) -> ByteSource:
    """Open what a URL names; raises InvalidUrl, and what the store raises.

    ``allow_files`` opens file:// URLs: on a machine of one's own, not in the operator, whose files are
    not the workload's.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidUrl(f"{url[:200]!r} is not a URL ({error})") from error
    if parts.scheme in ("http", "https"):
        return HttpSource(url, access)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidUrl(f"file:// URLs name no host; write file:///{parts.netloc}{parts.path}")
        if not allow_files:
            raise InvalidUrl("file:// is for development; enable it with the operator's --allow-model-files")
        return FileSource(Path(unquote(parts.path)))
    raise InvalidUrl(f"the scheme {parts.scheme!r} is not one of https, http, file: {url[:200]!r}")
