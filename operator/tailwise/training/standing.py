"""The serving version on the rows that a new one was held to: what a promotion is decided by.

The rows are newer than any that the challenger learned from. Of the serving version's own held-out rows some
may be among them, of those that it learned from only where few rows came since: that favours what serves.
"""

from __future__ import annotations

import numpy as np

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.prediction.artefact import Artefact
from tailwise.prediction.learned import respond
from tailwise.training.matrix import Matrix, matrix
from tailwise.training.metrics import errors
from tailwise.training.request import JudgedVersion
from tailwise.training.rows import Dataset
from tailwise.training.run import Trained
from tailwise.training.series import retained, smoothed
from tailwise.training.splitting import split_by_time


def standings(
    trained: Trained,
    version: int,
    dataset: Dataset,
    spec: LatencyModelSpec,
    serving: tuple[int, Artefact] | None,
) -> tuple[JudgedVersion, ...]:
    """The prior, the version that serves (number and artefact) and the challenger on the held-out rows."""
    rows, metric = trained.heldout.rows, spec.search.metric
    off = errors(rows.measured, trained.heldout.p90).by(metric)
    covered = trained.manifest.heldout.coverage
    learned_from = trained.manifest.provenance
    judged = [
        JudgedVersion(version=0, error=errors(rows.measured, rows.prior).by(metric)),
        JudgedVersion(
            version=version,
            error=off,
            coverage=covered,
            samples=learned_from.training_rows + learned_from.calibration_rows,
        ),
    ]
    if serving is not None:
        number, artefact = serving
        same = artefact.manifest.feature_set is spec.feature_set
        judged.append(_standing(number, artefact, rows if same else _heldout(artefact, dataset, spec), spec))
    return tuple(judged)


def _heldout(artefact: Artefact, dataset: Dataset, spec: LatencyModelSpec) -> Matrix:
    """The same rows with the features of another version."""
    kept = retained(dataset, spec.dataset.max_rows_per_cell, spec.dataset.max_rows)
    rows = matrix(smoothed(kept.dataset, spec.smoothing.window_rows), artefact.manifest.feature_set)
    return rows.take(split_by_time(len(rows), spec.search.holdout_percent).heldout)


def _standing(number: int, artefact: Artefact, rows: Matrix, spec: LatencyModelSpec) -> JudgedVersion:
    manifest = artefact.manifest
    seen = np.isin(rows.profile_key, manifest.known_profiles)
    offsets = np.array(
        [
            manifest.calibration.offset(node_class, seen=bool(known))
            for node_class, known in zip(rows.node_class, seen, strict=True)
        ]
    )
    answered = respond(manifest, artefact.run(rows.values), rows.base, offsets)
    least = answered.p90 * np.where(seen, 1.0, manifest.calibration.unseen_factor)
    bound = np.maximum(answered.bound, least)
    p90 = np.where(answered.known, answered.p90, rows.prior)
    covered = (rows.measured <= bound)[answered.known]
    return JudgedVersion(
        version=number,
        error=errors(rows.measured, p90).by(spec.search.metric),
        coverage=float(covered.mean()) if len(covered) else 0.0,
        samples=manifest.provenance.training_rows + manifest.provenance.calibration_rows,
    )
