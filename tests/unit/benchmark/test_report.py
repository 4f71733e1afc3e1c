"""The report of a stored run: every file of it, and figures that a reader finds in the page."""

import json
from pathlib import Path

from tailwise.benchmark.records import Competitor, RunDirectory
from tailwise.benchmark.report import write_report, write_table_three
from tests.unit.benchmark.stored import pod, run, scenario, step, workload


def test_a_stored_run_becomes_pictures_a_page_and_figures_for_machines(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.begin(run(scenario(workload(replicas=2)), cores={"n1": 0.2, "n2": 0.4}))
    directory.finish(step("default", pod("a", "n1", 400), pod("b", "n2", 200), begin=1))
    directory.finish(step("tailwise", pod("a", "n2", 250, predicted=240), pod("b", "n2", 250), begin=2))
    directory.version_path(1).mkdir(parents=True)
    rows = (Competitor(algorithm="MLP", rmsle=0.25, rmse_milliseconds=40.0, rows=9),)
    write_table_three(directory.version_path(1), rows)
    told: list[str] = []

    text = write_report(directory, lambda file: told.append(file.name))

    pictures = {
        "mean-p90.png", "avg-np90.png", "latencies.png", "placements.png", "predictions.png",
        "calibration.png", "table-three.png",
    }  # fmt: skip
    assert set(told) == {*pictures, "results.json", "report.html"}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "http" not in page.replace("http-equiv", "")
    document = json.loads((tmp_path / "results.json").read_text())
    assert [each["policy"] for each in document["policies"]] == ["default", "tailwise"]
    assert document["policies"][1]["overDefault"]["value"] == 250 / 300
    for words in ("300.0", "250.0", "0.833"):
        assert words in text
        assert words in page
