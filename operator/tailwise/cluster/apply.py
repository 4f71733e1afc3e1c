"""Writes, with what usually goes wrong as values instead of exceptions.

A conflict means that the object changed since it was read; not found that it is gone: both are ordinary
answers for a controller, which looks again. What is left to exceptions is an API server that does not
answer or is overloaded: those are tried again by the queue with back-off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from tailwise.api.labels import OPERATOR_FIELD_MANAGER
from tailwise.cluster.client import PODS, ApiError, Client, ContentType, Resource

_APPLY_QUERY = {"fieldManager": OPERATOR_FIELD_MANAGER, "fieldValidation": "Strict"}


class Outcome(StrEnum):
    """What became of a write."""

    DONE = "Done"
    CONFLICT = "Conflict"
    NOT_FOUND = "NotFound"
    REFUSED = "Refused"  # invalid or forbidden: the same request will fail again


@dataclass(frozen=True, slots=True)
class Written:
    """Outcome of a write; ``object`` is what the API server holds now.

    It is empty unless done, and after writes whose answer nobody reads: of a status, by JSON patch, of a
    binding or an eviction.
    """

    outcome: Outcome
    object: Mapping[str, Any]
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether the write took effect."""
        return self.outcome is Outcome.DONE


_OUTCOMES = {
    HTTPStatus.CONFLICT: Outcome.CONFLICT,
    HTTPStatus.NOT_FOUND: Outcome.NOT_FOUND,
    HTTPStatus.BAD_REQUEST: Outcome.REFUSED,
    HTTPStatus.FORBIDDEN: Outcome.REFUSED,
    HTTPStatus.UNPROCESSABLE_ENTITY: Outcome.REFUSED,
}


async def apply(client: Client, resource: Resource, manifest: Mapping[str, Any], *, force: bool) -> Written:
    """Server-side apply of a manifest (with metadata.name and, where it has one, metadata.namespace).

    ``force`` takes over fields that another manager owns; without it such a field is a conflict.
    A ``metadata.uid`` in the manifest makes the API server refuse to create the object anew (409).
    """
    metadata = manifest["metadata"]
    path = resource.path(metadata.get("namespace"), metadata["name"])
    query = {**_APPLY_QUERY, "force": "true" if force else "false"}
    return await _write(client, ("PATCH", path), manifest, ContentType.APPLY, query)


async def apply_status(
    client: Client,
    resource: Resource,
    *,
    namespace: str | None,
    name: str,
    uid: str,
    status: Mapping[str, Any],
) -> Written:
    """Server-side apply of the whole of ``status``: what is left out of it is removed.

    The answer is not read. Not found when the object of this uid is gone, also when another took its name.
    """
    metadata = {"name": name, "uid": uid} | ({"namespace": namespace} if namespace else {})
    manifest = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "status": status,
    }
    path = resource.path(namespace, name, "status")
    query = {**_APPLY_QUERY, "force": "true"}
    written = await _write(client, ("PATCH", path), manifest, ContentType.APPLY, query, read_answer=False)
    if written.outcome is Outcome.CONFLICT:
        return Written(Outcome.NOT_FOUND, {}, written.message)
    return written


async def patch_json(
    client: Client,
    resource: Resource,
    namespace: str | None,
    name: str,
    operations: Sequence[Mapping[str, Any]],
) -> Written:
    """JSON patch (RFC 6902). Preconditions are ``test`` operations; one that fails is a conflict.

    The answer is not read: there are as many of these as there are pods.
    """
    path = resource.path(namespace, name)
    query = {"fieldManager": OPERATOR_FIELD_MANAGER}
    written = await _write(
        client, ("PATCH", path), list(operations), ContentType.JSON_PATCH, query, read_answer=False
    )
    if written.outcome is Outcome.REFUSED and _is_failed_test(written.message):
        return Written(Outcome.CONFLICT, {}, written.message)
    return written


