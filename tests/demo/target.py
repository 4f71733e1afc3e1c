"""Which cluster the demonstration runs on, and what of it is used: the only place where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tailwise.benchmark.kubectl import Kubectl


class TargetKind(StrEnum):
    """What stands behind the nodes."""

    REAL = "real"
    SIMULATED = "simulated"
    EXISTING = "existing"


@dataclass(frozen=True, slots=True)
class Scheduling:
    """Where the demonstration's own pods run: a node selector and tolerations."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, str]] = ()

    def spec(self) -> dict[str, Any]:
        """The part of a pod spec that says so."""
        return {
            "nodeSelector": dict(self.node_selector),
            "tolerations": [dict(toleration) for toleration in self.tolerations],
        }


def role(name: str) -> Scheduling:
    """The harness's node of this role, kept free of workloads by a taint."""
    return Scheduling(
        {"tailwise.dev/role": name},
        ({"key": "tailwise.dev/role", "operator": "Equal", "value": name, "effect": "NoSchedule"},),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster and how to use it."""

    kind: TargetKind
    kubectl: Kubectl
    helm: str
    prometheus_url: str
    utilisation_preset: str
    operator_image: str
    serving_image: str
    image_pull_policy: str
    pod_networks: Sequence[str]
    infrastructure: Scheduling = Scheduling()
    clients: Scheduling = Scheduling()
    # The examples' objectives and requests are for whole cores. Limits stay: they are above what nodes have.
    slo_factor: int = 1
    cpu_request_factor: float = 1.0
    serving_nodes: Mapping[str, str] = field(default_factory=dict)

    def millicores(self, request: int) -> str:
        """A CPU request as it is on nodes of this size, at least the least there is."""
        return f"{max(1, round(request * self.cpu_request_factor))}m"

    @property
    def runs_containers(self) -> bool:
        """Simulated nodes say that containers run; none does."""
        return self.kind is not TargetKind.SIMULATED
