"""A training run as a whole. All data here are SYNTHETIC: accuracy on them proves nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tailwise.api.latency_model_status import Algorithm
from tailwise.api.training_policy import FeatureSet, Search, SearchStrategy, TrainableAlgorithm
from tailwise.prediction.manifest import MODEL_FILE
from tailwise.training.candidates import CandidateError
from tailwise.training.rows import Dataset, dataset_of
from tailwise.training.run import Progress, Stage, Trained, TrainingError, Unfit, train
from tests.unit.training.builders import FAMILIES, row, synthetic
from tests.unit.training.conftest import small_spec


def test_what_the_prior_does_not_know_is_learned(trained: Trained) -> None:
    by_algorithm = {each.algorithm: each for each in trained.manifest.evaluations}
    prior, learned = by_algorithm[Algorithm.PRIOR], by_algorithm[Algorithm.LIGHTGBM]
    assert float(prior.mape_percent or 0) > 10
    assert float(learned.mape_percent or 100) < 6
    assert float(learned.rmse) < float(prior.rmse) / 2


def test_every_row_of_the_table_is_judged_on_the_same_held_out_rows(trained: Trained) -> None:
    assert {each.samples for each in trained.manifest.evaluations} == {120}
    assert trained.manifest.provenance.heldout_rows == 120


def test_the_newest_rows_judge_and_the_next_newest_calibrate(trained: Trained, dataset: Dataset) -> None:
    assert trained.heldout.rows.time.min() > np.sort(dataset.time)[479]
    assert trained.manifest.provenance.calibration_rows == 120
    assert trained.manifest.provenance.training_rows == 360


@pytest.mark.parametrize("algorithm", TrainableAlgorithm)
@pytest.mark.parametrize("feature_set", FeatureSet)
def test_the_same_data_give_the_same_artefact_whatever_the_order_of_rows(
    algorithm: TrainableAlgorithm, feature_set: FeatureSet
) -> None:
    # Parity of the graph with the library is checked by the run itself, for every algorithm and feature set.
    data = synthetic(rows=150)
    first = train(data, small_spec(algorithm, feature_set))
    shuffled = data.take(np.random.default_rng(1).permutation(len(data)))
    second = train(shuffled.by_time(), small_spec(algorithm, feature_set))
    assert dict(first.files) == dict(second.files)
    assert first.digest == second.digest
    assert first.manifest.algorithm == algorithm.value


def test_another_seed_or_other_data_give_another_artefact() -> None:
    data = synthetic(rows=150)
    spec = small_spec(TrainableAlgorithm.RANDOM_FOREST)
    seeded = spec.model_copy(update={"search": Search(folds=2, seed=1)})
    assert train(data, spec).digest != train(data, seeded).digest
    assert train(data, spec).digest != train(synthetic(rows=150, seed=1), spec).digest


@pytest.mark.parametrize(
    ("rows", "reason", "told"),
    [
        ([], Unfit.TOO_FEW_SAMPLES, "0 rows, 50 are the least"),
        ([row(minute, 10.0 + minute) for minute in range(40)], Unfit.TOO_FEW_SAMPLES, "40 rows"),
        ([row(minute, 10.0 + minute) for minute in range(60)], Unfit.TOO_LITTLE_VARIETY, "of one model"),
        (
            [row(minute, 10.0, profile=FAMILIES["conv"][minute % 2]) for minute in range(60)],
            Unfit.TOO_LITTLE_VARIETY,
            "all P90s are 10 ms",
        ),
    ],
)
def test_data_that_teach_nothing_are_refused_with_a_reason_and_a_way_out(
    rows: list[object], reason: Unfit, told: str
) -> None:
    with pytest.raises(TrainingError, match=told) as error:
        train(dataset_of(rows), small_spec())  # type: ignore[arg-type]
    assert error.value.reason is reason
    assert "spec.dataset" in str(error.value)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"n_trees": "100"}, "LightGBM has no n_trees; there are .*n_estimators"),
        ({"n_estimators": "many"}, "n_estimators"),
        ({"num_leaves": "1"}, "num_leaves"),
    ],
)
def test_a_grid_that_cannot_be_used_is_refused_by_field_and_value(grid: dict[str, str], told: str) -> None:
    with pytest.raises(CandidateError, match=told) as error:
        train(synthetic(rows=80), small_spec(grid=grid))
    assert "spec.algorithms" in str(error.value)


def test_an_artefact_over_its_budget_is_not_made_and_the_sizes_are_told() -> None:
    with pytest.raises(TrainingError, match=r"LightGBM: [\d,]+ bytes, 10,000 are allowed") as error:
        train(synthetic(rows=150), small_spec(), size_budget_bytes=10_000)
    assert error.value.reason is Unfit.TRAINING_FAILED


def test_progress_names_the_stage_and_the_candidate_and_never_runs_backwards() -> None:
    told: list[Progress] = []
    spec = small_spec(grid={"num_leaves": "7"})
    train(synthetic(rows=120), spec, told=told.append)
    stages = [each.stage for each in told]
    assert sorted(set(stages), key=stages.index) == list(Stage)
    for stage in Stage:
        done = [each.done for each in told if each.stage is stage]
        assert done == sorted(done)
    assert all(each.done <= each.total for each in told)
    assert any("num_leaves=7" in each.what for each in told)


def test_successive_halving_judges_its_winner_on_all_rows() -> None:
    spec = small_spec()
    search = Search(folds=2, strategy=SearchStrategy.SUCCESSIVE_HALVING)
    grids = spec.algorithms[0].model_copy(update={"grid": ()})
    made = train(synthetic(rows=700), spec.model_copy(update={"search": search, "algorithms": (grids,)}))
    tried = made.searched.tried
    assert made.searched.best.errors.rows == 420
    assert sum(each.errors.rows == 420 for each in tried) < len(tried)


def test_more_smoothing_changes_what_is_learned(dataset: Dataset) -> None:
    spec = small_spec()
    window = spec.smoothing.model_copy(update={"window_rows": 5})
    smooth = train(dataset, spec.model_copy(update={"smoothing": window}))
    assert smooth.files[MODEL_FILE] != train(dataset, spec).files[MODEL_FILE]


def test_rows_with_clocks_and_without_are_learned_together() -> None:
    data = synthetic(rows=120)
    clocked = tuple(each.model_copy(update={"maximum_megahertz": 2300}) for each in data.hardware[:1])
    made = train(replace(data, hardware=(*clocked, *data.hardware[1:])), small_spec())
    assert made.manifest.heldout.rows == 24
