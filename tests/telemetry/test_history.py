"""Rows of a dataset from a real Prometheus: every preset by the names its server really exposes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailwise.api.serving_metrics import LatencyQueries, LatencyUnit, ServingMetrics, ServingPreset
from tailwise.prediction.prediction import Serving
from tailwise.telemetry.history import FaultKind, History, read_history
from tailwise.telemetry.join import DatasetJoin, JoinedPod, ServedPods
from tailwise.telemetry.prometheus import Prometheus
from tailwise.telemetry.queries import node_exporter
from tailwise.telemetry.ranges import Span, read_range, windows_before
from tailwise.telemetry.served import Served, served_of
from tailwise.training.cleaning import clean
from tailwise.training.rows import DropReason
from tests.telemetry.past import LOOKBACK, WINDOW, Past
from tests.telemetry.scraped import PATIENCE_SECONDS
from tests.unit.prediction.builders import node, profile

MODEL = profile()
HARDWARE = {"worker-1": node(cores=4).model_copy(update={"node": "worker-1"})}


def served(
    pattern: str, preset: ServingPreset, serving: Serving | None = None, queries: LatencyQueries | None = None
) -> Served:
    metrics = ServingMetrics(preset=preset, queries=queries)
    return Served("shop", "iris", pattern, metrics, MODEL, serving or Serving(None), family="iris")


async def history(past: Past, *asked: Served, hardware: Any = None, told: Any = None) -> History:
    prometheus = Prometheus(past.url, timeout_seconds=PATIENCE_SECONDS)
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
    assert "see what was dropped" in read.faults["shop/iris"].message


async def test_a_window_in_which_a_server_was_started_anew_is_no_row(past: Past) -> None:
    read = await history(past, served("restarts-1", ServingPreset.OPEN_INFERENCE))
    assert read.dropped[DropReason.RESET] >= 1
    assert len(read.rows) + sum(read.dropped.values()) >= 4


async def test_pods_whose_own_use_nobody_tells_are_gaps_and_the_missing_metric_is_named(past: Past) -> None:
    read = await history(past, served("nowhere-1", ServingPreset.OPEN_INFERENCE))
    assert not read.rows
    assert read.dropped[DropReason.GAP] >= 3
    assert read.faults["shop/iris"].kind is FaultKind.NO_SERIES
    assert "container_cpu_usage_seconds_total" in read.faults["shop/iris"].message


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


async def test_a_summary_of_ones_own_gives_rows_in_its_unit(past: Past) -> None:
    own = LatencyQueries(
        quantile='nv_inference_request_summary_us{namespace="$namespace",pod=~"$pods",quantile="0.9"}',
        unit=LatencyUnit.MICROSECONDS,
        requests_per_second='rate(nv_inference_request_summary_us_count{pod=~"$pods"}[$window])',
    )
    read = await history(past, served("triton-1", ServingPreset.CUSTOM, queries=own))
    assert p90s(read)["triton-1"] == pytest.approx([90.0] * len(read.rows))
    assert all(row["queries"] == pytest.approx(50 * WINDOW, rel=0.2) for row in read.rows)


async def test_what_prometheus_refuses_is_told_in_its_words_and_the_others_are_read(past: Past) -> None:
    wrong = served("a", ServingPreset.CUSTOM, queries=LatencyQueries(buckets="rate(no_bracket[$window]"))
    other = Served(
        "shop", "rose", "kserve-1", ServingMetrics(preset=ServingPreset.KSERVE), MODEL, Serving(None)
    )
    read = await history(past, wrong, other)
    assert read.faults["shop/iris"].kind is FaultKind.REFUSED
    assert "parse error" in read.faults["shop/iris"].message
    assert "HTTP" not in read.faults["shop/iris"].message
    assert "shop/rose" not in read.faults
    assert {row["workload"] for row in read.rows} == {"shop/rose"}


async def test_a_metric_that_is_not_there_is_told_with_the_way_out(past: Past) -> None:
    read = await history(past, served("unheard-of", ServingPreset.TRITON))
    assert read.faults["shop/iris"].kind is FaultKind.NO_SERIES
    assert "nv_inference_request_summary_us" in read.faults["shop/iris"].message
    assert "summary_latencies=true" in read.faults["shop/iris"].message


async def test_a_node_nobody_described_is_a_gap(past: Past) -> None:
    read = await history(past, served("ours-1", ServingPreset.OPEN_INFERENCE), hardware={})
    assert not read.rows
    assert read.dropped[DropReason.GAP] >= 3


async def test_without_prometheus_nothing_is_read_and_the_reason_is_told() -> None:
    nowhere = Past("http://127.0.0.1:9", windows_before(datetime.now(UTC), WINDOW, LOOKBACK))
    read = await history(nowhere, served("a", ServingPreset.KSERVE))
    assert not read.rows
    assert read.faults["nodes"].kind is FaultKind.UNREACHABLE
    assert "127.0.0.1:9" in read.faults["nodes"].message


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


async def test_a_range_longer_than_prometheus_answers_at_once_is_read_in_chunks(past: Past) -> None:
    step = timedelta(seconds=1)
    long = Span(past.span.end - 11_999 * step, past.span.end, step)  # 11,000 points are its most
    told: list[tuple[int, int]] = []
    prometheus = Prometheus(past.url, timeout_seconds=PATIENCE_SECONDS)
    (series,) = await read_range(
        prometheus, "vector(1)", long, "ones", lambda done, of: told.append((done, of))
    )
    prometheus.close()
    assert len(series.points) == 12_000
    assert [time for time, _ in series.points] == sorted({time for time, _ in series.points})
    assert told[-1] == (24, 24)


async def test_a_pod_counts_within_its_own_time_on_the_node_that_it_was_on(past: Past) -> None:
    third = past.span.begin + 2 * past.span.step
    pods = (
        JoinedPod(name="ours-1", node="worker-1", until=third),
        JoinedPod(name="ours-2", node="worker-1", since=third),
        JoinedPod(name="kserve-1", node="worker-1", until=past.span.begin - past.span.step),
    )
    join = DatasetJoin(
        profiles={"m": MODEL},
        served=(
            ServedPods(
                namespace="shop",
                workload="iris",
                profile="m",
                metrics=ServingMetrics(preset=ServingPreset.OPEN_INFERENCE),
                pods=pods,
            ),
        ),
    )
    read = await history(past, *served_of(join))
    times = {name: [row["time"] for row in read.rows if row["pod"] == name] for name in ("ours-1", "ours-2")}
    assert times["ours-1"]
    assert times["ours-2"]
    assert max(times["ours-1"]) <= third
    assert min(times["ours-2"]) >= third + past.span.step
    assert {row["pod"] for row in read.rows} == {"ours-1", "ours-2"}


async def test_of_several_containers_the_servers_own_limit_counts(past: Past) -> None:
    whole = served("ours-2", ServingPreset.OPEN_INFERENCE)
    read = await history(past, replace(whole, container="server"), replace(whole, container="side-car"))
    limits = sorted({row["cpu_limit_millicores"] or 0 for row in read.rows})
    assert limits == [0, 2000]


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
