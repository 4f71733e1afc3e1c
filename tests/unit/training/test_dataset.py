"""Rows in, datasets out: the schema, what is dropped and why, smoothing and retention."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tailwise.prediction.prediction import Serving
from tailwise.training.cleaning import clean
from tailwise.training.files import read_dataset, write_json_lines, write_parquet
from tailwise.training.rows import DatasetError, DropReason, dataset_of, joined
from tailwise.training.schema import COLUMNS
from tailwise.training.series import log_window, retained, smoothed
from tests.unit.prediction.builders import node, profile
from tests.unit.training.builders import BEGIN, NOW, raw, row

ROOT = Path(__file__).parents[3]


def test_the_p90_of_raw_latencies_is_the_nearest_rank_of_equation_10() -> None:
    cleaned = clean([raw(latencies_milliseconds=[float(x) for x in range(1024, 0, -1)])], now=NOW)
    assert cleaned.dataset.p90_milliseconds.tolist() == [math.ceil(0.9 * 1024)]
    assert cleaned.dataset.queries.tolist() == [1024]


def test_summed_buckets_give_the_p90_within_their_bucket() -> None:
    bounds, counts = [10.0, 20.0, 40.0, "Infinity"], [50, 80, 100, 100]
    columns = {"bucket_bounds_milliseconds": bounds, "bucket_counts": counts, "latencies_milliseconds": None}
    assert clean([raw(**columns)], now=NOW).dataset.p90_milliseconds.tolist() == [pytest.approx(30.0)]


def test_what_the_pod_itself_used_is_no_load_of_others() -> None:
    cleaned = clean([raw(cpu_utilisation=0.75, pod_cpu_cores=2.0, hardware=_hardware(cores=4))], now=NOW)
    assert cleaned.dataset.cpu_utilisation.tolist() == [pytest.approx(0.25)]


def _hardware(**fields: Any) -> dict[str, Any]:
    return node(**fields).model_dump(mode="json", by_alias=True)


def _buckets(counts: list[float], bounds: list[Any]) -> dict[str, Any]:
    return {
        "latencies_milliseconds": None,
        "bucket_counts": counts,
        "bucket_bounds_milliseconds": bounds,
    }


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"cpu_utilisation": None}, DropReason.GAP),
        (_buckets([50, 40, 100], [1, 2, 3]), DropReason.RESET),
        ({"latencies_milliseconds": [1.0] * 20 + [math.nan]}, DropReason.NOT_A_NUMBER),
        ({"cpu_utilisation": math.nan}, DropReason.NOT_A_NUMBER),
        ({"cpu_utilisation": "much"}, DropReason.NOT_A_NUMBER),
        ({"latencies_milliseconds": [1.0] * 20 + [-1.0]}, DropReason.NEGATIVE),
        ({"latencies_milliseconds": None, "p90_milliseconds": 0.0}, DropReason.NEGATIVE),
        ({"cpu_limit_millicores": -5}, DropReason.NEGATIVE),
        ({"threads": 1.5}, DropReason.OUT_OF_RANGE),
        ({"cpu_utilisation": 40.0}, DropReason.OUT_OF_RANGE),
        (_buckets([50, 60, 100], [1, 3, 2]), DropReason.OUT_OF_RANGE),
        ({"time": (NOW + timedelta(hours=1)).isoformat()}, DropReason.CLOCK_SKEW),
        ({"time": "1970-01-01T00:00:00Z"}, DropReason.CLOCK_SKEW),
        ({"latencies_milliseconds": None}, DropReason.NO_LATENCY),
        ({"latencies_milliseconds": [1.0] * 9}, DropReason.TOO_FEW_QUERIES),
        ({"latencies_milliseconds": None, "p90_milliseconds": 5.0, "queries": 3}, DropReason.TOO_FEW_QUERIES),
        (_buckets([50, 60, 100], [1, 2, "Infinity"]), DropReason.ABOVE_BUCKETS),
        ({"profile": {"flops": -1}}, DropReason.UNREADABLE),
        ({"hardware": None}, DropReason.UNREADABLE),
        ({"time": "yesterday"}, DropReason.UNREADABLE),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_with_its_reason(
    columns: dict[str, Any], reason: DropReason
) -> None:
    cleaned = clean([raw(pod="good"), raw(**columns)], now=NOW)
    assert cleaned.dropped == {reason: 1}
    assert cleaned.examples[reason].startswith("row 2: ")
    assert cleaned.dataset.pod.tolist() == ["good"]


def test_of_duplicates_the_first_is_kept() -> None:
    again = raw(latencies_milliseconds=[7.0] * 20)
    cleaned = clean([raw(), again, raw(pod="iris-2")], now=NOW)
    assert cleaned.dropped == {DropReason.DUPLICATE: 1}
    assert sorted(cleaned.dataset.p90_milliseconds.tolist()) == [90.0, 90.0]


def test_parquet_and_json_lines_hold_the_same_rows(tmp_path: Path) -> None:
    rows = [
        raw(),
        raw(pod="iris-2", cpu_limit_millicores=500, requests_per_second=20.0, family="resnet"),
        raw(pod="iris-3", **_buckets([50, 95, 100], [1.0, 2.0, math.inf])),
    ]
    write_parquet(tmp_path / "rows.parquet", rows)
    write_json_lines(tmp_path / "rows.jsonl", rows)
    first = read_dataset(tmp_path / "rows.parquet", now=NOW)
    second = read_dataset(tmp_path / "rows.jsonl", now=NOW)
    assert len(first.dataset) == 3
    assert not first.dropped
    assert first.dataset.fingerprint() == second.dataset.fingerprint()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.parquet", None, "no such file"),
        ("not.parquet", "text", "not Parquet"),
        ("not.jsonl", "{", "line 1 is not JSON"),
        ("list.jsonl", "[1]", "no JSON object"),
        ("short.jsonl", json.dumps({"time": "2026-01-01T00:00:00Z"}), "cpu_utilisation, hardware, profile"),
    ],
)
def test_a_file_that_is_no_dataset_is_refused_with_the_way_out(
    tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=told) as error:
        read_dataset(path, now=NOW)
    assert str(path) in str(error.value)


def test_the_schema_in_the_documentation_is_the_one_that_is_read() -> None:
    text = (ROOT / "docs/dataset.md").read_text()
    for column in COLUMNS:
        required = "yes" if column.required else ""
        assert f"| `{column.name}` | {column.kind.value} | {required} | {column.meaning} |" in text


def test_the_order_of_rows_does_not_change_what_is_learned_from() -> None:
    rows = [row(minute, 10.0 + minute, pod=f"p{minute % 3}") for minute in range(20)]
    assert dataset_of(rows).fingerprint() == dataset_of(rows[::-1]).fingerprint()
    assert dataset_of(rows).fingerprint() != dataset_of(rows[1:]).fingerprint()


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1e6)), st.integers(1, 50))
def test_the_log_window_is_equation_15_term_by_term(series: Any, window: int) -> None:
    expected = [
        sum(math.log(series[j] + 1) for j in range(max(0, i - window + 1), i + 1)) / min(window, i + 1)
        for i in range(len(series))
    ]
    assert log_window(series, window) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_smoothing_keeps_series_of_different_pods_and_loads_apart() -> None:
    rows = [row(minute, 10.0, pod="a") for minute in range(5)]
    rows += [row(minute, 1000.0, pod="b") for minute in range(5)]
    rows += [row(minute, 100.0, pod="a", cpu_utilisation=0.8) for minute in range(5, 10)]
    after = smoothed(dataset_of(rows), 4)
    assert sorted({round(value, 6) for value in after.p90_milliseconds}) == [10.0, 100.0, 1000.0]


def test_a_window_of_one_does_not_smooth() -> None:
    dataset = dataset_of([row(minute, 10.0 + minute) for minute in range(5)])
    assert smoothed(dataset, 1) is dataset


def test_a_full_cell_keeps_its_newest_row_and_is_spread_over_time() -> None:
    dataset = dataset_of([row(minute, 10.0 + minute) for minute in range(100)])
    kept = retained(dataset, max_rows_per_cell=10, max_rows=1000)
    assert kept.dropped == {DropReason.CELL_FULL: 90}
    assert kept.dataset.p90_milliseconds.max() == 109.0
    assert kept.dataset.p90_milliseconds.min() == 10.0


def test_where_there_are_too_many_rows_the_fullest_cells_lose_first() -> None:
    rows = [row(minute) for minute in range(100)]
    rows += [row(minute, serving=Serving(500)) for minute in range(100, 110)]
    rows += [row(minute, profile=profile(dense_flops=5)) for minute in range(110, 120)]
    kept = retained(dataset_of(rows), max_rows_per_cell=1000, max_rows=50).dataset
    assert len(kept) == 50
    limits = [kept.servings[place].cpu_limit_millicores for place in kept.serving_index]
    assert limits.count(500) == 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(1, 20), st.integers(6, 60))
def test_retention_never_keeps_more_than_asked_and_never_empties_a_cell(
    cells: list[int], per_cell: int, total: int
) -> None:
    rows = [row(minute, cpu_utilisation=cell / 10) for minute, cell in enumerate(cells)]
    kept = retained(dataset_of(rows), per_cell, total).dataset
    assert len(kept) <= total
    assert {round(u * 10) for u in kept.cpu_utilisation} == set(cells)


def test_time_begins_where_the_rows_do() -> None:
    assert clean([raw()], now=NOW).dataset.time.tolist() == [BEGIN.timestamp()]


def test_datasets_that_share_documents_are_joined_into_one() -> None:
    first = [row(minute, 10.0 + minute) for minute in range(5)]
    second = [row(minute, 10.0 + minute, serving=Serving(500)) for minute in range(5, 9)]
    together = joined([dataset_of(second), dataset_of(first)])
    assert together.fingerprint() == dataset_of([*first, *second]).fingerprint()
    assert len(together.profiles) == len(together.hardware) == 1
