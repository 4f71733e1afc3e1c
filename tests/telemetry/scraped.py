"""What tests have scraped: the names of servers' metrics, and distributions with known answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import processes
from tests.cluster import prometheus as prometheus_daemon
from tests.cluster.locks import Progress
from tests.cluster.prometheus import PrometheusSpec

PATIENCE_SECONDS = 60.0
"""Time that a query has: a machine at its limit takes long for what is done in milliseconds."""

_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 180.0

# 0 to 100 ms evenly, and 400 to 500 ms evenly, in the same buckets of 10 ms.
_BOUNDS = [step / 100 for step in range(1, 61)]
INF = float("inf")
FAST = [*((bound, min(1.0, bound / 0.1)) for bound in _BOUNDS), (INF, 1.0)]
SLOW = [*((bound, max(0.0, min(1.0, (bound - 0.4) / 0.1))) for bound in _BOUNDS), (INF, 1.0)]
# A quarter of the requests lie above the last finite bucket.
BEYOND = [(0.01, 0.5), (0.02, 0.75), (INF, 1.0)]
IDLE_PER_SECOND = 0.0


def pod(name: str, namespace: str = "shop", **labels: str) -> dict[str, str]:
    """Labels of a pod's series."""
    return {"namespace": namespace, "pod": name, **labels}


OURS = "inference_request_duration_seconds"
MLSERVER = "rest_server_request_duration_seconds"
TORCHSERVE = "HandlerTime"
TORCHSERVE_REQUESTS = "ts_inference_requests_total"
TRITON = "nv_inference_request_summary_us"


def configuration(*jobs: tuple[str, str, dict[str, Any]]) -> str:
    """Text of prometheus.yml for jobs of (name, target, further settings)."""
    scrape_configs = [
        {
            "job_name": name,
            "honor_labels": True,
            "static_configs": [{"targets": [target]}],
            **settings,
        }
        for name, target, settings in jobs
    ]
    return yaml.safe_dump(
        {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": scrape_configs}
    )


@contextmanager
def scraping(directory: Path, progress: Progress, *jobs: tuple[str, str, dict[str, Any]]) -> Iterator[str]:
    """The URL of a Prometheus that scrapes jobs of (name, target, further settings), each second."""
    try:
        spec = PrometheusSpec(configuration(*jobs))
        yield prometheus_daemon.up(directory, directory / "logs", spec, progress)
    finally:
        processes.stop_all(directory)


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    """Return when ``holds`` does; fail after a minute."""
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited {_LONGEST_WAIT_SECONDS:g} s for {what}"
        time.sleep(_POLL_SECONDS)
