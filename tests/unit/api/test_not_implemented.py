"""Fields without behaviour are named when they are used, and only then."""

from typing import Any

import pytest

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.not_implemented import unimplemented_fields

MINIMAL: dict[str, Any] = {
    "model": {"url": "https://models.example/m.onnx"},
    "slo": {"latencyMilliseconds": 50},
}


TEMPLATE = {"spec": {"containers": [{"name": "server", "image": "registry.example/server:1"}]}}


def workload(**fields: Any) -> InferenceWorkloadSpec:
    return InferenceWorkloadSpec.model_validate(MINIMAL | fields)


def latency_model(**fields: Any) -> LatencyModelSpec:
    return LatencyModelSpec.model_validate(fields)


def test_a_minimal_workload_uses_nothing_that_is_missing() -> None:
    assert unimplemented_fields(workload()) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"serving": {"port": 8080}, "metrics": {"preset": "KServe"}}, "spec.serving.port"),
        (
            {"serving": {"port": 8000}, "metrics": {"preset": "Triton"}, "template": TEMPLATE},
            "spec.serving.port",
        ),
        ({"serving": {"modelName": "m"}}, "spec.serving.modelName"),
    ],
)
def test_a_workloads_field_without_behaviour_is_named(fields: dict[str, Any], expected: str) -> None:
    (named,) = unimplemented_fields(workload(**fields))
    assert named.startswith(expected)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "placement": {
                "binding": "NodeName",
                "policy": "Feasible",
                "objective": "Tightest",
                "neighbours": "Ignore",
                "fallback": "Hold",
            }
        },
        {"placement": {"neighbours": "Respect", "relocation": {"mode": "WhenBetter"}}},
        {"model": {"url": "s3://b/m.onnx", "serviceAccountName": "reader", "secretRef": {"name": "keys"}}},
        {"load": {"batchSize": 8, "concurrency": 4, "requestsPerSecond": 10}},
        {"metrics": {"preset": "Triton"}, "serving": {"modelName": "m"}},
        {"metrics": {"preset": "KServe"}, "serving": {"port": 8080}, "template": TEMPLATE},
        {"latencyModelRef": {"name": "default"}},
        {"slo": {"latencyMilliseconds": 5, "percentile": 99}},
    ],
)
def test_fields_with_behaviour_are_not_named(fields: dict[str, Any]) -> None:
    assert unimplemented_fields(workload(**fields)) == []


def test_an_empty_latency_model_uses_nothing_that_is_missing() -> None:
    assert unimplemented_fields(latency_model()) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"featureSet": "Paper", "schedule": {"cron": "@daily"}, "drift": {}}, []),
        ({"promotion": {"mode": "Manual", "minGainPercent": 5}, "historyLimit": 2}, []),
        ({"dataset": {"windowSeconds": 60, "retentionDays": 7}}, ["spec.dataset.retentionDays"]),
        ({"drift": {"newSamples": 500}}, ["spec.drift.newSamples"]),
        ({"profiling": {}}, ["spec.profiling"]),
        ({"artifactStore": {"type": "URL", "url": "s3://bucket/versions"}}, []),
    ],
)
def test_a_latency_models_settings_without_behaviour_are_named(
    fields: dict[str, Any], expected: list[str]
) -> None:
    assert unimplemented_fields(latency_model(**fields)) == expected
