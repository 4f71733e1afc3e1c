"""Learning from MEASURED times. One machine, one thread, no load and no limits: little, but true."""

from __future__ import annotations

import numpy as np

from tailwise.api.training_policy import Calibration, FeatureSet, TrainableAlgorithm
from tailwise.training.candidates import Candidate
from tailwise.training.fitting import fit_version, predicted
from tailwise.training.matrix import matrix
from tailwise.training.splitting import families_apart
from tests.unit.training.measured import measured

SMALL_TREES = Candidate(
    TrainableAlgorithm.LIGHTGBM,
    {"n_estimators": 100, "learning_rate": 0.05, "num_leaves": 7, "min_child_samples": 10},
)


def test_families_that_a_version_never_saw_err_little_and_keep_below_their_bound() -> None:
    rows = matrix(measured(), FeatureSet.EXTENDED)
    off, covered = [], []
    for fold in families_apart(rows, most=5).values():
        others, judged = rows.take(fold.training), rows.take(fold.judging)
        taught, calibrating = np.arange(len(others) * 3 // 4), np.arange(len(others) * 3 // 4, len(others))
        version = fit_version(
            SMALL_TREES, others.take(taught), others.take(calibrating), Calibration(), seed=0, threads=1
        )
        answered = predicted(version, judged)
        p90 = np.where(answered.known, answered.p90, judged.prior)
        off.append(np.abs(p90 / judged.measured - 1))
        covered.append((judged.measured <= answered.bound)[answered.known])
    assert len(np.concatenate(off)) == len(rows) == 123
    assert np.mean(np.concatenate(off)) <= 0.15
    assert np.mean(np.concatenate(covered)) >= 0.85
