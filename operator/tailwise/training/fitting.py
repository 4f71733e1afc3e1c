"""One version: a fitted candidate, its quantile model, calibration and gates, before they are a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailwise.api.training_policy import Calibration, FeatureSet
from tailwise.prediction.artefact import Answers
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.learned import OUT_OF_DISTRIBUTION
from tailwise.prediction.manifest import BoundCalibration
from tailwise.prediction.quota import FloatArray
from tailwise.training.candidates import Candidate, Fitted, fit, fit_quantile, known_values
from tailwise.training.distance import Gate, distance, fit_gates
from tailwise.training.matrix import Matrix
from tailwise.training.splitting import families_apart

_MOST_FAMILY_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Version:
    """What is exported, in the libraries' own form."""

    fitted: Fitted
    quantile: Any
    calibration: BoundCalibration
    gates: tuple[Gate, ...]
    known_profiles: tuple[str, ...]
    target_range: tuple[float, float]
    utilisation_range: tuple[float, float]

    def answers(self, rows: Matrix) -> Answers:
        """What the exported graph is to say of these rows."""
        return Answers(
            target=self.fitted.predict(rows.values),
            upper=np.asarray(self.quantile.predict(known_values(rows.values)), dtype=np.float64),
            distance=distance(self.gates, rows.values),
        )


@dataclass(frozen=True, slots=True)
class Predicted:
    """P90 and bound in milliseconds, (rows,); where not ``known`` the operator asks the prior instead."""

    p90: FloatArray
    bound: FloatArray
    known: np.ndarray[tuple[int], np.dtype[np.bool_]]


def targets(rows: Matrix) -> FloatArray:
    """What candidates are fitted to, (rows,): log of measured over prior (Extended), milliseconds (Paper)."""
    if rows.feature_set is FeatureSet.EXTENDED:
        return np.asarray(np.log(rows.measured / rows.prior))
    return rows.measured


def milliseconds(rows: Matrix, target: FloatArray) -> FloatArray:
    """Targets back in milliseconds; (rows,)."""
    if rows.feature_set is FeatureSet.EXTENDED:
        return np.asarray(rows.prior * np.exp(target))
    return np.maximum(target, 1e-3)


def fit_version(
    candidate: Candidate,
    training: Matrix,
    calibrating: Matrix,
    settings: Calibration,
    *,
    seed: int,
    threads: int,
) -> Version:
    """Fit all parts: the candidate and the quantile on ``training``, the calibration on ``calibrating``."""
    fitted = fit(candidate, training, targets(training), seed=seed, threads=threads)
    return version_of(fitted, training, calibrating, settings, seed=seed, threads=threads)


def version_of(
    fitted: Fitted,
    training: Matrix,
    calibrating: Matrix,
    settings: Calibration,
    *,
    seed: int,
    threads: int,
) -> Version:
    """The parts around a candidate that is fitted already."""
    quantile = fit_quantile(
        training, _logs(training), settings.coverage_percent / 100, seed=seed, threads=threads
    )
    wanted = targets(training)
    return Version(
        fitted=fitted,
        quantile=quantile,
        calibration=_calibration(quantile, training, calibrating, settings, seed, threads),
        gates=fit_gates(training, settings.out_of_distribution_percent),
        known_profiles=tuple(sorted(set(training.profile_key.tolist()))),
        target_range=(float(wanted.min()), float(wanted.max())),
        utilisation_range=(float(training.utilisation.min()), float(training.utilisation.max())),
    )


def predicted(version: Version, rows: Matrix) -> Predicted:
    """What the operator would answer by this version, row by row."""
    answers = version.answers(rows)
    p90 = milliseconds(rows, np.clip(answers.target, *version.target_range))
    seen = np.isin(rows.profile_key, version.known_profiles)
    offsets = np.array(
        [
            version.calibration.offset(node_class, seen=bool(known))
            for node_class, known in zip(rows.node_class, seen, strict=True)
        ]
    )
    bound = rows.base * np.exp(answers.upper + offsets)
    least = p90 * np.where(seen, 1.0, version.calibration.unseen_factor)
    return Predicted(p90, np.maximum(bound, least), answers.distance <= OUT_OF_DISTRIBUTION)


def conformal_offset(scores: FloatArray, share: float) -> float:
    """One-sided split-conformal: the ``ceil((n + 1) share)``-th smallest of ``scores``, (n,).

    A new score from the same source is at or below it with probability at least ``share``, whatever the model
    and the distribution (Romano, Patterson, Candes 2019, one side). Of too few scores for that the largest.
    """
    rank = math.ceil((len(scores) + 1) * share)
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def _logs(rows: Matrix) -> FloatArray:
    return np.asarray(np.log(rows.measured / rows.base))


def _scores(quantile: Any, rows: Matrix) -> FloatArray:
    return np.asarray(_logs(rows) - quantile.predict(known_values(rows.values)))


def _calibration(
    quantile: Any, training: Matrix, calibrating: Matrix, settings: Calibration, seed: int, threads: int
) -> BoundCalibration:
    share = settings.coverage_percent / 100
    scores = _scores(quantile, calibrating)
    by_class = {}
    for node_class in sorted(set(calibrating.node_class.tolist())):
        own = scores[calibrating.node_class == node_class]
        if len(own) >= settings.min_samples_per_node_class:
            by_class[node_class] = conformal_offset(own, share)
    pooled = conformal_offset(scores, share)
    known = coefficients().errors
    unseen = _family_scores(training, share, seed, threads)
    return BoundCalibration(
        coverage_percent=settings.coverage_percent,
        pooled=pooled,
        by_node_class=by_class,
        unseen=max(pooled, conformal_offset(unseen, share)) if len(unseen) else pooled,
        unseen_factor=known.cpu_time_factor * known.run_factor,
    )


def _family_scores(training: Matrix, share: float, seed: int, threads: int) -> FloatArray:
    """Scores of models that the quantile model never saw: families are left out in turn; (rows,) or none."""
    scores: list[FloatArray] = []
    for fold in families_apart(training, _MOST_FAMILY_FOLDS).values():
        taught, judged = training.take(fold.training), training.take(fold.judging)
        model = fit_quantile(taught, _logs(taught), share, seed=seed, threads=threads)
        scores.append(_scores(model, judged))
    return np.concatenate(scores) if scores else np.empty(0)


def importance(fitted: Fitted, rows: Matrix, seed: int) -> dict[str, float]:
    """Growth of the squared error in target space when a feature is shuffled, as shares that add up to 1."""
    rng = np.random.default_rng(seed)
    wanted = targets(rows)
    before = float(np.mean((fitted.predict(rows.values) - wanted) ** 2))
    grown = {}
    for place, name in enumerate(rows.names):
        values = rows.values.copy()
        values[:, place] = values[rng.permutation(len(values)), place]
        grown[name] = max(0.0, float(np.mean((fitted.predict(values) - wanted) ** 2)) - before)
    total = sum(grown.values())
    return {name: value / total for name, value in grown.items()} if total else {}


def spread(rows: Sequence[int] | int, most: int) -> Any:
    """At most ``most`` places of so many rows, evenly spread over time."""
    count = rows if isinstance(rows, int) else len(rows)
    return np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).astype(np.intp))
