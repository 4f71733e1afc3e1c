"""For a pod that no node serves within its SLO: what would have to change on the node that comes nearest.

Some dozens of predictions, made off the event loop and kept: a waiting pod asks again every few seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from tailwise.api.inference_workload import InferenceWorkloadSpec
from tailwise.api.profile import ModelProfile
from tailwise.controllers.assessment import Assessment, Assessor
from tailwise.controllers.node_facts import hardware_class
from tailwise.controllers.prediction_tables import asked, latency_model_of
from tailwise.controllers.serving import serving_of
from tailwise.controllers.view import ClusterView
from tailwise.domain.objects import Pod
from tailwise.prediction.inverse import remedies
from tailwise.prediction.prediction import NodeLoad, Question

_KEPT = 200


@dataclass(slots=True)
class RemedyFinder:
    """Answers by way of serving, class of node, SLO and load to a tenth."""

    view: ClusterView
    assessor: Assessor
    _known: dict[Hashable, str] = field(default_factory=dict)

    async def find(
        self, pod: Pod, spec: InferenceWorkloadSpec, profile: ModelProfile, assessment: Assessment
    ) -> str:
        """The end of a sentence, with what leads to it: ``; would hold at <= 4 requests/s``; or nothing."""
        best = assessment.decision.best
        hardware = self.view.hardware_of(best.node) if best is not None else None
        if best is None or hardware is None:
            return ""
        serving = serving_of(pod, spec)
        load = float(assessment.utilisation[best.position])
        utilisation = None if math.isnan(load) else round(load, 1)
        slo = spec.slo.latency_milliseconds
        threads_follow = spec.serving is None or spec.serving.threads is None
        model = latency_model_of(spec)
        predictor = self.assessor.tables.predictor(model)
        what = (asked(profile, serving, model), predictor.version, hardware_class(hardware))
        key = (*what, slo, utilisation, threads_follow)
        if key not in self._known:
            question = Question(profile, serving, hardware, NodeLoad(utilisation))
            found = await asyncio.to_thread(
                remedies, predictor, question, slo, threads_follow_limit=threads_follow
            )
            self._known[key] = found.words()
            while len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        words = self._known[key]
        return f"; {words}" if words else ""
