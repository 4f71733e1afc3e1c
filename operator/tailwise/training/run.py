"""A training run, from dataset to artefact: retention, smoothing, search, fit, calibration, export.

The same code runs in a Job and behind ``tailwise train``. Rows are split by time: the newest are held out and
judge, the newest of the rest calibrate, the others are learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from typing import Any

import numpy as np

from tailwise.api.latency_model import LatencyModelSpec
from tailwise.api.latency_model_status import Algorithm, Evaluation
from tailwise.api.training_policy import AlgorithmSearch, FeatureSet
from tailwise.prediction.artefact import load
from tailwise.prediction.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    HeldOut,
    Manifest,
    Provenance,
    Target,
    digest,
    prior_digest,
)
from tailwise.prediction.quota import FloatArray
from tailwise.training.candidates import Fitted, fit
from tailwise.training.fitting import Version, importance, predicted, spread, targets, version_of
from tailwise.training.matrix import Matrix, matrix
from tailwise.training.metrics import Errors, coverage, errors
from tailwise.training.onnx_export import onnx_bytes
from tailwise.training.rows import Dataset, DropReason
from tailwise.training.search import Judged, SearchResult, search
from tailwise.training.series import retained, smoothed
from tailwise.training.splitting import TimeSplit, split_by_time

LEAST_ROWS = 50
SIZE_BUDGET_BYTES = 16 * 2**20
PARITY_TOLERANCE = 2e-4
"""Largest difference between the graph and the library: of logarithms, or relative where milliseconds."""

_PARITY_ROWS = 2_000
_IMPORTANCE_ROWS = 2_000
_LIBRARIES = ("lightgbm", "numpy", "onnx", "scikit-learn", "xgboost-cpu")


class Stage(StrEnum):
    """Where a run is."""

    FEATURES = "Features"
    SEARCH = "Search"
    FIT = "Fit"
    CALIBRATE = "Calibrate"
    EXPORT = "Export"


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` steps of a stage; ``what`` is under way."""

    stage: Stage
    done: int
    total: int
    what: str = ""


Told = Callable[[Progress], None]


class Unfit(StrEnum):
    """Why there is no version."""

    TOO_FEW_SAMPLES = "TooFewSamples"
    TOO_LITTLE_VARIETY = "TooLittleVariety"
    TRAINING_FAILED = "TrainingFailed"


