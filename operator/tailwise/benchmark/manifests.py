"""The benchmark's objects, as pure functions: pods behind ReplicaSets, workloads, clients, neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tailwise.api.labels import API_VERSION, PLACEMENT_GATE, WORKLOAD_LABEL
from tailwise.benchmark.scenario import Load, Neighbour, Pattern, Policy, PolicyKind, Scenario, Workload

NAMESPACE = "tailwise-bench"
PORT = 8080
STORE_PORT = 8000
ROLE_LABEL = "tailwise.dev/role"
# On everything that the benchmark makes: what kind of thing it is; on its pods which of the scenario's.
KIND_LABEL = "tailwise.dev/benchmark"
SLOT_LABEL = "tailwise.dev/benchmark-pod"
TARGETS_FILE = "/tmp/targets.json"  # noqa: S108 - of the clients' container, which has no other writer
DRIVER = Path(__file__).parent / "client" / "driver.py"

Manifest = dict[str, Any]


def namespace() -> Manifest:
    """The namespace that holds all of them; it goes at the end."""
    metadata = {"name": NAMESPACE, "labels": {KIND_LABEL: "namespace"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def role(name: str) -> Manifest:
    """Part of a pod spec: on nodes of this role, whose taint is tolerated."""
    return {
        "nodeSelector": {ROLE_LABEL: name},
        "tolerations": [{"key": ROLE_LABEL, "operator": "Equal", "value": name, "effect": "NoSchedule"}],
    }


def served_pod(
    scenario: Scenario, workload: Workload, slot: str, policy: Policy, node: str | None
) -> Manifest:
    """A ReplicaSet of one pod: pods then arrive one by one, and have a controller as pods of users have.

    ``node``: where the policy has decided it itself; kube-scheduler binds it there.
    """
    labels = {KIND_LABEL: "pod", SLOT_LABEL: slot}
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {ROLE_LABEL: "serving"},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_server(scenario, workload)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    if policy.kind is PolicyKind.TAILWISE:
        labels[WORKLOAD_LABEL] = workload.name
        pod["schedulingGates"] = [{"name": PLACEMENT_GATE}]
    if policy.scheduler_name is not None:
        pod["schedulerName"] = policy.scheduler_name
    if node is not None:
        pod["nodeSelector"]["kubernetes.io/hostname"] = node
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": slot, "namespace": NAMESPACE, "labels": {KIND_LABEL: "pod"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {SLOT_LABEL: slot}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": pod,
            },
        },
    }


def _observed(scenario: Scenario) -> Manifest:
    """Moving pods wants their latency observed; otherwise nothing is asked of Prometheus beside the nodes."""
    return {"metrics": {"preset": "OpenInference", "windowSeconds": 30}} if scenario.change else {}


def _server(scenario: Scenario, workload: Workload) -> Manifest:
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}}
    return {
        "name": "server",
        "image": scenario.image,
        "imagePullPolicy": scenario.image_pull_policy,
        "env": [
            {"name": "MODEL_PATH", "value": f"/models/{workload.model}"},
            {"name": "MODEL_NAME", "value": workload.name},
            {
                "name": "CPU_LIMIT_MILLICORES",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}},
            },
        ],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**ready, "periodSeconds": 3, "timeoutSeconds": 10, "failureThreshold": 300},
        # Under load a probe may wait behind a query: it must not take the pod out of a measurement.
        "readinessProbe": {**ready, "periodSeconds": 30, "timeoutSeconds": 30, "failureThreshold": 10},
        "resources": {
            "requests": {"cpu": workload.cpu_request, "memory": workload.memory_request},
            "limits": {"cpu": workload.cpu_limit, "memory": workload.memory_limit},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    }


def inference_workload(scenario: Scenario, workload: Workload, policy: Policy | None, store: str) -> Manifest:
    """The workload by its label alone: the benchmark makes the pods itself. ``store``: base URL of models."""
    rules = None if policy is None else policy.placement
    placement = {} if rules is None else rules.model_dump(mode="json", exclude_unset=True)
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceWorkload",
        "metadata": {"name": workload.name, "namespace": NAMESPACE, "labels": {KIND_LABEL: "workload"}},
        "spec": {
            "model": {"url": f"{store}/{workload.model}"},
            "slo": {"latencyMilliseconds": workload.slo_milliseconds},
            "load": {"concurrency": 1},
            "serving": {"overheadMicroseconds": workload.overhead_microseconds},
            **_observed(scenario),
            # A pod that was let go without a decision would be measured as Tailwise's.
            "placement": {"fallback": "Hold", **placement},
        },
    }


def model_store(scenario: Scenario) -> Manifest:
    """Serves the image's models over HTTP with ranges, for the operator to read their graphs."""
    labels = {KIND_LABEL: "store"}
    program = (
        "import uvicorn\nfrom starlette.applications import Starlette\n"
        "from starlette.staticfiles import StaticFiles\napp = Starlette()\n"
        "app.mount('/', StaticFiles(directory='/models'))\n"
        f"uvicorn.run(app, host='0.0.0.0', port={STORE_PORT}, log_level='warning')\n"
    )
    container = {
        "name": "store",
        "image": scenario.image,
        "imagePullPolicy": scenario.image_pull_policy,
        "command": ["python", "-c", program],
        "readinessProbe": {"tcpSocket": {"port": STORE_PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "1m", "memory": "64Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "model-store", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            **role("infra"),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }


_BUSY = """
import sys, threading, time
pattern, period, place, places = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
def busy():
    phase = int(time.time() / period)
    return {"Steady": True, "OnOff": phase % 2 == 0, "Moving": phase % places == place}[pattern]
while True:
    until = time.time() + 0.5
    if busy():
        while time.time() < until:
            sum(range(1000))
    else:
        time.sleep(0.5)
"""


def neighbours(scenario: Scenario, neighbour: Neighbour) -> list[Manifest]:
    """The pods of one neighbour, one a node; phases follow the clock, so that all policies meet the same."""
    found = []
    moves = neighbour.pattern is Pattern.MOVING
    for place, node in enumerate(neighbour.nodes):
        program = [
            *("python", "-c", _BUSY, neighbour.pattern.value, str(neighbour.period_seconds)),
            *(str(place if moves else 0), str(len(neighbour.nodes) if moves else 1)),
        ]
        containers = [
            {
                "name": f"busy-{thread}",
                "image": scenario.image,
                "imagePullPolicy": scenario.image_pull_policy,
                "command": program,
                "resources": {"requests": {"cpu": neighbour.cpu_request, "memory": "16Mi"}},
            }
            for thread in range(neighbour.threads)
        ]
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"neighbour-{neighbour.name}-{place}",
                    "namespace": NAMESPACE,
                    "labels": {KIND_LABEL: "neighbour"},
                },
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 0,
                    "containers": containers,
                },
            }
        )
    return found


