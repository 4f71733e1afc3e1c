"""CustomResourceDefinitions from the pydantic models.

In: a ``Kind``. Out: the CRD as plain data, with a structural OpenAPI v3 schema: pydantic's JSON Schema with
references put in place, nulls unwrapped, and what Kubernetes forbids taken out. The rules of a structural
schema stand in the Kubernetes documentation, "Specifying a structural schema".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tailwise.api.inference_workload import INFERENCE_WORKLOAD
from tailwise.api.labels import GROUP, VERSION
from tailwise.api.latency_model import LATENCY_MODEL
from tailwise.api.schema import Column, Kind, Schema

KINDS = (INFERENCE_WORKLOAD, LATENCY_MODEL)

# The order in which a person wants to read a schema.
_KEY_ORDER = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-validations",
)


def custom_resource_definition(kind: Kind) -> Schema:
    """The CustomResourceDefinition of ``kind``."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": list(kind.short_names),
                "categories": list(kind.categories),
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_printer_column(column) for column in kind.columns],
                    "subresources": _subresources(kind),
                    "schema": {"openAPIV3Schema": object_schema(kind)},
                }
            ],
        },
    }


def object_schema(kind: Kind) -> Schema:
    """The structural schema of ``kind``'s objects."""
    document = kind.model.model_json_schema(by_alias=True, mode="validation")
    definitions = document.get("$defs", {})
    spec, status = (
        structural(document["properties"][part], definitions, defaults=part == "spec")
        for part in ("spec", "status")
    )
    schema: Schema = {
        "description": kind.description,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of the object's schema."},
            "kind": {"type": "string", "description": "Kind of the object."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if "spec" in document.get("required", ()):
        schema["required"] = ["spec"]
    return schema


def structural(schema: Schema, definitions: Schema, *, defaults: bool) -> Schema:
    """``schema`` as Kubernetes wants it; ``defaults`` False leaves them out, as a status has none.

    Raises ValueError for what a structural schema cannot say, with the part in question.
    """
    schema = _resolved(schema, definitions)
    made: Schema = {
        key: value
        for key, value in schema.items()
        if key in _KEY_ORDER and key not in ("properties", "additionalProperties", "items", "default")
    }
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if "exclusiveMinimum" in schema:
        made["minimum"] = schema["exclusiveMinimum"] + 1
    if schema.get("type") == "integer":
        made["format"] = "int64"
    if "description" in made:
        made["description"] = " ".join(made["description"].replace("``", "`").split())
    made |= _children(schema, definitions, defaults=defaults)
    if defaults and (default := _default(schema)) is not None:
        made["default"] = default
    if "type" not in made:
        raise ValueError(f"no structural schema for {schema}: give the field one type")
    return {key: made[key] for key in _KEY_ORDER if key in made}


def _children(schema: Schema, definitions: Schema, *, defaults: bool) -> Schema:
    children: Schema = {}
    if properties := schema.get("properties"):
        children["properties"] = {
            name: structural(each, definitions, defaults=defaults) for name, each in properties.items()
        }
    elif isinstance(values := schema.get("additionalProperties"), dict):
        children["additionalProperties"] = structural(values, definitions, defaults=defaults)
    if "items" in schema:
        children["items"] = structural(schema["items"], definitions, defaults=defaults)
    return children


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """``schema`` without references and without the null of an optional field; outer keys win."""
    outer = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if reference := schema.get("$ref"):
        inner = definitions[reference.removeprefix("#/$defs/")]
        return _resolved({**inner, **outer}, definitions)
    if alternatives := schema.get("anyOf"):
        present = [each for each in alternatives if each.get("type") != "null"]
        if len(present) != 1:
            raise ValueError(f"no structural schema for alternatives {alternatives}: give the field one type")
        return _resolved({**present[0], **outer}, definitions)
    return schema


def _default(schema: Schema) -> Any:
    """The default to write: {} for objects, whose own fields have defaults; none for empty values.

    An object with rules gets its default in full: the API server tries the rules on it as it stands.
    """
    default = schema.get("default")
    if isinstance(default, dict) and "x-kubernetes-validations" not in schema:
        return {}
    return _without_empty(default)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, each in value.items() if (kept := _without_empty(each)) is not None}
    if isinstance(value, list):
        return [_without_empty(each) for each in value] or None
    return value


def _printer_column(column: Column) -> Schema:
    made: Schema = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    if column.priority:
        made["priority"] = column.priority
    return made


def _subresources(kind: Kind) -> Schema:
    made: Schema = {"status": {}}
    if kind.scale is not None:
        made["scale"] = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.label_selector,
        }
    return made


def walk(schema: Schema, path: str = "") -> Iterable[tuple[str, Schema]]:
    """Each part of a structural schema with its path, depth first: ``.spec.model``, ``.spec.list[]``."""
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from walk(each, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(values := schema.get("additionalProperties"), dict):
        yield from walk(values, f"{path}[*]")
