"""What competes: algorithms with their hyperparameters, their grids, and how each is fitted.

Every estimator sees float32 features without NaN (``UNKNOWN`` instead) and answers in target space: the
logarithm of measured over prior (Extended) or milliseconds (Paper). Seeds are fixed and so is the number of
threads: the same rows give the same model.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from tailwise.api.training_policy import AlgorithmSearch, FeatureSet, TrainableAlgorithm
from tailwise.prediction.quota import FloatArray
from tailwise.training.matrix import UNKNOWN, Float32Array, Matrix

Value = int | float | str | tuple[int, ...]
Parameters = Mapping[str, Value]

DEFAULTS: Mapping[TrainableAlgorithm, Parameters] = MappingProxyType(
    {
        TrainableAlgorithm.RANDOM_FOREST: {
            # Unbounded trees make 75 MB of 15,000 rows; with so many leaves a forest is a few megabytes.
            "n_estimators": 100, "max_leaf_nodes": 256, "min_samples_leaf": 2, "max_features": 0.5,
        },
        TrainableAlgorithm.LIGHTGBM: {
            "n_estimators": 300, "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 10,
        },
        TrainableAlgorithm.XGBOOST: {
            "n_estimators": 300, "learning_rate": 0.05, "max_depth": 6, "min_child_weight": 3,
        },
        TrainableAlgorithm.MLP: {"hidden_layer_sizes": (64, 32), "alpha": 0.001, "learning_rate_init": 0.003},
    }
)  # fmt: skip
"""Hyperparameters before any search."""

GRIDS: Mapping[TrainableAlgorithm, Mapping[str, tuple[Value, ...]]] = MappingProxyType(
    {
        TrainableAlgorithm.RANDOM_FOREST: {
            "max_features": (0.3, 0.5, 1.0), "min_samples_leaf": (1, 3), "max_leaf_nodes": (128, 256),
        },
        TrainableAlgorithm.LIGHTGBM: {
            "num_leaves": (15, 31, 63), "learning_rate": (0.03, 0.08), "min_child_samples": (5, 20),
        },
        TrainableAlgorithm.XGBOOST: {
            "max_depth": (4, 6, 8), "learning_rate": (0.03, 0.08), "min_child_weight": (1, 5),
        },
        TrainableAlgorithm.MLP: {
            "hidden_layer_sizes": ((32,), (64, 32), (128, 64)), "alpha": (0.0001, 0.001, 0.01),
        },
    }
)  # fmt: skip
"""The grids that are searched when a LatencyModel gives none."""

_ALLOWED: Mapping[TrainableAlgorithm, frozenset[str]] = MappingProxyType(
    {
        TrainableAlgorithm.RANDOM_FOREST: frozenset(
            {
                "n_estimators", "max_depth", "max_leaf_nodes", "min_samples_leaf", "min_samples_split",
                "max_features", "max_samples",
            }
        ),
        TrainableAlgorithm.LIGHTGBM: frozenset(
            {
                "n_estimators", "learning_rate", "num_leaves", "max_depth", "min_child_samples", "subsample",
                "subsample_freq", "colsample_bytree", "reg_alpha", "reg_lambda", "min_split_gain",
            }
        ),
        TrainableAlgorithm.XGBOOST: frozenset(
            {
                "n_estimators", "learning_rate", "max_depth", "min_child_weight", "subsample",
                "colsample_bytree", "reg_alpha", "reg_lambda", "gamma", "max_leaves",
            }
        ),
        TrainableAlgorithm.MLP: frozenset(
            {"hidden_layer_sizes", "alpha", "learning_rate_init", "max_iter", "batch_size"}
        ),
    }
)  # fmt: skip

# Directions that physics gives, for features whose target is the latency itself (``Paper``).
_MONOTONE = {"effective_cores": -1, "effective_megahertz": -1, "flops": 1}


_ROWS_FOR_THREADS = 5_000


class CandidateError(ValueError):
    """A grid cannot be used; the message names the field and the way out."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm with its hyperparameters."""

    algorithm: TrainableAlgorithm
    parameters: Parameters = field(default_factory=dict)

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={value}" for name, value in sorted(self.parameters.items()))
        return f"{self.algorithm}({changed})"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted estimator of a known kind; ``estimator`` is the library's own."""

    candidate: Candidate
    estimator: Any
    feature_set: FeatureSet

    def predict(self, values: Float32Array) -> FloatArray:
        """Answers in target space, (rows,), of features with NaN where unknown."""
        answer = self.estimator.predict(known_values(values))
        return np.asarray(answer, dtype=np.float64).reshape(-1)


def _useful(threads: int, rows: int) -> int:
    """One thread for few rows: on a busy machine threads wait for each other longer than they work."""
    return threads if rows >= _ROWS_FOR_THREADS else 1


def known_values(values: Float32Array) -> Float32Array:
    """Features with ``UNKNOWN`` instead of NaN."""
    return np.where(np.isnan(values), np.float32(UNKNOWN), values)


