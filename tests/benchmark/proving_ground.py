"""The project's own cluster with a scenario's nodes: real kubelets, the chart, Trimaran where compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from tailwise.benchmark.scenario import NodeShape, Scenario
from tailwise.cli.bench import OWN_CLUSTER_LABEL
from tests.benchmark import image
from tests.cluster import images, lifecycle, trimaran
from tests.cluster.paths import logs_directory
from tests.cluster.real import RealCluster
from tests.cluster.sizes import Size
from tests.demo import chart, clusters
from tests.demo.manifests import SYSTEM_NAMESPACE

CLUSTER = "paper"


def up(scenario: Scenario, report: Callable[[str], None], name: str = CLUSTER) -> RealCluster:
    """A cluster of these nodes with the chart installed and every node measured."""
    archives = (
        images.build(
            clusters.ROOT / "operator" / "Dockerfile",
            clusters.OPERATOR_IMAGE,
            context=clusters.ROOT,
            progress=report,
        ),
        image.build(report),
    )
    file = logs_directory(name) / "nodes.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"nodes": nodes(scenario)}, sort_keys=False))
    cluster: RealCluster = lifecycle.up(Size.REAL, name, nodes=str(file), images=archives, progress=report)
    cluster.load_images(archives, report)
    install(cluster, report)
    if any(policy.scheduler_name in trimaran.PROFILES for policy in scenario.policies):
        trimaran.up(cluster, report)
    return cluster


def install(cluster: RealCluster, report: Callable[[str], None]) -> None:
    """The chart, and the mark that this cluster may be loaded without asking."""
    target = clusters.target_of(cluster, report)
    target.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}])
    target.kubectl.run("label", "namespace", "default", f"{OWN_CLUSTER_LABEL}=true", "--overwrite")
    chart.install(target, target.pod_networks, report)
    chart.wait_until_it_serves(target, report)


def down(report: Callable[[str], None], name: str = CLUSTER) -> None:
    """End it."""
    lifecycle.down(Size.REAL, name, report)


def nodes(scenario: Scenario) -> list[dict[str, Any]]:
    """The harness's file of nodes: those that serve, one for the clients, one for the operator."""
    reserved = [
        {
            "name": role,
            "memory_mebibytes": 4096,
            "labels": {"tailwise.dev/role": role},
            "taints": [f"tailwise.dev/role={role}:NoSchedule"],
        }
        for role in ("client", "infra")
    ]
    return [*(_node(shape) for shape in scenario.nodes), *reserved]


def _node(shape: NodeShape) -> dict[str, Any]:
    labels = {"tailwise.dev/role": "serving"}
    if shape.paper_cores is not None:
        labels["tailwise.dev/paper-cores"] = str(shape.paper_cores)
    return {
        "name": shape.name,
        "cores": shape.cores,
        "slowdown": shape.slowdown,
        "memory_mebibytes": shape.memory_mebibytes,
        "labels": labels,
    }
