"""``tailwise train`` and ``tailwise report`` from a shell. The data are SYNTHETIC."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tailwise.prediction.artefact import load_directory
from tailwise.training.files import write_json_lines, write_parquet
from tests.unit.training.builders import FAMILIES, NODES, raw, raw_rows, synthetic

ROOT = Path(__file__).parents[3]
SPEC = """
apiVersion: tailwise.dev/v1alpha1
kind: LatencyModel
metadata: {name: default}
spec:
  algorithms:
  - name: LightGBM
    grid: [{parameter: n_estimators, values: ["40"]}]
  search: {folds: 2}
"""


def tailwise(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tailwise", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "latencymodel.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def version(
    tmp_path_factory: pytest.TempPathFactory, spec: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A version from half a Parquet and half a JSON Lines file with one row that cannot be used."""
    directory = tmp_path_factory.mktemp("version")
    rows = raw_rows(synthetic(rows=240))
    write_parquet(directory / "old.parquet", rows[:120])
    write_json_lines(directory / "new.jsonl", [*rows[120:], raw(cpu_utilisation=None)])
    files = ("--dataset", directory / "old.parquet", "--dataset", directory / "new.jsonl")
    out = directory / "out"
    made = tailwise("train", *files, "--out", out, "--spec", spec, "--leave-families-out")
    assert made.returncode == 0, made.stderr
    return out, made


def test_a_version_the_table_and_the_families_are_told(
    version: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, made = version
    manifest = load_directory(out).manifest
    assert manifest.provenance.heldout_rows == 48
    lines = made.stdout.splitlines()
    assert any(line.startswith("Prior") for line in lines)
    assert any(line.startswith("LightGBM") for line in lines)
    assert any(line.startswith("family mobile left out: MAPE") for line in lines)
    assert any(f"LightGBM in {out}" in line for line in lines)


def test_progress_and_what_was_dropped_go_to_the_error_stream(
    version: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    told = version[1].stderr
    for stage in (
        "Read old.parquet",
        "Features",
        "Search",
        "Fit",
        "Calibrate",
        "Export",
        "Families left out",
    ):
        assert f"{stage}: " in told
    assert "1 rows dropped, Gap: new.jsonl row 121: column cpu_utilisation is missing" in told
    evaluation = json.loads((version[0] / "evaluation.json").read_text())
    assert evaluation["dropped"] == {"Gap": 1}


def test_a_report_is_pictures_and_one_page_that_needs_no_other_file(
    version: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    made = tailwise("report", version[0], "--out", tmp_path / "report")
    assert made.returncode == 0, made.stderr
    pictures = sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    assert pictures == [
        "calibration.png",
        "feature-importance.png",
        "predicted-against-measured.png",
        "residuals-by-node-class.png",
        "table-three.png",
    ]
    for name in pictures:
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert "http://" not in page
    assert "https://" not in page
    for told in ("LightGBM", "mobile", "Gap 1", "95 % interval", "Candidates of the search"):
        assert told in page
    again = tailwise("report", version[0], "--out", tmp_path / "again")
    assert again.returncode == 0
    for name in (*pictures, "report.html"):
        assert (tmp_path / "report" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("spec_text", "told"),
    [
        ("kind: Pod", "--spec .*: kind is not LatencyModel"),
        ("[", "this is not YAML"),
        ("{kind: LatencyModel, spec: {search: {folds: 1}}}", "spec.search.folds"),
        (SPEC.replace("n_estimators", "n_trees"), "LightGBM has no n_trees"),
        (SPEC, "TooFewSamples: the dataset has 1 rows, 50 are the least"),
    ],
)
def test_what_cannot_be_used_ends_with_1_and_the_way_out(tmp_path: Path, spec_text: str, told: str) -> None:
    (tmp_path / "spec.yaml").write_text(spec_text)
    rows = [raw()] if spec_text == SPEC else raw_rows(synthetic(rows=60))
    write_json_lines(tmp_path / "rows.jsonl", rows)
    made = tailwise(
        "train",
        "--dataset",
        tmp_path / "rows.jsonl",
        "--out",
        tmp_path / "out",
        "--spec",
        tmp_path / "spec.yaml",
    )
    assert made.returncode == 1
    assert re.search(told, made.stderr)
    assert "Traceback" not in made.stderr
    assert not (tmp_path / "out").exists()


def test_a_report_of_what_is_no_version_says_what_is_missing(tmp_path: Path) -> None:
    made = tailwise("report", tmp_path)
    assert made.returncode == 1
    assert "there is no manifest.json; name a directory that tailwise train --out wrote" in made.stderr


def test_the_operators_image_can_show_the_help_without_the_training_libraries() -> None:
    blocked = (
        "import sys\n"
        "for name in ('sklearn', 'lightgbm', 'xgboost', 'pyarrow', 'matplotlib', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from tailwise.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    for words, code in ((("train", "--help"), 0), (("train", "--dataset", "x.jsonl", "--out", "out"), 1)):
        made = subprocess.run(
            [sys.executable, "-c", blocked, *words],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert made.returncode == code
    assert "install the training extra" in made.stderr


def test_a_version_predicts_where_the_prior_would(
    version: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text(FAMILIES["conv"][0].model_dump_json(by_alias=True))
    (tmp_path / "node.yaml").write_text(NODES[1].model_dump_json(by_alias=True))
    files = ("--model", tmp_path / "model.json", "--node", tmp_path / "node.yaml")
    words = ("predict", *files, "--output", "json")
    prior = json.loads(tailwise(*words).stdout)
    learned = json.loads(tailwise(*words, "--version", version[0]).stdout)
    assert (prior["source"], learned["source"]) == ("Prior", "Learned")
    # On this node everything takes 1.3 times as long as the prior thinks.
    assert learned["p90Milliseconds"] == pytest.approx(1.3 * prior["p90Milliseconds"], rel=0.15)
    assert learned["boundMilliseconds"] >= learned["p90Milliseconds"]
    none = tailwise(*words, "--version", tmp_path)
    assert none.returncode == 1
    assert "--version" in none.stderr
    assert "there is no manifest.json" in none.stderr
