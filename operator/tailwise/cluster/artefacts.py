"""Versions of LatencyModels as immutable ConfigMaps: written once, parts first and the index last.

A ConfigMap holds a mebibyte at most, so the files are compressed and cut. The index holds the manifest, the
artefact's digest and the names of the parts; a version without an index is no version, so that a writer that
is killed leaves nothing half a version. What is read is put together, compared by digest and opened by
``prediction.artefact``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import logging
import zlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from tailwise.api.labels import (
    ARTEFACT_INDEX,
    ARTEFACT_LABEL,
    ARTEFACT_PART,
    LATENCY_MODEL_LABEL,
    LATENCY_MODEL_VERSION_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
)
from tailwise.cluster import apply
from tailwise.cluster.apply import Outcome
from tailwise.cluster.client import CONFIG_MAPS, ApiError, Client
from tailwise.prediction import artefact_urls
from tailwise.prediction.artefact import MOST_BYTES, Artefact, ArtefactError, Refusal, load
from tailwise.prediction.manifest import MANIFEST_FILE, MODEL_FILE, digest

_LOGGER = logging.getLogger(__name__)

PART_BYTES = 700 * 1024
"""Compressed bytes of one part: with base64 below the limit of a ConfigMap and of a request to etcd."""

DIGEST_KEY = "digest"
"""Key of an index under which the artefact's digest stands."""

URL_KEY = "url"
"""Key of an index under which it says where the files are, if that is not in ConfigMaps."""

_PARTS_KEY, _PART_KEY = "parts", "part"
_NAME_LIMIT = 200


def index_name(latency_model: str, version: int) -> str:
    """Name of a version's index. A LatencyModel's name is at most 253 characters, so is this."""
    return f"tailwise-model-{latency_model[:_NAME_LIMIT]}-v{version}"


def config_maps(
    files: Mapping[str, bytes],
    *,
    latency_model: str,
    version: int,
    namespace: str,
    owners: Sequence[Mapping[str, Any]] = (),
    notes: Mapping[str, str] | None = None,
    url: str | None = None,
    part_bytes: int = PART_BYTES,
) -> list[dict[str, Any]]:
    """The ConfigMaps of a version in the order in which they must be written, the index last.

    ``files`` are MANIFEST_FILE and MODEL_FILE; the same files give the same ConfigMaps. ``notes`` stand in
    the index and are no part of the artefact. ``url``: where the files are kept already
    (``prediction.artefact_urls``); then there is only the index. Parts are named by what they hold: a writer
    that begins again with other data is not in the way of what the one before it left.
    """
    # No time in the header: the same bytes at every writing.
    packed = gzip.compress(files[MODEL_FILE], compresslevel=9, mtime=0)
    name = index_name(latency_model, version)
    begins = range(0, len(packed), part_bytes) if url is None else ()
    pieces = [packed[begin : begin + part_bytes] for begin in begins]
    content_name = digest(packed).removeprefix("sha256:")[:12]
    names = [f"{name}-{content_name}-part-{place}" for place in range(len(pieces))]

    def made(own: str, kind: str, **content: Any) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": own,
                "namespace": namespace,
                "labels": {
                    LATENCY_MODEL_LABEL: _label(latency_model),
                    LATENCY_MODEL_VERSION_LABEL: str(version),
                    ARTEFACT_LABEL: kind,
                    MANAGED_BY_LABEL: MANAGED_BY,
                },
                # A label holds 63 characters, a name up to 253.
                "annotations": {LATENCY_MODEL_LABEL: latency_model},
                "ownerReferences": [dict(owner) for owner in owners],
            },
            "immutable": True,
            **content,
        }

    parts = [
        made(own, ARTEFACT_PART, binaryData={_PART_KEY: base64.b64encode(piece).decode()})
        for own, piece in zip(names, pieces, strict=True)
    ]
    data = {
        MANIFEST_FILE: files[MANIFEST_FILE].decode(),
        DIGEST_KEY: digest(files[MANIFEST_FILE]),
        **({URL_KEY: url} if url is not None else {_PARTS_KEY: "\n".join(names)}),
        **(notes or {}),
    }
    return [*parts, made(name, ARTEFACT_INDEX, data=data)]


