"""Models in a container registry: ``oci://HOST/NAME[:TAG][@sha256:DIGEST][?path=PATH]``.

Two ways to keep a model there are read. An artefact (ORAS and its kin) has the file as a layer, titled with
its name: that blob is read by ranges, and its digest is the file's sha256. An image ("modelcar") has it in
the file system of a layer, by custom below /models: a plain tar is walked by ranges from header to header,
a compressed one is unpacked as it comes until the file is found, within limits on what it unpacks to.

A client of the few calls of the distribution API that this needs, on the same judged connections as all
other reading, is smaller than any library for it. Credentials are those of a docker config.json.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tailwise.models.archives import open_member
from tailwise.models.errors import (
    DigestMismatch,
    InspectionError,
    InvalidUrl,
    ModelForbidden,
    ModelNotFound,
    ModelUnreachable,
)
from tailwise.models.http_connection import Document, HttpAccess, fetch_document
from tailwise.models.http_source import HttpSource
from tailwise.models.sources import ByteSource, IdentifiedSource, Identity

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_TITLE = "org.opencontainers.image.title"
_MOST_DOCUMENT_BYTES = 4 * 2**20
_MOST_LAYERS = 128
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[\w][\w.-]{0,127}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Reference:
    """What an oci:// URL names; ``path`` is a file's name or path in the image, empty for the only one."""

    host: str
    name: str
    tag: str
    digest: str = ""
    path: str = ""

    @staticmethod
    def of(url: str) -> Reference:
        """Take a URL apart; raises InvalidUrl."""
        parts = urlsplit(url)
        form = "a model in a registry is oci://HOST/NAME[:TAG][@sha256:DIGEST][?path=FILE.onnx]"
        name, _, digest = parts.path.lstrip("/").partition("@")
        name, _, tag = name.partition(":")
        if not parts.netloc or "@" in parts.netloc or not re.fullmatch(r"[a-z0-9][a-z0-9._/-]*", name):
            raise InvalidUrl(f"{form}, not {url[:200]!r}")
        if (digest and not _DIGEST.fullmatch(digest)) or (tag and not _TAG.fullmatch(tag)):
            raise InvalidUrl(f"{form}: {(digest or tag)[:80]!r} is neither")
        path = (parse_qs(parts.query).get("path") or [unquote(parts.fragment)])[0].lstrip("/")
        host = parts.netloc
        if host == _DOCKER_HUB[0]:
            host, name = _DOCKER_HUB[1], name if "/" in name else f"library/{name}"
        return Reference(host, name, tag or "latest", digest, path)


@dataclass(slots=True)
class _Registry:
    """One repository of a registry, and what was learnt of how to ask it."""

    reference: Reference
    access: HttpAccess
    docker_config: Mapping[str, Any]
    base: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def manifest(self, reference: str, kinds: tuple[str, ...]) -> Document:
        """A manifest by tag or digest; one asked for by digest is checked against it."""
        document = self._get(f"manifests/{quote(reference, safe=':')}", {"Accept": ", ".join(kinds)})
        where = f"{self.reference.host}/{self.reference.name}"
        if document.status in (404, 410):
            raise ModelNotFound(f"the registry has no {where} at {reference}; check name and tag")
        if document.status in (401, 403):
            raise ModelForbidden(
                f"the registry does not hand out {where}; name a Secret with credentials for it"
            )
        if document.status != 200:
            raise ModelUnreachable(f"the registry {self.reference.host} answers HTTP {document.status}")
        if _DIGEST.fullmatch(reference) and _sha256(document.body) != reference:
            raise DigestMismatch(f"the manifest's digest is not {reference}", field="spec.model.url")
        return document

    def blob(self, digest: str) -> HttpSource:
        """A layer, by ranges. Storage behind a redirect is not sent the registry's credentials."""
        url = f"{self.base}/v2/{self.reference.name}/blobs/{digest}"
        return HttpSource(url, self.access, self.headers)

    def _get(self, path: str, headers: Mapping[str, str]) -> Document:
        """A document of the repository, asked for again with a token where one is wanted."""
        document = self._first(path, headers) if not self.base else self._plain(path, headers)
        if document.status != 401:
            return document
        authorization = self._authorization(document.headers.get("www-authenticate", ""))
        if not authorization:
            return document
        self.headers = {"Authorization": authorization}
        return self._plain(path, headers)

    def _plain(self, path: str, headers: Mapping[str, str]) -> Document:
        url = f"{self.base}/v2/{self.reference.name}/{path}"
        return fetch_document(url, self.access, {**headers, **self.headers}, _MOST_DOCUMENT_BYTES)

    def _first(self, path: str, headers: Mapping[str, str]) -> Document:
        """The first question tells whether the registry speaks TLS; without it only where http is allowed."""
        self.base = f"https://{self.reference.host}"
        try:
            return self._plain(path, headers)
        except ModelUnreachable:
            if not self.access.allow_http:
                raise
        self.base = f"http://{self.reference.host}"
        return self._plain(path, headers)

    def _authorization(self, challenge: str) -> str:
        """The header that answers a challenge, empty where nothing can be answered."""
        basic = _credentials(self.docker_config, self.reference.host)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            return f"Basic {basic}" if basic else ""
        fields = dict(_CHALLENGE.findall(rest))
        realm = fields.get("realm", "")
        if scheme.lower() != "bearer" or not realm:
            return ""
        scope = fields.get("scope") or f"repository:{self.reference.name}:pull"
        query = urlencode({"service": fields.get("service", ""), "scope": scope})
        headers = {"Authorization": f"Basic {basic}"} if basic else {}
        joined = f"{realm}{'&' if '?' in realm else '?'}{query}"
        answer = fetch_document(joined, self.access, headers, _MOST_DOCUMENT_BYTES, first=False)
        token = _object(answer.body).get("token") or _object(answer.body).get("access_token")
        return f"Bearer {token}" if answer.status == 200 and isinstance(token, str) else ""


