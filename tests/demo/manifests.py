"""The demonstration's objects: the examples adapted, the same pods without Tailwise, a neighbour."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.demo.target import Target

NAMESPACE = "tailwise-demo"
SYSTEM_NAMESPACE = "tailwise-system"
EXAMPLES = Path(__file__).parents[2] / "examples"
WORKLOAD_FILES = ("resnet50.yaml", "mobilenet-v2.yaml")
MODEL_STORE = "model-store"
MODEL_STORE_PORT = 8000

Manifest = dict[str, Any]


def examples() -> tuple[Manifest, ...]:
    """The InferenceWorkloads of examples/, as a user would apply them."""
    documents = [
        document for file in WORKLOAD_FILES for document in yaml.safe_load_all((EXAMPLES / file).read_text())
    ]
    return tuple(document for document in documents if document["kind"] == "InferenceWorkload")


def adapted(example: Mapping[str, Any], target: Target, model_base_url: str) -> Manifest:
    """An example with this cluster's image, its policy of pulling, and the URL of its model."""
    workload = copy.deepcopy(dict(example))
    workload["metadata"]["namespace"] = NAMESPACE
    file_name = workload["spec"]["model"]["url"].rpartition("/")[2]
    workload["spec"]["model"]["url"] = f"{model_base_url}/{file_name}"
    for container in workload["spec"]["template"]["spec"]["containers"]:
        container["image"] = target.serving_image
        container["imagePullPolicy"] = target.image_pull_policy
    return workload


def by_default_scheduler(workload: Mapping[str, Any]) -> Manifest:
    """A Deployment of the workload's own template and replicas that Tailwise knows nothing of."""
    name = f"default-{workload['metadata']['name']}"
    labels = {"app.kubernetes.io/name": name, "tailwise-demo/policy": "default"}
    template = copy.deepcopy(workload["spec"]["template"])
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": workload["spec"]["replicas"],
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def neighbour(target: Target, node: str) -> Manifest:
    """A busy neighbour on one node: it asks the scheduler for little and computes without rest."""
    labels = {"app.kubernetes.io/name": "neighbour"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "neighbour", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "busy",
                            "image": target.serving_image,
                            "imagePullPolicy": target.image_pull_policy,
                            "command": ["python3", "-c", "while True: pass"],
                            "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}},
                        }
                    ],
                },
            },
        },
    }


def model_store(target: Target) -> Manifest:
    """Serves the demonstration's model files over HTTP with ranges, as an object store would."""
    labels = {"app.kubernetes.io/name": MODEL_STORE}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": MODEL_STORE, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            **target.infrastructure.spec(),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "store",
                    "image": target.operator_image,
                    "imagePullPolicy": target.image_pull_policy,
                    "command": ["python3", "-c", STORE_PROGRAM],
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                }
            ],
        },
    }


# aiohttp's static files answer range requests; the standard library's server does not.
STORE_PROGRAM = f"""
from aiohttp import web
app = web.Application()
app.router.add_static("/", "/models")
web.run_app(app, port={MODEL_STORE_PORT})
"""
