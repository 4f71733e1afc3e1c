"""A dataset as numbers to learn from: features, the prior's answer, the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tailwise.api.training_policy import FeatureSet
from tailwise.prediction.features import feature_names, feature_rows
from tailwise.prediction.quota import FloatArray
from tailwise.training.rows import Dataset, IndexArray, TextArray
from tailwise.training.series import groups

UNKNOWN = -1.0
"""Stands for NaN in what is learned from: no feature is negative otherwise, and it is the same in ONNX."""

_CHUNK = 1000
Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows as numbers, oldest first.

    ``values``: float32 (rows, features), NaN where unknown. ``prior`` and ``measured``: P90 in milliseconds,
    (rows,). The texts beside them, (rows,), are what splits and calibration go by.
    """

    feature_set: FeatureSet
    values: Float32Array
    prior: FloatArray
    measured: FloatArray
    time: FloatArray
    utilisation: FloatArray
    profile_key: TextArray
    family: TextArray
    node_class: TextArray

    def __len__(self) -> int:
        return len(self.measured)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of ``values``."""
        return feature_names(self.feature_set)

    @property
    def base(self) -> FloatArray:
        """What targets are ratios to: the prior for Extended, a millisecond for Paper; (rows,)."""
        return self.prior if self.feature_set is FeatureSet.EXTENDED else np.ones(len(self))

    def take(self, rows: IndexArray | NDArray[np.bool_]) -> Matrix:
        """The rows at these places, or where the mask is true."""
        return replace(
            self,
            values=self.values[rows],
            prior=self.prior[rows],
            measured=self.measured[rows],
            time=self.time[rows],
            utilisation=self.utilisation[rows],
            profile_key=self.profile_key[rows],
            family=self.family[rows],
            node_class=self.node_class[rows],
        )


def matrix(
    dataset: Dataset, feature_set: FeatureSet, progress: Callable[[int, int], None] = lambda _done, _of: None
) -> Matrix:
    """Features of each row; rows of one model, node and way of serving share one play of the prior."""
    values = np.empty((len(dataset), len(feature_names(feature_set))), dtype=np.float32)
    prior = np.empty(len(dataset))
    keys = list(zip(dataset.profile_index, dataset.hardware_index, dataset.serving_index, strict=True))
    done = 0
    for (profile, hardware, serving), rows in groups(keys).items():
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            frequency = dataset.frequency_utilisation[chunk]
            made = feature_rows(
                dataset.profiles[profile],
                dataset.servings[serving],
                dataset.hardware[hardware],
                dataset.cpu_utilisation[chunk],
                feature_set,
                frequency=None if np.isnan(frequency).all() else frequency,
            )
            values[chunk] = made.values
            prior[chunk] = made.prior.p90
            done += len(chunk)
            progress(done, len(dataset))
    return Matrix(
        feature_set=feature_set,
        values=values,
        prior=np.maximum(prior, 1e-6),
        measured=dataset.p90_milliseconds,
        time=dataset.time,
        utilisation=dataset.cpu_utilisation,
        profile_key=dataset.profile_key,
        family=dataset.family,
        node_class=dataset.node_class,
    )
