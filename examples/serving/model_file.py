"""Where the model is: a path, or a URL that is downloaded once."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ATTEMPTS = 4
_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_PROGRESS_INTERVAL_SECONDS = 2.0


class ModelFileError(RuntimeError):
    """There is no model file; the message names the variable and the way out."""


def locate(environment: Mapping[str, str]) -> Path:
    """Return the model's file, downloaded to the temporary directory where MODEL_URL says so.

    MODEL_SHA256, where set, must be the file's digest. Raises ModelFileError.
    """
    path, url = environment.get("MODEL_PATH"), environment.get("MODEL_URL")
    if bool(path) == bool(url):
        raise ModelFileError("set either MODEL_PATH to an ONNX file or MODEL_URL to http(s):// or file://")
    found = Path(path) if path else _fetch(url or "")
    if not found.is_file():
        raise ModelFileError(f"{'MODEL_PATH' if path else 'MODEL_URL'}: there is no file {found}")
    expected = environment.get("MODEL_SHA256")
    if expected:
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected.lower():
            raise ModelFileError(f"MODEL_SHA256 is {expected}, but the model's digest is {digest}")
    return found


def name(environment: Mapping[str, str]) -> str:
    """Name the model is served under: MODEL_NAME, else the file's name without its ending."""
    source = environment.get("MODEL_PATH") or urlsplit(environment.get("MODEL_URL", "")).path
    return environment.get("MODEL_NAME") or Path(unquote(source)).stem


def _fetch(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme not in ("http", "https"):
        raise ModelFileError(f"MODEL_URL {url!r}: only http, https and file are served here")
    target = Path(tempfile.mkdtemp(prefix="model-")) / (Path(unquote(parts.path)).name or "model.onnx")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _download(url, target)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise ModelFileError(f"MODEL_URL {url}: HTTP {error.code} {error.reason}") from error
            reason: Exception = error
        except OSError as error:
            reason = error
        else:
            return target
        print(f"model: attempt {attempt} of {_ATTEMPTS}: {reason}", file=sys.stderr, flush=True)
        if attempt < _ATTEMPTS:
            time.sleep(2.0**attempt)
    shutil.rmtree(target.parent)
    raise ModelFileError(f"MODEL_URL {url}: no download in {_ATTEMPTS} attempts, last: {reason}")


def _download(url: str, target: Path) -> None:
    began = shown = time.monotonic()
    # The scheme was checked by the caller.
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, target.open("wb") as file:  # noqa: S310
        expected = int(answer.headers.get("Content-Length", 0))
        while chunk := answer.read(_CHUNK_BYTES):
            file.write(chunk)
            if time.monotonic() - shown > _PROGRESS_INTERVAL_SECONDS:
                shown = time.monotonic()
                print(f"model: {file.tell() >> 20} of {expected >> 20} MiB", file=sys.stderr, flush=True)
        if expected and file.tell() != expected:
            raise OSError(f"the connection ended after {file.tell()} of {expected} bytes")
    print(
        f"model: {target.stat().st_size >> 20} MiB from {url} in {time.monotonic() - began:.1f} s",
        file=sys.stderr,
        flush=True,
    )