async def write_version(client: Client, maps: Sequence[Mapping[str, Any]]) -> None:
    """Write a version's ConfigMaps; one that stands already with the same content is left as it is.

    Raises:
        ArtefactError: another version of the same number stands there, or the API server refuses.
    """
    for each in maps:
        metadata = each["metadata"]
        written = await apply.create(client, CONFIG_MAPS, each)
        if written.done:
            continue
        where = f"ConfigMap {metadata['namespace']}/{metadata['name']}"
        if written.outcome is not Outcome.CONFLICT:
            raise ArtefactError(Refusal.MISSING, f"{where} cannot be written: {written.message}")
        # A writer that was killed and began again finds what it wrote.
        found = await _get(client, metadata["namespace"], metadata["name"])
        same = found is not None and all(found.get(key) == each.get(key) for key in ("data", "binaryData"))
        if not same:
            told = f"{where} stands there with other content and cannot be changed"
            raise ArtefactError(Refusal.FOREIGN, f"{told}; delete it, or train under the next number")


async def read_version(
    client: Client, namespace: str, latency_model: str, version: int, expected_digest: str | None = None
) -> Artefact:
    """Read, check and open a version.

    Raises:
        ArtefactError: it is not there, not whole, changed since it was written, or of another operator.
        ApiError: the API server does not answer as it should.
    """
    name = index_name(latency_model, version)
    told = f"version {version} of LatencyModel {latency_model} (ConfigMap {namespace}/{name})"
    index = await _get(client, namespace, name)
    if index is None:
        raise ArtefactError(Refusal.MISSING, f"{told} is not there; train a new version")
    data = index.get("data") or {}
    expected = expected_digest or data.get(DIGEST_KEY) or ""
    if url := data.get(URL_KEY):
        return await asyncio.to_thread(artefact_urls.read_version, url, expected)
    parts = []
    for part in filter(None, (data.get(_PARTS_KEY) or "").split("\n")):
        found = await _get(client, namespace, part)
        if found is None:
            raise ArtefactError(Refusal.MISSING, f"{told}: ConfigMap {part} is gone; train a new version")
        parts.append((found.get("binaryData") or {}).get(_PART_KEY) or "")
    files = {MANIFEST_FILE: (data.get(MANIFEST_FILE) or "").encode(), MODEL_FILE: _unpacked(parts, told)}
    return load(files, told, expected)


async def has_version(client: Client, namespace: str, latency_model: str, version: int) -> bool:
    """Whether a version is there, as far as its index tells."""
    return await _get(client, namespace, index_name(latency_model, version)) is not None


async def delete_version(client: Client, namespace: str, latency_model: str, version: int) -> None:
    """Delete a version, its index first, then parts also of writers that never wrote one.

    What is kept at a URL goes before its index, which alone knows where that is; a store that refuses keeps
    it.
    """
    selector = f"{LATENCY_MODEL_LABEL}={_label(latency_model)},{LATENCY_MODEL_VERSION_LABEL}={version}"
    listed = await client.request("GET", CONFIG_MAPS.path(namespace), query={"labelSelector": selector})
    parts = [
        each["metadata"]["name"]
        for each in listed.get("items") or ()
        if (each["metadata"].get("annotations") or {}).get(LATENCY_MODEL_LABEL) == latency_model
    ]
    index = index_name(latency_model, version)
    found = await _get(client, namespace, index) or {}
    if url := (found.get("data") or {}).get(URL_KEY):
        try:
            await asyncio.to_thread(artefact_urls.delete_version, url)
        except ArtefactError as error:
            _LOGGER.warning("version %d of LatencyModel %s stays behind: %s", version, latency_model, error)
    for each in (index, *(part for part in parts if part != index)):
        try:
            await client.request("DELETE", CONFIG_MAPS.path(namespace, each))
        except ApiError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise


def _label(latency_model: str) -> str:
    return latency_model[:63].rstrip("-.")


def _unpacked(parts: Sequence[str], told: str) -> bytes:
    """The graph, at most MOST_BYTES of it: a small file must not become a large one."""
    way_out = "train a new version"
    try:
        packed = b"".join(base64.b64decode(part, validate=True) for part in parts)
        unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        data = unpacking.decompress(packed, MOST_BYTES)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ArtefactError(
            Refusal.TAMPERED, f"{told}: its parts are damaged ({error}); {way_out}"
        ) from error
    if not unpacking.eof:
        raise ArtefactError(Refusal.TAMPERED, f"{told}: its parts are cut off or too large; {way_out}")
    return data


async def _get(client: Client, namespace: str, name: str) -> dict[str, Any] | None:
    try:
        return await client.request("GET", CONFIG_MAPS.path(namespace, name))
    except ApiError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
