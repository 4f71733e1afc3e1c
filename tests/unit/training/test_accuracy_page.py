"""docs/accuracy.md is made from measured rows only; here it is drawn from a SYNTHETIC version."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.accuracy import Goal, goals, main, page
from tailwise.api.training_policy import FeatureSet
from tailwise.training.evaluation import FamilyLeftOut
from tailwise.training.files import write_parquet
from tailwise.training.rows import Dataset
from tailwise.training.run import Trained
from tests.unit.training.builders import raw_rows, synthetic

FAMILY = FamilyLeftOut(
    family="resnet", rows=100, mape=0.2, rmsle=0.1, prior_mape=0.15,
    coverage=0.9, coverage_low=0.8, coverage_high=0.95, out_of_distribution_share=0.0,
)  # fmt: skip


def test_synthetic_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "rows.parquet", raw_rows(synthetic(rows=60)))
    assert main([str(tmp_path / "rows.parquet"), "--out", str(tmp_path / "accuracy.md")]) == 1
    assert "holds synthetic rows" in capsys.readouterr().err
    assert not (tmp_path / "accuracy.md").exists()


def test_every_figure_of_the_page_is_the_versions_own(trained: Trained, dataset: Dataset) -> None:
    text = page(
        "rows.parquet", dataset, "none", {FeatureSet.EXTENDED: trained}, {FeatureSet.EXTENDED: (FAMILY,)}
    )
    for each in trained.manifest.evaluations:
        assert f"| Extended | {each.algorithm} | {each.rmse} | {each.rmsle} |" in text
    assert "| Extended | resnet | 100 | 20.0 | 15.0 |" in text
    assert "MAPE, families left out | at most 0.15 | 0.200 | missed by 0.050 |" in text
    assert dataset.fingerprint() in text


def test_what_falls_short_says_by_how_much(trained: Trained) -> None:
    made = goals(trained, (FAMILY,))
    assert [each.what for each in made][-2:] == ["MAPE, families left out", "coverage, families left out"]
    assert "reached" in made[-1].line
    assert "missed by 0.060" in Goal("coverage of the 0.90 bound", 0.84, 0.90, 0.95).line
    assert "missed by 0.010" in Goal("coverage of the 0.90 bound", 0.96, 0.90, 0.95).line
