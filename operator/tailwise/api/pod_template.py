"""A pod template inside another object: taken as it is, with the little that must be known of it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tailwise.api.document import Document
from tailwise.api.metadata import AnnotationValue, LabelValue
from tailwise.api.schema import Schema, list_map, rule, rules

POD_SPEC_SCHEMA: Schema = {
    "x-kubernetes-preserve-unknown-fields": True,
    "required": ["containers"],
    "properties": {
        "containers": {
            "type": "array",
            "description": "Containers, as `kubectl explain pod.spec.containers` tells it.",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "description": "Name of the container.", "maxLength": 63}
                },
            },
            **list_map("name"),
        },
        "nodeName": {
            "type": "string",
            "description": "Must be left out: the node is what Tailwise decides.",
            "maxLength": 253,
        },
    },
    **rules(
        rule(
            "!has(self.nodeName) || self.nodeName == ''",
            "spec.template.spec.nodeName leaves nothing to decide: remove it, or narrow the choice by "
            "nodeSelector or node affinity",
        )
    ),
}


class PodTemplateMetadata(Document):
    """Labels and annotations of the pods."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})

    labels: dict[str, LabelValue] = Field(
        default_factory=dict,
        max_length=256,
        description="Labels of the pods; tailwise.dev/workload is added.",
    )
    annotations: dict[str, AnnotationValue] = Field(
        default_factory=dict, max_length=256, description="Annotations of the pods."
    )


class PodTemplate(Document):
    """A pod template, exactly as in a Deployment."""

    metadata: PodTemplateMetadata = Field(
        default_factory=PodTemplateMetadata, description="Labels and annotations of the pods."
    )
    spec: dict[str, Any] = Field(
        description="Specification of the pods, as `kubectl explain pod.spec` tells it.",
        json_schema_extra=POD_SPEC_SCHEMA,
    )
