"""One small version that many tests look at; its data are synthetic."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.training_policy import (
    AlgorithmSearch,
    FeatureSet,
    GridParameter,
    Search,
    TrainableAlgorithm,
)
from tailwise.training.rows import Dataset
from tailwise.training.run import Trained, train
from tests.unit.training.builders import synthetic


def small_spec(
    algorithm: TrainableAlgorithm = TrainableAlgorithm.LIGHTGBM,
    feature_set: FeatureSet = FeatureSet.EXTENDED,
    grid: Mapping[str, str] | None = None,
) -> LatencyModelSpec:
    """One algorithm with a grid of one candidate, on two folds."""
    quick = {"hidden_layer_sizes": "16,8"} if algorithm is TrainableAlgorithm.MLP else {"n_estimators": "40"}
    values = grid or quick
    parameters = tuple(GridParameter(parameter=name, values=(value,)) for name, value in values.items())
    return LatencyModelSpec(
        feature_set=feature_set,
        algorithms=(AlgorithmSearch(name=algorithm, grid=parameters),),
        search=Search(folds=2),
    )


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """600 SYNTHETIC rows: the prior times what it does not know, times 3 % of noise."""
    return synthetic()


@pytest.fixture(scope="session")
def trained(dataset: Dataset) -> Trained:
    """A version trained on them with the defaults of LightGBM."""
    return train(dataset, small_spec(grid={"n_estimators": "200"}))
