"""Trimaran's scheduler (scheduler-plugins) beside kube-scheduler: one process a plugin, for two in one would
both register the same path of their library's web server.

It reads Prometheus by the recording rules of real_nodes/recording-rules.yaml. It is of an older Kubernetes
than the control plane; it only lists, watches and binds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tests.cluster import binaries, controlplane, hosts, probes, processes
from tests.cluster.real import RealCluster

PROGRAM = "trimaran-scheduler"
PROFILES: Mapping[str, str] = {
    "trimaran-load-variation-risk-balancing": "LoadVariationRiskBalancing",
    "trimaran-target-load-packing": "TargetLoadPacking",
}
_FIRST_PORT = 10300


def up(cluster: RealCluster, report: Callable[[str], None]) -> None:
    """Start both, or leave those that run. Each knows its profile by the name of PROFILES."""
    program = binaries.program(PROGRAM, progress=report)
    plane = cluster.control_plane
    prefix = hosts.inside(hosts.control_plane_namespace(cluster.name))
    for place, (name, plugin) in enumerate(PROFILES.items()):
        file = plane.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(_configuration(plane, name, plugin, cluster.prometheus_url)))
        port = _FIRST_PORT + place
        command = [*prefix, str(program), f"--config={file}", f"--secure-port={port}"]
        daemon = processes.start(
            plane.directory, name, [*command, "--bind-address=127.0.0.1"], logs=plane.logs, progress=report
        )
        probe = probes.answers(f"https://127.0.0.1:{port}/healthz", pair=plane.admin, prefix=prefix)
        processes.wait_until_ready(name, probe, daemons=(daemon,), progress=report)


def _configuration(
    plane: controlplane.ControlPlane, name: str, plugin: str, prometheus_url: str
) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(plane.directory / "kube-scheduler.kubeconfig"),
            "qps": 5000,
            "burst": 5000,
        },
        "profiles": [_profile(name, plugin, prometheus_url)],
    }


def _profile(name: str, plugin: str, prometheus_url: str) -> dict[str, Any]:
    """As the plugins' own documentation has them: their score in place of the two by requests."""
    provider = {"metricProvider": {"type": "Prometheus", "address": prometheus_url}}
    return {
        "schedulerName": name,
        "plugins": {
            "score": {
                "disabled": [{"name": "NodeResourcesBalancedAllocation"}, {"name": "NodeResourcesFit"}],
                "enabled": [{"name": plugin}],
            }
        },
        "pluginConfig": [{"name": plugin, "args": provider}],
    }