def clients(scenario: Scenario, load: Load, targets: Sequence[Mapping[str, str]]) -> list[Manifest]:
    """The Job that asks all pods, on nodes that serve nothing. ``targets``: pod, url and model of each."""
    plan = {
        "kind": load.kind.value,
        "queries": load.queries,
        "warmUpQueries": load.warm_up_queries,
        "samplesPerQuery": load.samples_per_query,
        "queriesPerSecond": load.queries_per_second,
        "seconds": scenario.change.after_seconds + scenario.change.follow_seconds if scenario.change else 0,
        "targetsFile": TARGETS_FILE,
        "targets": list(targets),
    }
    metadata = {"name": "clients", "namespace": NAMESPACE, "labels": {KIND_LABEL: "clients"}}
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"driver.py": DRIVER.read_text(encoding="utf-8"), "plan.json": json.dumps(plan)},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": {"labels": {KIND_LABEL: "clients"}},
                    "spec": {
                        **role("client"),
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "terminationGracePeriodSeconds": 5,
                        "containers": [
                            {
                                "name": "clients",
                                "image": scenario.image,
                                "imagePullPolicy": scenario.image_pull_policy,
                                "command": ["python", "/bench/driver.py", "/bench/plan.json"],
                                "resources": {"requests": {"cpu": "10m", "memory": "256Mi"}},
                                "volumeMounts": [{"name": "bench", "mountPath": "/bench"}],
                            }
                        ],
                        "volumes": [{"name": "bench", "configMap": {"name": "clients"}}],
                    },
                },
            },
        },
    ]
