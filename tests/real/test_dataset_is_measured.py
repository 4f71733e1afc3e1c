"""The dataset's measuring program on real kubelets: a tiny plan gives rows that the trainer takes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.dataset import cluster, journal
from bench.dataset.measure import Length, measure
from bench.dataset.plan import Limit, MeasuredNode, stretches
from tailwise.models.inspection import InspectionRequest, inspect
from tailwise.training.files import read_dataset, write_parquet
from tests.cluster import paths
from tests.cluster.locks import Progress
from tests.cluster.real import RealCluster
from tests.demo import clusters

pytestmark = pytest.mark.real_nodes

MODEL = "mobilenet_v3_small"


def test_a_tiny_plan_is_measured_once_and_goes_on_where_it_stopped(
    real_cluster: RealCluster, progress: Progress, tmp_path: Path
) -> None:
    real_cluster.load_images(clusters.build_images(progress), progress)
    node = MeasuredNode("xlarge", 0.6, (Limit(None, 1), Limit(250, 1)))
    plan = tuple(stretches(1, (MODEL,), ((node,),), (0.0, 1.0)))
    kept = tmp_path / "journal.jsonl"
    try:
        stage = cluster.prepare(real_cluster, progress, (MODEL,), ((node,),))
        path = paths.cluster_directory(real_cluster.name) / "models" / f"{MODEL}.onnx"
        profiles = {MODEL: inspect(InspectionRequest(url=path.as_uri(), allow_files=True))}
        length = Length(seconds=0.3, most_seconds=5.0, queries=12)
        assert measure(stage, plan[:1], profiles, kept, None, progress, length)
        assert measure(stage, plan, profiles, kept, None, progress, length)
    finally:
        cluster.remove(real_cluster)

    windows = journal.read(kept)
    assert [window["load"] for window in windows] == [0.0, 1.0]
    assert all(len(window["latencies"]) >= 12 for window in windows)
    # The neighbour never rests: what it took before the pod was asked is most of the node.
    assert windows[0]["utilisation"] < windows[1]["utilisation"]

    write_parquet(tmp_path / "rows.parquet", journal.rows(windows, tmp_path))
    read = read_dataset(tmp_path / "rows.parquet", now=datetime.now(UTC))
    assert not read.dropped
    assert set(read.dataset.node.tolist()) == {"xlarge"}
    assert {each.cpu_limit_millicores for each in read.dataset.servings} <= {None, 250}
