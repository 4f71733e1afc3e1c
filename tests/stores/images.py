"""Artefacts and images in a registry, pushed by the calls of the distribution API."""

import gzip
import hashlib
import io
import json
import tarfile
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR, TAR_GZIP = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"


def tar(files: Mapping[str, bytes]) -> bytes:
    """A layer with these files, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def image(files: Mapping[str, bytes], *, packed: bool) -> list[tuple[str, bytes, dict[str, str]]]:
    """The layers of an image: a base, and one with the files."""
    base, top = tar({"etc/os-release": b"ID=none\n"}), tar(files)
    if packed:
        return [(TAR_GZIP, gzip.compress(base), {}), (TAR_GZIP, gzip.compress(top, 1), {})]
    return [(TAR, base, {}), (TAR, top, {})]


def artefact(title: str, content: bytes) -> list[tuple[str, bytes, dict[str, str]]]:
    """The layers of what `oras push` makes of a file."""
    return [("application/octet-stream", content, {"org.opencontainers.image.title": title})]


def push(
    registry: str,
    name: str,
    tag: str,
    layers: list[tuple[str, bytes, dict[str, str]]],
    *,
    index: bool = False,
    authorization: str = "",
) -> str:
    """Push layers and their manifest, in an index if asked; returns the digest that the tag has then."""
    headers = {"Authorization": authorization} if authorization else {}
    config = _blob(registry, name, b"{}", headers)
    entries: list[dict[str, Any]] = []
    for kind, content, annotations in layers:
        entry = {"mediaType": kind, "size": len(content), "digest": _blob(registry, name, content, headers)}
        entries.append(entry | ({"annotations": annotations} if annotations else {}))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": config},
        "layers": entries,
    }
    body = json.dumps(manifest).encode()
    if not index:
        return _manifest(registry, name, tag, body, MANIFEST, headers)
    digest = _manifest(registry, name, f"sha256:{hashlib.sha256(body).hexdigest()}", body, MANIFEST, headers)
    platforms = [{"architecture": "arm64", "os": "linux"}, {"architecture": "amd64", "os": "linux"}]
    listed = [
        {"mediaType": MANIFEST, "size": len(body), "digest": digest, "platform": platform}
        for platform in platforms
    ]
    whole = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    return _manifest(registry, name, tag, whole, INDEX, headers)


def _blob(registry: str, name: str, content: bytes, headers: Mapping[str, str]) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    location = _send("POST", f"http://{registry}/v2/{name}/blobs/uploads/", None, headers)["location"]
    target = urllib.parse.urljoin(f"http://{registry}/", location)
    joined = f"{target}{'&' if '?' in target else '?'}digest={urllib.parse.quote(digest)}"
    _send("PUT", joined, content, {**headers, "Content-Type": "application/octet-stream"})
    return digest


def _manifest(
    registry: str, name: str, reference: str, body: bytes, kind: str, headers: Mapping[str, str]
) -> str:
    url = f"http://{registry}/v2/{name}/manifests/{reference}"
    return _send("PUT", url, body, {**headers, "Content-Type": kind})["docker-content-digest"]


def _send(method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, str]:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return {key.lower(): value for key, value in response.headers.items()}
