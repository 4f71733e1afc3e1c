"""The dataset that ships is measured evenly: its plan, its journal, and what a row of it says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from bench.dataset import journal
from bench.dataset.journal import Measured
from bench.dataset.plan import FAMILIES, LANES, LOADS, Limit, Window, stretches
from tailwise.training.cleaning import clean
from tailwise.training.files import read_dataset
from tests.cluster.node_shapes import load
from tests.models import rehydrate
from tests.unit.prediction.builders import node


def test_every_round_visits_every_node_load_and_model_once() -> None:
    for number in range(3):
        windows = [
            window
            for stretch in stretches(3)
            for segment in stretch.segments
            for window in segment.windows
            if window.round == number
        ]
        visits = Counter((window.node, window.load, window.model) for window in windows)
        assert len(visits) == 4 * len(LOADS) * len(FAMILIES)
        assert set(visits.values()) == {1}


def test_no_window_is_measured_twice_under_one_key() -> None:
    keys = [w.key for stretch in stretches(6) for segment in stretch.segments for w in segment.windows]
    assert len(keys) == len(set(keys))


def test_every_limit_and_both_scenarios_come_round_on_every_node_and_load() -> None:
    windows = [w for stretch in stretches(6) for segment in stretch.segments for w in segment.windows]
    for measured_node in (each for lane in LANES for each in lane):
        for load_share in LOADS:
            here = [w for w in windows if (w.node, w.load) == (measured_node.name, load_share)]
            assert {w.limit for w in here} == set(measured_node.limits)
            assert any(w.rate_share for w in here)
            assert any(w.rate_share is None for w in here)


def test_threads_are_the_limit_rounded_up_and_nodes_of_one_lane_fit_on_two_cores() -> None:
    for lane in LANES:
        assert sum(each.cores for each in lane) <= 2
        for each in lane:
            for limit in each.limits:
                allowed = each.cores if limit.millicores is None else limit.millicores / 1000
                assert limit.threads == -(-allowed // 1)
                assert allowed <= each.cores


def test_the_plan_names_nodes_and_models_that_there_are() -> None:
    shapes = {shape.name: shape.cores for shape in load(Path("bench/dataset/nodes.yaml"))}
    assert {each.name: each.cores for lane in LANES for each in lane}.items() <= shapes.items()
    assert set(FAMILIES) <= set(rehydrate.names())


@pytest.fixture
def measured() -> Measured:
    return Measured(
        window=Window(0, "half", 0.35, "mobilenet_v3_small", Limit(250, 1), None),
        ended=1_790_000_000.0,
        seconds=4.0,
        cpu_utilisation=0.34,
        requests_per_second=None,
        latencies_milliseconds=tuple(float(each) for each in range(1, 41)),
        request_millicores=250,
        pod="mobilenet-v3-small-t1-half",
        pod_cpu_seconds=0.4,
        node_cpu_seconds=0.9,
        periods=40,
        throttled_periods=10,
    )


def test_a_window_becomes_a_row_that_the_dataset_takes(measured: Measured, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(path, node(), measured)
    with path.open("a") as file:
        file.write('{"key": "0/half/0.35/resn')  # killed while it wrote
    windows = journal.read(path)
    assert [window["key"] for window in windows] == ["0/half/0.35/mobilenet_v3_small"]

    rows = journal.rows(windows, tmp_path)
    cleaned = clean(rows, now=rows[0]["time"])
    assert not cleaned.dropped
    assert cleaned.dataset.p90_milliseconds.tolist() == [36.0]
    assert cleaned.dataset.family.tolist() == ["mobilenet"]
    assert cleaned.dataset.throttled_share.tolist() == [0.25]
    assert cleaned.dataset.servings[0].cpu_limit_millicores == 250


def test_the_dataset_that_ships_is_whole_and_small() -> None:
    path = Path("bench/data/latencies.parquet")
    assert path.stat().st_size < 5 * 2**20
    read = read_dataset(path, now=datetime.now(UTC))
    dataset = read.dataset
    assert not read.dropped
    assert len(set(dataset.profile_key.tolist())) >= 6
    assert len(set(dataset.family.tolist())) >= 4
    assert len({each.capacity_cores for each in dataset.hardware}) == 4
    limits = {each.cpu_limit_millicores for each in dataset.servings}
    assert {None, 250, 500, 1000, 2000} <= limits
    # Four levels of load on every node, and nothing that was made up.
    for name in set(dataset.node.tolist()):
        loads = dataset.cpu_utilisation[dataset.node == name]
        assert {0, 1, 2, 3} == {int(np.searchsorted((0.2, 0.55, 0.85), load)) for load in loads}
    assert set(dataset.source.tolist()) == {"LoadGen"}
