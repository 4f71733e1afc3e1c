"""What the operator can be told, as one value that the command line makes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from tailwise.telemetry.queries import UtilisationQueries, cadvisor

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class OperatorOptions:
    """All of it; the defaults run one operator out of a cluster, with no Prometheus.

    ``namespace`` holds agents' hardware and the Lease. ``metrics_port`` 0: no metrics are served.
    ``model_networks`` are addresses that models may be read from though they are not public; plain http is
    read only where there are any. ``inspection_image`` is this program's image, for the Jobs that read models
    under a workload's own identity; None: there are none. ``training_image`` likewise, for the Jobs
    that train, under ``training_service_account`` of ``namespace``. ``identity`` is who holds the Lease.
    ``decisions_to`` is where decisions are kept as JSON Lines, a file or the prefix of a bucket's objects.
    """

    namespace: str
    identity: str
    kubeconfig: str | None = None
    prometheus_url: str | None = None
    prometheus_token_file: Path | None = None
    utilisation: UtilisationQueries = field(default_factory=cadvisor)
    poll_seconds: float = 15.0
    observe_seconds: float = 30.0
    model_networks: tuple[Network, ...] = ()
    model_refused_networks: tuple[Network, ...] = ()
    model_files: bool = False
    model_retry_seconds: float = 5.0
    inspection_image: str | None = None
    inspection_deadline_seconds: int = 300
    training_image: str | None = None
    training_service_account: str = "tailwise-training"
    training_pull_secrets: tuple[str, ...] = ()
    decisions_to: str | None = None
    resync_seconds: float = 300.0
    leader_elect: bool = True
    metrics_port: int = 9090
    placement_workers: int = 16
    workload_workers: int = 4
