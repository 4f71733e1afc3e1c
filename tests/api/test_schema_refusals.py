"""A real API server refuses nonsense, names the field and tells the way out."""

import copy
import json
from typing import Any

import pytest
from kubernetes_asyncio.client import ApiClient, ApiException, CustomObjectsApi

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.api.labels import GROUP, VERSION
from tailwise.api.latency_model import LatencyModel

Spec = dict[str, Any]
WORKLOADS, LATENCY_MODELS = "inferenceworkloads", "latencymodels"

TEMPLATE: Spec = {"spec": {"containers": [{"name": "server", "image": "serving"}]}}
MINIMAL: Spec = {
    "model": {"url": "https://models.example/resnet50.onnx"},
    "slo": {"latencyMilliseconds": 100},
}


def changed(path: str, value: Any) -> Spec:
    """The minimal spec with one field set; ``None`` removes it."""
    spec = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    part = spec
    for name in parents:
        part = part.setdefault(name, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return spec


async def create_workload(api: ApiClient, namespace: str, spec: Spec, name: str = "w") -> dict[str, Any]:
    manifest = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceWorkload",
        "metadata": {"name": name},
        "spec": spec,
    }
    made: dict[str, Any] = await CustomObjectsApi(api).create_namespaced_custom_object(
        GROUP, VERSION, namespace, WORKLOADS, manifest, field_validation="Strict"
    )
    return made


async def create_latency_model(api: ApiClient, spec: Spec) -> dict[str, Any]:
    manifest = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "LatencyModel",
        "metadata": {"generateName": "test-"},
        "spec": spec,
    }
    made: dict[str, Any] = await CustomObjectsApi(api).create_cluster_custom_object(
        GROUP, VERSION, LATENCY_MODELS, manifest, field_validation="Strict", dry_run="All"
    )
    return made


def message(error: ApiException) -> str:
    """What the API server tells the user."""
    return str(json.loads(error.body or "{}")["message"])


REFUSED: list[tuple[str, Any, str]] = [
    ("slo.latencyMilliseconds", 0, "spec.slo.latencyMilliseconds"),
    ("slo.latencyMilliseconds", 1.5, "spec.slo.latencyMilliseconds"),
    ("slo.latencyMilliseconds", None, "spec.slo.latencyMilliseconds: Required"),
    ("slo.percentile", 42, "spec.slo.percentile: Unsupported value"),
    ("slo", None, "spec.slo: Required"),
    ("model", None, "spec.model: Required"),
    ("model.url", "models.example/resnet50.onnx", "spec.model.url needs a scheme"),
    ("model.url", "ftp://models.example/resnet50.onnx", "spec.model.url needs a scheme"),
    ("model.url", "https://", "spec.model.url needs a scheme"),
    ("model.url", "https://user:secret@models.example/m.onnx", "must not carry a password"),
    ("model.url", "https://models.example/" + "a" * 2048, "may not be more than 2048"),
    ("model.sha256", "ABC", "64 hexadecimal digits"),
    ("model.format", "TensorRT", 'supported values: "ONNX"'),
    ("model.inputShapes", [{"name": "x", "dimensions": [1, 0]}], "each of dimensions must be at least 1"),
    ("model.inputShapes", [{"name": "x", "dimensions": []}], "spec.model.inputShapes[0].dimensions"),
    (
        "model.inputShapes",
        [{"name": "x", "dimensions": [1]}, {"name": "x", "dimensions": [2]}],
        "Duplicate value",
    ),
    ("model.profile", {"flops": 0}, "spec.model.profile.flops"),
    ("load.batchSize", 0, "spec.load.batchSize"),
    ("load.concurrency", -1, "spec.load.concurrency"),
    ("load.requestsPerSecond", 0, "spec.load.requestsPerSecond"),
    ("serving.threads", 0, "spec.serving.threads"),
    ("replicas", -1, "spec.replicas"),
    ("replicas", 3, "spec.replicas has no effect without spec.template"),
    ("template", {"spec": {"containers": []}}, "spec.template.spec.containers"),
    ("template", {"spec": {}}, "spec.template.spec.containers: Required"),
    ("template", {"metadata": {}}, "spec.template.spec: Required"),
    ("template", {"spec": {**TEMPLATE["spec"], "nodeName": "node-1"}}, "leaves nothing to decide"),
    ("placement.binding", "Direct", 'supported values: "NodeAffinity", "NodeName"'),
    ("placement.policy", "Worst", 'supported values: "Best", "Feasible"'),
    ("placement.fallback", "Drop", 'supported values: "DefaultScheduler", "Hold"'),
    ("placement.timeoutSeconds", 0, "spec.placement.timeoutSeconds"),
    ("placement.relocation", {"minGainPercent": 0}, "spec.placement.relocation.minGainPercent"),
    ("latencyModelRef", {}, "spec.latencyModelRef.name: Required"),
    ("latencyModelRef", {"name": "No Such"}, "spec.latencyModelRef.name"),
    ("metrics", {"preset": "Caffe"}, 'supported values: "Triton"'),
    ("metrics", {"preset": "Custom"}, "queries belong to preset Custom"),
    (
        "metrics",
        {"preset": "Triton", "queries": {"buckets": "up"}},
        "queries belong to preset Custom",
    ),
    (
        "metrics",
        {"preset": "Custom", "queries": {"buckets": "a", "quantile": "b"}},
        "either queries.buckets",
    ),
    ("priority", 3, "unknown field"),
]