async def merge_patch(
    client: Client, resource: Resource, namespace: str | None, name: str, patch: Mapping[str, Any]
) -> Written:
    """JSON merge patch (RFC 7396). Preconditions are metadata.uid and metadata.resourceVersion in it."""
    path = resource.path(namespace, name)
    return await _write(
        client, ("PATCH", path), patch, ContentType.MERGE_PATCH, {"fieldManager": OPERATOR_FIELD_MANAGER}
    )


async def create(
    client: Client, resource: Resource, manifest: Mapping[str, Any], *, read_answer: bool = True
) -> Written:
    """Create an object; a conflict when one of this name exists."""
    path = resource.path(manifest["metadata"].get("namespace"))
    query = {"fieldManager": OPERATOR_FIELD_MANAGER}
    return await _write(client, ("POST", path), manifest, ContentType.JSON, query, read_answer=read_answer)


async def replace(client: Client, resource: Resource, manifest: Mapping[str, Any]) -> Written:
    """Replace an object; a conflict when its metadata.resourceVersion is not the stored one."""
    metadata = manifest["metadata"]
    path = resource.path(metadata.get("namespace"), metadata["name"])
    return await _write(
        client, ("PUT", path), manifest, ContentType.JSON, {"fieldManager": OPERATOR_FIELD_MANAGER}
    )


async def delete(
    client: Client,
    resource: Resource,
    namespace: str | None,
    name: str,
    *,
    uid: str | None = None,
    resource_version: str | None = None,
    with_dependents: bool = False,
) -> Written:
    """Delete an object if it still is the one of this uid and resource version; else a conflict.

    ``with_dependents``: also what it owns. Only Jobs need that said: by default their pods stay.
    """
    preconditions = {
        key: value
        for key, value in (("uid", uid), ("resourceVersion", resource_version))
        if value is not None
    }
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
    if with_dependents:
        options["propagationPolicy"] = "Background"
    return await _write(client, ("DELETE", resource.path(namespace, name)), options, ContentType.JSON, {})


async def bind(
    client: Client, namespace: str, name: str, *, uid: str, node: str, annotations: Mapping[str, str]
) -> Written:
    """Bind a pod to a node, as a scheduler does; the annotations come onto the pod in the same write.

    A conflict when the pod is another of its name, has a node, or is being deleted.
    """
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": dict(annotations)},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    path = PODS.path(namespace, name, "binding")
    return await _write(client, ("POST", path), binding, ContentType.JSON, {}, read_answer=False)


async def evict(client: Client, namespace: str, name: str, *, uid: str, resource_version: str) -> Written:
    """Evict a pod if it is still of this uid and version; a conflict too where a budget forbids it."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid, "resourceVersion": resource_version}},
    }
    path = PODS.path(namespace, name, "eviction")
    try:
        return await _write(client, ("POST", path), eviction, ContentType.JSON, {}, read_answer=False)
    except ApiError as error:
        # A disruption budget says no, or not now (429): for the caller this pod is not to be had.
        if error.code != HTTPStatus.TOO_MANY_REQUESTS:
            raise
        return Written(Outcome.CONFLICT, {}, error.message)


async def _write(
    client: Client,
    target: tuple[str, str],
    body: Any,
    content_type: ContentType,
    query: Mapping[str, str],
    *,
    read_answer: bool = True,
) -> Written:
    try:
        answer = await client.request(
            *target, query=query, body=body, content_type=content_type, read_answer=read_answer
        )
    except ApiError as error:
        # A field that the schema does not know is a 500 in server-side apply, and refused all the same.
        unknown_field = error.code == HTTPStatus.INTERNAL_SERVER_ERROR and "typed patch" in error.message
        outcome = Outcome.REFUSED if unknown_field else _OUTCOMES.get(HTTPStatus(error.code))
        if outcome is None:
            raise
        return Written(outcome, {}, error.message)
    return Written(Outcome.DONE, answer)


def _is_failed_test(message: str) -> bool:
    # A failed `test` is answered with 422, no causes and this sentence alone; an invalid object has causes.
    return message.startswith("the server rejected our request due to an error in our request")
