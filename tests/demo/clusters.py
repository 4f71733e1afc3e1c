"""Brings the demonstration's cluster up: real nodes as root, else simulated ones, or the user's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tailwise.benchmark.kubectl import Kubectl
from tests.cluster import binaries, images, lifecycle
from tests.cluster.real import RealCluster
from tests.cluster.sizes import Size
from tests.demo.target import Scheduling, Target, TargetKind, role

ROOT = Path(__file__).parents[2]
OPERATOR_IMAGE = "localhost/tailwise/operator:dev"
SERVING_IMAGE = "localhost/tailwise/serving:dev"
CLUSTERS = {TargetKind.REAL: "demo", TargetKind.SIMULATED: "demo-simulated"}

LEFT_OUT = (
    "Without root there are no real nodes: kwok says that pods run, but no container does. Left out: the "
    "agent's probe (hardware is written by the harness), model servers, LoadGen and so every measured P90."
)


class DemoError(RuntimeError):
    """The demonstration cannot run as asked; the message names the way out."""


def choose(kubeconfig: str | None, wanted: str | None) -> TargetKind:
    """Which kind of cluster: the one asked for, else the best that this machine allows."""
    if wanted is not None:
        return TargetKind(wanted)
    if kubeconfig:
        return TargetKind.EXISTING
    return TargetKind.REAL if os.geteuid() == 0 else TargetKind.SIMULATED


def real(report: Callable[[str], None]) -> Target:
    """The harness's unequal nodes, brought up for the demonstration."""
    archives = build_images(report)
    cluster = lifecycle.up(Size.REAL, CLUSTERS[TargetKind.REAL], images=archives, progress=report)
    return target_of(cluster, report)


def on_real_nodes(cluster: RealCluster, report: Callable[[str], None]) -> Target:
    """A cluster of real nodes that is up, given both images unless it has them."""
    cluster.load_images(build_images(report), report)
    return target_of(cluster, report)


def build_images(report: Callable[[str], None]) -> tuple[Path, Path]:
    """The docker-archives of operator and model server, for `lifecycle.up` or `load_images`."""
    return (
        images.build(ROOT / "operator" / "Dockerfile", OPERATOR_IMAGE, context=ROOT, progress=report),
        images.build(
            ROOT / "examples" / "serving" / "Dockerfile",
            SERVING_IMAGE,
            context=ROOT / "examples",
            progress=report,
        ),
    )


def target_of(cluster: RealCluster, report: Callable[[str], None]) -> Target:
    """How a cluster of real nodes is used."""
    return Target(
        kind=TargetKind.REAL,
        kubectl=Kubectl(cluster.kubectl, cluster.kubeconfig),
        helm=str(binaries.ensure("helm", ("helm",), progress=report) / "helm"),
        prometheus_url=cluster.prometheus_url,
        utilisation_preset="CAdvisor",
        operator_image=OPERATOR_IMAGE,
        serving_image=SERVING_IMAGE,
        image_pull_policy="Never",
        pod_networks=(str(cluster.network.pods),),
        infrastructure=role("infra"),
        clients=role("client"),
        # Ten pods share one and a half cores: about a seventh of a core each.
        slo_factor=5,
        # `small` has 0.15 cores for four of the paper: pods must be as small to the scheduler as they were.
        cpu_request_factor=0.15 / 4,
        serving_nodes={
            node.name: node.shape.labels.get("tailwise.dev/paper-cores", "")
            for node in cluster.nodes
            if node.shape.labels.get("tailwise.dev/role") == "serving"
        },
    )


def simulated(report: Callable[[str], None]) -> Target:
    """Nodes made by kwok in the paper's proportion; no container runs."""
    report(LEFT_OUT)
    cluster = lifecycle.up(Size.SIMULATED, CLUSTERS[TargetKind.SIMULATED], nodes="4", progress=report)
    kubernetes = binaries.ensure("kubernetes", ("kubectl",), progress=report)
    return Target(
        kind=TargetKind.SIMULATED,
        kubectl=Kubectl(kubernetes / "kubectl", cluster.kubeconfig),
        helm=str(binaries.ensure("helm", ("helm",), progress=report) / "helm"),
        prometheus_url=cluster.prometheus_url,
        utilisation_preset="NodeExporter",
        operator_image=OPERATOR_IMAGE,
        serving_image=SERVING_IMAGE,
        image_pull_policy="Never",
        pod_networks=(),
    )


def existing(
    kubeconfig: Path, operator_image: str | None, serving_image: str | None, prometheus_url: str | None
) -> Target:
    """The user's cluster; images must be where its nodes can pull them."""
    missing = [
        flag
        for flag, value in (
            ("--operator-image", operator_image),
            ("--serving-image", serving_image),
            ("--prometheus-url", prometheus_url),
        )
        if not value
    ]
    if missing:
        raise DemoError(
            f"a cluster of your own needs {', '.join(missing)}: build operator/Dockerfile and "
            "examples/serving/Dockerfile, push both where the nodes can pull them, and pass "
            'DEMO_ARGS="--operator-image … --serving-image … --prometheus-url …"'
        )
    programs = {name: shutil.which(name) for name in ("kubectl", "helm")}
    absent = [name for name, path in programs.items() if path is None]
    if absent:
        raise DemoError(f"{' and '.join(absent)} must be on the PATH for a cluster of your own")
    return Target(
        kind=TargetKind.EXISTING,
        kubectl=Kubectl(Path(str(programs["kubectl"])), kubeconfig),
        helm=str(programs["helm"]),
        prometheus_url=str(prometheus_url),
        utilisation_preset="CAdvisor",
        operator_image=str(operator_image),
        serving_image=str(serving_image),
        image_pull_policy="IfNotPresent",
        pod_networks=(),
        infrastructure=Scheduling(),
        clients=Scheduling(),
    )


def down(report: Callable[[str], None], kind: TargetKind) -> None:
    """End the cluster that the demonstration made; a user's own is left as it is."""
    if kind is TargetKind.REAL:
        lifecycle.down(Size.REAL, CLUSTERS[TargetKind.REAL], report)
    elif kind is TargetKind.SIMULATED:
        lifecycle.down(Size.SIMULATED, CLUSTERS[TargetKind.SIMULATED], report)
