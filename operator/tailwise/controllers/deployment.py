"""The Deployment that a workload with a template owns, as a pure function of the workload."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.labels import (
    MANAGED_BY,
    MANAGED_BY_LABEL,
    PLACEMENT_GATE,
    SCHEDULER_NAME,
    WORKLOAD_LABEL,
)
from tailwise.api.not_implemented import scraped_at_serving_port
from tailwise.api.placement_policy import Binding
from tailwise.cluster.client import DEPLOYMENTS, INFERENCE_WORKLOADS

# Which workload's template made a pod. Its own label, and not the workload label, is the selector: a pod
# whose workload label somebody changes stays with its ReplicaSet instead of being replaced.
MADE_BY_LABEL = "tailwise.dev/made-by"

_SCRAPING = "prometheus.io"


def deployment_manifest(
    workload: InferenceWorkload, *, uid: str | None = None, surging: int = 0
) -> dict[str, Any]:
    """The manifest to apply; ``uid`` is the existing Deployment's, so that one made anew is not overwritten.

    ``surging``: replicas on top of the workload's own, while a pod moves. A workload label that the template
    brings is kept, so that the contradiction is reported rather than hidden.

    Raises ValueError when the workload has no template.
    """
    if workload.spec.template is None:
        raise ValueError(f"InferenceWorkload {workload.metadata.name} has no template")
    name, namespace = workload.metadata.name, workload.metadata.namespace
    labels = _labels(name)
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "ownerReferences": [owner_reference(workload)],
    } | ({"uid": uid} if uid else {})
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": metadata,
        "spec": {
            "replicas": workload.spec.replicas + surging,
            "selector": {"matchLabels": {MADE_BY_LABEL: name}},
            "template": _template(workload, labels),
        },
    }


def owner_reference(workload: InferenceWorkload) -> dict[str, Any]:
    """The reference by which the garbage collector deletes what the workload owns."""
    return {
        "apiVersion": INFERENCE_WORKLOADS.api_version,
        "kind": INFERENCE_WORKLOADS.kind,
        "name": workload.metadata.name,
        "uid": workload.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def is_owned(deployment: Mapping[str, Any], workload_uid: str) -> bool:
    """Whether a Deployment's controller is the workload of this uid."""
    references = deployment["metadata"].get("ownerReferences") or ()
    return any(ref.get("controller") and ref.get("uid") == workload_uid for ref in references)


def foreign_label(workload: InferenceWorkload) -> str | None:
    """The other workload that the template's own label names, if it does."""
    if workload.spec.template is None:
        return None
    label = workload.spec.template.metadata.labels.get(WORKLOAD_LABEL)
    return label if label not in (None, workload.metadata.name) else None


def _labels(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "inference-workload",
        "app.kubernetes.io/instance": name,
        MANAGED_BY_LABEL: MANAGED_BY,
        MADE_BY_LABEL: name,
    }


def _template(workload: InferenceWorkload, labels: Mapping[str, str]) -> dict[str, Any]:
    template = workload.spec.template
    assert template is not None  # noqa: S101 - the caller has looked
    metadata = template.metadata.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    given = metadata.get("labels", {})
    metadata["labels"] = {
        **labels,
        WORKLOAD_LABEL: workload.metadata.name,
        **given,
        MADE_BY_LABEL: workload.metadata.name,
    }
    if scraped_at_serving_port(workload.spec):
        metadata["annotations"] = _scraped(workload, metadata.get("annotations", {}))
    spec = copy.deepcopy(template.spec)
    gates = [gate for gate in spec.get("schedulingGates") or () if gate.get("name") != PLACEMENT_GATE]
    if workload.spec.placement.binding is Binding.NODE_NAME:
        spec["schedulerName"] = SCHEDULER_NAME
    else:
        gates.append({"name": PLACEMENT_GATE})
    spec["schedulingGates"] = gates
    return {"metadata": metadata, "spec": spec}


def _scraped(workload: InferenceWorkload, given: Mapping[str, str]) -> dict[str, str]:
    """Annotations by which Prometheus' usual configuration finds the pods; those of the template stay."""
    serving = workload.spec.serving
    if serving is None or f"{_SCRAPING}/scrape" in given:
        return dict(given)
    own = {"scrape": "true", "port": str(serving.port), "path": "/metrics"}
    return {f"{_SCRAPING}/{name}": value for name, value in own.items()} | dict(given)