def open_artefact(
    url: str, access: HttpAccess, docker_config: Mapping[str, Any], most_unpacked_bytes: int
) -> ByteSource:
    """Open the model that an oci:// URL names. Raises ``InspectionError``."""
    reference = Reference.of(url)
    registry = _Registry(reference, access, docker_config)
    digest, manifest = _manifest(registry)
    layers = [each for each in manifest.get("layers") or () if isinstance(each, dict)][:_MOST_LAYERS]
    titled = {str((each.get("annotations") or {}).get(_TITLE, "")): each for each in layers}
    names = [title for title in titled if _meant(title, reference.path)]
    if len(names) > 1 and not reference.path:
        raise InvalidUrl(f"{reference.name} has more than one model ({', '.join(names[:5])}): add ?path=FILE")
    if names:
        blob = _layer_digest(titled[names[0]])
        return IdentifiedSource(registry.blob(blob), Identity(blob.removeprefix("sha256:"), "RegistrySha256"))
    # Later layers hide earlier ones, and the model is mostly in the last.
    for layer in reversed([each for each in layers if "tar" in str(each.get("mediaType", ""))]):
        source = registry.blob(_layer_digest(layer))
        try:
            member = open_member(source, reference.path, most_unpacked_bytes)
        except InspectionError:
            source.close()
            raise
        if member is not None:
            return IdentifiedSource(member, Identity(digest, "ManifestDigest"))
        source.close()
    wanted = reference.path or "*.onnx"
    raise ModelNotFound(f"no layer of {reference.host}/{reference.name} has a file {wanted}; add ?path=FILE")


def artefact_identity(url: str, access: HttpAccess, docker_config: Mapping[str, Any]) -> Identity:
    """What a later ``open_artefact`` would say identifies the file, for the price of the manifests."""
    reference = Reference.of(url)
    digest, manifest = _manifest(_Registry(reference, access, docker_config))
    for layer in manifest.get("layers") or ():
        title = str((layer.get("annotations") or {}).get(_TITLE, "")) if isinstance(layer, dict) else ""
        if _meant(title, reference.path):
            return Identity(_layer_digest(layer).removeprefix("sha256:"), "RegistrySha256")
    return Identity(digest, "ManifestDigest")


def _manifest(registry: _Registry) -> tuple[str, dict[str, Any]]:
    """Digest and content of the manifest; of an index that for linux on amd64, else the first."""
    reference = registry.reference
    document = registry.manifest(reference.digest or reference.tag, _MANIFESTS + _INDEXES)
    content = _object(document.body)
    if "manifests" in content and "layers" not in content:
        entries = [each for each in content["manifests"] if isinstance(each, dict)]
        amd64 = [each for each in entries if (each.get("platform") or {}).get("architecture") == "amd64"]
        chosen = (amd64 or entries or [{}])[0]
        document = registry.manifest(_layer_digest(chosen), _MANIFESTS)
        content = _object(document.body)
    return _sha256(document.body), content


def _meant(title: str, path: str) -> bool:
    return title == path or title.rsplit("/", 1)[-1] == path if path else title.endswith(".onnx")


def _layer_digest(layer: Mapping[str, Any]) -> str:
    digest = str(layer.get("digest", ""))
    if not _DIGEST.fullmatch(digest):
        raise ModelUnreachable("the registry's manifest names a layer without a sha256 digest")
    return digest


def _sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelUnreachable("the registry's answer is not JSON") from error
    if not isinstance(content, dict):
        raise ModelUnreachable("the registry's answer is not a JSON object")
    return content


def _credentials(docker_config: Mapping[str, Any], host: str) -> str:
    """User and password for a registry's host as basic authorization, from a docker config.json."""
    names = {host, *(("docker.io", "index.docker.io") if host in _DOCKER_HUB else ())}
    for key, entry in (docker_config.get("auths") or {}).items():
        if re.sub(r"^https?://", "", key).split("/")[0] not in names or not isinstance(entry, dict):
            continue
        if entry.get("auth"):
            return str(entry["auth"])
        pair = f"{entry.get('username', '')}:{entry.get('password', '')}"
        return base64.b64encode(pair.encode()).decode()
    return ""
