"""What a Kubernetes schema says beyond JSON Schema, as values that the models' fields carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tailwise.api.document import Document

Schema = dict[str, Any]

MAX_RULE_MESSAGE = 2048


def rule(expression: str, message: str, *, path: str | None = None) -> Schema:
    """A CEL rule that the API server checks on each write.

    ``expression`` sees the value as ``self`` and, where it says ``oldSelf``, the stored one: such a rule
    holds for changes only. ``message`` names the field and the way out; ``path`` is the field to blame,
    relative to the value.
    """
    made: Schema = {"rule": expression, "message": message}
    if path is not None:
        made["fieldPath"] = path
    return made


def rules(*each: Schema) -> Schema:
    """Extra schema of a field or model with these CEL rules."""
    return {"x-kubernetes-validations": list(each)}


def list_map(*keys: str) -> Schema:
    """Extra schema of a list whose items are known by ``keys``: server-side apply merges by them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def list_set() -> Schema:
    """Extra schema of a list of scalars without duplicates."""
    return {"x-kubernetes-list-type": "set"}


def list_atomic() -> Schema:
    """Extra schema of a list that is replaced as a whole."""
    return {"x-kubernetes-list-type": "atomic"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``; ``priority`` 1 shows it with ``-o wide`` only."""

    name: str
    type: str
    path: str
    description: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds what it needs."""

    spec_replicas: str
    status_replicas: str
    label_selector: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A custom resource: its names, its columns and the model of its objects."""

    name: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    namespaced: bool
    model: type[Document]
    columns: tuple[Column, ...]
    description: str
    scale: Scale | None = None
    categories: tuple[str, ...] = field(default=("tailwise",))
