"""A real Prometheus with a given configuration, on loopback or behind a command prefix."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.cluster import binaries, ports, probes, processes
from tests.cluster.locks import Progress, say

DAEMON = "prometheus"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PrometheusSpec:
    """What to run. `configuration` is the text of prometheus.yml; port 0 picks a free one and keeps it.

    command_prefix: words before the command line, which must exec and not fork.
    """

    configuration: str
    address: str = _LOOPBACK
    port: int = 0
    retention: str = "6h"
    command_prefix: tuple[str, ...] = ()


def up(directory: Path, logs: Path, spec: PrometheusSpec, progress: Progress = say) -> str:
    """Start Prometheus in a cluster's directory, or make the one that runs take a changed configuration.

    Returns its URL once it is ready. It ends with the cluster, or by `processes.stop(directory, DAEMON)`.
    """
    program = binaries.program("prometheus", progress=progress)
    home = directory / "prometheus"
    home.mkdir(parents=True, exist_ok=True)
    file = home / "prometheus.yml"
    changed = file.exists() and file.read_text() != spec.configuration
    file.write_text(spec.configuration)
    elsewhere = bool(spec.command_prefix)
    address = _LOOPBACK if elsewhere else spec.address
    port = (
        spec.port or ports.keep(directory, {"prometheus": DAEMON}, address, elsewhere=elsewhere)["prometheus"]
    )
    before = processes.running(directory, DAEMON)
    command = [
        *spec.command_prefix,
        str(program),
        f"--config.file={file}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--storage.tsdb.retention.time={spec.retention}",
        f"--web.listen-address={spec.address}:{port}",
        "--log.level=warn",
    ]
    daemon = processes.start(directory, DAEMON, command, logs=logs, progress=progress)
    if changed and before == daemon:
        os.kill(daemon.pid, signal.SIGHUP)
    url = f"http://{spec.address}:{port}"
    probe = probes.answers(f"{url}/-/ready", prefix=spec.command_prefix)
    processes.wait_until_ready("Prometheus", probe, daemons=(daemon,), progress=progress)
    return url


def query(url: str, promql: str) -> list[dict[str, Any]]:
    """Return the vector that an instant query answers: [{metric: {...}, value: [time, "number"]}]."""
    answer = urllib3.request("GET", f"{url}/api/v1/query", fields={"query": promql}, timeout=10.0)
    content = answer.json()
    if content.get("status") != "success":
        raise RuntimeError(f"Prometheus at {url} refused {promql!r}: {content.get('error')}")
    vector: list[dict[str, Any]] = content["data"]["result"]
    return vector
