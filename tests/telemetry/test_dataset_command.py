"""``tailwise dataset``: from a real Prometheus and a join document to a file that training reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tailwise.api.serving_metrics import LatencyQueries, ServingMetrics, ServingPreset
from tailwise.cli.main import main
from tailwise.telemetry.join import DatasetJoin, ServedPods, UtilisationPreset, UtilisationSource, packed
from tailwise.training.files import read_dataset
from tests.telemetry.past import WINDOW, Past
from tests.unit.prediction.builders import node, profile

WRONG = LatencyQueries(buckets="rate(no_bracket[$window]")
PRESETS = {
    "ours": (ServingPreset.OPEN_INFERENCE, "ours-.*|native-1"),
    "kserve": (ServingPreset.KSERVE, "kserve-1"),
    "vllm": (ServingPreset.VLLM, "vllm-1"),
    "mlserver": (ServingPreset.MLSERVER, "mlserver-1"),
    "triton": (ServingPreset.TRITON, "triton-1"),
}


def served(workload: str, pattern: str, preset: ServingPreset, **fields: Any) -> ServedPods:
    metrics = ServingMetrics(preset=preset, queries=fields.pop("queries", None))
    return ServedPods(
        namespace="shop", workload=workload, profile="m", metrics=metrics, pods_pattern=pattern, **fields
    )


def join(*groups: ServedPods) -> DatasetJoin:
    return DatasetJoin(
        utilisation=UtilisationSource(preset=UtilisationPreset.NODE_EXPORTER),
        profiles={"m": profile()},
        hardware=(node(cores=4).model_copy(update={"node": "worker-1"}),),
        served=groups,
    )


def dataset(past: Past, directory: Path, document: DatasetJoin, *more: str, out: str = "rows.parquet") -> int:
    (directory / "join").write_bytes(packed(document))
    # The begin of the first window to the end of the last.
    begin, end = past.span.begin - past.span.step, past.span.end
    words = ["--prometheus", past.url, "--join", str(directory / "join"), "--window", f"{WINDOW}s"]
    words += ["--from", begin.isoformat(), "--to", end.isoformat(), "--out", str(directory / out)]
    return main(["dataset", *words, *more])


@pytest.mark.parametrize("out", ["rows.parquet", "rows.jsonl"])
def test_every_presets_windows_become_rows_that_training_reads(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    groups = [served(name, pattern, preset, family=name) for name, (preset, pattern) in PRESETS.items()]
    assert dataset(past, tmp_path, join(*groups), out=out) == 0
    told = capsys.readouterr()
    read = read_dataset(tmp_path / out, now=datetime.now(UTC))
    assert not read.dropped
    assert f"{len(read.dataset)} rows of 5 workloads, 1 models" in told.out
    assert set(read.dataset.workload.tolist()) == {f"shop/{name}" for name in PRESETS}
    assert set(read.dataset.family.tolist()) == set(PRESETS)
    assert (read.dataset.p90_milliseconds > 0).all()
    assert "latency of shop/kserve" in told.err  # progress, line by line where nobody looks at a terminal


def test_windows_of_a_server_that_each_scrape_draws_one_query_from_need_ten_scrapes(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = served("torchserve", "torchserve-1", ServingPreset.TORCHSERVE)
    assert dataset(past, tmp_path, join(group)) == 5  # five scrapes in a window here
    assert "TooFewQueries" in capsys.readouterr().err


def test_what_is_dropped_is_counted_by_reason_for_people_and_programs(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ServingPreset.OPEN_INFERENCE
    document = join(
        served("iris", "ours-1", ours),
        served("iris", "ours-1", ours),  # the same pods again
        served("idle", "idle-1", ours),
        served("beyond", "beyond-1", ours),
        served("restarts", "restarts-1", ours),
        served("unknown", "unheard-of", ours),
    )
    report = tmp_path / "report.json"
    assert dataset(past, tmp_path, document, "--report", str(report)) == 0
    told = json.loads(report.read_text())
    # Of a server that is started anew all the time a window may hold none of its starts.
    assert 3 <= told["dropped"]["Duplicate"] <= told["rows"]
    assert told["dropped"]["TooFewQueries"] >= 3
    assert told["dropped"]["AboveBuckets"] >= 3
    assert told["dropped"]["Reset"] >= 1
    assert told["faults"]["shop/unknown"]["kind"] == "NoSeries"
    assert "inference_request_duration_seconds" in told["faults"]["shop/unknown"]["message"]
    assert told["faults"]["shop/idle"]["kind"] == "NoRows"
    assert "windows dropped, Reset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "code", "words"),
    [
        (
            served(
                "w", "a", ServingPreset.CUSTOM, queries=LatencyQueries(buckets="rate(no_bracket[$window]")
            ),
            3,
            "parse error",
        ),
        (served("w", "a", ServingPreset.TRITON), 5, "nv_inference_request_summary_us"),
        (served("w", "idle-1", ServingPreset.OPEN_INFERENCE), 5, "TooFewQueries"),
    ],
)
def test_without_a_row_the_exit_code_says_why_and_no_file_is_written(
    past: Past,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    group: ServedPods,
    code: int,
    words: str,
) -> None:
    assert dataset(past, tmp_path, join(group)) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "rows.parquet").exists()


def test_a_prometheus_that_is_away_has_an_exit_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "join").write_bytes(packed(join(served("w", "a", ServingPreset.KSERVE))))
    words = ["--prometheus", "http://127.0.0.1:9", "--join", str(tmp_path / "join")]
    assert main(["dataset", *words, "--out", str(tmp_path / "rows.parquet"), "--timeout-seconds", "5"]) == 4
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_a_join_document_that_cannot_be_read_is_told_with_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "join").write_text('{"served": [{"namespace": 7}]}')
    words = ["--prometheus", "http://127.0.0.1:9", "--join", str(tmp_path / "join")]
    assert main(["dataset", *words, "--out", str(tmp_path / "rows.parquet")]) == 1
    assert "served.0.namespace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "2100-01-01T00:00:00Z"), "lies in the future"),
        (("--from", "60s", "--window", "5m"), "no whole window of 300 s"),
    ],
)
def test_times_without_a_whole_window_are_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "join").write_bytes(packed(join()))
    common = ["--prometheus", "http://127.0.0.1:9", "--join", str(tmp_path / "join")]
    assert main(["dataset", *common, "--out", str(tmp_path / "rows.parquet"), *words]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "yesterday"),
        ("--window", "0"),
        ("--out", "rows.csv"),
        ("--prometheus", "localhost:9090"),
    ],
)
def test_wrong_options_are_wrong_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, str]) -> None:
    given = {"--prometheus": "http://p", "--join": "j", "--out": "rows.parquet"} | {words[0]: words[1]}
    with pytest.raises(SystemExit) as ended:
        main(["dataset", *[word for pair in given.items() for word in pair]])
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(
    past: Past, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = join(served("iris", "ours-1", ServingPreset.OPEN_INFERENCE))
    assert dataset(past, tmp_path, document, out="nowhere/rows.parquet") == 1
    assert "nowhere/rows.parquet" in capsys.readouterr().err
    assert past.span.step == timedelta(seconds=WINDOW)
