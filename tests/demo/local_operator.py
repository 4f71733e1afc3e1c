"""Where nodes run no containers, the operator runs as a process of this machine, from the sources."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster.paths import logs_directory
from tests.demo.manifests import SYSTEM_NAMESPACE
from tests.demo.target import Target


@contextmanager
def local_operator(target: Target, report: Callable[[str], None]) -> Iterator[None]:
    """Run the operator beside the simulated cluster; nothing where the chart's own Deployment runs."""
    if target.runs_containers:
        yield
        return
    log = logs_directory("demo") / "operator.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    report(f"the operator runs as a process here; its log is {log}")
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tailwise",
                "operator",
                f"--namespace={SYSTEM_NAMESPACE}",
                f"--prometheus-url={target.prometheus_url}",
                f"--utilisation-preset={target.utilisation_preset}",
                "--no-leader-elect",
                "--allow-model-files",
                "--health-port=0",
                "--metrics-port=0",
            ],
            env=target.kubectl.environment,
            stdout=output,
            stderr=output,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)
