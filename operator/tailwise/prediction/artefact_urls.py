"""Versions of LatencyModels below a URL: ``s3://``, ``gs://``, ``az://``, or ``file://`` on a mounted volume.

A version is two objects, ``PREFIX/LATENCY_MODEL/vN/model.onnx`` and, written last, ``manifest.json``: without
a manifest it is no version, so that a writer that is killed leaves nothing half a version. Nothing is written
over. Credentials are those of the process: its environment, its service account, as the cloud's own tools
take them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tailwise.models.errors import InspectionError, ModelNotFound
from tailwise.models.object_store import store_errors, store_of
from tailwise.prediction.artefact import MOST_BYTES, Artefact, ArtefactError, Refusal, load
from tailwise.prediction.manifest import MANIFEST_FILE, MODEL_FILE

_IN_ORDER = (MODEL_FILE, MANIFEST_FILE)


def version_url(prefix: str, latency_model: str, version: int) -> str:
    """Where a version of a LatencyModel is kept below ``prefix``."""
    return f"{prefix.rstrip('/')}/{latency_model}/v{version}"


def write_version(url: str, files: Mapping[str, bytes]) -> None:
    """Write a version; what stands there already with the same content is left as it is. Blocks.

    ``files`` are MANIFEST_FILE and MODEL_FILE.

    Raises:
        ArtefactError: another version stands there, or the store refuses.
    """
    import obstore  # noqa: PLC0415 - a library that most operators do without
    from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

    objects = _Objects(url)
    for name in _IN_ORDER:
        try:
            with _errors(url):
                obstore.put(objects.store, objects.path(name), files[name], mode="create")
        except AlreadyExistsError:
            if objects.get(name) != files[name]:
                told = f"{url}/{name} stands there with other content and is not written over"
                raise ArtefactError(
                    Refusal.FOREIGN, f"{told}; delete it, or train under the next number"
                ) from None


def read_version(url: str, expected_digest: str) -> Artefact:
    """Read, check and open a version. Blocks.

    ``expected_digest`` is what was noted when it was made: whoever may write to the store may not choose what
    the operator runs.

    Raises:
        ArtefactError: it is not there, not whole, changed since it was written, or of another operator.
    """
    objects = _Objects(url)
    return load({name: objects.get(name) for name in _IN_ORDER}, url, expected_digest)


def delete_version(url: str) -> None:
    """Delete a version, its manifest first; what is gone already is no fault. Blocks.

    Raises:
        ArtefactError: the store refuses.
    """
    import obstore  # noqa: PLC0415

    objects = _Objects(url)
    for name in reversed(_IN_ORDER):
        try:
            with _errors(url):
                obstore.delete(objects.store, objects.path(name))
        except ArtefactError as error:
            if error.refusal is not Refusal.MISSING or not isinstance(error.__cause__, ModelNotFound):
                raise


class _Objects:
    """The objects of one version."""

    def __init__(self, url: str) -> None:
        self._url = url
        with _errors(url):
            self.store, self._directory, self._where = _opened(url)

    def path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def get(self, name: str) -> bytes:
        import obstore  # noqa: PLC0415

        with _errors(self._url):
            answer = obstore.get(self.store, self.path(name))
            size = int(answer.meta["size"])
            if size > MOST_BYTES:
                told = f"{self._url}/{name} has {size / 2**20:.0f} MiB, {MOST_BYTES / 2**20:.0f} are read"
                raise ArtefactError(Refusal.FOREIGN, f"{told}; train a smaller version")
            return bytes(answer.bytes())


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """The store's errors as artefact errors that name the version."""
    try:
        with store_errors(url):
            yield
    except InspectionError as error:
        told = f"spec.artifactStore.url: version at {url}: {error.message}"
        raise ArtefactError(Refusal.MISSING, told) from error


def _opened(url: str) -> tuple[Any, str, str]:
    parts = urlsplit(url)
    if parts.scheme != "file":
        return store_of(url, os.environ)
    from obstore.store import LocalStore  # noqa: PLC0415

    path = Path(unquote(parts.path))
    return LocalStore(path.anchor), str(path).lstrip("/"), "the volume"
