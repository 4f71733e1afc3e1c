"""The Deployment of a template: what the operator adds to it, and what it leaves as its author wrote it."""

from typing import Any

import pytest

from tailwise.api.inference_workload import InferenceWorkload
from tailwise.controllers.deployment import deployment_manifest

SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"}


def annotations(preset: str | None, port: int | None, **own: str) -> dict[str, str]:
    """Annotations of the pods of a template that brings ``own``."""
    container = {"name": "server", "image": "registry.example/server:1"}
    spec: dict[str, Any] = {
        "model": {"url": "https://models.example/m.onnx"},
        "slo": {"latencyMilliseconds": 50},
        "template": {"metadata": {"annotations": own}, "spec": {"containers": [container]}},
    }
    if port is not None:
        spec["serving"] = {"port": port}
    if preset is not None:
        spec["metrics"] = {"preset": preset}
    workload = InferenceWorkload.model_validate({"metadata": {"name": "w", "namespace": "n"}, "spec": spec})
    template = deployment_manifest(workload)["spec"]["template"]
    return dict(template["metadata"].get("annotations", {}))


@pytest.mark.parametrize("preset", ["KServe", "VLLM", "OpenInference"])
def test_pods_are_annotated_for_prometheus_at_the_port_they_serve_at(preset: str) -> None:
    assert annotations(preset, 8080) == SCRAPED
    assert annotations(preset, 8080, team="a") == SCRAPED | {"team": "a"}


@pytest.mark.parametrize(("preset", "port"), [("KServe", None), (None, 8080), ("Triton", 8000)])
def test_nothing_is_annotated_where_the_port_or_its_metrics_are_not_known(
    preset: str | None, port: int | None
) -> None:
    assert annotations(preset, port) == {}


def test_a_template_that_says_how_it_is_scraped_is_left_alone() -> None:
    own = {"prometheus.io/scrape": "false"}
    assert annotations("KServe", 8080, **own) == own
    assert annotations("KServe", 8080, **{"prometheus.io/path": "/m"})["prometheus.io/path"] == "/m"
