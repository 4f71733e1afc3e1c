"""A thin client: raw JSON in and out, one pool of connections, one place for paths and content types.

kubernetes-asyncio loads the configuration, holds the credentials and the connections; its generated models
are left aside: at thousands of pods they cost more than everything the operator does with them, and the
generated ``create_binding`` raises on the API server's own answer (kubernetes-client/python #547).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import yaml
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration

from tailwise.api.labels import GROUP, VERSION
from tailwise.api.release import USER_AGENT

# Lines of a watch are as long as objects: etcd takes 1.5 MiB.
_READ_BYTES = 2**21
_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ContentType(StrEnum):
    """What a request's body is."""

    JSON = "application/json"
    JSON_PATCH = "application/json-patch+json"
    MERGE_PATCH = "application/merge-patch+json"
    # JSON is YAML: the body is JSON under the only name older API servers know for it.
    APPLY = "application/apply-patch+yaml"


# What the answer to a write is asked as where nobody reads it: the metadata alone. The API server then writes
# out 1.6 kB instead of 2.9 for a pod, which is a third of what a patch costs it.
_METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API server's paths name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The path of one object, or of all (of a namespace) when no name is given."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
INFERENCE_WORKLOADS = Resource(GROUP, VERSION, "inferenceworkloads", "InferenceWorkload")
LATENCY_MODELS = Resource(GROUP, VERSION, "latencymodels", "LatencyModel", namespaced=False)


class ApiError(Exception):
    """An answer of the API server that is not a success, with its Status object."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after_seconds: float | None = None):
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class _Lines(Protocol):
    async def readline(self) -> bytes: ...


class Client:
    """Requests to one API server; made by :func:`connect`."""

    def __init__(self, api_client: ApiClient) -> None:
        self._api_client = api_client

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._api_client.configuration.host)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: ContentType = ContentType.JSON,
        timeout_seconds: float = 30.0,
        read_answer: bool = True,
    ) -> dict[str, Any]:
        """Send one request and return the JSON of its answer; nothing where that is not to be read.

        Raises:
            ApiError: the API server refused.
            aiohttp.ClientError, TimeoutError: it did not answer.
        """
        limits = aiohttp.ClientTimeout(total=timeout_seconds)
        accept = ContentType.JSON.value if read_answer else _METADATA_ALONE
        response = await self._send(
            method, path, limits, query=query, body=body, content_type=content_type, accept=accept
        )
        async with response:
            payload = await response.read()
            if response.status >= HTTPStatus.BAD_REQUEST:
                raise _error(response.status, payload, response.headers.get("Retry-After"))
            return cast(dict[str, Any], json.loads(payload)) if payload and read_answer else {}

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], connect_timeout_seconds: float = 30.0
    ) -> AsyncIterator[_Lines]:
        """Open a watch and yield its lines; how long to wait for each is the caller's choice.

        Raises as :meth:`request`; a line over 64 MiB ends the stream with ValueError.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds)
        async with asyncio.timeout(connect_timeout_seconds):
            response = await self._send("GET", path, limits, query=query)
        async with response:
            if response.status >= HTTPStatus.BAD_REQUEST:
                payload = await response.read()
                raise _error(response.status, payload, response.headers.get("Retry-After"))
            yield cast(_Lines, response.content)

    async def close(self) -> None:
        """Close all connections."""
        await self._api_client.close()

    async def _send(
        self,
        method: str,
        path: str,
        limits: aiohttp.ClientTimeout,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: ContentType = ContentType.JSON,
        accept: str = ContentType.JSON.value,
    ) -> aiohttp.ClientResponse:
        headers = {
            "Accept": accept,
            "Content-Type": content_type.value,
            "User-Agent": USER_AGENT,
        }
        # Asked anew for each request: service-account tokens are renewed on disk while the process lives.
        await self._api_client.update_params_for_auth(headers, [], ["BearerToken"])
        answer = await self._api_client.rest_client.request(
            method,
            self.server + path,
            query_params=dict(query or {}),
            headers=headers,
            body=body,
            _preload_content=False,
            _request_timeout=limits,
        )
        return cast(aiohttp.ClientResponse, answer)


class ConfigurationError(RuntimeError):
    """There is no way to a cluster; the message names the file or variable and the way out."""


async def connect(
    *, kubeconfig: str | None = None, context: str | None = None, connections: int = 64
) -> Client:
    """Connect by the given kubeconfig, else ``$KUBECONFIG``, else the pod's own service account, else
    ``~/.kube/config``.

    ``connections`` bounds the requests in flight; a watch holds one for as long as it lasts.

    Raises:
        ConfigurationError: there is no usable configuration.
    """
    configuration = Configuration()
    path = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(
                config_file=path, context=context, client_configuration=configuration, persist_config=False
            )
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        raise ConfigurationError(_unusable(path or "~/.kube/config", error)) from error
    configuration.connection_pool_maxsize = connections
    configuration.proxy = configuration.proxy or _environment_proxy(str(configuration.host))
    client = ApiClient(configuration)
    # The library's session looks for a proxy and a netrc file before each request, on another thread: nearly
    # as much work as the request. The proxy is known now, and nobody logs in to an API server by netrc.
    session = client.rest_client.pool_manager
    client.rest_client.pool_manager = aiohttp.ClientSession(
        connector=session.connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_READ_BYTES
    )
    session.detach()
    return Client(client)


def _environment_proxy(server: str) -> str | None:
    """The proxy that $HTTPS_PROXY and $NO_PROXY name for the API server."""
    address = urlsplit(server)
    if proxy_bypass(address.hostname or ""):
        return None
    return getproxies().get(address.scheme)


def context_namespace(kubeconfig: str | None, context: str | None) -> str:
    """Namespace of a kubeconfig's context, of the current one by default; ``default`` where it names none.

    Raises:
        ConfigurationError: there is no usable configuration.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return own_namespace("default")
    try:
        contexts, current = config.list_kube_config_contexts(config_file=path)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        raise ConfigurationError(_unusable(path or "~/.kube/config", error)) from error
    named = {each["name"]: each for each in contexts}
    chosen = current if context is None else named.get(context)
    if chosen is None:
        raise ConfigurationError(
            f"kubeconfig {path or '~/.kube/config'}: there is no context {context}; it has "
            f"{', '.join(sorted(named)) or 'none'}: name one with --context"
        )
    return str(chosen["context"].get("namespace") or "default")


def _unusable(path: str, error: Exception) -> str:
    # The library says of a file that is not there that it has no current-context.
    there = any(Path(each).expanduser().exists() for each in path.split(os.pathsep))
    why = str(error) if there else "there is no such file"
    return f"kubeconfig {path}: {why}; name one with --kubeconfig or $KUBECONFIG"


def own_namespace(default: str) -> str:
    """The namespace this process's pod is in; ``default`` outside a cluster."""
    try:
        return _IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip() or default
    except OSError:
        return default


def _error(code: int, payload: bytes, retry_after: str | None) -> ApiError:
    delay = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        status = json.loads(payload)
        reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):  # a proxy's page, not a Status
        reason, message = "", payload[:200].decode(errors="replace")
    return ApiError(code, reason or HTTPStatus(code).phrase, message, retry_after_seconds=delay)
