"""Just enough of a Kubernetes client, without an event loop, for the harness to fill its clusters."""

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import urllib3

from tests.cluster.controlplane import ControlPlane

Manifest = Mapping[str, Any]
_CONCURRENCY = 16
_FIELD_MANAGER = "tailwise-test-harness"


class ApiError(RuntimeError):
    """The API server refused a request; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Api:
    """A connection pool to one API server, usable from several threads."""

    server: str
    pool: urllib3.PoolManager
    _plurals: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """Send one request and return the JSON of the answer; raises ApiError unless it is a 2xx."""
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        encoded = None if body is None else json.dumps(body).encode()
        answer = self.pool.request(method, self.server + path, body=encoded, headers=headers)
        if answer.status >= 300:
            text = answer.data.decode(errors="replace")[:500]
            raise ApiError(answer.status, f"{method} {path}: {answer.status}: {text}")
        content: dict[str, Any] = json.loads(answer.data)
        return content

    def path(self, manifest: Manifest) -> str:
        """Return the URL path of the object that a manifest describes."""
        plural, namespaced = self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        scope = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{_group(manifest['apiVersion'])}{scope}/{plural}/{quote(metadata['name'])}"

    def apply(self, manifest: Manifest) -> dict[str, Any]:
        """Server-side apply; conflicts are won, the harness owns what it makes."""
        query = f"?fieldManager={_FIELD_MANAGER}&force=true"
        # JSON is YAML, and the apply content type is the one type that every supported version takes.
        return self.request("PATCH", self.path(manifest) + query, manifest, "application/apply-patch+yaml")

    def create(self, manifest: Manifest) -> dict[str, Any]:
        """Create an object; raises ApiError 409 when it exists."""
        return self.request("POST", self.path(manifest).rpartition("/")[0], manifest)

    def _resource(self, api_version: str, kind: str) -> tuple[str, bool]:
        if (api_version, kind) not in self._plurals:
            for resource in self.request("GET", _group(api_version))["resources"]:
                if "/" not in resource["name"]:
                    key = (api_version, resource["kind"])
                    self._plurals[key] = (resource["name"], resource["namespaced"])
        if (api_version, kind) not in self._plurals:
            raise ApiError(404, f"the API server at {self.server} does not serve {kind} of {api_version}")
        return self._plurals[api_version, kind]


def connect(plane: ControlPlane) -> Api:
    """Return a client with the rights of system:masters."""
    pool = urllib3.PoolManager(
        maxsize=_CONCURRENCY,
        cert_file=str(plane.admin.certificate),
        key_file=str(plane.admin.key),
        ca_certs=str(plane.authority.certificate),
        timeout=urllib3.Timeout(connect=5.0, read=60.0),
        retries=False,
    )
    return Api(plane.server, pool)


def for_each(action: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Call `action` on all items, several at once; the first error is raised."""
    with ThreadPoolExecutor(_CONCURRENCY) as executor:
        for _ in executor.map(action, items):
            pass


def _group(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
