"""A real Prometheus on loopback that scrapes the test's own exporter once a second."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import prometheus as prometheus_daemon
from tests.cluster.locks import Progress
from tests.telemetry.exporter import Container, Latencies, Node, Plain, Series, Summary, exporting
from tests.telemetry.past import Past, recorded
from tests.telemetry.scraped import (
    BEYOND,
    FAST,
    IDLE_PER_SECOND,
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

WINDOW_SECONDS = 10
SERIES: tuple[Series, ...] = (
    Node({"node": "worker-1"}, cpus=4, idle=0.25, hertz=1.5e9, highest_hertz=3e9),
    Node({"instance": "10.0.0.2:9100"}, cpus=2, idle=0.7, iowait=0.2),
    Container({"node": "worker-1", "container": "server", "pod": "a"}, 0.5),
    Container({"node": "worker-1", "container": "server", "pod": "b"}, 1.25),
    Container({"node": "worker-1", "container": "POD", "pod": "b"}, 7.0),
    Container({"node": "worker-1", "container": "", "id": "/"}, 7.0),
    Container({"node": "worker-2", "container": "server", "pod": "c"}, 0.25),
    # 1,000 fast requests for each 100 slow ones.
    Latencies(OURS, pod("fast-1", model="m"), 1000, FAST),
    Latencies(OURS, pod("slow-1", model="m"), 100, SLOW),
    Latencies(OURS, pod("fast-1", "elsewhere", model="m"), 1000, SLOW),
    Latencies(OURS, pod("fast-10", model="m"), 1000, SLOW),
    Latencies(OURS, pod("idle-1", model="m"), IDLE_PER_SECOND, FAST),
    Latencies(OURS, pod("beyond-1", model="m"), 100, BEYOND),
    Latencies(OURS, pod("dot.ted-1", model="m"), 100, FAST),
    # One server with two models.
    Latencies(OURS, pod("two-1", model="quick"), 1000, FAST),
    Latencies(OURS, pod("two-1", model="slow"), 1000, SLOW),
    Latencies("request_predict_seconds", pod("kserve-1", model_name="m"), 500, FAST),
    Latencies("vllm:e2e_request_latency_seconds", pod("vllm-1", model_name="m"), 500, FAST),
    Latencies(MLSERVER, pod("mlserver-1", path="/v2/models/m/infer", method="POST"), 500, FAST),
    Latencies(
        MLSERVER, pod("mlserver-1", path="/v2/models/m/ready", method="GET"), 500, [(0.01, 1), (INF, 1)]
    ),
    Plain(TORCHSERVE, pod("torchserve-1", ModelName="m", Level="Model", Hostname="h"), 90.0),
    Plain(TORCHSERVE_REQUESTS, pod("torchserve-1", model_name="m", model_version="1"), per_second=500),
    # As TorchServe is without metrics_mode=prometheus for its backend: a sum of latencies has no quantile.
    Plain("ts_inference_latency_microseconds", pod("counter-1", model_name="m"), per_second=5e6),
    Summary(TRITON, pod("triton-1", model="m"), 50, "0.9", 90_000.0),
    Summary(TRITON, pod("triton-2", model="m"), 50, "0.9", 140_000.0),
    Summary(TRITON, pod("triton-2", model="m"), 50, "0.99", 990_000.0),
)
# Scraped by another job that turns classic histograms into native ones.
NATIVE_SERIES: tuple[Series, ...] = (
    Latencies(OURS, pod("native-1", model="m"), 1000, FAST),
    Latencies(OURS, pod("native-2", model="m"), 100, SLOW),
)


@pytest.fixture(scope="session")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Iterator[str]:
    """The URL of a Prometheus that has scraped the series for longer than a window."""
    directory = tmp_path_factory.mktemp("prometheus")
    with (
        exporting(SERIES) as target,
        exporting(NATIVE_SERIES) as native,
        scraping(
            directory,
            progress,
            ("first", target, {}),
            # A second job with the same kubelets: nothing may be counted twice.
            ("second", target, {}),
            ("native", native, {"convert_classic_histograms_to_nhcb": True}),
        ) as url,
    ):
        wait_until(
            "a window of samples",
            lambda: bool(
                prometheus_daemon.query(
                    url, f"min(count_over_time(up[{WINDOW_SECONDS + 2}s])) >= {WINDOW_SECONDS}"
                )
            ),
        )
        yield url


@pytest.fixture
def stoppable_prometheus(tmp_path: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    """A Prometheus of the test's own: its URL and the directory to stop it by."""
    with exporting(SERIES) as target, scraping(tmp_path, progress, ("first", target, {})) as url:
        yield url, tmp_path


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Iterator[Past]:
    """Four whole windows of a Prometheus that scrapes once a second."""
    with recorded(tmp_path_factory.mktemp("history"), progress) as known:
        yield known
