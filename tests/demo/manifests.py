"""The demonstration's objects: the examples adapted, the same pods without Tailwise, a neighbour."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.demo.target import Target

NAMESPACE = "tailwise-demo"
SYSTEM_NAMESPACE = "tailwise-system"
EXAMPLES = Path(__file__).parents[2] / "examples"
WORKLOAD_FILES = ("resnet50.yaml", "mobilenet-v2.yaml")
MODEL_STORE_SELECTOR = "app.kubernetes.io/name=model-store"
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
    workload["spec"]["slo"]["latencyMilliseconds"] *= target.slo_factor
    workload["spec"]["model"]["url"] = f"{model_base_url}/{file_name}"
    for container in workload["spec"]["template"]["spec"]["containers"]:
        container["image"] = target.serving_image
        container["imagePullPolicy"] = target.image_pull_policy
        requests = container["resources"]["requests"]
        requests["cpu"] = target.millicores(int(requests["cpu"].removesuffix("m")))
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
                            "command": ["python", "-c", "while True: pass"],
                            "resources": {"requests": {"cpu": target.millicores(50), "memory": "16Mi"}},
                        }
                    ],
                },
            },
        },
    }


def model_store(target: Target) -> Manifest:
    """examples/model-store.yaml's Deployment, beside the other infrastructure of the demonstration."""
    documents = yaml.safe_load_all((EXAMPLES / "model-store.yaml").read_text())
    store: Manifest = next(document for document in documents if document["kind"] == "Deployment")
    store["metadata"]["namespace"] = NAMESPACE
    pod = store["spec"]["template"]["spec"]
    pod.update(target.infrastructure.spec())
    for container in pod["containers"]:
        container["image"] = target.serving_image
        container["imagePullPolicy"] = target.image_pull_policy
    return store


def local_model_store(directory: Path) -> str:
    """The models as files of this machine, for an operator that runs here; returns their directory's URL."""
    skeletons = sorted((EXAMPLES / "models").glob("*.onnx.skel.gz"))
    program = EXAMPLES / "serving" / "make_model.py"
    subprocess.run([sys.executable, str(program), *map(str, skeletons), str(directory)], check=True)
    return directory.as_uri()
