"""Which fields in use have no behaviour in this version; a condition names them, so that none is ignored.

The tables below shrink as behaviour lands: remove the entry in the change that brings it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.serving_metrics import METRICS_AT_THE_SERVING_PORT
from tailwise.api.training_policy import Drift


def scraped_at_serving_port(spec: InferenceWorkloadSpec) -> bool:
    """Whether pods are made here, and Prometheus finds their metrics at the port that they answer at."""
    metrics = spec.metrics
    return (
        spec.template is not None
        and metrics is not None
        and metrics.preset in METRICS_AT_THE_SERVING_PORT
        and spec.serving is not None
        and spec.serving.port is not None
    )


_WORKLOAD: Mapping[str, Callable[[InferenceWorkloadSpec], bool]] = {
    "spec.serving.port (without a template, or with metrics at a port of their own)": lambda spec: (
        spec.serving is not None and spec.serving.port is not None and not scraped_at_serving_port(spec)
    ),
    "spec.serving.modelName (without metrics)": lambda spec: (
        spec.serving is not None and spec.serving.model_name is not None and spec.metrics is None
    ),
}

# Described by the schema, without behaviour as yet; a path ends where all below it is meant.
_LATENCY_MODEL = (
    # Rows are read anew for each run, from as far back as Prometheus and files reach.
    ("dataset", "retentionDays"),
    ("profiling",),
    ("drift", "newSamples"),
)


def unimplemented_workload_fields(spec: InferenceWorkloadSpec) -> list[str]:
    """Paths of the fields that ``spec`` uses and this version does not act upon, in order of the schema."""
    return [path for path, uses in _WORKLOAD.items() if uses(spec)]


def unimplemented_latency_model_fields(spec: LatencyModelSpec) -> list[str]:
    """Paths of the fields that ``spec`` sets to other than their defaults and this version passes over."""
    document = spec.model_dump(mode="json")
    default = LatencyModelSpec(drift=Drift()).model_dump(mode="json")
    paths = []
    for names in _LATENCY_MODEL:
        value: Any = document
        usual: Any = default
        for name in names:
            value, usual = (each.get(name) if each else None for each in (value, usual))
        # Left out altogether, such as drift: nothing of it is used.
        if value is not None:
            paths += _differences(f"spec.{'.'.join(names)}", value, usual)
    return paths


def unimplemented_fields(spec: InferenceWorkloadSpec | LatencyModelSpec) -> list[str]:
    """Paths of the fields that ``spec`` uses and this version does not act upon."""
    if isinstance(spec, InferenceWorkloadSpec):
        return unimplemented_workload_fields(spec)
    return unimplemented_latency_model_fields(spec)


def _differences(path: str, value: Any, default: Any) -> list[str]:
    """Paths at or below ``path`` where ``value`` is not ``default``; a list counts as a whole."""
    if value == default:
        return []
    if isinstance(value, dict) and isinstance(default, dict):
        keys = [key for key in value if value[key] != default.get(key)]
        return [
            found for key in keys for found in _differences(f"{path}.{key}", value[key], default.get(key))
        ]
    return [path]