def default_candidate(search: AlgorithmSearch) -> Candidate:
    """What an algorithm competes with before the grid is searched."""
    return Candidate(search.name, DEFAULTS[search.name])


def grid(search: AlgorithmSearch) -> list[Candidate]:
    """Every combination of the grid, the algorithm's own where the search gives none.

    Raises CandidateError for a hyperparameter or value that the algorithm does not have.
    """
    axes: Mapping[str, tuple[Value, ...]] = (
        {each.parameter: tuple(map(_parsed, each.values)) for each in search.grid}
        if search.grid
        else GRIDS[search.name]
    )
    where = f"spec.algorithms[{search.name}].grid"
    if unknown := sorted(set(axes) - _ALLOWED[search.name]):
        allowed = ", ".join(sorted(_ALLOWED[search.name]))
        raise CandidateError(f"{where}: {search.name} has no {', '.join(unknown)}; there are {allowed}")
    combinations = itertools.product(*axes.values())
    return [
        Candidate(search.name, {**DEFAULTS[search.name], **dict(zip(axes, each, strict=True))})
        for each in combinations
    ]


def _parsed(text: str) -> Value:
    """A grid's value: a whole number, a number, whole numbers with commas, or a word."""
    if "," in text:
        try:
            return tuple(int(part) for part in text.split(",") if part.strip())
        except ValueError:
            return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def fit(candidate: Candidate, rows: Matrix, targets: FloatArray, *, seed: int, threads: int) -> Fitted:
    """Fit a candidate to ``targets``, shape (rows,).

    Raises CandidateError when the library refuses a hyperparameter's value, in its own words.
    """
    values = known_values(rows.values)
    directions = monotone(rows)
    try:
        estimator = _estimator(candidate, directions, seed, _useful(threads, len(rows)), len(rows))
        _fit(candidate.algorithm, estimator, values, targets)
    except (ValueError, TypeError) as error:
        raise CandidateError(f"spec.algorithms: {candidate}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("lightgbm", "xgboost"):
            raise CandidateError(f"spec.algorithms: {candidate}: {error}") from error
        raise
    return Fitted(candidate, estimator, rows.feature_set)


def monotone(rows: Matrix) -> tuple[int, ...]:
    """Direction of each feature: 1 never faster when it grows, -1 never slower, 0 free.

    Only where the target is the latency itself. A ratio to the prior may fall with load or FLOPs while the
    latency rises, for the prior carries both: there load is made monotone in the tables.
    """
    if rows.feature_set is FeatureSet.EXTENDED:
        return (0,) * len(rows.names)
    return tuple(_MONOTONE.get(name, 0) for name in rows.names)


def _estimator(candidate: Candidate, directions: tuple[int, ...], seed: int, threads: int, rows: int) -> Any:
    parameters: dict[str, Any] = dict(candidate.parameters)
    constrained = any(directions)
    match candidate.algorithm:
        case TrainableAlgorithm.RANDOM_FOREST:
            from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415 - only what competes is loaded

            if rows > 20_000:
                parameters.setdefault("max_samples", 20_000)
            cst = list(directions) if constrained else None
            return RandomForestRegressor(**parameters, random_state=seed, n_jobs=threads, monotonic_cst=cst)
        case TrainableAlgorithm.LIGHTGBM:
            from lightgbm import LGBMRegressor  # noqa: PLC0415

            return LGBMRegressor(
                **parameters, random_state=seed, n_jobs=threads, deterministic=True, force_row_wise=True,
                monotone_constraints=list(directions) if constrained else None, verbosity=-1,
            )  # fmt: skip
        case TrainableAlgorithm.XGBOOST:
            from xgboost import XGBRegressor  # noqa: PLC0415

            return XGBRegressor(
                **parameters, random_state=seed, n_jobs=threads, tree_method="hist",
                monotone_constraints=directions if constrained else None,
            )  # fmt: skip
        case TrainableAlgorithm.MLP:
            from tailwise.training.perceptron import Perceptron  # noqa: PLC0415

            return Perceptron(parameters, seed)


def _fit(algorithm: TrainableAlgorithm, estimator: Any, values: Float32Array, targets: FloatArray) -> None:
    if algorithm is TrainableAlgorithm.XGBOOST:
        targets = targets.astype(np.float32)
    estimator.fit(values, targets)
    if algorithm is TrainableAlgorithm.RANDOM_FOREST:
        estimator.n_jobs = 1  # starting threads takes longer than asking the trees


def fit_quantile(rows: Matrix, targets: FloatArray, share: float, *, seed: int, threads: int) -> Any:
    """A model of the ``share`` quantile of ``targets`` (LightGBM, pinball loss), before its calibration."""
    from lightgbm import LGBMRegressor  # noqa: PLC0415

    model = LGBMRegressor(
        objective="quantile", alpha=share, n_estimators=150, learning_rate=0.05, num_leaves=15,
        min_child_samples=max(5, min(50, len(rows) // 40)), random_state=seed,
        n_jobs=_useful(threads, len(rows)), deterministic=True, force_row_wise=True, verbosity=-1,
    )  # fmt: skip
    return model.fit(known_values(rows.values), targets)
