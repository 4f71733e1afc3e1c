"""A learned version as a predictor: the prior corrected by what the cluster taught, bounded by calibration.

Tables: the prior is played once over the grid; the graph answers all its places at once. Beyond the load that
was seen the correction stays what it was at its end, and the prior carries the rest. A model, node or way of
serving unlike anything seen gets the prior's own answer, and the source says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tailwise.api.hardware import NodeHardware
from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.profile import ModelProfile
from tailwise.prediction.artefact import Answers, Artefact
from tailwise.prediction.coefficients import coefficients
from tailwise.prediction.features import feature_rows, profile_key
from tailwise.prediction.manifest import Manifest, Target
from tailwise.prediction.prediction import BOUND_PERCENTILE, Prediction, Question, Serving
from tailwise.prediction.predictor import PriorPredictor
from tailwise.prediction.prior import UTILISATION_GRID, Latencies, latencies, served_cost
from tailwise.prediction.quota import FloatArray
from tailwise.prediction.tables import PredictionTable, UnknownLoad

OUT_OF_DISTRIBUTION = 1.0
"""Distance above which a question is unlike anything seen; the graph's gates are scaled to it."""


@dataclass(frozen=True, slots=True)
class Response:
    """P90 and bound in milliseconds, (rows,); ``known``: not out of distribution."""

    p90: FloatArray
    bound: FloatArray
    known: np.ndarray[tuple[int], np.dtype[np.bool_]]


def respond(
    manifest: Manifest, answers: Answers, base: FloatArray, offsets: FloatArray, least_factor: float = 1.0
) -> Response:
    """What the graph's answers mean.

    ``base``: the prior's P90 where answers are ratios to it, else ones; (rows,). ``offsets``: calibration,
    (rows,). ``least_factor``: the bound is at least so many times the P90.
    """
    target = np.clip(answers.target, *manifest.target_range)
    if manifest.target is Target.LOG_RATIO_TO_PRIOR:
        p90 = base * np.exp(target)
        bound = base * np.exp(answers.upper + offsets)
    else:
        p90 = np.maximum(target, 1e-3)
        bound = np.exp(answers.upper + offsets)
    return Response(p90, np.maximum(bound, p90 * least_factor), answers.distance <= OUT_OF_DISTRIBUTION)


class LearnedPredictor:
    """Answers by a trained version; implements ``predictor.Predictor``."""

    def __init__(self, artefact: Artefact, version: int) -> None:
        if version < 1:
            raise ValueError(f"version {version}: learned versions count from 1, 0 is the prior")
        self._artefact = artefact
        self._version = version
        self._prior = PriorPredictor()
        self._seen = frozenset(artefact.manifest.known_profiles)

    @property
    def version(self) -> int:
        """Its number."""
        return self._version

    @property
    def manifest(self) -> Manifest:
        """What it was made from."""
        return self._artefact.manifest

    def predict(self, question: Question) -> Prediction:
        """Answer one question, as the table of its node class does at its load."""
        table = self.table(question.profile, question.serving, question.hardware)
        p50, p90, bound = table.at(question.load.cpu)
        terms = self._prior.predict(question).terms
        unknown = question.load.cpu is None
        return Prediction(p50, p90, bound, PredictionSource.STALE if unknown else table.source, terms)

    def table(self, profile: ModelProfile, serving: Serving, hardware: NodeHardware) -> PredictionTable:
        """Tabulate over utilisation; about as long as the prior takes, for it is most of the work.

        A version learns P90s, and its bound is calibrated for them: of other percentiles the prior tells.
        """
        if serving.bound_percentile != BOUND_PERCENTILE:
            return self._prior.table(profile, serving, hardware)
        p50, p90, bound, known = self.tabulate(profile, serving, hardware, UTILISATION_GRID)
        if not known:
            table = self._prior.table(profile, serving, hardware)
            return replace(table, source=PredictionSource.OUT_OF_DISTRIBUTION, version=self._version)
        errors = coefficients().errors
        return PredictionTable(
            p50=p50,
            p90=p90,
            bound=bound,
            unknown=UnknownLoad(errors.unknown_load_utilisation, errors.unknown_load_factor),
            source=PredictionSource.LEARNED,
            version=self._version,
        )

    def tabulate(
        self, profile: ModelProfile, serving: Serving, hardware: NodeHardware, utilisation: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, bool]:
        """P50, P90 and bound in milliseconds at ascending ``utilisation``, (n,) each; whether it is known.

        More load is never faster: each is the worst at this or any lower load.
        """
        manifest, measured = self._artefact.manifest, coefficients()
        cost = served_cost(profile, hardware, serving, measured)
        prior = latencies(cost, serving, hardware, utilisation, measured.query_sigma)
        seen, place = np.unique(np.clip(utilisation, *manifest.utilisation_range), return_inverse=True)
        # What the prior said at the loads that were seen is known from the table itself.
        at_seen = Latencies(np.interp(seen, utilisation, prior.p50), np.interp(seen, utilisation, prior.p90))
        made = feature_rows(profile, serving, hardware, seen, manifest.feature_set, played=at_seen)
        answers = self._artefact.run(made.values)
        is_seen = profile_key(profile) in self._seen
        offset = manifest.calibration.offset(hardware.node_class, seen=is_seen)
        factor = 1.0 if is_seen else manifest.calibration.unseen_factor
        response = respond(manifest, answers, at_seen.p90, np.full(len(seen), offset), factor)
        # How much more than the prior says, carried beyond the loads that were seen.
        ratio = (response.p90 / at_seen.p90)[place]
        width = (response.bound / at_seen.p90)[place]
        return (
            np.maximum.accumulate(prior.p50 * ratio),
            np.maximum.accumulate(prior.p90 * ratio),
            np.maximum.accumulate(prior.p90 * width),
            bool(response.known.all()),
        )
