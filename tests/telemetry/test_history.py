"""Rows of a dataset from a real Prometheus: every preset by the names its server really exposes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.serving_metrics import LatencyQueries, ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.history import History, Served, read_history
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import node_exporter
from tailwise.telemetry.ranges import Span, windows_before
from tailwise.training.cleaning import clean
from tailwise.training.rows import DropReason
from tests.cluster import processes
from tests.cluster import prometheus as prometheus_daemon
from tests.cluster.locks import Progress
from tests.cluster.prometheus import PrometheusSpec
from tests.telemetry.conftest import (
    BEYOND,
    FAST,
    INF,
    MLSERVER,
    OURS,
    SLOW,
    TORCHSERVE,
    TRITON,
    configuration,
    microseconds,
    pod,
    wait_until,
)
from tests.telemetry.exporter import Container, Latencies, Node, Plain, Series, Summary, exporting
from tests.unit.prediction.builders import node, profile

WINDOW = 5
LOOKBACK = timedelta(seconds=20)
MODEL = profile()
HARDWARE = {"worker-1": node(cores=4).model_copy(update={"node": "worker-1"})}
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
    Latencies("request_predict_seconds", pod("kserve-1", model_name="m"), 500, FAST),
    Latencies("vllm:e2e_request_latency_seconds", pod("vllm-1", model_name="m"), 500, FAST),
    Plain("vllm:num_requests_running", pod("vllm-1", model_name="m"), 3.0),
    Latencies(MLSERVER, pod("mlserver-1", path="/v2/models/m/infer", method="POST"), 500, FAST),
    Latencies(
        MLSERVER, pod("mlserver-1", path="/v2/models/m/ready", method="GET"), 500, [(0.01, 1), (INF, 1)]
    ),
    Latencies(TORCHSERVE, pod("torchserve-1", model_name="m"), 500, microseconds(FAST)),
    Summary(TRITON, pod("triton-1", model="m"), 50, "0.9", 90_000.0),
)
NATIVE: tuple[Series, ...] = (Latencies(OURS, pod("native-1", model="m"), 1000, FAST),)


@dataclass(frozen=True, slots=True)
class Past:
    url: str
    span: Span


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Iterator[Past]:
    """Four whole windows of a Prometheus that scrapes once a second."""
    directory = tmp_path_factory.mktemp("history")
    with ExitStack() as stack:
        target, native = (stack.enter_context(exporting(series)) for series in (SERIES, NATIVE))
        jobs: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("first", target, {}),
            ("native", native, {"convert_classic_histograms_to_nhcb": True}),
        )
        stack.callback(processes.stop_all, directory)
        url = prometheus_daemon.up(
            directory, directory / "logs", PrometheusSpec(configuration(*jobs)), progress
        )
        # A window more than is read: the first, too, has its whole length behind it.
        needed = LOOKBACK.total_seconds() + 2 * WINDOW
        wait_until(
            "four windows of samples",
            lambda: bool(prometheus_daemon.query(url, f"min(count_over_time(up[60s])) >= {needed:g}")),
        )
        yield Past(url, windows_before(datetime.now(UTC), WINDOW, LOOKBACK))


def served(
    pattern: str, preset: ServingPreset, serving: Serving | None = None, queries: LatencyQueries | None = None
) -> Served:
    metrics = ServingMetrics(preset=preset, queries=queries)
    return Served("shop", "iris", pattern, metrics, MODEL, serving or Serving(None), family="iris")


async def history(past: Past, *asked: Served, hardware: Any = None, told: Any = None) -> History:
    prometheus = Prometheus(past.url)
    try:
        return await read_history(
            prometheus,
            asked,
            HARDWARE if hardware is None else hardware,
            node_exporter(WINDOW),
            past.span,
            told=told or (lambda *_: None),
        )
    finally:
        prometheus.close()


def p90s(read: History) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in read.rows:
        found.setdefault(row["pod"], []).append(row["p90_milliseconds"])
    return found


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        (ServingPreset.KSERVE, "kserve-1"),
        (ServingPreset.VLLM, "vllm-1"),
        (ServingPreset.MLSERVER, "mlserver-1"),
        (ServingPreset.TORCHSERVE, "torchserve-1"),
        (ServingPreset.TRITON, "triton-1"),
        (ServingPreset.OPEN_INFERENCE, "native-1"),
    ],
)
async def test_each_preset_gives_rows_of_its_servers_own_metric(
    past: Past, preset: ServingPreset, name: str
) -> None:
    read = await history(past, served(name, preset))
    assert not read.faults
    assert len(p90s(read)[name]) >= 3
    assert p90s(read)[name] == pytest.approx([90.0] * len(p90s(read)[name]), abs=2)
    assert {row["source"] for row in read.rows} == {f"Prometheus:{preset}"}


async def test_a_row_carries_load_limit_throttling_and_the_pods_own_use(past: Past) -> None:
    read = await history(past, served("ours-2", ServingPreset.OPEN_INFERENCE))
    cleaned = clean(read.rows, now=datetime.now(UTC))
    assert not cleaned.dropped
    dataset = cleaned.dataset
    assert len(dataset) >= 3
    # Three of four cores are in use; half a core of that is the pod's own.
    assert dataset.cpu_utilisation == pytest.approx([0.75 - 0.5 / 4] * len(dataset), abs=0.05)
    assert dataset.frequency_utilisation == pytest.approx([0.5] * len(dataset))
    assert dataset.throttled_share == pytest.approx([0.2] * len(dataset), abs=0.01)
    assert dataset.servings[0].cpu_limit_millicores == 2000
    assert dataset.queries == pytest.approx([1000 * WINDOW] * len(dataset), rel=0.05)
    assert set(dataset.node.tolist()) == {"worker-1"}
    assert set(dataset.family.tolist()) == {"iris"}


async def test_a_pods_models_are_summed_before_its_p90_and_pods_stay_apart(past: Past) -> None:
    read = await history(past, served("ours-.*", ServingPreset.OPEN_INFERENCE))
    # 990 of 1,100 requests are among the fast model's 1,000.
    assert p90s(read)["ours-1"] == pytest.approx([99.0] * len(p90s(read)["ours-1"]), abs=1)
    assert p90s(read)["ours-2"] == pytest.approx([490.0] * len(p90s(read)["ours-2"]), abs=1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere-1", DropReason.GAP),
        ("idle-1", DropReason.TOO_FEW_QUERIES),
        ("beyond-1", DropReason.ABOVE_BUCKETS),
    ],
)
async def test_windows_that_cannot_be_used_are_counted_by_reason(
    past: Past, name: str, reason: DropReason
) -> None:
    read = await history(past, served(name, ServingPreset.OPEN_INFERENCE))
    assert not read.rows
    assert read.dropped[reason] >= 3
    assert "see what was dropped" in read.faults["shop/iris"]


async def test_a_load_that_is_stated_as_a_rate_is_read_as_the_rate_that_was_seen(past: Past) -> None:
    stated = await history(
        past, served("kserve-1", ServingPreset.KSERVE, Serving(None, requests_per_second=1.0))
    )
    assert {round(row["requests_per_second"], -1) for row in stated.rows} == {500}
    closed = await history(past, served("kserve-1", ServingPreset.KSERVE))
    assert {row["requests_per_second"] for row in closed.rows} == {None}


async def test_queries_of_ones_own_tell_latency_and_concurrency(past: Past) -> None:
    own = LatencyQueries(
        buckets='rate(vllm:e2e_request_latency_seconds_bucket{namespace="$namespace",pod=~"$pods"}[$window])',
        concurrency='vllm:num_requests_running{namespace="$namespace",pod=~"$pods"}',
    )
    read = await history(past, served("vllm-1", ServingPreset.CUSTOM, queries=own))
    assert p90s(read)["vllm-1"] == pytest.approx([90.0] * len(read.rows), abs=1)
    assert {row["concurrency"] for row in read.rows} == {3}


async def test_what_prometheus_refuses_is_told_in_its_words_and_the_others_are_read(past: Past) -> None:
    wrong = served("a", ServingPreset.CUSTOM, queries=LatencyQueries(buckets="rate(no_bracket[$window]"))
    other = Served(
        "shop", "rose", "kserve-1", ServingMetrics(preset=ServingPreset.KSERVE), MODEL, Serving(None)
    )
    read = await history(past, wrong, other)
    assert "parse error" in read.faults["shop/iris"]
    assert "shop/rose" not in read.faults
    assert {row["workload"] for row in read.rows} == {"shop/rose"}


async def test_a_metric_that_is_not_there_is_told_with_the_way_out(past: Past) -> None:
    read = await history(past, served("unheard-of", ServingPreset.TRITON))
    assert "summary_latencies=true" in read.faults["shop/iris"]


async def test_a_node_nobody_described_is_a_gap(past: Past) -> None:
    read = await history(past, served("ours-1", ServingPreset.OPEN_INFERENCE), hardware={})
    assert not read.rows
    assert read.dropped[DropReason.GAP] >= 3


async def test_without_prometheus_nothing_is_read_and_the_reason_is_told() -> None:
    nowhere = Past("http://127.0.0.1:9", windows_before(datetime.now(UTC), WINDOW, LOOKBACK))
    read = await history(nowhere, served("a", ServingPreset.KSERVE))
    assert not read.rows
    assert "127.0.0.1:9" in read.faults["nodes"]


async def test_progress_tells_what_is_read_and_never_runs_backwards(past: Past) -> None:
    told: list[tuple[str, int, int]] = []
    await history(past, served("ours-1", ServingPreset.OPEN_INFERENCE), told=lambda *each: told.append(each))
    assert {what for what, _, _ in told} == {
        "utilisation of nodes",
        "latency of shop/iris",
        "CPU of shop/iris",
    }
    assert all(done <= of for _, done, of in told)
    await asyncio.sleep(0)


@given(st.integers(1, 3000), st.integers(1, 700))
def test_chunks_hold_every_window_end_once_and_in_order(points: int, most: int) -> None:
    step = timedelta(seconds=300)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    span = Span(begin, begin + (points - 1) * step, step)
    ends: list[datetime] = []
    chunks: Sequence[Span] = list(span.chunks(most))
    for chunk in chunks:
        assert 1 <= chunk.points <= most
        ends += [chunk.begin + place * step for place in range(chunk.points)]
    assert ends == [begin + place * step for place in range(points)]
    assert span.points == points


def test_windows_are_aligned_so_that_two_reads_see_the_same() -> None:
    now = datetime(2026, 1, 1, 12, 7, 31, tzinfo=UTC)
    first = windows_before(now, 300, timedelta(hours=1))
    second = windows_before(now + timedelta(seconds=100), 300, timedelta(hours=1))
    assert first == second
    assert first.points == 12
    assert first.end == datetime(2026, 1, 1, 12, 5, tzinfo=UTC)