@pytest.mark.parametrize(("path", "value", "words"), REFUSED)
async def test_a_workload_that_makes_no_sense_is_refused(
    api: ApiClient, namespace: str, path: str, value: Any, words: str
) -> None:
    with pytest.raises(ApiException) as refusal:
        await create_workload(api, namespace, changed(path, value))
    assert refusal.value.status in (400, 422)
    assert words in message(refusal.value)


ACCEPTED: list[tuple[str, Any]] = [
    ("model.url", "file:///models/resnet50.onnx"),
    ("model.url", "oci://registry.example/models/resnet50@sha256:" + "0" * 64),
    ("model.url", "hf://onnx-community/resnet-50@main/model.onnx"),
    ("model.inputShapes", [{"name": "input_ids", "dimensions": [1, 128]}]),
    ("template", TEMPLATE),
    ("replicas", 1),
    ("metrics", {"preset": "Custom", "queries": {"buckets": "sum by (pod, le) (rate(x[$window]))"}}),
]


@pytest.mark.parametrize(("path", "value"), ACCEPTED)
async def test_a_workload_that_makes_sense_is_accepted(
    api: ApiClient, namespace: str, path: str, value: Any
) -> None:
    await create_workload(api, namespace, changed(path, value))


async def test_the_api_servers_defaults_are_those_of_the_models(api: ApiClient, namespace: str) -> None:
    stored = await create_workload(api, namespace, MINIMAL)
    given = {"metadata": stored["metadata"], "spec": MINIMAL}
    assert InferenceWorkload.model_validate(stored).spec == InferenceWorkload.model_validate(given).spec
    model = await create_latency_model(api, {})
    assert LatencyModel.model_validate(model).spec == LatencyModel(metadata=model["metadata"]).spec


async def test_a_pod_template_survives_with_every_field_it_came_with(api: ApiClient, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"team": "vision"}, "annotations": {"prometheus.io/scrape": "true"}},
        "spec": {
            "containers": [{"name": "server", "image": "serving", "env": [{"name": "A", "value": "1"}]}],
            "tolerations": [{"operator": "Exists"}],
            "runtimeClassName": "gvisor",
        },
    }
    stored = await create_workload(api, namespace, MINIMAL | {"template": template, "replicas": 4})
    assert stored["spec"]["template"] == template


