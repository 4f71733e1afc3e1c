"""How good a version is, for people: families left out, and the rows that reports are drawn from.

``evaluation.json`` stands beside an artefact and is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tailwise.api.document import Document
from tailwise.api.latency_model import LatencyModelSpec
from tailwise.training.candidates import Candidate
from tailwise.training.fitting import fit_version, predicted
from tailwise.training.matrix import Matrix
from tailwise.training.metrics import coverage, errors
from tailwise.training.rows import DropReason
from tailwise.training.run import Trained
from tailwise.training.splitting import CALIBRATION_SHARE, families_apart

EVALUATION_FILE = "evaluation.json"


class FamilyLeftOut(Document):
    """One family of models, predicted by a version that never saw it.

    ``coverage`` is of the rows that the gate let through, of all where it let none.
    """

    family: str
    rows: int = Field(ge=1)
    mape: float
    rmsle: float
    prior_mape: float
    coverage: float
    coverage_low: float
    coverage_high: float
    out_of_distribution_share: float


class HeldOutColumns(Document):
    """Held-out rows as columns; P90s in milliseconds. ``predicted`` is what the operator would answer."""

    time: tuple[float, ...]
    measured: tuple[float, ...]
    predicted: tuple[float, ...]
    bound: tuple[float, ...]
    prior: tuple[float, ...]
    known: tuple[bool, ...]
    node_class: tuple[str, ...]
    family: tuple[str, ...]
    profile: tuple[str, ...]


class TriedCandidate(Document):
    """A candidate of the search and its error over all folds."""

    candidate: str
    rmse_milliseconds: float
    rmsle: float
    mape: float
    rows: int


class RunEvaluation(Document):
    """What ``evaluation.json`` holds."""

    artefact_digest: str
    heldout: HeldOutColumns
    tried: tuple[TriedCandidate, ...]
    families: tuple[FamilyLeftOut, ...] = ()
    dropped: dict[str, int] = Field(default_factory=dict)


def leave_families_out(
    rows: Matrix,
    candidate: Candidate,
    spec: LatencyModelSpec,
    *,
    threads: int,
    told: Callable[[int, int, str], None] = lambda _done, _of, _what: None,
) -> tuple[FamilyLeftOut, ...]:
    """Each family predicted by a version fitted and calibrated on the others; none when there is one only.

    ``rows`` are in order of time; of each version's rows the newest quarter calibrate. Where the gate says
    out of distribution the operator would ask the prior, and so does this.
    """
    folds = families_apart(rows)
    results = []
    for place, (family, fold) in enumerate(folds.items()):
        told(place, len(folds), family)
        others, judged = rows.take(fold.training), rows.take(fold.judging)
        begin = len(others) - max(1, round(len(others) * CALIBRATION_SHARE))
        version = fit_version(
            candidate,
            others.take(np.arange(begin)),
            others.take(np.arange(begin, len(others))),
            spec.calibration,
            seed=spec.search.seed,
            threads=threads,
        )
        answered = predicted(version, judged)
        p90 = np.where(answered.known, answered.p90, judged.prior)
        bounded = answered.known if answered.known.any() else np.ones(len(judged), dtype=bool)
        off, covered = errors(judged.measured, p90), coverage((judged.measured <= answered.bound)[bounded])
        results.append(
            FamilyLeftOut(
                family=family,
                rows=len(judged),
                mape=off.mape,
                rmsle=off.rmsle,
                prior_mape=errors(judged.measured, judged.prior).mape,
                coverage=covered.share,
                coverage_low=covered.low,
                coverage_high=covered.high,
                out_of_distribution_share=float(1 - np.mean(answered.known)),
            )
        )
    return tuple(results)


def run_evaluation(
    trained: Trained, families: tuple[FamilyLeftOut, ...], dropped: Mapping[DropReason, int]
) -> RunEvaluation:
    """What stands beside the artefact; ``dropped`` is what cleaning left out."""
    rows, held = trained.heldout.rows, trained.heldout

    def numbers(values: Any) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in values)

    counts = dict(dropped)
    for reason, count in trained.dropped.items():
        counts[reason] = counts.get(reason, 0) + count
    return RunEvaluation(
        artefact_digest=trained.digest,
        heldout=HeldOutColumns(
            time=tuple(float(value) for value in rows.time),
            measured=numbers(rows.measured),
            predicted=numbers(held.p90),
            bound=numbers(held.bound),
            prior=numbers(rows.prior),
            known=tuple(bool(value) for value in held.known),
            node_class=tuple(rows.node_class.tolist()),
            family=tuple(rows.family.tolist()),
            profile=tuple(rows.profile_key.tolist()),
        ),
        tried=tuple(
            TriedCandidate(
                candidate=str(each.candidate),
                rmse_milliseconds=each.errors.rmse,
                rmsle=each.errors.rmsle,
                mape=each.errors.mape,
                rows=each.errors.rows,
            )
            for each in trained.searched.tried
        ),
        families=families,
        dropped={reason.value: count for reason, count in sorted(counts.items())},
    )
