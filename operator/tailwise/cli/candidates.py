"""A decision as rows: what was known of each node, what was predicted there, what became of it and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tailwise.api.inference_workload_status import PredictionSource
from tailwise.api.placement_policy import Objective
from tailwise.cli.answering import Document, figure
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.domain.capacity import Floats, effective_capacity
from tailwise.domain.scoring import SOURCES, PredictedLatencies
from tailwise.domain.verdicts import Filter, Refusal

WINS, FITS = "wins", "fits"
_ORDER = {WINS: 0, FITS: 1}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One node as the decision saw it; figures are None where there is none.

    ``effective_cores`` is equation (6): what is left of the node by its utilisation. ``verdict`` is ``wins``,
    ``fits`` or what refused it; ``reason`` gives the figures behind that.
    """

    node: str
    effective_cores: float | None
    utilisation_percent: float | None
    data_age_seconds: float | None
    predicted_p90_milliseconds: float | None
    bound_milliseconds: float | None
    added_milliseconds: float | None
    source: str | None
    verdict: str
    reason: str

    def document(self) -> Document:
        """The row as JSON."""
        return {
            "node": self.node,
            "effectiveCores": self.effective_cores,
            "utilisationPercent": self.utilisation_percent,
            "dataAgeSeconds": self.data_age_seconds,
            "predictedP90Milliseconds": self.predicted_p90_milliseconds,
            "boundMilliseconds": self.bound_milliseconds,
            "addedToResidentsMilliseconds": self.added_milliseconds,
            "source": self.source,
            "verdict": self.verdict,
            "reason": self.reason,
        }


def decision_document(assessor: Assessor, assessment: Assessment, objective: Objective) -> Document:
    """A decision and all its candidates as JSON."""
    decision = assessment.decision
    return {
        "sloMilliseconds": decision.slo_milliseconds,
        "outcome": decision.outcome.value,
        "winner": decision.node,
        "message": decision.message(),
        "candidates": [row.document() for row in candidate_rows(assessor, assessment, objective)],
    }


def candidate_rows(assessor: Assessor, assessment: Assessment, objective: Objective) -> list[CandidateRow]:
    """All nodes, the winner first, then those that fit, then by what the decision would prefer."""
    decision, predicted, effects = assessment.decision, assessment.predicted, assessment.effects
    unknown = np.full(len(decision.verdicts.names), math.nan)
    cores = effective_capacity(assessment.capacity_cores, assessment.utilisation, unknown, unknown).cores
    score = predicted.p90_milliseconds + (effects.added_milliseconds if effects else 0.0)
    rows = []
    for place, name in enumerate(decision.verdicts.names):
        refusal = decision.verdicts.of(place)
        p90 = figure(predicted.p90_milliseconds[place])
        verdict = refusal.words if refusal is not None else WINS if name == decision.node else FITS
        rows.append(
            CandidateRow(
                node=name,
                effective_cores=figure(cores[place]),
                utilisation_percent=figure(100 * assessment.utilisation[place], 1),
                data_age_seconds=figure(predicted.age_seconds[place], 0),
                predicted_p90_milliseconds=p90,
                bound_milliseconds=figure(predicted.bound_milliseconds[place]),
                added_milliseconds=figure(effects.added_milliseconds[place]) if effects else None,
                source=_source(predicted, place) if p90 is not None else None,
                verdict=verdict,
                reason=_refused(assessor, assessment, place, refusal)
                if refusal is not None
                else _behind(assessment, score, place, objective),
            )
        )
    return sorted(rows, key=_preferred)


def _preferred(row: CandidateRow) -> tuple[int, float, str]:
    p90 = row.predicted_p90_milliseconds
    score = math.inf if p90 is None else p90 + (row.added_milliseconds or 0.0)
    return (_ORDER.get(row.verdict, 2), score, row.node)


def _refused(assessor: Assessor, assessment: Assessment, place: int, refusal: Refusal) -> str:
    """The figures behind a refusal of Tailwise's own; kube-scheduler's words say all there is."""
    if refusal.by is Filter.SLO:
        bound, slo = assessment.predicted.bound_milliseconds[place], assessment.decision.slo_milliseconds
        return f"bound {bound:.1f} ms is over {slo:g} ms"
    if refusal.by is Filter.NEIGHBOURS:
        whose = assessor.pushed_over(assessment, place)
        more = f" and {len(whose) - _NAMED} more" if len(whose) > _NAMED else ""
        return f"{', '.join(whose[:_NAMED])}{more}" if whose else ""
    return ""


def _behind(assessment: Assessment, score: Floats, place: int, objective: Objective) -> str:
    """How far a node that fits is from the winner, by what the objective goes by."""
    best = assessment.decision.best
    if best is None or best.position == place:
        return ""
    if objective is Objective.TIGHTEST:
        bounds = assessment.predicted.bound_milliseconds
        return f"{bounds[best.position] - bounds[place]:.1f} ms more headroom than {best.node}"
    behind = score[place] - score[best.position]
    if behind <= 0.05:
        return f"as good as {best.node}"
    return f"{behind:.1f} ms more than {best.node}"


def _source(predicted: PredictedLatencies, place: int) -> str:
    source = SOURCES[int(predicted.source_codes[place])]
    return f"{source} (version {predicted.version})" if source is PredictionSource.LEARNED else source.value
