"""A past that a real Prometheus has: every preset's server by its real names, for four windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailwise.telemetry.ranges import Span, windows_before
from tests.cluster import prometheus as prometheus_daemon
from tests.cluster.locks import Progress
from tests.telemetry.exporter import Container, Latencies, Node, Plain, Series, Summary, exporting
from tests.telemetry.scraped import (
    BEYOND,
    FAST,
    INF,
    MLSERVER,
    OURS,
    SLOW,
    TORCHSERVE,
    TORCHSERVE_REQUESTS,
    TRITON,
    pod,
    scraping,
    wait_until,
)

WINDOW = 5
LOOKBACK = timedelta(seconds=20)
PODS = (
    "ours-1",
    "ours-2",
    "kserve-1",
    "vllm-1",
    "mlserver-1",
    "torchserve-1",
    "triton-1",
    "native-1",
    "beyond-1",
    "idle-1",
    "restarts-1",
)


def on_worker(name: str, **labels: str) -> dict[str, str]:
    return pod(name, node="worker-1", container="server", **labels)


def cadvisor(name: str) -> list[Series]:
    """Half a core, a limit of two, throttled in a fifth of its periods."""
    return [
        Container(on_worker(name), 0.5),
        Plain("container_cpu_cfs_periods_total", on_worker(name), per_second=10),
        Plain("container_cpu_cfs_throttled_periods_total", on_worker(name), per_second=2),
        Plain("container_spec_cpu_quota", on_worker(name), 200_000),
        Plain("container_spec_cpu_period", on_worker(name), 100_000),
    ]


SERIES: tuple[Series, ...] = (
    Node({"node": "worker-1"}, cpus=4, idle=0.25, hertz=1.5e9, highest_hertz=3e9),
    *(series for name in PODS for series in cadvisor(name)),
    Latencies(OURS, pod("ours-1", model="m"), 1000, FAST),
    Latencies(OURS, pod("ours-1", model="n"), 100, SLOW),
    Latencies(OURS, pod("ours-2", model="m"), 1000, SLOW),
    Latencies(OURS, pod("nowhere-1", model="m"), 1000, FAST),
    Latencies(OURS, pod("idle-1", model="m"), 0, FAST),
    Latencies(OURS, pod("beyond-1", model="m"), 100, BEYOND),
    Latencies(OURS, pod("restarts-1", model="m"), 1000, FAST, resets_every_seconds=1.7),
    Latencies("request_predict_seconds", pod("kserve-1", model_name="m"), 500, FAST),
    Latencies("vllm:e2e_request_latency_seconds", pod("vllm-1", model_name="m"), 500, FAST),
    Plain("vllm:num_requests_running", pod("vllm-1", model_name="m"), 3.0),
    Latencies(MLSERVER, pod("mlserver-1", path="/v2/models/m/infer", method="POST"), 500, FAST),
    Latencies(
        MLSERVER, pod("mlserver-1", path="/v2/models/m/ready", method="GET"), 500, [(0.01, 1), (INF, 1)]
    ),
    Plain(TORCHSERVE, pod("torchserve-1", ModelName="m", Level="Model", Hostname="h"), 90.0),
    Plain(TORCHSERVE_REQUESTS, pod("torchserve-1", model_name="m", model_version="1"), per_second=500),
    Summary(TRITON, pod("triton-1", model="m"), 50, "0.9", 90_000.0),
)
NATIVE: tuple[Series, ...] = (Latencies(OURS, pod("native-1", model="m"), 1000, FAST),)


@dataclass(frozen=True, slots=True)
class Past:
    url: str
    span: Span


@contextmanager
def recorded(directory: Path, progress: Progress) -> Iterator[Past]:
    """Four whole windows of a Prometheus that scrapes once a second."""
    with (
        exporting(SERIES) as target,
        exporting(NATIVE) as native,
        scraping(
            directory,
            progress,
            ("first", target, {}),
            ("native", native, {"convert_classic_histograms_to_nhcb": True}),
        ) as url,
    ):
        # A window more than is read: the first, too, has its whole length behind it.
        needed = LOOKBACK.total_seconds() + 2 * WINDOW
        wait_until(
            "four windows of samples",
            lambda: bool(prometheus_daemon.query(url, f"min(count_over_time(up[60s])) >= {needed:g}")),
        )
        yield Past(url, windows_before(datetime.now(UTC), WINDOW, LOOKBACK))