@pytest.mark.parametrize("started_with_a_template", [True, False])
async def test_the_owner_of_the_pods_cannot_be_changed_afterwards(
    api: ApiClient, namespace: str, started_with_a_template: bool
) -> None:
    spec = MINIMAL | ({"template": TEMPLATE} if started_with_a_template else {})
    await create_workload(api, namespace, spec)
    patch = {"spec": {"template": None if started_with_a_template else TEMPLATE}}
    custom: Any = CustomObjectsApi(api)
    with pytest.raises(ApiException, match="can neither be added nor removed"):
        await custom.patch_namespaced_custom_object(
            GROUP, VERSION, namespace, WORKLOADS, "w", patch, _content_type="application/merge-patch+json"
        )


async def test_the_serving_container_must_be_in_the_template(api: ApiClient, namespace: str) -> None:
    spec = MINIMAL | {"template": TEMPLATE, "serving": {"container": "sidecar"}}
    with pytest.raises(ApiException, match="names no container"):
        await create_workload(api, namespace, spec)


async def test_the_scale_subresource_sets_replicas(api: ApiClient, namespace: str) -> None:
    await create_workload(api, namespace, MINIMAL | {"template": TEMPLATE})
    custom: Any = CustomObjectsApi(api)
    await custom.patch_namespaced_custom_object_scale(
        GROUP,
        VERSION,
        namespace,
        WORKLOADS,
        "w",
        {"spec": {"replicas": 7}},
        _content_type="application/merge-patch+json",
    )
    stored = await custom.get_namespaced_custom_object(GROUP, VERSION, namespace, WORKLOADS, "w")
    assert stored["spec"]["replicas"] == 7


REFUSED_LATENCY_MODELS: list[tuple[Spec, str]] = [
    ({"featureSet": "All"}, 'supported values: "Paper", "Extended"'),
    ({"algorithms": []}, "spec.algorithms"),
    ({"algorithms": [{"name": "Prior"}]}, "spec.algorithms[0].name"),
    ({"algorithms": [{"name": "MLP"}, {"name": "MLP"}]}, "Duplicate value"),
    ({"algorithms": [{"name": "MLP", "grid": [{"parameter": "a", "values": []}]}]}, "grid[0].values"),
    ({"smoothing": {"windowRows": 0}}, "spec.smoothing.windowRows"),
    ({"schedule": {"cron": "every night"}}, "spec.schedule.cron needs five fields"),
    ({"schedule": {}}, "spec.schedule.cron: Required"),
    ({"promotion": {"pinnedVersion": 3}}, "pinnedVersion belongs to mode Manual"),
    ({"artifactStore": {"type": "URL"}}, "url belongs to type URL"),
    ({"artifactStore": {"type": "URL", "url": "https://a/b"}}, "scheme that can be written to"),
    ({"dataset": {"presets": ["Custom"]}}, "Custom is no preset of a dataset"),
    ({"dataset": {"files": [{"url": "measurements.parquet"}]}}, "a dataset's url needs a scheme"),
    ({"profiling": {"scenarios": ["Server"]}}, "scenario Server needs rates"),
    ({"profiling": {"concurrency": [0]}}, "each of concurrency must be 1 to 65536"),
    ({"calibration": {"coveragePercent": 100}}, "spec.calibration.coveragePercent"),
    ({"historyLimit": 0}, "spec.historyLimit"),
    ({"drift": {"windowSamples": 1}}, "spec.drift.windowSamples"),
    ({"modelType": "MLP"}, "unknown field"),
]


@pytest.mark.parametrize(("spec", "words"), REFUSED_LATENCY_MODELS)
async def test_a_latency_model_that_makes_no_sense_is_refused(api: ApiClient, spec: Spec, words: str) -> None:
    with pytest.raises(ApiException) as refusal:
        await create_latency_model(api, spec)
    assert words in message(refusal.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"schedule": {"cron": "0 3 * * *"}},
        {"schedule": {"cron": "@daily"}},
        {"promotion": {"mode": "Manual", "pinnedVersion": 0}},
        {"artifactStore": {"type": "URL", "url": "s3://bucket/tailwise"}},
        {"profiling": {"scenarios": ["SingleStream", "Server"], "requestsPerSecond": [5, 10]}},
        {"drift": {}},
    ],
)
async def test_a_latency_model_that_makes_sense_is_accepted(api: ApiClient, spec: Spec) -> None:
    await create_latency_model(api, spec)
