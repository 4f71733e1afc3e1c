"""Nodes and pods with defaults, so that a test shows only what its case is about."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tailwise.api.labels import PLACEMENT_GATE
from tailwise.domain.objects import Node, Pod
from tailwise.domain.parse import node_from_object, pod_from_object
from tailwise.domain.scoring import PredictedLatencies
from tailwise.domain.snapshot import ClusterSnapshot
from tailwise.domain.state import ClusterState


def node(
    name: str = "node-1",
    *,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
    unschedulable: bool = False,
    cpu: str = "4",
    pods: str = "110",
    extended: Mapping[str, str] | None = None,
) -> Node:
    resources = {"cpu": cpu, "memory": "8Gi", "pods": pods} | dict(extended or {})
    return node_from_object(
        {
            "metadata": {"name": name, "labels": dict(labels or {"kubernetes.io/hostname": name})},
            "spec": {"taints": list(taints), "unschedulable": unschedulable},
            "status": {"allocatable": resources},
        }
    )


def pod_object(
    name: str = "pod-1",
    *,
    cpu: str | None = "500m",
    limits: Mapping[str, str] | None = None,
    requests: Mapping[str, str] | None = None,
    workload: str = "resnet",
    gates: Sequence[str] = (PLACEMENT_GATE,),
    host_ports: Sequence[Mapping[str, Any]] = (),
    required: Sequence[Mapping[str, Any]] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    wanted = ({"cpu": cpu} if cpu else {}) | dict(requests or {})
    container = {
        "name": "server",
        "resources": {"requests": wanted, "limits": dict(limits or {})},
        "ports": list(host_ports),
    }
    if required is not None:
        terms = {"nodeSelectorTerms": list(required)}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"tailwise.dev/workload": workload},
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    gates_list = [{"name": gate} for gate in gates]
    return {"metadata": metadata, "spec": {"containers": [container], "schedulingGates": gates_list, **spec}}


def pod(name: str = "pod-1", **arguments: Any) -> Pod:
    return pod_from_object(pod_object(name, **arguments))


def bound(name: str, node_name: str, **arguments: Any) -> Pod:
    return pod(name, gates=(), nodeName=node_name, **arguments)


def cluster(*nodes: Node, pods: Sequence[Pod] = ()) -> ClusterSnapshot:
    state = ClusterState()
    for each in nodes:
        state.put_node(each)
    for resident in pods:
        state.put_pod(resident)
    return state.snapshot()


def predicted(*p90: float, bound: Sequence[float] | None = None) -> PredictedLatencies:
    """Predictions with a bound of 1.2 times the P90, from the prior, of fresh data."""
    values = np.array(p90, dtype=np.float64)
    return PredictedLatencies(
        p50_milliseconds=values * 0.8,
        p90_milliseconds=values,
        bound_milliseconds=values * 1.2 if bound is None else np.array(bound, dtype=np.float64),
        age_seconds=np.full(len(values), 5.0),
        source_codes=np.ones(len(values), dtype=np.int8),
        has_hardware=np.ones(len(values), dtype=np.bool_),
    )