class TrainingError(ValueError):
    """No version could be made; ``reason`` is a condition's, the message names the fault and the way out."""

    def __init__(self, reason: Unfit, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """What reports are drawn from; P90s in milliseconds, each of shape (rows,)."""

    rows: Matrix
    p90: FloatArray
    bound: FloatArray
    known: np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Trained:
    """A version: its files by name, their manifest, and what was held out."""

    files: Mapping[str, bytes]
    manifest: Manifest
    heldout: HeldOutRows
    searched: SearchResult
    dropped: Mapping[DropReason, int]

    @property
    def digest(self) -> str:
        """The artefact's digest: what is noted, and compared on each load."""
        return digest(self.files[MANIFEST_FILE])


def train(
    dataset: Dataset,
    spec: LatencyModelSpec,
    *,
    threads: int = 2,
    told: Told = lambda _progress: None,
    size_budget_bytes: int = SIZE_BUDGET_BYTES,
) -> Trained:
    """Make a version by the paper's protocol.

    Raises:
        TrainingError: too few rows, nothing to tell apart, or no candidate that can be exported.
        CandidateError: a grid that cannot be used.
    """
    kept = retained(dataset, spec.dataset.max_rows_per_cell, spec.dataset.max_rows)
    learned_from = smoothed(kept.dataset, spec.smoothing.window_rows)
    _check(learned_from)
    rows = matrix(learned_from, spec.feature_set, lambda done, of: told(Progress(Stage.FEATURES, done, of)))
    split = split_by_time(len(rows), spec.search.holdout_percent)
    training, calibrating, heldout = (
        rows.take(places) for places in (split.training, split.calibration, split.heldout)
    )
    found = search(
        training,
        spec.algorithms,
        spec.search,
        threads=threads,
        tried=lambda done, of, what: told(Progress(Stage.SEARCH, done, of, what)),
    )
    fitted = _fit_all(found, training, spec, threads, told)
    version, model = _exportable(
        fitted, training, calibrating, heldout, spec, threads, told, size_budget_bytes
    )
    answered = predicted(version, heldout)
    p90 = np.where(answered.known, answered.p90, heldout.prior)
    manifest = _manifest(
        version, split, learned_from, heldout, spec, p90, answered.bound, answered.known, model
    )
    manifest = manifest.model_copy(update={"evaluations": _table(fitted, version, heldout)})
    files = {MANIFEST_FILE: manifest.document(), MODEL_FILE: model}
    load(files, "the version just made", digest(files[MANIFEST_FILE]))
    held = HeldOutRows(heldout, p90, answered.bound, answered.known)
    return Trained(files, manifest, held, found, kept.dropped)


def _check(dataset: Dataset) -> None:
    way_out = "gather more: widen spec.dataset.lookbackHours, or list measurements in spec.dataset.files"
    if len(dataset) < LEAST_ROWS:
        told = f"the dataset has {len(dataset)} rows, {LEAST_ROWS} are the least"
        raise TrainingError(Unfit.TOO_FEW_SAMPLES, f"{told}; {way_out}")
    if len(set(dataset.profile_key.tolist())) < 2:
        told = "all rows are of one model: nothing can be learned about others"
        raise TrainingError(Unfit.TOO_LITTLE_VARIETY, f"{told}; {way_out}")
    if np.ptp(dataset.p90_milliseconds) <= 1e-9 * dataset.p90_milliseconds.max():
        told = f"all P90s are {dataset.p90_milliseconds[0]:g} ms: a metric that does not move"
        raise TrainingError(Unfit.TOO_LITTLE_VARIETY, f"{told}; check the query, then {way_out}")


def _fit_all(
    found: SearchResult, training: Matrix, spec: LatencyModelSpec, threads: int, told: Told
) -> list[tuple[Judged, Fitted]]:
    """The winner first, then the best of every other algorithm, each on all training rows."""
    others = [
        each for each in found.algorithms if each.candidate.algorithm is not found.best.candidate.algorithm
    ]
    ranked = [found.best, *others]
    fitted = []
    for place, judged in enumerate(ranked):
        told(Progress(Stage.FIT, place, len(ranked), str(judged.candidate)))
        model = fit(judged.candidate, training, targets(training), seed=spec.search.seed, threads=threads)
        fitted.append((judged, model))
    return fitted


def _exportable(
    fitted: list[tuple[Judged, Fitted]],
    training: Matrix,
    calibrating: Matrix,
    heldout: Matrix,
    spec: LatencyModelSpec,
    threads: int,
    told: Told,
    size_budget_bytes: int,
) -> tuple[Version, bytes]:
    """The best candidate whose graph says what the library says and is small enough."""
    told(Progress(Stage.CALIBRATE, 0, 1, "quantile, families left out, gates"))
    first = version_of(
        fitted[0][1], training, calibrating, spec.calibration, seed=spec.search.seed, threads=threads
    )
    faults = []
    for place, (judged, model) in enumerate(fitted):
        told(Progress(Stage.EXPORT, place, len(fitted), str(judged.candidate)))
        version = Version(
            model, first.quantile, first.calibration, first.gates, first.known_profiles, first.target_range,
            first.utilisation_range,
        )  # fmt: skip
        data = onnx_bytes(version.fitted, version.quantile, version.gates, len(training.names))
        if len(data) > size_budget_bytes:
            faults.append(
                f"{judged.candidate.algorithm}: {len(data):,} bytes, {size_budget_bytes:,} are allowed"
            )
            continue
        off = parity(version, data, heldout)
        if off <= PARITY_TOLERANCE:
            return version, data
        faults.append(f"{judged.candidate.algorithm}: the ONNX graph is {off:.2g} off the library's answers")
    raise TrainingError(
        Unfit.TRAINING_FAILED, f"no candidate can be exported: {'; '.join(faults)}; give it smaller grids"
    )


def parity(version: Version, model: bytes, rows: Matrix) -> float:
    """Largest difference between the graph in ONNX Runtime and the libraries, over at most 2,000 rows.

    Of logarithms absolute, of milliseconds (Paper) and distances relative.
    """
    import onnxruntime  # noqa: PLC0415 - nobody else here runs a graph

    some = rows.take(spread(len(rows), _PARITY_ROWS))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    target, upper, distance = (
        np.asarray(each, dtype=np.float64).reshape(-1)
        for each in session.run(["target", "upper", "distance"], {"features": some.values})
    )
    expected = version.answers(some)
    scale = (
        np.ones(len(some)) if some.feature_set is FeatureSet.EXTENDED else np.maximum(expected.target, 1.0)
    )
    return float(
        max(
            np.max(np.abs(target - expected.target) / scale),
            np.max(np.abs(upper - expected.upper)),
            # The square taken apart in float32 is exact to about a thousandth of a step near 0.
            np.max(np.abs(distance - expected.distance)) / 50,
        )
    )


def _manifest(
    version: Version,
    split: TimeSplit,
    dataset: Dataset,
    heldout: Matrix,
    spec: LatencyModelSpec,
    p90: FloatArray,
    bound: FloatArray,
    known: Any,
    model: bytes,
) -> Manifest:
    candidate = version.fitted.candidate
    off = errors(heldout.measured, p90)
    covered = coverage((heldout.measured <= bound)[known])
    some = heldout.take(spread(len(heldout), _IMPORTANCE_ROWS))
    return Manifest(
        algorithm=Algorithm(candidate.algorithm.value),
        feature_set=heldout.feature_set,
        features=heldout.names,
        target=Target.LOG_RATIO_TO_PRIOR
        if heldout.feature_set is FeatureSet.EXTENDED
        else Target.MILLISECONDS,
        target_range=version.target_range,
        utilisation_range=version.utilisation_range,
        calibration=version.calibration,
        known_profiles=version.known_profiles,
        prior_digest=prior_digest(),
        provenance=Provenance(
            dataset_fingerprint=dataset.fingerprint(),
            training_rows=len(split.training),
            calibration_rows=len(split.calibration),
            heldout_rows=len(split.heldout),
            oldest_at=datetime.fromtimestamp(float(dataset.time.min()), UTC),
            newest_at=datetime.fromtimestamp(float(dataset.time.max()), UTC),
            seed=spec.search.seed,
            parameters={name: str(value) for name, value in sorted(candidate.parameters.items())},
            libraries={name: metadata.version(name) for name in _LIBRARIES},
        ),
        heldout=HeldOut(
            rows=off.rows,
            rmse_milliseconds=_rounded(off.rmse),
            rmsle=_rounded(off.rmsle),
            mape=_rounded(off.mape),
            r2=_rounded(off.r2),
            coverage=_rounded(covered.share),
            coverage_low=_rounded(covered.low),
            coverage_high=_rounded(covered.high),
            out_of_distribution_share=_rounded(float(1 - np.mean(known))),
        ),
        importance={
            name: round(value, 4)
            for name, value in importance(version.fitted, some, spec.search.seed).items()
        },
        model_digest=digest(model),
    )


def _table(fitted: list[tuple[Judged, Fitted]], version: Version, heldout: Matrix) -> tuple[Evaluation, ...]:
    """All that competed on the held-out rows, and the prior: the paper's Table III, and more."""
    bound = predicted(version, heldout).bound
    table = [evaluation(Algorithm.PRIOR, errors(heldout.measured, heldout.prior), None)]
    for judged, model in fitted:
        own = Version(
            model, version.quantile, version.calibration, version.gates, version.known_profiles,
            version.target_range, version.utilisation_range,
        )  # fmt: skip
        answered = predicted(own, heldout)
        covered = coverage(heldout.measured <= np.maximum(bound, answered.p90)).share
        off = errors(heldout.measured, answered.p90)
        table.append(evaluation(Algorithm(judged.candidate.algorithm.value), off, covered))
    return tuple(table)


def evaluation(algorithm: Algorithm, off: Errors, covered: float | None) -> Evaluation:
    """A row of the table, with figures as the API writes them: text, so that no writer rounds differently."""
    return Evaluation(
        algorithm=algorithm,
        rmse=_decimal(off.rmse, 3) or "0",
        rmsle=_decimal(off.rmsle, 4),
        mape_percent=_decimal(100 * off.mape, 2),
        r2=_decimal(off.r2, 4),
        coverage_percent=None if covered is None else _decimal(100 * covered, 1),
        samples=off.rows,
    )


def _decimal(value: float, digits: int) -> str | None:
    return f"{value:.{digits}f}" if np.isfinite(value) else None


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def default_spec(
    feature_set: FeatureSet, algorithms: tuple[AlgorithmSearch, ...] | None = None
) -> LatencyModelSpec:
    """A spec that says nothing but the feature set and, if given, the algorithms."""
    spec = LatencyModelSpec(feature_set=feature_set)
    return spec if algorithms is None else spec.model_copy(update={"algorithms": algorithms})
